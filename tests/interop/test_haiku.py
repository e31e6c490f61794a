"""Haiku's ``hk.LSTM``, and the 1 that it adds to f."""

from dataclasses import replace
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

from jlstm import GATES, PLAIN, LSTMParams, Stack, Variant
from jlstm.interop.haiku import CELL, from_haiku, to_haiku
from jlstm.layers import LayerParams

hk: Any = pytest.importorskip("haiku", reason="the extra `oracles` is not installed")


def one(xs: Any) -> Any:
    return hk.dynamic_unroll(hk.LSTM(4), xs, hk.LSTM(4).initial_state(xs.shape[1]))[0]


def deep(xs: Any) -> Any:
    core = hk.DeepRNN([hk.LSTM(size) for size in (4, 5, 2)])
    return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]


def skipping(xs: Any) -> Any:
    core = hk.deep_rnn_with_skip_connections([hk.LSTM(size) for size in (4, 5, 2)])
    return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]


def eleven(xs: Any) -> Any:
    hk.Linear(3)(xs)
    core = hk.DeepRNN([hk.LSTM(2) for _ in range(11)])
    return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]


def both_ways(xs: Any) -> Any:
    cores = hk.LSTM(4, name="there"), hk.LSTM(4, name="back")
    start = cores[0].initial_state(xs.shape[1])
    hs, back = (
        hk.dynamic_unroll(core, a, start)[0] for core, a in zip(cores, (xs, xs[::-1]), strict=True)
    )
    return jnp.concatenate([hs, back[::-1]], axis=-1)


CASES = {
    "one": (one, Stack(sizes=4, gates=CELL), None),
    "deep": (deep, Stack(sizes=(4, 5, 2), gates=CELL), None),
    "skipping": (skipping, Stack(sizes=(4, 5, 2), gates=CELL, connections="skip"), None),
    "eleven": (eleven, Stack(sizes=(2,) * 11, gates=CELL), None),
    "both_ways": (both_ways, Stack(sizes=4, bidirectional=True, gates=CELL), [("there", "back")]),
}


@pytest.mark.parametrize("case", CASES)
def test_haiku(case: str) -> None:
    forward, expected, layers = CASES[case]
    module, xs = hk.without_apply_rng(hk.transform(forward)), inputs()
    with promoting():
        tree = module.init(jax.random.key(0), xs)
        tree = random_like(jax.tree.map(lambda a: a.astype(np.float64), tree))
        hs, dtree, dxs = run(module.apply, tree, xs)
    stack, params = from_haiku(tree, layers=layers)
    assert stack == expected
    assert_agree(run_stack(stack, params, xs), (hs, from_haiku(dtree, layers=layers)[1], dxs))
    assert_same(to_haiku(stack, params, tree, layers=layers), tree)
    # With the 1 in the bias: the same but for its rounding.
    plain, moved = from_haiku(tree, layers=layers, gates=PLAIN)
    assert plain == replace(expected, gates=[PLAIN] * len(expected.cells))
    ours = run_stack(plain, moved, xs)
    assert_agree((ours[0], ours[2]), (hs, dxs))
    back = to_haiku(plain, moved, tree, layers=layers)
    assert_agree(back, tree)


def test_the_usual_names() -> None:
    stack = Stack(sizes=(4, 5, 2), gates=CELL)
    params, xs = drawn(stack), inputs()
    tree = to_haiku(stack, params)
    assert [*tree] == ["lstm/linear", "lstm_1/linear", "lstm_2/linear"]
    back, weights = from_haiku(tree)
    assert back == stack
    assert_same(weights, params)
    with promoting():
        hs = hk.without_apply_rng(hk.transform(deep)).apply(tree, xs)
    assert_agree(run_stack(stack, params, xs)[0], hs)
    both = Stack(sizes=(4, 2), gates=CELL, bidirectional=True)
    params = drawn(both)
    names = [("lstm", "lstm_1"), ("lstm_2", "lstm_3")]
    back, weights = from_haiku(to_haiku(both, params), layers=names)
    assert back == both
    assert_same(weights, params)


def test_the_offset_is_of_f_alone() -> None:
    stack = Stack(sizes=4)
    params = drawn(stack)
    b = to_haiku(stack, params)["lstm/linear"]["b"].reshape(4, 4)
    moved = b - np.stack([params[0].forward.b[GATES.index(gate)] for gate in "igfo"])
    assert np.allclose(moved, [[0] * 4, [0] * 4, [-1] * 4, [0] * 4], atol=1e-15)
    two = Stack(sizes=4, gates=Variant(forget_offset=2.5))
    b = to_haiku(two, drawn(two))["lstm/linear"]["b"].reshape(4, 4)
    assert np.allclose(b[2] - drawn(two)[0].forward.b[1], 1.5)


def test_no_bias_becomes_zeros() -> None:
    stack = Stack(sizes=4, gates=CELL)
    params, xs = drawn(stack, bias=False), inputs()
    back, weights = from_haiku(to_haiku(stack, params))
    assert not weights[0].forward.b.any()
    assert np.array_equal(run_stack(back, weights, xs)[0], run_stack(stack, params, xs)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_stay(dtype: Any) -> None:
    stack = Stack(sizes=(4, 2), gates=CELL)
    params = drawn(stack, dtype=dtype)
    assert_same(from_haiku(to_haiku(stack, params))[1], params)


REFUSED = NOBODY_ELSE_HAS | {
    "projection": (PROJECTED, "output_sizes: .*Haiku"),
    "skip": (
        Stack(sizes=(4, 4), connections="skip", bidirectional=True),
        "connections: .*got skip",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_haiku_cannot_represent_is_refused(case: str) -> None:
    stack, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        to_haiku(stack, drawn(stack))


def test_parameters_that_do_not_fit_are_refused() -> None:
    stack = Stack(sizes=(4, 5), gates=CELL)
    tree = to_haiku(stack, drawn(stack))
    own = tree["lstm/linear"]
    for change, error, match in (
        (
            {"w": own["w"][:4]},
            ValueError,
            "lstm/linear/w: expected rows for inputs and 4 units, got 4",
        ),
        ({"w": own["w"][:, :12]}, ValueError, r"lstm/linear/w: expected shape \[rows, 16\]"),
        ({"b": own["b"][:3]}, ValueError, r"lstm/linear/b: expected shape \[4·hidden\], got \[3\]"),
        ({"b": own["b"].astype(np.float32)}, TypeError, "dtype"),
        ({"b": None}, TypeError, "lstm/linear/b: expected an array, got NoneType"),
    ):
        with pytest.raises(error, match=match):
            from_haiku({"lstm/linear": own | change})
    with pytest.raises(ValueError, match="layer 1: expected 5 inputs"):
        from_haiku(tree, layers=["lstm_1", "lstm"])
    with pytest.raises(
        ValueError, match="layers: expected modules out of 'lstm', 'lstm_1', got 'x'"
    ):
        from_haiku(tree, layers=["x"])
    with pytest.raises(ValueError, match="params: expected modules named lstm, got 'core/linear'"):
        from_haiku({"core/linear": own})
    assert from_haiku({"core/linear": own}, layers=["core"])[0] == Stack(sizes=4, gates=CELL)
    with pytest.raises(ValueError, match="params: expected modules named lstm, got 'gru'"):
        from_haiku({"gru": {"w_i": own["w"], "w_h": own["w"], "b": own["b"]}})
    with pytest.raises(TypeError, match="params: expected parameters of Haiku, got list"):
        from_haiku([own])
    with pytest.raises(ValueError, match=r"gates: expected Variant.* or PLAIN"):
        from_haiku(tree, gates=Variant())
    other = Stack(sizes=(7, 5))
    with pytest.raises(ValueError, match=r"like: expected \[10, 28\] at lstm/linear/w"):
        to_haiku(other, drawn(other), tree)
    with pytest.raises(ValueError, match="like: expected only w and b at lstm/linear/scale"):
        to_haiku(stack, drawn(stack), tree | {"lstm/linear": own | {"scale": own["b"]}})


def test_names_that_do_not_tell_the_order_are_refused() -> None:
    """By the alphabet, decoder would come first; shapes may fit either way."""
    stack = Stack(sizes=(3, 3), gates=CELL)
    names = ["encoder/lstm", "decoder/lstm"]
    tree = to_haiku(stack, drawn(stack), layers=names)
    with pytest.raises(ValueError, match=r"do not tell the order: 'decoder/lstm', 'encoder/lstm'"):
        from_haiku(tree)
    with pytest.raises(ValueError, match="do not tell the order"):
        to_haiku(stack, drawn(stack), tree)
    assert_same(from_haiku(tree, layers=names)[1], drawn(stack))


LEAVES = st.sampled_from(
    [np.zeros(16), np.zeros((7, 16)), np.zeros((4, 16)), np.zeros(0), np.zeros((0, 0)), None, 1.0]
)
MODULES = st.dictionaries(st.sampled_from(["w", "b", "x"]), LEAVES)


@given(
    st.dictionaries(
        st.sampled_from(["lstm/linear", "lstm_1/linear", "lstm_x/linear", "/linear", 3]), MODULES
    )
)
def test_any_parameters_are_taken_or_refused(tree: Any) -> None:
    for layers in (None, ["lstm"], [("lstm", "lstm_1")], []):
        try:
            _, params = from_haiku(tree, layers=layers)
        except (TypeError, ValueError):
            continue
        assert isinstance(params[0], LayerParams)
        assert not isinstance(params[0].forward, LSTMParams)
