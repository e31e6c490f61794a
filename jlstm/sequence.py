"""``lstm``, a whole sequence, and ``cell``, a single step: the functions that users call.

Arguments are checked here, and masks made; what is computed, and how, is in ``derivatives.py``.
"""

import math
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jax.sharding import AxisType
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_choice, check_flag, check_size
from jlstm.derivatives import DERIVATIVES, Derivative
from jlstm.dropout import sequence_keys, step_numbers
from jlstm.equations import PLAIN
from jlstm.gates import (
    Gates,
    State,
    check_gates,
    check_state,
    check_weights,
    extras_of,
    first_state,
)
from jlstm.kernels import XLA, Kernel, check_implementation, check_refusal
from jlstm.linear import alike, along, flatten
from jlstm.plan import POLICIES, Plan, Residuals
from jlstm.types import check_array, check_float, check_key, check_step
from jlstm.walk import Constants, Steps, Walk, h_part, noise, select, x_part


def cell(
    params: Any,
    carry: State,
    x: Float[Array, "*batch input"],
    *,
    gates: Gates = PLAIN,
    key: PRNGKeyArray | None = None,
    t: int | Int[Array, ""] | None = None,
) -> tuple[State, Float[Array, "*batch output"]]:
    """One step of the LSTM: equations (1) to (6), the pure function that ``lax.scan`` takes.

    Args:
        params: the weights, of one floating-point dtype.
        carry: h and c of the step before, ``[*batch, hidden]``, same dtype; for another cell, what
            its ``start`` gives.
        x: the input of this step, ``[*batch, input]``, same dtype; any batch axes, or none.
        gates: the cell, if it is not the plain one; with its own weights.
        key: for a cell that is random: one key, or one for each sequence, ``[*batch]``.
        t: the number of the step, for a cell that is random: the same key and number give what
            ``lstm`` draws at that step.

    Returns:
        The new carry, and h once more as the step's output.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a shape that does not fit, a key or t that is missing; both name the argument,
            what was expected and what came.
    """
    params, extras = check_weights(check_gates(gates), params), extras_of(gates)
    x = check_array("x", x, ("...", params.w_ih.shape[0]), params.w_hh.dtype)
    batch = x.shape[:-1]
    carry = check_state("carry", carry, first_state(gates, params, batch))
    if t is not None:
        check_step("t", t)
    if key is not None:
        check_key("key", key)
    params, (x, carry), _ = alike(params, (x, carry))
    constants = _constants(
        gates, params, carry, sequence_keys(key, batch) if extras.random else None
    )
    if extras.random and t is None:
        raise ValueError("t: expected the number of the step, as gates is random, got None")
    walk, number = Walk(gates, False, None), None if t is None else jnp.asarray(t)
    parts = x_part(walk, constants, x), h_part(walk, constants, carry.h)
    drawn = noise(walk, constants, number, carry)
    new = gates.step(constants.weights.own, *parts, carry, drawn)
    return new, new.h


def _constants(gates: Gates, params: Any, reset_to: State, keys: PRNGKeyArray | None) -> Constants:
    """What is the same at every step."""
    extras = extras_of(gates)
    mask = None if extras.mask is None or keys is None else extras.mask(keys, reset_to.h)
    return Constants(flatten(params, extras.summed), reset_to, keys, mask)


class Inputs(NamedTuple):
    """The arrays that ``lstm`` was given, checked."""

    params: Any
    carry: State | None
    reset_to: State | None
    steps: Steps
    keys: PRNGKeyArray | None


@partial(jax.jit, static_argnums=(0, 1))
def _run(
    plan: Plan, derivative: Derivative, inputs: Inputs
) -> tuple[State, Float[Array, "time *batch output"]]:
    """``lstm`` with all its arguments checked."""
    gates, steps = plan.walk.gates, inputs.steps
    start = gates.start(inputs.params, steps.xs.shape[1:-1])
    states = tuple(start if a is None else a for a in (inputs.carry, inputs.reset_to))
    params, (carry, reset_to), data = alike(inputs.params, states, steps._replace(t=None))
    steps = data._replace(t=steps.t)

    # Padding is taken out here, around the rules: its inputs become 0 on the way in and its outputs
    # on the way out, and JAX does the same to the cotangents. Inside, padding only keeps the carry.
    def blank(a: Array) -> Array:
        blanked: Array = select(steps.valid, a, jnp.zeros_like(a))
        return blanked

    constants = _constants(gates, params, reset_to, inputs.keys)
    check_refusal(plan)
    if _only_scan((params, carry, reset_to, steps)):
        plan = plan._replace(kernel=XLA)
    steps = steps._replace(xs=blank(steps.xs))
    carry, hs = DERIVATIVES[derivative](plan, constants, carry, steps)
    return carry, blank(hs)


def lstm(
    params: Any,
    carry: State | None,
    xs: Float[Array, "time *batch input"],
    *,
    gates: Gates = PLAIN,
    key: PRNGKeyArray | None = None,
    t: int | Int[Array, ""] = 0,
    lengths: Int[Array, "*batch"] | None = None,
    resets: Bool[Array, "time *batch"] | None = None,
    reset_to: State | None = None,
    reverse: bool = False,
    derivative: Derivative = "vjp",
    residuals: Residuals = "gates",
    chunk: int | None = None,
    unroll: int | None = None,
    compute_dtype: DTypeLike | None = None,
    implementation: str | Kernel | None = None,
) -> tuple[State, Float[Array, "time *batch output"]]:
    """The LSTM over a sequence: ``cell`` at every step, with a hand-derived derivative.

    Args:
        params: the weights, of one floating-point dtype, which is that of the whole computation.
        carry: h and c before the first step, ``[*batch, hidden]``; None for zeros. For another
            cell, what its ``start`` gives, and None for just that.
        xs: the inputs, ``[time, *batch, input]``; any number of batch axes, or none.
        gates: the cell, if it is not the plain one, with its own weights: a ``Variant``, an
            ``SLSTM``, or one of your own (see ``jlstm.gates``).
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
            that of the start.
        reverse: walk from the last step (with lengths: length − 1) down to step 0. ``hs[t]`` still
            belongs to ``xs[t]``, and the carry returned is the one after step 0.
        derivative: how a gradient is found. ``"vjp"``: the hand-derived backward pass; reverse mode
            to any order, and forward over reverse (Hessian-vector products), but not forward mode
            by itself. ``"jvp"``: the hand-derived tangent, for ``jax.jvp``, ``jacfwd``,
            ``linearize`` and ``hessian``, and for reverse mode by transposition. ``"autodiff"``:
            the plain scan, for reference.
        residuals: what the forward pass keeps for the backward pass. ``"gates"``: gates and c of
            every step (of another cell, z and the carry), as a rule the fastest. ``"carry"``: h and
            c of every step. ``"chunks"``: h and c between chunks, for very long sequences. What is
            not kept is computed again.
        chunk: steps in a chunk; None for the measured best (``jlstm.kernels.xla``) on the platform
            that the program is compiled for, or for ``"jvp"`` and ``"autodiff"`` on CPU.
            ``"autodiff"`` is cut into chunks only for residuals="chunks". A symbolic time, in
            ``jax.export``, is one chunk.
        unroll: steps of the inner loop that are compiled as one; None as for chunk. With a symbolic
            time, 1.
        compute_dtype: the dtype to which the factors of matrix products are rounded, say
            ``jnp.bfloat16``. Sums, gate arithmetic and the carry keep the parameters' dtype. In the
            backward pass of "jvp" and "autodiff", which JAX finds by transposing, the cotangent is
            a factor that stays unrounded.
        implementation: what walks through a chunk for ``"vjp"``: None for the fastest on the
            platform that the program is compiled for, ``"native"`` for C++ on CPU, ``"xla"`` for
            ``lax.scan``, or a ``Kernel``.
            (On a platform that a kernel is not for, in ``"jvp"`` and ``"autodiff"``, and in second
            derivatives, it is the scan.)

    Returns:
        The carry after the last step, and the outputs h of every step, ``[time, *batch, hidden]``.
        No option but ``compute_dtype`` changes either beyond rounding.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a shape that does not fit, an unknown option, a length out of range, an
            implementation that cannot do what is asked; both name the argument, what was expected
            and what came.
    """
    params, extras = check_weights(check_gates(gates), params), extras_of(gates)
    xs = check_array("xs", xs, ("time", "...", params.w_ih.shape[0]), params.w_hh.dtype)
    time, *batch = xs.shape[:-1]
    first = first_state(gates, params, batch)
    if carry is not None:
        carry = check_state("carry", carry, first)
    if reset_to is not None:
        reset_to = check_state("reset_to", reset_to, first)
    if key is not None:
        check_key("key", key)
    keys = sequence_keys(key, batch) if extras.random else None
    valid = None if lengths is None else valid_steps(lengths, time, batch)
    keep = None
    if resets is not None:
        keep = ~check_array("resets", resets, (time, *batch), jnp.bool_)
        keep = keep if valid is None else keep | ~valid
    check_step("t", t)
    check_flag("reverse", reverse)
    check_choice("derivative", derivative, get_args(Derivative))
    check_choice("residuals", residuals, get_args(Residuals))
    for name, value in (("chunk", chunk), ("unroll", unroll)):
        if value is not None:
            check_size(name, value)
    if compute_dtype is not None:
        compute_dtype = check_float("compute_dtype", compute_dtype)
        gates = gates if extras.rounded is None else extras.rounded(compute_dtype)
    if is_symbolic_dim(time):
        chunk, unroll = None, 1  # a scan does not know what a symbol leaves over
    elif chunk is not None:
        chunk = max(1, min(chunk, time))
    plan = Plan(
        walk=Walk(gates, bool(reverse), compute_dtype),
        policy=POLICIES[residuals],
        shape=(time, math.prod(batch), *params.w_ih.shape[::2]),
        columns=math.prod(params.w_ih.shape[1:]),
        dtype=xs.dtype,
        kernel=check_implementation(implementation),
        chunk=chunk,
        unroll=unroll,
    )

    number = None if keys is None else step_numbers(time, t)
    valid, keep = (None if mask is None else mask[..., None] for mask in (valid, keep))
    inputs = Inputs(params, carry, reset_to, Steps(xs, valid, keep, number), keys)
    try:
        last, hs = _run(plan, derivative, inputs)
    except TypeError as error:
        if derivative == "vjp" and "custom_vjp" in str(error):
            raise TypeError(
                "derivative: expected 'jvp' for forward mode (jax.jvp, jacfwd), got 'vjp'"
            ) from error
        raise
    return last, hs


def _only_scan(arrays: Any) -> bool:
    """Whether there are symbolic sizes, or arrays that are cut over the devices of a mesh.

    Symbolic sizes only the scan can do; and XLA cannot cut a call of a kernel, and would gather its
    operands. (Inside ``shard_map`` there is nothing to cut.)
    """
    leaves = [jax.typeof(a) for a in jax.tree.leaves(arrays)]
    cut = any(
        size > 1 and kind is not AxisType.Manual
        for a in leaves
        for kind, size in zip(a.sharding.mesh.axis_types, a.sharding.mesh.axis_sizes, strict=True)
    )
    return cut or any(any(map(is_symbolic_dim, a.shape)) for a in leaves)


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
