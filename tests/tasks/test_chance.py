"""What chance may do: by hand, and in as many trials as the interval says."""

import numpy as np
import pytest

from jlstm.tasks.chance import Difference, paired_difference


def test_by_hand():
    # 1 and 3 errors more of 4 and 4: D = 1/2, the rests are −1 and 1.
    found = paired_difference("b", np.array([1.0, 3.0]), np.array([4.0, 4.0]))
    assert (found.baseline, found.mean) == ("b", 0.5)
    assert found.margin == pytest.approx(12.706 * np.sqrt(2 / 64 * 2), rel=1e-3)
    assert not found.beyond_chance
    # Neighbours that err together tell less, and those that do not are not held against it.
    above, known = np.array([1.0, 1.0, -1.0, -1.0]), np.ones(4)
    apart = paired_difference("b", above, known).margin
    assert paired_difference("b", above, known, np.array([1, 1, 1], bool)).margin > apart
    assert paired_difference("b", above, known, np.array([0, 1, 0], bool)).margin == apart


def test_what_is_beyond_chance():
    assert Difference("b", -0.3, 0.2).beyond_chance
    assert not Difference("b", 0.2, 0.3).beyond_chance


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_an_interval_holds_the_truth_19_times_in_20(shift):
    draw = np.random.default_rng(0)
    known = draw.integers(1, 5, 25)
    held = 0
    for _ in range(2000):
        above = known * (shift + draw.normal(size=25))
        found = paired_difference("b", above, known)
        held += abs(found.mean - shift) <= found.margin
    assert held / 2000 == pytest.approx(0.95, abs=0.02)
