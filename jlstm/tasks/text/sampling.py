"""Tokens drawn from a language model, each given all before it.

The next token is argmax(logits + temperature·noise) with noise from the Gumbel distribution, which
is a draw from softmax(logits/temperature) (Gumbel 1954; Maddison et al. 2014).

A program draws ``PIECE`` tokens and is called again and again: it is compiled once for prompts and
samples of all lengths, and what is drawn can be shown while the next is. The first sample, often
the only one, is drawn alone; others are drawn ``ROWS`` at a time, asked for or not, by a second
program. The noise follows from the key, the number of the sample and the place of the token. So a
sample is the same, bit for bit, however many are drawn and however long they get: beside a varying
number of others, it would be so but for rounding.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count as count_up
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jlstm.checks import check_function, check_number, check_size, wrong
from jlstm.layers import init_stack_carry, stack
from jlstm.tasks.running import Run
from jlstm.tasks.text.model import (
    LanguageModel,
    LanguageModelConfig,
    check_config,
    check_model,
    check_tokens,
    logits,
)
from jlstm.types import check_key

PIECE = 32
"""Tokens that a call draws: what one call costs is little beside them, and they are soon there."""
ROWS = 4
"""Samples that are drawn side by side: on two cores, with 512 units, the step of one takes 0.7 ms,
that of four 0.9 ms, and that of eight 1.4 ms."""
READ = 512
"""Tokens of a long prompt that are read at once, by a program of its own."""


def sample(
    config: LanguageModelConfig,
    params: LanguageModel,
    key: PRNGKeyArray,
    prompt: Int[Array | np.ndarray, " prompt"],
    length: int,
    temperature: float = 1.0,
    *,
    count: int = 1,
    top_k: int | None = None,
    top_p: float | None = None,
    run: Run = stack,
) -> Iterator[tuple[int, Int[np.ndarray, " piece"]]]:
    """Tokens that the model thinks could follow the prompt, in pieces as they are drawn.

    Args:
        config: what the model is made of.
        params: its parameters.
        key: a key of ``jax.random``; the same key gives the same tokens.
        prompt: the text to go on from, at least one token.
        length: how many tokens to draw.
        temperature: 1 draws what the model believes, less is more cautious, 0 always takes the
            likeliest token.
        count: how many samples to draw, each with noise of its own.
        top_k: draw only from so many tokens, the likeliest ones; None for all.
        top_p: draw only from the likeliest tokens that have this probability together (at the
            temperature, and among the top_k); None for all. See ``likeliest``.
        run: what runs the stack.

    Returns:
        The number of a sample, from 0, and the tokens that it goes on with, int32: all pieces of
        sample 0, then all of sample 1, and so on.

    Raises:
        TypeError, ValueError: an argument of another type, dtype, shape or range.
    """
    vocab = check_model(check_config(config), params)
    prompt = np.asarray(check_tokens("prompt", prompt, vocab, ("prompt",)))
    if not prompt.size:
        raise wrong("prompt", "expected at least one token, got none")
    check_size("length", length, 0)
    check_number("temperature", temperature, least=0)
    check_size("count", count)
    if top_k is not None:
        check_size("top_k", top_k)
    if top_p is not None:
        check_number("top_p", top_p, least=0)
        if not 0 < top_p <= 1:
            raise wrong("top_p", f"expected a number above 0 and up to 1, got {top_p}")
    check_function("run", run)
    check_key("key", key)
    heat = np.asarray(temperature, params.embedding.dtype)
    home = jnp.asarray(params.embedding).sharding
    write = partial(_write, config, run, top_k, top_p, params, heat, key)

    def pieces() -> Iterator[tuple[int, Int[np.ndarray, " piece"]]]:
        carry, rest = _read_all(config, run, params, prompt)
        for first, rows in [(0, 1), *((n, ROWS) for n in range(1, count, ROWS))]:
            numbers = first + np.arange(rows, dtype=np.int32)
            each = jax.tree.map(lambda a, rows=rows: np.repeat(a, rows, 0), carry)
            # As it comes back from each piece, or another program would be compiled for the first.
            state = jax.device_put((each, np.zeros(rows, np.int32)), home)
            later: list[Int[np.ndarray, "rows piece"]] = []
            for piece in _drawn(partial(write, numbers), state, rest, length):
                yield first, piece[0]
                later.append(piece[1 : count - first])
            for row in range(min(rows, count - first) - 1):
                yield from ((first + 1 + row, piece[row]) for piece in later)

    return pieces()


def _read_all(
    config: LanguageModelConfig,
    run: Run,
    params: LanguageModel,
    prompt: Int[np.ndarray, " prompt"],
) -> tuple[Any, Int[np.ndarray, " rest"]]:
    """The carry after most of a long prompt, and the rest of it: at least a token."""
    carry = jax.jit(init_stack_carry, static_argnums=(0, 2))(config.stack, params.lstm, 1)
    while len(prompt) > READ:
        carry = _read(config, run, params, carry, prompt[:READ])
        prompt = prompt[READ:]
    return jax.device_get(carry), prompt


@partial(jax.jit, static_argnums=(0, 1))
def _read(
    config: LanguageModelConfig,
    run: Run,
    params: LanguageModel,
    carry: Any,
    tokens: Int[Array, " read"],
) -> Any:
    return logits(config, params, carry, tokens[:, None], run=run)[0]


def _drawn(
    write: Any, state: Any, prompt: Int[np.ndarray, " prompt"], length: int
) -> Iterator[Int[np.ndarray, "rows piece"]]:
    """What is drawn after the rest of a prompt, piece by piece."""
    # Places are counted from the first that counts; what is drawn in the prompt does not.
    for place in count_up(1 - len(prompt), PIECE):
        if place >= length:
            return
        given = np.full(PIECE, -1, np.int32)
        known, prompt = prompt[:PIECE], prompt[PIECE:]
        given[: len(known)] = known
        state, tokens = write(state, given, np.int32(place))
        piece = np.asarray(tokens)[max(0, -place) : length - place]
        if piece.size:
            yield piece.T


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _write(
    config: LanguageModelConfig,
    run: Run,
    top_k: int | None,
    top_p: float | None,
    params: LanguageModel,
    heat: Float[Array, ""],
    key: PRNGKeyArray,
    numbers: Int[Array, " rows"],
    state: tuple[Any, Int[Array, " rows"]],
    given: Int[Array, " piece"],
    place: Int[Array, ""],
) -> tuple[tuple[Any, Int[Array, " rows"]], Int[Array, "piece rows"]]:
    """What samples of these numbers go on with: where tokens are given, not −1, after these.

    The state is the carry and the last token that was drawn.
    """

    def draw(
        key: PRNGKeyArray, place: Int[Array, ""], scores: Float[Array, " vocab"]
    ) -> Int[Array, ""]:
        scores = likeliest(scores, heat, top_k, top_p)
        noise = jax.random.gumbel(jax.random.fold_in(key, place), scores.shape, scores.dtype)
        return jnp.argmax(scores + heat * noise).astype(jnp.int32)

    def step(state: tuple[Any, Array], at: tuple[Array, Array]) -> tuple[tuple[Any, Array], Array]:
        (carry, last), (place, given) = state, at
        tokens = jnp.where(given < 0, last, given)
        carry, scores = logits(config, params, carry, tokens[None], run=run)
        last = jax.vmap(draw, (0, None, 0))(keys, place, scores[0])
        return (carry, last), last

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
    places = place + jnp.arange(PIECE, dtype=jnp.int32)
    return lax.scan(step, state, (places, given))


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
