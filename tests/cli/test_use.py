"""`jlstm evaluate`, `predict` and `runs`: what they print and write, and mistakes."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from command_line import mistake, said

TEXT = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(200))
HOURS = [f"2020-01-{1 + n // 24:02d} {n % 24:02d}:00" for n in range(200)]
LOAD = [f"{hour},{math.sin(n / 4) + n % 3:.3f}" for n, hour in enumerate(HOURS)]
STEPS = [(s, t) for s in range(40) for t in range(5)]
KINDS = [f"{s},{t},{(3 * t + s % 2) % 5},{'ab'[s % 2]}" for s, t in STEPS]
FILES = {
    "text": ("beer.txt", TEXT),
    "words": ("beer.txt", TEXT),
    "table": ("load.csv", "\n".join(["when,load", *LOAD, ""])),
    "sequences": ("kinds.csv", "\n".join(["id,step,x,kind", *KINDS, ""])),
}
TINY = "--embedding 3 --streams 2 --time 4"
OPTIONS = {
    "text": f"text {TINY}",
    "words": f"text --tokens word {TINY}",
    "table": "table --time when --target load --horizon 4 --lookback 8 --season 1 --batch 16",
    "sequences": "sequences --id id --time step --label kind",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, content in FILES.values():
        (folder / name).write_text(content)
    (folder / "strange.txt").write_text("Ω is not in the wall.\n" * 9)
    (folder / "empty.txt").write_text("")
    (folder / "short.csv").write_text("\n".join(["when,load", *LOAD[:5], ""]))
    (folder / "other.csv").write_text("a,b\n1,2\n")
    return folder


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """A folder with a run of each kind, and what was printed when they were trained."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in OPTIONS.items():
        kind, *flags = options.split()
        told = said(
            *("train", kind, files / FILES[name][0], *flags, "--hidden", "4", "--steps", "4"),
            *("--out", folder, "--name", name),
        )
        (folder / f"{name}.out").write_text(told)
    return folder


@pytest.mark.parametrize("kind", ["table", "sequences"])
def test_only_language_models_learn_as_they_are_judged(runs, kind):
    wanted = "jlstm: --dynamic: expected a language model, got another one\n"
    assert mistake("evaluate", runs / kind, "--dynamic") == wanted
    both = mistake("evaluate", runs / kind, "--dynamic", "--folds", "2")
    assert "--folds, --dynamic: expected one of them" in both


@pytest.mark.parametrize("kind", ["text", "sequences"])
def test_only_models_of_tables_save_forecasts(runs, kind, tmp_path):
    wanted = "jlstm: --save-forecasts: expected a model of a table, got another one\n"
    assert mistake("evaluate", runs / kind, "--save-forecasts", tmp_path / "a.parquet") == wanted


@pytest.mark.parametrize("kind", ["text", "table", "sequences"])
def test_a_report_is_written_anew(runs, kind):
    page = runs / kind / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert said("report", runs / kind) == f"Written: {page}\n"
    assert page.read_bytes() == before


def test_a_report_of_no_run_is_a_mistake(files):
    assert "expected the folder of a run" in mistake("report", files)


def rows_of(file):
    with file.open(newline="") as stream:
        return [*csv.DictReader(stream)]


# Evaluate.


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_judgement_after_training_can_be_had_again(runs, kind):
    before = (runs / kind / "evaluation" / "test.json").read_bytes()
    judged = said("evaluate", runs / kind)
    assert judged.startswith("\n")
    assert judged in (runs / f"{kind}.out").read_text()
    assert json.loads(before)["verdict"] in judged
    assert (runs / kind / "evaluation" / "test.json").read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "counted"),
    [("text", f"{len(TEXT) - 1:,} characters"), ("table", "189 origins"),
     ("sequences", "40 sequences")],
)  # fmt: skip
def test_another_file_is_judged_beside_the_part_kept_back(runs, files, tmp_path, kind, counted):
    before = (runs / kind / "evaluation" / "test.json").read_bytes()
    # Of the very name that the judgement of the part kept back has.
    file = tmp_path / ("test" + (files / FILES[kind][0]).suffix)
    file.write_text(FILES[kind][1])
    out = said("evaluate", runs / kind, file)
    assert counted in out
    told = json.loads((runs / kind / "evaluation" / "file-test.json").read_text())
    assert told["verdict"] in out
    assert told["file"] == str(file.resolve())
    assert "The results are in evaluation/file-test.json." in out
    assert (runs / kind / "evaluation" / "test.json").read_bytes() == before


PICTURES = {"table": "forecast-", "sequences": "confusion-"}


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", OPTIONS)
def test_files_of_one_name_keep_their_results(runs, files, tmp_path, kind):
    name, content = FILES[kind]
    lines = content.splitlines(keepends=True)
    suffix = (files / name).suffix
    one, two = tmp_path / f"one/x{suffix}", tmp_path / f"two/x{suffix}"
    for file, kept in ((one, lines), (two, lines[: len(lines) // 2])):
        file.parent.mkdir()
        file.write_text("".join(kept))
    folder = runs / kind

    def found():
        names = [
            *(f"evaluation/file-{x}.json" for x in ("x", "x-2")),
            *(f"plots/{PICTURES[kind]}{x}.png" for x in ("x", "x-2") if kind in PICTURES),
        ]
        assert not (folder / "evaluation/file-x-3.json").exists()
        return {name: (folder / name).read_bytes() for name in names}

    said("evaluate", folder, one)
    assert "The results are in evaluation/file-x-2.json." in said("evaluate", folder, two)
    both = found()
    told = [json.loads(both[f"evaluation/file-{x}.json"])["file"] for x in ("x", "x-2")]
    assert told == [str(one.resolve()), str(two.resolve())]
    assert len({*both.values()}) == len(both)
    for file in (one, two):
        said("evaluate", folder, file)
    assert found() == both
    # The same file, changed.
    one.write_text(two.read_text())
    said("evaluate", folder, one)
    again = found()
    changed = {name for name, content in both.items() if again[name] != content}
    assert changed == {name for name in both if "x-2" not in name}


def test_what_cannot_be_judged_is_named(runs, files):
    for kind, file, wrong in (
        ("text", "nowhere.txt", "nowhere.txt: not there"),
        ("text", "empty.txt", "expected a text, got nothing to read in"),
        ("text", "strange.txt", "expected chars of the vocabulary, got"),
        ("table", "nowhere.csv", "nowhere.csv: expected a file"),
        ("table", "short.csv", "short.csv: expected at least 8 + 4 rows of a series"),
        ("table", "other.csv", "--time: expected a column of the table (a, b), got 'when'"),
        ("sequences", "load.csv", "--id: expected a column of the table (when, load), got 'id'"),
    ):
        assert wrong in mistake("evaluate", runs / kind, files / file)
    assert "is not there" in mistake("evaluate", files / "nowhere")
    assert "holds no config.json" in mistake("evaluate", files)


def test_a_run_without_a_validation_has_no_model_yet(runs, tmp_path):
    for name in ("best.json", "best.safetensors", "checkpoints"):
        shutil.copytree(runs / "text", tmp_path / name)
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder / "checkpoints")
    (folder / "best.json").unlink()
    line = mistake("evaluate", folder)
    assert "nothing has been validated yet; see jlstm resume" in line
    # The checkpoint has the best parameters, too.
    (tmp_path / "best.json" / "best.json").write_text("{}")
    (tmp_path / "best.safetensors" / "best.safetensors").unlink()
    for name in ("best.json", "best.safetensors"):
        out = said("evaluate", tmp_path / name)
        assert out.startswith("best.safetensors is not as it was written; taking the best of")
        assert out.endswith(said("evaluate", runs / "text"))


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("text", "text.json", "{}"),
        ("text", "text.json", "["),
        ("text", "vocabulary.json", "{}"),
        ("text", "tokens.npy", "no array"),
        ("text", "tokens.npy", None),
        ("table", "table.json", "{}"),
        ("table", "values.npy", "no array"),
        ("sequences", "sequences.json", "{}"),
        ("sequences", "values.npy", ""),
    ],
)
def test_damaged_data_of_a_run_are_told_of(runs, tmp_path, kind, name, content):
    shutil.copytree(runs / kind, tmp_path / "run")
    file = tmp_path / "run" / "data" / name
    file.unlink()
    if content is not None:
        file.write_text(content)
    for name in ("evaluate", "resume"):
        assert f"{tmp_path}/run/data" in mistake(name, tmp_path / "run")


@pytest.mark.parametrize("kind", ["text", "table", "sequences"])
def test_a_model_at_work_needs_no_training_run(runs, files, tmp_path, monkeypatch, kind):
    """No job is built, and the data that it was trained on, here taken away, is not missed."""
    run = shutil.copytree(runs / kind, tmp_path / "run")
    for name in ("tokens.npy", "values.npy", "targets.npy"):
        (run / "data" / name).unlink(missing_ok=True)
    monkeypatch.delattr(f"jlstm.tasks.{kind}.job.build")
    if kind == "text":
        said("sample", run, "--prompt", "9", "--length", "5")
    else:
        said("predict", run, files / FILES[kind][0], "--out", tmp_path / "out.csv")
        assert (tmp_path / "out.csv").exists()


def test_a_baseline_is_fitted_once_to_judge_and_never_to_forecast(
    runs, files, tmp_path, monkeypatch
):
    fitted = []
    monkeypatch.setattr(
        "jlstm.tasks.table.training.fit_linear",
        lambda *moments: fitted.append(moments) or np.zeros((8, 4)),
    )
    run = shutil.copytree(runs / "table", tmp_path / "run")
    said("predict", run, files / "load.csv", "--out", tmp_path / "out.csv")
    assert not fitted
    said("evaluate", run)
    assert len(fitted) == 1


# Predict.


def test_a_table_is_forecast(runs, files, tmp_path):
    out = tmp_path / "forecasts.csv"
    assert f"Written: {out}\n" in said("predict", runs / "table", files / "load.csv", "--out", out)
    rows = rows_of(out)
    assert [row["when"] for row in rows] == [f"2020-01-09 {h:02d}:00" for h in range(8, 12)]
    assert {row["target"] for row in rows} == {"load"}
    for row in rows:
        assert float(row["q0.1"]) <= float(row["q0.5"]) <= float(row["q0.9"])
    assert [*tmp_path.iterdir()] == [out]


def test_sequences_are_labelled_whether_they_have_labels_or_not(runs, files, tmp_path):
    bare = tmp_path / "bare.csv"
    lines = (files / "kinds.csv").read_text().splitlines()
    bare.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    labelled = []
    for file in (files / "kinds.csv", bare):
        said("predict", runs / "sequences", file, "--out", tmp_path / "labels.csv")
        labelled.append(rows_of(tmp_path / "labels.csv"))
    assert labelled[0] == labelled[1]
    assert [row["id"] for row in labelled[0]] == [str(n) for n in range(40)]
    for row in labelled[0]:
        chances = {name: float(row[f"p_{name}"]) for name in "ab"}
        assert sum(chances.values()) == pytest.approx(1)
        assert row["predicted"] == max(chances, key=chances.get)


def test_predictions_are_parquet_where_the_name_says_so(runs, files, tmp_path):
    import polars

    for kind, file in (("table", "load.csv"), ("sequences", "kinds.csv")):
        frames = []
        for ending, read in (("csv", polars.read_csv), ("parquet", polars.read_parquet)):
            out = tmp_path / f"{kind}.{ending}"
            said("predict", runs / kind, files / file, "--out", out)
            frames.append(read(out))
        assert frames[0].columns == frames[1].columns
        assert frames[0].height == frames[1].height > 0


def test_predictions_go_into_this_folder_unless_told_otherwise(monkeypatch, runs, files, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "Written: predictions.csv" in said("predict", runs / "table", files / "load.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_what_cannot_be_predicted_is_named_and_nothing_written(runs, files, tmp_path):
    load = files / "load.csv"
    for kind, file, name, wrong in (
        ("text", "beer.txt", "a.csv", "expected a model of a table or of sequences; see jlstm sam"),
        ("table", "nowhere.csv", "a.csv", "nowhere.csv: expected a file"),
        ("table", "short.csv", "a.csv", "expected at least 8 rows with targets to forecast from"),
        ("table", "other.csv", "a.csv", "--time: expected a column of the table (a, b)"),
        ("sequences", load, "a.csv", "--id: expected a column of the table"),
        ("table", load, "a.txt", "--out: expected a name that ends in .csv or .parquet, got"),
        ("table", load, "no/a.csv", "--out: there is no directory"),
    ):
        line = mistake("predict", runs / kind, files / file, "--out", tmp_path / name)
        assert wrong in line
        assert not list(tmp_path.iterdir())
    assert "--file requires an argument" in mistake("predict", runs / "table")
    assert "is not there" in mistake(
        "predict", files / "nowhere", load, "--out", tmp_path / "a.csv"
    )


def test_a_model_that_does_not_write_is_named(runs):
    assert "RUN: expected a language model; see jlstm predict" in mistake("sample", runs / "table")


# Runs.


def test_runs_are_listed_in_a_line_each(runs, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    (folder / "text" / "result.json").unlink()
    (folder / "words" / "config.json").write_text("{")
    (folder / "sequences" / "best.json").write_text("{")
    (folder / "table").rename(folder / "a table of a rather long name, longer than most are")
    (folder / "no-run").mkdir()
    shutil.copytree(folder / "text", folder / ".text.123.part")  # killed while it was made
    lines = said("runs", folder).splitlines()
    assert lines[0].split() == ["run", "status", "step", "best", "validation", "asked", "for"]
    damaged = {line.split(":")[0] for line in lines[5:]}
    assert damaged == {"words is damaged", "sequences is damaged"}
    told = {line.split("  ")[0]: " ".join(line.split("  ")[1:]).split() for line in lines[1:5]}
    assert told["text"][:2] == ["stopped", "4"]
    assert {"nats", "per", "character", "hidden=4", "embedding=3"} <= {*told["text"]}
    assert told["words"] == ["damaged", "0", "–"]
    assert told["sequences"][:3] == ["damaged", "4", "–"]
    table = told["a table of a rather long name, longer than most are"]
    assert table[0] == "finished"
    assert "target=load" in table


def test_options_are_listed_as_they_are_typed(runs, tmp_path):
    folder = shutil.copytree(runs / "text", tmp_path / "text")
    asked = json.loads((folder / "config.json").read_text())
    asked["options"] |= {"learning_rate": 0.5, "tensorboard": True}
    (folder / "config.json").write_text(json.dumps(asked))
    assert {"learning-rate=0.5", "tensorboard=yes"} <= {*said("runs", folder).split()}


@pytest.mark.parametrize(
    "harm",
    [
        {"best.json": '{"loss": "low"}'},
        {"metrics.jsonl": '{"no": 1}\n'},
        {"metrics.jsonl": 'no\n{"step": 1}\n'},
        {"config.json": "[]"},
        {"best.safetensors": "no"},
        {"data/tokens.npy": "no"},
    ],
)
def test_a_damaged_run_does_not_hide_the_others(runs, tmp_path, harm):
    shutil.copytree(runs / "text", tmp_path / "good")
    shutil.copytree(runs / "text", tmp_path / "harmed")
    for name, content in harm.items():
        (tmp_path / "harmed" / name).write_text(content)
    out = said("runs", tmp_path)
    told = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:3]}
    assert told == {"good": "finished", "harmed": "damaged"}
    what = next(iter(harm)).replace("best.json", "best.")  # its sum is that of best.safetensors
    assert what in out.partition("harmed is damaged: ")[2]


def test_a_line_that_was_cut_off_is_no_damage(runs, tmp_path):
    for name, harm in (("cut", '{"step": 9, "lo'), ("ended", '{"step": 9, "lo\n')):
        shutil.copytree(runs / "text", tmp_path / name)
        with (tmp_path / name / "metrics.jsonl").open("a") as metrics:
            metrics.write(harm)
    told = {line.split()[0]: line.split()[1:3] for line in said("runs", tmp_path).splitlines()[1:]}
    assert told == {"cut": ["finished", "4"], "ended": ["finished", "4"]}


def test_of_a_runs_own_folder_that_run_is_listed(runs):
    lines = said("runs", runs / "text").splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:3] == ["text", "finished", "4"]


def test_nothing_is_no_path(runs, files):
    assert "RUN: expected a path, got nothing" in mistake("evaluate", "")
    assert "FILE: expected a path, got nothing" in mistake("predict", runs / "table", "")
    assert "FILE: expected a path, got nothing" in mistake("evaluate", runs / "table", "")
    assert "FOLDER: expected a path, got nothing" in mistake("runs", "")
    nowhere = "jlstm: Invalid value for --save-forecasts: expected a path, got nothing\n"
    assert mistake("evaluate", runs / "table", "--save-forecasts", "") == nowhere


def test_no_runs_are_told_from_no_folder(monkeypatch, tmp_path, files):
    assert mistake("runs", files / "load.csv") == (
        f"jlstm: FOLDER: expected a folder with runs, but {files / 'load.csv'} is a file\n"
    )
    monkeypatch.chdir(tmp_path)
    assert said("runs", tmp_path) == f"There are no runs in {tmp_path}.\n"
    assert "expected a folder with runs, but there is no runs" in mistake("runs")
    assert not list(tmp_path.iterdir())
