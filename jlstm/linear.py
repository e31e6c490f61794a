"""The linear map that all gated cells share: products, their sums over steps, and how they are cut.

With W and U the weights, x·W and h'·U are nearly all of the arithmetic of a cell, and so are their
transposes of the backward pass. Here they are done for any batch axes, for factors rounded to a
shorter dtype, and for batches that are cut over the devices of a mesh.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, reshard
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, DTypeLike, Float

Into = Callable[[Array, Array], Array]
"""``product`` with the dtype of its factors settled: (rows, matrix) -> rows."""


def product(
    x: Float[Array, "*batch n"], w: Float[Array, "n m"], dtype: DTypeLike | None = None
) -> Float[Array, "*batch m"]:
    """x·w, the factors rounded to ``dtype`` if one is given, summed in the dtype of x.

    n may stand for several axes, those of w but the last: then all of them are summed over. A batch
    that is cut over devices stays so, and what is summed over devices is the same on all of them.
    """
    batch = x.ndim - (w.ndim - 1)
    shape = *x.shape[:batch], w.shape[-1]
    # Where it cannot be cut it is made one axis first: the transposes of the product, which JAX
    # finds, are then plain products of two matrices, up to 1.2 times as fast.
    if set(jax.typeof(x).sharding.mesh.axis_types) <= {AxisType.Manual}:
        x = x.reshape(math.prod(x.shape[:batch]), *x.shape[batch:])
        batch = 1
    axes = ((tuple(range(batch, x.ndim)), tuple(range(w.ndim - 1))), ((), ()))
    factors = (x, w) if dtype is None else (x.astype(dtype), w.astype(dtype))
    sharding = batch_sharding(x, 0, batch)
    out = jax.lax.dot_general(*factors, axes, preferred_element_type=x.dtype, out_sharding=sharding)
    return out.reshape(shape)


def outer(a: Float[Array, "*rows n"], b: Float[Array, "*rows m"], into: Into) -> Array:
    """Σ aᵀ·b over all rows: one product, for the gradient of a matrix."""
    # The barrier makes XLA write the transposed matrix down: on CPU a product with a matrix that is
    # only read as transposed takes up to three times as long.
    a_t = jax.lax.optimization_barrier(jnp.moveaxis(a, -1, 0))  # type: ignore[no-untyped-call]
    return into(a_t, b)


def total(a: Float[Array, "*rows n"]) -> Float[Array, " n"]:
    """The sum of all rows, for the gradient of a vector."""
    return jnp.sum(a, axis=tuple(range(a.ndim - 1)))


def along(a: Array, other: Array) -> Array:
    """The same with as many axes as ``other`` has: axes of size 1 are put in front.

    NumPy does so by itself, and JAX does unless ``jax_numpy_rank_promotion`` forbids it.
    """
    return jnp.expand_dims(a, tuple(range(other.ndim - a.ndim)))


def batch_sharding(a: Array, start: int, stop: int) -> NamedSharding:
    """Cut over devices as the axes of a from ``start`` to ``stop`` are; of an array of one more."""
    sharding = jax.typeof(a).sharding
    return NamedSharding(sharding.mesh, _spec(*sharding.spec[start:stop], None))


def alike(weights: Any, states: Any, steps: Any = None) -> tuple[Any, Any, Any]:
    """The same arrays as one computation over several devices takes them.

    Where the axes of a mesh are explicit, weights become whole on every device, and each batch is
    cut as that of the inputs is. Where they are manual, that is, inside ``shard_map``, weights are
    the same on all devices and data is not: all arrays become varying over the axes that any of
    them varies over. A scan's carry must not change from one kind to the other; and the transpose
    of both casts adds up the gradients of the weights over the devices, once. Elsewhere, nothing
    happens.

    Args:
        weights: arrays without batch axes.
        states: arrays ``[*batch, ·]``.
        steps: arrays ``[time, *batch, ·]``. The first of them, or else of ``states``, are the
            inputs.
    """
    everything = jax.tree.leaves((steps, states, weights))
    inputs, lead = everything[0], 0 if steps is None else 1
    meshes = (jax.typeof(a).sharding.mesh for a in everything)
    mesh = next((m for m in meshes if AxisType.Explicit in m.axis_types), None)
    batch = jax.typeof(inputs).sharding.spec[lead:-1]
    axes = frozenset().union(*map(_varying, everything))

    def cast(a: Array, *spec: Any) -> Array:
        if mesh is not None:
            a = reshard(a, NamedSharding(mesh, _spec(*spec)))  # type: ignore[no-untyped-call]
        missing = tuple(axes - _varying(a))
        return jax.lax.pcast(a, missing, to="varying") if missing else a

    return (
        jax.tree.map(cast, weights),
        jax.tree.map(lambda a: cast(a, *batch), states),
        jax.tree.map(lambda a: cast(a, None, *batch), steps),
    )


def _spec(*axes: Any) -> P:
    return P(*axes)  # type: ignore[no-untyped-call]


def _varying(a: Array) -> frozenset[str]:
    axes: frozenset[str] = jax.typeof(a).manual_axis_type.varying
    return axes
