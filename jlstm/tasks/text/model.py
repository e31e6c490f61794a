"""The language model: a linear map into an LSTM, a linear map out of it, and the loss.

It predicts the token after each position of a sequence. With E the embedding, R and r the readout::

    x_t = E[token_t]      h_t = lstm(x_t)      p(token_{t+1} | tokens up to t) = softmax(h_t·R + r)

Where embedding and readout are tied, R = Eᵀ (Inan et al. 2017; Press & Wolf 2017), so that h has as
many features as a token.

Everything is a pure function of ``LanguageModel``, a pytree of parameters. Where there is a key, a
part of what the model has is left out, as its configuration says, and what is left is scaled up to
make good for it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_flag, check_function, check_number, check_size
from jlstm.dropout import dropout_mask
from jlstm.layers import LayerParams, Stack, drop_weights, init_stack, stack
from jlstm.tasks.running import Run, check_stack
from jlstm.tasks.text.batch import TokenBatch
from jlstm.types import check_array, check_float, check_key


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """What a language model is made of: all but its weights.

    Raises:
        TypeError: an option of another type.
        ValueError: a size below 1, a rate out of range; tied, and the stack gives another number of
            features than stand for a token.
    """

    vocabulary: int
    """Tokens are the integers from 0 to this − 1; 256 for bytes."""
    embedding: int
    """Features that stand for a token."""
    stack: Stack
    """The LSTM."""
    tied: bool = False
    """Whether the readout is the embedding's transpose."""
    embedding_dropout: float = 0.0
    """Part of the vocabulary whose features are 0 wherever read (Gal & Ghahramani 2016)."""
    weight_dropout: float = 0.0
    """Part of the recurrent weights that is 0 for all of a window (Merity et al. 2018)."""

    def __post_init__(self) -> None:
        check_size("vocabulary", self.vocabulary)
        check_size("embedding", self.embedding)
        check_stack("stack", self.stack)
        check_flag("tied", self.tied)
        check_number("embedding_dropout", self.embedding_dropout, least=0, below=1)
        check_number("weight_dropout", self.weight_dropout, least=0, below=1)
        if self.tied and self.stack.output_size != self.embedding:
            raise ValueError(
                f"tied: expected a stack that gives the {self.embedding} features that stand for a "
                f"token, got {self.stack.output_size}"
            )


class LanguageModel(NamedTuple):
    """The parameters of a language model."""

    embedding: Float[Array, "vocab embedding"]
    """One row for each token."""
    lstm: tuple[LayerParams, ...]
    """Of the stack."""
    readout: Float[Array, "hidden vocab"] | None
    """None where it is the embedding's transpose."""
    readout_bias: Float[Array, " vocab"]


def init_language_model(
    key: PRNGKeyArray,
    config: LanguageModelConfig,
    *,
    forget_bias: float = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> LanguageModel:
    """Fresh parameters, with which every token is equally likely (tied: nearly so).

    The embedding is standard normal, the LSTM as ``jlstm.init_params`` draws it. The readout is
    zero, so that training starts at the loss of knowing nothing, log(vocabulary). An embedding that
    is the readout, too, is smaller, of variance 1/embedding: a token's features have length 1.

    Args:
        key: a key of ``jax.random``.
        config: what the model is made of.
        forget_bias: the forget gate's bias at the start.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError: an argument of another type, or a dtype that is not floating-point.
    """
    c = check_config(config)
    dtype = check_float("dtype", dtype)
    check_key("key", key)
    key_embedding, key_lstm = jax.random.split(key)
    layers = init_stack(key_lstm, c.embedding, c.stack, forget_bias=forget_bias, dtype=dtype)
    embedding = jax.random.normal(key_embedding, (c.vocabulary, c.embedding), dtype)
    return LanguageModel(
        embedding=embedding / c.embedding**0.5 if c.tied else embedding,
        lstm=layers,
        readout=None if c.tied else jnp.zeros((c.stack.output_size, c.vocabulary), dtype),
        readout_bias=jnp.zeros(c.vocabulary, dtype),
    )


def logits(
    config: LanguageModelConfig,
    params: LanguageModel,
    carry: Any,
    tokens: Int[Array | np.ndarray, "time *batch"],
    *,
    fresh: Bool[Array | np.ndarray, " *batch"] | None = None,
    key: PRNGKeyArray | None = None,
    run: Run = stack,
) -> tuple[Any, Float[Array, "time *batch vocab"]]:
    """The logarithms of the next token's probabilities, up to a constant.

    Args:
        config: what the model is made of.
        params: its parameters.
        carry: what the stack remembers of the text before; None for its start.
        tokens: ``[time, *batch]``, integers from 0 to vocabulary − 1 (under ``jit`` a token outside
            is not noticed and taken as the nearest inside).
        fresh: bool ``[*batch]``, where the stack starts anew, whatever the carry; None for nowhere.
        key: for all that is random; without one, nothing is dropped.
        run: what runs the stack.

    Returns:
        The carry after the last token, and ``[time, *batch, vocab]``.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    c = check_config(config)
    tokens = check_tokens("tokens", tokens, check_model(c, params))
    check_function("run", run)
    layers, xs = params.lstm, jnp.take(params.embedding, tokens, axis=0, mode="clip")
    noise: dict[str, PRNGKeyArray] = {}
    if key is not None:
        check_key("key", key)
        key_weights, key = jax.random.split(key)
        key_embedding, noise["key"] = jax.random.split(key)
        if c.weight_dropout:
            layers = drop_weights(key_weights, layers, c.weight_dropout)
        if c.embedding_dropout:
            shape = len(params.embedding), 1
            rows = dropout_mask(key_embedding, c.embedding_dropout, shape, xs.dtype)
            xs = xs * jnp.take(rows, tokens, axis=0, mode="clip")
    layer = partial(run, c.stack if noise else c.stack.without_noise(), layers, **noise)
    if fresh is not None and carry is not None:
        carry = _start_anew(fresh, layer, carry, xs)
    carry, hs = layer(carry, xs)
    readout = params.embedding.T if params.readout is None else params.readout
    return carry, hs @ readout + params.readout_bias


def _start_anew(fresh: Any, layer: Run, carry: Any, xs: Array) -> Any:
    """The carry, with the layer's own first carry where ``fresh`` is True."""
    fresh = check_array("fresh", fresh, xs.shape[1:-1], jnp.bool_)
    first, _ = layer(None, xs[:0])  # after no step it is still the first

    def choose(first: Array, carry: Array) -> Array:
        return jnp.where(
            fresh.reshape(*fresh.shape, *[1] * (carry.ndim - fresh.ndim)), first, carry
        )

    return jax.tree.map(choose, first, carry)


def language_model_loss(
    config: LanguageModelConfig,
    params: LanguageModel,
    carry: Any,
    batch: TokenBatch,
    *,
    run: Run = stack,
) -> tuple[Float[Array, ""], Any]:
    """The mean over the targets of −log p(target), in nats; divide by log 2 for bits.

    Args:
        config: what the model is made of.
        params: its parameters.
        carry: as the window before left it; None for the start.
        batch: the window; ``batch.key`` is the key for what is random.
        run: what runs the stack.

    Returns:
        The loss (0 where nothing counts), and the carry for the next window.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    if not isinstance(batch, TokenBatch):
        raise TypeError(f"batch: expected TokenBatch, got {type(batch).__name__}")
    shape = jnp.shape(batch.inputs)
    vocab = check_model(check_config(config), params)
    targets = check_tokens("batch.targets", batch.targets, vocab, shape)
    carry, scores = logits(
        config, params, carry, batch.inputs, fresh=batch.fresh, key=batch.key, run=run
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, targets)
    if batch.weights is None:
        return jnp.mean(losses), carry
    weights = check_array("batch.weights", batch.weights, shape).astype(losses.dtype)
    # Not even NaN counts where the weight is 0.
    total = jnp.sum(jnp.where(weights > 0, weights * losses, jnp.zeros_like(losses)))
    count = jnp.sum(weights)
    return total / jnp.where(count > 0, count, jnp.ones_like(count)), carry


def token_count(batch: TokenBatch) -> float:
    """How many targets count: what the mean of ``language_model_loss`` was taken over."""
    return float(jnp.size(batch.inputs) if batch.weights is None else batch.weights.sum())


def check_config(config: Any) -> LanguageModelConfig:
    """``config``; raise TypeError unless it is one of a language model."""
    if not isinstance(config, LanguageModelConfig):
        raise TypeError(f"config: expected LanguageModelConfig, got {type(config).__name__}")
    return config


def check_model(config: LanguageModelConfig, params: Any) -> int:
    """How many tokens the model knows; raise unless it is one of this configuration."""
    if not isinstance(params, LanguageModel):
        raise TypeError(f"params: expected LanguageModel, got {type(params).__name__}")
    check_array("params.embedding", params.embedding, (config.vocabulary, config.embedding))
    return config.vocabulary


def check_tokens(
    name: str, tokens: Any, vocab: int, shape: Any = ("time", "...")
) -> Int[Array, "time *batch"]:
    """``tokens`` as int32; raise unless integers of this shape, from 0 to vocab − 1 if known."""
    array = check_array(name, tokens, shape)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype.name}")
    if not isinstance(array, jax.core.Tracer) and array.size:
        known = np.asarray(array)  # to ask JAX would be to compile two programs
        least, most = int(known.min()), int(known.max())
        if least < 0 or most >= vocab:
            raise ValueError(
                f"{name}: expected tokens from 0 to {vocab - 1}, got {least} to {most}"
            )
    return array.astype(jnp.int32)
