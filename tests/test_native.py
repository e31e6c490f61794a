"""The native kernel against the NumPy oracle and the scan: every shape, option and transform.

Without the library all of this is skipped; with ``JLSTM_NATIVE=1`` its absence is an error.
"""

import ctypes
import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from witness import arguments as all_arguments
from witness import (
    assert_agree,
    assert_trees_agree,
    equations_of,
    random_problem,
    run_jlstm,
    run_oracle,
)

import jlstm
from jlstm.equations import PLAIN
from jlstm.kernels import XLA, choose, native
from jlstm.kernels.native import LIBRARY, NATIVE
from jlstm.plan import POLICIES, Plan
from jlstm.walk import Walk

FOUND = native.library()
if isinstance(FOUND, str):
    pytest.skip(f"the native kernel is not in use: {FOUND}", allow_module_level=True)
LEVEL = FOUND.jlstm_level().decode()

# float64 rounds at 1.1e-16; a gradient here is a sum of some tens of terms through seven steps.
ROUNDING = 1e-12
# Of float32, and with up to a hundred terms.
ROUNDING_32 = 3e-5
MASKS = {"lengths": True, "resets": True, "reset_to": True}
RESIDUALS = ("gates", "carry", "chunks")


def tuned(**choices):
    """The native kernel, some choices of its own replaced."""
    return NATIVE._replace(tune=lambda plan: native.tune(plan)._replace(**choices))


# x·W at every step, or beforehand for a block of steps.
WHERE = {"inside": tuned(stepwise=True), "outside": tuned(stepwise=False)}
where = pytest.mark.parametrize("kernel", WHERE.values(), ids=WHERE)


def arguments(problem, dtype=np.float64):
    """(params, carry, xs) of a problem."""
    return all_arguments(problem, dtype)[:3]


def scalar(problem, implementation="native", **options):
    """A loss of (params, carry, xs) that uses every output, nonlinearly."""
    p = problem
    masks = {"lengths": p.lengths, "resets": p.resets, "reverse": p.reverse}
    how = masks | {"implementation": implementation} | options

    def loss(params, carry, xs):
        carry, hs = jlstm.lstm(params, carry, xs, **how)
        return jnp.sum(hs**3) + jnp.sum(carry.h) + jnp.sum(carry.c**2)

    return loss


def slopes(*given, **options):
    """The value and the gradient of that loss."""
    return jax.value_and_grad(scalar(*given, **options), (0, 1, 2))


def pick(tree, n):
    return jax.tree.map(lambda a: a[n], tree)


def several(tree, count=3):
    """As many of each array, all different."""
    return jax.tree.map(
        lambda a: jnp.stack([a * (1 + 0.3 * n) + 0.1 * n for n in range(count)]), tree
    )


def calls(function, *point):
    """How many calls of the library there are in a program."""
    return len(list(equations_of(jax.make_jaxpr(function)(*point), "ffi_call")))


# Which calls are the kernel's


def test_it_is_the_fastest_on_cpu():
    problem = random_problem(**MASKS)
    point = arguments(problem)
    assert calls(slopes(problem, None), *point) == 2
    assert calls(slopes(problem, "native"), *point) == 2
    assert calls(slopes(problem, "xla"), *point) == 0


def test_status_says_the_instruction_set():
    assert native.status() == LEVEL
    assert os.environ.get("JLSTM_NATIVE_LEVEL", LEVEL) == LEVEL


def test_a_library_of_another_version_is_not_used(monkeypatch):
    monkeypatch.setattr(native, "LIBRARY", Path("libm.so.6"))
    monkeypatch.delenv("JLSTM_NATIVE", raising=False)
    assert native.library.__wrapped__().startswith("it was built from another version of jlstm")
    monkeypatch.setenv("JLSTM_NATIVE", "1")
    with pytest.raises(RuntimeError, match="another version"):
        native.library.__wrapped__()


def test_an_instruction_set_that_is_not_there(monkeypatch):
    monkeypatch.setenv("JLSTM_NATIVE_LEVEL", "avx1024")
    with pytest.raises(RuntimeError, match=r"JLSTM_NATIVE_LEVEL: expected .*, got avx1024"):
        native.library.__wrapped__()


REFUSED = {
    "cell": ({"gates": jlstm.Variant(peepholes=True)}, "it computes the plain LSTM, not Variant"),
    "dtype": ({"dtype": jnp.float16}, "it computes in float32 and float64, not in float16"),
    "factors": (
        {"compute_dtype": jnp.bfloat16},
        r"it does not round factors to bfloat16 \(compute_dtype\)",
    ),
}


@pytest.mark.parametrize(("given", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_why_and_none_is_then_the_scan(given, reason):
    options = dict(given)
    dtype, gates = options.pop("dtype", jnp.float32), options.get("gates", PLAIN)
    params = gates.init(jax.random.key(0), 5, 4, dtype=dtype)
    xs = jnp.ones((3, 2, 5), dtype)
    with pytest.raises(ValueError, match=f"implementation: 'native' cannot do this: {reason}"):
        jlstm.lstm(params, None, xs, implementation="native", **options)
    run = partial(jlstm.lstm, params, None, **options)
    assert calls(run, xs) == 0
    assert_trees_agree(run(xs), run(xs, implementation="xla"), 0)


def test_elsewhere_than_on_cpu_it_is_the_scan():
    walk, dtype = Walk(PLAIN, False, None), np.dtype("float32")
    plan = Plan(walk, POLICIES["gates"], (7, 3, 5, 4), 16, dtype)
    taken = [choose(plan._replace(platform=p))[0] for p in ("cpu", "gpu", "tpu")]
    assert taken == [NATIVE, XLA, XLA]
    assert native.refuses(plan._replace(platform="gpu")) == "it runs on CPU, not on gpu"


@pytest.mark.parametrize("implementation", [None, "native"])
def test_a_program_for_another_platform_does_not_call_it(implementation):
    problem = random_problem()
    program, point = jax.jit(slopes(problem, implementation)), arguments(problem, np.float32)
    texts = {
        platform: program.trace(*point).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    called = {platform for platform, text in texts.items() if "jlstm_" in text}
    assert called == {"cpu"}


def test_exported_it_has_to_be_allowed_for_cpu_alone():
    problem = random_problem()
    program, point = jax.jit(slopes(problem)), arguments(problem)
    elsewhere = jax.export.export(program, platforms=("cuda", "tpu"))(*point)
    assert "jlstm_" not in elsewhere.mlir_module()
    with pytest.raises(ValueError, match=r"Cannot serialize code with custom calls .*\n?.*jlstm_"):
        jax.export.export(program)(*point)
    names = native.FORWARD, native.BACKWARD
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in names]
    exported = jax.export.export(program, platforms=("cpu", "cuda"), disabled_checks=allowed)(
        *point
    )
    assert_trees_agree(exported.call(*point), program(*point))


# Values and gradients


MASKED = {
    "": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "reset_to": {"resets": True, "reset_to": True},
    "all": MASKS,
}


# 7 steps: in chunks of 3 there is a remainder.
@pytest.mark.grid(17)
@pytest.mark.parametrize(
    ("masks", "reverse", "residuals", "chunk", "dtype", "kernel"),
    [
        *itertools.product(
            MASKED.values(),
            (False, True),
            RESIDUALS,
            (None, 1, 3, 7),
            (np.float64, np.float32),
            WHERE.values(),
        )
    ],
)
def test_every_option_with_every_other(masks, reverse, residuals, chunk, dtype, kernel):
    problem = random_problem(**masks, reverse=reverse, hidden_size=5)
    options = {"residuals": residuals, "chunk": chunk}
    answer = run_jlstm(problem, dtype, implementation=kernel, **options)
    tolerance = ROUNDING if dtype == np.float64 else ROUNDING_32
    assert {a.dtype for a in answer.values()} == {np.dtype(dtype)}
    assert_agree(answer, run_oracle(problem), tolerance)
    assert_agree(answer, run_jlstm(problem, dtype, implementation="xla", **options), tolerance)


SIZES = [
    *({"time": n} for n in (0, 1)),
    *({"batch": batch} for batch in ((), (0,), (1,), (2, 3), (2, 0), (29,))),
    *({"hidden_size": n} for n in (1, 7, 17, 33, 70)),
    {"input_size": 1},
    {"input_size": 1, "hidden_size": 1, "batch": (1,), "time": 1},
    {"bias": False},
    {"bias": False, "hidden_size": 16, "batch": (13,)},
    {"time": 2, "hidden_size": 17, "batch": (1100,)},  # more rows than one slice has
]


@pytest.mark.grid(3)
@where
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_size(sizes, dtype, kernel):
    # Small weights: a sum of 70 terms is to stay off the gates' saturated range.
    problem = random_problem(**{"hidden_size": 2} | sizes, **MASKS)
    problem = problem._replace(w_hh=problem.w_hh / max(1, problem.w_hh.shape[0] ** 0.5))
    answer = run_jlstm(problem, dtype, implementation=kernel)
    tolerance = ROUNDING if dtype == np.float64 else ROUNDING_32
    assert_agree(answer, run_oracle(problem), tolerance)


def test_big_weights_have_their_product_beforehand():
    walk, dtype = Walk(PLAIN, False, None), np.dtype("float32")

    def tuning(inputs, hidden):
        shape = (20, 4, inputs, hidden)
        return native.tune(Plan(walk, POLICIES["gates"], shape, 4 * hidden, dtype))

    assert tuning(64, 128).stepwise
    assert not tuning(512, 512).stepwise


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(128, 128), (256, 512), (700, 300)])
def test_big_sizes(sizes):
    inputs, hidden = sizes
    problem = random_problem(time=21, batch=(40,), input_size=inputs, hidden_size=hidden, **MASKS)
    problem = problem._replace(w_ih=problem.w_ih / inputs**0.5, w_hh=problem.w_hh / hidden**0.5)
    assert_agree(run_jlstm(problem, implementation="native"), run_oracle(problem), ROUNDING)


@st.composite
def problems_and_options(draw):
    problem = random_problem(
        draw(st.integers(0, 2**31)),
        time=draw(st.integers(0, 9)),
        batch=tuple(draw(st.lists(st.integers(0, 4), max_size=2))),
        input_size=draw(st.integers(1, 9)),
        hidden_size=draw(st.integers(1, 40)),
        **{name: draw(st.booleans()) for name in ("bias", "lengths", "resets", "reverse")},
        reset_to=draw(st.booleans()),
    )
    problem = problem._replace(w_hh=problem.w_hh / problem.w_hh.shape[0] ** 0.5)
    options = {
        "residuals": draw(st.sampled_from(RESIDUALS)),
        "chunk": draw(st.none() | st.integers(1, 12)),
        "implementation": draw(st.sampled_from([*WHERE.values(), "native"])),
    }
    return problem, options


@hypothesis.settings(max_examples=12)
@hypothesis.given(problems_and_options())
def test_any_shape_with_any_options(drawn):
    problem, options = drawn
    assert_agree(run_jlstm(problem, **options), run_oracle(problem), ROUNDING)


@pytest.mark.slow
@hypothesis.settings(max_examples=200)
@hypothesis.given(problems_and_options())
def test_many_more_shapes(drawn):
    problem, options = drawn
    assert_agree(run_jlstm(problem, **options), run_oracle(problem), ROUNDING)


@where
@pytest.mark.parametrize("reverse", [False, True])
def test_nan_stays_in_its_sequence_and_padding_has_none(reverse, kernel):
    problem = random_problem(batch=(9,), hidden_size=7, reverse=reverse, lengths=True)
    lengths = np.asarray([7, 5, 7, 0, 7, 7, 2, 7, 7])
    problem = problem._replace(lengths=lengths)
    spoilt = problem._replace(xs=problem.xs.copy())
    spoilt.xs[5:, 1] = np.nan  # padding
    spoilt.xs[3, 4] = np.nan
    got = run_jlstm(spoilt, implementation=kernel)["hs"]
    clean = run_jlstm(problem, implementation=kernel)["hs"]
    others = np.arange(9) != 4
    np.testing.assert_array_equal(got[:, others], clean[:, others])
    # From step 3 on, in the order of the walk.
    later = np.arange(7) <= 3 if reverse else np.arange(7) >= 3
    np.testing.assert_array_equal(np.isnan(got[:, 4]), later[:, None].repeat(7, 1))


@where
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturation_gives_no_nan(dtype, kernel):
    problem = random_problem(time=5, hidden_size=7)
    # Preactivations of ±1e4, each sign in each gate.
    huge = problem._replace(b=1e4 * np.sign(problem.b), w_ih=100 * problem.w_ih)
    answer = run_jlstm(huge, dtype, implementation=kernel)
    assert all(np.isfinite(a).all() for a in answer.values())


# Transforms


@pytest.mark.grid(2)
@pytest.mark.parametrize("residuals", RESIDUALS)
@pytest.mark.parametrize("over", ["params", "xs", "carry", "params and xs", "all"])
def test_vmap_is_a_loop_in_one_call(over, residuals):
    problem = random_problem(time=5, hidden_size=3, lengths=True, resets=True)
    point = arguments(problem)
    moving = [over == "all" or name in over for name in ("params", "carry", "xs")]
    given = [several(a) if moves else a for a, moves in zip(point, moving, strict=True)]
    axes = [0 if moves else None for moves in moving]
    one = slopes(problem, residuals=residuals, chunk=5)
    mapped = jax.vmap(one, axes)
    assert calls(mapped, *given) == calls(one, *point)
    found, one = jax.jit(mapped)(*given), jax.jit(one)
    for n in range(3):
        alone = [pick(a, n) if moves else a for a, moves in zip(given, moving, strict=True)]
        assert_trees_agree(pick(found, n), one(*alone), ROUNDING)


@pytest.mark.parametrize("weight", ["w_ih", "w_hh", "b"])
def test_vmap_over_one_of_the_weights(weight):
    problem = random_problem(time=4, hidden_size=3)
    params, carry, xs = arguments(problem)

    def of(implementation):
        def run(one):
            given = params._replace(**{weight: one})
            return slopes(problem, implementation)(given, carry, xs)

        return jax.jit(jax.vmap(run))(several(getattr(params, weight)))

    assert_trees_agree(of("native"), of("xla"), ROUNDING)


def test_vmap_over_masks_and_reset_to():
    problem = random_problem(time=5, hidden_size=3)
    params, carry, xs = arguments(problem)
    draw = np.random.default_rng(3)
    lengths = jnp.asarray(draw.integers(0, 6, (4, 3)))
    resets = jnp.asarray(draw.random((4, 5, 3)) < 0.4)

    def run(implementation, params, lengths, resets, reset_to):
        def loss(params, carry, xs, reset_to):
            how = {"lengths": lengths, "resets": resets, "reset_to": reset_to, "chunk": 2}
            last, hs = jlstm.lstm(params, carry, xs, implementation=implementation, **how)
            return jnp.sum(hs**3) + jnp.sum(last.c**2)

        return jax.value_and_grad(loss, (0, 1, 2, 3))(params, carry, xs, reset_to)

    starts, weights = several(carry, 4), several(params, 4)
    for axes in [(None, 0, 0, 0), (0, 0, None, None), (None, None, None, 0)]:
        given = [
            many if axis == 0 else pick(many, 1)
            for many, axis in zip((weights, lengths, resets, starts), axes, strict=True)
        ]
        found, expected = (
            jax.jit(jax.vmap(partial(run, implementation), axes))(*given)
            for implementation in ("native", "xla")
        )
        assert_trees_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("inner", [(0, None, None), (None, 0, 0), (0, 0, 0)], ids=str)
def test_nested_vmap(inner):
    """Two axes for the weights, or one for the weights and another for what they are fed."""
    problem = random_problem(time=4, hidden_size=3, lengths=True)
    point = arguments(problem)
    outer = (0, None, 0)
    given = list(point)
    for axes in (inner, outer):  # the outer axis comes first
        given = [a if axis is None else several(a) for a, axis in zip(given, axes, strict=True)]
    both = [
        jax.vmap(jax.vmap(slopes(problem, implementation), inner), outer)
        for implementation in ("native", "xla")
    ]
    assert calls(both[0], *given) == 2
    found, expected = (jax.jit(run)(*given) for run in both)
    assert_trees_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("over", ["params", "xs"])
def test_an_ensemble_of_one_and_of_none(over):
    problem = random_problem(time=4)
    params, carry, xs = arguments(problem)
    axes = (0, None, None) if over == "params" else (None, None, 0)
    for count in (0, 1):
        many = jax.tree.map(lambda a, n=count: jnp.stack([a, a])[:n], (params, xs))
        point = (many[0], carry, xs) if over == "params" else (params, carry, many[1])
        found = jax.jit(jax.vmap(slopes(problem), axes))(*point)
        assert found[0].shape == (count,)
        if count:
            one = jax.jit(slopes(problem))(params, carry, xs)
            assert_trees_agree(pick(found, 0), one, ROUNDING)


def test_checkpoint_map_and_scan():
    problem = random_problem(lengths=True, resets=True)
    point = arguments(problem)
    loss, expected = scalar(problem, chunk=3), jax.jit(slopes(problem, "xla"))(*point)
    again = jax.value_and_grad(jax.checkpoint(loss), (0, 1, 2))
    assert calls(again, *point) > calls(slopes(problem, chunk=7), *point)
    assert_trees_agree(jax.jit(again)(*point), expected, ROUNDING)
    mapped = jax.lax.map(lambda point: slopes(problem)(*point), several(point))
    assert_trees_agree(pick(mapped, 0), expected, ROUNDING)


def test_a_scan_over_pieces_of_the_sequence():
    problem = random_problem(time=12)
    params, carry, xs = arguments(problem)

    def loss(implementation, params, carry, xs):
        run = partial(jlstm.lstm, params, implementation=implementation)
        last, hs = jax.lax.scan(run, carry, xs.reshape(3, 4, *xs.shape[1:]))
        return jnp.sum(hs**3) + jnp.sum(last.c**2)

    def whole(params, carry, xs):
        last, hs = jlstm.lstm(params, carry, xs, implementation="xla")
        return jnp.sum(hs**3) + jnp.sum(last.c**2)

    answer = jax.jit(jax.value_and_grad(partial(loss, "native"), (0, 1, 2)))(params, carry, xs)
    expected = jax.jit(jax.value_and_grad(whole, (0, 1, 2)))(params, carry, xs)
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.parametrize("check", [True, False])
def test_shard_map_over_two_devices(check):
    problem = random_problem(batch=(4,), **MASKS)
    params, carry, xs = arguments(problem)
    masks = {"lengths": jnp.asarray(problem.lengths), "resets": jnp.asarray(problem.resets)}

    def total(implementation, params, carry, xs, masks):
        def loss(params, carry):
            how = masks | {"implementation": implementation, "chunk": 3}
            last, hs = jlstm.lstm(params, carry, xs, **how)
            return jnp.sum(hs**2) + jnp.sum(last.c**2)

        slopes = jax.grad(loss, (0, 1))(params, carry)
        if implementation == "native" and not check:
            slopes = jax.lax.psum(slopes[0], "d"), slopes[1]
        return slopes

    time, batch = P(None, "d"), P("d")
    sharded = jax.shard_map(
        partial(total, "native"),
        mesh=Mesh(np.asarray(jax.devices()), ("d",)),
        in_specs=(P(), batch, time, {"lengths": batch, "resets": time}),
        out_specs=(P(), batch),
        check_vma=check,
    )
    answer = jax.jit(sharded)(params, carry, xs, masks)
    assert_trees_agree(answer, total("xla", params, carry, xs, masks), ROUNDING)
    layer = jlstm.over_devices(jlstm.lstm, jax.devices())
    answer = run_jlstm(problem, layer=layer, implementation="native")
    assert_agree(answer, run_oracle(problem), ROUNDING)


@pytest.mark.grid(2)
@pytest.mark.parametrize("layers", [2, 3])
def test_stacks_in_both_directions(layers):
    config = jlstm.Stack(sizes=(7, 4, 5)[:layers], bidirectional=True, learned_carry=True)
    params = jlstm.init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    problem = random_problem(lengths=True, resets=True)
    masks = {name: jnp.asarray(getattr(problem, name)) for name in ("lengths", "resets")}

    def run(implementation):
        def loss(params, xs):
            carry, hs = jlstm.stack(
                config, params, None, xs, **masks, implementation=implementation
            )
            return jnp.sum(hs**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

        return jax.value_and_grad(loss, (0, 1))

    point = params, jnp.asarray(problem.xs)
    assert calls(run("native"), *point) == 4 * layers
    found, expected = (jax.jit(run(i))(*point) for i in ("native", "xla"))
    assert_trees_agree(found, expected, ROUNDING)


def test_donated_arguments_give_the_same():
    # As many inputs as hidden units, so that each donated array may be taken for a result.
    problem = random_problem(time=9, batch=(8,), input_size=6, hidden_size=6)
    params, carry, xs = arguments(problem)
    run = partial(jlstm.lstm, implementation="native")
    expected = jax.tree.map(np.asarray, jax.jit(run)(params, carry, xs))
    donated = jax.jit(run, donate_argnums=(1, 2))
    given = jax.tree.map(jnp.copy, (carry, xs))
    assert_trees_agree(donated(params, *given), expected, 0)
    assert all(a.is_deleted() for a in jax.tree.leaves(given))
    # A step of training: weights and carry go in, and come out changed.
    step = slopes(problem)
    kept, moved = jax.jit(step), jax.jit(lambda *p: step(*p)[1], donate_argnums=(0, 1, 2))
    expected = jax.tree.map(np.asarray, kept(params, carry, xs)[1])
    given = jax.tree.map(jnp.copy, (params, carry, xs))
    assert_trees_agree(moved(*given), expected, ROUNDING)


# Derivatives that are the scan's


@pytest.mark.grid(2)
@pytest.mark.parametrize("residuals", RESIDUALS)
def test_second_derivatives(residuals):
    problem = random_problem(time=4, hidden_size=3, lengths=True, resets=True)
    point = arguments(problem)
    vector = jax.tree.map(jnp.cos, point)

    def products(**options):
        gradient = jax.grad(scalar(problem, **options), (0, 1, 2))

        def slope(*p):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient(*p), vector)))

        def run(*p):
            return jax.jvp(gradient, p, vector)[1], jax.grad(slope, (0, 1, 2))(*p)

        return jax.jit(run)(*point)

    answer = products(residuals=residuals, chunk=3)
    expected = products(implementation="xla", derivative="autodiff")
    assert_trees_agree(answer, expected, ROUNDING)


def test_second_derivatives_of_an_ensemble():
    problem = random_problem(time=3, hidden_size=3)
    params, carry, xs = arguments(problem)
    vector = jax.tree.map(jnp.cos, params)

    def product(implementation, params):
        def gradient(params):
            return jax.grad(scalar(problem, implementation))(params, carry, xs)

        return jax.jvp(gradient, (params,), (vector,))

    found, expected = (
        jax.jit(jax.vmap(partial(product, implementation)))(several(params))
        for implementation in ("native", "xla")
    )
    assert_trees_agree(found, expected, ROUNDING)


@pytest.mark.parametrize("derivative", ["jvp", "autodiff"])
def test_other_derivatives_do_not_call_it(derivative):
    problem = random_problem(**MASKS)
    point = arguments(problem)
    run = jax.jit(slopes(problem, derivative=derivative))
    assert calls(run, *point) == 0
    assert_trees_agree(run(*point), jax.jit(slopes(problem))(*point), ROUNDING)


# The same bits


def test_from_run_to_run():
    problem = random_problem(time=20, batch=(40,), hidden_size=33, lengths=True)
    first, *others = (run_jlstm(problem, np.float32, implementation="native") for _ in range(5))
    for other in others:
        assert_agree(other, first, 0)


@where
@pytest.mark.parametrize(("hidden", "dtype"), [(33, np.float32), (5, np.float64)])
def test_a_sequence_does_not_depend_on_the_batch_it_is_in(hidden, dtype, kernel):
    problem = random_problem(batch=(23,), hidden_size=hidden, lengths=True, resets=True)

    def of(rows):
        p = problem
        masks = {"lengths": p.lengths[rows], "resets": p.resets[:, rows]}
        point = arguments(p._replace(h0=p.h0[rows], c0=p.c0[rows], xs=p.xs[:, rows]), dtype)

        cotangent = jlstm.Carry(p.dh[rows], p.dc[rows]), p.dhs[:, rows]
        cotangent = jax.tree.map(lambda a: jnp.asarray(a, dtype), cotangent)

        @jax.jit
        def run(params, carry, xs):
            lstm = partial(jlstm.lstm, params, xs=xs, implementation=kernel, **masks)
            answer, pull_back = jax.vjp(lstm, carry)
            return answer, pull_back(cotangent)[0]

        return jax.tree.map(np.asarray, run(*point))

    (carry, hs), d_carry = of(slice(None))
    for rows in (slice(0, 1), slice(3, 10), [22, 4, 9]):
        whole = (pick(carry, rows), hs[:, rows]), pick(d_carry, rows)
        assert_trees_agree(of(rows), whole, 0)


PROGRAM = """
import hashlib
from concurrent.futures import ThreadPoolExecutor
import jax, jax.numpy as jnp, numpy as np
import jlstm

draw = np.random.default_rng(0)
def normal(*shape):
    return jnp.asarray(draw.standard_normal(shape), np.float32)
def problem(time, batch, inputs, hidden):
    params = normal(inputs, 4, hidden), normal(hidden, 4, hidden) / hidden**0.5, normal(4, hidden)
    carry = jlstm.Carry(normal(batch, hidden), normal(batch, hidden))
    lengths = draw.integers(0, time + 1, batch)
    return jlstm.LSTMParams(*params), carry, normal(time, batch, inputs), lengths

# Rows shared out; units shared out, as there is one row; and, where the weights are large, as there
# are few, with x·W beforehand in more than one block.
PROBLEMS = [problem(11, 67, 9, 45), problem(40, 1, 30, 128), problem(150, 4, 20, 420)]

@jax.jit
def run(params, carry, xs, lengths):
    def loss(params, carry, xs):
        last, hs = jlstm.lstm(params, carry, xs, lengths=lengths, implementation="native")
        return jnp.sum(hs**2) + jnp.sum(last.c), (last, hs)
    return jax.grad(loss, (0, 1, 2), has_aux=True)(params, carry, xs)

def bits(n=None):
    # All of them, or one in turn.
    chosen = PROBLEMS if n is None else PROBLEMS[n % 2 : n % 2 + 1]
    results = [run(*one) for one in chosen]
    if n is None:
        # Also of numbers so small that float32 has fewer digits of them, or none.
        params, carry, xs, lengths = PROBLEMS[0]
        tiny = jax.tree.map(lambda a: a * np.float32(1e-38), (carry, xs))
        results.append(run(params._replace(b=0 * params.b), *tiny, lengths))
    leaves = jax.tree.leaves(results)
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in leaves)).hexdigest()

print(bits())
"""
IN_THREADS = """
with ThreadPoolExecutor(8) as pool:
    several = [*pool.map(bits, range(200))]
print(len({*several[::2]}), len({*several[1::2]}), several[0] == bits(0), several[1] == bits(1))
"""
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
THREADS = {"1": {"NPROC": "1"}, "2": {"NPROC": "2"}, "7": {"NPROC": "7"}, "Eigen's 1": ONE_THREAD}


def output_of(program, **environment):
    """What a program prints, word by word, in a process of its own; 60 s are a deadlock."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def usual_bits():
    return output_of(PROGRAM)


@pytest.mark.parametrize("environment", THREADS.values(), ids=THREADS)
def test_for_any_number_of_threads(environment, usual_bits):
    assert output_of(PROGRAM, **environment) == usual_bits


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_on_one_core(usual_bits):
    alone = f"import os\nos.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    assert output_of(alone + PROGRAM) == usual_bits


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_many_calls_at_a_time_wait_for_none_another(threads, usual_bits):
    told = output_of(PROGRAM + IN_THREADS, NPROC=threads)
    assert told == [*usual_bits, "1", "1", "True", "True"]


# The two functions


def function(name, x):
    """One of the library's functions, of all numbers of an array."""
    pointer = ctypes.POINTER(ctypes.c_float if x.dtype == np.float32 else ctypes.c_double)
    called = getattr(FOUND, f"jlstm_{name}_f{8 * x.dtype.itemsize}")
    called.argtypes, called.restype = [pointer, pointer, ctypes.c_int64], None
    y = np.full(len(x) + 1, 7, x.dtype)
    called(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), len(x))
    assert y[-1] == 7  # nothing is written behind the end
    return y[:-1]


def exact(name, x):
    """The same with more digits."""
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if name == "tanh":
        return np.tanh(x)
    with np.errstate(under="ignore", over="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x > 0, 1, e) / (1 + e)


def numbers(dtype):
    """Some millions: of every exponent, and evenly from −120 to 120 and from −1 to 1."""
    draw = np.random.default_rng(0)
    if dtype == np.float32:
        every = np.arange(0, 2**32, 1999, dtype=np.uint32).view(np.float32)
        count = 1_000_000
    else:
        bits = draw.integers(0, 2**64, 300_000, dtype=np.uint64, endpoint=False)
        every, count = bits.view(np.float64), 400_000
    even = [draw.uniform(-scale, scale, count).astype(dtype) for scale in (1, 12, 120, 800)]
    x = np.concatenate([every, *even])
    return x[np.isfinite(x)]


both_functions = pytest.mark.parametrize("name", ["sigmoid", "tanh"])
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


class TestFunctions:
    @both_functions
    @both_dtypes
    def test_within_four_units_in_the_last_place(self, name, dtype):
        if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps and dtype == np.float64:
            pytest.skip("there is nothing more exact than float64 here")
        x = numbers(dtype)
        right, got = exact(name, x), function(name, x)
        with np.errstate(under="ignore"):
            unit = np.spacing(np.abs(right).astype(dtype)).astype(right.dtype)
        errors = np.abs(got.astype(right.dtype) - right) / unit
        worst = np.argmax(errors)
        assert errors[worst] <= 4, (x[worst], got[worst], right[worst])

    @both_functions
    @both_dtypes
    def test_at_the_ends(self, name, dtype):
        big = np.finfo(dtype).max
        x = np.asarray([np.inf, big, 1e4, 800, 110, -110, -800, -1e4, -big, -np.inf], dtype)
        expected = np.repeat([1, -1 if name == "tanh" else 0], 5)
        got = function(name, x)
        if name == "sigmoid":  # of −110 float64 knows better than 0
            assert got[5] < 1e-44
            got[5] = 0
        np.testing.assert_allclose(got, expected, rtol=0, atol=np.finfo(dtype).tiny)
        assert np.isnan(function(name, np.full(9, np.nan, dtype))).all()

    @both_dtypes
    def test_of_zero_and_of_tiny_numbers(self, dtype):
        small = np.finfo(dtype).smallest_subnormal
        x = np.asarray([0, -0.0, small, -small, 100 * small, np.finfo(dtype).tiny], dtype)
        np.testing.assert_array_equal(function("tanh", x), x)
        np.testing.assert_array_equal(np.signbit(function("tanh", x)), np.signbit(x))
        np.testing.assert_array_equal(function("sigmoid", x), 0.5)

    @both_dtypes
    def test_a_nearly_shut_gate_keeps_its_digits(self, dtype):
        deepest = 700 if dtype == np.float64 else 87
        x = -np.linspace(20, deepest, 5000).astype(dtype)
        right = exact("sigmoid", x)
        relative = np.abs(function("sigmoid", x).astype(right.dtype) / right - 1)
        assert relative.max() < 4 * np.finfo(dtype).eps
        # Below the normal numbers there are fewer digits, but not none.
        lower = np.asarray([-80, -100] if dtype == np.float32 else [-80, -100, -740], dtype)
        right = exact("sigmoid", lower)
        np.testing.assert_allclose(function("sigmoid", lower), right, rtol=0.2)

    @both_functions
    @both_dtypes
    @pytest.mark.parametrize("count", [0, 1, 3, 15, 17, 31])
    def test_any_count_of_numbers(self, name, dtype, count):
        x = np.linspace(-3, 3, count).astype(dtype)
        np.testing.assert_allclose(function(name, x), exact(name, x), rtol=4 * np.finfo(dtype).eps)


# Every instruction set

PARTS = {
    "some": "TestFunctions or status or test_every_size and 17",
    "all": pytest.param("not instruction_set", marks=pytest.mark.slow),
}


@pytest.mark.skipif("JLSTM_NATIVE_LEVEL" in os.environ, reason="this is one of them")
@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_for_every_instruction_set(part, level):
    """A part of this file once more, in a process of its own."""
    if level == LEVEL:
        pytest.skip("the rest of this file is about it")
    asked = f"""
import ctypes
library = ctypes.CDLL({str(LIBRARY)!r})
library.jlstm_level.restype = ctypes.c_char_p
print(library.jlstm_level().decode())"""
    if output_of(asked, JLSTM_NATIVE_LEVEL=level) != [level]:
        pytest.skip("this machine does not have it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-m", "not slow", "-k", part, __file__]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment["JLSTM_NATIVE_LEVEL"] = level
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
