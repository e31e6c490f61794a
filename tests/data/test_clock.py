"""Times counted in steps and cycles: found, told, and read back."""

import numpy as np
import pytest
from hourly import HOUR, hours

from jlstm.data.clock import (
    Step,
    calendar_features,
    default_season,
    find_step,
    parse_time,
    show_time,
    show_times,
)


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
    ],
)
def test_steps(step, said, times):
    when = at(*times)
    assert find_step([when]) == step
    assert str(step) == said
    np.testing.assert_array_equal(step.times(when[0], np.arange(len(when))), when)
    np.testing.assert_array_equal(step.counts(when[0], when), np.arange(len(when)))


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
