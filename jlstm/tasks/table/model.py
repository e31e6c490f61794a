"""A forecaster: an LSTM reads a window of a series, and quantiles of the steps to come.

Several steps are foretold at once. A window is seen from its last value, so that a series which is
moved up or down as a whole is foretold alike, as much moved; and it is read in patches of P steps,
for which the LSTM needs P times fewer steps. With x_1 … x_L the window, k what is known of its
steps and of the H to come (a price, say), e what is known of the window as a whole (which series it
is of, the hour at which it ends), [,] side by side::

    u_l = x_l − x_L
    h   = the last output of the LSTM, which reads [u, k of P steps, e], patch after patch
    m   = max(0, [h, e, k_{L+1} … k_{L+H}]·M + a)
    y   = m·R + r                                                     [H, quantiles]

    median of step j:   q_j = x_L + y_j + (u·A + b)_j + (k_{L+j} − k_L)·w
    the quantile above another, and below:   q' = q + softplus(y'_j)      q' = q − softplus(y'_j)

so that quantiles cannot cross. Once it is trained, each softplus may be stretched, by what
``calibrating.py`` finds on the validation part: the median stays, and still nothing crosses. With r
the mean of |x_l − x_{l−1}| over the window and r̄ that of its series as a rule,

    softplus(y'_j) · s_j · (r/r̄)^p                            r/r̄ at least 1/4 and at most 4

A, b and w, the linear map beside the LSTM, may be left out. R, b
and w start at 0, and A at what is given: at 0 the point forecast is the last value; at a linear fit
it is that fit, and the LSTM has only to learn where that goes wrong. Everything is a pure function
of ``Forecaster``, a pytree of parameters.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from jlstm.checks import check_flag, check_function, check_number, check_size
from jlstm.layers import LayerParams, Stack, init_stack, stack
from jlstm.tasks.running import Run, check_stack
from jlstm.tasks.table.batch import WindowBatch
from jlstm.types import check_array, check_float, check_key


@dataclass(frozen=True, kw_only=True)
class ForecasterConfig:
    """What a forecaster is made of: all but its weights.

    Raises:
        TypeError: an option of another type.
        ValueError: a size out of range; quantiles that do not rise, are not between 0 and 1, or
            lack the median.
    """

    lookback: int
    """Steps of a window."""
    horizon: int
    """Steps to forecast."""
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    """Which, rising, with the median among them."""
    series: int = 1
    """How many series are told apart."""
    past: int = 0
    """Features known up to now, beside the values."""
    known: int = 0
    """Features known over window and horizon."""
    about: int = 0
    """Features of a window as a whole."""
    embedding: int = 8
    """Learned features of a series; none where there is one series."""
    stack: Stack = field(default_factory=lambda: Stack(sizes=64))
    """The LSTM."""
    width: int = 128
    """Units between the LSTM and the forecast."""
    patch: int = 4
    """Steps of the window that the LSTM reads at once. The oldest ones that make no whole patch are
    left to the linear map."""
    linear: bool = True
    """Whether there is a linear map from the window to the forecast beside the LSTM."""

    def __post_init__(self) -> None:
        for name in ("lookback", "horizon", "series", "width", "patch"):
            check_size(name, getattr(self, name))
        for name in ("past", "known", "about", "embedding"):
            check_size(name, getattr(self, name), 0)
        check_flag("linear", self.linear)
        check_quantiles(self.quantiles)
        check_stack("stack", self.stack)
        if self.patch > self.lookback:
            raise ValueError(
                f"patch: expected at most the {self.lookback} steps of the window, got {self.patch}"
            )

    @property
    def median(self) -> int:
        """The place of the median among the quantiles."""
        return self.quantiles.index(0.5)

    @property
    def whole(self) -> int:
        """Features of a window as a whole, the learned ones of its series included."""
        return self.about + (self.embedding if self.series > 1 else 0)


def check_quantiles(quantiles: Any) -> None:
    """Raise unless these are numbers between 0 and 1 that rise, with the median among them."""
    if not isinstance(quantiles, tuple):
        raise TypeError(f"quantiles: expected a tuple, got {type(quantiles).__name__}")
    for q in quantiles:
        check_number("quantiles", q)
    if list(quantiles) != sorted({q for q in quantiles if 0 < q < 1}) or 0.5 not in quantiles:
        raise ValueError(
            "quantiles: expected rising numbers between 0 and 1 with 0.5 among them, "
            f"got {', '.join(map(str, quantiles)) or 'none'}"
        )


class LinearMap(NamedTuple):
    """What stands beside the LSTM."""

    window: Float[Array, "lookback horizon"]
    """A: what the values of the window add."""
    bias: Float[Array, " horizon"]
    effect: Float[Array, " known"]
    """w: what a known feature adds as it changes from the last step of the window."""


ROUGHEST = 4.0
"""How far the roughness of a window may be above or below that of its series, to be minded."""


class Calibration(NamedTuple):
    """How the distances between quantiles are stretched once a forecaster is trained."""

    spread: Float[Array, "series horizon quantile"]
    """s: of each quantile, that to its neighbour on the side of the median; of the median 1."""
    usual: Float[Array, " series"]
    """r̄: mean |x_l − x_{l−1}| of a window."""
    power: Float[Array, ""]
    """p: how much a window rougher than that counts."""


class Forecaster(NamedTuple):
    """The parameters of a forecaster; see the module for the equations."""

    embedding: Float[Array, "series embedding"] | None
    """One row for each series; None where there is one series."""
    lstm: tuple[LayerParams, ...]
    """Of the stack."""
    hidden: Float[Array, "inputs width"]
    """M: from the LSTM's last output and what is known of series and future."""
    hidden_bias: Float[Array, " width"]
    readout: Float[Array, "width horizon quantile"]
    readout_bias: Float[Array, "horizon quantile"]
    linear: LinearMap | None
    """None where there is none."""
    calibration: Calibration | None = None
    """None in training, and where there is none."""


def init_forecaster(
    key: PRNGKeyArray,
    config: ForecasterConfig,
    *,
    window: Float[Array | np.ndarray, "lookback horizon"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Forecaster:
    """Fresh parameters, whose point forecast is the last value, or a linear one.

    Args:
        key: a key of ``jax.random``.
        config: what the forecaster is made of.
        window: A of the linear map; None for 0.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError: an argument of another type, or a dtype that is not floating-point.
        ValueError: ``window`` of another shape.
    """
    check_key("key", key)
    _check_config(config)
    dtype = check_float("dtype", dtype)
    c = config
    shape = (c.lookback, c.horizon)
    if window is not None:
        window = check_array("window", window, shape)
    key_embedding, key_stack, key_hidden = jax.random.split(key, 3)
    embedding = None
    if c.series > 1:
        embedding = 0.1 * jax.random.normal(key_embedding, (c.series, c.embedding), dtype)
    inputs = c.stack.output_size + c.whole + c.horizon * c.known
    hidden = jax.random.normal(key_hidden, (inputs, c.width), dtype)
    linear = LinearMap(
        window=jnp.zeros(shape, dtype) if window is None else jnp.asarray(window, dtype),
        bias=jnp.zeros(c.horizon, dtype),
        effect=jnp.zeros(c.known, dtype),
    )
    return Forecaster(
        embedding=embedding,
        lstm=init_stack(
            key_stack, c.patch * (1 + c.past + c.known) + c.whole, c.stack, dtype=dtype
        ),
        hidden=hidden / jnp.sqrt(jnp.asarray(inputs, dtype)),
        hidden_bias=jnp.zeros(c.width, dtype),
        readout=jnp.zeros((c.width, c.horizon, len(c.quantiles)), dtype),
        readout_bias=jnp.zeros((c.horizon, len(c.quantiles)), dtype),
        linear=linear if c.linear else None,
    )


def forecast(
    config: ForecasterConfig,
    params: Forecaster,
    batch: WindowBatch,
    *,
    run: Run = stack,
) -> Float[Array, "horizon batch quantile"]:
    """The quantiles of each step to come; ``[..., config.median]`` is the point forecast.

    Args:
        config: what the forecaster is made of.
        params: its parameters.
        batch: the windows; ``targets`` are not looked at, and ``key`` is the key for what is
            random: without one, nothing is dropped. (Under ``jit`` a series out of range is not
            noticed and taken as the nearest there is.)
        run: what runs the stack.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape.
    """
    c, p, b = config, params, _check_batch(config, params, batch)
    check_function("run", run)
    count = b.values.shape[1]
    now = b.values[-1]
    window = b.values - now
    about = b.about
    if p.embedding is not None:
        about = jnp.concatenate([jnp.take(p.embedding, b.series, axis=0, mode="clip"), about], -1)

    steps = c.lookback // c.patch
    read = jnp.concatenate([window[..., None], b.past, b.known[: c.lookback]], axis=-1)
    read = read[c.lookback - steps * c.patch :]
    patches = read.reshape(steps, c.patch, count, -1).swapaxes(1, 2).reshape(steps, count, -1)
    everywhere = jnp.broadcast_to(about, (steps, *about.shape))
    xs = jnp.concatenate([patches, everywhere], axis=-1)
    quiet = c.stack if b.key is not None else c.stack.without_noise()
    _, hs = run(quiet, p.lstm, None, xs, key=b.key)

    future = b.known[c.lookback :].swapaxes(0, 1).reshape(count, -1)
    m = jnp.concatenate([hs[-1], about, future], axis=-1) @ p.hidden + p.hidden_bias
    y = jnp.einsum("bw,whq->hbq", jax.nn.relu(m), p.readout) + p.readout_bias[:, None]

    middle = now + y[..., c.median]
    if p.linear is not None:
        changes = b.known[c.lookback :] - b.known[c.lookback - 1]
        middle = middle + p.linear.window.T @ window + p.linear.bias[:, None]
        middle = middle + changes @ p.linear.effect
    widths = jax.nn.softplus(y)
    if p.calibration is not None:
        widths = widths * _stretch(p.calibration, b)
    middle = middle[..., None]
    below = middle - jnp.cumsum(widths[..., : c.median][..., ::-1], axis=-1)[..., ::-1]
    above = middle + jnp.cumsum(widths[..., c.median + 1 :], axis=-1)
    return jnp.concatenate([below, middle, above], axis=-1)


def _stretch(
    calibration: Calibration, batch: WindowBatch
) -> Float[Array, "horizon batch quantile"]:
    """By what the distances of these windows are multiplied."""
    spread, usual, power = (a.astype(batch.values.dtype) for a in calibration)
    spread = jnp.take(spread, batch.series, axis=0, mode="clip").swapaxes(0, 1)
    usual = jnp.take(usual, batch.series, mode="clip")
    ratio = jnp.clip(roughness(batch.values) / usual, 1 / ROUGHEST, ROUGHEST)
    return spread * (ratio**power)[:, None]


def roughness(values: Float[Array | np.ndarray, "lookback batch"]) -> Float[Array, " batch"]:
    """Mean |x_l − x_{l−1}| of each window; of one step, 0."""
    total = jnp.sum(jnp.abs(jnp.diff(values, axis=0)), axis=0)
    return total / max(1, len(values) - 1)


def forecaster_loss(
    config: ForecasterConfig,
    params: Forecaster,
    carry: None,
    batch: WindowBatch,
    *,
    run: Run = stack,
) -> tuple[Float[Array, ""], None]:
    """Twice the mean quantile loss over targets and quantiles (Koenker & Bassett 1978).

    With d = target − forecast of quantile q, that of one is max(q·d, (q − 1)·d); of the median
    alone, the mean absolute error is what is returned. Targets that are NaN do not count, and where
    none counts the loss is 0.

    Args:
        config: what the forecaster is made of.
        params: its parameters.
        carry: None, for a batch remembers nothing of the one before.
        batch: the windows, with targets.
        run: what runs the stack.

    Returns:
        The loss, and the carry.

    Raises:
        TypeError, ValueError: as for ``forecast``, and for a batch without targets.
    """
    quantiles = forecast(config, params, batch, run=run)
    if batch.targets is None:
        raise ValueError("batch.targets: expected an array, got None")
    shape = quantiles.shape[:-1]
    targets = check_array("batch.targets", batch.targets, shape).astype(quantiles.dtype)
    counts = jnp.isfinite(targets)[..., None]
    d = jnp.where(counts, targets[..., None] - quantiles, 0.0)
    q = jnp.asarray(config.quantiles, quantiles.dtype)
    total = 2.0 * jnp.sum(jnp.maximum(q * d, (q - 1) * d))
    count = (len(config.quantiles) * jnp.sum(counts)).astype(total.dtype)
    return total / jnp.maximum(count, 1.0), carry


def target_count(batch: WindowBatch) -> float:
    """How many targets count: what the mean of ``forecaster_loss`` was taken over."""
    return float(np.isfinite(np.asarray(batch.targets)).sum())


def _check_config(config: Any) -> None:
    if not isinstance(config, ForecasterConfig):
        raise TypeError(f"config: expected ForecasterConfig, got {type(config).__name__}")


def _check_batch(config: ForecasterConfig, params: Any, batch: Any) -> WindowBatch:
    """The batch as arrays of the parameters' dtype; raise unless all fit together."""
    _check_config(config)
    if not isinstance(params, Forecaster):
        raise TypeError(f"params: expected Forecaster, got {type(params).__name__}")
    if not isinstance(batch, WindowBatch):
        raise TypeError(f"batch: expected WindowBatch, got {type(batch).__name__}")
    values = check_array("batch.values", batch.values, (config.lookback, "batch"))
    count = values.shape[1]
    shapes = {
        "series": (count,),
        "past": (config.lookback, count, config.past),
        "known": (config.lookback + config.horizon, count, config.known),
        "about": (count, config.about),
    }
    arrays = {
        name: check_array(f"batch.{name}", getattr(batch, name), shape)
        for name, shape in shapes.items()
    }
    if not jnp.issubdtype(arrays["series"].dtype, jnp.integer):
        raise TypeError(f"batch.series: expected integers, got {arrays['series'].dtype.name}")
    dtype = params.hidden.dtype
    floats = {name: array.astype(dtype) for name, array in arrays.items() if name != "series"}
    return batch._replace(values=values.astype(dtype), series=arrays["series"], **floats)
