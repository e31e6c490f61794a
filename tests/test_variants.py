"""Variants of the cell against a loop in NumPy and autodiff: each option, alone and with others."""

import itertools
import json
import pickle
from collections import Counter
from copy import deepcopy
from functools import partial
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from variant_witness import (
    ALL,
    CASES,
    NAMES,
    NOISE,
    NORMED,
    QUIET,
    ROUNDING,
    RULES,
    SOME,
    TOGETHER,
    any_options,
    assert_slopes_agree,
    loop_of,
    problem_of,
    pulled_back,
    pulling_back,
    random_like,
    tolerance_of,
    variant_of,
    witness,
)
from witness import assert_trees_agree, equations_of, random_problem, relative_error

import jlstm
from jlstm import activations, sequence
from jlstm.equations import PLAIN
from jlstm.variants import Variant

# Values and gradients


def test_the_witness_is_the_oracle_where_no_option_is_on():
    p = random_problem(lengths=True, resets=True, reset_to=True)
    weights = {"w_ih": p.w_ih, "w_hh": p.w_hh, "b": p.b, "w_hr": None}
    masks = {"lengths": p.lengths, "resets": p.resets, "reset_to": p.reset_to}
    h, c, hs = loop_of(weights, {}, p.h0, p.c0, p.xs, **masks)
    expected = oracle.forward(p.w_ih, p.w_hh, p.b, p.h0, p.c0, p.xs, **masks)
    assert_trees_agree((hs, h, c), (expected.hs, expected.h, expected.c), 1e-14)


@pytest.mark.grid(2)
@pytest.mark.parametrize("case", [*CASES, *ALL])
def test_values_are_the_loops(case):
    # Without a derivative: the equations one by one. With one, in the next tests: the quick way.
    problem = problem_of((CASES | ALL)[case], reverse=len(case) % 2 == 0)
    answer = jax.jit(problem.lstm)(*problem.point)
    expected = witness(problem)(*jax.tree.map(np.asarray, problem.point))
    assert_trees_agree(answer, expected)


@pytest.mark.parametrize("case", CASES)
def test_each_option_by_hand_by_autodiff_and_by_differences(case):
    problem = problem_of(CASES[case], 1, reverse=len(case) % 2 == 1)
    out, gradients = pulled_back(problem, derivative="autodiff")
    loop = witness(problem)
    assert_trees_agree(out, loop(*jax.tree.map(np.asarray, problem.point)))
    for derivative, residuals in [RULES[0], RULES[1 + len(case) % 5]]:
        answer = pulled_back(problem, derivative=derivative, residuals=residuals, chunk=3)
        assert_trees_agree(answer, (out, gradients), tolerance_of(problem.options))
    assert_slopes_agree(loop, problem, gradients)


@pytest.mark.parametrize(
    ("case", "reverse"),
    [
        ("everything", False),
        *(
            pytest.param(case, reverse, marks=pytest.mark.slow)
            for case, reverse in itertools.product(ALL, (False, True))
            if (case, reverse) != ("everything", False)
        ),
    ],
)
def test_all_options_by_hand_by_autodiff_and_by_differences(case, reverse):
    # With all that is drawn a program takes twice as long to compile: half of the rules each.
    quiet = (case == "everything") == reverse
    rules = RULES if quiet else RULES[reverse::2]
    problem = problem_of(ALL[case] | {"deterministic": quiet}, 2, reverse=reverse)
    out, gradients = pulled_back(problem, derivative="autodiff", residuals="carry")
    loop = witness(problem)
    for derivative, residuals in rules:
        answer = pulled_back(problem, derivative=derivative, residuals=residuals, chunk=3)
        assert_trees_agree(answer, (out, gradients), NORMED)
    assert_slopes_agree(loop, problem, gradients)


@st.composite
def any_problem(draw):
    options = draw(any_options())
    hidden = draw(st.integers(1, 4))
    problem = problem_of(
        options,
        draw(st.integers(0, 2**20)),
        time=draw(st.integers(0, 6)),
        batch=tuple(draw(st.lists(st.integers(0, 3), max_size=2))),
        inputs=draw(st.integers(1, 3)),
        hidden=hidden,
        output=draw(st.integers(1, hidden)),
        reverse=draw(st.booleans()),
        masks=draw(st.booleans()),
    )
    derivative, residuals = draw(st.sampled_from(RULES))
    chunk = draw(st.none() | st.integers(1, 7))
    return problem, {"derivative": derivative, "residuals": residuals, "chunk": chunk}


@pytest.mark.slow
@hypothesis.settings(max_examples=8)
@hypothesis.given(any_problem())
def test_any_options_with_any_shape_and_masks(drawn):
    problem, options = drawn
    expected = pulled_back(problem, derivative="autodiff")
    # Two or three numbers that happen to be nearly equal are normalised by up to 1/√ε, at each of
    # six steps.
    tolerance = 1e-8 if problem.options["layer_norm"] else ROUNDING
    assert_trees_agree(pulled_back(problem, **options), expected, tolerance)


@pytest.mark.grid(5)
@pytest.mark.parametrize("sizes", [{"time": 0}, {"batch": (0,)}, {"hidden": 1, "output": 1}])
@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_smallest_sizes(sizes, derivative):
    problem = problem_of(QUIET | SOME, **sizes)
    expected = pulled_back(problem, derivative="autodiff")
    assert_trees_agree(pulled_back(problem, derivative=derivative), expected, NORMED)


@pytest.mark.grid(2)
@pytest.mark.parametrize("batch", [(), (4, 2)])
def test_no_batch_axis_and_two(batch):
    problem = problem_of(SOME | {"layer_norm": True}, batch=batch)
    out, gradients = pulled_back(problem, chunk=3)
    assert out[1].shape == (9, *batch, 6)
    assert_trees_agree((out, gradients), pulled_back(problem, derivative="autodiff"), NORMED)


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    ("derivative", "dtype", "tolerance"),
    [("vjp", np.float32, 1e-3), ("jvp", jnp.bfloat16, 0.3), ("vjp", np.float16, 0.03)],
)
def test_everything_stays_in_the_dtype_of_the_weights(derivative, dtype, tolerance):
    problem = problem_of(TOGETHER, dtype=dtype)
    out, gradients = pulled_back(problem, derivative=derivative)
    assert {a.dtype for a in jax.tree.leaves((out, gradients))} == {jnp.dtype(dtype)}
    wide = problem_of(TOGETHER)
    point = jax.tree.map(lambda a: a.astype(np.float64), problem.point)
    # The same masks: what is drawn does not depend on the dtype. Normalisation multiplies errors: a
    # hundred roundings are allowed for, measured are ten to forty.
    expected = jax.jit(wide.lstm)(*point)
    assert_trees_agree(out, expected, tolerance)


def test_products_in_bfloat16():
    options = {"peepholes": True, "projection": True, "projection_clip": 0.3}
    problem = problem_of(options, dtype=np.float32)
    exact = pulled_back(problem)
    for derivative in ("vjp", "jvp"):
        answer = pulled_back(problem, derivative=derivative, compute_dtype=jnp.bfloat16)
        # Factors are rounded at 2⁻⁹ = 2e-3, through seven steps.
        pairs = zip(jax.tree.leaves(answer), jax.tree.leaves(exact), strict=True)
        errors = [relative_error(np.asarray(a), np.asarray(e)) for a, e in pairs]
        assert 1e-4 < max(errors) < 0.1
        assert {a.dtype for a in jax.tree.leaves(answer)} == {np.dtype("float32")}


# Padding


@pytest.mark.grid(4)
@pytest.mark.parametrize(("derivative", "residuals"), [*RULES[:4], ("autodiff", "gates")])
def test_nan_in_the_padding_has_no_influence(derivative, residuals):
    problem = problem_of(QUIET)
    params, carry, xs, reset_to = problem.point
    padding = np.arange(9)[:, None] >= problem.masks["lengths"]
    assert padding.any()
    spoil = partial(jnp.where, padding[..., None], jnp.nan)
    run = pulling_back(problem, derivative=derivative, residuals=residuals, chunk=3)
    d_carry, dhs = problem.cotangents
    answer = run((params, carry, spoil(xs), reset_to), (d_carry, spoil(dhs)))
    assert_trees_agree(answer, run(problem.point, problem.cotangents), 0)
    (last, hs), (_, d_carry, dxs, _) = answer
    np.testing.assert_array_equal(hs[padding], 0)
    np.testing.assert_array_equal(dxs[padding], 0)
    # The last sequence has length 0: the carry comes back, and so does its cotangent.
    for given, returned in zip((*carry, *problem.cotangents[0]), (*last, *d_carry), strict=True):
        np.testing.assert_array_equal(returned[-1], given[-1])


# Forward mode, higher derivatives, transforms


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("case", "residuals"),
    [
        ("everything", "gates"),
        ("everything", "carry"),
        ("everything", "chunks"),
        ("everything, coupled", "gates"),
    ],
)
def test_forward_mode(case, residuals):
    problem = problem_of(
        ALL[case] | {"deterministic": residuals != "gates"}, reverse=residuals == "carry"
    )
    tangent = random_like(1, problem.point)
    jvp = jax.jit(lambda f: jax.jvp(f, problem.point, tangent), static_argnums=0)
    expected = jvp(partial(problem.lstm, derivative="autodiff"))
    by_hand = partial(problem.lstm, derivative="jvp", residuals=residuals, chunk=3)
    assert_trees_agree(jvp(by_hand), expected, NORMED)


@pytest.mark.slow
def test_forward_mode_in_one_array_alone():
    # The tangents of all others are then symbolic zeros.
    problem = problem_of(QUIET, time=3)
    leaves, tree = jax.tree.flatten(problem.point)
    tangents = jax.tree.leaves(random_like(1, problem.point))

    def along(n, derivative):
        def run(leaf):
            point = jax.tree.unflatten(tree, [*leaves[:n], leaf, *leaves[n + 1 :]])
            return problem.lstm(*point, derivative=derivative)

        return jax.jit(lambda: jax.jvp(run, leaves[n : n + 1], tangents[n : n + 1])[1])()

    def one_by_one(point):
        return jax.jvp(partial(problem.lstm, derivative="autodiff"), problem.point, point)[1]

    zeros = [jnp.zeros_like(a) for a in leaves]
    each = jax.jit(one_by_one)
    for n, tangent in enumerate(tangents):
        point = jax.tree.unflatten(tree, [*zeros[:n], tangent, *zeros[n + 1 :]])
        assert_trees_agree(along(n, "jvp"), each(point), NORMED)


@pytest.mark.slow
@pytest.mark.parametrize(("derivative", "residuals"), [RULES[0], RULES[3]])
def test_hessian_vector_products_in_both_orders(derivative, residuals):
    problem = problem_of(QUIET, time=3, batch=(3,), masks=False)
    vector, everything = random_like(1, problem.point), (0, 1, 2, 3)

    def forward_over_reverse(loss):
        return jax.jit(lambda *p: jax.jvp(jax.grad(loss, everything), p, vector)[1])(*problem.point)

    def reverse_over_reverse(loss):
        def slope(*point):
            gradient = jax.grad(loss, everything)(*point)
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, vector)))

        return jax.jit(jax.grad(slope, everything))(*problem.point)

    expected = forward_over_reverse(partial(problem.loss, derivative="autodiff"))
    loss = partial(problem.loss, derivative=derivative, residuals=residuals, chunk=2)
    assert_trees_agree(forward_over_reverse(loss), expected, NORMED)
    assert_trees_agree(reverse_over_reverse(loss), expected, NORMED)


@pytest.mark.grid(2)
@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_an_ensemble_by_vmap_is_a_loop(derivative):
    problem = problem_of(SOME, time=4)
    params, *others = problem.point
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), params)
    gradient = jax.value_and_grad(partial(problem.loss, derivative=derivative, chunk=3))
    mapped = jax.jit(jax.vmap(gradient, (0, None, None, None)))(many, *others)
    one = jax.jit(gradient)
    for n in range(3):
        pick = partial(jax.tree.map, lambda a, n=n: a[n])
        # The members draw the same masks as each draws alone: they have the same key.
        assert_trees_agree(pick(mapped), one(pick(many), *others), NORMED)


@pytest.mark.grid(5)
@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
@pytest.mark.parametrize("keys", [None, (8,), (8, 1)])
def test_per_example_gradients_add_up(derivative, keys):
    problem = problem_of(QUIET if keys is None else SOME, time=4, masks=False)
    params, carry, xs, _ = problem.point
    dhs, key = problem.cotangents[1], None if keys is None else jax.random.split(problem.key, keys)
    if keys == (8, 1):  # each example is a batch of one
        carry, xs, dhs = (
            carry._replace(h=carry.h[:, None], c=carry.c[:, None]),
            xs[:, :, None],
            dhs[:, :, None],
        )

    def loss(params, carry, xs, dhs, key):
        hs = problem.lstm(params, carry, xs, None, key, derivative=derivative)[1]
        return jnp.vdot(hs, dhs)

    rest = carry, xs, dhs, key
    each = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 1, 1, 0)))(params, *rest)
    total = jax.jit(jax.grad(loss))(params, *rest)
    assert_trees_agree(jax.tree.map(lambda a: a.sum(0), each), total, NORMED)


@pytest.mark.grid(2)
@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_checkpoint(derivative):
    problem = problem_of(SOME, time=4)
    loss = partial(problem.loss, derivative=derivative, chunk=3)
    expected = jax.jit(jax.grad(loss))(*problem.point)
    again = jax.jit(jax.grad(jax.checkpoint(loss)))(*problem.point)
    assert_trees_agree(again, expected, NORMED)


# The plain LSTM pays nothing


@pytest.mark.grid(2)
@pytest.mark.parametrize("residuals", ["gates", "carry", "chunks"])
def test_no_option_is_the_plain_lstm(residuals):
    problem = problem_of({})
    params, *others = problem.point
    plain = problem._replace(gates=PLAIN, point=(jlstm.LSTMParams(*params[:3]), *others))
    options = {"residuals": residuals, "chunk": 3}
    assert_trees_agree(pulled_back(problem, **options), pulled_back(plain, **options))


GOLDEN = Path(__file__).parent / "golden" / "plain_program.json"
"""How often each primitive stood in each program of the plain LSTM before there were variants; on
CPU, and with one loop more in a forward pass that is cut into chunks on request."""

COUNTED = {"dot_general", "scan", "tanh", "logistic", "exp", "log"}
"""What costs time; how JAX writes the rest differs from version to version."""


@pytest.mark.parametrize("name", json.loads(GOLDEN.read_text("utf-8")))
def test_the_plain_lstm_pays_nothing_for_the_options(name):
    derivative, residuals, program, *masked = name.split()
    params, carry = jlstm.init_params(jax.random.key(0), 3, 5), jlstm.init_carry(2, 5)
    point = params, carry, jnp.ones((12, 2, 3), jnp.float32)
    masks = {"lengths": jnp.array([12, 7]), "resets": jnp.zeros((12, 2), bool)} if masked else {}

    def forward(params, carry, xs, masks):
        # The scan: within a native call there is nothing to count.
        how = {"derivative": derivative, "residuals": residuals, "chunk": 4}
        how |= {"implementation": "xla"}
        return jlstm.lstm(params, carry, xs, **how, **masks)

    def gradient(*given):
        out, pull_back = jax.vjp(lambda *point: forward(*point, given[-1]), *given[:-1])
        return out, pull_back(out)

    def tangent(*given):
        return jax.jvp(lambda *point: forward(*point, given[-1]), given[:-1], given[:-1])

    run = {"forward": forward, "gradient": gradient, "tangent": tangent}[program]
    found = Counter(
        eqn.primitive.name
        for eqn in equations_of(jax.make_jaxpr(run)(*point, masks), "")
        if eqn.primitive.name in COUNTED
    )
    before = Counter(json.loads(GOLDEN.read_text("utf-8"))[name])
    # Not one more of anything, and where only reverse mode is derived by hand, not one less.
    assert not found - before
    assert derivative == "jvp" or found == before


@pytest.mark.grid(2)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_layer_norm_of_large_inputs_in_16_bits(dtype):
    # Squares of 256 and more are beyond float16.
    gates = Variant(layer_norm=True)
    weights = gates.init(jax.random.key(0), 64, 8, dtype=dtype)
    xs = 300 * jax.random.normal(jax.random.key(1), (5, 3, 64), dtype)
    wide, wide_xs = jax.tree.map(lambda a: a.astype(jnp.float32), (weights, xs))
    for derivative in ("vjp", "autodiff"):
        how = {"gates": gates, "derivative": derivative, "residuals": "carry"}

        def loss(weights, xs, how=how):
            return jnp.sum(jlstm.lstm(weights, None, xs, **how)[1] ** 2)

        found = jax.value_and_grad(loss)(weights, xs)
        expected = jax.value_and_grad(loss)(wide, wide_xs)
        # Some tens of roundings of 16 bits, on values of order one.
        assert_trees_agree(found, expected, 30 * float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(
    "options",
    [
        {"candidate": activations.relu},
        {"output": activations.relu},
        {"gate": activations.hard_sigmoid()},
        {"cell_clip": 1.0, "gate": activations.hard_sigmoid()},
        {"preact_clip": 2.5},
    ],
)
def test_on_a_kink_the_hand_rule_is_autodiff(options):
    # No weights but biases: preactivations of 0 or ±2.5 exactly, a cell that stays at 1 exactly.
    gates = Variant(**options)
    weights = jax.tree.map(jnp.zeros_like, gates.init(jax.random.key(0), 3, 4, dtype=jnp.float64))
    weights = weights._replace(b=weights.b.at[:2].set(jnp.array([[-2.5], [2.5]])))
    carry = jlstm.Carry(jnp.ones((2, 4)), jnp.ones((2, 4)).at[0].set(0))
    xs = jnp.zeros((3, 2, 3))

    def gradients(derivative):
        def loss(*point):
            after, hs = jlstm.lstm(*point, gates=gates, derivative=derivative)
            return jnp.sum(hs) + jnp.sum(after.c)

        return jax.grad(loss, (0, 1, 2))(weights, carry, xs)

    assert_trees_agree(gradients("vjp"), gradients("autodiff"))


@pytest.mark.parametrize(
    "option", ["cell_clip", "preact_clip", "epsilon", "forget_offset", "zoneout_h", "zoneout_c"]
)
def test_numbers_of_numpy_do_not_mix_in_their_dtype(option):
    value = np.float64(0.5)
    gates = Variant(layer_norm=True, deterministic=True, **{option: value})
    assert gates == Variant(layer_norm=True, deterministic=True, **{option: 0.5})
    weights = gates.init(jax.random.key(0), 3, 2, dtype=jnp.float32)
    _, hs = jlstm.lstm(weights, None, jnp.ones((4, 3), jnp.float32), gates=gates)
    assert hs.dtype == jnp.float32


def test_equal_variants_compile_once():
    problem = problem_of(NAMES | {"cell_clip": 0.77}, time=3)
    problem.lstm(*problem.point)
    compiled = sequence._run._cache_size()
    again = variant_of(problem.options)
    assert again is not problem.gates
    assert hash(again) == hash(problem.gates)
    problem._replace(gates=again).lstm(*problem.point)
    assert sequence._run._cache_size() == compiled
    problem._replace(gates=variant_of(NAMES | {"cell_clip": 0.78})).lstm(*problem.point)
    assert sequence._run._cache_size() == compiled + 1


@pytest.mark.parametrize("gates", [PLAIN, Variant(), variant_of(TOGETHER)])
@pytest.mark.parametrize("copied", [deepcopy, lambda gates: pickle.loads(pickle.dumps(gates))])
def test_a_copy_of_a_cell_is_the_same_cell(gates, copied):
    copy = copied(gates)
    assert copy == gates
    assert hash(copy) == hash(gates)
    known = vars(activations) | {"Variant": Variant, "PLAIN": PLAIN}
    assert eval(repr(copy), known) == gates


def test_a_copy_of_a_cell_compiles_nothing():
    problem = problem_of(NAMES | {"cell_clip": 0.79}, time=3)
    problem.lstm(*problem.point)
    compiled = sequence._run._cache_size()
    for copy in (deepcopy(problem.gates), pickle.loads(pickle.dumps(problem.gates))):
        problem._replace(gates=copy).lstm(*problem.point)
    assert sequence._run._cache_size() == compiled


# The weights


class TestInit:
    def test_shapes(self):
        gates = Variant(peepholes=True, layer_norm=True)
        params = gates.init(jax.random.key(0), 5, 10, output_size=6)
        shapes = {name: w.shape for name, w in params._asdict().items()}
        assert shapes == {
            "w_ih": (5, 4, 10),
            "w_hh": (6, 4, 10),
            "b": (4, 10),
            "peepholes": (3, 10),
            "w_hr": (10, 6),
            "gain_x": (4, 10),
            "gain_h": (4, 10),
            "gain_c": (10,),
            "shift_c": (10,),
        }
        assert {w.dtype for w in params} == {jnp.dtype("float32")}

    def test_three_gates_where_one_is_coupled(self):
        params = Variant(coupled=True, peepholes=True).init(jax.random.key(0), 5, 10)
        assert params.w_ih.shape == (5, 3, 10)
        assert params.w_hh.shape == (10, 3, 10)
        assert params.b.shape == (3, 10)
        assert params.peepholes.shape == (2, 10)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
    def test_dtype(self, dtype):
        gates = Variant(peepholes=True, layer_norm=True)
        params = gates.init(jax.random.key(0), 5, 10, output_size=6, dtype=dtype)
        assert {w.dtype for w in params} == {jnp.dtype(dtype)}

    def test_only_what_is_asked_for(self):
        params = Variant().init(jax.random.key(0), 5, 10, bias=False)
        assert [n for n, w in params._asdict().items() if w is not None] == ["w_ih", "w_hh"]

    def test_peepholes_and_shifts_start_at_0_and_gains_at_1(self):
        params = Variant(peepholes=True, layer_norm=True).init(jax.random.key(0), 5, 10)
        for zero in (params.peepholes, params.shift_c):
            np.testing.assert_array_equal(zero, 0)
        for one in (params.gain_x, params.gain_h, params.gain_c):
            np.testing.assert_array_equal(one, 1)

    def test_the_bias_opens_the_forget_gate(self):
        b = Variant().init(jax.random.key(0), 5, 2, forget_bias=1.5).b
        np.testing.assert_array_equal(b, [[0, 0], [1.5, 1.5], [0, 0], [0, 0]])
        coupled = Variant(coupled=True).init(jax.random.key(0), 5, 2, forget_bias=1.5).b
        np.testing.assert_array_equal(coupled, [[-1.5, -1.5], [0, 0], [0, 0]])

    def test_orthogonal_where_something_comes_back(self):
        params = Variant().init(jax.random.key(1), 5, 8, output_size=3, dtype=np.float64)
        np.testing.assert_allclose(params.w_hr.T @ params.w_hr, np.eye(3), atol=1e-14)
        for gate in range(4):
            w = params.w_hh[:, gate]
            np.testing.assert_allclose(w @ w.T, np.eye(3), atol=1e-14)

    def test_no_two_are_alike(self):
        params = Variant().init(jax.random.key(1), 6, 6, output_size=6)
        some = [w[:, k] for w in params[:2] for k in range(4)] + [params.w_hr]
        assert len({np.asarray(w).tobytes() for w in some}) == 9

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"key": 0}, TypeError, "key: expected a key of jax.random, got int 0"),
            ({"input_size": 0}, ValueError, "input_size: expected at least 1, got 0"),
            ({"hidden_size": 1.0}, TypeError, "hidden_size: expected an int, got float 1.0"),
            ({"output_size": 0}, ValueError, "output_size: expected at least 1, got 0"),
            ({"output_size": True}, TypeError, "output_size: expected an int, got bool True"),
            ({"forget_bias": "x"}, TypeError, "forget_bias: expected a number, got str 'x'"),
            ({"forget_bias": np.inf}, ValueError, "forget_bias: expected a finite number, got inf"),
            ({"bias": 1}, TypeError, "bias: expected True or False, got int 1"),
            ({"dtype": int}, TypeError, "dtype: expected a floating-point dtype, got int64"),
        ],
    )
    def test_bad_arguments(self, change, error, message):
        given = {"key": jax.random.key(0), "input_size": 5, "hidden_size": 10} | change
        with pytest.raises(error, match=message):
            Variant().init(**given)


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        *[
            ({name: 1}, TypeError, f"{name}: expected True or False, got int 1")
            for name in ("peepholes", "coupled", "layer_norm", "deterministic")
        ],
        *[
            ({name: jnp.tanh}, TypeError, f"{name}: expected an Activation of jlstm.activations, ")
            for name in ("gate", "candidate", "output")
        ],
        ({"epsilon": -1.0}, ValueError, "epsilon: expected a finite number of at least 0, got -1"),
        ({"epsilon": 0}, ValueError, "epsilon: expected a positive number, got 0"),
        ({"epsilon": None}, TypeError, "epsilon: expected a number, got NoneType None"),
        ({"forget_offset": "1"}, TypeError, "forget_offset: expected a number, got str '1'"),
        ({"forget_offset": np.nan}, ValueError, "forget_offset: expected a finite number, got nan"),
        (
            {"coupled": True, "forget_offset": 0.5},
            ValueError,
            "forget_offset: expected 0 where coupled=True, as there is no forget gate, got 0.5",
        ),
        *[
            ({f"{name}_clip": value}, error, f"{name}_clip: expected {message}")
            for name in ("preact", "cell", "projection")
            for value, error, message in [
                (0, ValueError, "a positive number, got 0"),
                (-1.0, ValueError, "a finite number of at least 0, got -1.0"),
                (np.inf, ValueError, "a finite number of at least 0, got inf"),
                ("1", TypeError, "a number, got str '1'"),
            ]
        ],
        *[
            ({name: value}, error, f"{name}: expected {message}")
            for name in NOISE
            for value, error, message in [
                (1.0, ValueError, "a finite number of at least 0 and below 1, got 1.0"),
                (-0.1, ValueError, "a finite number of at least 0 and below 1, got -0.1"),
                (True, TypeError, "a number, got bool True"),
            ]
        ],
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        Variant(**options)


def fitting(**options):
    return problem_of({"projection": True, **options}, masks=False).point[:3]


@pytest.mark.parametrize(
    ("options", "change", "error", "message"),
    [
        (
            {},
            {"w_hh": np.zeros((6, 3, 10))},
            ValueError,
            r"params.w_hh: expected shape \[output, 4",
        ),
        ({}, {"w_hh": np.zeros((6, 4, 10), int)}, TypeError, "params.w_hh: expected a floating"),
        ({}, {"w_hh": [1.0]}, TypeError, "params.w_hh: expected an array, got list"),
        (
            {},
            {"w_ih": None},
            ValueError,
            "params.w_ih: expected an array for these gates, got None",
        ),
        ({}, {"w_ih": np.zeros((5, 4, 9))}, ValueError, r"w_ih: expected shape \[input, 4, 10\]"),
        ({}, {"b": np.zeros((4, 10), "f4")}, TypeError, "params.b: expected dtype float64, got f"),
        ({}, {"b": np.zeros((3, 10))}, ValueError, r"params.b: expected shape \[4, 10\], got"),
        ({}, {"w_hr": np.zeros((6, 10))}, ValueError, r"params.w_hr: expected shape \[10, 6\]"),
        ({}, {"w_hr": None}, ValueError, r"params.w_hh: expected shape \[10, 4, 10\], got \[6, 4"),
        *[
            (options, {name: None if options else np.zeros(10)}, ValueError, message)
            for options, said in [
                ({}, "None for"),
                ({"peepholes": True, "layer_norm": True}, "an a"),
            ]
            for name in ("peepholes", "gain_x", "gain_h", "gain_c", "shift_c")
            for message in [f"params.{name}: expected {said}"]
        ],
        (
            {"peepholes": True},
            {"peepholes": np.zeros((4, 10))},
            ValueError,
            r"params.peepholes: expected shape \[3, 10\], got \[4, 10\]",
        ),
        (
            {"layer_norm": True},
            {"gain_c": np.zeros((4, 10))},
            ValueError,
            r"params.gain_c: expected shape \[10\], got \[4, 10\]",
        ),
    ],
)
def test_bad_weights_are_named(options, change, error, message):
    params, carry, xs = fitting(**options)
    with pytest.raises(error, match=message):
        jlstm.lstm(params._replace(**change), carry, xs, gates=variant_of(options))


def test_a_clipped_projection_needs_a_projection():
    params, carry, xs, _ = problem_of({}, masks=False).point
    message = r"projection_clip: expected None where .* \(params.w_hr is None\), got 0.5"
    with pytest.raises(ValueError, match=message):
        jlstm.lstm(params, carry, xs, gates=Variant(projection_clip=0.5))


def test_each_cell_takes_its_own_weights():
    params, carry, xs, _ = problem_of({}, masks=False).point
    with pytest.raises(TypeError, match="params: expected LSTMParams, got VariantParams"):
        jlstm.lstm(params, carry, xs)
    with pytest.raises(TypeError, match="params: expected VariantParams, got LSTMParams"):
        jlstm.lstm(jlstm.LSTMParams(*params[:3]), carry, xs, gates=Variant())


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (None, ValueError, "key: expected a key of jax.random, .* got None; for evaluation, "),
        (0, TypeError, "key: expected a key of jax.random, got int 0"),
        (
            jnp.zeros(2),
            TypeError,
            r"key: expected a key of jax.random, or raw ones, uint32 \[…, 2\], got float64 ",
        ),
        (
            np.zeros(3, np.uint32),
            TypeError,
            r"key: .* \[…, 2\], got uint32 \[3\]",
        ),
        (
            np.zeros(8, np.uint32),
            TypeError,
            r"key: .* \[…, 2\], got uint32 \[8\]",
        ),
        (np.zeros((3, 2), np.uint32), ValueError, r"key: .* for each sequence, \[8\], got \[3\]"),
        (
            jax.random.split(jax.random.key(0), 3),
            ValueError,
            r"key: expected one key, or one for each sequence, \[8\], got \[3\]",
        ),
    ],
)
def test_bad_keys_are_named(key, error, message):
    params, carry, xs, _ = problem_of({}, masks=False).point
    gates = Variant(recurrent_dropout=0.5)
    with pytest.raises(error, match=message):
        jlstm.lstm(params, carry, xs, gates=gates, key=key)
    with pytest.raises(error, match=message):
        jlstm.cell(params, carry, xs[0], gates=gates, key=key)


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (1.5, TypeError, "t: expected an int, got float 1.5"),
        (np.nan, TypeError, "t: expected an int, got float nan"),
        ("1", TypeError, "t: expected an int, got str '1'"),
        (True, TypeError, "t: expected an int, got bool True"),
        ([1], TypeError, r"t: expected an int, got list \[1\]"),
        (-1, ValueError, "t: expected at least 0, got -1"),
        (2**31, ValueError, "t: expected at most 2147483647, got 2147483648"),
        (np.int64(2**31), ValueError, "t: expected at most 2147483647, got 2147483648"),
        (jnp.asarray(-1), ValueError, "t: expected at least 0, got -1"),
        (jnp.asarray(2.0), TypeError, "t: expected an integer dtype, got float64"),
        (np.zeros(2, int), ValueError, r"t: expected shape \[\], got \[2\]"),
    ],
)
@pytest.mark.parametrize("gates", [Variant(), Variant(recurrent_dropout=0.5)])
def test_bad_steps_are_named(gates, t, error, message):
    params, carry, xs, _ = problem_of({}, masks=False).point
    how = {"key": jax.random.key(0), "t": t}
    config = jlstm.Stack(sizes=10, gates=gates)
    layers = jlstm.init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    for call in (
        partial(jlstm.lstm, params, carry, xs, gates=gates),
        partial(jlstm.cell, params, carry, xs[0], gates=gates),
        partial(jlstm.stack, config, layers, None, xs),
    ):
        with pytest.raises(error, match=f"^{message}"):
            call(**how)
        with pytest.raises(error, match=f"^{message}"):  # at trace time, too
            jax.eval_shape(partial(call, **how))


def test_a_bad_key_is_named_even_where_nothing_is_random():
    params, carry = jlstm.init_params(jax.random.key(0), 3, 5), jlstm.init_carry(8, 5)
    xs = jnp.zeros((2, 8, 3), jnp.float32)
    config = jlstm.Stack(sizes=5)
    layers = jlstm.init_stack(jax.random.key(0), 3, config)
    for call in (
        lambda key: jlstm.lstm(params, None, xs, key=key),
        lambda key: jlstm.cell(params, carry, xs[0], key=key),
        lambda key: jlstm.stack(config, layers, None, xs, key=key),
    ):
        with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got str 'foo'"):
            call("foo")


def test_no_number_of_a_step_is_a_mistake():
    params, carry, xs, _ = problem_of({}, masks=False).point
    with pytest.raises(TypeError, match="t: expected an int, got NoneType None"):
        jlstm.lstm(params, carry, xs, gates=Variant(), t=None)


@pytest.mark.parametrize("part", ["h", "c"])
def test_the_carry_has_the_sizes_of_output_and_cell(part):
    params, carry, xs = fitting()
    wrong = carry._replace(**{part: jnp.zeros((8, 7))})
    with pytest.raises(ValueError, match=rf"carry.{part}: expected shape \[8, (6|10)\], got"):
        jlstm.lstm(params, wrong, xs, gates=Variant())


def test_the_names_of_the_gates():
    assert Variant().gate_names == jlstm.GATES
    assert Variant(coupled=True).gate_names == ("i", "g", "o")


def test_a_carry_for_a_projection():
    carry = jlstm.init_carry((2, 3), 4, output_size=1)
    assert (carry.h.shape, carry.c.shape) == ((2, 3, 1), (2, 3, 4))
