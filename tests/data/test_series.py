"""Tables made into regular series and windows: every row where it belongs, none of the future."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.data.series import (
    Places,
    Roles,
    Schema,
    Step,
    calendar_features,
    check_missing,
    cut,
    default_season,
    extend,
    fill,
    find_step,
    find_windows,
    learn,
    make_panel,
    parse_time,
    read_static,
    regular,
    show_time,
    shuffled,
    split_times,
)

HOUR = Step(microseconds=3_600_000_000)
NAN = np.nan


def at(*texts):
    return np.array(texts, "datetime64[us]")


def table(**columns):
    """A table of text, as read from a CSV."""
    return pl.DataFrame({name: [str(cell) for cell in cells] for name, cells in columns.items()})


def hours(count, start="2016-07-01"):
    return HOUR.times(np.datetime64(start, "us"), np.arange(count))


ROLES = Roles("time", ("y",))
GROUPED = Roles("time", ("y",), group=("g",))


# Time.


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


# From rows to regular series.


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
        "1 steps of time without a row, the first at 2016-07-01 03:00; 1 empty cells of column "
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
        ([1, 1, "", 3], "column 'size', row 4: expected one value for all of b, got ''"),
    ):
        bad = frame.with_columns(pl.Series("size", map(str, column)))
        with pytest.raises(ValueError, match=message):
            read_static(bad, roles, series)
    with pytest.raises(ValueError, match="static: expected several series to tell apart"):
        read_static(frame, Roles("time", ("y",), static=("size",)), regular(frame[:2], ROLES)[0])


# The split and the scales.


def one(count, values=None, **roles):
    frame = table(time=hours(count), y=range(count) if values is None else values)
    return regular(frame, ROLES)[0]


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


def schema_of(series, roles=ROLES, *, validation=12, test=20, **options):
    start = series.starts.min()
    defaults = {"horizon": 2, "lookback": 4, "season": 1, "missing": "fill", "calendar": True}
    nothing = np.zeros((len(series.names), 0)), ()
    split = tuple(HOUR.times(start, np.array(n)) for n in (validation, test))
    more = {"split": split, "static": nothing}
    return learn(series, roles, HOUR, **defaults | more | options)


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


# Windows.


def test_filled_values_by_hand():
    values = np.array([NAN, 2, NAN, NAN, 8, NAN, NAN, 1, NAN])[:, None]
    forward, line, until = fill(values, np.array([0, 6, 9]))
    np.testing.assert_array_equal(forward[:, 0], [0, 2, 2, 2, 8, 8, 0, 1, 1])
    np.testing.assert_array_equal(line[:, 0], [0, 2, 4, 6, 8, 8, 0, 1, 1])
    np.testing.assert_array_equal(until[:, 0], [1, 1, 4, 4, 4, 10, 7, 7, 10])


def random_table(generator, groups, missing):
    """Series of several lengths and beginnings, with a past, a known and two target columns."""
    rows = {name: [] for name in ("g", "time", "y", "z", "p", "k")}
    for group in range(groups):
        length = int(generator.integers(25, 45))
        start = np.datetime64("2016-07-01", "us") + np.timedelta64(int(generator.integers(5)), "h")
        rows["g"] += [f"g{group}"] * length
        rows["time"] += list(HOUR.times(start, np.arange(length)))
        for name in ("y", "z", "p", "k"):
            holes = generator.random(length) < missing
            holes[:3] = False
            cells = generator.normal(size=length)
            rows[name] += ["" if hole else cell for hole, cell in zip(holes, cells, strict=True)]
    roles = Roles("time", ("y", "z"), ("p",), ("k",), group=("g",))
    return table(**rows), roles


def everything(data):
    generator = np.random.default_rng(data.draw(st.integers(0, 999)))
    missing = data.draw(st.sampled_from(["error", "fill", "interpolate"]))
    share = 0.0 if missing == "error" else 0.3
    frame, roles = random_table(generator, data.draw(st.integers(1, 3)), share)
    series, _ = regular(frame, roles)
    horizon, lookback = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    schema, _ = schema_of(series, roles, horizon=horizon, lookback=lookback, missing=missing)
    return series, schema


@given(st.data())
def test_no_truth_belongs_to_two_parts_and_every_origin_is_there_once(data):
    series, schema = everything(data)
    panel = make_panel(series, schema)
    when, bounds = series.times(HOUR), series.offsets
    truths = {}
    for part in ("training", "validation", "test"):
        places = find_windows(series, panel, part)
        ahead = places.origins[:, None] + np.arange(schema.horizon)
        truths[part] = {*when[ahead].ravel().tolist()}
        begin = bounds[series.member[places.origins]]
        end = bounds[series.member[places.origins] + 1]
        assert (places.origins - schema.lookback >= begin).all()
        assert (places.origins + schema.horizon <= end).all()
        # All that there can be, by brute force.
        first, last = {
            "training": (when.min(), schema.validation),
            "validation": (schema.validation, schema.test),
            "test": (schema.test, when.max() + np.timedelta64(1, "h")),
        }[part]
        expected = set()
        for n in range(len(series.names)):
            for o in range(bounds[n] + schema.lookback, bounds[n + 1] - schema.horizon + 1):
                inside = when[o] >= first and when[o + schema.horizon - 1] < last
                for target in (0, 1):
                    own = np.isfinite(series.values[:, target])
                    seen = own[o - schema.lookback : o].any()
                    if inside and seen and own[o : o + schema.horizon].any():
                        expected.add((o, target))
        found = list(zip(*(a.tolist() for a in places), strict=True))
        assert len(found) == len(set(found))
        assert set(found) == expected
    assert not truths["training"] & truths["validation"]
    assert not truths["validation"] & truths["test"]
    assert not truths["training"] & truths["test"]


@given(st.data())
def test_a_window_is_what_the_table_says_and_knows_nothing_of_what_comes(data):
    series, schema = everything(data)
    panel = make_panel(series, schema)
    places = find_windows(series, panel, "all")
    n = data.draw(st.integers(0, len(places) - 1))
    o, target = (int(a[n]) for a in places)
    member = series.member[o]
    here = Places(places.origins[n : n + 1], places.targets[n : n + 1])
    batch = cut(panel, here)
    back, ahead = slice(o - schema.lookback, o), slice(o, o + schema.horizon)
    scaled = (series.values - schema.mean[series.member]) / schema.std[series.member]

    def same(found, expected):
        known = np.isfinite(expected)
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-5, atol=1e-6)
        assert np.isfinite(found).all()

    same(batch.values[:, 0], scaled[back, target])
    same(batch.past[:, 0, 0], scaled[back, 2])
    same(batch.known[:, 0, 0], scaled[o - schema.lookback : o + schema.horizon, 3])
    np.testing.assert_allclose(batch.targets[:, 0], scaled[ahead, target], rtol=1e-5, atol=1e-6)
    assert batch.series[0] == 2 * member + target
    if schema.missing != "error":
        np.testing.assert_array_equal(
            batch.past[:, 0, 1], np.isfinite(series.values[back, target]).astype(np.float32)
        )

    # All that is not known at the origin, changed; and so are other series.
    changed = series.values.copy()
    changed[o:, :3] = 1e3
    changed[o + schema.horizon :, 3] = 1e3
    changed[: series.offsets[member]] = 1e3
    other = cut(make_panel(type(series)(**{**vars(series), "values": changed}), schema), here)
    for name in ("values", "past", "known", "about"):
        np.testing.assert_array_equal(getattr(other, name), getattr(batch, name))


def test_lines_are_drawn_only_between_known_values():
    values = [0, 1, 2, 3, "", "", 6, 7, 8, 9] * 3
    series = one(30, values)
    panels = {
        missing: make_panel(series, schema_of(series, missing=missing)[0])
        for missing in ("fill", "interpolate")
    }

    def window(missing, origin):
        panel = panels[missing]
        found = cut(panel, Places(np.array([origin]), np.array([0]))).values[:, 0]
        return found * panel.schema.std[0] + panel.schema.mean[0]

    np.testing.assert_allclose(window("fill", 7), [3, 3, 3, 6], atol=1e-5)
    np.testing.assert_allclose(window("interpolate", 7), [3, 4, 5, 6], atol=1e-5)
    np.testing.assert_allclose(window("interpolate", 6), [2, 3, 3, 3], atol=1e-5)  # 6 comes later


def test_batches_are_a_pure_function_of_seed_and_step():
    order = shuffled(10, 4, seed=3)
    batches = [order(n) for n in range(5)]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.repeat(np.arange(10), 2))
    again = shuffled(10, 4, seed=3)
    for n in (4, 0, 2):
        np.testing.assert_array_equal(again(n), batches[n])
    first, second = (np.concatenate(batches)[k : k + 10] for k in (0, 10))
    np.testing.assert_array_equal(np.sort(first), np.arange(10))
    assert (first != second).any()
    assert (shuffled(10, 4, seed=4)(0) != batches[0]).any()


def test_series_are_extended_or_cut_to_a_horizon():
    frame = table(g=["a"] * 4 + ["b"] * 3, time=hours(4)[[0, 1, 2, 3, 0, 1, 2]], y=range(7))
    series, _ = regular(frame, GROUPED)
    found = extend(series, np.array([4, 5]), 2)
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, 2, 3, NAN, NAN, 4, 5, 6])
    np.testing.assert_array_equal(found.offsets, [0, 6, 9])
    np.testing.assert_array_equal(found.rows, [2, 3, 4, 5, -1, -1, 6, 7, 8])


def test_a_series_nobody_has_seen_is_refused():
    series, _ = regular(table(g=["a"] * 30, time=hours(30), y=range(30)), GROUPED)
    other, _ = regular(table(g=["b"] * 30, time=hours(30), y=range(30)), GROUPED)
    with pytest.raises(ValueError, match=r"group: expected series .* trained on \(a\), got b"):
        make_panel(other, schema_of(series, GROUPED)[0])
