"""lstm() against the NumPy oracle and autodiff: every option, every derivative, every transform."""

from collections import Counter
from contextlib import nullcontext
from functools import partial
from typing import get_args

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from witness import (
    Problem,
    arguments,
    assert_agree,
    assert_trees_agree,
    equations_of,
    random_problem,
    relative_error,
    run_jlstm,
    run_oracle,
)

import jlstm
from jlstm import sequence
from jlstm.equations import PLAIN
from jlstm.kernels.xla import choose_chunk, tune
from jlstm.plan import POLICIES, Plan
from jlstm.walk import Walk

DERIVATIVES = get_args(sequence.Derivative)
RESIDUALS = get_args(sequence.Residuals)

# float64 rounds at 1.1e-16; a gradient here is a sum of some tens of terms through ten steps.
ROUNDING = 1e-12

# Each derivative and each residual policy once, where trying all nine pairs would add nothing.
RULES = [("vjp", r) for r in RESIDUALS] + [
    ("jvp", "gates"),
    ("jvp", "carry"),
    ("autodiff", "gates"),
]
rules = pytest.mark.parametrize(("derivative", "residuals"), RULES)

MASKS = {"lengths": True, "resets": True, "reset_to": True}
EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto


def scalar(problem, **options):
    """A loss of (params, carry, xs, reset_to) that uses every output, nonlinearly."""
    p = problem

    def loss(params, carry, xs, reset_to):
        carry, hs = jlstm.lstm(
            params,
            carry,
            xs,
            reset_to=reset_to,
            lengths=p.lengths,
            resets=p.resets,
            reverse=p.reverse,
            **options,
        )
        return jnp.sum(hs**3 * p.dhs) + jnp.sum(carry.h * p.dh) + jnp.sum(carry.c**2 * p.dc)

    return loss


def random_like(seed, tree):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(draw.standard_normal(a.shape), a.dtype), tree)


# Values and gradients, against the oracle


@pytest.mark.grid(4)
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("residuals", RESIDUALS)
@pytest.mark.parametrize(("reverse", "chunk"), [(False, 3), (True, 3), (True, 4)])
def test_every_option_at_once(derivative, residuals, reverse, chunk):
    # Eight steps: in chunks of 3 there is a remainder, in chunks of 4 there is none.
    problem = random_problem(time=8, batch=(4,), reverse=reverse, **MASKS)
    options = {"derivative": derivative, "residuals": residuals, "chunk": chunk}
    assert_agree(run_jlstm(problem, **options), run_oracle(problem), ROUNDING)


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("options", [[], ["lengths"], ["resets"], ["resets", "reset_to"]])
def test_each_mask_alone(derivative, options):
    problem = random_problem(1, **dict.fromkeys(options, True))
    assert_agree(run_jlstm(problem, derivative=derivative), run_oracle(problem), ROUNDING)


@st.composite
def problems_and_options(draw):
    time = draw(st.integers(0, 9))
    problem = random_problem(
        draw(st.integers(0, 2**31)),
        time=time,
        batch=tuple(draw(st.lists(st.integers(0, 3), max_size=2))),
        input_size=draw(st.integers(1, 4)),
        hidden_size=draw(st.integers(1, 4)),
        **{name: draw(st.booleans()) for name in ("bias", "lengths", "resets", "reverse")},
        reset_to=draw(st.booleans()),
    )
    options = {
        "derivative": draw(st.sampled_from(DERIVATIVES)),
        "residuals": draw(st.sampled_from(RESIDUALS)),
        "chunk": draw(st.none() | st.integers(1, 12)),
        "unroll": draw(st.none() | st.integers(1, 4)),
    }
    dtype = draw(st.sampled_from([np.float64, np.float64, np.float32, jnp.float16, jnp.bfloat16]))
    return problem, options, dtype


# What the 16-bit dtypes can do over nine steps of unit-sized random numbers: some tens of
# roundings of size eps, each passed on by gates below 1 and weights of about 1.
TOLERANCE = {"float64": ROUNDING, "float32": 3e-5, "float16": 0.1, "bfloat16": 0.5}


@hypothesis.given(problems_and_options())
def test_any_shape_with_any_options_in_any_dtype(drawn):
    problem, options, dtype = drawn
    answer = run_jlstm(problem, dtype, **options)
    assert {a.dtype for a in answer.values()} == {jnp.dtype(dtype)}
    # The oracle is asked about the numbers that the library was given.
    fields = problem._asdict()
    for name in ("w_ih", "w_hh", "b", "h0", "c0", "xs", "dhs", "dh", "dc", "reset_to"):
        if fields[name] is not None:
            rounded = jax.tree.map(lambda a: np.asarray(jnp.asarray(a, dtype), "f8"), fields[name])
            fields[name] = rounded
    expected = run_oracle(Problem(**fields))
    # A memory of one number that happens to be nearly 0, as a difference, has few right digits.
    hypothesis.assume(not expected["c"].size or np.abs(expected["c"]).max() > 1e-2)
    assert_agree(answer, expected, TOLERANCE[jnp.dtype(dtype).name])


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("sizes", [{"time": 0}, {"batch": (0,)}, {"hidden_size": 1}])
def test_smallest_sizes(derivative, sizes):
    problem = random_problem(**sizes, **MASKS)
    assert_agree(run_jlstm(problem, derivative=derivative), run_oracle(problem), ROUNDING)


@pytest.mark.grid(3)
@pytest.mark.parametrize(("derivative", "residuals"), RULES[:-1])
def test_more_than_65536_steps(derivative, residuals):
    # A prime: no chunk divides it.
    problem = random_problem(time=65_537, batch=(), input_size=1, resets=True)
    expected = run_jlstm(problem, derivative="autodiff")
    # Sums of 65,537 terms.
    assert_agree(run_jlstm(problem, derivative=derivative, residuals=residuals), expected, 1e-10)


def test_carry_and_reset_to_are_zero_by_default():
    problem = random_problem(resets=True)
    params, carry, xs, _ = arguments(problem)
    zeros = jax.tree.map(jnp.zeros_like, carry)
    given = jlstm.lstm(params, zeros, xs, resets=problem.resets, reset_to=zeros)
    assert_trees_agree(jlstm.lstm(params, None, xs, resets=problem.resets), given, 0)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_in_pieces_is_the_sequence(reverse):
    problem = random_problem(time=11, reverse=reverse)
    params, carry, xs, _ = arguments(problem)
    whole = jlstm.lstm(params, carry, xs, reverse=reverse)
    pieces = [xs[:2], xs[2:3], xs[3:]]
    outputs = []
    for piece in reversed(pieces) if reverse else pieces:
        carry, hs = jlstm.lstm(params, carry, piece, reverse=reverse)
        outputs.append(hs)
    hs = jnp.concatenate(outputs[::-1] if reverse else outputs)
    assert_trees_agree((carry, hs), whole)


def test_numpy_arrays_are_welcome():
    p = random_problem(lengths=True)
    params, carry = jlstm.LSTMParams(p.w_ih, p.w_hh, p.b), jlstm.Carry(p.h0, p.c0)
    answer = jlstm.lstm(params, carry, p.xs, lengths=p.lengths)
    assert_trees_agree(answer, jlstm.lstm(*arguments(p)[:3], lengths=jnp.asarray(p.lengths)), 0)


# Padding


@pytest.mark.grid(4)
@rules
def test_nan_in_the_padding_has_no_influence(derivative, residuals):
    problem = random_problem(**MASKS)
    padding = np.arange(problem.xs.shape[0])[:, None] >= problem.lengths
    assert padding.any()
    spoilt = problem._replace(
        xs=np.where(padding[..., None], np.nan, problem.xs),
        dhs=np.where(padding[..., None], np.nan, problem.dhs),
    )
    options = {"derivative": derivative, "residuals": residuals, "chunk": 3}
    answer = run_jlstm(spoilt, **options)
    assert_agree(answer, run_jlstm(problem, **options), 0)
    np.testing.assert_array_equal(answer["hs"][padding], 0)
    np.testing.assert_array_equal(answer["dxs"][padding], 0)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_lengths_are_clipped_in_any_integer_dtype(dtype, wide):
    problem = random_problem(time=300, batch=(2,), input_size=1)
    with jax.enable_x64(wide):
        params, carry, xs, _ = arguments(problem, np.float32)
        run = jax.jit(lambda lengths: jlstm.lstm(params, carry, xs, lengths=lengths))
        largest = np.iinfo(dtype if wide or np.dtype(dtype).itemsize < 8 else np.int32).max
        answer = run(np.asarray([0, largest], dtype))
        expected = run(np.asarray([0, min(300, largest)], np.int32))
    assert_trees_agree(answer, expected, 0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_lengths_of_any_integer_dtype(dtype):
    problem = random_problem(time=300, batch=(2,), input_size=1)
    params, carry, xs, _ = arguments(problem)
    lengths = np.asarray([0, 100])
    expected = jlstm.lstm(params, carry, xs, lengths=lengths)
    answer = jlstm.lstm(params, carry, xs, lengths=lengths.astype(dtype))
    assert_trees_agree(answer, expected, 0)
    np.testing.assert_array_equal(answer[0].h[0], carry.h[0])


def test_lengths_are_clipped_under_jit():
    problem = random_problem()
    params, carry, xs, _ = arguments(problem)
    run = jax.jit(lambda lengths: jlstm.lstm(params, carry, xs, lengths=lengths))
    outside, inside = jnp.asarray([-4, 99, 3]), jnp.asarray([0, 7, 3])
    assert_trees_agree(run(outside), run(inside), 0)


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_lengths_that_a_trace_closes_over_are_checked(convert):
    problem = random_problem()
    params, carry, xs, _ = arguments(problem)

    def run(lengths):
        lengths = convert(lengths)
        return jax.jit(lambda xs: jlstm.lstm(params, carry, xs, lengths=lengths))(xs)

    expected = jlstm.lstm(params, carry, xs, lengths=np.asarray([1, 7, 0]))
    assert_trees_agree(run([1, 7, 0]), expected)
    with pytest.raises(ValueError, match=r"lengths: .* got 1 to 8"):
        run([1, 8, 7])


# Higher derivatives


@pytest.mark.grid(3)
@pytest.mark.parametrize(("derivative", "residuals"), RULES[:-1])
def test_hessian_vector_products_in_both_orders(derivative, residuals):
    problem = random_problem(time=5, reverse=residuals == "carry", **MASKS)
    point = arguments(problem)
    vector = random_like(1, point)
    everything = tuple(range(4))

    def reverse_over_reverse(loss):
        def slope(*point):
            gradient = jax.grad(loss, everything)(*point)
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, vector)))

        return jax.jit(jax.grad(slope, everything))(*point)

    def forward_over_reverse(loss):
        return jax.jit(lambda *p: jax.jvp(jax.grad(loss, everything), p, vector)[1])(*point)

    expected = forward_over_reverse(scalar(problem, derivative="autodiff"))
    loss = scalar(problem, derivative=derivative, residuals=residuals, chunk=2)
    assert_trees_agree(reverse_over_reverse(loss), expected)
    assert_trees_agree(forward_over_reverse(loss), expected)


@pytest.mark.parametrize("residuals", RESIDUALS)
def test_forward_mode(residuals):
    reverse = residuals == "carry"
    problem = random_problem(reverse=reverse, **MASKS)
    point = arguments(problem)
    tangent = random_like(1, point)

    def run(derivative, transform):
        def f(params, carry, xs, reset_to):
            masks = {"lengths": problem.lengths, "resets": problem.resets, "reset_to": reset_to}
            options = {"derivative": derivative, "residuals": residuals, "chunk": 3}
            return jlstm.lstm(params, carry, xs, reverse=reverse, **masks, **options)

        return jax.jit(lambda: transform(f))()

    def jvp(f):
        return jax.jvp(f, point, tangent)

    def linearize(f):
        value, linear = jax.linearize(f, *point)
        return value, linear(*tangent)

    expected = run("autodiff", jvp)
    assert_trees_agree(run("jvp", jvp), expected)
    assert_trees_agree(run("jvp", linearize), expected)


@pytest.mark.grid(2)
@pytest.mark.parametrize("which", range(4), ids=["params", "carry", "xs", "reset_to"])
def test_forward_mode_in_one_argument_alone(which):
    # The tangents of the other arguments are then symbolic zeros.
    problem = random_problem(**MASKS)
    point = list(arguments(problem))

    def along(derivative):
        def loss(argument):
            return scalar(problem, derivative=derivative)(
                *point[:which], argument, *point[which + 1 :]
            )

        tangent = random_like(2, point[which])
        return jax.jvp(loss, (point[which],), (tangent,)), jax.grad(loss)(point[which])

    assert_trees_agree(along("jvp"), along("autodiff"))


def test_jacobian_and_hessian():
    problem = random_problem(time=3, batch=(), hidden_size=2, input_size=1)
    params, carry, xs, _ = arguments(problem)

    def f(derivative, xs):
        (_, c), hs = jlstm.lstm(params, carry, xs, derivative=derivative)
        return jnp.sum(c**2) + jnp.sum(hs**3), hs

    by_hand, plain = partial(f, "jvp"), partial(f, "autodiff")
    assert_trees_agree(jax.jacfwd(by_hand)(xs), jax.jacrev(plain)(xs))
    hessian = jax.hessian(lambda xs: by_hand(xs)[0])(xs)
    assert_trees_agree(hessian, jax.hessian(lambda xs: plain(xs)[0])(xs))


def test_vjp_says_no_to_forward_mode():
    problem = random_problem()
    point = arguments(problem)
    message = "derivative: expected 'jvp' for forward mode .*, got 'vjp'"
    with pytest.raises(TypeError, match=message):
        jax.jvp(scalar(problem, derivative="vjp"), point, point)
    with pytest.raises(TypeError, match=message):
        jax.jacfwd(scalar(problem, derivative="vjp"))(*point)
    config = jlstm.Stack(sizes=2)
    layers = jlstm.init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    with pytest.raises(TypeError, match=f"layer 0: {message}"):
        jax.jvp(lambda xs: jlstm.stack(config, layers, None, xs), point[2:3], point[2:3])


# Transforms


@pytest.mark.grid(4)
@rules
@pytest.mark.parametrize("axes", ["batch", "params", "both"])
def test_vmap_is_a_loop(derivative, residuals, axes):
    problem = random_problem(time=4, **MASKS)
    loss = scalar(problem, derivative=derivative, residuals=residuals, chunk=3)
    params, carry, xs, reset_to = arguments(problem)

    def some(tree):
        return jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), tree)

    many_params = some(params) if axes != "batch" else params
    many_xs = some(xs) if axes != "params" else xs
    in_axes = (None if axes == "batch" else 0, None, None if axes == "params" else 0, None)
    gradient = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
    mapped = jax.jit(jax.vmap(gradient, in_axes))(many_params, carry, many_xs, reset_to)
    one_by_one = jax.jit(gradient)
    for n in range(3):
        pick = partial(jax.tree.map, lambda a, n=n: a[n])
        p = pick(many_params) if axes != "batch" else params
        x = pick(many_xs) if axes != "params" else xs
        assert_trees_agree(pick(mapped), one_by_one(p, carry, x, reset_to))


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_per_example_gradients_add_up(derivative):
    problem = random_problem(batch=(4,))
    params, carry, xs, _ = arguments(problem)

    def loss(params, carry, xs, dhs):
        return jnp.vdot(jlstm.lstm(params, carry, xs, derivative=derivative)[1], dhs)

    axes = (None, 0, 1, 1)
    each = jax.vmap(jax.grad(loss), axes)(params, carry, xs, jnp.asarray(problem.dhs))
    total = jax.grad(loss)(params, carry, xs, jnp.asarray(problem.dhs))
    assert_trees_agree(jax.tree.map(lambda a: a.sum(0), each), total)


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_checkpoint_and_map(derivative):
    problem = random_problem(**MASKS)
    point = arguments(problem)
    loss = scalar(problem, derivative=derivative, chunk=3)
    expected = jax.grad(loss)(*point)
    assert_trees_agree(jax.grad(jax.checkpoint(loss))(*point), expected)
    twice = jax.tree.map(lambda a: jnp.stack([a, a]), point)
    mapped = jax.lax.map(lambda point: jax.grad(loss)(*point), twice)
    assert_trees_agree(jax.tree.map(lambda a: a[1], mapped), expected)


@pytest.mark.grid(4)
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("options", [{}, MASKS])
def test_the_batch_may_be_sharded_over_devices(derivative, options):
    problem = random_problem(batch=(4,), **options)
    params, _, xs, reset_to = arguments(problem)
    masks = {"lengths": problem.lengths, "resets": problem.resets}
    masks = {name: jnp.asarray(mask) for name, mask in masks.items() if mask is not None}

    def gradient(params, xs, reset_to, masks):
        def loss(params, reset_to):
            carry, hs = jlstm.lstm(
                params, None, xs, reset_to=reset_to, derivative=derivative, chunk=3, **masks
            )
            return jnp.sum(hs**2) + jnp.sum(carry.c**2)

        return jax.grad(loss, argnums=(0, 1))(params, reset_to)

    time, batch = P(None, "devices"), P("devices")
    # Weights are the same on both devices; their gradient is the sum of both devices' parts.
    sharded = jax.shard_map(
        gradient,
        mesh=Mesh(np.asarray(jax.devices()), ("devices",)),
        in_specs=(P(), time, batch, {"lengths": batch, "resets": time} if masks else {}),
        out_specs=(P(), batch),
    )
    answer = jax.jit(sharded)(params, xs, reset_to, masks)
    assert_trees_agree(answer, gradient(params, xs, reset_to, masks))


def mesh_of_two(kind):
    return jax.make_mesh((2,), ("d",), axis_types=(kind,))


def cut_over(mesh, tree, lead):
    """On the mesh, one axis cut in two; the others, and the axes in front of it, are whole."""
    return jax.device_put(tree, NamedSharding(mesh, P(*[None] * lead, "d")))


@pytest.mark.grid(3)
@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("kind", [EXPLICIT, AUTO], ids=lambda kind: kind.name)
@pytest.mark.parametrize("set_it", [False, True])
def test_a_batch_on_a_mesh_stays_cut(derivative, kind, set_it):
    if derivative == "autodiff" and not set_it and jax.__version_info__ >= (0, 11):
        pytest.skip("JAX itself cannot transpose a product in a scan there")
    mesh = mesh_of_two(kind)
    problem = random_problem(batch=(4,), lengths=True, resets=True)
    params, _, xs, _ = arguments(problem)

    def loss(params, xs, lengths, resets):
        how = {"derivative": derivative, "chunk": 3, "lengths": lengths, "resets": resets}
        carry, hs = jlstm.lstm(params, None, xs, **how)
        return jnp.sum(hs**3) + jnp.sum(carry.c**2), hs

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    expected = run(params, xs, problem.lengths, problem.resets)
    # The weights are where they were made, on one device.
    given = (xs, 1), (problem.lengths, 0), (problem.resets, 1)
    point = params, *(cut_over(mesh, a, lead) for a, lead in given)
    with jax.set_mesh(mesh) if set_it else nullcontext():
        program = run.lower(*point).compile()
        answer = program(*point)
    assert_trees_agree(answer, expected)
    assert {shard.data.shape for shard in answer[0][1].addressable_shards} == {(7, 2, 2)}
    assert "all-reduce" in program.as_text()
    assert "all-gather" not in program.as_text()


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("lead", [1, 2])
def test_either_of_two_batch_axes_may_be_cut(lead):
    problem = random_problem(batch=(4, 2))
    params, carry, xs, _ = arguments(problem)
    mesh = mesh_of_two(EXPLICIT)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def run(params, carry, xs):
        return jnp.sum(jlstm.lstm(params, carry, xs)[1] ** 2)

    # Weights that are cut themselves are made whole; their gradient comes as they came.
    w_ih, w_hh, b = params
    cut = jlstm.LSTMParams(w_ih, cut_over(mesh, w_hh, 0), cut_over(mesh, b, 0))
    answer = run(cut, cut_over(mesh, carry, lead - 1), cut_over(mesh, xs, lead))
    assert_trees_agree(answer, run(params, carry, xs))
    assert answer[1][0].w_hh.sharding.spec == P("d", None, None)


@pytest.mark.usefixtures("two_devices")
def test_the_cell_on_a_mesh_in_a_scan_of_ones_own():
    problem = random_problem(batch=(4,))
    params, carry, xs, _ = arguments(problem)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def run(params, carry, xs):
        return jnp.sum(jax.lax.scan(partial(jlstm.cell, params), carry, xs)[1] ** 2)

    mesh = mesh_of_two(EXPLICIT)
    answer = run(params, cut_over(mesh, carry, 0), cut_over(mesh, xs, 1))
    assert_trees_agree(answer, run(params, carry, xs))


def test_without_64_bit_numbers():
    # JAX's own default, which the rest of the tests switch off.
    problem = random_problem(**MASKS)
    with jax.enable_x64(False):
        answer = run_jlstm(problem, np.float32)
        params = jlstm.init_params(jax.random.key(0), 5, 2)
        lengths = np.asarray([7, 3, 0])  # int64, as NumPy has it
        _, hs = jlstm.lstm(params, None, problem.xs, lengths=lengths)  # float64, likewise
    assert hs.dtype == np.float32
    assert_agree(answer, run_oracle(problem), TOLERANCE["float32"])


def test_calls_outside_jit_compile_once():
    problem = random_problem(time=6)
    point = arguments(problem)[:3]
    jlstm.lstm(*point)
    compiled = sequence._run._cache_size()
    jlstm.lstm(*jax.tree.map(lambda a: a + 1, point))
    assert sequence._run._cache_size() == compiled
    jlstm.lstm(*point, chunk=2)
    assert sequence._run._cache_size() == compiled + 1


@pytest.mark.grid(4)
@rules
def test_the_program_lowers_for_every_platform(derivative, residuals):
    problem = random_problem(**MASKS)
    point = arguments(problem, np.float32)
    problem = problem._replace(
        **{name: np.float32(getattr(problem, name)) for name in ("dhs", "dh", "dc")}
    )
    # Of the scan: what calls native code for CPU is not exported unless one says so.
    how = {"residuals": residuals, "chunk": 3, "implementation": "xla"}
    loss = scalar(problem, derivative=derivative, **how)
    program = jax.jit(jax.value_and_grad(loss))
    exported = jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(*point)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # Exported, it has a branch for each platform, which XLA compiles apart from what is around it:
    # a few roundings of float32.
    assert_trees_agree(exported.call(*point), program(*point), 1e-6)


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("derivative", "residuals", "shape"),
    [
        ("vjp", "gates", "7, b"),
        ("vjp", "chunks", "t, b"),
        ("jvp", "gates", "t, b"),
        ("autodiff", "gates", "t, 3"),
    ],
)
def test_export_with_symbolic_sizes(derivative, residuals, shape):
    def gradient(params, xs, lengths, resets):
        def loss(params, xs):
            how = {"derivative": derivative, "residuals": residuals, "chunk": 3}
            carry, hs = jlstm.lstm(params, None, xs, lengths=lengths, resets=resets, **how)
            return jnp.sum(hs**3) + jnp.sum(carry.c**2), carry

        return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

    big = random_problem(batch=(3,), time=7, lengths=True, resets=True)
    params, _, xs, _ = arguments(big)
    dims = jax.export.symbolic_shape(shape)
    as_asked = [
        jax.ShapeDtypeStruct((*dims, 5), xs.dtype),
        jax.ShapeDtypeStruct(dims[1:], big.lengths.dtype),
        jax.ShapeDtypeStruct(dims, np.bool_),
    ]
    run = jax.jit(gradient)
    exported = jax.export.export(run)(params, *as_asked)
    time, batch = (n if isinstance(n, int) else 2 for n in dims)
    small = xs[:time, :batch], np.minimum(big.lengths, time)[:batch], big.resets[:time, :batch]
    for given in (small, (xs, big.lengths, big.resets)):
        assert_trees_agree(exported.call(params, *given), run(params, *given))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(
    ("derivative", "unroll"), [("vjp", None), ("vjp", 3), ("jvp", 3), ("autodiff", 3)]
)
def test_export_with_a_symbolic_time_for_every_platform(derivative, unroll, platform):
    program, params, xs = gradient_program((7, 2, 3, 5), derivative=derivative, unroll=unroll)
    xs = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("t, b"), 3), xs.dtype)
    exported = jax.export.export(program, platforms=(platform,))(params, xs)
    assert str(exported.out_avals[-1].shape) == "(t, b, 3)"


def test_export_of_the_cell_with_a_symbolic_batch():
    params, _, xs, _ = arguments(random_problem(batch=(3,)))

    @jax.jit
    def step(params, x):
        return jlstm.cell(params, jlstm.init_carry(x.shape[:-1], 2, x.dtype), x)

    x = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 5), xs.dtype)
    exported = jax.export.export(step)(params, x)
    assert_trees_agree(exported.call(params, xs[0]), step(params, xs[0]))
    # Written down and read again, for which our NamedTuples have to be known.
    pytest.importorskip("flatbuffers")
    again = jax.export.deserialize(exported.serialize(vjp_order=1))
    assert_trees_agree(again.call(params, xs[0]), step(params, xs[0]))


# Numerics


@pytest.mark.grid(4)
@pytest.mark.parametrize(
    ("derivative", "residuals", "dtype"),
    [(*rule, jnp.float16) for rule in RULES]
    + [("vjp", "gates", dtype) for dtype in (jnp.bfloat16, np.float32, np.float64)],
)
def test_saturation_gives_no_nan(derivative, residuals, dtype):
    problem = random_problem(time=5)
    # Preactivations of ±1e4, each sign in each gate.
    huge = problem._replace(b=1e4 * np.sign(problem.b), w_ih=100 * problem.w_ih)
    answer = run_jlstm(huge, dtype, derivative=derivative, residuals=residuals, chunk=2)
    assert all(np.all(np.isfinite(a.astype(np.float64))) for a in answer.values())


@rules
@pytest.mark.parametrize("bias", [-10, -18])
def test_a_nearly_shut_input_gate_costs_no_digits(derivative, residuals, bias):
    problem = random_problem(time=20)
    b = problem.b.copy()
    b[0] += bias
    problem = problem._replace(b=b, c0=0 * problem.c0)
    rounded = jax.tree.map(lambda a: np.asarray(a, "f4").astype("f8"), problem[:9])
    problem = problem._replace(**dict(zip(Problem._fields, rounded, strict=False)))
    answer = run_jlstm(problem, np.float32, derivative=derivative, residuals=residuals)
    expected = run_oracle(problem)
    for leaf in ("hs", "dw_ih", "db"):
        # Gate by gate: what passes the input gate is small, and is to be right nevertheless.
        got, exact = (np.atleast_2d(a[leaf])[..., 0, :] for a in (answer, expected))
        assert relative_error(got, exact) < 1e-5, leaf


@rules
def test_products_in_bfloat16_with_everything_else_in_float32(derivative, residuals):
    problem = random_problem(time=6, **MASKS)
    options = {"derivative": derivative, "residuals": residuals, "chunk": 4}
    answer = run_jlstm(problem, np.float32, compute_dtype=jnp.bfloat16, **options)
    assert {a.dtype for a in answer.values()} == {np.dtype("float32")}
    exact = run_oracle(problem)
    errors = [relative_error(answer[name], exact[name]) for name in exact]
    # bfloat16 rounds factors at 2⁻⁹ = 2e-3; six steps. And it did round: float32 stays below 1e-5.
    assert max(errors) < 0.05
    assert max(errors) > 1e-4

    def run(point):
        value, pull_back = jax.vjp(
            lambda *p: jlstm.lstm(*p, compute_dtype=jnp.bfloat16, **options), *point
        )
        return pull_back(value)

    products = list(equations_of(jax.make_jaxpr(run)(arguments(problem, np.float32)[:3]), "dot"))
    assert products
    for eqn in products:
        factors = {v.aval.dtype for v in eqn.invars}
        # A product that JAX transposed itself has the float32 cotangent for a factor.
        transposed = {jnp.dtype("bfloat16"), jnp.dtype("float32")}
        assert factors == {jnp.dtype("bfloat16")} or (derivative != "vjp" and factors == transposed)
        assert eqn.outvars[0].aval.dtype == jnp.float32


def test_the_cell_state_is_not_rounded_to_the_products_dtype():
    # Forget gate open, input gate shut: c stays as it is for as long as the gates say so.
    hidden = 3
    params = jlstm.init_params(jax.random.key(0), 1, hidden)
    params = params._replace(b=jnp.asarray([-1e4, 1e4, 0, 0], jnp.float32)[:, None].repeat(3, 1))
    carry = jlstm.Carry(jnp.zeros(hidden), jnp.asarray([1 / 3, 1e-3, 777.7], jnp.float32))
    carry = carry._replace(h=carry.h.astype(jnp.float32))
    last, _ = jlstm.lstm(params, carry, jnp.ones((50, 1), jnp.float32), compute_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(last.c, carry.c)


# The shape of the program: that of the scan, whose loops can be looked into


def gradient_program(sizes, implementation="xla", **options):
    time, batch, inputs, hidden = sizes
    params = jlstm.init_params(jax.random.key(0), inputs, hidden)
    xs = jnp.ones((time, batch, inputs), jnp.float32)

    def loss(params, xs):
        _, hs = jlstm.lstm(params, None, xs, implementation=implementation, **options)
        return jnp.sum(hs**2)

    return jax.jit(jax.grad(loss, argnums=(0, 1))), params, xs


def loops_of(jaxpr, platform="cpu"):
    """The loops over steps, and the loops over chunks around them."""
    inner, outer = [], []
    for eqn in equations_of(jaxpr, "scan", platform):
        (outer if any(equations_of(eqn.params["jaxpr"], "scan")) else inner).append(eqn)
    return inner, outer


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("residuals", RESIDUALS)
@pytest.mark.parametrize(
    ("chunk", "inner", "outer"),
    [(1, {1}, {12}), (4, {4}, {3}), (7, {7, 5}, set()), (99, {12}, set())],
)
def test_chunk_is_the_length_of_the_inner_loop(derivative, residuals, chunk, inner, outer):
    if derivative == "autodiff" and residuals != "chunks":
        inner, outer = {12}, set()  # never cut
    options = {"derivative": derivative, "residuals": residuals, "chunk": chunk}
    program, *point = gradient_program((12, 2, 3, 5), **options)
    loops = loops_of(jax.make_jaxpr(program)(*point))
    assert [{eqn.params["length"] for eqn in some} for some in loops] == [inner, outer]


@rules
@pytest.mark.parametrize(("unroll", "steps"), [(None, 1), (3, 3)])
def test_unroll_is_that_of_every_inner_loop(derivative, residuals, unroll, steps):
    options = {"derivative": derivative, "residuals": residuals, "chunk": 6, "unroll": unroll}
    program, *point = gradient_program((12, 2, 3, 5), **options)
    inner, _ = loops_of(jax.make_jaxpr(program)(*point))
    assert {eqn.params["unroll"] for eqn in inner} == {steps}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@rules
def test_chunk_and_unroll_that_are_asked_for_hold_on_every_platform(
    derivative, residuals, platform
):
    options = {"derivative": derivative, "residuals": residuals, "chunk": 6, "unroll": 3}
    program, *point = gradient_program((12, 2, 3, 5), **options)
    inner, _ = loops_of(jax.make_jaxpr(program)(*point), platform)
    length = 12 if derivative == "autodiff" else 6
    assert {(eqn.params["length"], eqn.params["unroll"]) for eqn in inner} == {(length, 3)}


# Large enough that the chunks of CPU and of other platforms differ; nothing of it is run.
CHOSEN_APART = (64, 1000, 3, 100)
CHOICES = {"cpu": {"chunk": 2, "unroll": 1}, "cuda": {"chunk": 16, "unroll": 8}}
CHOICES["tpu"] = CHOICES["cuda"]


def lowered(*platforms, **options):
    program, *point = gradient_program(CHOSEN_APART, **options)
    return program.trace(*point).lower(lowering_platforms=platforms).as_text()


@pytest.mark.parametrize("platform", CHOICES)
@pytest.mark.parametrize("residuals", ["gates", "carry"])
def test_a_program_holds_the_choice_of_the_platform_that_it_is_lowered_for(residuals, platform):
    choice, other = CHOICES[platform], CHOICES["cuda" if platform == "cpu" else "cpu"]
    program = lowered(platform, residuals=residuals)
    assert program == lowered(platform, residuals=residuals, **choice)
    assert program != lowered(platform, residuals=residuals, **choice | {"chunk": other["chunk"]})
    assert program != lowered(platform, residuals=residuals, **choice | {"unroll": other["unroll"]})


@pytest.mark.parametrize("residuals", RESIDUALS)
def test_exported_for_several_platforms_a_program_holds_the_choices_of_all(residuals):
    program, *point = gradient_program(CHOSEN_APART, residuals=residuals)

    def loops(*platforms):
        exported = jax.export.export(program, platforms=platforms)(*point)
        return exported.mlir_module().count("stablehlo.while")

    # What is chosen for GPU is chosen for TPU as well.
    assert loops("cuda", "tpu") == loops("cuda")
    assert loops("cpu", "cuda", "tpu") == loops("cpu") + loops("cuda") > loops("cpu") > 0


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
@pytest.mark.parametrize(
    ("residuals", "walks", "times"), [("gates", 2, 1), ("carry", 2, 2), ("chunks", 3, 2)]
)
def test_only_what_is_not_kept_is_computed_again(derivative, residuals, walks, times):
    hidden = 5
    options = {"derivative": derivative, "residuals": residuals, "chunk": 4}
    program, *point = gradient_program((12, 2, 3, hidden), **options)
    jaxpr = jax.make_jaxpr(program)(*point)
    assert len(loops_of(jaxpr)[0]) == walks
    gates = [
        e for e in equations_of(jaxpr, "logistic") if e.outvars[0].aval.shape[-1] == 4 * hidden
    ]
    assert len(gates) == times


def test_what_does_not_move_costs_no_product():
    params, carry, xs, _ = arguments(random_problem())

    def products(f, *moving):
        jaxpr = jax.make_jaxpr(lambda *v: jax.jvp(f, moving, v))(*moving)
        return len(list(equations_of(jaxpr, "dot")))

    lstm = partial(jlstm.lstm, derivative="jvp")
    # x·W and h·U; then of the tangent ẋ·W and ḣ·U, and where the weights move x·Ẇ and h·U̇.
    assert products(lambda carry: lstm(params, carry, xs), carry) == 2 + 1
    assert products(lambda xs: lstm(params, carry, xs), xs) == 2 + 2
    assert products(lstm, params, carry, xs) == 2 + 4


def program_in(loop):
    return getattr(loop.params["jaxpr"], "jaxpr", loop.params["jaxpr"])


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("residuals", RESIDUALS)
def test_only_autodiff_adds_up_weight_gradients_step_by_step(derivative, residuals):
    hidden, chunk = 5, 4
    options = {"derivative": derivative, "residuals": residuals, "chunk": chunk}
    program, *point = gradient_program((12, 2, 3, hidden), **options)
    walks, _ = loops_of(jax.make_jaxpr(program)(*point))
    carried = [
        inside.aval.shape
        for eqn in walks
        for inside, v in zip(program_in(eqn).outvars, eqn.outvars, strict=True)
        if inside.aval.shape == v.aval.shape  # not what the scan collects
    ]
    assert carried
    weights = {(3, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,)}
    assert weights & set(carried) == (weights if derivative == "autodiff" else set())


def temporary_bytes(sizes, **options):
    program, *point = gradient_program(sizes, implementation=None, **options)
    return program.lower(*point).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("derivative", DERIVATIVES)
def test_residuals_order_the_memory(derivative):
    sizes = (2048, 16, 16, 64)
    plain = temporary_bytes(sizes, derivative="autodiff")
    kept = [temporary_bytes(sizes, derivative=derivative, residuals=r) for r in RESIDUALS]
    gates, carry, chunks = (n / plain for n in kept)
    # Arrays of [time, batch, hidden] kept beside hs: autodiff 11; gates and c 5; c 1; none. The
    # loss itself holds one or two more.
    assert gates < 0.65 or derivative == "autodiff"
    assert carry < 0.35
    assert chunks < 0.2


@pytest.mark.parametrize(
    ("residuals", "arrays", "borders"), [("gates", 6, 0), ("carry", 2, 0), ("chunks", 0, 2)]
)
def test_the_outputs_are_not_kept_twice(residuals, arrays, borders):
    time, batch, inputs, hidden, chunk = 12, 4, 2, 5, 4
    problem = random_problem(time=time, batch=(batch,), input_size=inputs, hidden_size=hidden)
    point = arguments(problem)[:3]
    _, pull_back = jax.vjp(partial(jlstm.lstm, residuals=residuals, chunk=chunk), *point)
    kept = Counter(a.shape[0] for a in jax.tree.leaves(pull_back) for _ in range(a[0].size))
    # Of every step h and c, i and f, g and o, and the inputs; h and c between chunks.
    assert kept[time] == batch * (arrays * hidden + inputs)
    assert kept[time // chunk] == batch * borders * hidden


def test_no_product_in_a_loop_over_steps_reads_its_weights_transposed():
    program, *point = gradient_program((12, 2, 3, 5), chunk=4)
    inner, _ = loops_of(jax.make_jaxpr(program)(*point))
    products = [dot for loop in inner for dot in equations_of(loop.params["jaxpr"], "dot_general")]
    assert len(inner) == len(products) == 2
    for dot in products:
        assert dot.params["dimension_numbers"] == (((1,), (0,)), ((), ()))
    assert not any(any(equations_of(loop.params["jaxpr"], "transpose")) for loop in inner)


@pytest.mark.parametrize(
    ("batch", "inputs", "hidden", "light"),
    [(2, 64, 64, True), (1, 64, 64, False), (2, 65, 64, False), (2, 3, 5, True)],
)
def test_a_small_product_with_the_inputs_is_left_in_the_loop(batch, inputs, hidden, light):
    # Where no gradient is asked for, and only for a batch.
    params = jlstm.init_params(jax.random.key(0), inputs, hidden)
    xs = jnp.ones((12, batch, inputs), jnp.float32)
    program = jax.make_jaxpr(partial(jlstm.lstm, chunk=4, implementation="xla"))(params, None, xs)
    (loop,), _ = loops_of(program)
    assert len(list(equations_of(loop.params["jaxpr"], "dot_general"))) == (2 if light else 1)


def test_a_forward_pass_with_the_product_in_its_loop_needs_no_chunks():
    params, xs = jlstm.init_params(jax.random.key(0), 3, 5), jnp.ones((1000, 2, 3), jnp.float32)
    program = jax.make_jaxpr(partial(jlstm.lstm, implementation="xla"))(params, None, xs)
    (loop,), chunks = loops_of(program)
    assert (loop.params["length"], chunks) == (1000, [])
    # Elsewhere than on CPU it is computed beforehand, for a chunk at a time.
    (loop,), (chunks,) = loops_of(program, "cuda")
    assert (loop.params["length"], chunks.params["length"]) == (125, 8)


def test_with_chunks_memory_grows_slower_than_time():
    def beyond_inputs_and_outputs(time):
        # Outputs and gradients of [time, batch, 1] are as good as nothing here.
        return temporary_bytes((time, 4, 1, 64), residuals="chunks")

    # hs and its cotangent are of size time; what is kept beside them is not.
    hs = 4 * 4 * 64
    short, long = (beyond_inputs_and_outputs(time) - 2 * time * hs for time in (1024, 16_384))
    assert long < 6 * short


class TestChooseChunk:
    @pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
    @pytest.mark.parametrize("borders", [False, True])
    @pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 1, 1), (32, 64, 128), (1000, 1000, 1000)])
    @pytest.mark.parametrize("time", [0, 1, 5, 16, 17, 97, 100, 128, 1000, 65_536, 65_537])
    def test_in_range(self, time, sizes, borders, platform):
        chunk = choose_chunk(time, *sizes, borders, platform)
        assert 1 <= chunk <= max(1, time)

    @pytest.mark.parametrize(
        ("batch", "hidden", "chunk"), [(32, 128, 16), (64, 256, 4), (16, 64, 64), (8, 256, 32)]
    )
    def test_as_many_steps_as_have_65536_units(self, batch, hidden, chunk):
        assert choose_chunk(1024, batch, 64, hidden, False) == chunk

    @pytest.mark.parametrize(("batch", "inputs", "chunk"), [(32, 512, 16), (32, 1536, 32)])
    def test_or_an_eighth_as_many_as_there_are_weights(self, batch, inputs, chunk):
        assert choose_chunk(1024, batch, inputs, 512, False) == chunk

    def test_never_fewer_than_2_nor_more_than_128(self):
        assert choose_chunk(1024, 1000, 64, 1000, False) == 2
        assert choose_chunk(1024, 1, 64, 1, False) == 128
        assert choose_chunk(1024, 1000, 64, 1000, False, "gpu") == 16

    @pytest.mark.parametrize(
        ("time", "chunk"), [(0, 1), (10, 10), (128, 16), (100, 20), (90, 15), (97, 16), (34, 17)]
    )
    def test_near_that_and_a_divisor_where_there_is_one(self, time, chunk):
        assert choose_chunk(time, 32, 128, 128, False) == chunk

    @pytest.mark.parametrize(("time", "chunk"), [(8 * 41, 8), (2 * 31, 31), (7 * 7, 16), (37, 16)])
    def test_from_half_to_twice_that(self, time, chunk):
        assert choose_chunk(time, 32, 128, 128, False) == chunk

    @pytest.mark.parametrize(
        ("time", "chunk"), [(5, 5), (17, 8), (128, 8), (10_000, 40), (65_536, 64)]
    )
    @pytest.mark.parametrize("batch", [1, 1000])
    def test_grows_as_the_root_of_the_time_where_only_borders_are_kept(self, time, batch, chunk):
        assert choose_chunk(time, batch, 8, 8, True) == chunk


def test_steps_compiled_as_one_depend_on_the_platform():
    plan = Plan(Walk(PLAIN, False, None), POLICIES["gates"], (7, 3, 5, 4), 16, np.dtype("float32"))
    found = [tune(plan._replace(platform=p)).unroll for p in ("cpu", "gpu", "tpu")]
    assert found == [1, 8, 8]


# Bad input


class TestBadArguments:
    params = jlstm.LSTMParams(np.zeros((5, 4, 2)), np.zeros((2, 4, 2)), np.zeros((4, 2)))
    carry = jlstm.Carry(np.zeros((3, 2)), np.zeros((3, 2)))
    xs = np.zeros((7, 3, 5))
    narrow = jlstm.Carry(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"params": None}, TypeError, "params: expected LSTMParams, got NoneType"),
            ({"carry": np.zeros((3, 2))}, TypeError, "carry: expected Carry, got ndarray"),
            ({"xs": [[1.0]]}, TypeError, "xs: expected an array, got list"),
            ({"xs": np.zeros(5)}, ValueError, r"xs: expected shape \[time, ..., 5\], got \[5\]"),
            ({"xs": np.zeros((7, 3, 6))}, ValueError, r"xs: expected shape \[time, ..., 5\], got"),
            ({"xs": np.zeros((7, 3, 5), "f4")}, TypeError, "xs: expected dtype float64, got "),
            ({"xs": np.zeros((7, 4, 5))}, ValueError, r"carry.h: expected shape \[4, 2\], got \[3"),
            ({"carry": narrow}, TypeError, "carry.h: expected dtype float64, got float32"),
            ({"reset_to": narrow}, TypeError, "reset_to.h: expected dtype float64, got float32"),
            ({"reset_to": (0, 0)}, TypeError, "reset_to: expected Carry, got tuple"),
            ({"lengths": np.ones(4, int)}, ValueError, r"lengths: expected shape \[3\], got \[4\]"),
            ({"lengths": np.ones(3)}, TypeError, "lengths: expected an integer dtype, got float64"),
            ({"lengths": [1, 2, 3]}, TypeError, "lengths: expected an array, got list"),
            ({"lengths": np.array([0, 8, 1])}, ValueError, r"lengths: .* 0 to 7 .*, got 0 to 8"),
            ({"lengths": np.array([0, -1, 1])}, ValueError, r"lengths: .* 0 to 7 .*, got -1 to 1"),
            ({"resets": np.zeros((7, 3))}, TypeError, "resets: expected dtype bool, got float64"),
            (
                {"resets": np.zeros(7, bool)},
                ValueError,
                r"resets: expected shape \[7, 3\], got \[7",
            ),
            ({"gates": "peephole"}, TypeError, "gates: expected a cell, such as Variant"),
            ({"gates": jlstm.Variant}, TypeError, "gates: expected a cell, such as Variant"),
            ({"reverse": 1}, TypeError, "reverse: expected True or False, got int 1"),
            ({"derivative": "grad"}, ValueError, "derivative: expected one of 'vjp', 'jvp', 'auto"),
            ({"residuals": "all"}, ValueError, "residuals: expected one of 'gates', 'carry', 'chu"),
            ({"derivative": np.array(["vjp", "jvp"])}, ValueError, "derivative: expected one of"),
            ({"residuals": ["gates"]}, ValueError, "residuals: expected one of 'gates', 'carry'"),
            ({"chunk": 0}, ValueError, "chunk: expected at least 1, got 0"),
            ({"chunk": 2.0}, TypeError, "chunk: expected an int, got float 2.0"),
            ({"unroll": -1}, ValueError, "unroll: expected at least 1, got -1"),
            ({"unroll": True}, TypeError, "unroll: expected an int, got bool True"),
            (
                {"compute_dtype": "int8"},
                TypeError,
                "compute_dtype: expected a floating-point dtype",
            ),
        ],
    )
    def test_are_named(self, change, error, message):
        given = {"params": self.params, "carry": self.carry, "xs": self.xs} | change
        with pytest.raises(error, match=message):
            jlstm.lstm(**given)
        with pytest.raises(error, match=message):  # at trace time, too
            jax.eval_shape(lambda: jlstm.lstm(**given))

    def test_a_carry_without_batch_is_not_broadcast(self):
        carry = jlstm.Carry(np.zeros(2), np.zeros(2))
        with pytest.raises(ValueError, match=r"carry.h: expected shape \[3, 2\], got \[2\]"):
            jlstm.lstm(self.params, carry, self.xs)
