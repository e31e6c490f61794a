"""Forecasts of every window in a file, series that were not trained on, and stretches to refit."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest

from jlstm.tasks.table import calibrating, preparing
from jlstm.tasks.table import job as table
from jlstm.tasks.table.chance import difference, spans
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import Calibration
from jlstm.tasks.table.subject import admit, subject
from jlstm.tasks.table.training import model_config
from jlstm.tasks.table.windows import find_windows, make_panel

ROWS, LOOKBACK, HORIZON = 240, 12, 4
LEVELS = {"a": 20.0, "b": 300.0, "c": 5000.0}


def frame_of(*sites, rows=ROWS):
    """A day of 24 hours at another level and of another size for each site."""
    times = np.datetime64("2020-01-01T00:00", "us") + np.arange(rows) * np.timedelta64(60, "m")
    parts = []
    for site in sites:
        noise = np.random.default_rng(int(LEVELS[site])).normal(size=rows)
        load = LEVELS[site] * (1 + 0.1 * np.sin(np.arange(rows) * 2 * np.pi / 24) + 0.01 * noise)
        parts.append(pl.DataFrame({"when": times, "site": site, "load": load}))
    return pl.concat(parts)


CONFIG = TableConfig(
    time="when", target="load", group="site", horizon=HORIZON, lookback=LOOKBACK, hidden=4,
    season=1, steps=4, validation="0.27",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model of two sites that forecasts like the linear baseline, with a calibration."""
    folder = tmp_path_factory.mktemp("run")
    file = folder / "t.csv"
    frame_of("a", "b").write_csv(file)
    table.prepare(CONFIG, [file], folder)
    params = table.build(CONFIG, folder).init(jax.random.key(0))
    found = table.ready(CONFIG, folder, params)
    assert found.calibration is not None
    return folder, found


# Calibrated.


def test_what_was_covered_before_is_told(run):
    folder, params = run
    found = table.evaluate(CONFIG, folder, params, None, None)
    before, after = found.results["uncalibrated"], found.results["scaled"]["model"]
    assert before["coverage"] > 0.95  # a fresh model has intervals as wide as ln 2
    assert 0.8 < after["coverage"] < before["coverage"]  # of thirty windows, it is careful
    assert after["width"] < 0.7 * before["width"]
    assert found.results["raw"]["model"]["wql"] < before["wql"]
    told = (
        "The intervals are calibrated by the errors on the validation part: "
        f"{100 * before['coverage']:.1f} % of the truths were in the 80 % interval before, "
        f"{100 * after['coverage']:.1f} % are now."
    )
    assert told in found.notes


def test_intervals_are_calibrated_on_the_validation_part_alone(run, tmp_path):
    folder, params = run
    own = shutil.copytree(folder, tmp_path / "own")
    _, schema, series = preparing.load(folder)
    when, path = series.times(schema.step), own / "data/values.npy"

    def found_after(changed):
        np.save(path, np.where(changed[:, None], 1.01 * series.values, series.values))
        return calibrating.find(CONFIG, own, params._replace(calibration=None))

    same = found_after(when >= schema.test)
    jax.tree.map(np.testing.assert_array_equal, same, params.calibration)
    other = found_after((when >= schema.validation) & (when < schema.test))
    assert (np.asarray(other.spread) != np.asarray(params.calibration.spread)).any()


def test_a_validation_part_that_is_too_short_calibrates_nothing(tmp_path):
    frame_of("a").write_csv(tmp_path / "t.csv")
    config = replace(CONFIG, validation="0.05")
    table.prepare(config, [tmp_path / "t.csv"], tmp_path)
    params = table.build(config, tmp_path).init(jax.random.key(0))
    found = table.ready(config, tmp_path, params)
    assert found.calibration is None
    judged = table.evaluate(config, tmp_path, found, None, None)
    assert any("fewer than 10 windows that do not overlap" in note for note in judged.notes)
    (tmp_path / "data/values.npy").unlink()  # nobody looks a second time
    assert table.ready(config, tmp_path, params).calibration is None


# Too few windows for a verdict.


def test_few_windows_get_no_verdict(run, tmp_path):
    folder, params = run
    frame_of("a", "b", rows=40).write_csv(tmp_path / "few.csv")
    few = table.evaluate(CONFIG, folder, params, tmp_path / "few.csv", None)
    assert few.results["chance"] == {"groups": 7, "of": "horizon"}
    assert few.verdict.startswith("Too few windows for a verdict: expected at least 10 that do not")
    assert "beats" not in few.verdict
    own = table.evaluate(CONFIG, folder, params, None, None)
    assert own.results["chance"]["groups"] == 12  # of 45 origins
    assert "(95 % intervals over 12 horizons)" in own.verdict
    json.dumps(own.results, allow_nan=False)


def test_neighbouring_spans_are_known_to_share_windows(run):
    folder, params = run
    noise = np.random.default_rng(0).normal(0, 0.3, params.readout.shape).astype(np.float32)
    other = params._replace(readout=params.readout + noise)  # as the linear baseline no more
    found = table.evaluate(CONFIG, folder, other, None, None)
    known, groups = found.results["chance"]["mae"], spans(found.sums.origins, HORIZON)
    margins = [
        difference(groups, known["baseline"], squared=False, neighbours=n).margin for n in (0, 1)
    ]
    assert known["margin"] == pytest.approx(margins[1])
    assert margins[1] > 1.01 * margins[0]


def test_many_series_stand_for_many_windows(run, tmp_path, monkeypatch):
    folder, params = run
    sites = {f"s{n:02d}": 10.0 + n for n in range(12)}
    monkeypatch.setitem(globals(), "LEVELS", sites)
    frame_of(*sites, rows=40).write_csv(tmp_path / "many.csv")
    found = table.evaluate(CONFIG, folder, params, tmp_path / "many.csv", None)
    assert (found.results["chance"]["groups"], found.results["chance"]["of"]) == (12, "series")


# Saved forecasts.


def test_the_forecasts_in_a_file_are_those_that_are_judged(run, tmp_path):
    folder, params = run
    out = tmp_path / "f.parquet"
    (said,) = table.save_forecasts([(CONFIG, folder, params)], None, out)
    found = pl.read_parquet(out)
    assert [*tmp_path.iterdir()] == [out]
    judged = table.evaluate(CONFIG, folder, params, None, None).results
    assert found.height == judged["truths"] == 45 * 2 * HORIZON
    assert said == f"{found.height:,} rows, the forecasts of each window, are in {out}."
    assert found.columns == [
        "site", "target", "origin", "when", "step", "truth", "q0.1", "q0.5", "q0.9",
        "last_value", "drift", "linear",
    ]  # fmt: skip
    for column, name in (("q0.5", "model"), ("last_value", "last value"), ("linear", "linear")):
        error = float((found["truth"] - found[column]).abs().mean())
        assert error == pytest.approx(judged["raw"][name]["mae"], rel=1e-9)
    covered = (found["q0.1"] <= found["truth"]) & (found["truth"] <= found["q0.9"])
    assert float(covered.mean()) == pytest.approx(judged["raw"]["model"]["coverage"])
    ahead = (found["when"] - found["origin"]).dt.total_hours()
    assert ahead.to_list() == found["step"].to_list() == [1, 2, 3, 4] * 90
    truths = frame_of("a", "b").with_columns(pl.col("when").cast(found["when"].dtype))
    both = found.join(truths, on=["site", "when"])
    np.testing.assert_allclose(both["truth"], both["load"], rtol=1e-6)


def test_what_cannot_be_written_leaves_nothing(run, tmp_path):
    folder, params = run
    with pytest.raises(OSError, match="none"):
        table.save_forecasts([(CONFIG, folder, params)], None, tmp_path / "none/f.parquet")
    frame_of("a").rename({"site": "step"}).write_csv(tmp_path / "t.csv")
    config = replace(CONFIG, group="step")
    table.prepare(config, [tmp_path / "t.csv"], tmp_path)
    own = table.build(config, tmp_path).init(jax.random.key(0))
    with pytest.raises(ValueError, match="other names of the time and the group than 'step'"):
        table.save_forecasts([(config, tmp_path, own)], None, tmp_path / "f.parquet")
    assert not [*tmp_path.glob("*.parquet")]


# Series that were not trained on.


def test_a_new_series_is_forecast_by_its_own_scales(run, tmp_path):
    folder, params = run
    frame_of("a", "c").write_csv(tmp_path / "new.csv")
    out = tmp_path / "out.csv"
    said = table.predict(CONFIG, folder, params, tmp_path / "new.csv", out)
    assert any(
        "The model was not trained on c: it takes the scales of its own past" in s for s in said
    )
    found = pl.read_csv(out)
    assert found["site"].to_list() == ["a"] * HORIZON + ["c"] * HORIZON
    own = found.filter(pl.col("site") == "c")
    assert ((own["q0.1"] > 4000) & (own["q0.1"] < own["q0.5"]) & (own["q0.9"] < 6000)).all()
    alone = tmp_path / "alone.csv"
    frame_of("c").write_csv(alone)
    table.predict(CONFIG, folder, params, alone, out)
    np.testing.assert_allclose(pl.read_csv(out)["q0.5"], own["q0.5"], rtol=0.01)


def test_a_known_series_is_forecast_as_before_beside_a_new_one(run, tmp_path):
    folder, params = run
    found = []
    for sites in (("b",), ("c", "b")):
        frame_of(*sites).write_csv(tmp_path / "t.csv")
        table.predict(CONFIG, folder, params, tmp_path / "t.csv", tmp_path / "out.csv")
        found.append(pl.read_csv(tmp_path / "out.csv").filter(pl.col("site") == "b"))
    np.testing.assert_allclose(found[0]["q0.5"], found[1]["q0.5"], rtol=1e-6)


def test_what_a_new_series_has_not_is_the_mean_of_the_known_ones(run):
    folder, params = run
    _, schema, series = preparing.load(folder)
    config = model_config(CONFIG, schema)
    new = replace(series, names=("a", "new"))
    ends = series.offsets[1:]
    larger, wider, own, said = admit(schema, config, params, new, ends)
    assert "new" in said
    assert larger.names == ("a", "b", "new")
    assert wider.series == 3
    np.testing.assert_allclose(own.embedding[2], params.embedding.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(own.embedding[:2], params.embedding)
    assert isinstance(own.calibration, Calibration)
    np.testing.assert_allclose(
        own.calibration.spread[2], params.calibration.spread.mean(axis=0), rtol=1e-6
    )
    values = series.values[series.offsets[1] :, 0]
    assert larger.mean[2, 0] == pytest.approx(values.mean())
    assert larger.std[2, 0] == pytest.approx(values.std(), rel=1e-3)
    assert admit(schema, config, params, series, ends) == (schema, config, params, "")


def test_a_new_series_is_judged_on_what_follows_its_scales(run, tmp_path):
    folder, params = run
    file = tmp_path / "c.csv"
    frame = frame_of("c")
    frame.write_csv(file)
    found = table.evaluate(CONFIG, folder, params, file, None)
    assert found.results["origins"] == ROWS // 2 - HORIZON + 1
    assert any("Its scales are those of its first half" in note for note in found.notes)
    assert found.results["scaled"]["model"]["mae"] < 0.5
    # What is judged has no part in the scales.
    schema = table_schema(folder, params, file)
    later = frame.with_columns(
        pl.when(pl.int_range(pl.len()) < ROWS // 2)
        .then(pl.col("load"))
        .otherwise(pl.col("load") * 3)
    )
    later.write_csv(file)
    np.testing.assert_array_equal(table_schema(folder, params, file).mean, schema.mean)


def table_schema(folder, params, file):
    return subject(CONFIG, folder, params, file).schema


# Stretches.


def test_each_origin_is_in_one_stretch_and_nothing_later_is_trained_on(run, tmp_path):
    folder, _ = run
    _, schema, series = preparing.load(folder)
    windows = []
    whole = find_windows(series, make_panel(series, schema), "test")
    for name, fill in table.resplits(CONFIG, folder, 3):
        own = tmp_path / name
        own.mkdir()
        config = fill(own)
        assert config == CONFIG
        _, there, cut = preparing.load(own)
        panel = make_panel(cut, there)
        places = find_windows(cut, panel, "test")
        when = cut.times(there.step)
        windows += [(there.names[panel.member[o]], when[o]) for o in places.origins]
        # As long a validation part as before, right before the stretch.
        assert there.test - there.validation == schema.test - schema.validation
        assert when[places.origins].min() == there.test
        trained = cut.values[(when < there.validation) & (cut.member == 0), 0]
        assert there.mean[0, 0] == pytest.approx(trained.mean())
        assert (there.lookback, there.season) == (schema.lookback, schema.season)
        assert (there.cycles, there.names) == (schema.cycles, schema.names)
        # The first is the run itself.
        if name == "1":
            np.testing.assert_allclose(there.mean, schema.mean)
            assert there.test == schema.test
    when = series.times(schema.step)
    assert sorted(windows) == sorted(
        (series.names[series.member[o]], when[o]) for o in whole.origins
    )


@pytest.mark.parametrize("count", [46, 1000])
def test_no_more_stretches_than_origins(run, count):
    folder, _ = run
    with pytest.raises(ValueError, match=f"refit: expected at most the 45 origins .*got {count}"):
        table.resplits(CONFIG, folder, count)


def test_stretches_are_joined_beside_the_run_itself(run, tmp_path):
    folder, params = run
    once = table.evaluate(CONFIG, folder, params, None, None)
    judged = []
    for name, fill in table.resplits(CONFIG, folder, 3):
        own = tmp_path / name
        own.mkdir()
        config = fill(own)
        fresh = table.build(config, own).init(jax.random.key(0))
        judged.append(table.evaluate(config, own, table.ready(config, own, fresh), None, None))
    found = table.pooled(CONFIG, folder, judged, once)
    assert found.results["refitted"] == 3
    assert found.results["truths"] == once.results["truths"]
    *stretches, total = found.results["stretches"]
    assert [one["origins"] for one in stretches] == [15, 15, 15]
    # The first stretch is the run; the baselines that learn nothing are the same throughout.
    np.testing.assert_allclose(stretches[0]["model"], stretches[0]["once"], rtol=1e-6)
    assert stretches[1]["model"] != stretches[1]["once"]
    own = once.results["scaled"]
    np.testing.assert_allclose(total["once"], [own["model"][m] for m in ("mae", "mse")], rtol=1e-9)
    np.testing.assert_allclose(
        total["last value"], [own["last value"][m] for m in ("mae", "mse")], rtol=1e-6
    )
    assert found.tables[-1].rows[-1][0] == "all"
    assert any("trained anew for each of 3 stretches" in note for note in found.notes)
    assert any(
        note.startswith("Trained anew for each stretch the model has") for note in found.notes
    )
    json.dumps(found.results, allow_nan=False)
