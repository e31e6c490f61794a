"""The walk through a chunk by ``lax.scan``: its definition, which runs everywhere.

Forward, for t = 1 … K::

    carry_t, saved_t = forward(x_t·W, h_{t-1}·U, carry_{t-1})

Backward, for t = K … 1, dh_t being the loss's own part plus what came back from t + 1::

    left_t, d(h_{t-1}·U), d_carry_{t-1} = pull(jac_t, d_carry_t),    dh_{t-1} += d(h_{t-1}·U)·Uᵀ

Everything that was tuned for XLA is here as well: ``tune`` and what it decides. All of it was
measured on CPU, at hidden sizes from 64 to 512.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from jlstm.gates import State, Values, extras_of
from jlstm.linear import (
    Matrix,
    Weights,
    outer,
    product,
    recurrent_back,
    recurrent_outer,
    total,
)
from jlstm.local import local_of
from jlstm.plan import Keep, Kernel, Plan, Tuning
from jlstm.types import replace
from jlstm.walk import (
    Constants,
    Steps,
    Walk,
    h_part,
    masked,
    noise,
    select,
    values,
    x_part,
    zeros_like,
)


def forward(
    tuning: Tuning, walk: Walk, constants: Constants, carry: State, steps: Steps, *, keep: Keep
) -> tuple[State, State, Any]:
    """The carry after the chunk, the carries after each step, and what is saved.

    ``keep`` says what of it is used: with ``"carries"`` nothing need be saved (None), and with
    ``"hs"`` of the carries after each step only h is looked at.
    """
    local, own = local_of(walk.gates), constants.weights.own
    save, ahead = keep == "gates", keep != "hs" or not tuning.stepwise
    if ahead:
        steps = steps._replace(xs=x_part(walk, constants, steps.xs))

    def step(carry: State, t: Steps) -> tuple[State, tuple[State, Any]]:
        x = t.xs if ahead else x_part(walk, constants, t.xs)
        prev = select(t.keep, carry, constants.reset_to)
        h = h_part(walk, constants, prev.h)
        drawn = noise(walk, constants, t.t, prev)
        if ahead:
            new, saved = local.forward(own, x, h, prev, drawn)
        else:
            new, saved = walk.gates.step(own, x, h, prev, drawn), None
        new = select(t.valid, new, carry)
        return new, (new, saved if save else None)

    carry, (after, saved) = lax.scan(step, carry, steps, reverse=walk.reverse, unroll=tuning.unroll)
    return carry, after, saved


def backward(
    tuning: Tuning,
    walk: Walk,
    constants: Constants,
    transposes: tuple[Array, Matrix],
    known: tuple[State, State, Any],
    steps: Steps,
    d: tuple[State, State],
    dhs: Array,
) -> tuple[tuple[State, State], Weights, Array]:
    """The cotangents of both carries, of the weights and of xs.

    Args:
        tuning: how it is done.
        walk: how to walk.
        constants: what is the same at every step.
        transposes: Wᵀ and Uᵀ.
        known: the carry before the chunk, the carries after each step, and what was saved, or None.
        steps: the arrays of the steps.
        d: the cotangents of the carry after the chunk, and of ``reset_to`` so far, to which this
            adds.
        dhs: the cotangents of all h.
    """
    (w_t, u_t), (first, after, saved) = transposes, known
    at = values(walk, constants, steps, first, after, saved)
    left, d = walk_back(tuning, walk, constants, u_t, at, steps, d, dhs)
    return d, *gradients(walk, tuning, constants, w_t, at, steps, left)


def walk_back(
    tuning: Tuning,
    walk: Walk,
    constants: Constants,
    u_t: Matrix,
    values: Values,
    steps: Steps,
    d: tuple[State, State],
    dhs: Array,
) -> tuple[Any, tuple[State, State]]:
    """What ``Local.gradient`` needs of each step, 0 at padding; the cotangents of both carries."""
    jac, pull = local_of(walk.gates).prepare(values)

    def step(d: tuple[State, State], t: tuple[Any, ...]) -> tuple[tuple[State, State], Any]:
        d_carry, d_reset = d
        jac, dh, valid, keep = t
        d_carry = replace(d_carry, h=d_carry.h + dh)
        left, dh_part, d_prev = pull(jac, d_carry)
        through = masked(constants, recurrent_back(dh_part, u_t, walk.dtype))
        d_prev = replace(d_prev, h=d_prev.h + through)
        left = select(valid, left, zeros_like(left))
        d_prev = select(valid, d_prev, d_carry)
        if keep is not None:
            zero = zeros_like(d_prev)
            d_reset = jax.tree.map(jnp.add, d_reset, select(keep, zero, d_prev))
            d_prev = select(keep, d_prev, zero)
        return (d_prev, d_reset), left

    d, left = lax.scan(
        step,
        d,
        (jac, dhs, steps.valid, steps.keep),
        reverse=not walk.reverse,
        unroll=tuning.unroll,
    )
    return left, d


def gradients(
    walk: Walk,
    tuning: Tuning,
    constants: Constants,
    w_t: Array,
    known: Values,
    steps: Steps,
    left: Any,
) -> tuple[Weights, Array]:
    """The cotangents of the weights and of xs, from what the walk left: all steps at once.

    They are sums over time of outer products, that is, one matrix product over all time steps,
    where autodiff of a scan adds up a weight-sized product at every step.
    """
    weights, dtype = constants.weights, walk.dtype
    dx_part, dh_part, d_own = local_of(walk.gates).gradient(known, left)
    xs, hs = steps.xs, masked(constants, known.before.h)
    if extras_of(walk.gates).summed and weights.w_hh.ndim == 2:
        # Both parts have the same cotangent: [x, h']ᵀ·dz is one product instead of two.
        both = outer(jnp.concatenate([xs, hs], axis=-1), dx_part, dtype, copy=tuning.copies)
        dw_ih, dw_hh = jnp.split(both, [xs.shape[-1]])
    else:
        dw_ih = outer(xs, dx_part, dtype, copy=tuning.copies)
        dw_hh = recurrent_outer(hs, dh_part, weights.w_hh, dtype, copy=tuning.copies)
    db = None if weights.b is None else total(dx_part)
    return Weights(dw_ih, dw_hh, db, d_own), product(dx_part, w_t, dtype)


# What was measured


def tune(plan: Plan) -> Tuning:
    """The choices for one platform and shape."""
    time, batch, inputs, hidden = plan.shape
    cpu = plan.platform == "cpu"
    # Without a gradient, and with a W of at most 2¹⁴ numbers, x·W for a batch costs less than
    # writing it down for all steps of a chunk and reading it again: 1.1 to 1.2 times on CPU.
    stepwise = cpu and not plan.gradient and plan.columns * inputs <= 2**14
    stepwise = stepwise and (is_symbolic_dim(batch) or batch > 1)
    # A symbolic batch, in ``jax.export``, is taken to be of the usual order.
    many = 32 if is_symbolic_dim(batch) else batch
    chunk: Any
    if is_symbolic_dim(time):
        chunk = time
    elif stepwise:
        chunk = max(1, time)
    else:
        chunk = choose_chunk(time, many, inputs, hidden, not plan.policy.kept, plan.platform)
    # More than one step at a time brings nothing on CPU. On GPU a step is a few microseconds of
    # work, and what is compiled as one is also launched as one. (From XLA's documentation; not
    # measured.)
    return Tuning(chunk, 1 if cpu else 8, stepwise, copies=cpu)


def choose_chunk(
    time: int, batch: int, inputs: int, hidden: int, borders: bool, platform: str = "cpu"
) -> int:
    """The steps of a chunk.

    As many as have 2¹⁶ units of h between them, whose gates, a megabyte in float32, still fit into
    a core's cache; or, if that is more, an eighth as many as there are weights, since each chunk
    adds its part to the gradient of all of them. From 2 to 128; elsewhere than on CPU at least 16,
    as every chunk is a few more kernels to launch.

    Where only the carry at the borders of chunks is kept (residuals="chunks"), memory is what
    counts, and the choice is the same everywhere: time/chunk borders of h and c, and some 18 arrays
    of their size for every step of one chunk, which is least at √(2·time/18); at 8, products are
    still of a fair size.

    Of the lengths from half to twice the target, the nearest that divides the time is taken, if
    there is one: a remainder costs a copy and a second compilation.
    """
    units = max(2**16, 4 * hidden * (inputs + hidden) // 8)
    least = 2 if platform == "cpu" else 16
    target = min(max(least, units // max(1, batch * hidden)), 128)
    if borders:
        target = max(8, math.isqrt(time) // 3)
    if time <= target:
        return max(1, time)
    near = [k for k in range(max(1, target // 2), 2 * target + 1) if time % k == 0]
    return min(near, key=lambda k: abs(k - target), default=target)


XLA = Kernel("xla", lambda plan: None, tune, forward, backward)
"""It refuses nothing."""
