"""Streaming: a step is the sequence at one time, slots are streams of their own, and no surprises.

Steps and the sequence run the same equations, compiled as different programs: they agree to
rounding, 1e-12 in float64, and not to the bit.
"""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness import assert_trees_agree

from jlstm import SLSTM, Stack, Variant, init_stack, init_stack_carry, stack
from jlstm.kernels import native
from jlstm.kernels.native import library
from jlstm.streaming import (
    FREE,
    compile_slots,
    compile_step,
    free,
    init_slots,
    init_state,
    join,
    pack,
    stack_step,
    step_slots,
    unpack,
)
from jlstm.types import replace

INPUT, TIME, BATCH = 5, 7, 3
STACKS = {
    "plain": Stack(sizes=4),
    "deep": Stack(sizes=(4, 2), connections="skip", learned_carry=True),
    "residual": Stack(sizes=(4, 4), connections="residual"),
    "variants": Stack(
        sizes=(4, 6),
        output_sizes=(3, None),
        gates=(Variant(peepholes=True, layer_norm=True), SLSTM(heads=2)),
        learned_carry=True,
    ),
    "noisy": Stack(sizes=4, gates=Variant(zoneout_c=0.3), input_dropout=0.5, output_dropout=0.5),
}


def problem_of(config, *, time=TIME, batch=(BATCH,), seed=0, dtype=jnp.float64):
    """Weights, all of them random, and inputs."""
    draw = np.random.default_rng(seed)
    params = init_stack(jax.random.key(seed), INPUT, config, dtype=dtype)
    params = jax.tree.map(
        lambda a: jnp.asarray(0.6 * draw.standard_normal(a.shape), a.dtype), params
    )
    return params, np.asarray(draw.standard_normal((time, *batch, INPUT)), dtype)


def whole(config, params, xs, **options):
    """What the sequence gives: the state after it, and the outputs."""
    carry, hs = stack(config.without_noise(), params, None, xs, **options)
    return pack(carry), hs


def walk(step, state, xs):
    hs = []
    for x in xs:
        state, h = step(state, x)
        hs.append(np.asarray(h))
    return state, np.stack(hs)


# A step


@pytest.mark.parametrize("name", STACKS)
def test_steps_are_the_sequence(name):
    config = STACKS[name]
    params, xs = problem_of(config)
    step = compile_step(config, params, BATCH)
    found = walk(step, init_state(config, params, BATCH), xs)
    assert_trees_agree(found, whole(config, params, xs))


@pytest.mark.parametrize("batch", [(), 1, (2, 3), native.MANY])
def test_any_batch_axes(batch):
    config = STACKS["deep"]
    shape = (batch,) if isinstance(batch, int) else batch
    params, xs = problem_of(config, batch=shape, time=3)
    found = walk(compile_step(config, params, batch), init_state(config, params, batch), xs)
    assert_trees_agree(found, whole(config, params, xs))


def test_masks_hold_a_stream_and_start_it_anew():
    config = STACKS["variants"]
    params, xs = problem_of(config)
    draw = np.random.default_rng(1)
    mask, resets = (draw.random((TIME, BATCH)) < 0.6 for _ in range(2))
    # What stands in for a step that is not made has no influence.
    xs = np.where(mask[..., None], xs, np.nan)
    step = jax.jit(partial(stack_step, config, params))
    state, hs = init_state(config, params, BATCH), []
    for t in range(TIME):
        state, h = step(state, xs[t], mask=mask[t], resets=resets[t])
        hs.append(h)
    hs = np.stack(hs)
    for b in range(BATCH):
        made = mask[:, b]
        after, expected = whole(config, params, xs[made, b], resets=resets[made, b])
        assert_trees_agree((state[b], hs[made, b]), (after, expected))
        assert not hs[~made, b].any()


def test_weights_as_arguments_may_change():
    config = STACKS["deep"]
    (params, xs), (others, _) = (problem_of(config, seed=seed) for seed in (0, 1))
    step = compile_step(config, params, BATCH, baked=False, donate=False)
    for weights in (params, others):
        state = init_state(config, weights, BATCH)
        found = walk(lambda s, x, w=weights: step(s, x, *jax.tree.leaves(w)), state, xs)
        assert_trees_agree(found, whole(config, weights, xs))


@pytest.mark.parametrize("donate", [True, False])
def test_the_memory_of_the_state_is_used_again(donate):
    config = STACKS["deep"]
    params, xs = problem_of(config)
    step = compile_step(config, params, BATCH, donate=donate)
    before = init_state(config, params, BATCH)
    where = before.unsafe_buffer_pointer()
    after, _ = step(before, xs[0])
    assert before.is_deleted() is donate
    if donate:
        assert after.unsafe_buffer_pointer() == where
        with pytest.raises((ValueError, RuntimeError), match="deleted"):  # as JAX's version says it
            step(before, xs[0])


# The state


def test_the_state_holds_the_carry_exactly():
    config = STACKS["variants"]
    params, _ = problem_of(config, dtype=jnp.float16)  # whose sLSTM keeps m in float32
    carry = init_stack_carry(config, params, (BATCH,))
    carry = jax.tree.map(lambda a: a + jnp.arange(a.size, dtype=a.dtype).reshape(a.shape), carry)
    state = pack(carry)
    assert state.dtype == jnp.float32
    again = unpack(config, params, state)
    assert jax.tree.structure(again) == jax.tree.structure(carry)
    assert all(
        a.dtype == b.dtype and (a == b).all()
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(carry), strict=True)
    )


# Slots

SLOTS = 3
SERVED = STACKS["deep"]


@pytest.fixture(scope="module")
def server():
    params, _ = problem_of(SERVED)
    return params, compile_slots(SERVED, params, SLOTS)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**SLOTS - 1), st.integers(0, SLOTS - 1)),
        max_size=25,
    )
)
def test_streams_that_come_and_go_are_sequences(server, events):
    """Each event: how many join, who has an input, and who leaves after the step, if anybody."""
    params, run = server
    draw = np.random.default_rng(0)
    slots, here, done = init_slots(SERVED, params, SLOTS), {}, []
    for joining, ready, leaving in events:
        for _ in range(min(joining, SLOTS - len(here))):
            slots, number = join(slots)
            assert number not in here
            here[number] = ([], [])
        ready = np.array([bool(ready >> n & 1) for n in range(SLOTS)])
        xs = np.full((SLOTS, INPUT), np.nan)
        for number in here:
            if ready[number]:
                xs[number] = draw.standard_normal(INPUT)
        slots, hs = step_slots(run, slots, xs, ready)
        for number in range(SLOTS):
            if ready[number] and number in here:
                here[number][0].append(xs[number])
                here[number][1].append(np.asarray(hs[number]))
            else:
                assert not hs[number].any()
        if leaving in here:
            slots = free(slots, leaving)
            done.append(here.pop(leaving))
    for xs, hs in [*done, *here.values()]:
        if xs:
            _, expected = SEQUENCE(params, np.stack(xs + [0 * xs[0]] * (25 - len(xs))))
            assert_trees_agree(np.stack(hs), expected[: len(xs)])


SEQUENCE = jax.jit(lambda params, xs: whole(SERVED, params, xs))


def test_a_stream_after_another_in_its_slot_starts_from_the_beginning(server):
    params, run = server
    _, xs = problem_of(SERVED, batch=(SLOTS,))
    slots, number = join(init_slots(SERVED, params, SLOTS))
    slots, first = step_slots(run, slots, xs[0])
    slots, _ = step_slots(run, slots, xs[1])
    slots, again = join(free(slots, number))
    assert again == number
    slots, second = step_slots(run, slots, xs[0])
    np.testing.assert_array_equal(first, second)


def test_nothing_compiles_after_the_first_time(server):
    params, run = server
    step = compile_step(SERVED, params, BATCH)
    state, slots = init_state(SERVED, params, BATCH), init_slots(SERVED, params, SLOTS)
    _, xs = problem_of(SERVED, batch=(SLOTS,))
    seen = []

    def listen(event, _, **kwargs):
        if "compile" in event or "trace" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda a: a + 41)(np.ones(11))  # the listener hears a compilation
        assert seen
        seen.clear()
        for x in xs:
            state, _ = step(state, x)
            slots, number = join(slots)
            slots, _ = step_slots(run, slots, x, np.arange(SLOTS) != number)
            slots, _ = step_slots(run, slots, x)
            slots = free(slots, number) if number else slots
            if number == SLOTS - 1:
                break
        assert not seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# Errors


def test_what_cannot_be_streamed():
    config = Stack(sizes=4, bidirectional=True)
    params, _ = problem_of(config)
    with pytest.raises(ValueError, match=r"walks from the start alone.*bidirectional=True"):
        compile_step(config, params)
    with pytest.raises(TypeError, match="config: expected Stack, got str"):
        compile_step("plain", params)

    restless = Stack(sizes=4, gates=_Restless())
    params, _ = problem_of(STACKS["noisy"])
    with pytest.raises(ValueError, match="config: expected cells that are not random"):
        compile_step(restless, params)


class _Restless:
    """Random, with no way to be quiet."""

    def __init__(self):
        cell = Variant(zoneout_c=0.1)
        self.init, self.start, self.step, self.extras = (
            cell.init,
            cell.start,
            cell.step,
            cell.extras,
        )


def test_wrong_arguments_of_a_step():
    config = STACKS["plain"]
    params, xs = problem_of(config)
    state = init_state(config, params, BATCH)
    step = partial(stack_step, config, params)
    for call, error, said in (
        (lambda: step(state, xs[0, :2]), ValueError, r"x: expected shape \[3, 5\], got \[2, 5\]"),
        (
            lambda: step(state, np.float32(xs[0])),
            TypeError,
            "x: expected dtype float64, got float32",
        ),
        (lambda: step(state[:, 1:], xs[0]), ValueError, r"state: expected shape \[3, 8\]"),
        (lambda: step(np.float32(state), xs[0]), TypeError, "state: expected dtype float64"),
        (lambda: step(state, xs[0], mask=xs[0, :, 0]), TypeError, "mask: expected dtype bool"),
        (lambda: step(state, xs[0], resets=np.ones(2, bool)), ValueError, r"resets: .* \[3\]"),
        (lambda: step(None, xs[0]), TypeError, "state: expected an array, got NoneType"),
        (lambda: stack_step(config, params[:0], state, xs[0]), ValueError, "params: .* 1 layers"),
        (lambda: stack_step(config, None, state, xs[0]), TypeError, "params: expected a tuple"),
        (lambda: compile_step(config, params, -1), ValueError, "batch_shape: .* at least 0"),
        (lambda: compile_step(config, params, baked=1), TypeError, "baked: expected True or False"),
        (
            lambda: compile_step(config, params, donate=None),
            TypeError,
            "donate: expected True or False",
        ),
        (
            lambda: compile_step(config, params, implementation="fast"),
            ValueError,
            "implementation:",
        ),
    ):
        with pytest.raises(error, match=said):
            call()
    short = replace(params[0].forward, w_hh=params[0].forward.w_hh[1:])
    with pytest.raises(ValueError, match=r"layer 0: params.w_hh: expected shape"):
        init_state(config, (params[0]._replace(forward=short),), 1)


def test_a_compiled_step_names_what_does_not_fit():
    config = STACKS["plain"]
    params, xs = problem_of(config)
    step, state = compile_step(config, params, BATCH), init_state(config, params, BATCH)
    with pytest.raises(TypeError, match=r"'x' compiled with float64\[3,5\].*float64\[2,5\]"):
        step(state, xs[0, :2])
    with pytest.raises(TypeError, match=r"'x' compiled with float64\[3,5\].*float32\[3,5\]"):
        step(state, xs[0].astype(np.float32))
    with pytest.raises(TypeError, match=r"'state' compiled with float64\[3,8\]"):
        step(state[:2], xs[0])
    step(state, xs[0])  # a mistake has not taken the state


def test_wrong_slots(server):
    params, run = server
    slots = init_slots(SERVED, params, SLOTS)
    xs = np.zeros((SLOTS, INPUT))
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        init_slots(SERVED, params, 0)
    with pytest.raises(ValueError, match="number: expected a slot with a stream in it, got 1"):
        free(slots, 1)
    with pytest.raises(ValueError, match="number: expected at most 2, got 3"):
        free(slots, 3)
    with pytest.raises(TypeError, match="number: expected an int, got float"):
        free(slots, 0.0)
    for _ in range(SLOTS):
        slots, _ = join(slots)
    with pytest.raises(ValueError, match="slots: expected a free one, got 3 in use"):
        join(slots)
    with pytest.raises(TypeError, match="ready: expected dtype bool, got int64"):
        step_slots(run, slots, xs, np.arange(SLOTS))
    with pytest.raises(ValueError, match=r"ready: expected shape \[3\], got \[2\]"):
        step_slots(run, slots, xs, np.ones(2, bool))
    with pytest.raises(TypeError, match=r"'xs' compiled with float64\[3,5\]"):
        step_slots(run, slots, xs[:2])


def test_joining_and_leaving_change_no_other_value(server):
    params, _ = server
    none = init_slots(SERVED, params, SLOTS)
    one, number = join(none)
    gone = free(one, number)
    assert list(none.phase) == list(gone.phase) == [FREE] * SLOTS
    assert one.phase[number] != FREE


# Where programs run


@pytest.mark.parametrize(("first", "done"), [("", True), ("jax.devices();", False)])
def test_dispatch_inline_is_for_the_start_of_a_program(first, done):
    program = f"""
import jax
{first}
from jlstm.streaming import dispatch_inline
assert dispatch_inline() is {done}
assert jax.config.values["jax_cpu_enable_async_dispatch"] is not {done}
assert jax.config.jax_num_cpu_devices == -1
jax.devices()
assert dispatch_inline() is False
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_many_streams_of_small_layers_take_the_kernel():
    params, _ = problem_of(STACKS["plain"])

    def takes_it(count):
        return "jlstm_forward" in compile_step(STACKS["plain"], params, count).as_text()

    there = not isinstance(library(), str)
    assert [takes_it(native.MANY - 1), takes_it(native.MANY)] == [False, there]
