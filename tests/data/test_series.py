"""Tables made into regular series: every row where it belongs, and nothing passed over."""

import numpy as np
import polars as pl
import pytest
from hourly import GROUPED, HOUR, ROLES, hours, table

from jlstm.data.series import Roles, check_missing, extend, read_static, regular

NAN = np.nan


def test_rows_become_one_for_each_step():
    when = hours(5)
    frame = table(
        g=["b", "a", "b", "a", "b"], time=when[[3, 1, 1, 2, 0]], y=[1, 2, "", 4, 5], x=range(5)
    )
    series, step = regular(frame, Roles("time", ("y",), past=("x",), group=("g",)))
    assert step == HOUR
    assert series.names == ("b", "a")
    assert series.groups == (("b",), ("a",))
    np.testing.assert_array_equal(series.offsets, [0, 4, 6])
    np.testing.assert_array_equal(
        series.values, [[5, 4], [NAN, 2], [NAN, NAN], [1, 0], [2, 1], [4, 3]]
    )
    np.testing.assert_array_equal(series.rows, [6, 4, -1, 2, 3, 5])
    np.testing.assert_array_equal(series.times(step), when[[0, 1, 2, 3, 1, 2]])
    assert series.notes == (
        "The rows of 1 series were not in order of time, and have been sorted.",
    )


def test_until_leaves_out_the_rest():
    frame = table(time=hours(5), y=range(5))
    series, _ = regular(frame, ROLES, until=hours(5)[3])
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2])
    assert series.notes == ("2 of 5 rows are left out, from 2016-07-01 03:00 on.",)
    with pytest.raises(ValueError, match="until: expected rows before 2016-07-01, got none"):
        regular(frame, ROLES, until=hours(1)[0])


@pytest.mark.parametrize(
    ("columns", "roles", "message"),
    [
        (
            {"time": hours(3)[[0, 2, 0]], "y": [1, 2, 3]},
            ROLES,
            "row 4: expected a time of its own, got 2016-07-01, which row 2 has; what tells series",
        ),
        (
            {"g": ["a", "b", "b"], "time": hours(3)[[0, 1, 1]], "y": [1, 2, 3]},
            GROUPED,
            "row 4: expected a time of its own, got 2016-07-01 01:00, which row 3 has for b",
        ),
        (
            {"time": [*hours(3), "2016-07-01 03:20"], "y": range(4)},
            ROLES,
            "row 5: expected a whole number of steps of 1 hour after 2016-07-01, got 2016-07-01 03",
        ),
        (
            {"g": ["a", "", "b"], "time": hours(3), "y": [1, 2, 3]},
            GROUPED,
            "column 'g', row 3: expected the series, got an empty cell",
        ),
        (
            {"time": [*hours(2), "2017-07-01"], "y": range(3)},
            ROLES,
            "column 'time': expected regular times, got 3 rows in 8,761 steps of 1 hour",
        ),
        ({"time": hours(2), "y": [1, "x"]}, ROLES, "column 'y', row 3: expected a number, got 'x'"),
        ({"time": [1, 2], "y": [1, 2]}, ROLES, "column 'time', row 2: expected a time"),
        ({"when": hours(2), "y": [1, 2]}, ROLES, r"time: expected a column .* \(when, y\)"),
        ({"time": hours(2), "z": [1, 2]}, ROLES, "target: expected a column of the table"),
        ({"time": hours(2), "y": [1, 2]}, GROUPED, "group: expected a column of the table"),
    ],
)
def test_what_is_no_series_is_named_by_row(columns, roles, message):
    with pytest.raises(ValueError, match=message):
        regular(table(**columns), roles)


def test_what_is_missing_is_never_passed_over():
    when = hours(6)[[0, 1, 2, 4, 5]]
    roles = Roles("time", ("y",), past=("x",))
    series, step = regular(table(time=when, y=[0, 1, "", 4, 5], x=[0, "na", "", 4, 5]), roles)
    said = (
        "1 step of time without a row, the first at 2016-07-01 03:00; 1 empty cell of column "
        "'y', the first in row 4; 2 empty cells of column 'x', the first in row 3"
    )
    with pytest.raises(ValueError, match=f"missing: expected a value at every step.*{said}; say"):
        check_missing(series, roles, step, "error")
    for missing in ("fill", "interpolate"):
        assert said in check_missing(series, roles, step, missing)[0]
    assert check_missing(series, roles, step, "error", np.arange(6) > 3) == ()
    whole, _ = regular(table(time=hours(3), y=range(3)), ROLES)
    assert check_missing(whole, ROLES, step, "error") == ()


def test_static_columns():
    frame = table(
        g=["a", "a", "b", "c"],
        time=hours(4)[[0, 1, 0, 0]],
        y=range(4),
        size=[1, 1, 2, 3],
        kind=["x", "x", "y", "x"],
    )
    roles = Roles("time", ("y",), static=("size", "kind"), group=("g",))
    series, _ = regular(frame, roles)
    features, names = read_static(frame, roles, series)
    assert names == ["size", "kind=x", "kind=y"]
    third = 1.5**0.5
    np.testing.assert_allclose(features, [[-third, 1, 0], [0, 0, 1], [third, 1, 0]])
    for column, message in (
        ([1, 2, 2, 3], "column 'size', row 3: expected one value for all of a, got '2' after '1'"),
        ([1, 1, "", 3], "column 'size', row 4: expected a value for b, got none"),
        ([1, 1, "NaN", 3], "column 'size', row 4: expected a value for b, got 'NaN', which"),
        (["x", "x", "na", "y"], "column 'size', row 4: expected a value for b, got 'na', which"),
        ([1, 1, 2, "-inf"], "column 'size', row 5: expected a finite number, got '-inf'"),
        ([1e300, 1e300, -1e300, 0], "column 'size': expected values whose standard deviation"),
    ):
        bad = frame.with_columns(pl.Series("size", map(str, column)))
        with pytest.raises(ValueError, match=message):
            read_static(bad, roles, series)
    with pytest.raises(ValueError, match="static: expected several series to tell apart"):
        read_static(frame, Roles("time", ("y",), static=("size",)), regular(frame[:2], ROLES)[0])


def test_series_are_extended_or_cut_to_a_horizon():
    frame = table(g=["a"] * 4 + ["b"] * 3, time=hours(4)[[0, 1, 2, 3, 0, 1, 2]], y=range(7))
    series, _ = regular(frame, GROUPED)
    found = extend(series, np.array([4, 5]), 2)
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, 2, 3, NAN, NAN, 4, 5, 6])
    np.testing.assert_array_equal(found.offsets, [0, 6, 9])
    np.testing.assert_array_equal(found.rows, [2, 3, 4, 5, -1, -1, 6, 7, 8])
