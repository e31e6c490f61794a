"""The sLSTM against a loop in NumPy, finite differences and autodiff; its stabiliser."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slstm_witness
from variant_witness import assert_slopes_agree, pulled_back, random_like
from witness import as_numpy, assert_trees_agree

import jlstm
from jlstm import SLSTM, SLSTMCarry, SLSTMParams, Stack, init_stack, stack
from jlstm.types import at_least_32_bits

# float64 rounds at 1.1e-16; a gradient here is a sum of some hundred terms through seven steps.
ROUNDING = 1e-12
FORGETS = ("sigmoid", "exp")
RULES = [*itertools.product(("vjp", "jvp", "autodiff"), ("gates", "carry", "chunks"))]
MASKS = {"lengths": True, "resets": True, "reset_to": True}


class Problem(NamedTuple):
    """The arguments of ``lstm`` and the cotangents of its results."""

    gates: SLSTM
    point: tuple[Any, ...]  # params, carry, xs, reset_to
    cotangents: tuple[Any, ...]  # carry, hs
    masks: dict[str, Any]

    def lstm(self, params, carry, xs, reset_to, **options):
        common = {"gates": self.gates, "reset_to": reset_to}
        return jlstm.lstm(params, carry, xs, **common, **self.masks, **options)

    def loss(self, *point, **options):
        """A number that uses every result, nonlinearly."""
        carry, hs = self.lstm(*point, **options)
        d_carry, dhs = self.cotangents
        ends = sum(jnp.vdot(a * a, d) for a, d in zip(carry, d_carry, strict=True))
        return jnp.vdot(hs**3, dhs) + ends

    def witness(self, params, carry, xs, reset_to, step=slstm_witness.step):
        masks = self.masks | {"reset_to": reset_to, "forget": self.gates.forget, "step": step}
        carry, hs = slstm_witness.loop(tuple(params), carry, xs, **masks)
        return SLSTMCarry(*carry), hs


def problem_of(
    seed=0,
    *,
    heads=3,
    forget="sigmoid",
    time=7,
    batch=(8,),
    inputs=5,
    units=2,
    bias=True,
    lengths=False,
    resets=False,
    reset_to=False,
    reverse=False,
    dtype=np.float64,
):
    """Normal entries, n positive; all sizes differ, so that no transposed axis goes unnoticed."""
    draw, hidden = np.random.default_rng(seed), heads * units

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * draw.standard_normal(shape), dtype)

    def carry():
        h, c, n, m = (normal(*batch, hidden) for _ in range(4))
        return SLSTMCarry(h, c, jnp.exp(n), m.astype(at_least_32_bits(jnp.dtype(dtype))))

    some = draw.integers(0, time, endpoint=True, size=batch)
    if some.size > 1:
        some.reshape(-1)[[0, -1]] = time, 0
    params = SLSTMParams(
        w_ih=normal(inputs, 4, hidden, scale=0.6),
        w_hh=normal(heads, units, 4, units, scale=0.6),
        b=normal(4, hidden) if bias else None,
    )
    return Problem(
        gates=SLSTM(heads=heads, forget=forget),
        point=(params, carry(), normal(time, *batch, inputs), carry() if reset_to else None),
        cotangents=(
            carry(),
            normal(time, *batch, hidden),
        ),
        masks={
            "lengths": some if lengths else None,
            "resets": draw.random((time, *batch)) < 0.3 if resets else None,
            "reverse": reverse,
        },
    )


# Values and gradients

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one head": {"heads": 1, "units": 6},
    "a unit per head": {"heads": 6, "units": 1},
    "no bias": {"bias": False},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "resets to a carry": {"resets": True, "reset_to": True},
    "reverse": {"reverse": True},
    "everything": {**MASKS, "reverse": True},
    "two batch axes": {**MASKS, "batch": (4, 2)},
    "no batch axis": {**MASKS, "batch": ()},
}


@pytest.mark.grid(2)
@pytest.mark.parametrize(("case", "forget"), [*itertools.product(CASES, FORGETS)])
def test_values_are_the_loops_and_gradients_its_differences(case, forget):
    problem = problem_of(len(case), forget=forget, **CASES[case])
    expected = problem.witness(*as_numpy(problem.point))
    # The equations one by one without a gradient, the engine's way with one.
    assert_trees_agree(jax.jit(problem.lstm)(*problem.point), expected)
    out, gradients = pulled_back(problem, chunk=3)
    assert_trees_agree(out, expected)
    assert_slopes_agree(problem.witness, problem, gradients)


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("forget", "rule", "chunk"), [*itertools.product(FORGETS, RULES, (None, 1, 3, 7))]
)
def test_every_rule_gives_the_same(forget, rule, chunk):
    derivative, residuals = rule
    problem = problem_of(1, forget=forget, reverse=forget == "exp", **MASKS)
    expected = pulled_back(problem, derivative="autodiff")
    answer = pulled_back(problem, derivative=derivative, residuals=residuals, chunk=chunk)
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.grid(2)
@pytest.mark.parametrize(("derivative", "forget"), [*itertools.product(("vjp", "jvp"), FORGETS)])
@pytest.mark.parametrize("case", ["one head", "no bias", "two batch axes", "no batch axis"])
def test_every_shape_gives_the_same(derivative, forget, case):
    problem = problem_of(2, forget=forget, **CASES[case])
    expected = pulled_back(problem, derivative="autodiff")
    assert_trees_agree(pulled_back(problem, derivative=derivative, chunk=3), expected, ROUNDING)


@pytest.mark.parametrize("forget", FORGETS)
def test_from_the_zero_start(forget):
    """Nothing is remembered, so m is z_i alone, and n is 1 after the first step.

    The start itself has no slope to compare with: n = 0 is a case of its own.
    """
    problem = problem_of(3, forget=forget, lengths=True, resets=True)
    params, carry, xs, _ = problem.point
    zeros = problem.gates.start(params, (8,))
    assert_trees_agree(zeros, jax.tree.map(np.zeros_like, carry), 0)
    problem = problem._replace(point=(params, zeros, xs, None))
    expected = problem.witness(*as_numpy(problem.point))
    out, gradients = pulled_back(problem, residuals="carry", chunk=3)
    assert_trees_agree(out, expected)
    assert_trees_agree(jax.jit(problem.lstm)(params, None, xs, None), expected)
    leaves = range(len(jax.tree.leaves(problem.point)))
    assert_slopes_agree(problem.witness, problem, gradients, [*leaves[:3], leaves[-1]])
    by_autodiff = pulled_back(problem, derivative="autodiff")
    assert_trees_agree((out, gradients), by_autodiff, ROUNDING)
    first, _ = jlstm.cell(params, zeros, xs[0], gates=problem.gates)
    np.testing.assert_array_equal(first.n, 1)


@pytest.mark.parametrize("forget", FORGETS)
def test_cell_is_a_step_of_the_sequence(forget):
    problem = problem_of(4, forget=forget)
    params, carry, xs, _ = problem.point
    step = jax.jit(partial(jlstm.cell, gates=problem.gates))
    (last, hs), after = problem.witness(*as_numpy(problem.point)), carry
    for x, expected in zip(xs, hs, strict=True):
        after, h = step(params, after, x)
        assert_trees_agree(h, expected)
    assert_trees_agree(after, last)


@pytest.mark.grid(2)
@pytest.mark.parametrize("sizes", [{"time": 0}, {"batch": (0,)}, {"batch": (3, 0)}])
@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
def test_no_steps_and_no_sequences(sizes, derivative):
    problem = problem_of(5, **MASKS, **sizes)
    out, (d_params, d_carry, dxs, d_reset) = pulled_back(problem, derivative=derivative)
    assert_trees_agree(out, problem.witness(*as_numpy(problem.point)), 0)
    zeros = jax.tree.map(np.zeros_like, problem.point)
    # The carry goes through untouched.
    expected = zeros[0], problem.cotangents[0], zeros[2], zeros[3]
    assert_trees_agree((d_params, d_carry, dxs, d_reset), expected, 0)


# Derivatives of every kind


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("forget", "residuals", "chunk"),
    [*itertools.product(FORGETS, ("gates", "carry", "chunks"), (None, 3))],
)
def test_forward_mode(forget, residuals, chunk):
    problem = problem_of(6, forget=forget, reverse=True, **MASKS)
    tangent = random_like(1, problem.point)
    jvp = jax.jit(lambda f: jax.jvp(f, problem.point, tangent), static_argnums=0)
    expected = jvp(partial(problem.lstm, derivative="autodiff"))
    answer = jvp(partial(problem.lstm, derivative="jvp", residuals=residuals, chunk=chunk))
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("rule", "order"), [*itertools.product(RULES[:6], ("forward over reverse", "reverse twice"))]
)
def test_hessian_vector_product(rule, order):
    derivative, residuals = rule
    problem = problem_of(7, time=4, batch=(3,), heads=2, **MASKS)
    vector, everything = random_like(1, problem.point), (0, 1, 2, 3)

    def product(loss):
        def forward_over_reverse(*p):
            return jax.jvp(jax.grad(loss, everything), p, vector)[1]

        def slope(*p):
            gradient = jax.grad(loss, everything)(*p)
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, vector)))

        twice = jax.grad(slope, everything)
        run = forward_over_reverse if order == "forward over reverse" else twice
        return jax.jit(run)(*problem.point)

    expected = product(partial(problem.loss, derivative="autodiff"))
    answer = product(partial(problem.loss, derivative=derivative, residuals=residuals, chunk=3))
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_an_ensemble_by_vmap_is_a_loop(derivative):
    problem = problem_of(8, time=4, **MASKS)
    params, *others = problem.point
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), params)
    gradient = jax.value_and_grad(partial(problem.loss, derivative=derivative, chunk=3))
    mapped = jax.jit(jax.vmap(gradient, (0, None, None, None)))(many, *others)
    one = jax.jit(gradient)
    for n in range(3):
        pick = partial(jax.tree.map, lambda a, n=n: a[n])
        assert_trees_agree(pick(mapped), one(pick(many), *others), ROUNDING)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_per_example_gradients_are_those_of_each_example(derivative):
    problem = problem_of(9, time=4)
    params, carry, xs, _ = problem.point
    dhs = problem.cotangents[1]

    def loss(params, carry, xs, dhs):
        return jnp.vdot(problem.lstm(params, carry, xs, None, derivative=derivative)[1], dhs)

    rest = carry, xs, dhs
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 1, 1)))(params, *rest)
    total = jax.jit(jax.grad(loss))(params, *rest)
    assert_trees_agree(jax.tree.map(lambda a: a.sum(0), each), total, ROUNDING)
    one = jax.jit(jax.grad(loss))
    for n in (0, 7):
        pick = jax.tree.map(lambda a, n=n: a[n], carry), xs[:, n], dhs[:, n]
        assert_trees_agree(jax.tree.map(lambda a, n=n: a[n], each), one(params, *pick), ROUNDING)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_checkpoint(derivative):
    problem = problem_of(10, time=4, **MASKS)
    loss = partial(problem.loss, derivative=derivative, chunk=3)
    everything = (0, 1, 2, 3)
    expected = jax.jit(jax.grad(loss, everything))(*problem.point)
    again = jax.jit(jax.grad(jax.checkpoint(loss), everything))(*problem.point)
    assert_trees_agree(again, expected, ROUNDING)


# The stabiliser


@pytest.mark.parametrize("forget", FORGETS)
def test_the_stabiliser_cancels_out(forget):
    """The paper's definition has none: h is the same, c and n are there without exp(−m)."""
    problem = problem_of(11, forget=forget, **MASKS)
    params, carry, xs, reset_to = as_numpy(problem.point)

    def unscaled(carry):
        scale = np.exp(np.asarray(carry.m))
        return SLSTMCarry(carry.h, carry.c * scale, carry.n * scale, np.zeros_like(scale))

    found, hs = jax.jit(problem.lstm)(*problem.point)
    start = params, unscaled(carry), xs, unscaled(reset_to)
    expected, expected_hs = problem.witness(*start, step=slstm_witness.plain_step)
    assert_trees_agree((unscaled(found), hs), (expected, expected_hs), ROUNDING)


@pytest.mark.grid(2)
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("derivative", "forget"), [*itertools.product(("vjp", "jvp"), FORGETS)])
def test_preactivations_beyond_exp_stay_finite(started, derivative, forget):
    """±1e4 in every gate, in each combination; exp overflows float32 at 89."""
    signs = np.array([*itertools.product((-1.0, 1.0), repeat=4)])  # a unit for each
    problem = problem_of(12, forget=forget, heads=4, units=4, dtype=np.float32)
    params, carry, xs, _ = problem.point
    params = params._replace(b=jnp.asarray(1e4 * signs.T, np.float32))
    point = params, carry if started else jax.tree.map(jnp.zeros_like, carry), xs, None
    problem = problem._replace(point=point)
    out, gradients = pulled_back(problem, derivative=derivative, chunk=3)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((out, gradients)))
    # m is a sum of numbers of 1e4, and z − m their difference: what is left of it in float32 is
    # good to 1e4 · 6e-8 at each of seven steps. The loop is float64's.
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), point)
    assert_trees_agree(out, problem.witness(*wide), 1e-2)
    # Nor is a slope multiplied with what the exponentials would have been.
    assert max(float(np.abs(a).max()) for a in jax.tree.leaves(gradients)) < 1e4


@pytest.mark.parametrize("forget", FORGETS)
def test_large_inputs_of_both_signs_stay_finite(forget):
    """Gates that swing between ±1e4 from step to step."""
    problem = problem_of(13, forget=forget, dtype=np.float32, **MASKS)
    params, carry, xs, reset_to = problem.point
    problem = problem._replace(point=(params, carry, 1e4 * xs, reset_to))
    for residuals in ("gates", "chunks"):
        answer = pulled_back(problem, residuals=residuals)
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(answer))
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), problem.point)
    _, hs = problem.witness(*wide)
    # As large a number as decides between two gates is rounded, in a few places to the other side.
    found = np.asarray(jax.jit(problem.lstm)(*problem.point)[1], np.float64)
    assert np.mean(np.abs(found - hs) < 1e-2) > 0.98


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("derivative", "dtype", "tolerance"),
    # Some hundred roundings, of 1.2e-7, 9.8e-4 and 7.8e-3 each.
    [("vjp", np.float32, 1e-5), ("jvp", np.float16, 0.1), ("vjp", jnp.bfloat16, 0.5)],
)
def test_all_stays_in_the_dtype_of_the_weights(derivative, dtype, tolerance):
    problem = problem_of(14, dtype=dtype, **MASKS)
    answer = pulled_back(problem, derivative=derivative, chunk=3)
    (carry, hs), gradients = answer
    narrow = [*carry[:3], hs, *gradients[0], *gradients[1][:3], gradients[2], *gradients[3][:3]]
    assert {a.dtype for a in narrow} == {jnp.dtype(dtype)}
    # The stabiliser alone has at least 32 bits.
    assert {a.dtype for a in (carry.m, gradients[1].m, gradients[3].m)} == {
        at_least_32_bits(jnp.dtype(dtype))
    }
    wide = problem._replace(
        point=jax.tree.map(lambda a: a.astype(np.float64), problem.point),
        cotangents=jax.tree.map(lambda a: a.astype(np.float64), problem.cotangents),
    )
    assert_trees_agree(answer, pulled_back(wide), tolerance)


@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
def test_products_in_bfloat16(derivative):
    problem = problem_of(15, dtype=np.float32, **MASKS)
    exact = pulled_back(problem, derivative=derivative)
    answer = pulled_back(problem, derivative=derivative, compute_dtype=jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves(answer)} == {jnp.dtype(np.float32)}
    # The factors have eight digits of two, 4e-3; but they have been rounded.
    assert_trees_agree(answer, exact, 0.1)
    with pytest.raises(AssertionError):
        assert_trees_agree(answer, exact, 1e-4)


# In a stack, and exported


@pytest.mark.grid(2)
@pytest.mark.parametrize("connections", ["chain", "residual"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_is_layer_upon_layer(connections, bidirectional):
    cells = SLSTM(heads=3), SLSTM(heads=2, forget="exp")
    config = Stack(
        sizes=(6, 6),
        gates=cells,
        bidirectional=bidirectional,
        connections=connections,
        learned_carry=True,
    )
    params = init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    assert isinstance(params[0].forward, SLSTMParams)
    assert isinstance(params[1].start[0], SLSTMCarry)
    params = jax.tree.map(lambda a, d: a + 0.3 * jnp.abs(d), params, random_like(1, params))
    problem = problem_of(16, lengths=True, resets=True)
    xs, masks = problem.point[2], problem.masks
    lengths, resets = masks["lengths"], np.asarray(masks["resets"])
    resets = resets & (np.arange(7)[:, None] < lengths)
    back = np.concatenate([resets[1:], np.zeros_like(resets[:1])])
    (carry, found) = jax.jit(partial(stack, config))(
        params, None, xs, lengths=jnp.asarray(lengths), resets=jnp.asarray(masks["resets"])
    )

    outs, x = [], np.asarray(xs)
    for n, one in enumerate(as_numpy(params)):
        hs = []
        for way, weights in enumerate(one[: 1 + bidirectional]):
            start = [np.broadcast_to(a, (8, 6)) for a in one.start[way]]
            how = {"lengths": lengths, "resets": (resets, back)[way], "reverse": bool(way)}
            last, h = slstm_witness.loop(
                tuple(weights), start, x, forget=cells[n].forget, reset_to=start, **how
            )
            one_carry = carry[n][way] if bidirectional else carry[n]
            assert_trees_agree(one_carry, SLSTMCarry(*last))
            hs.append(h)
        x = np.concatenate(hs, axis=-1) + (outs[-1] if n and connections == "residual" else 0)
        outs.append(x)
    assert_trees_agree(found, x)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_gradients_of_a_stack(derivative):
    config = Stack(
        sizes=(6, 6),
        gates=SLSTM(heads=3),
        bidirectional=True,
        connections="residual",
        learned_carry=True,
    )
    params = init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    # Away from the zero start, which has no slope in n.
    params = jax.tree.map(lambda a, d: a + 0.3 * jnp.abs(d), params, random_like(1, params))
    problem = problem_of(17, lengths=True, resets=True)
    masks = {name: jnp.asarray(problem.masks[name]) for name in ("lengths", "resets")}

    def loss(params, xs, derivative):
        carry, hs = stack(config, params, None, xs, derivative=derivative, **masks)
        return jnp.sum(hs**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

    gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    point = params, problem.point[2]
    expected = gradient(*point, "autodiff")
    assert_trees_agree(gradient(*point, derivative), expected, ROUNDING)


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("derivative", "shape"),
    [("vjp", "t, b"), ("jvp", "t, b"), ("autodiff", "t, 8"), ("vjp", "7, b")],
)
def test_export_with_symbolic_sizes(derivative, shape):
    problem = problem_of(18, lengths=True, resets=True)
    params, _, xs, _ = problem.point
    lengths, resets = problem.masks["lengths"], problem.masks["resets"]

    @jax.jit
    def run(params, xs, lengths, resets):
        def loss(params, xs):
            how = {"gates": problem.gates, "derivative": derivative, "chunk": 3}
            carry, hs = jlstm.lstm(params, None, xs, lengths=lengths, resets=resets, **how)
            return jnp.sum(hs**3) + jnp.sum(carry.c**2) + jnp.sum(carry.n**2), carry

        return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

    dims = jax.export.symbolic_shape(shape)
    exported = jax.export.export(run)(
        params,
        jax.ShapeDtypeStruct((*dims, 5), xs.dtype),
        jax.ShapeDtypeStruct(dims[1:], lengths.dtype),
        jax.ShapeDtypeStruct(dims, np.bool_),
    )
    time, batch = (n if isinstance(n, int) else 2 for n in dims)
    small = xs[:time, :batch], np.minimum(lengths, time)[:batch], resets[:time, :batch]
    for given in (small, (xs, lengths, resets)):
        assert_trees_agree(exported.call(params, *given), run(params, *given))
    pytest.importorskip("flatbuffers")
    again = jax.export.deserialize(exported.serialize())
    assert_trees_agree(again.call(params, *small), run(params, *small))


# Weights, and bad input


class TestInit:
    def test_shapes_and_dtype(self):
        params = SLSTM(heads=3).init(jax.random.key(0), 5, 6)
        assert jax.tree.map(jnp.shape, params) == SLSTMParams((5, 4, 6), (3, 2, 4, 2), (4, 6))
        assert {w.dtype for w in params} == {jnp.dtype("float32")}
        params = SLSTM(heads=3).init(jax.random.key(0), 5, 6, bias=False, dtype=jnp.bfloat16)
        assert params.b is None
        assert {w.dtype for w in params[:2]} == {jnp.dtype("bfloat16")}

    def test_only_the_forget_gate_has_a_bias(self):
        b = SLSTM(heads=3).init(jax.random.key(0), 5, 6, forget_bias=2.5).b
        np.testing.assert_array_equal(b, np.array([0, 2.5, 0, 0])[:, None] * np.ones(6))

    def test_each_gate_of_each_head_is_orthogonal_and_none_is_another(self):
        w_hh = SLSTM(heads=3).init(jax.random.key(0), 5, 12, dtype=np.float64).w_hh
        blocks = np.moveaxis(np.asarray(w_hh), 2, 1).reshape(12, 4, 4)
        for block in blocks:
            np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-12)
        for one, other in itertools.combinations(blocks, 2):
            assert np.abs(one - other).max() > 1e-2

    @pytest.mark.parametrize("batch", [(), (3,), (3, 2), 3])
    def test_start(self, batch):
        cell = SLSTM(heads=3)
        carry = cell.start(cell.init(jax.random.key(0), 5, 6, dtype=jnp.float16), batch)
        shape = (*((batch,) if batch == 3 else batch), 6)
        assert {a.shape for a in carry} == {shape}
        assert [a.dtype.name for a in carry] == ["float16", "float16", "float16", "float32"]
        assert not any(a.any() for a in carry)


def run(gates=None, params=None, carry=None, xs=None, **options):
    cell = SLSTM(heads=3) if gates is None else gates
    if params is None:
        params = SLSTM(heads=3).init(jax.random.key(0), 5, 6)
    xs = jnp.ones((7, 8, 5), jnp.float32) if xs is None else xs
    return jlstm.lstm(params, carry, xs, gates=cell, **options)


FRESH = SLSTM(heads=3).init(jax.random.key(0), 5, 6)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: SLSTM(heads=0), ValueError, "heads: expected"),
        (lambda: SLSTM(heads=2.0), TypeError, "heads: expected"),
        (lambda: SLSTM(forget="tanh"), ValueError, "forget: expected one of .*'tanh'"),
        (
            lambda: SLSTM(heads=4).init(jax.random.key(0), 5, 6),
            ValueError,
            "hidden_size: expected a multiple of heads=4, got 6",
        ),
        (lambda: SLSTM().init(0, 5, 6), TypeError, "key: expected a key"),
        (lambda: SLSTM().init(jax.random.key(0), 0, 6), ValueError, "input_size: expected"),
        (lambda: run(SLSTM), TypeError, "gates: expected a cell"),
        (
            lambda: run(params=jlstm.init_params(jax.random.key(0), 5, 6)),
            TypeError,
            "params: expected SLSTMParams, got LSTMParams",
        ),
        (
            lambda: run(SLSTM(heads=2)),
            ValueError,
            r"params.w_hh: expected shape \[2, units, 4, units\], got \[3, 2, 4, 2\]",
        ),
        (
            lambda: run(params=FRESH._replace(w_hh=jnp.ones((3, 3, 4, 2), jnp.float32))),
            ValueError,
            r"params.w_hh: expected shape \[3, 3, 4, 3\], got \[3, 3, 4, 2\]",
        ),
        (
            lambda: run(params=FRESH._replace(w_ih=jnp.ones((5, 4, 5), jnp.float32), b=None)),
            ValueError,
            r"params.w_ih: expected shape \[input, 4, 6\], got \[5, 4, 5\]",
        ),
        (
            lambda: run(params=FRESH._replace(b=jnp.ones((4, 6), jnp.float16))),
            TypeError,
            "params.b: expected dtype float32, got float16",
        ),
        (
            lambda: run(params=FRESH._replace(w_hh=np.ones((3, 2, 4, 2), np.int32))),
            TypeError,
            "params.w_hh: expected a floating-point dtype, got int32",
        ),
        (
            lambda: run(carry=jlstm.init_carry(8, 6)),
            TypeError,
            "carry: expected SLSTMCarry, got Carry",
        ),
        (
            lambda: run(carry=SLSTM().start(FRESH, (7,))),
            ValueError,
            r"carry\.h: expected shape \[8, 6\], got \[7, 6\]",
        ),
        (
            lambda: run(carry=SLSTM().start(FRESH, (8,))._replace(m=jnp.ones((8, 5), jnp.float32))),
            ValueError,
            r"carry\.m: expected shape \[8, 6\], got \[8, 5\]",
        ),
        (
            lambda: run(
                resets=jnp.zeros((7, 8), bool),
                reset_to=SLSTM().start(FRESH, (8,))._replace(n=jnp.ones((8, 6), jnp.float16)),
            ),
            TypeError,
            r"reset_to\.n: expected dtype float32, got float16",
        ),
        (
            lambda: Stack(sizes=6, output_sizes=3, gates=SLSTM()),
            ValueError,
            "output_sizes: expected None",
        ),
        (
            lambda: jax.jvp(lambda xs: run(xs=xs)[1], *[(jnp.ones((7, 8, 5), jnp.float32),)] * 2),
            TypeError,
            "derivative: expected 'jvp' for forward mode",
        ),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_equal_cells_are_equal():
    assert SLSTM(heads=2) == SLSTM(heads=2, forget="sigmoid")
    assert hash(SLSTM(heads=2)) == hash(SLSTM(heads=2))
    assert SLSTM(heads=2) != SLSTM(heads=2, forget="exp")
