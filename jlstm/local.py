"""The local derivative of a step, from the equations of a cell.

A step is a small function (x·W, h'·U, carry') -> carry. When a chunk of steps has been computed,
its derivative can be prepared for all of them at once, and the walk through time only applies it,
step by step. The gradients of the cell's own weights are then again for all steps at once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from jlstm.gates import Columns, Gates, Local, State, Values, extras_of


def local_of(gates: Gates) -> Local:
    """The step of a cell and its derivative: by hand if the cell has one."""
    return extras_of(gates).derivative or from_equations(gates)


def from_equations(gates: Gates) -> Local:
    """From the step of a cell, by JAX.

    What is saved is x·W and h'·U, or, for a cell that is ``summed``, their sum in place of h'·U and
    None in place of x·W.
    """
    summed = extras_of(gates).summed

    def step(own: Any, saved: Any, prev: State, noise: Any) -> State:
        x, h = saved
        return gates.step(own, jnp.zeros((), h.dtype) if x is None else x, h, prev, noise)

    def forward(own: Any, x: Columns, h: Columns, prev: State, noise: Any) -> tuple[State, Any]:
        saved = (None, x + h) if summed else (x, h)
        return step(own, saved, prev, noise), saved

    def prepare(values: Values) -> tuple[Any, Callable[..., Any]]:
        more = bool(jax.tree.leaves((values.own, values.saved[0])))

        def one(x: Columns | None, h: Columns, prev: State, noise: Any) -> Any:
            # In h'·U and carry' alone, which is all that the walk needs.
            return jax.vjp(lambda h, prev: step(values.own, (x, h), prev, noise), h, prev)[1]

        jac, rebuild = _for_each(one, *values.saved, values.before, values.noise)

        def pull(jac: Any, d: State) -> tuple[Any, Columns, State]:
            dh, d_prev = rebuild(jac)(d)
            return (d if more else None, dh), dh, d_prev

        return jac, pull

    def gradient(values: Values, left: tuple[State, Columns]) -> tuple[Columns, Columns, Any]:
        own, (x, h), (d, dh) = values.own, values.saved, left
        if d is None:
            return dh, dh, own
        _, pull = jax.vjp(lambda own, x: step(own, (x, h), values.before, values.noise), own, x)
        d_own, dx = pull(d)
        return dh if x is None else dx, dh, d_own

    return Local(forward, prepare, gradient)


def _for_each(make: Callable[..., Any], *steps: Any) -> tuple[list[Array], Callable[..., Any]]:
    """``make`` for each of many steps at once, where it returns a function with arrays in it.

    Returns the arrays that differ from step to step, with the steps as leading axis, and what makes
    the function of one step of these. Arrays that are the same for all steps, such as a matrix of
    the cell, are not copied for each of them.
    """
    one = jax.eval_shape(lambda: jax.tree.map(lambda a: jnp.sum(a, 0, a.dtype), steps))
    trees: list[Any] = []

    def arrays(*step: Any) -> list[Array]:
        leaves, tree = jax.tree.flatten(make(*step))
        trees.append(tree)
        return leaves

    differs = _depends(arrays, *one)
    everything = jax.vmap(arrays, out_axes=[0 if d else None for d in differs])(*steps)
    same = [a for a, d in zip(everything, differs, strict=True) if not d]

    def rebuild(varying: list[Array]) -> Any:
        own, shared = iter(varying), iter(same)
        return jax.tree.unflatten(trees[-1], [next(own if d else shared) for d in differs])

    return [a for a, d in zip(everything, differs, strict=True) if d], rebuild


def _depends(function: Callable[..., list[Array]], *arguments: Any) -> list[bool]:
    """Which results of a function depend on its arguments."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    known = {*jaxpr.invars}
    for eqn in jaxpr.eqns:
        if any(v in known for v in eqn.invars if not isinstance(v, Literal)):
            known.update(eqn.outvars)
    return [not isinstance(v, Literal) and v in known for v in jaxpr.outvars]
