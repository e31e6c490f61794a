"""A sequence, and its three derivatives.

Backward, dz_t being what the walk through time finds step by step::

    dx_t = dz_t·Wᵀ   dW = Σ_t x_tᵀ·dz_t   dU = Σ_t h_{t-1}ᵀ·dz_t   db = Σ_t dz_t   all at once

The weights' gradients are sums over time of outer products, that is, one matrix product over all
time steps, where autodiff of a scan adds up a weight-sized product at every step. The same holds
forward in time for x_t·W, which needs no h.

``vjp`` is a rule for the whole sequence, its derivative walking chunk by chunk;
``jvp`` is a rule for one chunk, and ``autodiff`` none at all: the rest is left to JAX.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from jlstm.gates import Columns, State
from jlstm.kernels import XLA, Kernel, check_refusal, choose, on_platform
from jlstm.linear import (
    along,
    batch_sharding,
    product,
    recurrent,
    transposed,
)
from jlstm.local import local_of
from jlstm.plan import Plan, Tuning
from jlstm.walk import (
    Constants,
    Steps,
    h_part,
    in_chunks,
    masked,
    noise,
    select,
    starts,
    values,
    x_part,
    zeros_like,
)

Derivative = Literal["vjp", "jvp", "autodiff"]


# "vjp": the derivative of a reverse walk. A rule for the whole sequence, so that hs, which is
# returned, need not be kept once more.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def vjp(
    plan: Plan, constants: Constants, carry: State, steps: Steps
) -> tuple[State, Float[Array, "time *batch output"]]:
    """The carry after the last step, and the outputs; their derivative is ``_vjp_bwd``."""
    last, kept = _forward(plan, constants, carry, steps)
    return last, kept["hs"]


def _vjp_fwd(
    plan: Plan, constants: Constants, carry: State, steps: Steps
) -> tuple[tuple[State, Array], Any]:
    plan = _with_gradient(plan)
    check_refusal(plan)
    last, kept = _forward(plan, constants, carry, steps)
    hs = kept["carries"].h if plan.policy.kept else kept.pop("hs")
    return (last, hs), (constants, carry, steps, kept)


def _with_gradient(plan: Plan) -> Plan:
    plan = plan._replace(gradient=True)
    if plan.policy.kept or plan.chunk is not None:
        return plan
    # One carry is kept for each chunk: as many on all platforms.
    return plan._replace(chunk=XLA.tune(plan).chunk)


def _forward(
    plan: Plan, constants: Constants, carry: State, steps: Steps
) -> tuple[State, dict[str, Any]]:
    """The carry after the last step, and what is kept of all chunks: h alone without a gradient."""
    keep = plan.policy.wanted if plan.gradient else "hs"

    def run(
        kernel: Kernel, tuning: Tuning, constants: Constants, carry: State, steps: Steps
    ) -> Any:
        def walk(first: State, data: tuple[Steps, Any]) -> tuple[State, Any]:
            last, after, saved = kernel.forward(plan.walk, constants, first, data[0], keep=keep)
            kept = plan.policy.keep(first, after, saved) if plan.gradient else {"hs": after.h}
            return last, kept

        chunk = tuning.ahead or tuning.chunk
        return in_chunks(walk, carry, steps, chunk, reverse=plan.walk.reverse)

    out: tuple[State, dict[str, Any]] = on_platform(run, plan, constants, carry, steps)
    return out


def _vjp_bwd(plan: Plan, residuals: Any, cotangents: tuple[State, Array]) -> tuple[Any, ...]:
    reverse, policy = plan.walk.reverse, plan.policy

    def run(kernel: Kernel, tuning: Tuning, residuals: Any, d_carry: State, dhs: Array) -> Any:
        constants, carry, steps, kept = residuals
        if policy.kept:
            firsts = starts(carry, kept["carries"], tuning.chunk, reverse=reverse)
        else:
            firsts = kept.pop("first")
        transposes = constants.weights.w_ih.T, transposed(constants.weights.w_hh)

        def walk(sums: Any, data: Any) -> tuple[Any, Array]:
            d_weights, d = sums
            (steps, kept, dhs), first = data
            after, saved = policy.recall(plan.walk, kernel.forward, constants, first, steps, kept)
            known = first, after, saved
            d, more, dxs = kernel.backward(plan.walk, constants, transposes, known, steps, d, dhs)
            return (jax.tree.map(jnp.add, d_weights, more), d), dxs

        sums = zeros_like(constants.weights), (d_carry, zeros_like(constants.reset_to))
        (d_weights, (d_carry, d_reset)), dxs = in_chunks(
            walk, sums, (steps, kept, dhs), tuning.chunk, reverse=not reverse, chunks=firsts
        )
        return Constants(d_weights, d_reset, None, None), d_carry, dxs

    d_constants, d_carry, dxs = on_platform(run, _with_gradient(plan), residuals, *cotangents)
    return d_constants, d_carry, Steps(dxs, None, None, None)


vjp.defvjp(_vjp_fwd, _vjp_bwd)


# "jvp": the derivative of a forward walk. A rule for one chunk.


def jvp(
    plan: Plan, constants: Constants, carry: State, steps: Steps
) -> tuple[State, Float[Array, "time *batch output"]]:
    """The same; its derivative is ``_jvp_rule``, chunk after chunk.

    Chunk and unroll are those of the CPU everywhere: where JAX differentiates a choice of platform,
    it keeps what each branch needs.
    """
    keep = jax.checkpoint_policies.save_only_these_names(*plan.policy.kept)
    _, tuning = choose(plan._replace(kernel=XLA, gradient=True))
    rule = jax.checkpoint(partial(_jvp, plan, tuning), policy=keep, prevent_cse=False)

    def walk(carry: State, data: tuple[Steps, Any]) -> tuple[State, Array]:
        out: tuple[State, Array] = rule(constants, carry, data[0])
        return out

    return in_chunks(walk, carry, steps, tuning.chunk, reverse=plan.walk.reverse)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _jvp(
    plan: Plan, tuning: Tuning, constants: Constants, carry: State, steps: Steps
) -> tuple[State, Array]:
    """The chunk, whose tangent is ``_jvp_rule``: linear, so that JAX can transpose it as well."""
    carry, after, _ = XLA.forward(tuning, plan.walk, constants, carry, steps, keep="hs")
    return carry, after.h


@partial(_jvp.defjvp, symbolic_zeros=True)
def _jvp_rule(plan: Plan, tuning: Tuning, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """The tangent of one chunk, an overdot marking tangents.

    ż_t = [ẋ_t·W + x_t·Ẇ + h_{t-1}·U̇ + ḃ] + ḣ_{t-1}·U, then the step's own tangent.

    What stands in brackets is known before the walk through time. Above all Ẇ and U̇ stay outside
    it, so that the transpose of this rule finds dW and dU as one product each, not step by step.
    """
    walk, local = plan.walk, local_of(plan.walk.gates)
    constants, carry, steps = primals
    d_constants, d_carry, d_steps = tangents
    d_carry = jax.tree.map(_dense, d_carry, carry)
    d_reset = jax.tree.map(_dense, d_constants.reset_to, constants.reset_to)
    weights, moving = constants.weights, d_constants.weights

    last, after, saved = XLA.forward(tuning, walk, constants, carry, steps, keep="gates")
    # The names by which ``jvp`` says what may be kept for a backward pass.
    after, saved = _named(after, "carries"), _named(saved, "gates")
    known = values(walk, constants, steps, carry, after, None if plan.policy.step_again else saved)

    def linear(*terms: tuple[Callable[..., Array], Any, Any]) -> Columns:
        moved = [f(a, w, walk.dtype) for f, a, w in terms if not (_is_zero(a) or _is_zero(w))]
        if moved:
            return reduce(jnp.add, moved)
        shape = *steps.xs.shape[:-1], weights.w_ih.shape[-1]
        return jnp.zeros(shape, steps.xs.dtype, out_sharding=batch_sharding(steps.xs, 0, -1))

    dx_part = linear((product, d_steps.xs, weights.w_ih), (product, steps.xs, moving.w_ih))
    if weights.b is not None and not _is_zero(moving.b):
        dx_part = dx_part + along(moving.b, dx_part)
    dh_part = linear((recurrent, masked(constants, known.before.h), moving.w_hh))
    d_own = jax.tree.map(_dense, moving.own, weights.own, is_leaf=_is_zero)

    # Tangents by the transpose of what finds cotangents: first what is known before the walk.
    jac, pull = local.prepare(known)
    left = jax.eval_shape(jax.vmap(pull), jac, after)[0]
    beforehand = _transpose(partial(local.gradient, known), left)(dx_part, dh_part, d_own)

    def step(d: State, t: tuple[Any, ...]) -> tuple[State, Array]:
        jac, beforehand, valid, keep = t
        d_prev = select(keep, d, d_reset)
        push = _transpose(partial(pull, jac), d)
        new = push(beforehand, h_part(walk, constants, d_prev.h), d_prev)
        new = select(valid, new, d)
        return new, new.h

    d_after = lax.scan(
        step,
        d_carry,
        (jac, beforehand, steps.valid, steps.keep),
        reverse=walk.reverse,
        unroll=tuning.unroll,
    )
    return (last, after.h), d_after


def _transpose(linear: Callable[[Any], Any], like: Any) -> Callable[..., Any]:
    """The transpose of a linear function of ``like``, which takes its results."""
    transposed = jax.linear_transpose(linear, like)
    return lambda *results: transposed(results)[0]


def _named(tree: Any, name: str) -> Any:
    return jax.tree.map(lambda a: checkpoint_name(a, name), tree)  # type: ignore[no-untyped-call]


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _dense(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if _is_zero(tangent) else tangent


# "autodiff": JAX's own derivative of the plain scan, the reference.


def autodiff(
    plan: Plan, constants: Constants, carry: State, steps: Steps
) -> tuple[State, Float[Array, "time *batch output"]]:
    """The same by the cell's equations, step by step; everything is left to JAX."""
    walk, weights = plan.walk, constants.weights

    def step(carry: State, t: Steps) -> tuple[State, Array]:
        prev = select(t.keep, carry, constants.reset_to)
        parts = x_part(walk, constants, t.xs), h_part(walk, constants, prev.h)
        new = walk.gates.step(weights.own, *parts, prev, noise(walk, constants, t.t, prev))
        new = select(t.valid, new, carry)
        return new, new.h

    one = jax.checkpoint(step, prevent_cse=False) if plan.policy.step_again else step

    def scan(carry: State, data: tuple[Steps, Any]) -> tuple[State, Array]:
        unroll = plan.unroll or 1
        return lax.scan(one, carry, data[0], reverse=walk.reverse, unroll=unroll)

    if plan.policy.kept:
        return scan(carry, (steps, ()))
    _, tuning = choose(plan._replace(kernel=XLA, gradient=True))
    again = jax.checkpoint(scan, prevent_cse=False)
    return in_chunks(again, carry, steps, tuning.chunk, reverse=walk.reverse)


DERIVATIVES: Mapping[str, Callable[..., tuple[State, Array]]] = {
    "vjp": vjp,
    "jvp": jvp,
    "autodiff": autodiff,
}
