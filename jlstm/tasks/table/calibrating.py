"""Intervals that cover what they say: the quantiles of a trained model fitted to its errors.

A model whose 80 % intervals hold 89 % of the truths is too careful, and its errors on the
validation part show it: it was not trained on them. So, once trained, the distance w_k from each
quantile to its neighbour on the side of the median is multiplied by an s_k; on that part,

    s_k is the q_k-quantile of (y − m − Σ_{j<k} s_j·w_j) / w_k      k = 1, 2 … above m, the median

and likewise below it: conformalised quantile regression (Romano et al. 2019), from the median
outwards, with factors in place of offsets, so that the median stays and no quantiles cross. In
place of q stands q·(n + 1)/n, the correction for n independent windows. Windows that overlap are
not independent: n counts how many there would be that do not.

An s is that of a target and a step ahead, where there are ``ENOUGH`` of these windows for each;
else that of a step for all targets together, and below that one for all. It is drawn towards 1, as
if ``ENOUGH`` more windows had said that the model is right: s^(n/(n + ENOUGH)). A time that is
calmer than the validation part has smaller errors, and what a window looks like tells: the
distances go with a power of its roughness, see ``model.py``; of ``POWERS`` the one with the lowest
quantile loss on the validation part is taken.

Errors of other months may be others. So all of this has to prove itself first: what is found on the
earlier half of the validation part has to lower the quantile loss on the later half, and the other
way round. Where it does not, in sum, or there are fewer than ``FEWEST`` windows, the quantiles stay
as they were trained.
"""

import hashlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jlstm.tasks.running import runner
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import (
    ROUGHEST,
    Calibration,
    Forecaster,
    ForecasterConfig,
    forecast,
    roughness,
)
from jlstm.tasks.table.preparing import load
from jlstm.tasks.table.training import AT_ONCE, MOST_VALIDATED, model_config
from jlstm.tasks.table.windows import batches, find_windows, make_panel
from jlstm.tensors import named, read_tensors
from jlstm.train import save_params

FILE = "calibration.safetensors"
"""In the folder of a run: what was found, and of which parameters."""
ENOUGH = 30
"""Windows that do not overlap, for a factor of its own."""
FEWEST = 10
"""Such windows, below which the quantiles stay as they are."""
LEAST, MOST = 1e-3, 1e3
"""A factor: quantiles are not to fall together, or to leave what float32 can hold."""
MOST_NUMBERS = 2**23
"""Of windows times steps, that are looked at."""
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Sample(NamedTuple):
    """What a model foretold for some windows, and what came."""

    truth: Float[np.ndarray, "windows horizon"]
    """NaN where nobody knows."""
    quantiles: Float[np.ndarray, "windows horizon quantile"]
    series: Int[np.ndarray, " windows"]
    """Which target of which series each window is of."""
    roughness: Float[np.ndarray, " windows"]


def ready(config: TableConfig, folder: Path, params: Forecaster) -> Forecaster:
    """The parameters with their calibration: that of the run's folder, or found and put there.

    Raises:
        OSError, ValueError: the data of the run is needed, and not as it was written.
    """
    if not config.calibrate or len(config.quantiles) == 1:
        return params
    path = folder / FILE
    if path.is_file():
        with suppress(ValueError, TypeError):  # a damaged one is found again
            arrays, about = read_tensors(path)
            kept = Calibration(**{n: jnp.asarray(a) for n, a in arrays.items()}) if arrays else None
            if about.get("of") == _sums(params, kept):
                return params._replace(calibration=kept)
    found = find(config, folder, params)
    keep(folder, params, found)
    return params._replace(calibration=found)


def keep(folder: Path, params: Forecaster, found: Calibration | None) -> None:
    """Write the calibration of these parameters into the folder of a run.

    Raises:
        OSError: it cannot be written.
    """
    save_params(folder / FILE, found, {"of": _sums(params, found)})


def _sums(params: Forecaster, found: Calibration | None) -> str:
    """The SHA-256 of the numbers of both: a damaged calibration, or one of others, is noticed."""
    sums = []
    for tree in (params, found):
        sums.append(hashlib.sha256())
        for name, leaf in named(tree).items():
            sums[-1].update(name.encode())
            sums[-1].update(np.asarray(leaf).tobytes())
    return " ".join(one.hexdigest() for one in sums)


def find(config: TableConfig, folder: Path, params: Forecaster) -> Calibration | None:
    """The calibration of these parameters; None where it would not help, see above."""
    _, schema, series = load(folder)
    panel, model = make_panel(series, schema), model_config(config, schema)
    places = find_windows(series, panel, "validation")
    pairs = panel.member[places.origins] * len(schema.roles.target) + places.targets
    apart = np.bincount(pairs, minlength=model.series) / schema.horizon
    if apart.sum() < FEWEST:
        return None
    looked_at = places.evenly(min(MOST_VALIDATED, max(1, MOST_NUMBERS // schema.horizon)))
    compiled = jax.jit(partial(forecast, model, run=runner(config.implementation)))
    parts = []
    for batch, here in batches(panel, looked_at, AT_ONCE):
        found = np.asarray(compiled(params, batch), np.float64).swapaxes(0, 1)
        rough = np.asarray(roughness(jnp.asarray(batch.values)), np.float64)
        part = (np.asarray(batch.targets, np.float64).T, found, np.asarray(batch.series), rough)
        parts.append([array[: len(here)] for array in part])
    sample = Sample(*map(np.concatenate, zip(*parts, strict=True)))
    order = np.argsort(series.times(schema.step)[looked_at.origins], kind="stable")
    if not proves_itself(model, sample, apart, order):
        return None
    return calibrate(model, sample, apart)


def proves_itself(
    model: ForecasterConfig,
    sample: Sample,
    apart: Float[np.ndarray, " series"],
    order: Int[np.ndarray, " windows"],
) -> bool:
    """Whether quantiles fitted to one half of the windows are better on the other half.

    Args:
        model: what the model is made of.
        sample: its forecasts of windows that were not trained on.
        apart: how many of them that do not overlap each target has.
        order: the windows in order of time.
    """
    halves = [Sample(*(a[half] for a in sample)) for half in np.array_split(order, 2)]
    if not all(np.isfinite(half.truth).any() for half in halves):
        return False
    before = after = 0.0
    for own, other in (halves, halves[::-1]):
        found = calibrate(model, own, apart / 2)
        before += _loss(model, other, other.quantiles)
        after += _loss(model, other, apply(model, other, found))
    return after < before


def calibrate(
    model: ForecasterConfig, sample: Sample, apart: Float[np.ndarray, " series"]
) -> Calibration:
    """The factors that make quantiles what they say, of windows that were not trained on.

    Args:
        model: what the model is made of.
        sample: its forecasts of such windows.
        apart: how many windows that do not overlap each target has.
    """
    usual = _usual(sample, model.series)
    ratio = _ratio(sample, usual)
    powers = POWERS if model.lookback > 1 else POWERS[:1]
    found = []
    for power in powers:
        spread = _spread(model, sample, apart, ratio**power)
        stretched = _stretched(model, sample.quantiles, spread[sample.series], ratio**power)
        found.append((_loss(model, sample, stretched), power, spread))
    _, power, spread = min(found, key=lambda one: one[0])
    return Calibration(*(jnp.asarray(a, jnp.float32) for a in (spread, usual, power)))


def apply(
    model: ForecasterConfig, sample: Sample, found: Calibration
) -> Float[np.ndarray, "windows horizon quantile"]:
    """The quantiles of a sample, calibrated, as ``forecast`` does it."""
    spread, usual, power = (np.asarray(a, np.float64) for a in found)
    return _stretched(
        model, sample.quantiles, spread[sample.series], _ratio(sample, usual) ** power
    )


def _ratio(sample: Sample, usual: Float[np.ndarray, " series"]) -> Float[np.ndarray, " windows"]:
    """How much rougher than usual each window is."""
    with np.errstate(divide="ignore"):
        ratio = sample.roughness / usual[sample.series]
    clipped: Float[np.ndarray, " windows"] = np.clip(ratio, 1 / ROUGHEST, ROUGHEST)
    return clipped


def _loss(
    model: ForecasterConfig,
    sample: Sample,
    quantiles: Float[np.ndarray, "windows horizon quantile"],
) -> float:
    """The quantile loss, summed over all truths that are known."""
    d, q = sample.truth[..., None] - quantiles, np.asarray(model.quantiles)
    return float(np.nansum(np.maximum(q * d, (q - 1) * d)))


def _usual(sample: Sample, series: int) -> Float[np.ndarray, " series"]:
    """The geometric mean roughness of each target; where nothing is known, that of all."""
    seen = sample.roughness > 0
    logs = np.log(sample.roughness[seen])
    count = np.bincount(sample.series[seen], minlength=series)
    total = np.bincount(sample.series[seen], logs, series)
    whole = logs.mean() if logs.size else 0.0
    found: Float[np.ndarray, " series"] = np.exp(
        np.where(count > 0, total / np.maximum(count, 1), whole)
    )
    return found


def _widths(
    model: ForecasterConfig, quantiles: Float[np.ndarray, "windows horizon quantile"]
) -> Float[np.ndarray, "windows horizon quantile"]:
    """The distance of each quantile to its neighbour on the side of the median."""
    apart = np.diff(quantiles, axis=-1)
    return np.insert(apart, model.median, 0.0, axis=-1)


def _stretched(
    model: ForecasterConfig,
    quantiles: Float[np.ndarray, "windows horizon quantile"],
    spread: Float[np.ndarray, "windows horizon quantile"],
    factor: Float[np.ndarray, " windows"],
) -> Float[np.ndarray, "windows horizon quantile"]:
    """The quantiles with all distances stretched, as ``forecast`` does it."""
    widths = _widths(model, quantiles) * spread * factor[:, None, None]
    m = model.median
    middle = quantiles[..., m, None]
    below = middle - np.cumsum(widths[..., :m][..., ::-1], axis=-1)[..., ::-1]
    above = middle + np.cumsum(widths[..., m + 1 :], axis=-1)
    return np.concatenate([below, middle, above], axis=-1)


def _spread(
    model: ForecasterConfig,
    sample: Sample,
    apart: Float[np.ndarray, " series"],
    factor: Float[np.ndarray, " windows"],
) -> Float[np.ndarray, "series horizon quantile"]:
    """The factor of each target, step and quantile, from the median outwards."""
    widths = _widths(model, sample.quantiles) * factor[:, None, None]
    middle = sample.quantiles[..., model.median]
    spread = np.ones((model.series, model.horizon, len(model.quantiles)))
    for sign, places in (
        (1, range(model.median + 1, len(model.quantiles))),
        (-1, range(model.median - 1, -1, -1)),
    ):
        rest = sign * (sample.truth - middle)
        for place in places:
            q = model.quantiles[place]
            width = np.maximum(widths[..., place], np.finfo(np.float32).tiny)
            level = q if sign > 0 else 1 - q
            spread[..., place] = _factors(rest / width, sample.series, apart, level)
            rest = rest - spread[sample.series, :, place] * width
    return spread


def _factors(
    scores: Float[np.ndarray, "windows horizon"],
    series: Int[np.ndarray, " windows"],
    apart: Float[np.ndarray, " series"],
    level: float,
) -> Float[np.ndarray, "series horizon"]:
    """The quantile of the scores, drawn towards 1: of each target and step, or of more together."""

    def quantile(part: Float[np.ndarray, "..."], n: float, axis: int | None) -> Any:
        found = np.nanquantile(part, min(1.0, level * (n + 1) / n), axis=axis)
        return np.clip(found, LEAST, MOST) ** (n / (n + ENOUGH))

    def has_enough(part: Float[np.ndarray, "windows horizon"], n: float) -> bool:
        return n >= ENOUGH and bool((np.isfinite(part).sum(axis=0) >= ENOUGH).all())

    together = float(apart.sum())
    every = quantile(scores, together, 0 if has_enough(scores, together) else None)
    found: Float[np.ndarray, "series horizon"] = np.empty((len(apart), scores.shape[1]))
    found[:] = every
    for n in np.flatnonzero(apart >= ENOUGH):
        own = scores[series == n]
        if has_enough(own, apart[n]):
            found[n] = quantile(own, apart[n], 0)
    return found
