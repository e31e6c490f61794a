"""Runs with a seed each: mean and spread, the best by validation, and going on."""

import csv
import json
import math
import shlex
import shutil
import statistics
from dataclasses import replace

import pytest
from small_runs import labelled, nothing, result, table, text

from jlstm.runs import run as jobs
from jlstm.runs import seeds
from jlstm.runs.folder import best_run, read_config, summaries
from jlstm.runs.origin import lengthen
from jlstm.runs.report import write_report
from jlstm.runs.use import evaluate, load
from jlstm.tasks.table.config import TableConfig

SHORT = {"steps": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("files") / "load.csv"


@pytest.fixture(scope="module")
def asked(file):
    return replace(table(file), **SHORT, seed=3)


@pytest.fixture(scope="module")
def three(tmp_path_factory, asked, file):
    """Three seeds, nothing happened to them; and what was said."""
    said = []
    out = tmp_path_factory.mktemp("runs")
    folder = seeds.start(replace(asked, out=out, name="three"), file, count=3, say=said.append)
    return seeds.resume(folder, say=said.append), said


def results_of(folder):
    return [json.loads((folder / f"seed-{n}/result.json").read_text()) for n in (3, 4, 5)]


def test_each_is_a_run_like_any_other(three, asked, file, tmp_path):
    folder = three[0].folder
    assert three[0].finished
    assert sorted(path.name for path in folder.glob("seed-*")) == ["seed-3", "seed-4", "seed-5"]
    alone = jobs.train(replace(asked, seed=4, out=tmp_path), file, say=nothing)
    assert result(folder / "seed-4", 6) == result(alone.folder, 6)
    assert [read_config(folder / f"seed-{n}").seed for n in (3, 4, 5)] == [3, 4, 5]


def test_mean_and_spread_are_those_of_the_runs(three):
    folder = three[0].folder
    about = json.loads((folder / "seeds.json").read_text())
    found = [one["scores"] for one in results_of(folder)]
    assert set(about["measures"]) == set(found[0])
    assert {"MAE s", "MSE s", "RMSE", "MASE", "coverage"} <= set(about["measures"]["model"])
    for who, measures in about["measures"].items():
        for what, one in measures.items():
            values = [run[who][what] for run in found]
            assert one["n"] == 3
            assert math.isclose(one["mean"], sum(values) / 3)
            squares = sum((value - one["mean"]) ** 2 for value in values)
            assert math.isclose(one["sd"], math.sqrt(squares / 2), abs_tol=1e-12)
    assert about["measures"]["model"]["MAE s"]["sd"] > 0
    assert about["measures"]["last value"]["MAE s"]["sd"] == pytest.approx(0, abs=1e-12)
    losses = [one["best_loss"] for one in results_of(folder)]
    assert about["validation_loss"]["mean"] == pytest.approx(statistics.fmean(losses))
    assert [run["validation_loss"] for run in about["runs"]] == losses
    rows = csv.DictReader((folder / "seeds.csv").read_text().splitlines())
    (row,) = [row for row in rows if (row["of"], row["measure"]) == ("model", "MAE s")]
    assert float(row["mean"]) == about["measures"]["model"]["MAE s"]["mean"]
    assert [float(row[f"seed {n}"]) for n in (3, 4, 5)] == [f["model"]["MAE s"] for f in found]


def test_the_best_is_that_of_the_lowest_validation_loss(three):
    folder = three[0].folder
    losses = {n: one["best_loss"] for n, one in zip((3, 4, 5), results_of(folder), strict=True)}
    best = f"seed-{min(losses, key=losses.get)}"
    assert three[0].best == best_run(folder) == folder / best
    assert json.loads((folder / "seeds.json").read_text())["best"] == best
    runs, spread = three[0].tables
    assert [runs.rows[n][0] for n in runs.best] == [best.removeprefix("seed-")]
    assert "±" in spread.rows[0][1]
    said = []
    assert load(folder, say=said.append).folder == folder / best
    assert said == [f"Of the runs in {folder}, {best} has the lowest validation loss."]
    assert (
        evaluate(folder, say=nothing).verdict
        == json.loads((folder / best / "result.json").read_text())["verdict"]
    )


def test_each_page_tells_mean_and_spread(three, tmp_path):
    folder = three[0].folder
    (spread,) = [row[1] for row in three[0].tables[1].rows if row[0] == "model"]
    for n in (3, 4, 5):
        page = (folder / f"seed-{n}/report.html").read_text()
        assert page.count("Several seeds") == 2  # the section, and the way to it
        assert f"<td>{spread}</td>" in page
    alone = shutil.copytree(folder / "seed-3", tmp_path / "seed-3")
    assert "Several seeds" not in write_report(alone).read_text()


def test_a_run_made_longer_is_none_of_the_seeds(three, tmp_path):
    folder = shutil.copytree(three[0].folder, tmp_path / "three")
    best, said = three[0].best.name, []
    longer = lengthen(folder, steps=8, name="longer", say=said.append)
    assert longer.parent == tmp_path
    assert said[0] == f"Of the runs in {folder}, {best} has the lowest validation loss."
    within = lengthen(folder / "seed-3", steps=8, say=nothing)
    assert within.parent == folder
    (within / "best.json").write_text('{"loss": -1.0}')
    (within / "result.json").write_text("{}")
    assert best_run(folder).name == best
    (three_of_them,) = [one for one in summaries(tmp_path) if one.folder == folder]
    assert (three_of_them.changed["seeds"], three_of_them.changed["best"]) == (3, best)


def test_the_test_part_does_not_choose(tmp_path):
    """Of two finished runs the worse one on the test part is taken, if validation says so."""
    (tmp_path / "seeds.json").write_text('{"seeds": [0, 1, 2]}')
    for n, loss in enumerate((0.3, 0.2, 0.1)):
        run = tmp_path / f"seed-{n}"
        run.mkdir()
        (run / "config.json").write_text("{}")
        (run / "best.json").write_text(json.dumps({"loss": loss}))
        if n < 2:  # the last has not finished
            (run / "result.json").write_text(json.dumps({"scores": {"LSTM": {"MAE": n}}}))
    assert best_run(tmp_path).name == "seed-1"
    for n in range(3):
        (tmp_path / f"seed-{n}/result.json").unlink(missing_ok=True)
    assert best_run(tmp_path).name == "seed-2"
    for n in range(3):
        (tmp_path / f"seed-{n}/best.json").unlink()
    with pytest.raises(ValueError, match=r"run: expected trained models in .*jlstm resume"):
        best_run(tmp_path)


def test_interrupted_runs_go_on_and_finished_ones_are_left_alone(tmp_path, three, asked, file):
    copy = tmp_path / "copy.csv"
    copy.write_bytes(file.read_bytes())
    folder = seeds.start(replace(asked, out=tmp_path, name="some"), copy, count=3, say=nothing)
    copy.unlink()  # it is not needed any more
    asks = iter([False] * 9 + [True])  # in the middle of the second
    found = seeds.resume(folder, say=nothing, interrupted=lambda: next(asks))
    assert not found.finished
    (one,) = summaries(tmp_path)
    assert (one.folder, one.status, one.changed["seeds"]) == (folder, "stopped", 3)
    folder = folder.rename(tmp_path / "moved")
    before = (folder / "seed-3/metrics.jsonl").stat().st_mtime_ns
    said = []
    found = seeds.resume(folder, say=said.append)
    assert found.finished
    assert (folder / "seed-3/metrics.jsonl").stat().st_mtime_ns == before
    assert [line for line in said if line.startswith("Seed") and "of 3" in line] == [
        "Seed 4, 2 of 3.",
        "Seed 5, 3 of 3.",
    ]
    for n in (3, 4, 5):
        assert result(folder / f"seed-{n}", 6) == result(three[0].folder / f"seed-{n}", 6)
    about = [json.loads((f / "seeds.json").read_text()) for f in (folder, three[0].folder)]
    assert about[0] == about[1]
    (one,) = summaries(tmp_path)
    assert (one.status, one.changed["best"]) == ("finished", three[0].best.name)
    assert len(summaries(folder)) == 3


def test_what_the_data_is_made_into_is_told_once(three):
    outcome, said = three
    about = json.loads((outcome.folder / "seed-4/about.json").read_text())
    assert len(about) > 1
    assert [said.count(sentence) for sentence in about] == [1] * len(about)
    for n in (3, 4, 5):  # and each run has it in its own log
        assert about[0] in (outcome.folder / f"seed-{n}/log.txt").read_text()


def test_a_seed_that_fails_is_left_out(tmp_path, three, monkeypatch):
    folder = three[0].folder
    own = tmp_path / "my own"
    own.mkdir()
    (own / "seeds.json").write_text('{"seeds": [3, 4, 5]}')
    for n in (4, 5):
        (own / f"seed-{n}").symlink_to(folder / f"seed-{n}")
    with pytest.raises(ValueError, match="seed-3: expected a run, but it is not there") as missing:
        seeds.resume(own, say=nothing)
    again = str(missing.value).partition("to train it: ")[2]
    config = shlex.split(again)[4]
    assert config in {f"{own}/seed-{n}/config.toml" for n in (4, 5)}
    rest = ["--seed", "3", "--out", str(own), "--name", "seed-3"]
    assert shlex.split(again) == ["jlstm", "train", "table", "--config", config, *rest]
    shutil.copytree(folder / "seed-3", own / "seed-3")
    (own / "seed-3/result.json").unlink()

    def fail(*arguments, **options):
        raise FloatingPointError("loss: expected a finite number, got nan at step 1")

    monkeypatch.setattr(jobs, "resume", fail)
    said = []
    found = seeds.resume(own, say=said.append)
    assert found.finished
    about = json.loads((own / "seeds.json").read_text())
    assert about["runs"][-1] == {"seed": 3, "failed": "loss: expected a finite number, got nan at "
                                 "step 1"}  # fmt: skip
    assert about["measures"]["model"]["MAE s"]["n"] == 2
    assert any(line.startswith("Seed 3 is left out.") for line in said)
    for n in (4, 5):
        (own / f"seed-{n}").unlink()
    (own / "seeds.json").write_text('{"seeds": [3]}')
    with pytest.raises(FloatingPointError, match="got nan"):
        seeds.resume(own, say=nothing)


def test_what_cannot_be_trained_leaves_nothing(tmp_path, asked, file):
    wrong = TableConfig(time="hour", target="nope", horizon=4, out=tmp_path / "new")
    with pytest.raises(ValueError, match="nope"):
        seeds.start(wrong, file, count=2, say=nothing)
    assert not (tmp_path / "new").exists()


def test_a_damaged_list_of_seeds_is_named(tmp_path):
    for said in ("[]", '{"seeds": []}', '{"seeds": ["a"]}', "nothing"):
        (tmp_path / "seeds.json").write_text(said)
        with pytest.raises(ValueError, match=r"seeds\.json: expected the seeds of the runs"):
            seeds.resume(tmp_path, say=nothing)


@pytest.mark.slow
@pytest.mark.parametrize("make", [text, labelled])
def test_it_is_so_for_every_kind(tmp_path, make):
    path = tmp_path / "file"
    path = path.with_suffix(".csv")
    asked = replace(make(path), **SHORT, name="two", out=tmp_path / "runs")
    found = seeds.resume(seeds.start(asked, path, count=2, say=nothing), say=nothing)
    about = json.loads((found.folder / "seeds.json").read_text())
    assert about["measures"]["LSTM"]
    assert all(one["n"] == 2 for m in about["measures"].values() for one in m.values())


def test_the_spread_is_that_of_a_sample():
    assert seeds.spread([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)), 2)
    assert seeds.spread([1.0]) == (1.0, None, 1)
    found = seeds.spreads([{"a": {"x": 1.0, "y": None}}, {"a": {"x": 2.0, "y": 5.0}}])
    assert found["a"]["x"] == (1.5, pytest.approx(math.sqrt(0.5)), 2)
    assert found["a"]["y"] == (5.0, None, 1)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.28431, 0.28591), "0.2851 ± 0.0011"),
        ((1234.0, 1301.0), "1268 ± 47"),
        ((0.5, 0.5), "0.5 ± 0"),
        ((12.3456,), "12.35"),
    ],
)
def test_a_spread_is_shown_in_two_digits(values, shown):
    assert seeds.show_spread(seeds.spread(values)) == shown
    assert seeds.show_spread(None) == "–"
