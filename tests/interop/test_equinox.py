"""Equinox's ``eqx.nn.LSTMCell``, scanned by hand, as its users do."""

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
    random_like,
    run,
    run_stack,
)

from jlstm import Stack, Variant
from jlstm.interop.equinox import CellWeights, from_equinox, to_equinox

eqx: Any = pytest.importorskip("equinox", reason="the extra `oracles` is not installed")


def cell(width: int, size: int, bias: bool = True) -> Any:
    made = eqx.nn.LSTMCell(width, size, use_bias=bias, dtype=jnp.float64, key=jax.random.key(0))
    return random_like(made, seed=10 * width + size)


def scanned(cell: Any, xs: Any) -> Any:
    """One sequence in a batch after another, as the cell takes a single one."""

    def sequence(xs: Any) -> Any:
        def step(carry: Any, x: Any) -> Any:
            carry = cell(x, carry)
            return carry, carry[0]

        zeros = jnp.zeros(cell.hidden_size, xs.dtype)
        return jax.lax.scan(step, (zeros, zeros), xs)[1]

    return jax.vmap(sequence, in_axes=1, out_axes=1)(xs)


def apply(cells: Any, xs: Any) -> Any:
    for one in cells:
        if isinstance(one, tuple):
            xs = jnp.concatenate([scanned(one[0], xs), scanned(one[1], xs[::-1])[::-1]], axis=-1)
        else:
            xs = scanned(one, xs)
    return xs


CASES = {
    "one": ([cell(3, 4)], Stack(sizes=4)),
    "no_bias": ([cell(3, 4, bias=False)], Stack(sizes=4)),
    "stack": ([cell(3, 4), cell(4, 5), cell(5, 2)], Stack(sizes=(4, 5, 2))),
    "both_ways": (
        [(cell(3, 4), cell(3, 4)), (cell(8, 2), cell(8, 2))],
        Stack(sizes=(4, 2), bidirectional=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equinox(case: str) -> None:
    (cells, expected), xs = CASES[case], inputs()
    cells = random_like(cells)
    hs, dcells, dxs = run(apply, cells, xs)
    stack, params = from_equinox(cells)
    assert stack == expected
    assert_agree(run_stack(stack, params, xs), (hs, from_equinox(dcells)[1], dxs))
    for weights, one in zip(
        jax.tree.leaves(to_equinox(stack, params), is_leaf=lambda w: isinstance(w, CellWeights)),
        jax.tree.leaves(cells, is_leaf=lambda c: isinstance(c, eqx.nn.LSTMCell)),
        strict=True,
    ):
        assert_same(tuple(weights), (one.weight_ih, one.weight_hh, one.bias))


def test_a_cell_alone_and_as_a_mapping() -> None:
    one = cell(3, 4)
    stack, params = from_equinox(one)
    assert stack == Stack(sizes=4)
    names = ("weight_ih", "weight_hh", "bias")
    assert_same(from_equinox({name: getattr(one, name) for name in names})[1], params)
    assert_same(from_equinox(to_equinox(stack, params))[1], params)


def test_into_a_cell_of_theirs() -> None:
    stack = Stack(sizes=4)
    params, xs = drawn(stack), inputs()
    (weights,) = to_equinox(stack, params)
    theirs = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell(3, 4), tuple(weights))
    assert_agree(run_stack(stack, params, xs)[0], run(apply, [theirs], xs)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_stay(dtype: Any) -> None:
    stack = Stack(sizes=(4, 2), bidirectional=True)
    params = drawn(stack, dtype=dtype)
    assert_same(from_equinox(to_equinox(stack, params))[1], params)


REFUSED = NOBODY_ELSE_HAS | {
    "offset": (Stack(sizes=4, gates=Variant(forget_offset=1.0)), "forget_offset: .*Equinox"),
    "projection": (PROJECTED, "output_sizes: .*Equinox"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_equinox_cannot_represent_is_refused(case: str) -> None:
    stack, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        to_equinox(stack, drawn(stack))


def test_cells_that_do_not_fit_are_refused() -> None:
    own = to_equinox(Stack(sizes=4), drawn(Stack(sizes=4)))[0]
    for change, error, match in (
        ({"weight_ih": own.weight_ih[:12]}, ValueError, r"weight_ih: expected shape \[16, input\]"),
        ({"weight_hh": own.weight_hh[:12]}, ValueError, r"\[4·hidden, hidden\], got \[12, 4\]"),
        ({"bias": own.bias[:3]}, ValueError, r"cells\[0\].bias: expected shape \[16\], got \[3\]"),
        ({"bias": own.bias.astype(np.float32)}, TypeError, "dtype"),
        ({"weight_ih": None}, TypeError, "weight_ih: expected an array, got NoneType"),
    ):
        with pytest.raises(error, match=match):
            from_equinox([own._replace(**change)])
    gru = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"weight_hh: expected shape \[4·hidden, hidden\]"):
        from_equinox(gru)
    with pytest.raises(ValueError, match="layer 1: expected 4 inputs"):
        from_equinox([own, own])
    with pytest.raises(ValueError, match="layer 1: expected 2 directions"):
        from_equinox([(own, own), own])
    with pytest.raises(ValueError, match="expected at least one"):
        from_equinox([])


VALUES = st.sampled_from(
    [np.zeros((16, 3)), np.zeros((16, 4)), np.zeros(16), np.zeros((0, 0)), np.zeros(()), None, "w"]
)
CELLS = st.dictionaries(st.sampled_from(["weight_ih", "weight_hh", "bias"]), VALUES)


@given(st.recursive(CELLS, lambda below: st.lists(below, max_size=3) | st.tuples(below, below)))
def test_any_cells_are_taken_or_refused(cells: Any) -> None:
    try:
        from_equinox(cells)
    except (TypeError, ValueError):
        return
