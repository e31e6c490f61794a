"""A forecasting run from the file to the forecasts, without the driver: small, and in seconds."""

import gzip
import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import optax
import polars as pl
import pytest

from jlstm.tasks.chance import Difference
from jlstm.tasks.frame import read_table
from jlstm.tasks.job import FEWEST_STEPS
from jlstm.tasks.table import job as table
from jlstm.tasks.table import preparing, report, training
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.judging import judge
from jlstm.tasks.table.model import forecast, forecaster_loss
from jlstm.tasks.table.report import verdict
from jlstm.tasks.table.training import fit_baseline
from jlstm.tasks.table.windows import Places, cut, find_windows, make_panel
from jlstm.train import init_train_state, make_train_step

HOURS, HORIZON, LOOKBACK = 260, 4, 12


def hours(count, start="2016-07-01"):
    times = np.datetime64(start, "m") + np.arange(count) * np.timedelta64(60, "m")
    return [str(time).replace("T", " ") for time in times]


def signal(count, seed=0):
    """A day, and on it what the column of the known future adds."""
    generator = np.random.default_rng(seed)
    price = generator.integers(0, 2, count)
    day = np.sin(2 * np.pi * np.arange(count) / 24)
    return 20 + 5 * day + 8 * price + generator.normal(size=count) / 10, price


def frame_of(count=HOURS):
    load, price = signal(count)
    other, _ = signal(count, seed=1)
    return pl.DataFrame({"time": hours(count), "load": load, "price": price, "other": -other})


def config_of(**options):
    small = {"lookback": LOOKBACK, "hidden": 4, "batch": 32, "steps": 12}
    columns = {"time": "time", "target": "load,other", "known_future": "price"}
    return TableConfig(**columns | small | {"horizon": HORIZON} | options)


def prepared(tmp_path, frame, config, name="t.csv"):
    path = tmp_path / name
    frame.write_csv(path)
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    table.prepare(config, [path], folder)
    return folder


def trained(config, folder, steps=None):
    job = table.build(config, folder)
    optimizer = optax.adam(1e-2)
    step = make_train_step(job.loss, optimizer)
    params = job.init(jax.random.key(config.seed))
    state = init_train_state(params, optimizer, job.carry(params))
    for n in range(job.steps if steps is None else steps):
        state, _ = step(state, job.batch(n))
    return job, jax.device_get(state.params)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, trained long enough to have learned what the price does."""
    path = tmp_path_factory.mktemp("table")
    config = config_of(steps=150)
    folder = prepared(path, frame_of(), config)
    job, params = trained(config, folder)
    return config, folder, job, params


def test_what_is_prepared_can_be_moved_and_read(run, tmp_path):
    config, folder, job, params = run
    assert {str(p.relative_to(folder)) for p in (folder / "data").iterdir()} == set(table.FILES)
    known = json.loads((folder / "data/table.json").read_text())
    assert known["file"]["rows"] == HOURS
    assert len(known["file"]["sha256"]) == 64
    moved = shutil.copytree(folder, tmp_path / "moved")
    there = table.build(config, moved)
    assert there.validate(params) == job.validate(params)
    for one, other in zip(
        jax.tree.leaves(there.batch(3)._replace(key=None)),
        jax.tree.leaves(job.batch(3)._replace(key=None)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_damaged_data_is_named(run, tmp_path):
    config, folder, _, _ = run
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "data/table.json").write_text("{")
    with pytest.raises(ValueError, match=r"data/table\.json: expected what jlstm wrote there"):
        table.build(config, moved)


def test_the_arithmetic_is_told(run):
    _, _, job, _ = run
    about = " ".join(job.about)
    training = 182 - LOOKBACK - HORIZON + 1  # 260 rows, of which 26 and 52 are held out
    assert (
        "t.csv: 260 rows, of which 260 steps of 1 hour from 2016-07-01 00:00 to 2016-07-11 19"
        in about
    )
    assert "(182 rows)" in about
    assert f"{2 * training:,} for training, {2 * 23:,} for validation, {2 * 49:,} for the" in about
    assert f"batches of 32, each cut over 2 devices: {-(-2 * training // 32)} steps" in about
    assert "150 steps" in about
    assert job.epoch == -(-2 * training // 32)
    assert job.steps == 150
    assert job.per_step(job.batch(0)) == 32
    assert job.devices == 2


def test_a_small_table_is_trained_for_a_while(tmp_path):
    folder = prepared(tmp_path, frame_of(), config_of(steps=None))
    assert table.build(config_of(steps=None), folder).steps == FEWEST_STEPS
    # Asked for is asked for.
    assert table.build(config_of(steps=None, epochs=2), folder).steps == 22
    assert table.build(config_of(steps=None, epochs=100), folder).steps == 1100


def test_training_helps_and_is_the_same_twice(run):
    config, folder, job, params = run
    fresh = job.init(jax.random.key(0))
    assert job.validate(params) < 0.6 * job.validate(fresh)
    _, first = trained(config, folder, steps=3)
    _, second = trained(config, folder, steps=3)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_validation_is_the_mean_over_all_windows(run, monkeypatch):
    config, folder, job, params = run
    _, schema, series = preparing.load(folder)
    panel = make_panel(series, schema)
    places = find_windows(series, panel, "validation")
    model = training.model_config(config, schema)
    whole = float(forecaster_loss(model, params, None, cut(panel, places))[0])
    assert job.validate(params) == pytest.approx(whole, rel=1e-6)
    for size in (7, 45):
        monkeypatch.setattr(training, "AT_ONCE", size)
        assert len(places) % size
        assert job.validate(params) == pytest.approx(whole, rel=1e-6)


def test_every_window_of_the_test_counts_once_whatever_the_batch(run):
    config, folder, _, params = run
    _, schema, series = preparing.load(folder)
    panel = make_panel(series, schema)
    places = find_windows(series, panel, "test")
    model = training.model_config(config, schema)
    weights = fit_baseline(panel, series)
    found = [
        judge(model, params, panel, places, weights, size=size).errors for size in (7, 49, 2048)
    ]
    np.testing.assert_array_equal(found[0]["model"].known, np.full((2, HORIZON), 49))
    assert list(found[0]) == ["model", "last value", "drift", "linear"]
    for other in found[1:]:
        for name, errors in found[0].items():
            for one, two in zip(errors, other[name], strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-5)  # the model is float32


def test_the_linear_baseline_learns_nothing_from_the_test(run):
    _, folder, _, _ = run
    _, schema, series = preparing.load(folder)
    weights = []
    for begin in (HOURS, 208, 182):  # nothing changed; the test; validation, too
        values = series.values.copy()
        values[begin:] *= np.linspace(0, 3, HOURS - begin)[:, None]
        changed = replace(series, values=values)
        weights.append(fit_baseline(make_panel(changed, schema), changed))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()  # the ridge is chosen there


def test_the_linear_baseline_learns_from_every_batch(run):
    _, folder, _, _ = run
    _, schema, series = preparing.load(folder)
    panel = make_panel(series, schema)
    whole = fit_baseline(panel, series)
    for size in (50, 64):
        assert len(find_windows(series, panel, "validation")) % size
        np.testing.assert_allclose(fit_baseline(panel, series, size=size), whole, atol=1e-9)


def test_the_last_value_baseline_by_hand(run):
    config, folder, _, params = run
    results = table.evaluate(config, folder, params).results
    load = frame_of()["load"].to_numpy()
    other = frame_of()["other"].to_numpy()
    errors = [
        [values[o + h] - values[o - 1] for o in range(208, HOURS - HORIZON + 1)]
        for values in (load, other)
        for h in range(HORIZON)
    ]
    found = results["raw"]["last value"]
    assert found["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    assert found["mse"] == pytest.approx(np.mean(np.square(errors)), rel=1e-5)
    assert results["by_series"]["last value"]["mae"][0] == pytest.approx(
        np.mean(np.abs(errors[:HORIZON])), rel=1e-5
    )
    naive = [np.abs(np.diff(v[:182], n=1)).mean() for v in (load, other)]
    season = [np.abs(v[24:182] - v[:158]).mean() for v in (load, other)]
    mase = np.mean([np.mean(np.abs(e)) for e in (errors[:4], errors[4:])] / np.array(season))
    assert found["mase"] == pytest.approx(mase, rel=1e-5)
    assert naive != season


def test_the_evaluation(run):
    config, folder, _, params = run
    found = table.evaluate(config, folder, params)
    results = json.loads(json.dumps(found.results, allow_nan=False))
    assert results["origins"] == 49
    assert results["truths"] == 2 * 49 * HORIZON
    assert len(results["by_horizon_scaled"]["model"]["mae"]) == HORIZON
    assert results["by_series"]["names"] == ["load", "other"]
    assert 0 < results["scaled"]["model"]["coverage"] < 1
    assert (folder / "plots/forecast.png").read_bytes().startswith(b"\x89PNG")
    titles = [one.title for one in found.tables]
    assert len(titles) == 3
    assert "49 origins" in titles[0]
    assert [row[0] for row in found.tables[0].rows] == ["model", "last value", "drift", "linear"]
    assert [row[0] for row in found.tables[1].rows] == ["1", "2", "3", "4"]
    assert {len(row) for one in found.tables for row in one.rows} == {9, 7, 8}
    assert found.tables[0].best == (0,)  # the model, which has the lowest MAE
    assert report._percent(0.5) == "50.0 %"
    assert report._percent(np.nan) == "–"  # a series without truths
    assert any("seasonal naive forecast is left out" in note for note in found.notes)
    assert not any("A baseline has" in note for note in found.notes)
    # A point has no interval that could cover anything.
    for means in (results["raw"], results["scaled"], results["by_series"]):
        assert {"coverage", "width"} <= means["model"].keys()
        assert not {"coverage", "width"} & means["linear"].keys()
    # The price of the future is what no baseline sees.
    assert "beats every baseline" in found.verdict


@pytest.mark.parametrize(
    ("options", "spread"),
    [
        ({}, 0.2),
        ({"target": "load"}, 0.5),
        ({"augment": 0.0}, 0.0),
        ({"augment": 1.0, "known_future": "price"}, 1.0),
        # What the others say of the target does not grow and shrink with it.
        ({"known_future": "price"}, 0.0),
        ({"past": "price"}, 0.0),
    ],
)
def test_windows_are_augmented_in_training_alone(tmp_path, options, spread):
    config = config_of(**{"known_future": ()} | options)
    frame_of().write_csv(tmp_path / "table.csv")
    table.prepare(config, [tmp_path / "table.csv"], tmp_path)
    job = table.build(config, tmp_path)
    plain = table.build(replace(config, augment=0.0), tmp_path)
    drawn = []
    for n in (0, 7):
        now, own, other = plain.batch(n).values[-1], plain.batch(n).values, job.batch(n).values
        np.testing.assert_array_equal(other[-1], now)
        sizes = np.abs(other - now).sum(axis=0) / np.abs(own - now).sum(axis=0)
        # Of 32 windows.
        assert np.std(np.log(sizes)) == pytest.approx(spread, rel=0.4, abs=1e-6)
        np.testing.assert_array_equal(other, job.batch(n).values)
        drawn.append(sizes)
    assert np.allclose(*drawn) == (spread == 0.0)
    told = [sentence for sentence in job.about if "larger or smaller by chance" in sentence]
    assert len(told) == (spread > 0)
    assert all(f"standard deviation {spread:g};" in sentence for sentence in told)
    params = job.init(jax.random.key(0))
    assert job.validate(params) == plain.validate(params)


def test_a_model_that_knows_nothing_is_told_to_lose(run):
    config, folder, job, _ = run
    fresh = job.init(jax.random.key(0))
    nothing = fresh._replace(linear=jax.tree.map(np.zeros_like, fresh.linear))
    found = table.evaluate(config, folder, nothing)
    assert "The model LOSES to" in found.verdict
    assert "last value" in found.verdict
    assert "linear" in found.verdict
    assert "A baseline has the lower MAE for 2 of 2 targets: load (" in found.notes[0]
    assert "A baseline has the lower MAE for 4 of 4 steps ahead: 1 (" in found.notes[1]


def test_intervals_that_hold_too_little_are_told(run):
    config, folder, _, params = run
    bias = np.array(params.readout_bias)
    for width, how in ((-20.0, "narrow: "), (20.0, "wide: 100.0 %")):
        bias[:, [0, 2]] = width
        changed = params._replace(readout_bias=bias, readout=np.zeros_like(params.readout))
        notes = table.evaluate(config, folder, changed).notes
        assert any(f"The intervals are too {how}" in note for note in notes)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ((1.0, 1.0), "The model beats every baseline: MAE 1.000, MSE 1.000, .* of them is a "),
        ((2.5, 4.5), r"The model LOSES to a \(MAE 2.000, MSE 5.000\) in MAE; to b .* in MSE\. Its"),
        ((2.0, 3.0), r"The model LOSES to a .* in MAE\."),
        ((9.0, 9.0), "The model LOSES to every baseline: .* best of them is a "),
    ],
)
def test_verdicts(model, said):
    found = verdict({"model": model, "a": (2.0, 5.0), "b": (3.0, 4.0)})
    assert re.search(said, found), found


def test_a_lead_that_may_be_chance_is_no_victory(run, monkeypatch):
    config, folder, _, params = run

    def judged(*margins):  # of MAE, and of MSE
        ways = iter([Difference("linear", -0.1, margin) for margin in margins])
        monkeypatch.setattr(report, "difference", lambda *args, **options: next(ways))
        return table.evaluate(config, folder, params).verdict

    chance = "The model has lower errors than every baseline, by no more than chance may do: MAE"
    assert judged(0.2, 0.2).startswith(chance)
    assert judged(0.2, 0.05).startswith("The model beats every baseline: MAE")
    lost = verdict({"model": (3.0, 6.0), "a": (2.0, 5.0), "b": (4.0, 7.0)}, clear=False)
    assert "in MAE and MSE, by no more than chance may do. Its own: MAE 3.000" in lost
    lost = verdict({"model": (3.0, 6.0), "a": (2.0, 5.0)}, clear=False)
    assert lost.startswith("The model LOSES to every baseline, by no more than chance may do: MAE")


def test_another_file_is_judged_by_the_scales_of_the_run(run, tmp_path):
    config, folder, _, params = run
    frame = frame_of()[208 - LOOKBACK :]
    frame.write_csv(tmp_path / "later.csv")
    own = table.evaluate(config, folder, params).results
    other = table.evaluate(config, folder, params, tmp_path / "later.csv").results
    assert other["origins"] == own["origins"]
    for name in ("model", "linear"):
        assert other["scaled"][name]["mae"] == pytest.approx(own["scaled"][name]["mae"], rel=1e-5)
    assert (folder / "plots/forecast-later.png").exists()
    assert not told_of_training(run, tmp_path / "later.csv")
    frame[:10].write_csv(tmp_path / "short.csv")
    with pytest.raises(ValueError, match=r"short\.csv: expected at least 12 \+ 4 rows of a series"):
        table.evaluate(config, folder, params, tmp_path / "short.csv")


def told_of_training(run, file):
    config, folder, _, params = run
    notes = table.evaluate(config, folder, params, file).notes
    return [note for note in notes if "looks better than it is" in note]


def test_a_file_that_the_model_has_learned_from_is_told(run, tmp_path):
    _, folder, _, _ = run
    own = folder.parent / "t.csv"
    origins = HOURS - LOOKBACK - HORIZON + 1
    said = told_of_training(run, own)
    assert len(said) == 1
    assert said[0].startswith("This is the very file that the run was trained on: ")
    assert f"{182 - LOOKBACK} of {origins} origins lie in the time" in said[0]
    assert "up to 2016-07-08 14:00" in said[0]
    # Another file with rows of that time, and one that ends before them.
    frame_of()[181 - LOOKBACK : 200].write_csv(tmp_path / "part.csv")
    said = told_of_training(run, tmp_path / "part.csv")
    assert len(said) == 1
    assert said[0].startswith("The model has seen it: 1 of 16 origins lie in the time")
    past = frame_of(100).with_columns(time=pl.Series(hours(100, "2016-06-01")))
    past.write_csv(tmp_path / "past.csv")
    assert not told_of_training(run, tmp_path / "past.csv")


# Forecasts.


def future(frame, known, count=HORIZON):
    """A table whose last rows have the targets empty."""
    empty = pl.lit(None, pl.Float64)
    rows = pl.int_range(pl.len())
    shown = frame[: known + count].with_columns(
        pl.when(rows < known).then(name).otherwise(empty).alias(name) for name in ("load", "other")
    )
    return shown


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_forecasts_are_those_of_the_evaluation(run, tmp_path, kind):
    config, folder, _, params = run
    future(frame_of(), 240).write_csv(tmp_path / "new.csv")
    out = tmp_path / f"out.{kind}"
    said = table.predict(config, folder, params, tmp_path / "new.csv", out)
    found = pl.read_csv(out, try_parse_dates=True) if kind == "csv" else pl.read_parquet(out)
    assert found.columns == ["time", "target", "q0.1", "q0.5", "q0.9"]
    assert found["target"].to_list() == ["load"] * HORIZON + ["other"] * HORIZON
    times = [str(t).replace("T", " ") for t in found["time"].to_numpy().astype("datetime64[m]")]
    assert times == frame_of()["time"].to_list()[240:244] * 2
    assert "8 rows, 4 steps of 1 hour for each of 2 series and targets" in said[-1]

    _, schema, series = preparing.load(folder)
    panel = make_panel(series, schema)
    batch = cut(panel, Places(np.array([240, 240]), np.array([0, 1])))
    values = np.asarray(forecast(training.model_config(config, schema), params, batch))
    raw = values * schema.std[0, :2, None] + schema.mean[0, :2, None]
    written = found.select("q0.1", "q0.5", "q0.9").to_numpy()
    np.testing.assert_allclose(
        written,
        raw.swapaxes(0, 1).reshape(2 * HORIZON, 3),
        rtol=1e-5,
        atol=0.0005,  # half of the last decimal
    )
    assert (schema.std[0, :2] > 1).all()
    assert (schema.std[0, :2] < 10).all()
    np.testing.assert_array_equal(written, np.round(written, 3))


def in_form(form):
    """The times of 244 hours, as a table has them."""
    return [form.format(np.datetime64(time).item()) for time in hours(244)]


DATE = "{0.year}-{0.month:02}-{0.day:02}"


@pytest.mark.parametrize(
    "form",
    [
        DATE + "T{0.hour:02}:{0.minute:02}:00+02:00",
        "{0.day:02}.{0.month:02}.{0.year} {0.hour:02}:{0.minute:02}",
    ],
)
def test_forecasts_and_what_they_lack_are_in_the_form_of_the_file(run, tmp_path, form):
    config, folder, _, params = run
    moved = shutil.copytree(folder, tmp_path / "moved")
    times = in_form(form)
    frame = future(frame_of(), 240).with_columns(time=pl.Series(times))
    frame.write_csv(tmp_path / "new.csv")
    out = tmp_path / "out.csv"
    said = table.predict(config, moved, params, tmp_path / "new.csv", out)
    assert pl.read_csv(out)["time"].to_list() == times[240:] * 2
    assert ("The times are local, with the offset +02:00" in " ".join(said)) == ("+02" in form)
    table.predict(config, moved, params, tmp_path / "new.csv", tmp_path / "out.parquet")
    column = pl.read_parquet(tmp_path / "out.parquet")["time"]
    assert column.dtype == pl.Datetime("us", "UTC" if "+02" in form else None)
    assert column.dt.hour()[0] == (22 if "+02" in form else 0)
    frame[:241].write_csv(tmp_path / "new.csv")
    with pytest.raises(ValueError, match=f" at {re.escape(times[241])}; the rows that are needed"):
        table.predict(config, moved, params, tmp_path / "new.csv", out)
    assert pl.read_csv(tmp_path / "out-needed.csv")["time"].to_list() == times[240:]


def european(text):
    """Semicolons, decimals after a comma, days first."""
    return re.sub(r"(\d+)-(\d+)-(\d+)", r"\3/\2/\1", text.replace(",", ";").replace(".", ","))


def in_quotes(text):
    """Each cell in quotes, with blanks around them."""
    return "\n".join(" , ".join(f'"{c}"' for c in row.split(",")) for row in text.splitlines())


def in_milliseconds(text):
    """Times as so many since 1970."""

    def count(found):
        return str(int(np.datetime64(found[0], "ms").astype(int)))

    return re.sub(r"\d+-\d+-\d+ \d+:\d+", count, text)


@pytest.mark.parametrize(
    ("name", "change", "options"),
    [
        ("t.csv.gz", lambda text: gzip.compress(text.encode()), {}),
        ("t.csv", lambda text: text.replace(",", "|").encode(), {"separator": "|"}),
        ("t.txt", lambda text: european(text).encode("utf-16"),
         {"encoding": "utf-16", "decimal": ",", "time_format": "%d/%m/%Y %H:%M"}),
        ("t.csv", lambda text: in_quotes(text).encode(), {}),
        ("t.csv", lambda text: in_milliseconds(text).encode(), {"time_format": "milliseconds"}),
    ],
)  # fmt: skip
def test_a_table_is_the_same_however_it_is_written(tmp_path, name, change, options):
    frame = frame_of(100)
    prepare, kept = table.prepare, []
    for file, write, said in (("plain.csv", str.encode, {}), (name, change, options)):
        (tmp_path / file).write_bytes(write(frame.write_csv()))
        folder = tmp_path / f"run-{file}"
        folder.mkdir()
        prepare(config_of(**said), [tmp_path / file], folder)
        known = json.loads((folder / "data/table.json").read_text())
        kept.append((known["starts"], (folder / "data/values.npy").read_bytes()))
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("start", "step", "options", "ahead"),
    [
        ("0", None, {"time_format": "steps"}, ["60", "61", "62", "63"]),
        # 60 weekdays from a Friday on end on a Thursday.
        ("2016-07-01", "weekdays", {}, ["2016-09-23", "2016-09-26", "2016-09-27", "2016-09-28"]),
        ("2011-01-31", "months", {}, ["2016-01-31", "2016-02-29", "2016-03-31", "2016-04-30"]),
        ("2011-01-31", "months", {"time_format": "%d/%m/%y"},
         ["31/01/16", "29/02/16", "31/03/16", "30/04/16"]),
    ],
)  # fmt: skip
def test_forecasts_go_on_as_the_rows_do(tmp_path, start, step, options, ahead):
    count = np.arange(60)
    times = count.astype(str)
    if step == "weekdays":
        times = np.busday_offset(start, count).astype(str)
    if step == "months":
        months = np.datetime64(start, "M") + (1 + count).astype("timedelta64[M]")
        ends = months.astype("datetime64[D]") - np.timedelta64(1, "D")
        times = [end.strftime(options.get("time_format", "%Y-%m-%d")) for end in ends.tolist()]
    frame = pl.DataFrame({"time": times, "load": np.sin(count)})
    config = config_of(target="load", known_future=(), lookback=8, **options)
    folder = prepared(tmp_path, frame, config)
    params = table.build(config, folder).init(jax.random.key(0))
    table.predict(config, folder, params, tmp_path / "t.csv", tmp_path / "out.csv")
    assert read_table(tmp_path / "out.csv")["time"].to_list() == ahead


def test_forecasts_keep_the_type_of_a_parquet_files_times(run, tmp_path):
    config, folder, _, params = run
    when = pl.Series(hours(244)).str.to_datetime().cast(pl.Datetime("ms"))
    when = when.dt.replace_time_zone("Europe/Berlin")
    future(frame_of(), 240).with_columns(time=when).write_parquet(tmp_path / "new.parquet")
    for kind in ("parquet", "csv"):
        table.predict(config, folder, params, tmp_path / "new.parquet", tmp_path / f"out.{kind}")
    column = pl.read_parquet(tmp_path / "out.parquet")["time"]
    assert column.dtype == pl.Datetime("ms", "Europe/Berlin")
    assert column[:HORIZON].equals(when[240:])
    assert pl.read_csv(tmp_path / "out.csv")["time"][0] == "2016-07-11 00:00:00+02:00"


def test_a_file_of_dates_gets_dates(tmp_path):
    days = np.arange("2016-01-01", "2016-08-01", dtype="datetime64[D]").astype(str)
    frame = frame_of()[: len(days)].with_columns(time=pl.Series(days))
    config = config_of(target="load", known_future="")
    folder = prepared(tmp_path, frame, config)
    params = table.build(config, folder).init(jax.random.key(0))
    for kind in ("csv", "parquet"):
        table.predict(config, folder, params, tmp_path / "t.csv", tmp_path / f"out.{kind}")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [f"2016-08-0{n}" for n in range(1, 5)]
    assert max(len(cell.partition(".")[2]) for line in lines[1:] for cell in line.split(",")) == 3
    assert pl.read_parquet(tmp_path / "out.parquet")["time"].dtype == pl.Date


def test_a_run_keeps_the_local_time_of_its_rows(tmp_path):
    ahead = np.where(np.arange(HOURS) < 100, 1, 2)
    local = np.array(hours(HOURS), "datetime64[m]") + ahead.astype("timedelta64[h]")
    cells = [f"{time}+0{h}:00" for time, h in zip(local, ahead, strict=True)]
    frame = frame_of().with_columns(time=pl.Series(cells))
    config = config_of()
    folder = prepared(tmp_path, frame, config)
    _, schema, series = preparing.load(folder)
    np.testing.assert_array_equal(series.local(schema.step), local)
    assert schema.form == series.form
    assert schema.form.write(series.local(schema.step)[-1:]) == cells[-1:]
    job = table.build(config, folder)
    about = " ".join(job.about)
    assert "The offset of the times changes, in row 102 from +01:00 to +02:00." in about
    # The same moments, with another offset: one origin lies in the training part.
    ahead = series.times(schema.step)[181 - LOOKBACK : 200] + np.timedelta64(4, "h")
    elsewhere = [f"{time}+05:00" for time in ahead.astype("datetime64[m]")]
    frame[181 - LOOKBACK : 200].with_columns(time=pl.Series(elsewhere)).write_csv(
        tmp_path / "part.csv"
    )
    params = job.init(jax.random.key(0))
    said = told_of_training((config, folder, job, params), tmp_path / "part.csv")
    assert said[0].startswith("The model has seen it: 1 of 16 origins lie in the time")
    # Without an offset the clock is another, and the series are the same.
    frame_of().write_csv(tmp_path / "t.csv")
    (tmp_path / "other").mkdir()
    table.prepare(config, [tmp_path / "t.csv"], tmp_path / "other")
    _, other, plain = preparing.load(tmp_path / "other")
    assert plain.shift is None
    assert (other.validation, other.test) == (
        schema.validation - np.timedelta64(1, "h"),
        schema.test - np.timedelta64(1, "h"),
    )


def cells_of(local, change, before, after):
    """Local times, with the offset in hours that they have until the clocks change, and then."""
    ahead = np.where(local < np.datetime64(change), before, after)
    return [f"{time}:00{h:+03}:00" for time, h in zip(local, ahead, strict=True)]


def hours_of_berlin(rows):
    utc = np.datetime64("2023-03-22T00:00") + np.arange(rows) * np.timedelta64(1, "h")
    ahead = np.where(utc < np.datetime64("2023-03-26T01"), 1, 2)
    return cells_of(utc + ahead.astype("timedelta64[h]"), "2023-03-26T02", 1, 2)


def midnights(first, rows):
    return (np.datetime64(first) + np.arange(rows)).astype("datetime64[m]")


def days_of_berlin(rows):  # until summer
    return cells_of(midnights("2023-01-01", rows), "2023-03-26T02", 1, 2)


def days_of_new_york(rows):  # until winter
    return cells_of(midnights("2022-09-15", rows), "2022-11-06T02", -4, -5)


@pytest.mark.parametrize(
    "series", [[hours_of_berlin], [days_of_berlin, days_of_new_york]], ids=["hours", "days"]
)
def test_forecasts_have_the_last_offset_of_their_series(tmp_path, series):
    rows = 150
    load = frame_of()["load"][:rows]
    frame = pl.concat(
        pl.DataFrame({"g": [str(n)] * rows, "time": cells(rows), "load": load})
        for n, cells in enumerate(series)
    )
    config = config_of(target="load", known_future="", group="g")
    folder = prepared(tmp_path, frame, config)
    params = table.build(config, folder).init(jax.random.key(0))
    expected = [cell for cells in series for cell in cells(rows + HORIZON)[rows:]]
    for kind in ("csv", "parquet"):
        table.predict(config, folder, params, tmp_path / "t.csv", tmp_path / f"out.{kind}")
    assert pl.read_csv(tmp_path / "out.csv")["time"].to_list() == expected
    moments = pl.Series(expected).str.to_datetime(time_zone="UTC", time_unit="us")
    np.testing.assert_array_equal(pl.read_parquet(tmp_path / "out.parquet")["time"], moments)


def test_the_price_to_come_moves_the_forecast(run, tmp_path):
    config, folder, _, params = run
    found = []
    for price in (0, 1):
        new = future(frame_of(), 240).with_columns(
            pl.when(pl.int_range(pl.len()) == 241).then(price).otherwise("price").alias("price")
        )
        new.write_csv(tmp_path / "new.csv")
        table.predict(config, folder, params, tmp_path / "new.csv", tmp_path / "out.csv")
        found.append(pl.read_csv(tmp_path / "out.csv")["q0.5"].to_numpy()[:HORIZON])
    change = found[1] - found[0]
    assert change[1] == pytest.approx(8, abs=2)
    assert np.abs(np.delete(change, 1)).max() < 2


def test_what_has_to_be_known_of_the_future_is_asked_for(run, tmp_path):
    config, folder, _, params = run
    future(frame_of(), 240, count=2).write_csv(tmp_path / "new.csv")
    out = tmp_path / "out.csv"
    with pytest.raises(
        ValueError,
        match=r"known_future: expected values for 4 steps .*, got 2 missing, the first of column "
        r"'price' at 2016-07-11 02:00; .* are in .*out-needed\.csv",
    ):
        table.predict(config, folder, params, tmp_path / "new.csv", out)
    assert not out.exists()
    needed = pl.read_csv(tmp_path / "out-needed.csv")
    assert needed.columns == ["time", "load", "other", "price"]
    assert needed.height == HORIZON
    assert needed["price"].null_count() == 2
    # Filled in and added, it is what was needed.
    filled = needed.with_columns(pl.col("price").fill_null(1.0)).cast(pl.String)
    history = frame_of()[:240].select(needed.columns).cast(pl.String)
    pl.concat([history, filled]).write_csv(tmp_path / "new.csv")
    table.predict(config, folder, params, tmp_path / "new.csv", out)
    assert pl.read_csv(out).height == 2 * HORIZON


def test_a_history_that_is_too_short_or_has_gaps_is_refused(run, tmp_path):
    config, folder, _, params = run
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    future(frame_of()[229:], 11).write_csv(new)
    with pytest.raises(ValueError, match=r"expected at least 12 rows with targets .*, got 11"):
        table.predict(config, folder, params, new, out)
    gap = future(frame_of(), 240)
    gap = pl.concat([gap[:235], gap[236:]])
    gap.write_csv(new)
    with pytest.raises(ValueError, match=r"missing: expected a value .* first at 2016-07-10 19:00"):
        table.predict(config, folder, params, new, out)
    pl.concat(
        [gap[:100], gap[101:235], frame_of()[235:236].select(gap.columns), gap[235:]]
    ).write_csv(new)
    table.predict(config, folder, params, new, out)  # long before the window, nobody minds
    with pytest.raises(
        ValueError, match=r"out: expected a \.csv or \.parquet file, got .*out\.txt"
    ):
        table.predict(config, folder, params, new, tmp_path / "out.txt")


def test_many_series_with_gaps_static_and_past_columns(tmp_path):
    generator = np.random.default_rng(5)
    parts = []
    for n, name in enumerate(("north", "south", "east")):
        load, _ = signal(120 + 10 * n, seed=n)
        holes = generator.random(len(load)) < 0.1
        parts.append(
            pl.DataFrame(
                {
                    "site": [name] * len(load),
                    "kind": ["coast" if n else "inland"] * len(load),
                    "time": hours(len(load)),
                    "load": [None if h else x for h, x in zip(holes, load, strict=True)],
                    "wind": generator.normal(size=len(load)),
                }
            )
        )
    frame = pl.concat([part[:50].vstack(part[52:]) for part in parts])
    config = config_of(
        target="load",
        known_future="",
        past="wind",
        static="kind",
        group="site",
        missing="interpolate",
        quantiles=(0.05, 0.25, 0.75, 0.95),
    )
    with pytest.raises(ValueError, match=r"missing: expected a value .* 6 steps of time without a"):
        prepared(tmp_path, frame, config_of(target="load", known_future="", group="site"))
    folder = prepared(tmp_path, frame, config)
    job, params = trained(config, folder)
    assert any("a line between the neighbours" in sentence for sentence in job.about)
    found = table.evaluate(config, folder, params)
    assert found.results["by_series"]["names"] == ["north", "south", "east"]
    assert found.results["nominal_coverage"] == pytest.approx(0.9)
    table.predict(config, folder, params, tmp_path / "t.csv", tmp_path / "out.csv")
    rows = pl.read_csv(tmp_path / "out.csv")
    assert rows.columns == ["site", "time", "target", "q0.05", "q0.25", "q0.5", "q0.75", "q0.95"]
    assert rows["site"].to_list() == ["north"] * 4 + ["south"] * 4 + ["east"] * 4
    values = rows.select(pl.selectors.starts_with("q")).to_numpy()
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= 0).all()
    stranger = frame.with_columns(pl.lit("west").alias("site"))[:60]
    stranger.write_csv(tmp_path / "west.csv")
    said = table.predict(config, folder, params, tmp_path / "west.csv", tmp_path / "out.csv")
    assert any("The model was not trained on west" in sentence for sentence in said)


# Targets that do not vary.


def test_a_target_that_varies_at_one_step_only_has_a_finite_loss(tmp_path):
    load = np.full(HOURS, 3.0)
    load[181] = 4  # the last of the training part: no window has it in its past
    frame = frame_of().with_columns(load=load)
    config = config_of(target="load", known_future="")
    job = table.build(config, prepared(tmp_path, frame, config))
    params = job.init(jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert np.isfinite(job.validate(params))
    assert np.isfinite(job.loss(params, None, job.batch(0))[0])


def test_series_that_do_not_vary_are_left_out_of_everything(tmp_path):
    load, _ = signal(120)
    values = {"a": load, "b": np.full(120, 2.0), "c": load + 50}
    parts = [
        pl.DataFrame({"site": [name] * 120, "time": hours(120), "load": column})
        for name, column in values.items()
    ]
    config = config_of(target="load", known_future="", group="site")
    folder = prepared(tmp_path, pl.concat(parts), config)
    job = table.build(config, folder)
    left_out = "Column 'load' is constant in the training part of b: left out there."
    assert left_out in job.about
    params = job.init(jax.random.key(0))
    found = table.evaluate(config, folder, params)
    results = found.results
    assert [one.title for one in found.tables][-1] == "For each series, the model"
    assert re.search(r"lower MAE for . of 2 series: ", " ".join(found.notes))
    assert np.isfinite(results["scaled"]["model"]["mae"])
    assert results["by_series"]["model"]["mae"][1] is None
    out = tmp_path / "out.csv"
    said = table.predict(config, folder, params, tmp_path / "t.csv", out)
    assert "Left out is what did not vary when the model was trained: b load." in said
    rows = pl.read_csv(out)
    assert rows["site"].to_list() == ["a"] * HORIZON + ["c"] * HORIZON
    assert np.isfinite(rows["q0.5"].to_numpy()).all()
    parts[1].write_csv(tmp_path / "b.csv")
    with pytest.raises(ValueError, match=r"b\.csv: expected a target .* not vary .*: b load$"):
        table.predict(config, folder, params, tmp_path / "b.csv", out)
    with pytest.raises(
        ValueError, match=r"b\.csv: expected at least .* that varied in the training"
    ):
        table.evaluate(config, folder, params, tmp_path / "b.csv")


# What is asked for.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ""}, "target: expected at least one column, got none"),
        ({"target": "load,,other"}, "target: expected names of different columns, got 'load,,"),
        ({"target": "load,load"}, "target: expected names of different columns, got 'load,load'"),
        ({"target": "time"}, "target: expected other columns than those of time, got 'time'"),
        ({"group": "target"}, "time, group: expected other names than those of what is written"),
        ({"time": "q0.1"}, "time, group: expected other names .*, target, q0.1, .*, got q0.1"),
        ({"past": "price"}, "known_future: expected other columns than those of past, got 'price'"),
        ({"time": "a,b"}, "time: expected the name of one column, got 'a,b'"),
        ({"horizon": 0}, "horizon: expected at least 1, got 0"),
        ({"lookback": 0}, "lookback: expected at least 1, got 0"),
        ({"quantiles": (0.1, 1.0)}, "quantiles: expected a finite number .* got 1.0"),
        ({"quantiles": (0, 0.5)}, "quantiles: expected a finite number above 0 and below 1, got 0"),
        (
            {"missing": "drop"},
            "missing: expected one of 'error', 'fill', 'interpolate', got 'drop'",
        ),
        ({"dropout": 1.0}, "dropout: expected a finite number of at least 0 and below 1"),
    ],
)
def test_a_wrong_option_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        config_of(**options)


def test_columns_and_quantiles_are_put_in_order():
    config = config_of(target=" load , other", quantiles=(0.9, 0.1), validation=0.2)
    assert config.target == ("load", "other")
    assert config.quantiles == (0.1, 0.5, 0.9)
    assert config.validation == "0.2"
    assert config.past == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 30}, "validation: expected at least 30 rows, a horizon, got 26 rows"),
        ({"lookback": 200}, r"training: expected at least 204 rows, a window of 200 \+ 4, got 182"),
        ({"horizon": 30, "validation": "0.3"}, None),
        ({"until": "2016-07-01 10:00"}, "training: expected at least 16 rows"),
    ],
)
def test_a_table_too_short_for_its_windows_is_refused(tmp_path, options, message):
    if message is None:
        prepared(tmp_path, frame_of(), config_of(**options))
        return
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, frame_of(), config_of(**options))


def test_a_short_series_keeps_its_seasonal_baseline_or_it_is_told(tmp_path):
    months = [f"{2015 + n // 12}-{n % 12 + 1:02}" for n in range(40)]
    frame = pl.DataFrame({"time": months, "load": np.sin(np.arange(40))})
    config = config_of(target="load", known_future=(), lookback=None, horizon=3)
    folder = prepared(tmp_path, frame, config)  # the training part has 28 months
    assert preparing.load(folder)[1].season == 12
    params = table.build(config, folder).init(jax.random.key(0))
    assert "seasonal naive" in table.evaluate(config, folder, params).results["scaled"]
    config = config_of(target="load", known_future=(), lookback=6, horizon=2, test="0.4")
    folder = prepared(tmp_path, frame, config)  # and now 20
    params = table.build(config, folder).init(jax.random.key(0))
    said = "The seasonal naive forecast is left out: the training part is too short for a season of"
    assert f"{said} 12 steps; see --season." in table.evaluate(config, folder, params).notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"season": 100_000}, "season: expected fewer steps than the training part has, 182, got"),
        ({"season": 182}, "season: expected fewer steps than the training part has, 182, got 182"),
        ({"patch": 1000, "lookback": None}, "patch: expected at most the 48 steps to .* --lookb"),
    ],
)
def test_what_reaches_beyond_the_table_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, frame_of(), config_of(**options))


def test_one_step_is_told_as_one_and_times_alike(tmp_path):
    config = config_of(lookback=1, horizon=1, steps=1)
    about = " ".join(table.build(config, prepared(tmp_path, frame_of(), config)).about)
    assert "A window has 1 step to forecast from" in about
    assert "; 1 step, or " in about
    assert "Training up to 2016-07-08 14:00 (182 rows)" in about
    with pytest.raises(ValueError, match=r" of 2016-07-01 00:00 to 2016-07-11 19:00 in steps of 1"):
        prepared(tmp_path, frame_of(), config_of(horizon=30))


@pytest.mark.parametrize("size", [1e200, 1e300])
def test_values_too_large_to_scale_are_refused(tmp_path, size):
    rows = size * pl.int_range(HOURS).sin()
    for name in ("load", "price"):
        frame = frame_of().with_columns(rows.alias(name))
        with pytest.raises(ValueError, match=f"column '{name}': expected values whose standard"):
            prepared(tmp_path, frame, config_of())
        assert not (tmp_path / "run/data").exists()


def test_numbers_that_make_a_scale_are_told_for_each_part(tmp_path):
    frame = frame_of()
    load = frame["load"].to_numpy().copy()
    load[[30, 31]], load[250] = -999, 9999
    spoilt = frame.with_columns(load=load)
    folder = prepared(tmp_path, spoilt, config_of())
    early, late = (n for n in preparing.load(folder)[0]["notes"] if "far from all others" in n)
    assert early.startswith("Column 'load', row 32: -999 and 1 other number are far")
    assert "in the training part" in early
    assert late.startswith("Column 'load', row 252: 9999 is far from all others;")
    assert "in what is kept back" in late
    (tmp_path / "clean").mkdir()
    clean = prepared(tmp_path / "clean", frame, config_of())
    assert not any("far from" in n for n in preparing.load(clean)[0]["notes"])
    # And of a file that a run goes on with.
    more = tmp_path / "more"
    more.mkdir()
    going_on = prepared(more, spoilt, config_of(from_=clean))
    told = [n for n in preparing.load(going_on)[0]["notes"] if "far from all others" in n]
    assert told == [early, late]


@pytest.mark.parametrize(("validation", "few"), [("0.1", True), ("0.3", False)])
def test_few_windows_for_validation_are_told(tmp_path, validation, few):
    config = config_of(target="load", validation=validation)  # 26 or 78 rows, in windows of 4
    about = table.build(config, prepared(tmp_path, frame_of(), config)).about
    said = "Of those for validation 5 do not overlap: what it chooses is partly luck."
    assert any(said in sentence for sentence in about) == few


def test_what_is_checked_is_what_a_run_will_read(tmp_path, monkeypatch):
    def lost(schema):
        return {**json_of(schema), "std": [[None] * 3]}

    json_of = preparing.Schema.to_json
    monkeypatch.setattr(preparing.Schema, "to_json", lost)
    with pytest.raises(ValueError, match="training: expected at least 16 rows"):
        prepared(tmp_path, frame_of(), config_of())


def test_one_file_is_expected(tmp_path):
    with pytest.raises(ValueError, match="files: expected one table, got 2"):
        table.prepare(config_of(), [tmp_path, tmp_path], tmp_path)


def test_the_model_begins_at_the_linear_fit(run):
    config, folder, job, _ = run
    _, schema, series = preparing.load(folder)
    expected = fit_baseline(make_panel(series, schema), series)
    fresh = job.init(jax.random.key(0))
    np.testing.assert_allclose(fresh.linear.window, expected, rtol=1e-5, atol=1e-7)
    assert table.build(replace(config, linear=False), folder).init(jax.random.key(0)).linear is None
