"""Tables made into regular series: every row where it belongs, and nothing passed over."""

import numpy as np
import polars as pl
import pytest
from hourly import GROUPED, HOUR, ROLES, hours, table

from jlstm.tasks.table.series import (
    Roles,
    check_missing,
    extend,
    read_static,
    regular,
    told_outliers,
)

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
    series, _ = regular(frame, ROLES, until="2016-07-01 03:00")
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2])
    assert series.notes == ("2 of 5 rows are left out, from 2016-07-01 03:00 on.",)
    with pytest.raises(ValueError, match="until: expected rows before 2016-07-01, got none"):
        regular(frame, ROLES, until="2016-07-01")


def test_rows_that_are_just_numbered_are_told_by_their_numbers():
    frame = table(time=[10, 15, 30], y=[1, 2, 3])
    series, step = regular(frame, ROLES, time_format="steps")
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, NAN, NAN, 3])
    assert series.written(step, np.array([0, 2]), as_text=True) == ["10", "20"]
    (said,) = check_missing(series, ROLES, step, "fill")
    assert said.startswith("Missing: 2 steps of time without a row, the first at 20. ")
    for cells, message in (
        ([10, 15, 15], "row 4: expected a time of its own, got 15, which row 3 has"),
        ([0, 5, 10, 12], "row 5: expected a whole number of steps of 5 after 0, got 12"),
    ):
        with pytest.raises(ValueError, match=message):
            regular(table(time=cells, y=cells), ROLES, time_format="steps")


def test_a_weekend_is_no_gap_and_a_holiday_is_one():
    days = ["07/07/2016", "08/07/2016", "11/07/2016", "13/07/2016"]
    series, step = regular(table(time=days, y=range(4)), ROLES, time_format="%d/%m/%Y")
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, NAN, 3])
    assert str(step) == "1 weekday"
    with pytest.raises(ValueError, match="1 step of time without a row, the first at 2016-07-12"):
        check_missing(series, ROLES, step, "error")
    saturday = table(time=["07/07/2016", "09/07/2016"], y=range(2))
    with pytest.raises(ValueError, match="row 3: expected a whole number of steps of 1 weekday"):
        regular(saturday, ROLES, step=step, time_format="%d/%m/%Y")


def test_a_number_that_makes_the_scale_is_told_with_its_row():
    load = np.sin(np.arange(40.0))
    whole = np.ones(40, bool)
    series, _ = regular(table(time=hours(40), y=load), ROLES)
    assert told_outliers(series, ROLES, whole, "the training part") == ()
    load[17] = -999
    series, _ = regular(table(time=hours(40)[::-1], y=load), ROLES)  # rows as the file has them
    (said,) = told_outliers(series, ROLES, whole, "the training part")
    assert said.startswith("Column 'y', row 19: -999 is far from all others; ")
    assert "in the training part" in said
    # It is the 23rd in order of time.
    assert told_outliers(series, ROLES, np.arange(40) < 22, "the training part") == ()
    assert len(told_outliers(series, ROLES, np.arange(40) >= 22, "what is kept back")) == 1


def test_of_several_series_the_worst_is_told():
    a, b, c = (np.sin(np.arange(40.0)) for _ in range(3))
    a[17], c[3] = -99, -999
    columns = {"g": ["a"] * 40 + ["b"] * 40 + ["c"] * 40, "time": [*hours(40)] * 3}
    series, _ = regular(table(**columns, y=np.r_[a, b, c]), GROUPED)
    (said,) = told_outliers(series, GROUPED, np.ones(120, bool), "the training part")
    assert said.startswith("Column 'y' of c, row 85: -999 is far")
    assert said.endswith("So it is in 1 more series.")


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


# Offsets.


def berlin(local, ahead):
    """Local times with their offsets, in hours."""
    return [f"{t}+0{h}:00" for t, h in zip(local.astype("datetime64[m]"), ahead, strict=True)]


def test_hours_are_counted_evenly_where_the_clocks_change_and_told_by_the_local_ones():
    utc = hours(6, "2021-03-27 22:00")
    ahead = np.array([1, 1, 1, 2, 2, 2])
    local = utc + ahead.astype("timedelta64[h]")
    kept = [0, 1, 2, 5]  # the row of the change is missing
    cells = np.array(berlin(local, ahead))
    series, step = regular(table(time=cells[kept], y=kept), ROLES)
    assert step == HOUR
    np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2, NAN, NAN, 5])
    np.testing.assert_array_equal(series.times(step), utc + np.timedelta64(1, "h"))
    np.testing.assert_array_equal(series.local(step)[kept], local[kept])
    # What the offset was in a row that is missing nobody knows: as in the one before.
    np.testing.assert_array_equal(series.shift, [0, 0, 0, 0, 0, 3_600_000_000])
    assert series.notes == (
        "The offset of the times changes, in row 5 from +01:00 to +02:00. Steps are counted "
        "evenly, at +01:00; the calendar tells the local hours; forecasts have the last offset of "
        "their series.",
    )
    # What follows goes on with the last offset.
    longer = extend(series, np.array([6]), 2)
    following = local[-1] + np.array([1, 2], "timedelta64[h]")
    np.testing.assert_array_equal(longer.local(step)[6:], following)
    rows = np.array([6, 7])
    assert longer.written(step, rows, as_text=True) == berlin(following, [2, 2])
    column = longer.written(step, rows, as_text=False).dt.replace_time_zone(None)
    np.testing.assert_array_equal(column, following - np.timedelta64(2, "h"))
    # And an hour that is there twice is two hours.
    back = berlin(hours(5, "2021-10-31 01:00")[[0, 1, 1, 2]], [2, 2, 1, 1])
    twice, step = regular(table(time=back, y=range(4)), ROLES)
    assert (step, len(twice.values)) == (HOUR, 4)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (np.arange("2021-03-26", "2021-03-31", dtype="datetime64[D]"), "1 day"),
        (np.arange("2021-01", "2021-06", dtype="datetime64[M]"), "1 month"),
    ],
)
def test_days_and_months_are_counted_by_the_local_clock(when, expected):
    ahead = np.where(when < np.datetime64("2021-03-28T02"), 1, 2)
    series, step = regular(table(time=berlin(when, ahead), y=range(5)), ROLES)
    assert str(step) == expected
    assert series.shift is None
    np.testing.assert_array_equal(series.times(step), when.astype("datetime64[us]"))
    assert "Steps are counted by the local clock; " in series.notes[0]
    # The dates of options are local, too.
    cut, _ = regular(table(time=berlin(when, ahead), y=range(5)), ROLES, until=str(when[3]))
    np.testing.assert_array_equal(cut.values[:, 0], [0, 1, 2])
    assert series.written(step, np.array([4]), as_text=True) == berlin(when[-1:], [2])
    # Of a row that is regular on neither clock, the even one tells.
    ahead[-1] = 3
    odd = table(time=[*berlin(when, ahead)[:-1], "2021-07-07 07:07+03:00"], y=range(5))
    with pytest.raises(ValueError, match=r"row \d: expected a whole number of steps"):
        regular(odd, ROLES)


def test_offsets_that_do_not_change_are_told():
    for ahead, said in (("+02:00", "local, with the offset +02:00"), ("Z", "in UTC")):
        frame = table(time=[f"{t}{ahead}" for t in hours(3)], y=range(3))
        series, step = regular(frame, ROLES)
        np.testing.assert_array_equal(series.times(step), hours(3))
        assert series.notes == (f"The times are {said}: so are the hours that the calendar tells.",)
    assert regular(table(time=hours(3), y=range(3)), ROLES)[0].notes == ()


def test_another_table_is_counted_on_the_same_clock():
    winter, step = regular(table(time=[f"{t}+01:00" for t in hours(3)], y=range(3)), ROLES)
    frame = table(time=[f"{t}+02:00" for t in hours(3)], y=range(3))
    summer, _ = regular(frame, ROLES, step=step, like=winter.form)
    np.testing.assert_array_equal(summer.times(step), hours(3) - np.timedelta64(1, "h"))
    np.testing.assert_array_equal(summer.local(step), hours(3))
    local, _ = regular(table(time=hours(3), y=range(3)), ROLES, step=step, like=winter.form)
    np.testing.assert_array_equal(local.times(step), hours(3))


def test_rows_are_left_out_from_a_moment_on_whatever_its_offset():
    frame = table(time=[f"{t}+02:00" for t in hours(5)], y=range(5))
    for until in ("2016-07-01 03:00", "2016-07-01 03:00+02:00", "2016-07-01T01:00Z"):
        series, _ = regular(frame, ROLES, until=until)
        np.testing.assert_array_equal(series.values[:, 0], [0, 1, 2])


def test_series_in_several_zones_have_their_own_hours():
    local = hours(4)
    ahead = {"a": "+02:00", "b": "-03:30"}
    cells = [f"{t}{offset}" for offset in ahead.values() for t in local]
    series, step = regular(table(g=["a"] * 4 + ["b"] * 4, time=cells, y=range(8)), GROUPED)
    assert step == HOUR
    np.testing.assert_array_equal(series.local(step), [*local, *local])
    assert series.notes == (
        "The series have different offsets: +02:00, -03:30. Steps are counted evenly, at +02:00; "
        "the calendar tells the local hours; forecasts have the last offset of their series.",
    )
    longer = extend(series, np.array([4, 8]), 1)
    written = longer.written(step, np.array([4, 9]), as_text=True)
    assert written == [f"{local[-1] + np.timedelta64(1, 'h')}{offset}" for offset in ahead.values()]


def test_the_row_in_which_the_offset_changes_is_told_within_a_series():
    days = np.arange("2021-03-26", "2021-03-31", dtype="datetime64[D]")
    moscow = [f"{day}T00:00+03:00" for day in days]
    cells = [*moscow, *berlin(days, [1, 1, 1, 2, 2])]
    frame = table(g=["a"] * 5 + ["b"] * 5, time=cells, y=range(10))
    series, step = regular(frame, GROUPED)
    assert series.notes[0].startswith(
        "The offset of the times changes, in row 10 from +01:00 to +02:00. Steps are counted by "
        "the local clock; "
    )
    assert series.written(step, np.arange(10), as_text=True) == cells
    # Rows that are left out do not count.
    cut, _ = regular(frame, GROUPED, until="2021-03-28")
    assert cut.notes[-1].startswith("The series have different offsets: +03:00, +01:00. ")
