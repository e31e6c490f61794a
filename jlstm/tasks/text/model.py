"""The language model: a linear map into an LSTM, a linear map out of it, the loss, and samples.

It predicts the token after each position of a sequence. With E the embedding, R and r the readout::

    x_t = E[token_t]      h_t = lstm(x_t)      p(token_{t+1} | tokens up to t) = softmax(h_t·R + r)

Where embedding and readout are tied, R = Eᵀ (Inan et al. 2017; Press & Wolf 2017), so that h has as
many features as a token.

Everything is a pure function of ``LanguageModel``, a pytree of parameters. What stands between
embedding and readout is the argument ``layer``: ``jlstm.lstm`` unless another is given, say
``partial(stack, config)``, or any function ``(params.lstm, carry, xs) -> (carry, hs)``; where there
is a key for what is random, it is called with ``key=`` as well.
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

from jlstm.checks import check_flag, check_function, check_number, check_size
from jlstm.dropout import dropout_mask
from jlstm.initializers import init_params
from jlstm.layers import Stack, init_stack
from jlstm.sequence import lstm
from jlstm.types import check_array, check_float, check_key

Layer = Callable[..., tuple[Any, Array]]
"""``(layer's parameters, carry, xs) -> (carry, hs)``; with ``key=`` where something is random.

A carry of None stands for the layer's own first one."""


class LanguageModel(NamedTuple):
    """The parameters of a language model."""

    embedding: Float[Array, "vocab embedding"]
    """One row for each token."""
    lstm: Any
    """What ``layer`` takes: ``LSTMParams`` for ``lstm``, a tuple of layers for a stack."""
    readout: Float[Array, "hidden vocab"] | None
    """None where it is the embedding's transpose."""
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
    """True where the layer starts anew before the first step, with its own first carry: zeros, or
    what was learned. None for nowhere."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""


def init_language_model(
    key: PRNGKeyArray,
    vocab_size: int,
    *,
    embedding_size: int,
    hidden_size: int | None = None,
    stack: Stack | None = None,
    tied: bool = False,
    forget_bias: float = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> LanguageModel:
    """Fresh parameters, with which every token is equally likely (tied: nearly so).

    The embedding is standard normal, the LSTM as ``jlstm.init_params`` draws it. The readout is
    zero, so that training starts at the loss of knowing nothing, log(vocab_size). An embedding that
    is the readout, too, is smaller, of variance 1/embedding_size: a token's features have length 1.

    Args:
        key: a key of ``jax.random``.
        vocab_size: tokens are the integers from 0 to ``vocab_size`` − 1; 256 for bytes.
        embedding_size: features that stand for a token.
        hidden_size: units of the LSTM.
        stack: a stack in its place, for ``layer=partial(jlstm.stack, stack)``.
        tied: whether the readout is the embedding's transpose.
        forget_bias: the forget gate's bias at the start.
        dtype: a floating-point dtype, that of all computation.

    Raises:
        TypeError: a size that is no integer, or a dtype that is not floating-point.
        ValueError: a size below 1; neither or both of hidden_size and stack; tied, and the layer
            gives another number of features than stand for a token.
    """
    check_size("vocab_size", vocab_size)
    check_size("embedding_size", embedding_size)
    check_flag("tied", tied)
    dtype = check_float("dtype", dtype)
    check_key("key", key)
    key_embedding, key_lstm = jax.random.split(key)
    layer: Any
    if stack is not None and hidden_size is None:
        layer = init_stack(key_lstm, embedding_size, stack, forget_bias=forget_bias, dtype=dtype)
        features = stack.output_size
    elif hidden_size is not None and stack is None:
        layer = init_params(
            key_lstm, embedding_size, hidden_size, forget_bias=forget_bias, dtype=dtype
        )
        features = hidden_size
    else:
        got = "neither" if stack is None else "both"
        raise ValueError(f"hidden_size, stack: expected one of the two, got {got}")
    if tied:
        _check_tied(features, embedding_size)
    embedding = jax.random.normal(key_embedding, (vocab_size, embedding_size), dtype)
    return LanguageModel(
        embedding=embedding / embedding_size**0.5 if tied else embedding,
        lstm=layer,
        readout=None if tied else jnp.zeros((features, vocab_size), dtype),
        readout_bias=jnp.zeros(vocab_size, dtype),
    )


def logits(
    params: LanguageModel,
    carry: Any,
    tokens: Int[Array | np.ndarray, "time *batch"],
    *,
    layer: Layer = lstm,
    fresh: Bool[Array | np.ndarray, " *batch"] | None = None,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Any, Float[Array, "time *batch vocab"]]:
    """The logarithms of the next token's probabilities, up to a constant.

    Args:
        params: the parameters.
        carry: what the layer remembers of the text before; None for zeros.
        tokens: ``[time, *batch]``, integers from 0 to vocab − 1 (under ``jit`` a token outside is
            not noticed and taken as the nearest inside).
        layer: what stands between embedding and readout.
        fresh: bool ``[*batch]``, where the layer starts anew, whatever the carry; None for nowhere.
        embedding_dropout: the part of the vocabulary whose features are 0 wherever they are read,
            the others being scaled up to make good for it (Gal & Ghahramani 2016).
        dropout: the part of the layer's outputs that is set to 0, the rest being scaled up; with
            one mask for the whole window. (A ``Stack`` has this, and more, as an option.)
        key: for all that is random, the layer's dropout included; without one, nothing is dropped.

    Returns:
        The carry after the last token, and ``[time, *batch, vocab]``.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    tokens = _check_tokens("tokens", tokens, _check_model(params))
    check_function("layer", layer)
    check_number("embedding_dropout", embedding_dropout, least=0, below=1)
    check_number("dropout", dropout, least=0, below=1)
    xs = jnp.take(params.embedding, tokens, axis=0, mode="clip")
    noise: dict[str, PRNGKeyArray] = {}
    if key is not None:
        check_key("key", key)
        key_embedding, noise["key"], key_outputs = jax.random.split(key, 3)
        if embedding_dropout:
            shape = len(params.embedding), 1
            rows = dropout_mask(key_embedding, embedding_dropout, shape, xs.dtype)
            xs = xs * jnp.take(rows, tokens, axis=0, mode="clip")
    if fresh is not None and carry is not None:
        carry = _start_anew(fresh, layer, params.lstm, carry, xs, noise)
    carry, hs = layer(params.lstm, carry, xs, **noise)
    if key is not None and dropout:
        hs = hs * dropout_mask(key_outputs, dropout, hs.shape[1:], hs.dtype)
    if params.readout is not None:
        return carry, hs @ params.readout + params.readout_bias
    _check_tied(hs.shape[-1], params.embedding.shape[-1])
    return carry, hs @ params.embedding.T + params.readout_bias


def _start_anew(fresh: Any, layer: Layer, params: Any, carry: Any, xs: Array, noise: Any) -> Any:
    """The carry, with the layer's own first carry where ``fresh`` is True."""
    fresh = check_array("fresh", fresh, xs.shape[1:-1], jnp.bool_)
    first, _ = layer(params, None, xs[:0], **noise)  # after no step it is still the first

    def choose(first: Array, carry: Array) -> Array:
        return jnp.where(
            fresh.reshape(*fresh.shape, *[1] * (carry.ndim - fresh.ndim)), first, carry
        )

    return jax.tree.map(choose, first, carry)


def language_model_loss(
    params: LanguageModel,
    carry: Any,
    batch: TokenBatch,
    *,
    layer: Layer = lstm,
    embedding_dropout: float = 0.0,
    dropout: float = 0.0,
) -> tuple[Float[Array, ""], Any]:
    """The mean over the targets of −log p(target), in nats; divide by log 2 for bits.

    Args:
        params: the parameters.
        carry: as the window before left it; None for zeros.
        batch: the window.
        layer: as for ``logits``, and so the rest; ``batch.key`` is the key.
        embedding_dropout: of the features of whole tokens.
        dropout: of the layer's outputs.

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
    carry, scores = logits(
        params,
        carry,
        batch.inputs,
        layer=layer,
        fresh=batch.fresh,
        embedding_dropout=embedding_dropout,
        dropout=dropout,
        key=batch.key,
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


def sample(
    params: LanguageModel,
    key: PRNGKeyArray,
    prompt: Int[Array | np.ndarray, " prompt"],
    length: int,
    temperature: float = 1.0,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    layer: Layer = lstm,
) -> Int[Array, " length"]:
    """Tokens that the model thinks could follow the prompt, each drawn given all before it.

    The next token is argmax(logits + temperature·noise) with noise from the Gumbel distribution,
    which is a draw from softmax(logits/temperature) (Gumbel 1954; Maddison et al. 2014). With
    ``top_k`` and ``top_p`` it is a draw from what ``likeliest`` leaves.

    Args:
        params: the parameters.
        key: a key of ``jax.random``; the same key gives the same tokens.
        prompt: the text to go on from, at least one token.
        length: how many tokens to draw.
        temperature: 1 draws what the model believes, less is more cautious, 0 always takes the
            likeliest token.
        top_k: draw only from so many tokens, the likeliest ones; None for all.
        top_p: draw only from the likeliest tokens that have this probability together (at the
            temperature, and among the top_k); None for all.
        layer: as for ``logits``; called without a key.

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
    if top_k is not None:
        check_size("top_k", top_k)
    if top_p is not None:
        check_number("top_p", top_p, least=0)
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected a number above 0 and up to 1, got {top_p}")
    check_function("layer", layer)
    check_key("key", key)
    heat = jnp.asarray(temperature, params.embedding.dtype)
    tokens: Array = _sample(layer, length, top_k, top_p, params, key, prompt, heat)
    return tokens


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sample(
    layer: Layer,
    length: int,
    top_k: int | None,
    top_p: float | None,
    params: LanguageModel,
    key: PRNGKeyArray,
    prompt: Array,
    heat: Array,
) -> Array:
    carry, scores = logits(params, None, prompt, layer=layer)

    def step(state: tuple[Any, Array], key: PRNGKeyArray) -> tuple[tuple[Any, Array], Array]:
        carry, scores = state
        scores = likeliest(scores, heat, top_k, top_p)
        noise = jax.random.gumbel(key, scores.shape, scores.dtype)
        token = jnp.argmax(scores + heat * noise).astype(jnp.int32)
        carry, scores = logits(params, carry, token[None], layer=layer)
        return (carry, scores[-1]), token

    _, tokens = lax.scan(step, (carry, scores[-1]), jax.random.split(key, length))
    return tokens


def likeliest(
    scores: Float[Array, " vocab"],
    temperature: Float[Array, ""] | float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Array, " vocab"]:
    """The scores, with −∞ for every token that is not among the likeliest.

    In the order of falling scores (equal ones: of rising ids) let π_r be the probability of the
    token of rank r = 0, 1, … at the temperature, among the first ``top_k``. What stays are the
    ranks r < top_k with π_0 + … + π_{r−1} < top_p: the fewest tokens that reach top_p together
    (nucleus sampling, Holtzman et al. 2020), and never none.

    Args:
        scores: logarithms of probabilities, up to a constant.
        temperature: by which they are divided.
        top_k: how many may stay; None for all.
        top_p: the probability to be reached; None, or 1, for all.
    """
    if top_p == 1:
        top_p = None  # exactly, whatever rounding makes of the sum
    if top_k is None and top_p is None:
        return scores
    order = jnp.argsort(scores, descending=True, stable=True)
    stays = jnp.arange(scores.size) < (scores.size if top_k is None else top_k)
    if top_p is not None:
        least = float(np.finfo(np.float32).tiny)  # at temperature 0 only the best has a chance
        heat = jnp.maximum(jnp.asarray(temperature, scores.dtype), least)
        ranked = scores[order]
        ranked = jnp.where(stays, (ranked - ranked[0]) / heat, -jnp.inf)
        sums = jnp.cumsum(jax.nn.softmax(ranked))
        before = jnp.concatenate([jnp.zeros_like(sums[:1]), sums[:-1]])
        stays &= before < top_p
    kept = jnp.zeros(scores.shape, jnp.bool_).at[order].set(stays)
    return jnp.where(kept, scores, -jnp.inf)


def _check_tied(features: int, embedding: int) -> None:
    """Raise unless the embedding can be the readout."""
    if features != embedding:
        raise ValueError(
            f"tied: expected a layer that gives the {embedding} features that stand for a token, "
            f"got {features}"
        )


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
