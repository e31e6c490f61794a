"""Series cut into windows: each in one part, and none that knows of the future."""

import numpy as np
import pytest
from hourly import GROUPED, HOUR, hours, one, schema_of, table
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks.table.series import Roles, regular
from jlstm.tasks.table.windows import (
    Places,
    augmented,
    cut,
    fill,
    find_windows,
    make_panel,
    shuffled,
)

NAN = np.nan


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
    # A batch longer than a pass, and one that ends where a pass does.
    assert sorted(np.bincount(shuffled(3, 7, seed=0)(1))) == [2, 2, 3]
    np.testing.assert_array_equal(np.sort(shuffled(4, 4, seed=0)(1)), np.arange(4))


def test_a_pass_is_put_in_order_once(monkeypatch):
    made = []
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed, make=np.random.default_rng: (
            made.append(seed), make(seed))[1]
    )  # fmt: skip
    order = shuffled(10, 4, seed=3)
    for n in range(5):
        order(n)
    assert made == [(3, 0), (3, 1)]


def test_values_that_float32_does_not_have_are_refused():
    series = one(30, [*range(25), 1e300, *range(4)])
    with pytest.raises(
        ValueError, match=r"column 'y': expected values of the size .*, got 1e\+300"
    ):
        make_panel(series, schema_of(series)[0])


def test_a_series_nobody_has_seen_is_refused():
    series, _ = regular(table(g=["a"] * 30, time=hours(30), y=range(30)), GROUPED)
    other, _ = regular(table(g=["b"] * 30, time=hours(30), y=range(30)), GROUPED)
    with pytest.raises(ValueError, match=r"group: expected series .* trained on \(a\), got b"):
        make_panel(other, schema_of(series, GROUPED)[0])


def test_the_calendar_of_a_window_is_the_local_one():
    local = hours(60, "2021-03-27")
    ahead = np.where(np.arange(60) < 26, 1, 2)  # the clocks go forward at 02:00 on the 28th
    shown = local + (ahead - 1).astype("timedelta64[h]")
    cells = [f"{t}+0{h}:00" for t, h in zip(shown.astype("datetime64[m]"), ahead, strict=True)]
    series, _ = regular(table(time=cells, y=range(60)), Roles("time", ("y",)))
    schema, _ = schema_of(series, validation=50, test=54)
    assert schema.cycles == ("day",)
    about = cut(make_panel(series, schema), Places(np.array([25, 26, 49]), np.zeros(3, int))).about
    angle = 2 * np.pi * np.array([1, 3, 2]) / 24
    np.testing.assert_allclose(about, np.stack([np.sin(angle), np.cos(angle)], 1), atol=1e-6)


@given(st.data())
def test_augmented_windows_are_larger_or_smaller_about_their_last_value(data):
    series, schema = everything(data)
    panel = make_panel(series, schema)
    batch = cut(panel, find_windows(series, panel, "training"))
    found = augmented(batch, 0.5, (1, 2))
    now, factor = (
        batch.values[-1],
        np.exp(0.5 * np.random.default_rng((1, 2)).normal(size=len(batch.series))),
    )
    for name in ("values", "targets"):
        own, others = getattr(batch, name), getattr(found, name)
        assert others.dtype == np.float32
        np.testing.assert_allclose(others, now + factor * (own - now), rtol=1e-4, atol=1e-4)
    for name in ("series", "past", "known", "about"):
        assert getattr(found, name) is getattr(batch, name)
