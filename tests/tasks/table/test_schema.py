"""What is learned from a table before any training: nothing of what comes after it."""

import json
import re

import numpy as np
import pytest
from hourly import GROUPED, HOUR, ROLES, hours, one, schema_of, table

from jlstm.tasks.table.schema import Schema, split_times
from jlstm.tasks.table.series import Roles, regular
from jlstm.tasks.table.windows import find_windows, make_panel


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


def test_a_split_by_dates_is_in_local_time():
    local = hours(60, "2021-03-27")
    ahead = np.where(np.arange(60) < 26, 1, 2)  # the clocks go forward at 02:00 on the 28th
    shown = (local + (ahead - 1).astype("timedelta64[h]")).astype("datetime64[m]")
    cells = [f"{t}+0{h}:00" for t, h in zip(shown, ahead, strict=True)]
    series, _ = regular(table(time=cells, y=range(60)), ROLES)
    validation, test = split_times(series, HOUR, "2021-03-28 03:00", "2021-03-29")
    assert (validation, test) == (local[26], local[47])
    assert split_times(series, HOUR, "2021-03-28 02:30", "2021-03-28T22:00Z") == (validation, test)
    for late in ("2021-03-29 13:00", "2022-01-01"):
        with pytest.raises(ValueError, match="test: expected it to begin after the first row"):
            split_times(series, HOUR, "2021-03-28", late)


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
    roles = Roles("time", ("y",), past=("x",))
    frame = table(time=hours(30), y=range(30), x=[0.1] * 12 + [7.0] * 18)
    series, _ = regular(frame, roles)
    schema, notes = schema_of(series, roles)
    assert notes == ("Column 'x' is constant in the training part: nothing to learn.",)
    assert schema.std[0, 1] == 1
    assert make_panel(series, schema).forward[20, 1] == pytest.approx(6.9)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([5] * 30, "is 5 throughout"),
        ([0.1] * 12 + [7.0] * 18, "is 0.1 throughout"),  # in the training part only
        ([""] * 12 + [*range(18)], "has no value"),
    ],
)
def test_a_target_that_does_not_vary_is_refused(values, what):
    message = (
        "target: expected values that vary in the training part, before 2016-07-01 12:00, got "
        f"column 'y', which {what}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        schema_of(one(30, values))
    schema_of(one(30, ["", 5, *values[2:11], 6, *values[12:]]))  # one other value is enough


def three(values):
    """Series a, b and c of 30 hours."""
    frame = table(g=np.repeat(["a", "b", "c"], 30), time=[*hours(30)] * 3, y=np.concatenate(values))
    return regular(frame, GROUPED)[0]


def test_a_series_whose_target_does_not_vary_is_left_out():
    series = three([range(30), [3] * 12 + [4] * 18, [0] * 30])
    schema, notes = schema_of(series, GROUPED)
    assert notes == ("Column 'y' is constant in the training part of b, c: left out there.",)
    np.testing.assert_array_equal(np.isnan(schema.std[:, 0]), [False, True, True])
    assert schema.has_scale(np.array([1, 0]), np.array([0, 0])).tolist() == [False, True]
    panel = make_panel(series, schema)
    for part in ("training", "validation", "test"):
        assert set(panel.member[find_windows(series, panel, part).origins]) == {0}
    with pytest.raises(ValueError, match=r"got column 'y', which does not vary in any of a, b, c$"):
        schema_of(three([[1] * 30, [2] * 30, [3] * 30]), GROUPED)


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
    assert notes == ("Column 'y' has no value in the training part of b: left out there.",)
    panel = make_panel(series, schema)
    assert (panel.member[find_windows(series, panel, "test").origins] == 0).all()


def test_a_schema_survives_json():
    schema, _ = schema_of(three([range(30), [0.5] * 12 + [7.0] * 18, [""] * 30]), GROUPED)
    back = Schema.from_json(json.loads(json.dumps(schema.to_json(), allow_nan=False)))
    for name in Schema.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, name), getattr(schema, name))
        assert type(getattr(back, name)) is type(getattr(schema, name))
