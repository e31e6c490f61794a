"""What is told of a run, whatever the kind of task."""

import pytest

from jlstm.tasks.job import show_ratio


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(5000.0, "5,000"), (12345, "12,300"), (1.5, "1.5"), (2 / 3, "0.667"), (4e-5, "0.00004")],
)
def test_ratios_have_three_digits_and_no_exponent(ratio, shown):
    assert show_ratio(ratio) == shown
