"""The walk through a chunk of steps: what it is given, and what every way of doing it needs.

A step t, from x_t·W on, with every mask that applies to it::

    carry' = carry where keep_t, else reset_to
    new    = step(own, x_t·W, (mask ⊙ h')·U, carry', noise_t)
    carry  = new where valid_t, else carry
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.dropout import draw_steps
from jlstm.gates import Columns, Gates, State, Values, extras_of
from jlstm.linear import Weights, along, input_part, recurrent
from jlstm.local import local_of


class Walk(NamedTuple):
    """How to walk: all that is known before the program is compiled."""

    gates: Gates
    reverse: bool
    dtype: DTypeLike | None
    """To which the factors of products are rounded; None for not at all."""


class Constants(NamedTuple):
    """Arrays that are the same at every step."""

    weights: Weights
    reset_to: State
    """``[*batch, ·]``."""
    keys: PRNGKeyArray | None
    """One for each sequence, ``[*batch]``; None where nothing is random."""
    mask: Float[Array, "*batch output"] | None
    """What h' is multiplied with before h'·U; None for nothing."""


class Steps(NamedTuple):
    """Arrays that have a part for every step, time leading; a mask that is None is all True."""

    xs: Float[Array, "time *batch input"]
    valid: Bool[Array, "time *batch 1"] | None
    """False at padding, where the carry stays as it is."""
    keep: Bool[Array, "time *batch 1"] | None
    """False where the carry is replaced by ``reset_to`` before the step; True at padding."""
    t: Int[Array, " time"] | None
    """The number of the step, from which noise is drawn; None where nothing is random."""


def select(mask: Array | None, yes: Any, no: Any) -> Any:
    """``yes`` where the mask is True, else ``no``, for all arrays of two pytrees."""
    if mask is None:
        return yes

    def choose(yes: Array, no: Array) -> Array:
        # The mask ends in an axis of size 1; an array has any number of axes after the batch.
        *lead, _ = mask.shape
        fitted = mask.reshape(*lead, *[1] * (yes.ndim - len(lead)))
        return jnp.where(fitted, yes, along(no, yes))

    return jax.tree.map(choose, yes, no)


def zeros_like(tree: Any) -> Any:
    """The same pytree with all arrays 0."""
    return jax.tree.map(jnp.zeros_like, tree)


def masked(constants: Constants, h: Array) -> Array:
    """What U sees of h', for one step or for many."""
    return h if constants.mask is None else h * along(constants.mask, h)


def h_part(walk: Walk, constants: Constants, h: Array) -> Columns:
    """h'·U, for one step or for many."""
    return recurrent(masked(constants, h), constants.weights.w_hh, walk.dtype)


def x_part(walk: Walk, constants: Constants, xs: Array) -> Columns:
    """x·W, for one step or for many."""
    return input_part(constants.weights, xs, walk.dtype)


def noise(walk: Walk, constants: Constants, number: Array | None, carry: State) -> Any:
    """What is random at a step, or at as many as there are numbers."""
    draw, keys = extras_of(walk.gates).noise, constants.keys
    if draw is None or keys is None or number is None:
        return None
    lead = number.ndim  # 1 where there are many steps
    one = jax.eval_shape(lambda: jax.tree.map(lambda a: jnp.sum(a, tuple(range(lead))), carry))
    if lead == 0:
        return draw(keys, number, one)
    return draw_steps(lambda keys, t: draw(keys, t, one), keys, number)


def before(walk: Walk, constants: Constants, steps: Steps, first: State, after: State) -> State:
    """The carry that each step started from, given the first and those after each step."""

    def shift(first: Array, rest: Array) -> Array:
        parts = [rest[1:], first[None]] if walk.reverse else [first[None], rest[:-1]]
        return jnp.concatenate(parts)

    return select(steps.keep, jax.tree.map(shift, first, after), constants.reset_to)


def values(
    walk: Walk, constants: Constants, steps: Steps, first: State, after: State, saved: Any = None
) -> Values:
    """All that is known of the steps of a chunk; what was not saved is computed again.

    For that no walk is needed: as every h' is known, the products are one for all steps.
    """
    own, prev = constants.weights.own, before(walk, constants, steps, first, after)
    drawn = noise(walk, constants, steps.t, prev)
    if saved is None:
        parts = x_part(walk, constants, steps.xs), h_part(walk, constants, prev.h)
        _, saved = local_of(walk.gates).forward(own, *parts, prev, drawn)
    return Values(own, saved, prev, after, drawn)


# Time in chunks


def in_chunks(
    walk: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    steps: Any,
    chunk: int,
    *,
    reverse: bool,
    chunks: Any = (),
) -> tuple[Any, Any]:
    """``walk(carry, (steps, chunks)) -> (carry, outs)``, chunk after chunk.

    Args:
        walk: through one chunk.
        carry: what goes from chunk to chunk.
        steps: arrays with the time leading, and so are outs. What is left over where the chunk does
            not divide the time is a chunk of its own, the last in time.
        chunk: how many steps at a time.
        reverse: from the last chunk to the first.
        chunks: arrays with one entry for each chunk.
    """
    time = jax.tree.leaves(steps)[0].shape[0]
    count, rest = divmod(time, chunk)

    def whole(a: Array) -> Array:
        return a[: count * chunk].reshape(count, chunk, *a.shape[1:])

    def run_whole(carry: Any) -> tuple[Any, Any]:
        data = jax.tree.map(whole, steps), jax.tree.map(lambda a: a[:count], chunks)
        if count == 1:  # needs no loop
            return walk(carry, jax.tree.map(lambda a: a[0], data))
        carry, outs = lax.scan(walk, carry, data, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(count * a.shape[1], *a.shape[2:]), outs)

    if rest == 0:
        return run_whole(carry)
    over = jax.tree.map(lambda a: a[count * chunk :], steps), jax.tree.map(lambda a: a[-1], chunks)
    if reverse:
        carry, outs_over = walk(carry, over)
        carry, outs = run_whole(carry)
    else:
        carry, outs = run_whole(carry)
        carry, outs_over = walk(carry, over)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, outs_over)


def starts(first: State, after: State, chunk: int, *, reverse: bool) -> State:
    """The carry that each chunk started from, given those after all steps."""

    def cut(first: Array, after: Array) -> Array:
        if is_symbolic_dim(chunk):
            return first[None]
        if reverse:
            return jnp.concatenate([after[chunk::chunk], first[None]])
        return jnp.concatenate([first[None], after[chunk - 1 : -1 : chunk]])

    return jax.tree.map(cut, first, after)
