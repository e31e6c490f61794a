"""What is learned from a table before any training: nothing of what comes after it."""

import json

import numpy as np
import pytest
from hourly import GROUPED, HOUR, hours, one, schema_of, table

from jlstm.data.schema import Schema, split_times
from jlstm.data.series import regular
from jlstm.data.windows import find_windows, make_panel


def test_a_split_by_parts_and_by_dates():
    series = one(100)
    when = hours(100)
    assert split_times(series, HOUR, "0.1", "0.2") == (when[70], when[80])
    assert split_times(series, HOUR, "2016-07-02", "0.2") == (when[24], when[80])
    assert split_times(series, HOUR, "0.1", "2016-07-03 02:00") == (when[40], when[50])
    for validation, test, message in (
        (
            "0.5",
            "0.5",
            "validation: expected it to begin after the first row, of 2016-07-01, and before",
        ),
        (
            "2016-07-03",
            "2016-07-02",
            "validation: expected it to begin after .* before the test, 2016-07-02, got 2016",
        ),
        ("0.1", "2017-01-01", "test: expected it to begin after .* got 2017-01-01"),
        ("0.1", "1.5", "test: expected a number between 0 and 1, or a date, got 1.5"),
        ("soon", "0.1", "validation: expected a date such as 2016-07-01, got 'soon'"),
    ):
        with pytest.raises(ValueError, match=message):
            split_times(series, HOUR, validation, test)


def test_the_future_does_not_change_a_scale():
    values = np.random.default_rng(0).normal(size=30)
    changed = np.where(np.arange(30) < 12, values, 1e6)
    (first, _), (second, _) = (schema_of(one(30, v)) for v in (values, changed))
    np.testing.assert_allclose(first.mean, [[values[:12].mean()]])
    np.testing.assert_allclose(first.std, [[values[:12].std()]])
    for name in ("mean", "std", "naive"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_allclose(first.naive, [[np.abs(np.diff(values[:12])).mean()]])


def test_constant_columns_are_told_and_keep_their_scale():
    schema, notes = schema_of(one(30, [0.1] * 12 + [7.0] * 18))
    assert notes == ("Column 'y' is constant in the training part: nothing to learn.",)
    assert schema.std[0, 0] == 1
    assert np.isnan(schema.naive[0, 0])
    assert make_panel(one(30), schema).truth[20, 0] == pytest.approx(19.9)


def test_defaults_of_lookback_season_and_calendar():
    long = one(24 * 24)
    schema, _ = schema_of(
        long, horizon=5, lookback=None, season=None, validation=24 * 20, test=24 * 22
    )
    assert (schema.lookback, schema.season, schema.cycles) == (48, 24, ("day", "week"))
    schema, _ = schema_of(long, horizon=13, lookback=None, validation=24 * 10, test=24 * 11)
    assert (schema.lookback, schema.cycles) == (52, ("day",))
    schema, notes = schema_of(one(60), season=None, validation=48)
    assert schema.season == 1
    assert "too short for a season of 24 steps" in notes[0]
    assert schema_of(long, calendar=False, validation=24 * 20)[0].cycles == ()


def test_a_series_that_begins_later_is_left_out():
    frame = table(
        g=["a"] * 30 + ["b"] * 30, time=[*hours(30), *hours(30, "2016-07-01 12:00")], y=range(60)
    )
    series, _ = regular(frame, GROUPED)
    schema, notes = schema_of(series, GROUPED)
    assert notes == ("Targets without a value in the training part are left out: those of b.",)
    panel = make_panel(series, schema)
    assert (panel.member[find_windows(series, panel, "test").origins] == 0).all()


def test_a_schema_survives_json():
    schema, _ = schema_of(one(30, [0.5] * 12 + [7.0] * 18))
    back = Schema.from_json(json.loads(json.dumps(schema.to_json(), allow_nan=False)))
    for name in Schema.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(schema, name))
        assert type(getattr(back, name)) is type(getattr(schema, name))
