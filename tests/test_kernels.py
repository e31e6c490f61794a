"""The seam for kernels: two toys in place of the scan, and the rules by which one is taken.

``NUMPY`` is the plain LSTM in NumPy, behind a callback: JAX cannot differentiate it, so whatever is
differentiated goes through the scan. ``LOOP`` is any cell, one step after another by a Python loop.
"""

import itertools
from collections import Counter
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variant_witness import TOGETHER, problem_of, pulled_back
from witness import (
    assert_agree,
    assert_trees_agree,
    equations_of,
    random_problem,
    run_jlstm,
    run_oracle,
)

import jlstm
from jlstm import SLSTM, Carry, Stack, init_stack, kernels, stack
from jlstm.equations import PLAIN, Activated
from jlstm.kernels import XLA, Kernel, choose, native
from jlstm.kernels.native import NATIVE
from jlstm.kernels.xla import gradients, walk_back
from jlstm.linear import flatten
from jlstm.plan import POLICIES, Plan
from jlstm.walk import Constants, Steps, Walk, values

# float64 rounds at 1.1e-16; a gradient here is a sum of some tens of terms through seven steps.
ROUNDING = 1e-12
# Where numbers are normalised, some digits less.
NORMED = 1e-11
MASKS = {"lengths": True, "resets": True, "reset_to": True}
RESIDUALS = ("gates", "carry", "chunks")

CALLS: Counter[str] = Counter()
"""How often each toy has been run (not traced)."""


@pytest.fixture(autouse=True)
def from_zero():
    CALLS.clear()


# The plain LSTM in NumPy


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def walk_forward(reverse, w_ih, w_hh, b, first, reset_to, xs, valid, keep):
    """The carry after the chunk, the carry after each step, and i_f, g, o of each step."""
    CALLS["forward"] += 1
    given = w_ih, w_hh, b, first, reset_to, xs, valid, keep
    w_ih, w_hh, b, (h, c), reset_to, xs, valid, keep = jax.tree.map(np.asarray, given)
    time = len(xs)
    after = [np.zeros((time, *a.shape), a.dtype) for a in (h, c)]
    saved = [np.zeros((time, *h.shape[:-1], k * h.shape[-1]), h.dtype) for k in (2, 1, 1)]
    for t in range(time)[:: -1 if reverse else 1]:
        fresh = False if keep is None else ~keep[t]
        h_prev, c_prev = (np.where(fresh, r, a) for r, a in zip(reset_to, (h, c), strict=True))
        z = xs[t] @ w_ih + h_prev @ w_hh + (0 if b is None else b)
        z_i, z_f, z_g, z_o = np.split(z, 4, axis=-1)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        c_new = f * c_prev + i * g
        h_new = o * np.tanh(c_new)
        counts = True if valid is None else valid[t]
        h, c = np.where(counts, h_new, h), np.where(counts, c_new, c)
        for array, value in zip((*after, *saved), (h, c, np.append(i, f, -1), g, o), strict=True):
            array[t] = value
    return Carry(h, c), Carry(*after), Activated(*saved)


def numpy_forward(tuning, walk, constants, carry, steps, *, keep):
    weights, time = constants.weights, steps.xs.shape[0]

    def many(k=1):
        *batch, hidden = carry.h.shape
        return jax.ShapeDtypeStruct((time, *batch, k * hidden), carry.h.dtype)

    last, after, saved = jax.pure_callback(
        partial(walk_forward, walk.reverse),
        (carry, Carry(many(), many()), Activated(many(2), many(), many())),
        *(weights.w_ih, weights.w_hh, weights.b),
        *(carry, constants.reset_to, steps.xs, steps.valid, steps.keep),
        vmap_method="sequential",
    )
    return last, after, saved if keep == "gates" else None


def walk_backward(reverse, u_t, saved, before, after, valid, keep, d, dhs):
    """Dz of each step, and the cotangents of the carry and of reset_to."""
    CALLS["backward"] += 1
    given = u_t, saved, before, after, valid, keep, d, dhs
    u_t, saved, before, after, valid, keep, d, dhs = jax.tree.map(np.asarray, given)
    (dh, dc), (dh_reset, dc_reset) = d
    i, f = np.split(saved.i_f, 2, axis=-1)
    g, o, tanh_c = saved.g, saved.o, np.tanh(after.c)
    dz = np.zeros((*dhs.shape[:-1], 4 * dhs.shape[-1]), dhs.dtype)
    for t in range(len(dhs))[:: 1 if reverse else -1]:
        counts = True if valid is None else valid[t]
        fresh = False if keep is None else ~keep[t]
        dh = dh + dhs[t]
        dv = dc + dh * o[t] * (1 - tanh_c[t] ** 2)
        blocks = (
            dv * g[t] * i[t] * (1 - i[t]),
            dv * before.c[t] * f[t] * (1 - f[t]),
            dv * i[t] * (1 - g[t] ** 2),
            dh * tanh_c[t] * o[t] * (1 - o[t]),
        )
        dz[t] = np.where(counts, np.concatenate(blocks, axis=-1), 0)
        dh = np.where(counts, dz[t] @ u_t, dh)
        dc = np.where(counts, dv * f[t], dc)
        dh_reset, dc_reset = dh_reset + np.where(fresh, dh, 0), dc_reset + np.where(fresh, dc, 0)
        dh, dc = np.where(fresh, 0, dh), np.where(fresh, 0, dc)
    return dz, (Carry(dh, dc), Carry(dh_reset, dc_reset))


def numpy_backward(tuning, walk, constants, transposes, known, steps, d, dhs):
    (w_t, u_t), (*lead, hidden) = transposes, dhs.shape
    at = values(walk, constants, steps, *known)
    dz, d = jax.pure_callback(
        partial(walk_backward, walk.reverse),
        (jax.ShapeDtypeStruct((*lead, 4 * hidden), dhs.dtype), d),
        *(u_t, at.saved, at.before, at.after, steps.valid, steps.keep, d, dhs),
        vmap_method="sequential",
    )
    return d, *gradients(walk, tuning, constants, w_t, at, steps, dz)


def numpy_refuses(plan: Plan) -> str | None:
    """Reasons of the three kinds that a real kernel has: the cell, sizes, dtypes."""
    if plan.walk.gates != PLAIN:
        return "only the plain LSTM"
    if plan.shape[-1] > 8:
        return "hidden is greater than 8"
    if plan.walk.dtype is not None:
        return "factors are not rounded"
    return None


NUMPY = Kernel("numpy", numpy_refuses, XLA.tune, numpy_forward, numpy_backward)


# Any cell, step by step


def loop_forward(tuning, walk, constants, carry, steps, *, keep):
    CALLS["traced"] += 1
    time, outs = steps.xs.shape[0], {}
    for t in range(time)[:: -1 if walk.reverse else 1]:
        one = jax.tree.map(lambda a, t=t: a[t : t + 1], steps)
        carry, *outs[t] = XLA.forward(tuning, walk, constants, carry, one, keep=keep)
    after, saved = jax.tree.map(lambda *a: jnp.concatenate(a), *(outs[t] for t in range(time)))
    return carry, after, saved


def loop_backward(tuning, walk, constants, transposes, known, steps, d, dhs):
    CALLS["traced"] += 1
    time, outs = dhs.shape[0], {}
    at = values(walk, constants, steps, *known)
    for t in range(time)[:: 1 if walk.reverse else -1]:

        def cut(a, t=t):
            return a[t : t + 1]

        one = at._replace(
            **{
                name: jax.tree.map(cut, getattr(at, name))
                for name in ("saved", "before", "after", "noise")
            }
        )
        given = one, Steps(*jax.tree.map(cut, tuple(steps))), d, cut(dhs)
        outs[t], d = walk_back(tuning, walk, constants, transposes[1], *given)
    left = jax.tree.map(lambda *a: jnp.concatenate(a), *(outs[t] for t in range(time)))
    return d, *gradients(walk, tuning, constants, transposes[0], at, steps, left)


LOOP = Kernel("loop", lambda plan: None, XLA.tune, loop_forward, loop_backward)


# The same numbers


@pytest.mark.parametrize(
    ("masks", "reverse", "residuals"),
    [*itertools.product(({}, MASKS), (False, True), RESIDUALS)],
)
def test_a_kernel_gives_the_same_values_and_gradients(masks, reverse, residuals):
    problem = random_problem(**masks, reverse=reverse)
    answer = run_jlstm(problem, implementation=NUMPY, residuals=residuals, chunk=3)
    assert_agree(answer, run_oracle(problem), ROUNDING)
    # Three chunks; with residuals="chunks" each is walked through twice.
    assert CALLS["forward"] == (6 if residuals == "chunks" else 3)
    assert CALLS["backward"] == 3


@pytest.mark.parametrize("sizes", [{"batch": ()}, {"batch": (3, 2)}, {"bias": False}, {"time": 1}])
def test_with_every_shape(sizes):
    problem = random_problem(**MASKS, **sizes)
    answer = run_jlstm(problem, implementation=NUMPY)
    assert_agree(answer, run_oracle(problem), ROUNDING)
    assert CALLS["forward"] == CALLS["backward"] == 1


def test_without_a_gradient_nothing_is_saved_and_nothing_walked_back():
    params, carry, xs, _ = plain()
    found = jlstm.lstm(params, carry, xs, implementation=NUMPY, chunk=2)
    assert CALLS == {"forward": 4}
    assert_trees_agree(found, jlstm.lstm(params, carry, xs), ROUNDING)


@pytest.mark.parametrize("residuals", RESIDUALS)
@pytest.mark.parametrize("cell", ["sLSTM", "all options"])
def test_any_cell_goes_through_a_kernel(cell, residuals):
    """With a carry of four arrays, random numbers and weights of the cell's own."""
    problem = problem_of(TOGETHER, time=5, batch=(3,))
    if cell == "sLSTM":
        gates = SLSTM(heads=2)
        params = gates.init(jax.random.key(0), 5, 10, dtype=np.float64)
        carry = gates.start(params, (3,))
        carry = carry._replace(n=carry.n + 1, h=carry.h + 0.5)
        dhs = jnp.ones((5, 3, 10))
        point = params, carry, problem.point[2], carry._replace(c=carry.c + 0.3)
        problem = problem._replace(gates=gates, key=None, point=point, cotangents=(carry, dhs))
    expected = pulled_back(problem, residuals=residuals)
    answer = pulled_back(problem, implementation=LOOP, residuals=residuals, chunk=2)
    assert CALLS["traced"] > 0
    assert_trees_agree(answer, expected, NORMED)


# Which one is taken


def plain(**options):
    p = random_problem(**options)
    params, carry = jlstm.LSTMParams(p.w_ih, p.w_hh, p.b), Carry(p.h0, p.c0)
    return jax.tree.map(jnp.asarray, (params, carry, p.xs, p.dhs))


def gradient(params, carry, xs, dhs, **options):
    def loss(*point):
        after, hs = jlstm.lstm(*point, **options)
        return jnp.vdot(hs**2, dhs) + jnp.sum(after.c**2)

    return jax.value_and_grad(loss, (0, 1, 2))(params, carry, xs)


@pytest.mark.parametrize(
    ("sizes", "options", "reason"),
    [
        ({"hidden_size": 9}, {}, "hidden is greater than 8"),
        ({}, {"compute_dtype": jnp.bfloat16}, "factors are not rounded"),
        ({"hidden_size": 9}, {"derivative": "jvp"}, "hidden is greater than 8"),
    ],
)
def test_a_refusal_is_an_error_that_says_why(sizes, options, reason):
    point = plain(**sizes)
    with pytest.raises(ValueError, match=f"implementation: 'numpy' cannot do this: {reason}"):
        gradient(*point, implementation=NUMPY, **options)
    assert not CALLS


def test_another_cell_is_refused():
    gates = jlstm.Variant(peepholes=True)
    params = gates.init(jax.random.key(0), 5, 4)
    with pytest.raises(ValueError, match="only the plain LSTM"):
        jlstm.lstm(params, None, jnp.ones((3, 5), jnp.float32), gates=gates, implementation=NUMPY)


def test_a_kernel_for_another_platform_is_no_error_and_the_scan_runs():
    """A program is for the platform that it is compiled for, and another may be meant."""
    elsewhere = NUMPY._replace(refuses=lambda p: "no GPU" if p.platform != "gpu" else None)
    point = plain()
    answer = jax.jit(partial(gradient, implementation=elsewhere))(*point)
    assert_trees_agree(answer, jax.jit(gradient)(*point), ROUNDING)
    assert not CALLS


@pytest.mark.parametrize("implementation", ["xla", XLA])
def test_xla_is_the_scan(implementation):
    problem = random_problem(**MASKS)
    answer = run_jlstm(problem, implementation=implementation)
    assert_agree(answer, run_jlstm(problem, implementation="xla"), 0)
    assert_agree(answer, run_jlstm(problem), ROUNDING)
    assert not CALLS
    params, carry, xs, _ = plain()
    run = partial(jlstm.lstm, implementation=implementation)
    program = jax.make_jaxpr(run)(params, carry, xs)
    assert len(list(equations_of(program, "scan"))) == 1
    assert not any(equations_of(program, "ffi_call"))


@pytest.mark.parametrize(
    ("implementation", "error"),
    [("cuda", ValueError), (3, TypeError), (Kernel, TypeError), (("xla",), TypeError)],
)
def test_an_implementation_that_there_is_not(implementation, error):
    message = r"implementation: expected None, a Kernel or one of \['native', 'xla'\], got "
    with pytest.raises(error, match=message):
        gradient(*plain(), implementation=implementation)


def asked(kernel, hidden, gates=PLAIN):
    walk, dtype = Walk(gates, False, None), np.dtype("float64")
    plan = Plan(walk, POLICIES["gates"], (7, 3, 5, hidden), 4 * hidden, dtype, kernel)
    return choose(plan)[0]


def test_the_first_is_taken_that_does_not_refuse(monkeypatch):
    small = NUMPY._replace(name="small", refuses=lambda p: "big" if p.shape[-1] > 2 else None)
    monkeypatch.setattr(kernels, "KERNELS", (small, NUMPY, XLA))
    assert asked(None, hidden=2) is small
    assert asked(None, hidden=3) is NUMPY
    assert asked(None, hidden=9) is XLA
    assert asked(None, hidden=3, gates=SLSTM()) is XLA
    # What was asked for goes before all others, the scan included; else the scan.
    assert asked(NUMPY, hidden=2) is NUMPY
    assert asked(XLA, hidden=2) is XLA
    assert asked(small, hidden=3) is XLA


def test_the_fastest_is_taken_where_none_is_asked_for(monkeypatch):
    monkeypatch.setattr(kernels, "KERNELS", (NUMPY, XLA))
    problem = random_problem(time=11, batch=(2,), **MASKS)  # a shape of its own: nothing is cached
    assert_agree(run_jlstm(problem), run_oracle(problem), ROUNDING)
    assert CALLS["forward"] > 0
    assert CALLS["backward"] > 0
    CALLS.clear()
    assert_agree(run_jlstm(problem, implementation="xla"), run_oracle(problem), ROUNDING)
    assert not CALLS
    run_jlstm(problem, implementation="numpy")
    assert CALLS["forward"] > 0


def test_a_kernel_chooses_its_chunk_unless_the_caller_does():
    def tune(plan):
        seen.append(plan)
        return XLA.tune(plan)._replace(chunk=2)

    seen: list[Plan] = []
    kernel, problem = NUMPY._replace(tune=tune), random_problem(batch=(3, 2))
    run_jlstm(problem, implementation=kernel)
    assert CALLS == {"forward": 4, "backward": 4}
    CALLS.clear()
    run_jlstm(problem, implementation=kernel, chunk=7)
    assert CALLS == {"forward": 1, "backward": 1}
    assert {p.shape for p in seen} == {(7, 6, 5, 2)}
    assert True in {p.gradient for p in seen}
    assert {(p.walk, p.columns, p.dtype, p.policy) for p in seen} == {
        (Walk(PLAIN, False, None), 8, np.dtype("float64"), POLICIES["gates"])
    }


# Derivatives that a kernel does not have


@pytest.mark.parametrize("residuals", RESIDUALS)
def test_second_derivatives_go_through_the_scan(residuals):
    """NumPy has no derivative: were it asked for one, JAX would say so."""
    params, carry, xs, dhs = plain(time=4)
    how = {"implementation": NUMPY, "residuals": residuals, "chunk": 3}
    vector = jax.tree.map(jnp.cos, (params, carry, xs))

    def products(**options):
        def slopes(*p):
            return gradient(*p, dhs, **options)[1]

        def slope(*p):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slopes(*p), vector)))

        def run(*p):
            return jax.jvp(slopes, p, vector)[1], jax.grad(slope, (0, 1, 2))(*p)

        return jax.jit(run)(params, carry, xs)

    assert_trees_agree(products(**how), products(derivative="autodiff"), ROUNDING)


def test_numpy_itself_has_no_derivative():
    """Or else the test above would say nothing."""
    params, carry, xs, _ = plain()
    constants = Constants(flatten(params, summed=True), carry, None, None)

    def forward(xs):
        steps = Steps(xs, None, None, None)
        return NUMPY.forward(None, Walk(PLAIN, False, None), constants, carry, steps, keep="gates")

    assert_trees_agree(forward(xs)[1].h, jlstm.lstm(params, carry, xs)[1], ROUNDING)
    with pytest.raises(ValueError, match="callbacks do not support JVP"):
        jax.jvp(forward, (xs,), (xs,))


@pytest.mark.parametrize("derivative", ["jvp", "autodiff"])
def test_other_derivatives_are_the_scans(derivative):
    point = plain()
    answer = gradient(*point, implementation=NUMPY, derivative=derivative)
    assert_trees_agree(answer, gradient(*point), ROUNDING)
    assert not CALLS


def test_forward_mode_asks_for_jvp():
    params, carry, xs, _ = plain()
    with pytest.raises(TypeError, match="derivative: expected 'jvp' for forward mode"):
        jax.jvp(lambda xs: jlstm.lstm(params, carry, xs, implementation=NUMPY)[1], (xs,), (xs,))


# Within other transformations, and in a stack


def test_under_vmap_over_parameters():
    params, *others = plain(time=4)
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), params)
    run = partial(gradient, implementation=NUMPY)
    found = jax.jit(jax.vmap(run, (0, None, None, None)))(many, *others)
    assert CALLS["forward"] == CALLS["backward"] == 3
    for n in range(3):
        pick = partial(jax.tree.map, lambda a, n=n: a[n])
        assert_trees_agree(pick(found), gradient(pick(many), *others), ROUNDING)


def test_under_vmap_over_examples():
    params, carry, xs, dhs = plain(time=4)
    run = partial(gradient, implementation=NUMPY)
    found = jax.jit(jax.vmap(run, (None, 0, 1, 1)))(params, carry, xs, dhs)
    assert CALLS["backward"] == 3
    for n in range(3):
        one = params, jax.tree.map(lambda a, n=n: a[n], carry), xs[:, n], dhs[:, n]
        assert_trees_agree(jax.tree.map(lambda a, n=n: a[n], found), gradient(*one), ROUNDING)


@pytest.mark.parametrize("wrapped", [jax.jit, lambda f: f])
def test_under_checkpoint_the_walk_is_done_again(wrapped):
    params, carry, xs, dhs = plain()

    def loss(implementation, keep, params, xs):
        def layer(params, xs):
            return jlstm.lstm(params, carry, xs, implementation=implementation)[1]

        return jnp.vdot((layer if keep else jax.checkpoint(layer))(params, xs) ** 2, dhs)

    slopes = wrapped(jax.grad(partial(loss, NUMPY, False), (0, 1)))
    assert_trees_agree(
        slopes(params, xs), jax.grad(partial(loss, "xla", True), (0, 1))(params, xs), ROUNDING
    )
    assert CALLS == {"forward": 2, "backward": 1}


@pytest.mark.parametrize("learned_carry", [False, True])
def test_in_a_stack(learned_carry):
    config = Stack(sizes=(4, 3), bidirectional=True, learned_carry=learned_carry)
    params = init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    problem = random_problem(lengths=True, resets=True)
    masks = {name: jnp.asarray(getattr(problem, name)) for name in ("lengths", "resets")}

    def slopes(implementation):
        def loss(params, xs):
            how = {"implementation": implementation, "chunk": 7}
            carry, hs = stack(config, params, None, xs, **masks, **how)
            return jnp.sum(hs**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

        return jax.jit(jax.grad(loss, (0, 1)))(params, jnp.asarray(problem.xs))

    assert_trees_agree(slopes(NUMPY), slopes("xla"), ROUNDING)
    assert CALLS == {"forward": 4, "backward": 4}  # two layers, two directions


def test_a_refusal_in_a_stack_names_the_layer():
    config = Stack(sizes=(4, 9))
    params: Any = init_stack(jax.random.key(0), 5, config)
    xs = jnp.ones((7, 3, 5), jnp.float32)
    with pytest.raises(ValueError, match="layer 1: implementation: 'numpy' cannot do this: hidden"):
        stack(config, params, None, xs, implementation=NUMPY)


@pytest.mark.parametrize("residuals", ["gates", "carry", "chunks"])
def test_a_kernel_for_one_platform_may_choose_another_chunk(residuals):
    here = NUMPY._replace(
        refuses=lambda p: None if p.platform == "cpu" else "for CPU only",
        tune=lambda p: XLA.tune(p)._replace(chunk=2),
    )
    problem = random_problem(batch=(4,))
    answer = run_jlstm(problem, implementation=here, residuals=residuals)
    assert_agree(answer, run_jlstm(problem, derivative="autodiff"), 1e-12)


def test_over_devices():
    problem = random_problem(batch=(4,))
    layer = jlstm.over_devices(jlstm.lstm, jax.devices()[:2])
    answer = run_jlstm(problem, layer=layer, implementation=NUMPY)
    assert_agree(answer, run_jlstm(problem, derivative="autodiff"), 1e-12)


def test_a_kernel_for_the_forward_pass_alone():
    here = NUMPY._replace(refuses=lambda p: "no gradient" if p.gradient else None)
    *point, dhs = plain()
    answer = jlstm.lstm(*point, implementation=here)
    assert CALLS
    assert_trees_agree(answer, jlstm.lstm(*point), ROUNDING)
    with pytest.raises(ValueError, match="implementation: 'numpy' cannot do this: no gradient"):
        gradient(*point, dhs, implementation=here)


# Where there is no native kernel; what it computes is in test_native.py


@pytest.fixture
def unread(monkeypatch):
    """The library is looked for anew, and what was found before comes back after the test."""
    monkeypatch.setattr(native, "library", cache(native.library.__wrapped__))
    monkeypatch.delenv("JLSTM_NATIVE", raising=False)
    return monkeypatch


def missing(unread, tmp_path):
    unread.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    return "it was not built"


def broken(unread, tmp_path):
    unread.setattr(native, "LIBRARY", tmp_path / "libnative.so")
    native.LIBRARY.write_text("no library")
    return "it cannot be loaded: "


def switched_off(unread, tmp_path):
    unread.setenv("JLSTM_NATIVE", "0")
    return "JLSTM_NATIVE=0 switches it off"


@pytest.mark.parametrize(
    ("without", "time"), [(missing, 21), (broken, 22), (switched_off, 23)]
)  # a time of its own for each: nothing is cached
def test_without_its_library_the_native_kernel_says_why_and_the_scan_runs(
    without, time, unread, tmp_path
):
    reason = without(unread, tmp_path)
    problem = random_problem(time=time, **MASKS)
    assert native.status().startswith(f"not in use: {reason}")
    with pytest.raises(ValueError, match=f"implementation: 'native' cannot do this: {reason}"):
        run_jlstm(problem, implementation="native")
    assert asked(None, hidden=3) is XLA
    assert_agree(run_jlstm(problem), run_jlstm(problem, implementation="xla"), 0)


def test_what_jlstm_native_may_be(unread):
    unread.setenv("JLSTM_NATIVE", "off")
    assert native.status() == "not in use: JLSTM_NATIVE: expected 0 or 1, got 'off'"


@pytest.mark.parametrize("without", [missing, broken])
def test_an_error_where_the_native_kernel_is_demanded(without, unread, tmp_path):
    reason = without(unread, tmp_path)
    unread.setenv("JLSTM_NATIVE", "1")
    error = f"JLSTM_NATIVE=1 asks for the native kernel, but {reason}"
    assert native.status().startswith(f"not in use: {error}")
    with pytest.raises(RuntimeError, match=error):
        run_jlstm(random_problem(time=24))


def test_few_steps_do_not_pay_for_laying_out_the_weights():
    def pays(time, batch, hidden):
        shape = (time, batch, 5, hidden)
        walk, dtype = Walk(PLAIN, False, None), np.dtype("float32")
        return native.pays(Plan(walk, POLICIES["gates"], shape, 4 * hidden, dtype))

    assert [pays(time, 3, 64) for time in (1, 2)] == [False, True]
    assert [pays(1, batch, 64) for batch in (native.MANY - 1, native.MANY)] == [False, True]
    assert [pays(time, 200, 512) for time in (1, native.FEW - 1, native.FEW)] == [
        False,
        False,
        True,
    ]


def test_the_native_kernel_is_taken_where_it_is():
    there = not isinstance(native.library(), str)
    assert asked(None, hidden=3) is (NATIVE if there else XLA)
    assert asked(None, hidden=3, gates=SLSTM()) is XLA
