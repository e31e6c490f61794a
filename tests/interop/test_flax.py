"""Flax's cells, of Linen and of NNX, in all the places where they are found."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interop_witness import (
    NOBODY_ELSE_HAS,
    PROJECTED,
    assert_agree,
    assert_same,
    drawn,
    inputs,
    promoting,
    random_like,
    run,
    run_stack,
)

from jlstm import PLAIN, Stack, Variant, activations
from jlstm.interop.flax import from_flax, to_flax

linen: Any = pytest.importorskip("flax.linen", reason="the extra `oracles` is not installed")
nnx: Any = pytest.importorskip("flax.nnx")

F64 = {"param_dtype": jnp.float64}


class Scanned(linen.Module):
    """A cell that a user scans by hand."""

    cell: Any
    features: int

    @linen.compact
    def __call__(self, xs: Any) -> Any:
        cell = self.cell(self.features, **F64)
        scan = linen.scan(
            lambda cell, carry, x: cell(carry, x),
            variable_broadcast="params",
            split_rngs={"params": False},
        )
        carry = cell.initialize_carry(jax.random.key(0), xs[0].shape)
        return scan(cell, carry, xs)[1]


class Model(linen.Module):
    """Layers made where they are used, which has all cells beside each other, and more."""

    @linen.compact
    def __call__(self, xs: Any) -> Any:
        for _ in range(11):
            xs = linen.RNN(linen.LSTMCell(2, **F64), time_major=True)(xs)
        linen.Dense(5, **F64)(xs)
        return xs


def rnn(cell: Any, features: int, **options: Any) -> Any:
    return linen.RNN(cell(features, **F64, **options), time_major=True)


def both_ways(cell: Any, features: int) -> Any:
    return linen.Bidirectional(rnn(cell, features), rnn(cell, features), time_major=True)


CELLS = (linen.LSTMCell, linen.OptimizedLSTMCell)
LINEN = {
    "rnn": (lambda cell: rnn(cell, 4), Stack(sizes=4)),
    "stack": (lambda cell: linen.Sequential([rnn(cell, 4), rnn(cell, 5)]), Stack(sizes=(4, 5))),
    "bidirectional": (lambda cell: both_ways(cell, 4), Stack(sizes=4, bidirectional=True)),
    "bidirectional_stack": (
        lambda cell: linen.Sequential([both_ways(cell, 4), both_ways(cell, 2)]),
        Stack(sizes=(4, 2), bidirectional=True),
    ),
    "scanned": (lambda cell: Scanned(cell, 4), Stack(sizes=4)),
    "eleven": (lambda cell: Model(), Stack(sizes=(2,) * 11)),
}


@pytest.mark.parametrize("cell", CELLS, ids=["plain", "optimized"])
@pytest.mark.parametrize("case", LINEN)
def test_linen(case: str, cell: Any) -> None:
    make, expected = LINEN[case]
    module, xs = make(cell), inputs()
    with promoting():
        tree = random_like(module.init(jax.random.key(0), xs))
        hs, dtree, dxs = run(module.apply, tree, xs)
    stack, params = from_flax(tree)
    assert stack == expected
    assert_agree(run_stack(stack, params, xs), (hs, from_flax(dtree)[1], dxs))
    assert_same(to_flax(stack, params, tree), tree)


def test_the_usual_tree_is_that_of_a_sequential() -> None:
    for bidirectional in (False, True):
        stack = Stack(sizes=(4, 2), bidirectional=bidirectional)
        params, xs = drawn(stack), inputs()
        one = both_ways if bidirectional else rnn
        module = linen.Sequential([one(linen.LSTMCell, 4), one(linen.LSTMCell, 2)])
        with promoting():
            hs, dtree, dxs = run(module.apply, to_flax(stack, params), xs)
        assert_agree(run_stack(stack, params, xs), (hs, from_flax(dtree)[1], dxs))
        assert_same(from_flax(to_flax(stack, params))[1], params)


# NNX


def nnx_rnn(cell: Any, width: int, features: int) -> Any:
    return nnx.RNN(cell(width, features, **F64, rngs=nnx.Rngs(0)), time_major=True)


def nnx_both_ways(cell: Any, width: int, features: int) -> Any:
    ways = (nnx_rnn(cell, width, features) for _ in range(2))
    return nnx.Bidirectional(*ways, time_major=True)


NNX = {
    "rnn": (lambda cell: nnx_rnn(cell, 3, 4), Stack(sizes=4)),
    "stack": (
        lambda cell: nnx.Sequential(nnx_rnn(cell, 3, 4), nnx_rnn(cell, 4, 5)),
        Stack(sizes=(4, 5)),
    ),
    "bidirectional": (
        lambda cell: nnx.Sequential(nnx_both_ways(cell, 3, 4), nnx_both_ways(cell, 8, 2)),
        Stack(sizes=(4, 2), bidirectional=True),
    ),
}


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.OptimizedLSTMCell], ids=["plain", "optimized"])
@pytest.mark.parametrize("case", NNX)
def test_nnx(case: str, cell: Any) -> None:
    make, expected = NNX[case]
    with promoting():
        graph, state, rest = nnx.split(make(cell), nnx.Param, ...)
        state, xs = random_like(state), inputs()

        def apply(state: Any, xs: Any) -> Any:
            own = jax.tree.map(jnp.asarray, rest)  # keys, which NNX counts while it is traced
            return nnx.merge(graph, state, own)(xs)

        hs, dstate, dxs = run(apply, state, xs)
    stack, params = from_flax(state)
    assert stack == expected
    assert_agree(run_stack(stack, params, xs), (hs, from_flax(dstate)[1], dxs))
    plain = nnx.to_pure_dict(state)
    assert_same(from_flax(plain)[1], params)
    assert_same(to_flax(stack, params, plain), plain)
    # Into a module, as a user would.
    other = jax.tree.map(lambda a: a + 1, params)
    module = nnx.merge(graph, state, rest)
    nnx.update(module, to_flax(stack, other, nnx.state(module)))
    assert_same(from_flax(nnx.state(module))[1], other)


# What weights do not say


def test_other_activations() -> None:
    module = rnn(linen.LSTMCell, 4, gate_fn=linen.hard_sigmoid, activation_fn=linen.softplus)
    xs = inputs()
    hard = activations.hard_sigmoid(1 / 6)
    gates = Variant(gate=hard, candidate=activations.softplus, output=activations.softplus)
    with promoting():
        tree = random_like(module.init(jax.random.key(0), xs))
        hs, dtree, dxs = run(module.apply, tree, xs)
    stack, params = from_flax(tree, gates=gates)
    assert stack == Stack(sizes=4, gates=gates)
    theirs = (hs, from_flax(dtree, gates=gates)[1], dxs)
    assert_agree(run_stack(stack, params, xs), theirs)
    assert_same(to_flax(stack, params, tree), tree)


def test_cells_by_name() -> None:
    stack = Stack(sizes=(4, 4), bidirectional=True)
    params = drawn(stack, 8)
    parts = to_flax(stack, params)["params"]
    flat = {
        name: parts[layer][f"{way}_rnn"]["cell"]
        for name, layer, way in (
            ("a", "layers_1", "backward"),
            ("b", "layers_0", "backward"),
            ("c", "layers_1", "forward"),
            ("d", "layers_0", "forward"),
        )
    }
    names = [("d", "b"), ("c", "a")]
    back, weights = from_flax(flat, layers=names)
    assert back == stack
    assert_same(weights, params)
    assert_same(to_flax(stack, params, flat, layers=names), flat)
    assert from_flax(flat["a"], layers=[""])[0] == Stack(sizes=4)
    with pytest.raises(ValueError, match=r"layers: expected cells out of 'a', 'b', .* got 'x'"):
        from_flax(flat, layers=["x"])
    with pytest.raises(ValueError, match="a pair of names for each of 2 layers"):
        to_flax(stack, params, flat, layers=["a", "b"])
    with pytest.raises(TypeError, match="layers: expected a list of names"):
        from_flax(flat, layers="a")
    # By the alphabet, a decoder would come before its encoder.
    for call in (lambda: from_flax(flat), lambda: to_flax(stack, params, flat)):
        with pytest.raises(ValueError, match=r"do not tell the order: 'a', 'b', 'c', 'd'$"):
            call()
    numbered = to_flax(Stack(sizes=4), drawn(Stack(sizes=4)))
    with pytest.raises(ValueError, match=r"a pair of names for each of 2 layers"):
        to_flax(stack, params, numbered)


@pytest.mark.parametrize("box", [linen.with_partitioning, linen.with_logical_partitioning])
def test_boxes_that_say_where_weights_lie(box: Any) -> None:
    kernel_init = box(linen.initializers.lecun_normal(), (None, "model"))
    module, xs = rnn(linen.LSTMCell, 4, kernel_init=kernel_init), inputs()
    with promoting():
        tree = random_like(module.init(jax.random.key(0), xs))
        hs = run(module.apply, tree, xs)[0]
    stack, params = from_flax(tree)
    assert_agree(run_stack(stack, params, xs)[0], hs)
    assert_same(to_flax(stack, params, tree), tree)  # boxes and all
    other = Stack(sizes=5)
    with pytest.raises(ValueError, match=r"like: expected \[5, 5\] at params/cell/h./kernel"):
        to_flax(other, drawn(other), tree)


def test_no_bias_becomes_zeros() -> None:
    stack = Stack(sizes=4)
    params, xs = drawn(stack, bias=False), inputs()
    tree = to_flax(stack, params)
    assert not tree["params"]["layers_0"]["cell"]["hf"]["bias"].any()
    back, weights = from_flax(tree)
    assert np.array_equal(run_stack(back, weights, xs)[0], run_stack(stack, params, xs)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtypes_stay(dtype: Any) -> None:
    stack = Stack(sizes=(4, 2))
    params = drawn(stack, dtype=dtype)
    assert_same(from_flax(to_flax(stack, params))[1], params)


# Refusals

REFUSED = NOBODY_ELSE_HAS | {
    "activation": (
        Stack(sizes=4, gates=Variant(output=activations.relu)),
        "output: .*one activation_fn.*tanh and relu",
    ),
    "offset": (Stack(sizes=4, gates=Variant(forget_offset=1.0)), "forget_offset: .*Flax"),
    "projection": (PROJECTED, "output_sizes: .*h is as wide as c.* got 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_flax_cannot_represent_is_refused(case: str) -> None:
    stack, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        to_flax(stack, drawn(stack))


def test_what_is_random_in_training_only_is_not() -> None:
    gates = Variant(recurrent_dropout=0.1, state_dropout=0.2)
    stack = Stack(sizes=(4, 4), dropout=0.3, gates=gates)
    params, xs = drawn(stack), inputs()
    back, weights = from_flax(to_flax(stack, params))
    assert back == Stack(sizes=(4, 4), gates=PLAIN)
    ours = run_stack(stack.without_noise(), params, xs)[0]
    assert_agree(run_stack(back, weights, xs)[0], ours)


def usual() -> Any:
    return to_flax(Stack(sizes=(4, 5)), drawn(Stack(sizes=(4, 5))))["params"]


def test_trees_that_do_not_fit_are_refused() -> None:
    tree = usual()
    first = tree["layers_0"]["cell"]
    for change, error, match in (
        ({"hi": {"kernel": first["hi"]["kernel"]}}, ValueError, "cell/hi: expected a bias"),
        ({"ii": first["hi"]}, ValueError, "cell/ii: expected a kernel and no bias"),
        ({"ii": {"kernel": np.zeros((3, 5))}}, ValueError, r"got \[3, 5\]|got \[3, 4\]"),
        ({"ii": {"kernel": np.zeros((9, 3, 4))}}, ValueError, r"\[input, hidden\], got \[9, 3, 4"),
        ({"ii": {"kernel": np.zeros((3, 4), int)}}, TypeError, "expected a floating-point dtype"),
        ({"ii": {"kernel": np.zeros((3, 4), np.float32)}}, TypeError, "expected dtype float32"),
        ({"ii": {"kernel": [1.0]}}, TypeError, "cell/ii/kernel: expected an array, got list"),
    ):
        with pytest.raises(error, match=match):
            from_flax({"layers_0": {"cell": first | change}})
    with pytest.raises(ValueError, match="layer 1: expected 5 inputs"):
        from_flax({"layers_0": tree["layers_1"], "layers_1": tree["layers_0"]})
    with pytest.raises(ValueError, match=r"got none, and weights at 'Dense_0'$"):
        from_flax({"Dense_0": {"kernel": np.zeros((3, 4))}})
    gru = linen.GRUCell(4).init(jax.random.key(0), *np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="got none, and weights at 'params/hn', 'params/hr', "):
        from_flax(gru)
    with pytest.raises(ValueError, match="expected a forward direction beside it"):
        from_flax({"backward_rnn": tree["layers_0"]})
    with pytest.raises(TypeError, match="tree: expected a tree of Flax, got list"):
        from_flax([tree])
    with pytest.raises(ValueError, match=r"like: expected \[3, 7\] at layers_0/cell/ii/kernel"):
        to_flax(Stack(sizes=(7, 5)), drawn(Stack(sizes=(7, 5))), tree)
    deep: Any = tree
    for _ in range(2000):
        deep = {"x": deep}
    with pytest.raises(ValueError, match="at most 64 deep"):
        from_flax(deep)


LEAVES = st.sampled_from(
    [
        np.zeros(4),
        np.zeros((3, 4)),
        np.zeros((4, 4)),
        np.zeros((), int),
        np.zeros((0, 4)),
        None,
        1.0,
    ]
)
PARTS = st.dictionaries(st.sampled_from(["kernel", "bias", "x"]), LEAVES)
NAMES = ["ii", "if", "ig", "io", "hi", "hf", "hg", "ho", "dense_i", "dense_h", "if_"]
CELL = st.dictionaries(st.sampled_from(NAMES), PARTS | LEAVES)


WAYS = st.sampled_from(["forward_rnn", "backward_rnn"])
TREES = st.recursive(CELL, lambda below: st.dictionaries(WAYS, below))


@given(CELL, st.dictionaries(st.text(max_size=3) | st.integers(), TREES, max_size=3))
def test_any_tree_is_taken_or_refused(changes: Any, more: Any) -> None:
    cell = usual()["layers_0"]["cell"] | changes
    for tree in (cell, {"a": {"backward_rnn": cell}, **more}, {"a": {"forward_rnn": cell}} | more):
        try:
            from_flax(tree)
        except (TypeError, ValueError):
            continue
