"""The linear map that all gated cells share: x·W and h'·U, their derivatives, how they are cut.

These products are nearly all of the arithmetic of a cell, and so are their transposes of the
backward pass. They are computed here for any batch axes, for factors rounded to a shorter dtype,
and for batches that are cut over the devices of a mesh. With z the sum x·W + h'·U and d<name> the
cotangent of <name>::

    dx = dz·Wᵀ    dh' = dz·Uᵀ    dW = Σ xᵀ·dz    dU = Σ h'ᵀ·dz    db = Σ dz

U may be block-diagonal: heads of units that do not see each other.
"""

import math
from string import ascii_uppercase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, reshard
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, DTypeLike, Float

from jlstm.types import Tree, replace

Matrix = Float[Array, "output columns"] | Float[Array, "heads rows gates units"]
"""U as a matrix, ``columns`` being gates·hidden; or its blocks, one for each head."""


class Weights(NamedTuple):
    """The weights of a cell, as the products take them."""

    w_ih: Float[Array, "input columns"]
    """W."""
    w_hh: Matrix
    """U."""
    b: Float[Array, " columns"] | None
    """What is added to x·W: the bias of a cell that sees only the sum of both products."""
    own: Any
    """All other weights, in the form of the cell's parameters, w_ih and w_hh being None."""


def flatten(params: Any, summed: bool) -> Weights:
    """The weights of a cell, (gates, hidden) becoming one axis: no data moves.

    Args:
        params: weights with the fields w_ih and w_hh.
        summed: whether the cell sees x·W + h'·U + b only as a sum, so that b belongs to it.
    """

    def columns(w: Array) -> Array:
        *rows, gates, hidden = w.shape
        return w.reshape(*rows, gates * hidden)

    b = getattr(params, "b", None) if summed else None
    own = replace(params, w_ih=None, w_hh=None, **({} if b is None else {"b": None}))
    w_hh = params.w_hh if params.w_hh.ndim == 4 else columns(params.w_hh)
    return Weights(columns(params.w_ih), w_hh, None if b is None else columns(b), own)


# Products


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


def input_part(
    weights: Weights, x: Float[Array, "*batch input"], dtype: DTypeLike | None = None
) -> Float[Array, "*batch columns"]:
    """x·W, plus b where b belongs to it; for one step or for many."""
    part = product(x, weights.w_ih, dtype)
    return part if weights.b is None else part + along(weights.b, part)


def recurrent(
    h: Float[Array, "*batch output"], u: Matrix, dtype: DTypeLike | None = None
) -> Float[Array, "*batch columns"]:
    """h·U, for one step or for many."""
    if u.ndim == 2:
        return product(h, u, dtype)
    heads, rows, gates, units = u.shape
    out = _einsum("...hr,hrgu->...ghu", h.reshape(*h.shape[:-1], heads, rows), u, dtype)
    return out.reshape(*h.shape[:-1], gates * heads * units)


def transposed(u: Matrix) -> Matrix:
    """Uᵀ, for ``recurrent_back``, as an array of its own.

    To be made before the walk: on CPU a product with a matrix that is only read as transposed takes
    up to three times as long.
    """
    return u.T if u.ndim == 2 else jnp.moveaxis(u, 1, -1)


def recurrent_back(
    dz: Float[Array, "*batch columns"], u_t: Matrix, dtype: DTypeLike | None = None
) -> Float[Array, "*batch output"]:
    """dz·Uᵀ, for one step or for many."""
    if u_t.ndim == 2:
        return product(dz, u_t, dtype)
    heads, gates, units, rows = u_t.shape
    by_head = dz.reshape(*dz.shape[:-1], gates, heads, units)
    out = _einsum("...ghu,hgur->...hr", by_head, u_t, dtype)
    return out.reshape(*dz.shape[:-1], heads * rows)


# Sums over all steps, for the gradients of weights


def outer(
    a: Float[Array, "*rows n"],
    b: Float[Array, "*rows m"],
    dtype: DTypeLike | None = None,
    *,
    copy: bool = False,
) -> Float[Array, "n m"]:
    """Σ aᵀ·b over all rows: one product, for the gradient of a matrix.

    ``copy`` makes XLA write the transposed matrix down before the product, see ``transposed``.
    """
    a_t = jnp.moveaxis(a, -1, 0)
    if copy:
        a_t = jax.lax.optimization_barrier(a_t)  # type: ignore[no-untyped-call]
    return product(a_t, b, dtype)


def recurrent_outer(
    hs: Float[Array, "*rows output"],
    dz: Float[Array, "*rows columns"],
    u: Matrix,
    dtype: DTypeLike | None = None,
    *,
    copy: bool = False,
) -> Matrix:
    """dU, in the form of U: the same for h'·U."""
    if u.ndim == 2:
        return outer(hs, dz, dtype, copy=copy)
    heads, rows, gates, units = u.shape
    left = hs.reshape(*hs.shape[:-1], heads, rows)
    right = dz.reshape(*dz.shape[:-1], gates, heads, units)
    steps = ascii_uppercase[: hs.ndim - 1]
    whole = NamedSharding(jax.typeof(hs).sharding.mesh, _spec(None, None, None, None))
    return _einsum(f"{steps}hr,{steps}ghu->hrgu", left, right, dtype, whole)


def _einsum(how: str, a: Array, b: Array, dtype: DTypeLike | None, sharding: Any = None) -> Array:
    """The factors rounded to ``dtype``, summed in the dtype of a."""
    factors = (a, b) if dtype is None else (a.astype(dtype), b.astype(dtype))
    return jnp.einsum(how, *factors, preferred_element_type=a.dtype, out_sharding=sharding)


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
    axes = _varying(*everything)

    def cast(a: Array, *spec: Any) -> Array:
        if mesh is not None:
            a = reshard(a, NamedSharding(mesh, _spec(*spec)))  # type: ignore[no-untyped-call]
        return _vary(a, axes)

    return (
        jax.tree.map(cast, weights),
        jax.tree.map(lambda a: cast(a, *batch), states),
        jax.tree.map(lambda a: cast(a, None, *batch), steps),
    )


def _spec(*axes: Any) -> P:
    return P(*axes)  # type: ignore[no-untyped-call]


def vary_like(given: Any, result: Tree) -> Tree:
    """``result``, varying over the manual axes that any array of ``given`` varies over."""
    axes = _varying(*jax.tree.leaves(given))
    varied: Tree = jax.tree.map(lambda a: _vary(a, axes), result)
    return varied


def _vary(a: Array, axes: frozenset[str]) -> Array:
    missing = tuple(axes - _varying(a))
    return jax.lax.pcast(a, missing, to="varying") if missing else a


def _varying(*arrays: Array) -> frozenset[str]:
    axes: frozenset[str] = frozenset()
    return axes.union(*(jax.typeof(a).manual_axis_type.varying for a in arrays))
