"""A run trained again on other splits: kept, gone on with, and joined; the run stays as it is."""

import json
import shutil

import polars as pl
import pytest
from command_line import command
from small_runs import labelled, nothing, table

from jlstm.runs.backtest import backtest
from jlstm.runs.folder import read_config, summaries
from jlstm.runs.run import start, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "load.csv"
    folder = train(table(file), file, say=nothing).folder
    file.unlink()  # the folder is all that is needed
    return folder


def contents(folder):
    """Of all files that are not about when and how it was judged."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    other = {".lock", "log.txt", "timing.jsonl", "evaluation", "plots", "report.html"}
    return {str(name): paths[name].read_bytes() for name in paths if not other & {*name.parts}}


def test_a_run_is_refitted_and_goes_on_where_it_was_stopped(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    before = contents(moved)
    steps = 0

    def soon():
        nonlocal steps
        steps += 1
        return steps == 30  # of 24: in the second of them

    assert backtest(moved, 2, "refit", say=nothing, interrupted=soon) is None
    home = moved / "evaluation/refit-2"
    assert [one.status for one in summaries(home)] == ["finished", "stopped"]
    kept = contents(home / "1")
    said = []
    found = backtest(moved, 2, "refit", say=said.append)
    assert [one.status for one in summaries(home)] == ["finished", "finished"]
    assert contents(home / "1") == kept
    assert contents(moved) == before
    assert any("Going on from the checkpoint of step" in sentence for sentence in said)
    assert found.results["refitted"] == 2
    written = json.loads((moved / "evaluation/refit-2.json").read_text())
    assert written["refit"] == 2
    assert written["verdict"] == found.verdict
    page = (moved / "report.html").read_text()
    assert "<h3>Trained anew on other splits: --refit 2</h3>" in page
    assert "the model trained on all before it, and trained once" in page
    # The first stretch begins where the test part does: it is the run itself, bit for bit.
    for name in ("best.safetensors", "metrics.jsonl", "calibration.safetensors"):
        assert kept[name] == before[name]
    own = read_config(home / "1")
    assert (own.steps, own.name) == (24, "1")
    # Asked for once more, nothing is trained.
    out = tmp_path / "f.parquet"
    again = backtest(moved, 2, "refit", forecasts=out, say=nothing, interrupted=lambda: 1 / 0)
    assert (again.results, again.verdict) == (found.results, found.verdict)
    assert (moved / "report.html").read_text() == page
    # The forecasts are those of both models, one stretch behind the other.
    saved = pl.read_parquet(out)
    assert saved["origin"].unique().len() == found.results["origins"]
    assert saved["origin"].is_sorted()
    error = float((saved["truth"] - saved["q0.5"]).abs().mean())
    assert error == pytest.approx(found.results["raw"]["model"]["mae"], rel=1e-9)


def test_trainings_get_every_core_though_something_is_judged_before(run, monkeypatch):
    done = []
    monkeypatch.setattr("jlstm.runs.backtest.use_cores", lambda: done.append("cores"))
    monkeypatch.setattr("jlstm.runs.backtest.evaluate", lambda *a, **o: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backtest(run, 2, "refit", say=nothing)
    assert done == ["cores"]


def test_what_cannot_be_split_so_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"refit: expected at most the 117 origins .*, got 200"):
        backtest(run, 200, "refit", say=nothing)
    with pytest.raises(ValueError, match=r"folds: .* got one of jlstm train table; see --refit"):
        backtest(run, 2, "folds", say=nothing)
    file = tmp_path / "walks.csv"
    other = start(labelled(file), file, say=nothing)
    with pytest.raises(ValueError, match=r"refit: .* got one of jlstm train sequences"):
        backtest(other, 2, "refit", say=nothing)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--refit 2 --folds 2", "--refit, --folds: expected one of them"),
        ("x.csv --refit 2", "--refit, FILE: expected one of them"),
        ("--dynamic --save-forecasts f.parquet", "--save-forecasts, --dynamic: expected one of"),
        ("--refit 2 --dynamic", "--refit, --dynamic: expected one of them"),
        ("--folds 2 --save-forecasts f.parquet", "--save-forecasts, --folds: expected one of"),
        ("--save-forecasts f.csv", "--save-forecasts: expected a name that ends in .parquet, got"),
        ("--save-forecasts none/f.parquet", "--save-forecasts: there is no directory"),
        ("--refit 0", "--refit"),
        ("--refit 200", "refit: expected at most the 117 origins of the test part, got 200"),
    ],
)
def test_mistakes(run, options, said):
    ended = command("evaluate", run, *options.split())
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_the_command_to_go_on_is_as_it_was_typed(run, monkeypatch):
    monkeypatch.setattr("jlstm.runs.backtest.backtest", lambda *a, **o: None)  # it was interrupted
    ended = command("evaluate", "my run", "--refit", 2, "--save-forecasts", "my f.parquet")
    assert ended.status == 130
    again = "jlstm evaluate 'my run' --refit 2 --save-forecasts 'my f.parquet'\n"
    assert ended.out.endswith(f"To go on:\n  {again}")


def test_a_name_that_the_file_has_is_refused_before_anything_is_trained(run, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    known = json.loads((moved / "config.json").read_text())
    known["options"]["time"] = "step"
    (moved / "config.json").write_text(json.dumps(known))
    with pytest.raises(ValueError, match=r"save_forecasts: expected other names .* than 'step'"):
        backtest(moved, 2, "refit", forecasts=tmp_path / "f.parquet", say=nothing)
    assert not (moved / "evaluation/refit-2").exists()


def test_forecasts_are_saved_on_request(run, tmp_path):
    out = tmp_path / "f.parquet"
    ended = command("evaluate", run, "--save-forecasts", out)
    assert (ended.status, ended.err) == (0, "")
    assert "the forecasts of each window, are in" in ended.out
    assert out.is_file()
