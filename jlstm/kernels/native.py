"""The walk through a chunk on CPU, in C++: the plain LSTM, in float32 and float64.

The equations are those of ``equations.py``, forward and backward by hand, in ``cpp/walk.cc``; how
it is built and why it is fast stands in ``docs/cpu_kernel.md``. The library is an option: where it
was not built, or ``JLSTM_NATIVE=0`` says so, this kernel refuses and the scan is taken. It has no
derivatives of its own beyond the backward pass: the engine takes those of the scan.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jlstm.equations import PLAIN, Activated
from jlstm.kernels.xla import choose_chunk
from jlstm.linear import Matrix, Weights
from jlstm.plan import Keep, Kernel, Plan, Tuning
from jlstm.types import Carry
from jlstm.walk import Constants, Steps, Walk, values, zeros_like

SMALL = 2**18
"""Numbers in W and U that are laid out anew, at every call, in less time than two steps take …"""
MANY = 128
"""… or one step of so many sequences …"""
FEW = 16
"""… while more of them need so many steps. Measured on two cores, for 64 to 512 units."""

LIBRARY = Path(__file__).with_name("libnative.so")

# The number is that of what a call hands over: a program that was exported holds the name.
FORWARD, BACKWARD = "jlstm_forward_2", "jlstm_backward_2"


@cache
def library() -> ctypes.CDLL | str:
    """The library, its functions known to XLA; or the reason why there is none.

    Environment variables are read here, at the first use. ``JLSTM_NATIVE``: 0 for no library, 1 for
    an error where there is none. ``JLSTM_NATIVE_LEVEL``: an instruction set, if not the best one.

    Raises:
        RuntimeError: there is none, and JLSTM_NATIVE is 1; the machine lacks the instruction set.
    """
    wanted = os.environ.get("JLSTM_NATIVE", "")
    if wanted not in ("", "0", "1"):
        raise RuntimeError(f"JLSTM_NATIVE: expected 0 or 1, got {wanted!r}")
    if wanted == "0":
        return "JLSTM_NATIVE=0 switches it off"
    try:
        found = ctypes.CDLL(str(LIBRARY))
        functions = {name: getattr(found, name) for name in (FORWARD, BACKWARD)}
    except (OSError, AttributeError) as error:
        reason = f"it cannot be loaded: {error}" if LIBRARY.exists() else "it was not built"
        if isinstance(error, AttributeError):
            reason = "it was built from another version of jlstm; build it again"
        if wanted == "1":
            raise RuntimeError(f"JLSTM_NATIVE=1 asks for the native kernel, but {reason}") from None
        return reason
    found.jlstm_level.restype = ctypes.c_char_p
    level, asked = found.jlstm_level().decode(), os.environ.get("JLSTM_NATIVE_LEVEL")
    if asked not in (None, level):
        raise RuntimeError(f"JLSTM_NATIVE_LEVEL: expected {level} or what it includes, got {asked}")
    for name, function in functions.items():
        target = jax.ffi.pycapsule(function)  # type: ignore[no-untyped-call]
        jax.ffi.register_ffi_target(name, target, platform="cpu")
    return found


def status() -> str:
    """Whether the kernel is in use, for which instruction set, or why not."""
    try:
        found = library()
    except RuntimeError as error:
        return f"not in use: {error}"
    return f"not in use: {found}" if isinstance(found, str) else found.jlstm_level().decode()


def multiply_adds(count: int) -> int:
    """Do ``count`` rounds of multiply-adds in registers, in float32; how many those were.

    What a core can do at most, for benchmarks: 0 without the library.
    """
    found = library()
    if isinstance(found, str):
        return 0
    function = found.jlstm_multiply_adds_f32
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64]
    return int(function(count))


def pays(plan: Plan) -> bool:
    """Whether a call has work enough to make up for laying out W and U."""
    time, batch, inputs, hidden = plan.shape
    small = plan.columns * (inputs + hidden) <= SMALL
    return bool(time >= FEW or (small and (time > 1 or batch >= MANY)))


def refuses(plan: Plan) -> str | None:
    """The reason why it cannot do this, or, where no kernel was asked for, should not; or None."""
    if plan.platform != "cpu":
        return f"it runs on CPU, not on {plan.platform}"
    if plan.walk.gates != PLAIN:
        return f"it computes the plain LSTM, not {plan.walk.gates!r}"
    if plan.dtype not in (jnp.float32, jnp.float64):
        return f"it computes in float32 and float64, not in {jnp.dtype(plan.dtype).name}"
    if plan.walk.dtype is not None:
        return f"it does not round factors to {jnp.dtype(plan.walk.dtype).name} (compute_dtype)"
    if plan.kernel is None and not pays(plan):
        return "it takes longer than the scan for so few steps"
    found = library()
    return found if isinstance(found, str) else None


def tune(plan: Plan) -> Tuning:
    """The choices for one shape."""
    time, batch, inputs, hidden = plan.shape
    whole = max(1, time)
    chunk = choose_chunk(time, batch, inputs, hidden, not plan.policy.kept)
    # Backward the library has blocks of its own; only what it has to compute again is cut up here.
    ahead = whole if plan.policy.kept or not plan.gradient else chunk
    chunk = whole if "gates" in plan.policy.kept else chunk
    # A step reads all of W and U. As long as they fit into the cache of a core (2 MiB where it was
    # measured), x·W at every step costs less than writing it down for a block of steps.
    inside = plan.columns * (inputs + hidden) * np.dtype(plan.dtype).itemsize <= 2**21
    return Tuning(chunk, stepwise=inside, ahead=ahead)


def forward(
    tuning: Tuning, walk: Walk, constants: Constants, carry: Carry, steps: Steps, *, keep: Keep
) -> tuple[Carry, Carry, Any]:
    """As ``xla.forward``. With ``keep="hs"`` the c of each step is not written down."""
    weights, (time, *batch, _), hidden = constants.weights, steps.xs.shape, carry.h.shape[-1]
    reset_h, reset_c = _reset(steps, constants.reset_to)
    state, many = (*batch, hidden), (time, *batch, hidden)
    saved = [(time, *batch, k * hidden) if keep == "gates" else None for k in (2, 1, 1)]
    last_h, last_c, hs, cs, *gates = _call(
        FORWARD,
        [weights.w_ih, weights.w_hh, weights.b],
        [steps.xs, carry.h, carry.c, reset_h, reset_c, steps.valid, steps.keep],
        [state, state, many, None if keep == "hs" else many, *saved],
        walk,
        (time, *batch),
        stepwise=tuning.stepwise,
    )
    after = Carry(hs, hs if keep == "hs" else cs)
    return Carry(last_h, last_c), after, Activated(*gates) if keep == "gates" else None


def backward(
    tuning: Tuning,
    walk: Walk,
    constants: Constants,
    transposes: tuple[Array, Matrix],
    known: tuple[Carry, Carry, Any],
    steps: Steps,
    d: tuple[Carry, Carry],
    dhs: Array,
) -> tuple[tuple[Carry, Carry], Weights, Array]:
    """As ``xla.backward``."""
    (first, after, saved), (d_carry, d_reset) = known, d
    if saved is None:
        saved = values(walk, constants, steps, first, after).saved
    *lead, hidden = dhs.shape
    weights, reset_to = constants.weights, _reset(steps, constants.reset_to)
    state = (*lead[1:], hidden)
    reset = None if steps.keep is None else state
    dh, dc, dh_reset, dc_reset, dxs, dw, du, db = _call(
        BACKWARD,
        transposes,
        [
            *[steps.xs, *saved, after.h, after.c, first.h, first.c, *reset_to],
            *[dhs, d_carry.h, d_carry.c, *_reset(steps, d_reset), steps.valid, steps.keep],
        ],
        [state, state, reset, reset, steps.xs.shape],
        walk,
        lead,
        [None if a is None else a.shape for a in (weights.w_ih, weights.w_hh, weights.b)],
    )
    d = Carry(dh, dc), d_reset if reset is None else Carry(dh_reset, dc_reset)
    return d, Weights(dw, du, db, zeros_like(weights.own)), dxs


def _reset(steps: Steps, reset_to: Carry) -> tuple[Array | None, Array | None]:
    return (None, None) if steps.keep is None else (reset_to.h, reset_to.c)


def _call(
    name: str,
    weights: Sequence[Array | None],
    arrays: Sequence[Array | None],
    results: Sequence[tuple[int, ...] | None],
    walk: Walk,
    lead: Sequence[int],
    more: Sequence[tuple[int, ...] | None] = (),
    **choices: bool,
) -> list[Any]:
    """A function of the library, which knows one batch axis, and an empty array for None.

    Args:
        name: which one.
        weights: arrays without batch axes.
        arrays: arrays ``[*batch, ·]`` or ``[time, *batch, ·]``.
        results: the shapes of such arrays, of the dtype of all.
        walk: how to walk.
        lead: time and batch.
        more: the shapes of results without batch axes.
        choices: what else it is to be told.
    """
    time, *batch = lead
    dtype = next(a.dtype for a in weights if a is not None)

    def merged(shape: Sequence[int]) -> tuple[int, ...]:
        before = len(shape) - 1 - len(batch)
        return (*shape[:before], math.prod(batch), shape[-1])

    empty = jnp.zeros(0, dtype)
    given = [empty if a is None else a for a in weights]
    given += [empty if a is None else a.reshape(merged(a.shape)) for a in arrays]
    shapes = [(0,) if shape is None else merged(shape) for shape in results]
    shapes += [(0,) if shape is None else shape for shape in more]
    specs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]  # type: ignore[no-untyped-call]
    call = jax.ffi.ffi_call(name, specs, vmap_method="expand_dims")
    outs = call(*given, time=np.int64(time), reverse=walk.reverse, **choices)
    return [
        None if shape is None else a.reshape(shape)
        for a, shape in zip(outs, [*results, *more], strict=True)
    ]


NATIVE = Kernel("native", refuses, tune, forward, backward)
"""For the plain LSTM on CPU."""
