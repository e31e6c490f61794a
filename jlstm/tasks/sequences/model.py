"""Labels for sequences: a stack of LSTMs, pooling over time, and a linear map to what is asked.

With hs = stack(xs), n the length of a sequence and D for dropout, a whole sequence is scored by::

    s = D([h_n, (Σ_t h_t)/n, max_t h_t])·R + r          t = 1 … n

where, in two directions, the last state h_n of what walks back is the one at the first step, and
each step of it by ``s_t = D(h_t)·R + r``. Scores are logits of the classes, or, one to a sequence,
the number asked for. The loss is a weighted mean over all that has a label::

    L = (Σ_k w_k·l_k)/(Σ_k w_k)      l = −log softmax(s)[target]  or  (s − target)²

Weights are 0 at padding, so that neither steps behind the end of a sequence nor sequences that only
fill up a batch have any influence, and larger for classes whose errors are to count more.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_flag, check_function, check_number, check_size
from jlstm.dropout import dropout_mask
from jlstm.layers import LayerParams, Stack, init_stack, last, maximum, mean, stack
from jlstm.tasks.running import Run, check_stack
from jlstm.tasks.sequences.batch import SequenceBatch
from jlstm.types import check_array, check_key


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """What a labeller is made of: all but its weights.

    Raises:
        TypeError: an option of another type.
        ValueError: a size below 1, or a rate out of range.
    """

    inputs: int
    """Features of a step."""
    outputs: int
    """Classes, or 1 for a number."""
    stack: Stack
    """The LSTM."""
    pooled: bool = True
    """Whether a whole sequence gets one label, rather than each step."""
    dropout: float = 0.0
    """Part of the features left out before the readout, the same at every step of a sequence."""
    smoothing: float = 0.0
    """Part of each target's probability that is shared out among all classes, so that the model
    does not grow too sure (Szegedy et al. 2016)."""

    def __post_init__(self) -> None:
        check_size("inputs", self.inputs)
        check_size("outputs", self.outputs)
        check_stack("stack", self.stack)
        check_flag("pooled", self.pooled)
        check_number("dropout", self.dropout, least=0, below=1)
        check_number("smoothing", self.smoothing, least=0, below=1)


class Labeller(NamedTuple):
    """The parameters of a labeller."""

    lstm: tuple[LayerParams, ...]
    """Of the stack."""
    readout: Float[Array, "features outputs"]
    readout_bias: Float[Array, " outputs"]


def init_labeller(
    key: PRNGKeyArray, config: LabellerConfig, *, dtype: DTypeLike = jnp.float32
) -> Labeller:
    """Fresh parameters, with which every class is equally likely and every number 0.

    Args:
        key: a key of ``jax.random``.
        config: what the model is made of.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError: an argument of another type.
    """
    c = _check_config(config)
    layers = init_stack(key, c.inputs, c.stack, dtype=dtype)
    features = c.stack.output_size * (3 if c.pooled else 1)
    return Labeller(layers, jnp.zeros((features, c.outputs), dtype), jnp.zeros(c.outputs, dtype))


def label_scores(
    config: LabellerConfig,
    params: Labeller,
    xs: Float[Array | np.ndarray, "time batch input"],
    lengths: Int[Array | np.ndarray, " batch"],
    *,
    key: PRNGKeyArray | None = None,
    run: Run = stack,
) -> Float[Array, "*steps batch outputs"]:
    """The scores of each sequence, ``[batch, outputs]``, or each step, ``[time, batch, outputs]``.

    Args:
        config: what the model is made of.
        params: its parameters.
        xs: the sequences, padded with any finite numbers.
        lengths: steps that count.
        key: for all dropout, that of the stack included; without one, nothing is dropped.
        run: what runs the stack.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    c = _check_config(config)
    if not isinstance(params, Labeller):
        raise TypeError(f"params: expected Labeller, got {type(params).__name__}")
    check_function("run", run)
    layers: Stack = c.stack.without_noise()
    noise: dict[str, PRNGKeyArray] = {}
    if key is not None:
        check_key("key", key)
        noise["key"], key = jax.random.split(key)
        layers = c.stack
    xs = check_array("xs", xs, ("time", "batch", "input"))
    lengths = check_array("lengths", lengths, xs.shape[1:2])
    _, hs = run(layers, params.lstm, None, xs, lengths=lengths, **noise)
    if c.pooled:
        ends = last(hs, lengths, layers)
        hs = jnp.concatenate([ends, mean(hs, lengths), maximum(hs, lengths)], axis=-1)
    if c.dropout and key is not None:
        hs = hs * dropout_mask(key, c.dropout, hs.shape[-2:], hs.dtype)
    return hs @ params.readout + params.readout_bias


def labeller_loss(
    config: LabellerConfig,
    params: Labeller,
    carry: None,
    batch: SequenceBatch,
    *,
    run: Run = stack,
) -> tuple[Float[Array, ""], None]:
    """The weighted mean of what each label is off: see the module.

    Whether labels are classes or numbers is seen by the dtype of ``batch.targets``.

    Args:
        config: what the model is made of.
        params: its parameters.
        carry: None, for a batch remembers nothing of the one before.
        batch: the sequences; ``batch.key`` is the key for what is random.
        run: what runs the stack.

    Returns:
        The loss, in nats for classes (0 where nothing counts), and the carry.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    if not isinstance(batch, SequenceBatch):
        raise TypeError(f"batch: expected SequenceBatch, got {type(batch).__name__}")
    c, shape = _check_config(config), jnp.shape(batch.xs)[:2]
    targets = check_array("batch.targets", batch.targets, shape[1:] if c.pooled else shape)
    scores = label_scores(c, params, batch.xs, batch.lengths, key=batch.key, run=run)
    weights = check_array("batch.weights", batch.weights, targets.shape).astype(scores.dtype)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        wanted = jax.nn.one_hot(targets, scores.shape[-1], dtype=scores.dtype)
        losses = optax.softmax_cross_entropy(scores, optax.smooth_labels(wanted, c.smoothing))
    else:
        losses = jnp.square(scores[..., 0] - targets.astype(scores.dtype))
    # Not even NaN counts where the weight is 0.
    total = jnp.sum(jnp.where(weights > 0, weights * losses, jnp.zeros_like(losses)))
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, jnp.ones_like(count)), carry


def label_count(batch: SequenceBatch) -> float:
    """What the mean of ``labeller_loss`` was taken over: the sum of the weights."""
    return float(batch.weights.sum())


def _check_config(config: Any) -> LabellerConfig:
    if not isinstance(config, LabellerConfig):
        raise TypeError(f"config: expected LabellerConfig, got {type(config).__name__}")
    return config
