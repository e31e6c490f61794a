"""Times as people write them: read as they are, or refused where they could be read in two ways."""

import re

import numpy as np
import polars as pl
import pytest

from jlstm.tasks import times as reading
from jlstm.tasks.times import check_time_format, order, times, times_and_offsets


def column(*cells):
    return pl.DataFrame({"a": pl.Series(cells, dtype=pl.String)})


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2016-07-01", "2016-07-01T00:00:00"),
        ("2016/7/1", "2016-07-01T00:00:00"),
        ("2016/07/01 13:45", "2016-07-01T13:45:00"),
        ("13.07.2016", "2016-07-13T00:00:00"),
        ("03.07.2016 13:45", "2016-07-03T13:45:00"),
        ("3.7.2016 13:45:10", "2016-07-03T13:45:10"),
        ("2016-07", "2016-07-01T00:00:00"),
        (" 2016-07-01 13:45 ", "2016-07-01T13:45:00"),
        ("2016-07-01T13:45:10", "2016-07-01T13:45:10"),
        ("2016-07-01 13:45:10.25", "2016-07-01T13:45:10.250000"),
        ("2016-07-01 13:45:10.123456789", "2016-07-01T13:45:10.123456"),
        ("2016-07-01T13:45:10Z", "2016-07-01T13:45:10"),
        ("2016-07-01T13:45:10+02:00", "2016-07-01T11:45:10"),
        ("2016-07-01 13:45:10 -0530", "2016-07-01T19:15:10"),
    ],
)
def test_times(text, time):
    found = times(column(text), "a")
    assert found.dtype == "datetime64[us]"
    assert found[0] == np.datetime64(time)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "row 3: expected a time such as .*, got an empty cell"),
        ("yesterday", "row 3: expected a time such as .*, got 'yesterday'"),
        ("03/04/2016", "row 3: expected the year first.*, got '03/04/2016'; --time-format says"),
        ("3.4.16 12:00", r"row 3: expected the year first.*'%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'$"),
        ("01/01/2020 12:00 AM", r"such as '%d/%m/%Y %I:%M %p' or '%m/%d/%Y %I:%M %p'$"),
        ("Mar 4, 2016", r"says how it is written, such as '%b %d, %Y'$"),
        ("Mar 4, 2016 1:02:03", r"such as '%b %d, %Y %H:%M:%S'$"),
        ("2016-02-30", r"row 3: expected a time that there is, got '2016-02-30' \(day"),
        ("2016-02-03 24:00", "row 3: expected a time that there is"),
        ("2016-02/03", "row 3: expected a time such as"),
        ("20160203", "row 3: expected a time such as.*--time-format says what they count: seconds"),
        ("20160203", "; a date is %Y%m%d$"),
        ("2016-02-03 12:00Z", "row 3: expected an offset in each row or in none"),
    ],
)
def test_what_is_no_time_is_named_by_row(bad, message):
    with pytest.raises(ValueError, match=message):
        times(column("2016-07-01", bad), "a")


def test_a_time_that_is_null_is_named_by_row():
    for cells in (pl.Series(["2016-07-01", None]), pl.Series([None], dtype=pl.Date)):
        row = len(cells) + 1
        with pytest.raises(ValueError, match=f"row {row}: expected a time, got an empty cell"):
            times(pl.DataFrame({"a": cells}), "a")


def test_times_of_every_form_in_one_column_are_those_of_each_alone():
    forms = [
        "2016-07-01", "2016/07/02", "2016-7-3", "2016-07", "04.07.2016", "5.7.2016 1:00",
        "2016-07-06T13:45", "2016-07-07 13:45:59", "2016-07-08T13:45:10.25", "0999-01-01",
    ]  # fmt: skip
    zoned = ["2016-07-01 13:45Z", "2016-07-01T13:45:10+02:00", "2016-07-01 13:45:10.5-05:30",
             "2016-07-01 13:45 +0200"]  # fmt: skip
    for cells in (forms, zoned):
        found = times(column(*cells), "a")
        assert found.tolist() == [times(column(cell), "a")[0].item() for cell in cells]
    slow = [reading._time("", cell).replace(tzinfo=None) for cell in forms]
    assert times(column(*forms), "a").tolist() == slow


@pytest.mark.parametrize(
    "bad",
    ["2016-02-30", "31.02.2016", "2016-01-01 12:60", "2016-01-01 23:59:60", "2016-01-01 1:2",
     "0000-01-01", "2016-01-01+02:00", "2016-01-01 12:00+24:00", "01.02.16", "1.2.20166",
     "+2016-01-01", "٢٠١٦-01-01"],
)  # fmt: skip
def test_what_only_looks_like_a_usual_time_is_refused(bad):
    with pytest.raises(ValueError, match="column 'a', row 3: expected "):
        times(column("2016-07-01", bad), "a")


def test_usual_times_are_not_read_one_by_one(monkeypatch):
    monkeypatch.setattr(reading, "_time", None)
    for cell in ("2016-07-01", "2016-07-01 13:45", "2016/07/01T13:45:10Z", "01.07.2016 13:45"):
        assert len(times(column(cell, cell), "a")) == 2


@pytest.mark.parametrize(
    ("pattern", "cell", "time"),
    [
        ("%d/%m/%Y", "03/04/2016", "2016-04-03"),
        ("%m/%d/%Y", "03/04/2016", "2016-03-04"),
        ("%m/%d/%y %I:%M %p", "3/4/16 1:05 PM", "2016-03-04T13:05"),
        ("%b %d, %Y", "Mar 4, 2016", "2016-03-04"),
        ("%Y%m%d", "20160304", "2016-03-04"),
        ("%Y", "2016", "2016-01-01"),
        ("%Y-%m-%d %H:%M:%S.%f", "2016-03-04 05:06:07.25", "2016-03-04T05:06:07.25"),
        ("seconds", "1467380710", "2016-07-01T13:45:10"),
        ("seconds", "1467380710.250001", "2016-07-01T13:45:10.250001"),
        ("milliseconds", " 1467380710250 ", "2016-07-01T13:45:10.250"),
        ("microseconds", "1467380710250001", "2016-07-01T13:45:10.250001"),
        ("nanoseconds", "1467380710250001999", "2016-07-01T13:45:10.250001"),
        ("seconds", "-86400", "1969-12-31"),
        ("seconds", "1e9", "2001-09-09T01:46:40"),
    ],
)
def test_times_in_a_format_that_is_said(pattern, cell, time):
    check_time_format("time_format", pattern)
    frame = column(cell, cell)
    assert times(frame, "a", pattern).tolist() == [np.datetime64(time, "us").item()] * 2
    assert times_and_offsets(frame, "a", pattern)[1] is None


def test_a_pattern_may_have_offsets():
    cells = ("01/07/2016 13:45 +0200", "01/07/2016 13:45 +00:00")
    utc, ahead = times_and_offsets(column(*cells), "a", "%d/%m/%Y %H:%M %z")
    assert [str(time)[11:16] for time in utc] == ["11:45", "13:45"]
    assert ahead.astype("timedelta64[m]").astype(int).tolist() == [120, 0]


@pytest.mark.parametrize(
    ("pattern", "bad", "message"),
    [
        ("%d/%m/%Y", "2016-07-01", "of the --time-format %d/%m/%Y, got '2016-07-01'"),
        ("%d/%m/%Y", "31/02/2016", "got '31/02/2016'"),
        ("%d/%m/%Y", "", "got an empty cell"),
        ("seconds", "soon", "expected seconds since 1970, got 'soon'"),
        ("seconds", "", "expected seconds since 1970, got an empty cell"),
        ("seconds", "1467380710000", "'1467380710000'; there is no such year: --time-format"),
        ("seconds", "nan", "expected seconds since 1970, got 'nan'"),
        ("seconds", "inf", "expected seconds since 1970, got 'inf'"),
        ("steps", "1.5", "expected a whole number, got '1.5'"),
        ("steps", "1e40", "expected a whole number, got '1e40'"),
    ],
)
def test_what_is_not_in_the_format_that_is_said_is_named_by_row(pattern, bad, message):
    good = {"%d/%m/%Y": "01/07/2016"}.get(pattern, "7")
    with pytest.raises(ValueError, match=f"column 'a', row 3: .*{re.escape(message)}"):
        times(column(good, bad), "a", pattern)


def test_numbers_of_parquet_are_times_if_it_is_said_what_they_count():
    frame = pl.DataFrame({"a": [1467380710, 1467380711], "b": [0.5, 1.0]})
    assert str(times(frame, "a", "seconds")[1]) == "2016-07-01T13:45:11.000000"
    assert str(times(frame, "b", "seconds")[0]) == "1970-01-01T00:00:00.500000"
    with pytest.raises(ValueError, match="got Int64; of numbers, --time-format says what they c"):
        times(frame, "a")


@pytest.mark.parametrize("bad", ["%d/%m", "soon", "", "%Q", "%", "minutes"])
def test_a_format_has_a_year_or_is_a_unit(bad):
    with pytest.raises(ValueError, match="time_format: expected a pattern with a year, such as"):
        check_time_format("time_format", bad)


def test_an_order_is_of_numbers_or_of_times():
    np.testing.assert_array_equal(order(column("3", "1.5"), "a"), [3, 1.5])
    assert order(column("2016-07-01", "2016-06-01"), "a").dtype == "datetime64[us]"
    with pytest.raises(ValueError, match="row 3: expected a number, got ''"):
        order(column("1", ""), "a")
    with pytest.raises(ValueError, match="row 3: expected a number, got 'x'"):
        order(column("1", "x"), "a")
    with pytest.raises(ValueError, match="row 3: expected a time"):
        order(column("2016-07-01", "7"), "a")


def test_an_order_of_times_may_have_its_format():
    found = order(column("01/02/2016", "02/01/2016"), "a", "%d/%m/%Y")
    assert found.argsort().tolist() == [1, 0]
    assert order(column("20160102", "20160201"), "a", "%Y%d%m").argsort().tolist() == [1, 0]
    np.testing.assert_array_equal(order(column("2", "1"), "a", "steps"), [2, 1])


def test_offsets_are_read_beside_the_times():
    cells = ("2016-07-01 13:45Z", "2016-07-01T13:45:10+02:00", "2016-07-01 13:45 -0530")
    utc, ahead = times_and_offsets(column(*cells), "a")
    assert ahead.astype("timedelta64[m]").astype(int).tolist() == [0, 120, -330]
    np.testing.assert_array_equal(utc, times(column(*cells), "a"))
    assert times_and_offsets(column("2016-07-01"), "a")[1] is None
    zoned = pl.Series(["2016-07-01 02:00"]).str.to_datetime(time_zone="UTC")
    frame = pl.DataFrame({"a": zoned.dt.convert_time_zone("Asia/Kolkata")})
    assert times_and_offsets(frame, "a")[1] == np.timedelta64(330, "m")
