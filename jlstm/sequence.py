"""The LSTM over a sequence: the linear map, the walk through time, and its three derivatives.

Forward, for t = 1 … T, with the gate arithmetic (z, c') → (h, c) of ``cell.py``::

    z_t = x_t·W + h_{t-1}·U + b,    (h_t, c_t) = gates(z_t, c_{t-1})

Backward, for t = T … 1, dh_t being the loss's own part plus what came back from t + 1::

    dz_t, dc_{t-1} = pullback(dh_t, dc_t),    dh_{t-1} = dz_t·Uᵀ                   one by one
    dx_t = dz_t·Wᵀ   dW = Σ_t x_tᵀ·dz_t   dU = Σ_t h_{t-1}ᵀ·dz_t   db = Σ_t dz_t   all at once

Only dz has to be found step by step. The weights' gradients are sums over time of outer products,
that is, one matrix product over all time steps, where autodiff of a scan adds up a weight-sized
product at every step. The same holds forward in time for x_t·W, which needs no h.

Time is cut into *chunks* of a few steps, so that what is computed for many steps at once still fits
into the cache. This file reads from one step (``_step``) to one chunk (``_forward``, ``_recall``,
``_backward``) to the three derivatives (``_vjp``, ``_jvp``, ``_plain``) to the whole sequence
(``_scan``, ``lstm``).
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jax.export import is_symbolic_dim
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.cell import PLAIN, init_carry
from jlstm.checks import check_choice, check_flag, check_size
from jlstm.gates import Gates, check_gates, draw_steps, sequence_keys
from jlstm.linear import alike, along, batch_sharding, outer, product
from jlstm.types import Carry, check_array, check_carry, check_float, check_key, check_step

Derivative = Literal["vjp", "jvp", "autodiff"]
Residuals = Literal["gates", "carry", "chunks"]
Walk = Callable[[Any, Any], tuple[Any, Any]]
"""What ``lax.scan`` takes: (carry, one of many) -> (carry, what is to be collected)."""


class Plan(NamedTuple):
    """How to walk through a sequence: all that is known before the program is compiled."""

    gates: Gates
    derivative: Derivative
    residuals: Residuals
    chunk: int
    unroll: int
    reverse: bool
    compute_dtype: Any


class Steps(NamedTuple):
    """What the scan consumes, time leading; a mask that is None is all True."""

    xs: Float[Array, "time *batch input"]
    valid: Bool[Array, "time *batch 1"] | None
    """False at padding, where the carry stays as it is."""
    keep: Bool[Array, "time *batch 1"] | None
    """False where the carry is replaced by ``reset_to`` before the step; True at padding."""
    t: Int[Array, " time"] | None
    """The number of the step, from which a random gate arithmetic makes its masks."""


class Chance(NamedTuple):
    """All that is random, for gate arithmetics that are; the same at every step."""

    keys: PRNGKeyArray
    """One for each sequence, ``[*batch]``."""
    mask: Float[Array, "*batch hidden"] | None
    """What h' is multiplied with on its way into h'·U."""


def _select(mask: Array | None, yes: Any, no: Any) -> Any:
    """``yes`` where the mask is True, else ``no``; a mask of None is all True."""
    if mask is None:
        return yes
    return jax.tree.map(lambda a, b: jnp.where(mask, a, along(b, a)), yes, no)


# One step


def _preact(plan: Plan, weights: Any, xs: Array) -> Array:
    """The part of z that needs no h: x·W + b, for one step or for many."""
    x_part = product(xs, weights.w_ih, plan.compute_dtype)
    return plan.gates.inputs(_rest(weights), x_part)


def _recurrent(plan: Plan, weights: Any, chance: Chance | None, h: Array) -> Array:
    """h'·U, for one step or for many."""
    return product(_drop(chance, h), weights.w_hh, plan.compute_dtype)


def _step(
    plan: Plan,
    gates: Callable[..., Any],
    weights: Any,
    reset_to: Carry,
    chance: Chance | None,
    carry: Carry,
    t: Any,
) -> Any:
    """One step from x·W + b on: what the gate arithmetic makes of it."""
    z, valid, keep, number = t
    prev = _select(keep, carry, reset_to)
    noise = _noise(plan, chance, number, prev)
    h_part = _recurrent(plan, weights, chance, prev.h)
    new, saved = gates(_rest(weights), z, h_part, prev, noise, _into(plan))
    return _select(valid, new, carry), saved


def _rest(weights: Any) -> Any:
    """The weights that are the gate arithmetic's own."""
    return weights._replace(w_ih=None, w_hh=None)


def _into(plan: Plan) -> Callable[[Array, Array], Array]:
    return partial(product, dtype=plan.compute_dtype)


def _drop(chance: Chance | None, h: Array) -> Array:
    return h if chance is None or chance.mask is None else h * along(chance.mask, h)


def _noise(plan: Plan, chance: Chance | None, number: Array | None, carry: Carry) -> Any:
    """The masks of one step, or of as many as there are numbers."""
    if chance is None or number is None:
        return None
    output, hidden = carry.h.shape[-1], carry.c.shape[-1]
    noise = partial(plan.gates.noise, hidden=hidden, output=output, dtype=carry.h.dtype)
    if jnp.ndim(number):
        return draw_steps(noise, chance.keys, number)
    return noise(chance.keys, number)


# One chunk


def _forward(
    plan: Plan, weights: Any, carry: Carry, steps: Steps, reset_to: Carry, chance: Chance | None
) -> tuple[Carry, Carry, Any]:
    """The carry after the chunk, the carries after each step, and what the gates saved."""
    zs = _preact(plan, weights, steps.xs)

    def step(carry: Carry, t: Any) -> tuple[Carry, Any]:
        new, saved = _step(plan, plan.gates.forward, weights, reset_to, chance, carry, t)
        return new, (new, saved)

    carry, (after, saved) = lax.scan(
        step, carry, (zs, *steps[1:]), reverse=plan.reverse, unroll=plan.unroll
    )
    return carry, after, saved


def _recall(
    plan: Plan,
    weights: Any,
    carry: Carry,
    steps: Steps,
    reset_to: Carry,
    chance: Chance | None,
    *,
    after: Carry | None,
    saved: Any,
) -> tuple[Carry, Any]:
    """The carry that each step started from, and its Jacobian; None is computed again.

    With ``after`` at hand the gates of all steps are one product, since every h_{t-1} is known;
    without it the chunk is walked through once more.
    """
    if after is None:
        _, after, saved = _forward(plan, weights, carry, steps, reset_to, chance)

    def shift(first: Array, rest: Array) -> Array:
        parts = [rest[1:], first[None]] if plan.reverse else [first[None], rest[:-1]]
        return jnp.concatenate(parts)

    before = _select(steps.keep, jax.tree.map(shift, carry, after), reset_to)
    rest, noise = _rest(weights), _noise(plan, chance, steps.t, before)
    if saved is None:
        parts = _preact(plan, weights, steps.xs), _recurrent(plan, weights, chance, before.h)
        _, saved = plan.gates.forward(rest, *parts, before, noise, _into(plan))
    return before, plan.gates.jacobian(rest, saved, before, after, noise, _into(plan))


def _backward(
    plan: Plan,
    weights: Any,
    transposed: Any,
    steps: Steps,
    before: Carry,
    jac: Any,
    d: tuple[Carry, Carry],
    dhs: Array,
    chance: Chance | None,
) -> tuple[Any, tuple[Carry, Carry], Array]:
    """Back-propagation through the chunk: cotangents of weights, (carry, reset_to) and xs.

    ``transposed`` holds Wᵀ and Uᵀ as matrices of their own: on CPU a product with a matrix that is
    only read as transposed takes up to three times as long, and here it would do so at every step.
    """
    into = _into(plan)

    def step(d: tuple[Carry, Carry], t: Any) -> tuple[tuple[Carry, Carry], Any]:
        (dh, dc), d_reset = d
        jac, dh_loss, valid, keep = t
        dh = dh + dh_loss
        out, dh_part, (dh_prev, dc_prev) = plan.gates.pullback(
            _rest(transposed), jac, Carry(dh, dc), into
        )
        dh_through = _drop(chance, into(dh_part, transposed.w_hh))
        d_prev = Carry(dh_through if dh_prev is None else dh_prev + dh_through, dc_prev)
        out = _select(valid, out, jax.tree.map(jnp.zeros_like, out))
        d_prev = _select(valid, d_prev, Carry(dh, dc))
        if keep is not None:
            zero = jax.tree.map(jnp.zeros_like, d_prev)
            d_reset = jax.tree.map(jnp.add, d_reset, _select(keep, zero, d_prev))
            d_prev = _select(keep, d_prev, zero)
        return (d_prev, d_reset), out

    d, outs = lax.scan(
        step, d, (jac, dhs, steps.valid, steps.keep), reverse=not plan.reverse, unroll=plan.unroll
    )

    # All steps at once; dW and dU are one product, [x, h']ᵀ·dz, where both have the same dz.
    x_part = partial(product, steps.xs, weights.w_ih, plan.compute_dtype)
    dx_part, dh_part, d_rest = plan.gates.gradient(_rest(weights), jac, before, outs, x_part, into)

    xs, hs = steps.xs, _drop(chance, before.h)
    if dx_part is dh_part:
        dw = outer(jnp.concatenate([xs, hs], axis=-1), dx_part, into)
        dw_ih, dw_hh = jnp.split(dw, [xs.shape[-1]])
    else:
        dw_ih, dw_hh = outer(xs, dx_part, into), outer(hs, dh_part, into)
    dxs = into(dx_part, transposed.w_ih)
    return d_rest._replace(w_ih=dw_ih, w_hh=dw_hh), d, dxs


def _each(walk: Walk, carry: Any, chunks: Any, *, reverse: bool) -> tuple[Any, Any]:
    """``lax.scan`` over chunks; a single one needs no loop."""
    if jax.tree.leaves(chunks)[0].shape[0] != 1:
        return lax.scan(walk, carry, chunks, reverse=reverse)
    carry, out = walk(carry, jax.tree.map(lambda a: a[0], chunks))
    return carry, jax.tree.map(lambda a: a[None], out)


# The three derivatives. "vjp" is a rule for chunk after chunk, so that hs, which is returned, need
# not be kept once more; the other two are rules for one chunk, and the rest is left to JAX.


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _vjp(
    plan: Plan,
    weights: Any,
    carry: Carry,
    chunks: Steps,
    reset_to: Carry,
    chance: Chance | None,
) -> tuple[Carry, Array]:
    """Chunk after chunk; its reverse-mode derivative is ``_backward``, chunk after chunk."""
    if _is_light(chunks.xs, weights.w_ih):
        steps = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), chunks)
        carry, hs = _plain(plan, weights, carry, steps, reset_to, chance)
        return carry, hs.reshape(*chunks.xs.shape[:-1], hs.shape[-1])

    def walk(carry: Carry, steps: Steps) -> tuple[Carry, Array]:
        carry, after, _ = _forward(plan, weights, carry, steps, reset_to, chance)
        return carry, after.h

    return _each(walk, carry, chunks, reverse=plan.reverse)


def _vjp_fwd(
    plan: Plan,
    weights: Any,
    carry: Carry,
    chunks: Steps,
    reset_to: Carry,
    chance: Chance | None,
) -> tuple[tuple[Carry, Array], Any]:
    def walk(first: Carry, steps: Steps) -> tuple[Carry, Any]:
        carry, after, saved = _forward(plan, weights, first, steps, reset_to, chance)
        kept = {"gates": (after.c, saved), "carry": (after.c, None), "chunks": (None, None)}
        return carry, (after.h, (first, *kept[plan.residuals]))

    carry, (hs, kept) = _each(walk, carry, chunks, reverse=plan.reverse)
    return (carry, hs), (weights, reset_to, chance, chunks, hs, kept)


def _vjp_bwd(plan: Plan, residuals: Any, cotangents: tuple[Carry, Array]) -> tuple[Any, ...]:
    weights, reset_to, chance, chunks, hs, kept = residuals
    d_carry, dhs = cotangents
    transposed = jax.tree.map(lambda w: w.T if w.ndim == 2 else w, weights)

    def walk(sums: Any, t: Any) -> tuple[Any, Array]:
        d_weights, d = sums
        steps, hs, (first, cs, saved), dhs = t
        after = None if cs is None else Carry(hs, cs)
        before, jac = _recall(
            plan, weights, first, steps, reset_to, chance, after=after, saved=saved
        )
        more, d, dxs = _backward(plan, weights, transposed, steps, before, jac, d, dhs, chance)
        return (jax.tree.map(jnp.add, d_weights, more), d), dxs

    d_weights, d_reset = jax.tree.map(jnp.zeros_like, (weights, reset_to))
    (d_weights, (d_carry, d_reset)), dxs = _each(
        walk, (d_weights, (d_carry, d_reset)), (chunks, hs, kept, dhs), reverse=not plan.reverse
    )
    return d_weights, d_carry, Steps(dxs, None, None, None), d_reset, None


_vjp.defvjp(_vjp_fwd, _vjp_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _jvp(
    plan: Plan,
    weights: Any,
    carry: Carry,
    steps: Steps,
    reset_to: Carry,
    chance: Chance | None,
) -> tuple[Carry, Array]:
    """The chunk, whose tangent is ``_jvp_rule``: linear, so that JAX can transpose it as well."""
    carry, after, _ = _forward(plan, weights, carry, steps, reset_to, chance)
    return carry, after.h


@partial(_jvp.defjvp, symbolic_zeros=True)
def _jvp_rule(plan: Plan, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """The tangent of one chunk, an overdot marking tangents.

    ż_t = [ẋ_t·W + x_t·Ẇ + h_{t-1}·U̇ + ḃ] + ḣ_{t-1}·U, then (ḣ_t, ċ_t) = pushforward(ż_t, ċ_{t-1}).

    What stands in brackets is known before the walk through time. Above all Ẇ and U̇ stay outside
    it, so that the transpose of this rule finds dW and dU as one product each, not step by step.
    """
    weights, carry, steps, reset_to, chance = primals
    d_weights, d_carry, d_steps, d_reset, _ = tangents
    d_carry = jax.tree.map(_dense, d_carry, carry)
    d_reset = jax.tree.map(_dense, d_reset, reset_to)
    into = _into(plan)

    carry, after, saved = _forward(plan, *primals)
    # The names by which `_rule` says what may be kept for a backward pass.
    after, saved = _named(after, "carry"), _named(saved, "gates")
    if plan.residuals == "carry":
        saved = None
    before, jac = _recall(plan, *primals, after=after, saved=saved)

    def linear(*terms: tuple[Any, Any]) -> Array:
        moving = [into(x, w) for x, w in terms if not _is_zero(x) and not _is_zero(w)]
        if moving:
            return reduce(jnp.add, moving)
        shape = *steps.xs.shape[:-1], weights.w_hh.shape[-1]
        return jnp.zeros(shape, steps.xs.dtype, out_sharding=batch_sharding(steps.xs, 0, -1))

    known = plan.gates.tangent(
        _rest(weights),
        jax.tree.map(lambda d: None if _is_zero(d) else d, _rest(d_weights), is_leaf=_is_zero),
        jac,
        before,
        partial(product, steps.xs, weights.w_ih, plan.compute_dtype),
        linear((d_steps.xs, weights.w_ih), (steps.xs, d_weights.w_ih)),
        linear((_drop(chance, before.h), d_weights.w_hh)),
        into,
    )

    def step(d: Carry, t: Any) -> tuple[Carry, Array]:
        jac, known, valid, keep = t
        d_prev = _select(keep, d, d_reset)
        h_part = into(_drop(chance, d_prev.h), weights.w_hh)
        new = plan.gates.pushforward(_rest(weights), jac, known, h_part, d_prev, into)
        new = _select(valid, new, d)
        return new, new.h

    d_after = lax.scan(
        step,
        d_carry,
        (jac, known, steps.valid, steps.keep),
        reverse=plan.reverse,
        unroll=plan.unroll,
    )
    return (carry, after.h), d_after


def _named(tree: Any, name: str) -> Any:
    return jax.tree.map(lambda a: checkpoint_name(a, name), tree)  # type: ignore[no-untyped-call]


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)


def _dense(tangent: Any, primal: Array) -> Array:
    return jnp.zeros_like(primal) if _is_zero(tangent) else tangent


def _plain(
    plan: Plan,
    weights: Any,
    carry: Carry,
    steps: Steps,
    reset_to: Carry,
    chance: Chance | None,
) -> tuple[Carry, Array]:
    """The plain scan of the cell, left to JAX: the reference."""

    def equations(*arguments: Any) -> tuple[Carry, None]:
        return plan.gates.equations(*arguments), None

    def step(carry: Carry, t: Any) -> tuple[Carry, Array]:
        x, *masks = t
        t = (_preact(plan, weights, x), *masks)
        new, _ = _step(plan, equations, weights, reset_to, chance, carry, t)
        return new, new.h

    if plan.residuals == "carry":
        step = jax.checkpoint(step, prevent_cse=False)
    return lax.scan(step, carry, tuple(steps), reverse=plan.reverse, unroll=plan.unroll)


def _rule(plan: Plan) -> Callable[..., tuple[Carry, Array]]:
    """One chunk after another, with the derivative and the residuals that the plan asks for."""
    rule: Callable[..., tuple[Carry, Array]]
    match plan.derivative:
        case "vjp":
            return partial(_vjp, plan)
        case "jvp":
            names = {"gates": ("carry", "gates"), "carry": ("carry",), "chunks": ()}
            policy = jax.checkpoint_policies.save_only_these_names(*names[plan.residuals])
            rule = jax.checkpoint(partial(_jvp, plan), policy=policy, prevent_cse=False)
        case "autodiff":
            rule = partial(_plain, plan)
            if plan.residuals == "chunks":
                rule = jax.checkpoint(rule, prevent_cse=False)

    def rules(
        weights: Any, carry: Carry, chunks: Steps, reset_to: Carry, chance: Chance | None
    ) -> tuple[Carry, Array]:
        def walk(carry: Carry, steps: Steps) -> tuple[Carry, Array]:
            return rule(weights, carry, steps, reset_to, chance)

        return _each(walk, carry, chunks, reverse=plan.reverse)

    return rules


# The whole sequence


@partial(jax.jit, static_argnums=0)
def _scan(
    plan: Plan,
    params: Any,
    carry: Carry | None,
    steps: Steps,
    reset_to: Carry | None,
    keys: PRNGKeyArray | None,
) -> tuple[Carry, Array]:
    """All whole chunks; what is left over where the chunk does not divide the time comes alone."""
    (output, _, hidden), dtype = params.w_hh.shape, params.w_hh.dtype
    zeros = init_carry(steps.xs.shape[1:-1], hidden, dtype, output_size=output)
    states = tuple(zeros if a is None else a for a in (carry, reset_to))
    params, (carry, reset_to), data = alike(params, states, steps._replace(t=None))
    steps, weights = data._replace(t=steps.t), plan.gates.flatten(params)

    # Padding is taken out here, around the rules: its inputs become 0 on the way in and its outputs
    # on the way out, and JAX does the same to the cotangents. Inside, padding only keeps the carry.
    def blank(a: Array) -> Array:
        blanked: Array = _select(steps.valid, a, jnp.zeros_like(a))
        return blanked

    steps = steps._replace(xs=blank(steps.xs))
    rule = _rule(plan)
    chance = None if keys is None else Chance(keys, plan.gates.mask(keys, output, dtype))

    def walk(carry: Carry, start: int, count: int, chunk: int) -> tuple[Carry, Array]:
        def cut(a: Array) -> Array:
            return a[start : start + count * chunk].reshape(count, chunk, *a.shape[1:])

        carry, hs = rule(weights, carry, jax.tree.map(cut, steps), reset_to, chance)
        return carry, hs.reshape(count * chunk, *hs.shape[2:])

    time = steps.xs.shape[0]
    count, rest = divmod(time, plan.chunk)
    if rest == 0:
        carry, hs = walk(carry, 0, count, plan.chunk)
        return carry, blank(hs)
    whole, over = (0, count, plan.chunk), (time - rest, 1, rest)
    if plan.reverse:
        carry, hs_over = walk(carry, *over)
        carry, hs_whole = walk(carry, *whole)
    else:
        carry, hs_whole = walk(carry, *whole)
        carry, hs_over = walk(carry, *over)
    return carry, blank(jnp.concatenate([hs_whole, hs_over]))


# The measured choices, where the caller names none: all on CPU, at hidden sizes from 64 to 512.


def choose_chunk(
    time: int, batch: int, inputs: int, hidden: int, residuals: Residuals, backend: str = "cpu"
) -> int:
    """The steps of a chunk.

    As many as have 2¹⁶ units of h between them, whose gates, a megabyte in float32, still fit into
    a core's cache; or, if that is more, an eighth as many as there are weights, since each chunk
    adds its part to the gradient of all of them. From 2 to 128; elsewhere than on CPU at least 16,
    as every chunk is a few more kernels to launch.

    With residuals="chunks" memory is what counts: time/chunk borders of h and c, and some 18 arrays
    of their size for every step of one chunk, which is least at √(2·time/18); at 8, products are
    still of a fair size.

    Of the lengths from half to twice the target, the nearest that divides the time is taken, if
    there is one: a remainder costs a copy and a second compilation.
    """
    units = max(2**16, 4 * hidden * (inputs + hidden) // 8)
    least = 2 if backend == "cpu" else 16
    target = min(max(least, units // max(1, batch * hidden)), 128)
    if residuals == "chunks":
        target = max(8, math.isqrt(time) // 3)
    if time <= target:
        return max(1, time)
    near = [k for k in range(max(1, target // 2), 2 * target + 1) if time % k == 0]
    return min(near, key=lambda k: abs(k - target), default=target)


def choose_unroll(backend: str) -> int:
    """The steps compiled as one: 1 on CPU, where more bring nothing; 8 on GPU.

    There a step is a few microseconds of work, and what is compiled as one is also launched as one.
    (From XLA's documentation; not measured.)
    """
    return 8 if backend == "gpu" else 1


def _is_light(
    xs: Float[Array, "chunks time *batch input"], w_ih: Float[Array, "input gates"]
) -> bool:
    """Whether x·W had better be computed step by step where no gradient is asked for.

    For a batch, and a W of at most 2¹⁴ numbers, that product costs less than writing down and
    reading again what it gives for all steps of a chunk; 1.1 to 1.2 times on CPU.
    """
    return math.prod(xs.shape[2:-1]) not in (0, 1) and w_ih.size <= 2**14


def lstm(
    params: Any,
    carry: Carry | None,
    xs: Float[Array, "time *batch input"],
    *,
    gates: Gates = PLAIN,
    key: PRNGKeyArray | None = None,
    t: int | Int[Array, ""] = 0,
    lengths: Int[Array, "*batch"] | None = None,
    resets: Bool[Array, "time *batch"] | None = None,
    reset_to: Carry | None = None,
    reverse: bool = False,
    derivative: Derivative = "vjp",
    residuals: Residuals = "gates",
    chunk: int | None = None,
    unroll: int | None = None,
    compute_dtype: DTypeLike | None = None,
) -> tuple[Carry, Float[Array, "time *batch hidden"]]:
    """The LSTM over a sequence: ``cell`` at every step, with a hand-derived derivative.

    Args:
        params: the weights, of one floating-point dtype, which is that of the whole computation.
        carry: h and c before the first step, ``[*batch, hidden]``; None for zeros.
        xs: the inputs, ``[time, *batch, input]``; any number of batch axes, or none.
        gates: the cell, a value of ``Variant`` if it is not the plain one; with its own weights.
        key: for a cell that is random: one key, or one for each sequence, ``[*batch]``.
        t: for a cell that is random: the number of the step xs begins with, from which its masks
            are drawn. For pieces of a sequence, how many steps came before.
        lengths: steps that count in each sequence, int ``[*batch]``. At steps t ≥ length the carry
            stays as it is and the output is 0, so the carry returned is the one after the last step
            that counts, and length 0 returns the carry given; what xs holds there has no influence,
            NaN included (which costs a copy of xs and of hs). Outside 0 … time: ValueError, or,
            under ``jit``, where the values are not known, taken as the nearest that is inside.
        resets: bool ``[time, *batch]``; where True the carry is replaced by ``reset_to`` before
            that step, in the order of the scan. A reset at a padded step does nothing.
        reset_to: the carry to start again from, ``[*batch, hidden]``, differentiable; None for
            zeros.
        reverse: walk from the last step (with lengths: length − 1) down to step 0. ``hs[t]`` still
            belongs to ``xs[t]``, and the carry returned is the one after step 0.
        derivative: how a gradient is found. ``"vjp"``: the hand-derived backward pass; reverse mode
            to any order, and forward over reverse (Hessian-vector products), but not forward mode
            by itself. ``"jvp"``: the hand-derived tangent, for ``jax.jvp``, ``jacfwd``,
            ``linearize`` and ``hessian``, and for reverse mode by transposition. ``"autodiff"``:
            the plain scan, for reference.
        residuals: what the forward pass keeps for the backward pass. ``"gates"``: gates and c of
            every step (of a ``Variant``, z and c), as a rule the fastest. ``"carry"``: h and c of
            every step. ``"chunks"``: h and c between chunks, for very long sequences. What is not
            kept is computed again.
        chunk: steps in a chunk; None for ``choose_chunk``. ``"autodiff"`` is cut into chunks only
            for residuals="chunks". A symbolic time, in ``jax.export``, is one chunk.
        unroll: steps of the inner loop that are compiled as one; None for ``choose_unroll``.
        compute_dtype: the dtype to which the factors of matrix products are rounded, say
            ``jnp.bfloat16``. Sums, gate arithmetic and the carry keep the parameters' dtype. In the
            backward pass of "jvp" and "autodiff", which JAX finds by transposing, the cotangent is
            a factor that stays unrounded.

    Returns:
        The carry after the last step, and the outputs h of every step, ``[time, *batch, hidden]``.
        No option but ``compute_dtype`` changes either beyond rounding.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a shape that does not fit, an unknown option or a length out of range; both name
            the argument, what was expected and what came.
    """
    params = check_gates(gates).check(params)
    inputs, dtype = params.w_ih.shape[0], params.w_hh.dtype
    output, hidden = params.w_hh.shape[0], params.w_hh.shape[-1]
    xs = check_array("xs", xs, ("time", "...", inputs), dtype)
    time, *batch = xs.shape[:-1]
    if carry is not None:
        carry = check_carry("carry", carry, batch, hidden, dtype, output)
    if reset_to is not None:
        reset_to = check_carry("reset_to", reset_to, batch, hidden, dtype, output)
    if key is not None:
        check_key("key", key)
    keys = sequence_keys(key, batch) if gates.random else None
    valid = None if lengths is None else valid_steps(lengths, time, batch)
    keep = None
    if resets is not None:
        keep = ~check_array("resets", resets, (time, *batch), jnp.bool_)
        keep = keep if valid is None else keep | ~valid
    check_step("t", t)
    check_flag("reverse", reverse)
    check_choice("derivative", derivative, get_args(Derivative))
    check_choice("residuals", residuals, get_args(Residuals))
    backend = jax.default_backend()
    count, symbolic = math.prod(batch), bool(is_symbolic_dim(time))
    if chunk is None:
        # A symbolic batch, in ``jax.export``, is taken to be of the usual order.
        many = 32 if is_symbolic_dim(count) else count
        steps = 1 if symbolic else time
        chunk = choose_chunk(steps, many, inputs, hidden, residuals, backend)
    check_size("chunk", chunk)
    if unroll is None:
        unroll = choose_unroll(backend)
    check_size("unroll", unroll)
    if compute_dtype is not None:
        compute_dtype = check_float("compute_dtype", compute_dtype)
    if derivative == "autodiff" and residuals != "chunks":
        chunk = time
    plan = Plan(
        gates=gates,
        derivative=derivative,
        residuals=residuals,
        chunk=time if symbolic else max(1, min(chunk, time)),
        unroll=unroll,
        reverse=bool(reverse),
        compute_dtype=compute_dtype,
    )

    number = None if keys is None else step_numbers(time, t)
    valid, keep = (None if mask is None else mask[..., None] for mask in (valid, keep))
    try:
        carry, hs = _scan(plan, params, carry, Steps(xs, valid, keep, number), reset_to, keys)
    except TypeError as error:
        if derivative == "vjp" and "custom_vjp" in str(error):
            raise TypeError(
                "derivative: expected 'jvp' for forward mode (jax.jvp, jacfwd), got 'vjp'"
            ) from error
        raise
    return carry, hs


def step_numbers(time: int, first: int | Int[Array, ""]) -> Int[Array, " time"]:
    """Numbers from ``first`` on."""
    return jnp.arange(time) + jnp.asarray(first, jnp.arange(0).dtype)


def valid_steps(lengths: Any, time: int, batch: list[int]) -> Bool[Array, "time *batch"]:
    """True at the steps that count."""
    array = check_array("lengths", lengths, batch)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"lengths: expected an integer dtype, got {array.dtype.name}")
    known = not isinstance(lengths, jax.core.Tracer) and not is_symbolic_dim(time)
    if known and array.size:
        # By NumPy: inside a trace even a constant becomes a tracer once JAX has touched it.
        least, most = (int(f(np.asarray(lengths))) for f in (np.min, np.max))
        if least < 0 or most > time:
            raise ValueError(
                f"lengths: expected values from 0 to {time} (the time axis of xs), "
                f"got {least} to {most}"
            )
    # Clipped where it is still as wide as it came: what an int32 cannot say may be a length under
    # jit.
    steps = jnp.arange(time).reshape(time, *[1] * len(batch))
    most = min(int(np.iinfo(dtype).max) for dtype in (steps.dtype, array.dtype))
    valid: Array = steps < along(jnp.minimum(array, most).astype(steps.dtype), steps)
    return valid
