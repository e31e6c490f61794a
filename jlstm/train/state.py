"""What a training run is at one moment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """All that the next step of training needs besides its batch; a pytree."""

    params: Any
    opt_state: Any
    """The optimiser's."""
    carry: Any
    """What ``loss_fn`` returned beside the last loss: for an LSTM, its memory of the text so far.
    None for a loss that has no memory."""
    step: Int[Array, ""]
    """Steps made, int32."""


def init_train_state(
    params: Any, optimizer: optax.GradientTransformation, carry: Any = None
) -> TrainState:
    """The state before the first step.

    A training step takes over the memory of the state that it is given, so everything is copied
    here: the caller's arrays stay usable.

    Args:
        params: any pytree of floating-point arrays.
        optimizer: the one that ``make_train_step`` gets.
        carry: what ``loss_fn`` gets first: arrays in the structure, shapes and dtypes that it
            returns.

    Raises:
        TypeError: a leaf of ``params`` or ``carry`` is no array, or ``optimizer`` is none.
    """
    check_optimizer(optimizer)
    for name, tree in (("params", params), ("carry", carry)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not hasattr(leaf, "dtype"):
                raise TypeError(
                    f"{name}{jax.tree_util.keystr(path)}: expected an array, "
                    f"got {type(leaf).__name__}"
                )
    params, carry = jax.tree.map(own, (params, carry))
    opt_state = jax.tree.map(own, optimizer.init(params))
    return TrainState(params, opt_state, carry, jnp.zeros((), jnp.int32))


def check_optimizer(optimizer: Any) -> None:
    """Raise TypeError unless ``optimizer`` is one of optax: a pair of functions."""
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise TypeError(
            "optimizer: expected an optimiser of optax, with init and update, got "
            f"{type(optimizer).__name__} {optimizer!r}"
        )


def own(leaf: Any) -> Array:
    """A copy of an array, with a dtype that is fixed.

    JAX marks the dtype of what came from a Python number as weak, and compiles a function once more
    for an argument that differs in that alone.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.copy(leaf)
    return jnp.array(leaf, dtype=leaf.dtype, copy=True)
