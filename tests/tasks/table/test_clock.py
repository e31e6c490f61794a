"""Times counted in steps and cycles: found, told, read back, and written as they came."""

from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from hourly import HOUR, hours
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks.table.clock import (
    DAY,
    TIME_OF_DAY,
    Step,
    TimeForm,
    calendar_features,
    default_season,
    find_step,
    parse_time,
    read_clocks,
    show_offset,
    show_time,
    show_times,
)
from jlstm.tasks.times import times_and_offsets


def at(*texts):
    return np.array(texts, "datetime64[us]")


@pytest.mark.parametrize(
    ("step", "said", "times"),
    [
        (HOUR, "1 hour", ["2016-07-01T00", "2016-07-01T01", "2016-07-01T02"]),
        (Step(microseconds=900_000_000), "15 minutes", ["2016-07-01T00:00", "2016-07-01T00:15"]),
        (Step(microseconds=7 * 24 * 3600 * 10**6), "7 days", ["2016-07-01", "2016-07-08"]),
        (Step(microseconds=1500), "1500 microseconds", ["2016-07-01", "2016-07-01T00:00:00.0015"]),
        (Step(months=1), "1 month", ["2016-01-01", "2016-02-01", "2016-03-01"]),
        (Step(months=3), "3 months", ["2016-02-15T06", "2016-05-15T06"]),
        (Step(months=12), "1 year", ["2015-07-01", "2016-07-01", "2017-07-01"]),
        (Step(months=1, at_end=True), "1 month", ["2016-01-31", "2016-02-29", "2016-03-31"]),
        (Step(months=3, at_end=True), "3 months", ["2016-03-31T17", "2016-06-30T17"]),
        (Step(microseconds=DAY, weekdays=True), "1 weekday",
         ["2016-07-06T17", "2016-07-07T17", "2016-07-08T17", "2016-07-11T17", "2016-07-12T17"]),
        (Step(months=1, weekdays=True), "1 month", ["2016-04-01", "2016-05-02", "2016-06-01"]),
        (Step(months=1, weekdays=True, at_end=True), "1 month",
         ["2016-04-29T09", "2016-05-31T09", "2016-06-30T09", "2016-07-29T09"]),
    ],
)  # fmt: skip
def test_steps(step, said, times):
    when = at(*times)
    assert find_step([when]) == step
    assert str(step) == said
    np.testing.assert_array_equal(step.times(when[0], np.arange(len(when))), when)
    np.testing.assert_array_equal(step.counts(when[0], when), np.arange(len(when)))


def test_numbers_of_rows_are_told_as_numbers():
    numbers = np.array([-5, 0, 5, 15]).astype("datetime64[us]")
    step = find_step([numbers], numbered=True)
    assert (step, str(step)) == (Step(microseconds=5, numbered=True), "5")
    np.testing.assert_array_equal(step.counts(numbers[0], numbers), [0, 1, 2, 4])
    assert show_times(*numbers, form=TimeForm(pattern="steps")) == ("-5", "0", "5", "15")
    assert default_season(step) == 1


def test_weekdays_are_seen_where_a_weekend_is_passed_over():
    friday = np.datetime64("2016-07-08", "us")
    one_day, three = np.timedelta64(1, "D"), np.timedelta64(3, "D")
    within = friday - np.arange(5)[::-1] * one_day
    assert find_step([within]) == Step(microseconds=DAY)  # a week has not told yet
    assert find_step([within, within + 7 * one_day]) == Step(microseconds=DAY)
    beyond = np.append(within, friday + three)
    assert find_step([within, beyond]) == Step(microseconds=DAY, weekdays=True)
    holiday = np.delete(beyond, 2)
    assert find_step([holiday]) == Step(microseconds=DAY, weekdays=True)
    assert find_step([np.append(beyond, friday + one_day * 8)]) == Step(microseconds=DAY)


@given(st.integers(0, 40_000), st.integers(-300, 300), st.booleans())
def test_weekdays_are_counted_as_they_are_made(day, count, at_end):
    start = np.busday_offset(np.datetime64(day, "D"), 0, roll="forward").astype("datetime64[us]")
    start += np.timedelta64(9, "h")
    daily = Step(microseconds=DAY, weekdays=True)
    found = daily.times(start, np.array([count]))
    assert daily.counts(start, found) == [count]
    assert np.is_busday(found.astype("datetime64[D]")).all()
    monthly = Step(months=2, weekdays=True, at_end=at_end)
    (found,) = monthly.times(start, np.array([count]))
    assert monthly.counts(start, np.array([found])) == [count]
    month, one = found.astype("datetime64[M]"), np.timedelta64(1, "D")
    beyond = found.astype("datetime64[D]") + (one if at_end else -one)
    while beyond.astype("datetime64[M]") == month:  # nothing but a weekend is left of it
        assert not np.is_busday(beyond)
        beyond += one if at_end else -one


def test_the_step_is_the_most_frequent_one():
    when = hours(9)[[0, 1, 4, 5, 6, 8]]
    assert find_step([when, hours(2, "2020-01-01")]) == HOUR
    with pytest.raises(ValueError, match="time: expected at least two rows of a series, got one"):
        find_step([hours(1), hours(1)])


@pytest.mark.parametrize(
    ("step", "season"),
    [
        (Step(microseconds=10**6), 3600),
        (Step(microseconds=60 * 10**6), 1440),
        (Step(microseconds=900 * 10**6), 96),
        (HOUR, 24),
        (Step(microseconds=12 * 3600 * 10**6), 2),
        (Step(microseconds=24 * 3600 * 10**6), 7),
        (Step(microseconds=7 * 24 * 3600 * 10**6), 52),
        (Step(months=1), 12),
        (Step(months=3), 4),
        (Step(months=12), 1),
        (Step(microseconds=7 * 10**6), 1),
        (Step(microseconds=1000), 1),
        (Step(microseconds=DAY, weekdays=True), 5),
        (Step(months=1, weekdays=True), 12),
    ],
)
def test_seasons(step, season):
    assert default_season(step) == season


def test_times_are_told_as_short_as_can_be():
    shown = [show_time(t) for t in at("2016-07-01", "2016-07-01T13:00", "2016-07-01T00:00:07")]
    assert shown == ["2016-07-01", "2016-07-01 13:00", "2016-07-01 00:00:07"]
    assert show_times(*at("2016-07-01", "2016-07-01T13")) == (
        "2016-07-01 00:00",
        "2016-07-01 13:00",
    )
    assert show_times(*at("2016-07-01", "2016-07-02")) == ("2016-07-01", "2016-07-02")
    assert parse_time("until", "2016-07-01 13:00") == np.datetime64("2016-07-01T13")
    with pytest.raises(ValueError, match="until: expected a date such as 2016-07-01, got 'soon'"):
        parse_time("until", "soon")


def test_the_calendar_by_hand():
    found = calendar_features(at("2016-07-04", "2016-07-07T06"), ("day", "week"))  # a Monday
    angle = 2 * np.pi * 3.25 / 7
    np.testing.assert_allclose(
        found, [[0, 1, 0, 1], [1, 0, np.sin(angle), np.cos(angle)]], atol=1e-6
    )
    year = calendar_features(at("2016-01-01", "2016-07-01T15"), ("year",))
    np.testing.assert_allclose(year, [[0, 1], [0, -1]], atol=0.02)
    assert calendar_features(at("2016-01-01"), ()).shape == (1, 0)


# Forms.


def column(*cells):
    return pl.DataFrame({"t": cells})


@pytest.mark.parametrize(
    ("cells", "later", "written"),
    [
        (["2016-06-30", "2016-07-01"], "2016-07-02", "2016-07-02"),
        (["2016/06/30", "2016/07/01"], "2016-07-02", "2016/07/02"),
        (["2016/6/30", "2016/7/1"], "2016-12-02", "2016/12/2"),
        (["30.06.2016", "01.07.2016"], "2016-07-02", "02.07.2016"),
        (["30.6.2016 0:00", "1.7.2016 0:00"], "2016-07-02T00", "2.7.2016 0:00"),
        (["2016-06", "2016-07"], "2016-08-01", "2016-08"),
        (["2016/6", "2016/7"], "2016-08-01", "2016/8"),
        (["2016-07-01", "2016-07-01 01:00"], "2016-07-02", "2016-07-02 00:00"),
        (["2016-07-01 00:00", "2016-07-01 01:00:30"], "2016-07-02", "2016-07-02 00:00:00"),
        (["2016-07-01T01:00", "2016-07-01T02:00"], "2016-07-02", "2016-07-02T00:00"),
        (["01.07.2016T01:00", "01.07.2016T02:00"], "2016-07-02", "02.07.2016T00:00"),
        (["2016-07-01 00:00:00.0", "2016-07-01 00:00:00.25"], "2016-07-02",
         "2016-07-02 00:00:00.00"),
        (["2016-07-01 00:00:00,5"], "2016-07-02", "2016-07-02 00:00:00,0"),
        (["2016-07-01T00:00Z", "2016-07-01T01:00Z"], "2016-07-02", "2016-07-02T00:00Z"),
        (["2016-07-01T00:00:00+02:00"], "2016-07-02", "2016-07-02T00:00:00+02:00"),
        (["2016-07-01 00:00 -0530"], "2016-07-02", "2016-07-02 00:00 -0530"),
        # The latest row, which need not be the last in the file, says in which form.
        (["01.07.2016", "2016-06-30"], "2016-07-02", "02.07.2016"),
        # The form has no room for what is to be written.
        (["2016-07-01", "2016-07-02"], "2016-07-03T12:30", "2016-07-03 12:30:00"),
        (["2016-07", "2016-08"], "2016-09-15", "2016-09-15 00:00:00"),
        (["2016-07-01 00:00"], "2016-07-03T12:30:01.5", "2016-07-03 12:30:01.500000"),
        (["2016-07-01 00:00+02"], "2016-07-03T12:30:01", "2016-07-03 12:30:01+02:00"),
    ],
)  # fmt: skip
def test_times_are_written_in_the_form_that_came_in(cells, later, written):
    (clock,) = read_clocks(column(*cells), "t")
    assert clock.form.write(at(later)) == [written]


@pytest.mark.parametrize(
    ("pattern", "cells", "later", "written"),
    [
        ("%d/%m/%Y", ["30/06/2016", "01/07/2016"], "2016-07-02", "02/07/2016"),
        ("%m/%d/%y %I:%M %p", ["06/30/16 11:00 PM"], "2016-07-02T13", "07/02/16 01:00 PM"),
        ("%d.%m.%Y %z", ["30.06.2016 +0200"], "2016-07-02", "02.07.2016 +0200"),
        ("seconds", ["1467324000", "1467324000.5"], "2016-07-02", "1467417600"),
        ("seconds", ["1467324000"], "2016-07-02T00:00:00.25", "1467417600.25"),
        ("milliseconds", ["1467324000000"], "2016-07-02", "1467417600000"),
        ("nanoseconds", ["1467324000000000000"], "2016-07-02", "1467417600000000000"),
        ("steps", ["7", "8"], "1970-01-01T00:00:00.000009", "9"),
        # There is no room in the pattern for what is to be written.
        ("%d/%m/%Y", ["30/06/2016"], "2016-07-02T12", "2016-07-02 12:00:00"),
    ],
)
def test_times_are_written_in_the_format_that_was_said(pattern, cells, later, written):
    clock = read_clocks(column(*cells), "t", None, pattern)[0]
    assert clock.form.write(at(later)) == [written]
    assert TimeForm(**asdict(clock.form)) == clock.form  # as a run keeps it


def test_numbers_of_parquet_stay_numbers():
    frame = pl.DataFrame({"t": [1467324000, 1467327600]})
    (clock,) = read_clocks(frame, "t", None, "seconds")
    assert clock.form.column(clock.counted).equals(frame["t"])
    (clock,) = read_clocks(column("01/07/2016"), "t", None, "%d/%m/%Y")
    assert clock.form.column(clock.counted).to_list() == [at("2016-07-01")[0].item().date()]


def test_an_option_says_a_time_in_the_format_of_the_table_or_the_year_first():
    def parsed(pattern, cell, text):
        return parse_time("test", text, read_clocks(column(cell), "t", None, pattern)[0])

    for text in ("02/07/2016", "2016-07-02", "02/07/2016 00:00"):
        pattern, cell = "%d/%m/%Y %H:%M", "01/07/2016 05:00"
        assert parsed(pattern, cell, text) == np.datetime64("2016-07-02")
    for text in ("02/07/2016", "2016-07-02"):
        assert parsed("%d/%m/%Y", "01/07/2016", text) == np.datetime64("2016-07-02")
    assert parsed("seconds", "7", "1467417600") == np.datetime64("2016-07-02")
    assert parsed("steps", "7", "12") == np.datetime64(12, "us")
    with pytest.raises(ValueError, match="test: expected a number of steps, got '2016-07-02'"):
        parsed("steps", "7", "2016-07-02")


UNITS = {"D": "", "m": " {0.hour:02}:{0.minute:02}", "s": TIME_OF_DAY}
UNITS |= {"ms": TIME_OF_DAY + ".{1:.3}", "us": TIME_OF_DAY + ",{1:.6}"}


@given(st.data())
def test_times_written_are_those_that_were_read(data):
    unit = data.draw(st.sampled_from([*UNITS]))
    date = data.draw(st.sampled_from(["Y-M-D", "Y/M/D", "D.M.Y"]))
    for letter, name in (("Y", "year:04"), ("M", "month:02"), ("D", "day:02")):
        date = date.replace(letter, f"{{0.{name}}}")
    text = date + UNITS[unit].replace(" ", data.draw(st.sampled_from("T ")))
    if unit != "D":
        text += data.draw(st.sampled_from(["", "Z", "+00:00", " +0530", "-11", "+02:00"]))
    if data.draw(st.booleans()):
        text = text.replace("month:02", "month").replace("day:02", "day").replace("hour:02", "hour")
    start = np.datetime64("1899-12-30", "us")
    step = st.integers(0, int(at("2100-01-01")[0].astype(f"datetime64[{unit}]").astype(int)))
    steps = np.array(data.draw(st.lists(step, min_size=1, max_size=6)))
    times = start + steps.astype(f"timedelta64[{unit}]")
    cells = [text.format(time, f"{time.microsecond:06}") for time in times.tolist()]
    (clock,) = read_clocks(column(*cells), "t")
    np.testing.assert_array_equal(clock.counted, times)
    assert clock.form.write(clock.counted) == cells
    # Others, whether or not the form has room for them.
    others = times + np.timedelta64(data.draw(st.integers(0, 10**15)), "us")
    back, ahead = times_and_offsets(column(*clock.form.write(others)), "t")
    np.testing.assert_array_equal(back if ahead is None else back + ahead, others)
    as_parquet = times_and_offsets(pl.DataFrame({"t": clock.form.column(clock.counted)}), "t")[0]
    np.testing.assert_array_equal(as_parquet, clock.counted - np.timedelta64(clock.form.base, "us"))


def test_a_column_of_parquet_keeps_its_type():
    days = column(*at("2016-07-01", "2016-07-02").tolist()).cast({"t": pl.Date})
    (clock,) = read_clocks(days, "t")
    assert clock.form.column(at("2016-07-03")).to_list() == [at("2016-07-03")[0].item().date()]
    assert clock.form.write(at("2016-07-03")) == ["2016-07-03"]
    for unit in ("ms", "us", "ns"):
        times = at("2016-07-01T01", "2016-07-01T02")
        frame = column(*times.tolist()).cast({"t": pl.Datetime(unit)})
        for zone, offset in ((None, ""), ("UTC", "+00:00"), ("Asia/Kolkata", "+05:30")):
            zoned = frame.select(pl.col("t").dt.replace_time_zone(zone))
            (clock,) = read_clocks(zoned, "t")
            np.testing.assert_array_equal(clock.counted, times)
            assert clock.form.column(clock.counted).dtype == pl.Datetime(unit, zone)
            assert clock.form.column(clock.counted).equals(zoned["t"])
            assert clock.form.write(clock.counted[:1]) == [f"2016-07-01 01:00:00{offset}"]


# Offsets that change.

CHANGE = at("2021-03-28T01:00")[0]
"""When the clocks of Central Europe went forward, in UTC."""


def berlin(utc):
    """Cells with the offset of Central Europe in winter and summer."""
    ahead = np.where(utc < CHANGE, 1, 2)
    local = utc + ahead.astype("timedelta64[h]")
    return [f"{time}+0{h}:00" for time, h in zip(local.astype("datetime64[m]"), ahead, strict=True)]


def test_where_the_offset_changes_there_are_two_clocks():
    utc = CHANGE + np.arange(-2, 2).astype("timedelta64[h]")
    even, wall = read_clocks(column(*berlin(utc)), "t")
    np.testing.assert_array_equal(even.counted, utc + np.timedelta64(1, "h"))
    assert [str(time)[11:13] for time in even.local] == ["00", "01", "03", "04"]
    np.testing.assert_array_equal(wall.counted, even.local)
    # Both write the last offset, and the same moments at the end of the table.
    for clock in (even, wall):
        following = clock.local[-1:] + np.timedelta64(1, "h")
        assert clock.form.write(following) == ["2021-03-28T05:00+02:00"]
    # Counted as another table is.
    like, _ = read_clocks(column(*berlin(utc)), "t", base=-3_600_000_000)
    np.testing.assert_array_equal(like.counted, utc - np.timedelta64(1, "h"))
    np.testing.assert_array_equal(like.local, even.local)
    assert like.form.write(like.local[-1:]) == ["2021-03-28T04:00+02:00"]


def test_utc_in_the_last_row_is_written_as_an_offset_like_others():
    even, _ = read_clocks(column("2021-10-31 01:00+01:00", "2021-10-31 01:00Z"), "t")
    hour = 3_600_000_000
    written = even.form.write(even.local, np.array([hour, 0]))
    assert written == ["2021-10-31 01:00+01:00", "2021-10-31 01:00+00:00"]


def test_a_zone_of_parquet_knows_the_offset_of_each_time():
    utc = CHANGE + np.array([-24, 0]).astype("timedelta64[h]")
    zoned = pl.Series(utc).dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    even, _ = read_clocks(pl.DataFrame({"t": zoned}), "t")
    october = pl.Series(at("2021-10-31T00", "2021-10-31T01", "2021-10-31T02"))
    hour = np.timedelta64(1, "h")
    found = even.form.column(october.to_numpy() + hour, np.full(3, 3_600_000_000))
    assert found.dt.strftime("%d %H %z").to_list() == ["31 02 +0200", "31 02 +0100", "31 03 +0100"]
    # Days are counted by the local clock: from midnight to midnight.
    midnights = pl.Series(at("2021-03-27", "2021-03-28", "2021-03-29"))
    days = midnights.dt.replace_time_zone("Europe/Berlin")
    _, wall = read_clocks(pl.DataFrame({"t": days}), "t")
    assert wall.form.column(wall.local).equals(days)
    # A time that there is not is taken with the last offset, +02:00.
    assert wall.form.column(at("2021-03-28T02:30")).dt.strftime("%H %z").to_list() == ["01 +0100"]


def test_the_time_of_an_option_is_on_the_clock_of_the_table():
    even, _ = read_clocks(column(*berlin(at("2021-03-27", "2021-03-29"))), "t")
    assert parse_time("test", "2021-03-27T12:00Z", even) == np.datetime64("2021-03-27T13:00")
    assert parse_time("test", "2021-03-27T13:00+02:00", even) == np.datetime64("2021-03-27T12:00")
    local, *_ = read_clocks(column("2021-03-27", "2021-03-28"), "t")
    for clock in (None, local):
        with pytest.raises(ValueError, match=r"test: expected a date without an offset, .*00Z'"):
            parse_time("test", "2021-03-27T12:00Z", clock)


def test_offsets_are_shown():
    minute = 60_000_000
    assert [show_offset(n * minute) for n in (0, 120, -330)] == ["+00:00", "+02:00", "-05:30"]
