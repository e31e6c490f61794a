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

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_flag, check_function, check_number, check_size
from jlstm.dropout import dropout_mask
from jlstm.layers import LayerParams, Stack, init_stack, last, maximum, mean, stack
from jlstm.types import check_array, check_key

Layer = Callable[..., tuple[Any, Array]]
"""``(params, carry, xs, *, lengths, key) -> (carry, hs)``."""
Over = Callable[[Layer], Layer]


class Labeller(NamedTuple):
    """The parameters of a labeller."""

    lstm: tuple[LayerParams, ...]
    """Of the stack."""
    readout: Float[Array, "features outputs"]
    readout_bias: Float[Array, " outputs"]


class SequenceBatch(NamedTuple):
    """Sequences padded to one length, and what they are to be labelled with."""

    xs: Float[Array | np.ndarray, "time batch input"]
    lengths: Int[Array | np.ndarray, " batch"]
    """Steps that count; 0 for a sequence that only fills up the batch."""
    targets: Array | np.ndarray
    """A class for each sequence, int ``[batch]``, or for each step, int ``[time, batch]``; or a
    number for each sequence, float ``[batch]``."""
    weights: Array | np.ndarray
    """How much each target counts, float, of the shape of ``targets``; 0 at padding."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""


def init_labeller(
    key: PRNGKeyArray,
    input_size: int,
    outputs: int,
    config: Stack,
    *,
    pooled: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Labeller:
    """Fresh parameters, with which every class is equally likely and every number 0.

    Args:
        key: a key of ``jax.random``.
        input_size: features of a step.
        outputs: classes, or 1 for a number.
        config: the stack.
        pooled: whether a whole sequence gets one label, rather than each step.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError, ValueError: an argument of another type, or a size below 1.
    """
    check_size("outputs", outputs)
    check_flag("pooled", pooled)
    layers = init_stack(key, input_size, config, dtype=dtype)
    features = config.output_size * (3 if pooled else 1)
    return Labeller(layers, jnp.zeros((features, outputs), dtype), jnp.zeros(outputs, dtype))


def label_scores(
    params: Labeller,
    xs: Float[Array | np.ndarray, "time batch input"],
    lengths: Int[Array | np.ndarray, " batch"],
    config: Stack,
    *,
    pooled: bool = True,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
    over: Over | None = None,
) -> Float[Array, "*steps batch outputs"]:
    """The scores of each sequence, ``[batch, outputs]``, or each step, ``[time, batch, outputs]``.

    Args:
        params: the parameters.
        xs: the sequences, padded with any finite numbers.
        lengths: steps that count.
        config: the stack that ``params.lstm`` belongs to.
        pooled: one label for a sequence, or one for each step.
        dropout: the part of the features that is set to 0 before the readout, the rest being scaled
            up to make good for it; the same ones at every step of a sequence.
        key: for all dropout, that of the stack included; without one, nothing is dropped.
        over: what makes of the stack, as a layer, the layer to run: ``over_devices``, say.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    if not isinstance(params, Labeller):
        raise TypeError(f"params: expected Labeller, got {type(params).__name__}")
    check_flag("pooled", pooled)
    check_number("dropout", dropout, least=0, below=1)
    noise: dict[str, Any] = {}
    if key is None:
        config = config.without_noise()
    else:
        check_key("key", key)
        noise["key"], key = jax.random.split(key)
    layer: Layer = partial(stack, config)
    if over is not None:
        check_function("over", over)
        layer = over(layer)
    xs = check_array("xs", xs, ("time", "batch", "input"))
    lengths = check_array("lengths", lengths, xs.shape[1:2])
    _, hs = layer(params.lstm, None, xs, lengths=lengths, **noise)
    if pooled:
        ends = last(hs, lengths, config)
        hs = jnp.concatenate([ends, mean(hs, lengths), maximum(hs, lengths)], axis=-1)
    if dropout and key is not None:
        hs = hs * dropout_mask(key, dropout, hs.shape[-2:], hs.dtype)
    return hs @ params.readout + params.readout_bias


def labeller_loss(
    params: Labeller,
    carry: None,
    batch: SequenceBatch,
    config: Stack,
    *,
    dropout: float = 0.0,
    smoothing: float = 0.0,
    over: Over | None = None,
) -> tuple[Float[Array, ""], None]:
    """The weighted mean of what each label is off: see the module.

    Whether labels belong to sequences or to steps, and whether they are classes or numbers, is seen
    by ``batch.targets``: their axes and their dtype.

    Args:
        params: the parameters.
        carry: None, for a batch remembers nothing of the one before.
        batch: the sequences.
        config: as for ``label_scores``.
        dropout: as for ``label_scores``; ``batch.key`` is its key.
        smoothing: the part of each target's probability that is shared out among all classes, so
            that the model does not grow too sure (Szegedy et al. 2016).
        over: as for ``label_scores``.

    Returns:
        The loss, in nats for classes (0 where nothing counts), and None.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    if not isinstance(batch, SequenceBatch):
        raise TypeError(f"batch: expected SequenceBatch, got {type(batch).__name__}")
    check_number("smoothing", smoothing, least=0, below=1)
    shape = jnp.shape(batch.xs)[:2]
    pooled = jnp.ndim(batch.targets) == 1
    targets = check_array("batch.targets", batch.targets, shape[1:] if pooled else shape)
    scores = label_scores(
        params,
        batch.xs,
        batch.lengths,
        config,
        pooled=pooled,
        dropout=dropout,
        key=batch.key,
        over=over,
    )
    weights = check_array("batch.weights", batch.weights, targets.shape).astype(scores.dtype)
    if jnp.issubdtype(targets.dtype, jnp.integer):
        wanted = jax.nn.one_hot(targets, scores.shape[-1], dtype=scores.dtype)
        losses = optax.softmax_cross_entropy(scores, optax.smooth_labels(wanted, smoothing))
    else:
        losses = jnp.square(scores[..., 0] - targets.astype(scores.dtype))
    # Not even NaN counts where the weight is 0.
    total = jnp.sum(jnp.where(weights > 0, weights * losses, jnp.zeros_like(losses)))
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, jnp.ones_like(count)), carry


def label_count(batch: SequenceBatch) -> float:
    """What the mean of ``labeller_loss`` was taken over: the sum of the weights."""
    return float(batch.weights.sum())
