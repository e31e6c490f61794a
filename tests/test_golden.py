"""Golden values of ``torch.nn.LSTM``: the oracle and ``jlstm.lstm`` reproduce all of them.

``golden/make_torch.py`` made them, in float64, and says what each is; no torch is needed here.
"""

import runpy
from pathlib import Path

import numpy as np
import pytest
from witness import Array, Problem, assert_agree, run_jlstm, run_oracle

GOLDEN = Path(__file__).parent / "golden"

# The same equations in another order of summation: the sums have at most a few hundred terms of
# order one, so a few hundred float64 roundings (2e-16 each) at worst. The oracle measures 1.1e-15.
TOLERANCE = 1e-13

CASES = (
    "plain",
    "no_batch_axis",
    "one_hidden_unit",
    "long",
    "no_bias",
    "lengths",
    "reverse",
    "reverse_lengths",
    "reverse_no_bias",
)
RESULTS = ("hs", "h", "c", "dw_ih", "dw_hh", "db", "dh0", "dc0", "dxs")


def load() -> dict[str, Array]:
    """The stored file, all of it, keyed ``case/name``."""
    with np.load(GOLDEN / "torch_lstm.npz", allow_pickle=False) as stored:
        return dict(stored)


def load_case(case: str) -> tuple[Problem, dict[str, Array]]:
    """One case as a problem, with torch's results and gradients."""
    leaves = {
        key.removeprefix(f"{case}/"): array
        for key, array in load().items()
        if key.startswith(f"{case}/")
    }
    expected = {name: leaves.pop(name) for name in RESULTS if name in leaves}
    reverse = bool(leaves.pop("reverse"))
    return Problem(**{"b": None, **leaves}, reverse=reverse), expected


def test_the_file_is_what_the_tests_take_it_for() -> None:
    """The cases tested are those stored, all in float64, and each option occurs."""
    stored = load()
    assert {key.split("/")[0] for key in stored} == set(CASES)
    problems = {case: load_case(case)[0] for case in CASES}
    assert all(problem.xs.dtype == np.float64 for problem in problems.values())
    for name, problem in problems.items():
        assert problem.reverse == ("reverse" in name)
        assert (problem.lengths is not None) == ("lengths" in name)
        assert (problem.b is None) == ("no_bias" in name)


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_agrees_with_torch(case: str) -> None:
    """hs, h, c and every gradient, under cotangents on hs, h and c."""
    problem, expected = load_case(case)
    assert_agree(run_oracle(problem), expected, TOLERANCE)


@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
@pytest.mark.parametrize("case", CASES)
def test_lstm_agrees_with_torch(case: str, derivative: str) -> None:
    """hs, h, c and every gradient, by each of the three derivatives."""
    problem, expected = load_case(case)
    assert_agree(run_jlstm(problem, derivative=derivative), expected, TOLERANCE)


def test_torch_still_gives_the_golden_values() -> None:
    """Where torch is installed, the script gives what is stored, to another machine's rounding."""
    pytest.importorskip("torch")
    generate = runpy.run_path(str(GOLDEN / "make_torch.py"))["generate"]
    assert_agree(generate(), load(), TOLERANCE)
