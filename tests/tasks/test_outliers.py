"""Outliers: numbers that make the scale are found, and none are where there are none."""

import numpy as np
import pytest

from jlstm.tasks.outliers import Outliers, find_outliers, show_outliers

USUAL = np.random.default_rng(0).normal(50, 3, 400)
RAIN = np.where(np.arange(400) % 10 == 0, np.exp(USUAL / 3 - 16), 0)


@pytest.mark.parametrize(
    "values",
    [
        USUAL,
        np.exp(USUAL / 3),  # skewed, and all of a piece
        RAIN,
        np.repeat([0.0, 1.0], [95, 5]),  # a flag
        np.repeat([0.0, 1.0, 100.0], [90, 5, 5]),
        np.r_[np.zeros(390), 1e6],
        np.full(3, np.nan),
        np.zeros(0),
        np.r_[np.tile(USUAL, 10), 200],  # far, and of little weight
        np.r_[USUAL, np.full(10, 105)],  # 55 from the median, and the middle 90 % within 10
    ],
)
def test_there_are_none(values):
    assert find_outliers(values) is None


@pytest.mark.parametrize("times", [1, 3, 40, 200])
@pytest.mark.parametrize("usual", [USUAL, RAIN, np.arange(400.0) % 6])
def test_a_number_for_a_missing_one_is_found_however_often_it_is_there(usual, times):
    values = np.r_[np.nan, usual, np.full(times, -999.0), np.nan]
    found = find_outliers(values)
    assert (found.farthest, found.at, found.number) == (-999, 401, times)
    np.testing.assert_allclose([found.std, found.without], [np.nanstd(values), usual.std()])


def test_several_kinds_are_found_together():
    found = find_outliers(np.r_[USUAL, -999, 9999, -998])
    assert (found.farthest, found.at, found.number) == (9999, 401, 3)


def test_the_scale_has_to_be_twice_as_large_with_them():
    for far, is_one in ((160, False), (230, True)):
        values = np.r_[np.tile(USUAL, 2), far]
        assert (find_outliers(values) is not None) == is_one
        assert (values.std() > 2 * USUAL.std()) == is_one


def test_what_is_said():
    found = Outliers(-999.0, 3, 1, 27.14, 5.194)
    assert show_outliers(found, "Column 'x', row 5", "the training part") == (
        "Column 'x', row 5: -999 is far from all others; the standard deviation in the training "
        "part is 27.1 with it, 5.19 without. A cell whose value is not known is better left empty."
    )
    said = show_outliers(found._replace(number=3), "Column 'x', row 5", "what is kept back")
    assert said.startswith("Column 'x', row 5: -999 and 2 other numbers are far from all others;")
    assert "in what is kept back is 27.1 with them" in said
