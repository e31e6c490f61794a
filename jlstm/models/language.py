"""Models: a linear map into an LSTM, a linear map out of it, and the loss that trains them.

The language model here predicts the token after each position of a sequence. With E the
embedding, R and r the readout::

    x_t = E[token_t]      h_t = lstm(x_t)      p(token_{t+1} | tokens up to t) = softmax(h_t·R + r)

Everything is a pure function of ``LanguageModel``, a pytree of parameters. What stands between
embedding and readout is the argument ``layer``: ``jlstm.lstm`` unless another is given, say
``partial(lstm, residuals="carry")``, or any function ``(params.lstm, carry, xs) -> (carry, hs)``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.cell import init_params
from jlstm.checks import check_function, check_number, check_size
from jlstm.sequence import lstm
from jlstm.types import Carry, LSTMParams, check_array, check_float, check_key

Layer = Callable[[Any, Any, Float[Array, "time *batch embedding"]], tuple[Any, Array]]
"""``(layer's parameters, carry, xs) -> (carry, hs)``."""


class LanguageModel(NamedTuple):
    """The parameters of a language model."""

    embedding: Float[Array, "vocab embedding"]
    """One row for each token."""
    lstm: LSTMParams
    """What ``layer`` takes."""
    readout: Float[Array, "hidden vocab"]
    readout_bias: Float[Array, " vocab"]


class TokenBatch(NamedTuple):
    """A window of token streams: what the model reads, and what it has to foretell.

    Only ``inputs`` and ``targets`` are needed. The carry of the window before goes on into this
    one, except where ``fresh`` says that a stream starts anew.
    """

    inputs: Int[Array | np.ndarray, "time *batch"]
    targets: Int[Array | np.ndarray, "time *batch"]
    """The tokens that follow ``inputs``."""
    weights: Float[Array | np.ndarray, "time *batch"] | None = None
    """1 where a target counts, 0 where it is padding; None where all count."""
    fresh: Bool[Array | np.ndarray, " *batch"] | None = None
    """True where the carry is to be zero before the first step; None for nowhere."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""


def init_language_model(
    key: PRNGKeyArray,
    vocab_size: int,
    *,
    embedding_size: int,
    hidden_size: int,
    forget_bias: float = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> LanguageModel:
    """Fresh parameters, with which every token is equally likely.

    The embedding is standard normal, the LSTM as ``jlstm.init_params`` draws it. The readout is
    zero, so that training starts at the loss of knowing nothing, log(vocab_size).

    Args:
        key: a key of ``jax.random``.
        vocab_size: tokens are the integers from 0 to ``vocab_size`` − 1; 256 for bytes.
        embedding_size: features that stand for a token.
        hidden_size: units of the LSTM.
        forget_bias: the forget gate's bias at the start.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError: a size that is no integer, or a dtype that is not floating-point.
        ValueError: a size below 1.
    """
    check_size("vocab_size", vocab_size)
    check_size("embedding_size", embedding_size)
    dtype = check_float("dtype", dtype)
    check_key("key", key)
    key_embedding, key_lstm = jax.random.split(key)
    return LanguageModel(
        embedding=jax.random.normal(key_embedding, (vocab_size, embedding_size), dtype),
        lstm=init_params(
            key_lstm, embedding_size, hidden_size, forget_bias=forget_bias, dtype=dtype
        ),
        readout=jnp.zeros((hidden_size, vocab_size), dtype),
        readout_bias=jnp.zeros(vocab_size, dtype),
    )


def logits(
    params: LanguageModel,
    carry: Carry | None,
    tokens: Int[Array | np.ndarray, "time *batch"],
    *,
    layer: Layer = lstm,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Carry, Float[Array, "time *batch vocab"]]:
    """The logarithms of the next token's probabilities, up to a constant.

    Args:
        params: the parameters.
        carry: what the layer remembers of the text before; None for zeros.
        tokens: ``[time, *batch]``, integers from 0 to vocab − 1 (under ``jit`` a token outside is
            not noticed and taken as the nearest inside).
        layer: what stands between embedding and readout.
        dropout: the part of the layer's outputs that is set to 0, the rest being scaled up to make
            good for it; with one mask for the whole window (Gal & Ghahramani 2016).
        key: for the dropout; without one, nothing is dropped.

    Returns:
        The carry after the last token, and ``[time, *batch, vocab]``.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    tokens = _check_tokens("tokens", tokens, _check_model(params))
    check_function("layer", layer)
    check_number("dropout", dropout, least=0, below=1)
    if key is not None:
        check_key("key", key)
    xs = jnp.take(params.embedding, tokens, axis=0, mode="clip")
    carry, hs = layer(params.lstm, carry, xs)
    if dropout and key is not None:
        hs = _drop(key, hs, dropout)
    return carry, hs @ params.readout + params.readout_bias


def _drop(
    key: PRNGKeyArray, xs: Float[Array, "time *batch n"], rate: float
) -> Float[Array, "time *batch n"]:
    """Features of a sequence set to 0, the same ones at every step."""
    kept = jax.random.bernoulli(key, 1 - rate, xs.shape[1:])
    return xs * jnp.where(kept, 1 / (1 - rate), 0.0).astype(xs.dtype)


def language_model_loss(
    params: LanguageModel,
    carry: Carry | None,
    batch: TokenBatch,
    *,
    layer: Layer = lstm,
    dropout: float = 0.0,
) -> tuple[Float[Array, ""], Carry]:
    """The mean over the targets of −log p(target), in nats; divide by log 2 for bits.

    Args:
        params: the parameters.
        carry: as the window before left it; None for zeros.
        batch: the window.
        layer: as for ``logits``.
        dropout: as for ``logits``; ``batch.key`` is its key.

    Returns:
        The loss (0 where nothing counts), and the carry for the next window.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    if not isinstance(batch, TokenBatch):
        raise TypeError(f"batch: expected TokenBatch, got {type(batch).__name__}")
    shape = jnp.shape(batch.inputs)
    vocab = _check_model(params)
    targets = _check_tokens("batch.targets", batch.targets, vocab, shape)
    if batch.fresh is not None and carry is not None:
        fresh = check_array("batch.fresh", batch.fresh, shape[1:], jnp.bool_)[..., None]
        carry = jax.tree.map(lambda a: jnp.where(fresh, jnp.zeros_like(a), a), carry)
    carry, scores = logits(params, carry, batch.inputs, layer=layer, dropout=dropout, key=batch.key)
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


def sample(
    params: LanguageModel,
    key: PRNGKeyArray,
    prompt: Int[Array | np.ndarray, " prompt"],
    length: int,
    temperature: float = 1.0,
    *,
    layer: Layer = lstm,
) -> Int[Array, " length"]:
    """Tokens that the model thinks could follow the prompt, each drawn given all before it.

    The next token is argmax(logits + temperature·noise) with noise from the Gumbel distribution,
    which is a draw from softmax(logits/temperature) (Gumbel 1954; Maddison et al. 2014).

    Args:
        params: the parameters.
        key: a key of ``jax.random``; the same key gives the same tokens.
        prompt: the text to go on from, at least one token.
        length: how many tokens to draw.
        temperature: 1 draws what the model believes, less is more cautious, 0 always takes the
            likeliest token.
        layer: as for ``logits``.

    Returns:
        The tokens after the prompt, int32 ``[length]``.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    prompt = _check_tokens("prompt", prompt, _check_model(params), ("prompt",))
    if not prompt.size:
        raise ValueError("prompt: expected at least one token, got none")
    check_size("length", length, 0)
    check_number("temperature", temperature, least=0)
    check_function("layer", layer)
    check_key("key", key)
    heat = jnp.asarray(temperature, params.readout.dtype)
    tokens: Array = _sample(layer, length, params, key, prompt, heat)
    return tokens


@partial(jax.jit, static_argnums=(0, 1))
def _sample(
    layer: Layer, length: int, params: LanguageModel, key: PRNGKeyArray, prompt: Array, heat: Array
) -> Array:
    carry, scores = logits(params, None, prompt, layer=layer)

    def step(state: tuple[Any, Array], key: PRNGKeyArray) -> tuple[tuple[Any, Array], Array]:
        carry, scores = state
        noise = jax.random.gumbel(key, scores.shape, scores.dtype)
        token = jnp.argmax(scores + heat * noise).astype(jnp.int32)
        carry, scores = logits(params, carry, token[None], layer=layer)
        return (carry, scores[-1]), token

    _, tokens = lax.scan(step, (carry, scores[-1]), jax.random.split(key, length))
    return tokens


def _check_model(params: Any) -> int:
    """How many tokens the model knows; raise TypeError unless it is a LanguageModel."""
    if not isinstance(params, LanguageModel):
        raise TypeError(f"params: expected LanguageModel, got {type(params).__name__}")
    vocab: int = check_array("params.embedding", params.embedding, ("vocab", "embedding")).shape[0]
    return vocab


def _check_tokens(
    name: str, tokens: Any, vocab: int, shape: Any = ("time", "...")
) -> Int[Array, "time *batch"]:
    """``tokens`` as int32; raise unless integers of this shape, from 0 to vocab − 1 if known."""
    array = check_array(name, tokens, shape)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype.name}")
    if not isinstance(array, jax.core.Tracer) and array.size:
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= vocab:
            raise ValueError(
                f"{name}: expected tokens from 0 to {vocab - 1}, got {least} to {most}"
            )
    return array.astype(jnp.int32)
