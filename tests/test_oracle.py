"""The NumPy oracle, confirmed by finite differences and by what its masks and direction mean.

Everything else is measured against the oracle, so nothing here leans on the library: its
gradients are checked against differences of its own forward pass, its forward pass against one
step worked out in scalars, and its masks against the same sequences cut, split and flipped by hand.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
from witness import Array, Problem, assert_agree, random_problem, relative_error, run_oracle

# Central differences with step s err by s²/6 · f''' (1e-11 here) and by rounding, about
# 1e-16 · |f| / s with |f| ≈ 10 (2e-10), more where a leaf's gradient is small beside f. Measured
# over all cases below: at most 2.3e-9.
STEP = 6e-6
TOLERANCE = 1e-8
# A misprint must miss by a million times that. Measured: at least 6.9e-2.
MARGIN = 1e-2
# The same arithmetic in another order of operations: a few float64 roundings.
ROUNDING = 1e-13


def run_forward(p: Problem) -> oracle.Forward:
    """The oracle's forward pass on a problem."""
    masks: dict[str, Any] = {name: getattr(p, name) for name in Problem._fields[-4:]}
    return oracle.forward(p.w_ih, p.w_hh, p.b, p.h0, p.c0, p.xs, **masks)


def differences(of: Callable[[Array], float], at: Array) -> Array:
    """Central finite differences of a scalar function in every entry of its argument."""
    slopes = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = STEP
        slopes[index] = (of(at + step) - of(at - step)) / (2 * STEP)
    return slopes


def finite_difference_gradients(p: Problem) -> dict[str, Array]:
    """The gradient of ⟨dhs, hs⟩ + ⟨dh, h⟩ + ⟨dc, c⟩ in every leaf, by finite differences."""

    def projection(p: Problem) -> float:
        out = run_forward(p)
        return float((p.dhs * out.hs).sum() + (p.dh * out.h).sum() + (p.dc * out.c).sum())

    leaves = {name: getattr(p, name) for name in ("w_ih", "w_hh", "b", "h0", "c0", "xs")}
    gradients = {
        f"d{name}": differences(lambda a, name=name: projection(p._replace(**{name: a})), leaf)
        for name, leaf in leaves.items()
        if leaf is not None
    }
    if p.reset_to is not None:
        h, c = p.reset_to
        gradients["dreset_h"] = differences(lambda a: projection(p._replace(reset_to=(a, c))), h)
        gradients["dreset_c"] = differences(lambda a: projection(p._replace(reset_to=(h, a))), c)
    return gradients


def gradients_of(answer: dict[str, Array]) -> dict[str, Array]:
    """The gradients of an answer, without its results."""
    return {name: leaf for name, leaf in answer.items() if name not in ("hs", "h", "c")}


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "no batch axis": {"batch": ()},
    "no batch axis, all masks": {"batch": (), "lengths": True, "resets": True, "reset_to": True},
    "two batch axes": {"batch": (3, 4), "time": 6},
    "lengths": {"batch": (4,), "lengths": True},
    "resets to zeros": {"resets": True},
    "resets to a carry": {"resets": True, "reset_to": True},
    "reset_to never used": {"reset_to": True},
    "reverse": {"reverse": True},
    "reverse, lengths": {"batch": (4,), "lengths": True, "reverse": True},
    "reverse, resets": {"resets": True, "reset_to": True, "reverse": True},
    "everything": {
        "batch": (4, 1),
        "bias": False,
        "lengths": True,
        "resets": True,
        "reset_to": True,
        "reverse": True,
    },
    "one hidden unit": {"hidden_size": 1},
    "no time": {"time": 0, "lengths": True, "resets": True, "reset_to": True},
    "empty batch": {"batch": (0,), "lengths": True, "resets": True, "reset_to": True},
}


@pytest.mark.parametrize("case", CASES)
def test_the_backward_pass_is_the_derivative_of_the_forward_pass(case: str) -> None:
    """Finite differences confirm every leaf, under cotangents on hs, h and c at once."""
    problem = random_problem(1, **CASES[case])
    assert_agree(gradients_of(run_oracle(problem)), finite_difference_gradients(problem), TOLERANCE)


def test_the_random_lengths_and_resets_reach_the_corners() -> None:
    """Lengths 0 and time both occur, and resets at the first step, inside, and at padding."""
    problem = random_problem(1, batch=(4,), lengths=True, resets=True)
    padded = np.arange(7)[:, None] >= problem.lengths
    assert {0, 7} < set(problem.lengths.tolist())
    assert problem.resets[padded].any()
    assert problem.resets[~padded].any()
    assert problem.resets[0].any()


EVERY_LEAF = {"dw_ih", "dw_hh", "db", "dh0", "dc0", "dxs"}
ERRATA = {
    "tanh-derivative-without-its-square": EVERY_LEAF,
    "i-derivative-with-a-preactivation": EVERY_LEAF,
    "f-derivative-with-its-preactivation": EVERY_LEAF,
    "o-derivative-with-delta": EVERY_LEAF,
    "W_a-and-U_a-not-updated": {"dw_ih", "dw_hh"},
    "no-bias-gradient": {"db"},
    "no-dx": {"dxs"},
    "no-dh-of-the-step-before": EVERY_LEAF,
}
"""Each misprint of the notes' backward pass, with the leaves whose gradient it spoils."""


@pytest.fixture(scope="module")
def erratum_problem() -> tuple[Problem, dict[str, Array]]:
    """A plain problem and its gradients by finite differences.

    It is short: with δ for o the backward pass is quadratic in its own result, and explodes.
    """
    problem = random_problem(2, time=4)
    return problem, finite_difference_gradients(problem)


@pytest.mark.parametrize("misprint", ERRATA)
def test_erratum_of_the_notes(misprint: str, erratum_problem: tuple[Problem, dict]) -> None:
    """As printed, the leaves named miss by a million tolerances; all others, and the same
    equations as corrected, agree.
    """
    problem, expected = erratum_problem
    printed, corrected = run_oracle(problem, misprint=misprint), run_oracle(problem)
    for leaf in EVERY_LEAF:
        assert relative_error(corrected[leaf], expected[leaf]) < TOLERANCE
        error = relative_error(printed[leaf], expected[leaf])
        assert error > MARGIN if leaf in ERRATA[misprint] else error < TOLERANCE, (leaf, error)


def test_every_misprint_is_an_erratum_tested_here() -> None:
    """The oracle's list and the table above are the same, and no other name is taken."""
    assert tuple(ERRATA) == oracle.MISPRINTS
    with pytest.raises(ValueError, match="misprint must be None or one of"):
        run_oracle(random_problem(), misprint="none of these")


@pytest.mark.parametrize("z", [-40.0, -20.0, 20.0])
def test_erratum_tanh_saturates_as_the_logistic_function_does(z: float) -> None:
    """The notes say that tanh does not saturate; yet tanh(z) = 2σ(2z) − 1, and its slope dies."""
    assert math.tanh(z) == pytest.approx(2 * float(oracle.sigmoid(np.array(2 * z))) - 1)
    assert 1 - math.tanh(z) ** 2 < 1e-15


def test_one_step_by_hand() -> None:
    """Equations 1 to 6 in Python scalars, for one unit, one input, one step."""
    w, u, b = (0.3, -0.5, 0.7, 1.1), (0.2, 0.9, -0.4, -0.8), (0.1, 0.6, -0.2, 0.5)  # i, f, g, o
    x, h, c = 1.3, -0.6, 0.9

    def logistic(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    i = logistic(0.3 * x + 0.2 * h + 0.1)
    f = logistic(-0.5 * x + 0.9 * h + 0.6)
    g = math.tanh(0.7 * x - 0.4 * h - 0.2)
    o = logistic(1.1 * x - 0.8 * h + 0.5)
    c_new = f * c + i * g
    h_new = o * math.tanh(c_new)

    weights = (np.reshape(a, (1, 4, 1)) for a in (w, u))
    out = oracle.forward(*weights, np.reshape(b, (4, 1)), [h], [c], [[x]])
    assert out.c.item() == pytest.approx(c_new, rel=ROUNDING)
    assert out.h.item() == out.hs.item() == pytest.approx(h_new, rel=ROUNDING)


def member(p: Problem, k: int, time: slice) -> Problem:
    """One member of the batch, alone, cut to some of its steps, without masks."""
    return p._replace(
        h0=p.h0[k], c0=p.c0[k], xs=p.xs[time, k], lengths=None, resets=None, reset_to=None
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_cut_each_sequence(reverse: bool) -> None:
    """Each member runs as if cut to its length, outputs zeros after it, and at length 0 returns
    its carry; what stands in the padding, nan included, is never read.
    """
    p = random_problem(3, batch=(4,), lengths=True, reverse=reverse)
    p.xs[np.arange(7)[:, None] >= p.lengths] = np.nan
    out = run_forward(p)
    for k, length in enumerate(p.lengths):
        alone = run_forward(member(p, k, slice(length)))
        np.testing.assert_allclose(out.hs[:length, k], alone.hs, rtol=0, atol=ROUNDING)
        np.testing.assert_array_equal(out.hs[length:, k], 0.0)
        np.testing.assert_allclose(out.h[k], alone.h, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(out.c[k], alone.c, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(out.h[p.lengths == 0], p.h0[p.lengths == 0])
    np.testing.assert_array_equal(out.c[p.lengths == 0], p.c0[p.lengths == 0])
    assert all(np.isfinite(leaf).all() for leaf in run_oracle(p).values())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("to_carry", [False, True])
def test_a_reset_starts_a_new_sequence(reverse: bool, to_carry: bool) -> None:
    """A reset at t splits the sequence just before step t, in the order of the scan, and the
    second part starts at reset_to; another, at a padded step, changes nothing.
    """
    p = random_problem(4, batch=(1,), reset_to=to_carry, reverse=reverse)
    start = (np.zeros((1, 2)),) * 2 if p.reset_to is None else p.reset_to
    length, t = 6, 3
    resets = np.isin(np.arange(7), (t, length))[:, None]
    out = run_forward(p._replace(lengths=np.array([length]), resets=resets))

    first, second = slice(t), slice(t, length)
    if reverse:
        first, second = slice(t + 1, length), slice(t + 1)
    before = run_forward(member(p, 0, first))
    after = run_forward(member(p, 0, second)._replace(h0=start[0][0], c0=start[1][0]))
    np.testing.assert_allclose(out.hs[first, 0], before.hs, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(out.hs[second, 0], after.hs, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(out.h[0], after.h, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(out.c[0], after.c, rtol=0, atol=ROUNDING)


def test_reverse_is_the_flipped_sequence() -> None:
    """Running in reverse is flipping xs, running forward, and flipping hs back; so for dxs."""
    p = random_problem(5, reverse=True)
    flipped = run_oracle(p._replace(xs=p.xs[::-1], dhs=p.dhs[::-1], reverse=False))
    expected = flipped | {"hs": flipped["hs"][::-1], "dxs": flipped["dxs"][::-1]}
    assert_agree(run_oracle(p), expected, ROUNDING)
