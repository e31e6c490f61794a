"""One step at a time, as data comes in: for one stream, and for many that come and go.

``lstm`` and ``stack`` see whole sequences. Where the next step is known only when it is there, all
that is kept in between is the carry. Here it is one array, the *state*, with a row for each stream,
and a step is

    state, h = step(state, x)                        state [*batch, size], x [*batch, input]

compiled ahead of time, with the weights in it, and the old state's memory taken for the new one
(donated: the old array is gone). What is random in training, dropout and zoneout, is off.

``Slots`` serve many streams with one program: a fixed number of rows, which streams join and leave.
Who waits keeps its state; who joins starts as a sequence does, from zeros or the learned carry::

    run, slots = compile_slots(config, params, 64), init_slots(config, params, 64)
    slots, number = join(slots)
    slots, hs = step_slots(run, slots, xs)           # hs[number] belongs to xs[number]
    slots = free(slots, number)

**Where the time of a step goes**, in microseconds, for B = 1, as many inputs as units, float32, on
two cores of an x86-64 CPU (Intel Xeon, a virtual machine), jax 0.10.2. Each line keeps what the
lines above it did; to call a program that does nothing takes 4.5, whichever way:

=====================================================  ======  =======  ==============
one step of ``stack``, waiting for h                   64      128      2 layers, 128
=====================================================  ======  =======  ==============
``jax.jit``                                                    40 – 80
run in the thread that calls (``dispatch_inline``)     12.2    15.1     27.7
carry donated                                          11.2    14.3     25.5
compiled ahead of time                                 12.0    15.1     26.3
carry and weights flat arguments                       10.5    13.5     24.9
weights constants of the program                       9.0     13.1     21.4
the carry one array: ``compile_step``                  8.4     11.9     17.8
=====================================================  ======  =======  ==============

Most of it by far is that JAX hands a program on CPU to another thread and then waits for that. What
did not pay: all weights as one array, out of which the program cuts them (65 for 128 units, as it
copies them); [W; U] as one matrix (a twentieth, for the plain cell alone); XLA's options (nothing).
The native kernel lays out the weights anew at every call, which pays for many streams and not too
many weights: for 128 units 46 instead of 12 at B = 1, about the same at 64, 240 instead of 440 at
128; for 512 units 6030 instead of 4430 at 256. ``pays`` of the kernel says where it is taken.
Slots cost some 5 more: the masks, and to keep who is where.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, UInt8

from jlstm.checks import check_flag, check_size
from jlstm.gates import check_weights, extras_of
from jlstm.initializers import check_batch_shape
from jlstm.kernels import Kernel
from jlstm.layers import LayerParams, Stack, init_stack_carry, stack
from jlstm.types import check_array

State = Float[Array, "*batch size"]
"""All that a stack remembers of a stream, in one row."""


def dispatch_inline() -> bool:
    """Make JAX run programs on CPU in the thread that calls them; whether it is not too late.

    A program says it once, before anything else of JAX. It holds for all programs of the process:
    to have the CPU at work while Python goes on, as a training loop may like it, is over. Elsewhere
    than on CPU it changes nothing.
    """
    config: Any = jax.config
    devices = config.jax_num_cpu_devices
    with suppress(RuntimeError):  # JAX has been used: it has its devices
        # Where it is too late, a change of this option is an error, and one of the other is not.
        config.update("jax_num_cpu_devices", devices + 1)
        config.update("jax_num_cpu_devices", devices)
        config.update("jax_cpu_enable_async_dispatch", False)
        return True
    return False


# The state


def pack(carry: Any) -> State:
    """The carry of a stack as one array: what belongs to a stream side by side in a row.

    Its dtype is the widest of the carry's, so that ``unpack`` finds the same numbers.
    """
    leaves = jax.tree.leaves(carry)
    wide = max((a.dtype for a in leaves), key=lambda dtype: dtype.itemsize)
    return jnp.concatenate([a.astype(wide) for a in leaves], axis=-1)


def unpack(config: Stack, params: Sequence[LayerParams], state: State) -> Any:
    """The carry of a stack, as ``stack`` takes it, from one array.

    Raises:
        TypeError, ValueError: a state that is not of this stack; params as for ``init_state``.
    """
    state = check_array("state", state, ("...", "size"))
    batch = state.shape[:-1]
    like = jax.eval_shape(lambda: init_stack_carry(config, _checked(config, params), batch))
    whole = jax.eval_shape(lambda: pack(_zeros(like)))
    check_array("state", state, whole.shape, whole.dtype)
    leaves, tree = jax.tree.flatten(like)
    borders = np.cumsum([a.shape[-1] for a in leaves])[:-1]
    parts = jnp.split(state, borders, axis=-1)
    narrow = [part.astype(a.dtype) for part, a in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(tree, narrow)


def _zeros(shapes: Any) -> Any:
    """Arrays of zeros of these shapes and dtypes."""
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def init_state(
    config: Stack, params: Sequence[LayerParams], batch_shape: int | Sequence[int] = 1
) -> State:
    """The state before the first step, ``[*batch, size]``: what was learned, or zeros.

    Args:
        config: the stack.
        params: its weights.
        batch_shape: one int for so many streams; ``()`` for a single one without an axis for it.

    Raises:
        TypeError: params that are not those of a stack, or a size that is no int.
        ValueError: a negative size; weights that do not fit.
    """
    return pack(init_stack_carry(config, _checked(config, params), batch_shape))


def _checked(config: Stack, params: Any) -> Any:
    """The weights; raise where they do not fit the cells. ``init_stack_carry`` checks the rest."""
    _check_stack(config)
    for n, (cell, one) in enumerate(zip(config.cells, _layers(params), strict=False)):
        for gates, weights in zip(cell.ways, one[:2], strict=True):
            try:
                if weights is not None:
                    check_weights(gates, weights)
            except (TypeError, ValueError) as error:
                raise type(error)(f"layer {n}: {error}") from error
    return params


def _layers(params: Any) -> list[LayerParams]:
    known = params if isinstance(params, tuple | list) else []
    return [one for one in known if isinstance(one, LayerParams)]


def _check_stack(config: Any) -> None:
    if not isinstance(config, Stack):
        raise TypeError(f"config: expected Stack, got {type(config).__name__}")


# A step


def evaluated(config: Any) -> Stack:
    """The stack ``without_noise``.

    Raises:
        TypeError: no stack.
        ValueError: one with a cell that is random even so.
    """
    _check_stack(config)
    quiet: Stack = config.without_noise()
    if any(extras_of(g).random for cell in quiet.cells for g in cell.ways):
        raise ValueError(
            "config: expected cells that are not random in evaluation, by themselves or as what "
            f"without_noise() gives, got {config.gates}"
        )
    return quiet


def check_streamable(config: Any) -> Stack:
    """The stack for evaluation; raise unless it can be computed step by step.

    Raises:
        TypeError, ValueError: as for ``evaluated``; a stack that walks from the end to the start.
    """
    quiet = evaluated(config)
    for option in ("bidirectional", "reverse"):
        if getattr(config, option):
            raise ValueError(
                "config: expected a stack that walks from the start alone, as a stream has not "
                f"reached its end; got {option}=True"
            )
    return quiet


def stack_step(
    config: Stack,
    params: Sequence[LayerParams],
    state: State,
    x: Float[Array, "*batch input"],
    *,
    mask: Bool[Array, "*batch"] | None = None,
    resets: Bool[Array, "*batch"] | None = None,
    implementation: str | Kernel | None = None,
) -> tuple[State, Float[Array, "*batch output"]]:
    """One step of a stack: what ``stack`` computes for a sequence of length 1, to rounding.

    Args:
        config: the stack, of one direction; it is taken ``without_noise``.
        params: its weights.
        state: from ``init_state`` or the step before.
        x: the input of this step; any batch axes, or none.
        mask: where False, the stream keeps its state, whatever x is there, and h is 0.
        resets: where True, the stream starts anew at this step (if mask does not stop it).
        implementation: as for ``lstm``; None for the measured best.

    Returns:
        The new state, and the outputs of the stack.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a shape that does not fit; a stack that cannot be computed step by step.
    """
    quiet = check_streamable(config)
    carry = unpack(quiet, params, state)
    state = jnp.asarray(state)
    first = params[0].forward
    x = check_array("x", x, (*state.shape[:-1], first.w_ih.shape[0]), first.w_hh.dtype)
    batch = x.shape[:-1]
    masks: dict[str, Any] = {}
    if mask is not None:
        masks["lengths"] = check_array("mask", mask, batch, jnp.bool_).astype(jnp.int32)
    if resets is not None:
        masks["resets"] = check_array("resets", resets, batch, jnp.bool_)[None]
    carry, hs = stack(quiet, params, carry, x[None], **masks, implementation=implementation)
    return pack(carry), hs[0]


def compile_step(
    config: Stack,
    params: Sequence[LayerParams],
    batch_shape: int | Sequence[int] = 1,
    *,
    baked: bool = True,
    donate: bool = True,
    implementation: str | Kernel | None = None,
) -> jax.stages.Compiled:
    """A step compiled ahead of time: ``state, h = step(state, x)``.

    It never compiles again: other shapes or dtypes are an error, which names the argument. x may be
    NumPy's, too.

    Args:
        config: the stack, of one direction; it is taken ``without_noise``.
        params: its weights.
        batch_shape: as for ``init_state``, from which the first state comes.
        baked: whether the weights are constants of the program, which is a little quicker, and
            keeps a second copy of them. If not, they are further arguments:
            ``step(state, x, *jax.tree.leaves(params))``.
        donate: whether the new state takes the memory of the old one, which can then no longer be
            used.
        implementation: as for ``lstm``; None for the measured best.

    Raises:
        TypeError, ValueError: as for ``stack_step``.
    """
    check_flag("baked", baked)
    check_flag("donate", donate)
    leaves, tree = jax.tree.flatten(params)

    def step(state: State, x: Array, *weights: Array) -> tuple[State, Array]:
        known = jax.tree.unflatten(tree, weights) if weights else params
        return stack_step(config, known, state, x, implementation=implementation)

    shapes = _shapes(config, params, batch_shape)
    given = [] if baked else [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]  # type: ignore[no-untyped-call]
    jitted = jax.jit(step, donate_argnums=0 if donate else ())
    return jitted.lower(*shapes, *given).compile()


def _shapes(config: Stack, params: Any, batch_shape: int | Sequence[int]) -> list[Any]:
    """Of the state and of x."""
    check_streamable(config)
    batch = check_batch_shape(batch_shape)
    state = jax.eval_shape(lambda: init_state(config, params, batch))
    first = params[0].forward
    x = jax.ShapeDtypeStruct((*batch, first.w_ih.shape[0]), first.w_hh.dtype)  # type: ignore[no-untyped-call]
    return [state, x]


# Many streams, which come and go

FREE, GOING, JOINED = range(3)
"""What a slot is: of nobody, of a stream that has made a step, or of one that has not."""


class Slots(NamedTuple):
    """A fixed number of slots for streams. Who is where is kept by NumPy, as it costs nothing."""

    state: Float[Array, "slots size"]
    """Donated at every step: a value from before a step cannot make that step again."""
    phase: UInt8[np.ndarray, " slots"]
    """``FREE``, ``GOING`` or ``JOINED``."""


def init_slots(config: Stack, params: Sequence[LayerParams], count: int) -> Slots:
    """So many slots, all free.

    Raises:
        TypeError, ValueError: as for ``init_state``; a count below 1.
    """
    check_size("count", count)
    return Slots(init_state(config, params, count), np.full(count, FREE, np.uint8))


def compile_slots(
    config: Stack,
    params: Sequence[LayerParams],
    count: int,
    *,
    implementation: str | Kernel | None = None,
) -> jax.stages.Compiled:
    """The program for so many slots, for ``step_slots``; compiled once, whoever joins or leaves.

    Raises:
        TypeError, ValueError: as for ``stack_step``; a count below 1.
    """
    check_size("count", count)

    def step(state: State, xs: Array, phase: Array) -> tuple[State, Array]:
        masks = {"mask": phase != FREE, "resets": phase == JOINED}
        return stack_step(config, params, state, xs, **masks, implementation=implementation)

    phase = jax.ShapeDtypeStruct((count,), np.uint8)  # type: ignore[no-untyped-call]
    shapes = *_shapes(config, params, count), phase
    return jax.jit(step, donate_argnums=0).lower(*shapes).compile()


def join(slots: Slots) -> tuple[Slots, int]:
    """The first free slot is a new stream's, which starts at its first step; and its number.

    Raises:
        ValueError: no slot is free.
    """
    found = np.flatnonzero(slots.phase == FREE)
    if not found.size:
        raise ValueError(f"slots: expected a free one, got {slots.phase.size} in use")
    number = int(found[0])
    return slots._replace(phase=_changed(slots.phase, number, JOINED)), number


def free(slots: Slots, number: int) -> Slots:
    """The slot of a stream that has ended is free again.

    Raises:
        TypeError: no int.
        ValueError: no such slot, or no stream in it.
    """
    check_size("number", number, least=0, most=slots.phase.size - 1)
    if slots.phase[number] == FREE:
        raise ValueError(
            f"number: expected a slot with a stream in it, got {number}, which is free"
        )
    return slots._replace(phase=_changed(slots.phase, number, FREE))


def step_slots(
    run: Callable[..., Any],
    slots: Slots,
    xs: Float[Array, "slots input"],
    ready: Bool[np.ndarray, " slots"] | None = None,
) -> tuple[Slots, Float[Array, "slots output"]]:
    """A step of all streams that are ready for one.

    Args:
        run: from ``compile_slots``.
        slots: who is where.
        xs: the inputs, a row for each slot; what stands in others than those asked for is ignored,
            NaN included.
        ready: the slots whose streams have an input now; None for all streams. Slots without a
            stream may be among them.

    Returns:
        The slots after it, and the outputs, 0 for who made no step.

    Raises:
        TypeError, ValueError: xs or ready of another shape or dtype.
    """
    phase, after = slots.phase, np.minimum(slots.phase, GOING)
    if ready is not None:
        ready = _check_ready(ready, phase.size)
        phase, after = phase * ready, np.where(ready, after, phase)
    state, hs = run(slots.state, xs, phase)
    return Slots(state, after), hs


def _check_ready(ready: Any, count: int) -> npt.NDArray[np.bool_]:
    array = np.asarray(ready)
    if array.dtype != np.bool_:
        raise TypeError(f"ready: expected dtype bool, got {array.dtype.name}")
    if array.shape != (count,):
        raise ValueError(f"ready: expected shape [{count}], got {list(array.shape)}")
    return array


def _changed(phase: npt.NDArray[np.uint8], number: int, to: int) -> npt.NDArray[np.uint8]:
    changed = phase.copy()
    changed[number] = to
    return changed
