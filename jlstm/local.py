"""The local derivative of a step: from the equations of a cell, or by hand.

A step is a small function (x·W, h'·U, carry') -> carry. When a chunk of steps has been computed,
its derivative can be prepared for all of them at once, and the walk through time only applies it,
step by step. The gradients of the cell's own weights are then again for all steps at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jaxtyping import Array

from jlstm.gates import Columns, Derivative, Gates, State, extras_of

Own = Any
"""The weights of a cell without w_ih and w_hh."""


class Values(NamedTuple):
    """What is known of one step, or of many, when its derivative is asked for."""

    own: Own
    saved: Any
    """What ``Local.forward`` saved."""
    before: State
    """The carry that the step started from."""
    after: State
    noise: Any


class Local(NamedTuple):
    """A step and its derivative, in the form that the engine uses.

    ``prepare`` and ``prepare_forward`` return a pytree with the steps as its leading axis, and a
    function that takes one step of it. d<name> is a cotangent in ``prepare`` and ``gradient``, and
    a tangent in ``prepare_forward`` and ``tangent``.
    """

    forward: Callable[[Own, Columns, Columns, State, Any], tuple[State, Any]]
    """(own, x·W, h'·U, carry', noise) to the carry, and what is saved for the derivative."""
    prepare: Callable[[Values], tuple[Any, Callable[[Any, State], tuple[Any, Columns, State]]]]
    """Values of many steps to (jac, pull), where ``pull(jac_t, d_carry)`` is (what ``gradient``
    needs, d(h'·U), d_carry' but for what comes through h'·U)."""
    gradient: Callable[[Values, Any], tuple[Columns, Columns, Own]]
    """What ``pull`` left at many steps to d(x·W), d(h'·U) and the sum of d_own."""
    prepare_forward: Callable[[Values], tuple[Any, Callable[[Any, Any, Columns, State], State]]]
    """Values of many steps to (jac, push), where ``push(jac_t, known_t, d(h'·U), d_carry')`` is
    d_carry."""
    tangent: Callable[[Values, Own, Columns, Columns], Any]
    """(values, d_own, d(x·W), the part of d(h'·U) that is known beforehand) of many steps to what
    is known of the tangent before the walk."""


def local_of(gates: Gates) -> Local:
    """The step of a cell and its derivative: by hand if the cell has one."""
    derivative = extras_of(gates).derivative
    return from_equations(gates) if derivative is None else by_hand(derivative)


def by_hand(derivative: Derivative) -> Local:
    """From a derivative by hand, with z = x·W + h'·U; there are no own weights."""

    def forward(own: Own, x: Columns, h: Columns, prev: State, noise: Any) -> tuple[State, Any]:
        return derivative.forward(x + h, prev)

    def jacobian(values: Values) -> Any:
        return derivative.jacobian(values.saved, values.before, values.after)

    def pull(jac: Any, d: State) -> tuple[Any, Columns, State]:
        dz, d_prev = derivative.pullback(jac, d)
        return dz, dz, d_prev

    def push(jac: Any, dz: Columns, h: Columns, d_prev: State) -> State:
        return derivative.pushforward(jac, dz + h, d_prev)

    return Local(
        forward,
        prepare=lambda values: (jacobian(values), pull),
        gradient=lambda values, dz: (dz, dz, values.own),
        prepare_forward=lambda values: (jacobian(values), push),
        tangent=lambda values, d_own, x, h: x + h,
    )


def from_equations(gates: Gates) -> Local:
    """From the step of a cell, by JAX.

    What is saved is x·W and h'·U, or, for a cell that is ``summed``, their sum in place of h'·U and
    None in place of x·W.
    """
    summed = extras_of(gates).summed

    def step(own: Own, saved: Any, prev: State, noise: Any) -> State:
        x, h = saved
        return gates.step(own, jnp.zeros((), h.dtype) if x is None else x, h, prev, noise)

    def forward(own: Own, x: Columns, h: Columns, prev: State, noise: Any) -> tuple[State, Any]:
        saved = (None, x + h) if summed else (x, h)
        return step(own, saved, prev, noise), saved

    def linear(by: Callable[..., Any], values: Values) -> tuple[Any, Callable[..., Any]]:
        """Each step's derivative in h'·U and carry', which is all that the walk needs."""

        def one(x: Columns | None, h: Columns, prev: State, noise: Any) -> Any:
            return by(lambda h, prev: step(values.own, (x, h), prev, noise), h, prev)[1]

        return _for_each(one, *values.saved, values.before, values.noise)

    def prepare(values: Values) -> tuple[Any, Callable[..., Any]]:
        jac, rebuild = linear(jax.vjp, values)
        more = bool(jax.tree.leaves((values.own, values.saved[0])))

        def pull(jac: Any, d: State) -> tuple[Any, Columns, State]:
            dh, d_prev = rebuild(jac)(d)
            return (d if more else None, dh), dh, d_prev

        return jac, pull

    def gradient(values: Values, left: tuple[State, Columns]) -> tuple[Columns, Columns, Own]:
        own, (x, h), (d, dh) = values.own, values.saved, left
        if d is None:
            return dh, dh, own
        _, pull = jax.vjp(lambda own, x: step(own, (x, h), values.before, values.noise), own, x)
        d_own, dx = pull(d)
        return dh if x is None else dx, dh, d_own

    def prepare_forward(values: Values) -> tuple[Any, Callable[..., Any]]:
        jac, rebuild = linear(jax.linearize, values)

        def push(jac: Any, known: State, h: Columns, d_prev: State) -> State:
            return jax.tree.map(jnp.add, known, rebuild(jac)(h, d_prev))

        return jac, push

    def tangent(values: Values, d_own: Own, x: Columns, h: Columns) -> State:
        return jax.jvp(
            lambda own, saved: step(own, saved, values.before, values.noise),
            (values.own, values.saved),
            (d_own, (None, x + h) if summed else (x, h)),
        )[1]

    return Local(forward, prepare, gradient, prepare_forward, tangent)


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
