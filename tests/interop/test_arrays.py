"""What all of ``interop`` asks of a stack and its weights, whatever the framework."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from interop_witness import INPUT, PROJECTED, assert_same, drawn

from jlstm import Stack, Variant
from jlstm.interop.arrays import apart, check_order, join_gates, split_gates, together
from jlstm.interop.equinox import to_equinox
from jlstm.interop.flax import to_flax
from jlstm.interop.haiku import to_haiku
from jlstm.interop.keras import to_keras
from jlstm.interop.torch import to_torch

ALL = (to_equinox, to_flax, to_haiku, to_keras, to_torch)


@pytest.mark.parametrize("to", ALL)
def test_weights_that_are_not_those_of_the_stack_are_refused(to: Any) -> None:
    stack, other = Stack(sizes=(4, 4)), Stack(sizes=(4, 4), bidirectional=True)
    params = drawn(stack)
    for own, weights, error, match in (
        (Stack(sizes=(4, 5)), params, ValueError, r"params\[1\]\.forward: expected 5 units"),
        (stack, params[:1], ValueError, "params: expected one for each of 2 layers, got 1"),
        (stack, (params[0], *drawn(Stack(sizes=4))), ValueError, r"params\[1\].* 4 inputs.* got 3"),
        (stack, drawn(other), ValueError, r"params\[0\]\.backward: expected None"),
        (other, params, ValueError, r"params\[0\]\.backward: expected weights"),
        (stack, params[0], TypeError, "params: expected a tuple of LayerParams"),
        ("stack", params, TypeError, "stack: expected Stack, got str"),
    ):
        with pytest.raises(error, match=match):
            to(own, weights)


def test_there_and_back() -> None:
    for stack in (
        Stack(sizes=(4, 5)),
        Stack(sizes=(4, 5), bidirectional=True),
        replace(PROJECTED, bidirectional=True),
    ):
        params = drawn(stack)
        back, weights = together(apart("x", stack, params, projection=True))
        assert back == stack
        assert_same(weights, params)


def test_layers_that_do_not_fit_together_are_refused() -> None:
    both = Stack(sizes=4, bidirectional=True)
    (forward, backward), (wider, _) = (
        apart("x", stack, drawn(stack))[0] for stack in (both, Stack(sizes=5, bidirectional=True))
    )
    for layers, match in (
        ([[forward, wider]], "layer 0: expected directions of equal sizes.* units .4, 5."),
        ([[forward, backward, forward]], "layer 0: expected 3 directions|got 3"),
        ([[forward], [forward]], "layer 1: expected 4 inputs.* got 3"),
        ([], "layers: expected at least one"),
    ):
        with pytest.raises(ValueError, match=match):
            together(layers)
    short = jax.tree.map(lambda w: w.astype(np.float32), forward.weights)
    with pytest.raises(TypeError, match=r"layer 0, backward\.w_ih: expected dtype float64, as"):
        together([[forward, backward._replace(weights=short)]])


@pytest.mark.parametrize("to", ALL)
def test_an_epsilon_that_nothing_sees_is_no_option(to: Any) -> None:
    stack, plain = Stack(sizes=4, gates=Variant(epsilon=0.5)), Stack(sizes=4, gates=Variant())
    assert_same(to(stack, drawn(stack)), to(plain, drawn(plain)))


def test_gates_in_any_order() -> None:
    w = np.random.default_rng(0).standard_normal((INPUT, 12))
    found = split_gates(w, "oig")
    assert_same(found, np.stack([w[:, 4:8], w[:, 8:], w[:, :4]], axis=1))  # i, g, o
    assert_same(join_gates(found, "oig"), w)


def test_names_tell_an_order_if_they_differ_by_numbers_alone() -> None:
    for names in (["lstm", "lstm_1"], ["a/0/cell", "a/10/cell"], ["x"], []):
        check_order(names)
    for names in (["encoder", "decoder"], ["lstm", "lstm_1", "rnn"], ["a/lstm", "b/lstm"]):
        with pytest.raises(ValueError, match=r"layers: expected them.* do not tell the order"):
            check_order(names)
