"""Random keys, one for each sequence and step, and the masks that are drawn from them.

Everything random in the library is drawn here. What a sequence draws depends on its own key, and
at a step also on the number of the step: a sequence that is cut into pieces, or computed in another
batch, draws the same numbers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.types import check_key, format_shape

Drawn = TypeVar("Drawn")


def sequence_keys(key: PRNGKeyArray | None, batch: Sequence[int]) -> PRNGKeyArray:
    """One key for each sequence, ``[*batch]``: split from a single one, or those given, checked.

    Under threefry, JAX's default, what a sequence draws then depends on its own key alone. Under
    JAX's rbg and unsafe_rbg a batch draws from the key of its first sequence, so what a sequence
    draws depends on the batch around it. Without batch axes a single key is the sequence's own.
    (Raw keys, as ``jax.random.PRNGKey`` makes them, have one axis more.)

    Raises:
        TypeError: not a key of ``jax.random``.
        ValueError: no key, or not one for each sequence.
    """
    if key is None:
        raise ValueError(
            "key: expected a key of jax.random, for what is random here, got None; "
            "for evaluation, take without_noise() of the gates or the stack"
        )
    keys = check_key("key", key)
    if keys.shape == () and batch:
        return jax.random.split(keys, tuple(batch))
    if keys.shape != tuple(batch):
        raise ValueError(
            f"key: expected one key, or one for each sequence, {format_shape(batch)}, "
            f"got {format_shape(keys.shape)}"
        )
    return keys


def fold_keys(keys: PRNGKeyArray, number: int | Int[Array, ""]) -> PRNGKeyArray:
    """``jax.random.fold_in`` for each key, ``[*batch]``."""
    folded: PRNGKeyArray = _each(lambda key: jax.random.fold_in(key, number), keys)
    return folded


def step_numbers(time: int, first: int | Int[Array, ""]) -> Int[Array, " time"]:
    """The numbers of ``time`` steps, from ``first`` on."""
    return jnp.arange(time) + jnp.asarray(first, jnp.arange(0).dtype)


def draw_steps(
    draw: Callable[[PRNGKeyArray, Array], Drawn], keys: PRNGKeyArray, numbers: Int[Array, " time"]
) -> Drawn:
    """``draw(keys, number)`` for each number, stacked.

    With threefry by ``vmap``, which makes a gradient up to a fifth faster than a loop. JAX's other
    generators draw something else for many steps at once than for each of them alone.
    """
    if jax.random.key_impl(keys) == "threefry2x32":
        drawn: Drawn = jax.vmap(draw, (None, 0))(keys, numbers)
    else:
        drawn = jax.lax.map(partial(draw, keys), numbers)
    return drawn


def bernoulli(
    keys: PRNGKeyArray, rate: float, shape: int | Sequence[int]
) -> Bool[Array, "*batch_and_shape"]:
    """True with probability ``rate``, independently; drawn in float32 in any configuration.

    Args:
        keys: a single key, or one for each sequence, ``[*batch]``.
        rate: the probability.
        shape: what is drawn from each key.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    drawn: Array = _each(partial(jax.random.bernoulli, p=jnp.float32(rate), shape=shape), keys)
    return drawn


def dropout_mask(
    keys: PRNGKeyArray, rate: float, shape: int | Sequence[int], dtype: DTypeLike
) -> Float[Array, "*batch_and_shape"]:
    """A factor that drops: 0 with probability ``rate``, else 1/(1 − rate), so that its mean is 1.

    Args:
        keys: a single key, or one for each sequence, ``[*batch]``.
        rate: the probability, from 0 to below 1.
        shape: what is drawn from each key.
        dtype: of the mask.
    """
    dropped = bernoulli(keys, rate, shape)
    return jnp.where(dropped, jnp.zeros((), dtype), jnp.asarray(1 / (1 - rate), dtype))


def _each(draw: Callable[[PRNGKeyArray], Any], keys: PRNGKeyArray) -> Any:
    for _ in range(keys.ndim):
        draw = jax.vmap(draw)
    return draw(keys)
