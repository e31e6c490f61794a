"""The model in NumPy."""

from typing import Any

import numpy as np


def sigmoid(x: Any) -> Any:
    """1/(1 + e⁻ˣ), for any x."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def lstm(
    w_ih: Any, w_hh: Any, b: Any, xs: Any, h: Any, c: Any, *, lengths: Any = None,
    reverse: bool = False, zoneout: float = 0.0,
) -> Any:  # fmt: skip
    """One direction of one layer: xs [time, batch, input] to hs [time, batch, hidden], h and c."""
    hs = np.zeros((*xs.shape[:2], w_hh.shape[0]), xs.dtype)
    for t in range(len(xs))[:: -1 if reverse else 1]:
        z = np.einsum("bx,xgh->gbh", xs[t], w_ih) + np.einsum("by,ygh->gbh", h, w_hh) + b[:, None]
        i, f, g, o = z
        after = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        out = sigmoid(o) * np.tanh(after)
        after = zoneout * c + (1 - zoneout) * after
        counts = np.full((len(h), 1), True) if lengths is None else t < lengths[:, None]
        hs[t], h, c = counts * out, np.where(counts, out, h), np.where(counts, after, c)
    return hs, h, c


def stack(weights: Any, hs: Any, state: Any = None, **options: Any) -> Any:
    """All layers; the state is h and c of each, side by side, [batch, size]."""
    after = []
    for n in range(sum(name.endswith("forward.w_ih") for name in weights)):
        outs = []
        for way in ("forward", "backward"):
            if f"{n}.{way}.w_ih" in weights:
                w_ih, w_hh, b = (weights[f"{n}.{way}.{name}"] for name in ("w_ih", "w_hh", "b"))
                size = w_hh.shape[0]
                h = c = np.zeros((hs.shape[1], size), hs.dtype)
                if state is not None:
                    h, c, state = np.split(state, [size, 2 * size], axis=1)
                back = way == "backward"
                out, h, c = lstm(w_ih, w_hh, b, hs, h, c, reverse=back, **options)
                outs.append(out)
                after += [h, c]
        hs = np.concatenate(outs, axis=-1)
    return hs, np.concatenate(after, axis=1)


def text(weights: Any, sizes: Any, tokens: Any, state: Any = None) -> dict[str, Any]:
    """A language model: tokens [time, batch] to the logits of those that follow, and the state."""
    hs, state = stack(weights, weights["embedding"][tokens], state, zoneout=sizes["zoneout"])
    readout = weights["embedding"].T if sizes["tied"] else weights["readout"]
    return {"logits": hs @ readout + weights["readout_bias"], "state": state}


def table(
    weights: Any, sizes: Any, values: Any, series: Any, past: Any = None, known: Any = None,
    about: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """A forecaster: windows to quantiles [horizon, batch, quantiles]."""
    lookback, patch, median = sizes["lookback"], sizes["patch"], sizes["median"]
    steps, batch = lookback // patch, values.shape[1]
    window, whole = values - values[-1], [np.zeros((batch, 0), values.dtype)]
    whole += [weights["embedding"][series]] if "embedding" in weights else []
    whole += [about] if about is not None else []
    read = [window[..., None]] + ([past] if past is not None else [])
    read += [known[:lookback]] if known is not None else []
    patches = np.concatenate(read, axis=-1)[lookback - steps * patch :]
    patches = patches.reshape(steps, patch, batch, -1).swapaxes(1, 2).reshape(steps, batch, -1)
    everywhere = [np.broadcast_to(one, (steps, *one.shape)) for one in whole]
    hs, _ = stack(weights, np.concatenate([patches, *everywhere], axis=-1))
    future = [known[lookback:].swapaxes(0, 1).reshape(batch, -1)] if known is not None else []
    m = np.concatenate([hs[-1], *whole, *future], axis=-1)
    m = np.maximum(m @ weights["hidden"] + weights["hidden_bias"], 0)
    y = np.einsum("bw,whq->hbq", m, weights["readout"]) + weights["readout_bias"][:, None]
    middle = values[-1] + y[..., median]
    if sizes["linear"]:
        middle = middle + weights["linear.window"].T @ window + weights["linear.bias"][:, None]
        if known is not None:
            middle = middle + (known[lookback:] - known[lookback - 1]) @ weights["linear.effect"]
    widths = np.logaddexp(0, y).astype(y.dtype)
    if sizes["calibrated"]:
        spread, usual, power = (weights[f"calibration.{n}"] for n in ("spread", "usual", "power"))
        rough = np.abs(np.diff(values, axis=0)).sum(0) / max(1, lookback - 1)
        widths = widths * spread[series].swapaxes(0, 1)
        widths = widths * (np.clip(rough / usual[series], 1 / 4, 4) ** power)[:, None]
    below = np.cumsum(widths[..., :median][..., ::-1], axis=-1)[..., ::-1]
    above = np.cumsum(widths[..., median + 1 :], axis=-1)
    middle = middle[..., None]
    return {"quantiles": np.concatenate([middle - below, middle, middle + above], axis=-1)}


def sequences(weights: Any, sizes: Any, xs: Any, lengths: Any) -> dict[str, Any]:
    """A labeller: sequences to the scores of each, or of each step."""
    hs, _ = stack(weights, xs, lengths=lengths)
    if sizes["pooled"]:
        steps, half = np.arange(len(xs))[:, None, None], hs.shape[-1] // 2
        valid, last = steps < lengths[:, None], steps == lengths[:, None] - 1
        ends = np.sum(last * hs, axis=0)
        if sizes["bidirectional"]:
            ends[:, half:] = hs[0, :, half:]
        mean = hs.sum(axis=0) / np.maximum(lengths, 1)[:, None].astype(hs.dtype)
        most = np.where(valid, hs, -np.inf).max(axis=0)
        hs = np.concatenate([ends, mean, np.where(lengths[:, None] > 0, most, 0)], axis=-1)
    return {"scores": hs @ weights["readout"] + weights["readout_bias"]}
