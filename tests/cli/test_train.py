"""`jlstm train` and `jlstm resume`: what they print and leave, and each mistake in one line."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import command

TEXT = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(200))


def table(rows=200, load=lambda n: f"{math.sin(n / 4) + n % 3:.3f}"):
    """Rows of a CSV, the header first: an hour each, a load, a wind."""
    days = [f"2020-01-{1 + n // 24:02d} {n % 24:02d}:00" for n in range(rows)]
    return ["when,load,wind", *(f"{day},{load(n)},{n % 5}" for n, day in enumerate(days))]


def sequences(count=40, label=lambda s: "ab"[s % 2]):
    rows = [(s, t) for s in range(count) for t in range(5)]
    return ["id,step,x,kind", *(f"{s},{t},{(3 * t + s % 2) % 5},{label(s)}" for s, t in rows)]


SMALL = {
    "text": {"hidden": 4, "embedding": 3, "streams": 2, "time": 4, "steps": 4},
    "table": {
        "time": "when", "target": "load", "horizon": 4, "lookback": 8, "season": 1, "hidden": 4,
        "batch": 16, "steps": 4,
    },
    "sequences": {"id": "id", "time": "step", "label": "kind", "hidden": 4, "steps": 4},
}  # fmt: skip
FILES = {"text": "beer.txt", "table": "load.csv", "sequences": "kinds.csv"}


def arguments(kind, *files, **options):
    """The arguments of `jlstm train`, small; an option of None is left out."""
    said = SMALL[kind] | options
    flags = [(f"--{name.replace('_', '-')}", value) for name, value in said.items()]
    return [
        "train",
        kind,
        *files,
        *(word for flag in flags if flag[1] is not None for word in flag),
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Good files and bad ones."""
    folder = tmp_path_factory.mktemp("files")
    rows = table()
    lines = {
        "load.csv": rows,
        "kinds.csv": sequences(),
        "header.csv": rows[:1],
        "row.csv": rows[:2],
        "sequence.csv": sequences(1),
        "classes.csv": sequences(label=lambda s: f"class {s}"),
        "number.csv": [*rows[:9], rows[9].rpartition(",")[0] + ",many", *rows[10:]],
        "cells.csv": [*rows[:9], rows[9] + ",7", *rows[10:]],
        "twice.csv": [*rows[:9], rows[8], *rows[10:]],
        "reversed.csv": [rows[0], *rows[:0:-1]],
        "flat.csv": table(load=lambda n: "7.50"),
    }
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n")
    (folder / "beer.txt").write_text(TEXT)
    (folder / "empty.txt").write_text("")
    (folder / "empty.csv").write_text("")
    (folder / "blank.txt").write_text(" ")
    (folder / "line.txt").write_text("One line.\n")
    (folder / "latin.txt").write_bytes("café ".encode("latin-1") * 300)
    (folder / "latin.csv").write_bytes("\n".join([*rows[:9], "café"]).encode("latin-1"))
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(files, runs):
    """A run of each kind: what the command said."""
    return {
        kind: command(*arguments(kind, files / file, out=runs, name=kind))
        for kind, file in FILES.items()
    }


@pytest.fixture
def mistake(tmp_path):
    """Run `jlstm train`, and see that it ends in one line and leaves nothing; the line."""

    def run(*arguments):
        out = () if "--out" in arguments else ("--out", tmp_path / "new" / "runs")
        ended = command(*arguments, *out)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("jlstm: ")
        assert ended.err.count("\n") == 1
        assert ended.err.endswith("\n")
        assert not list(tmp_path.iterdir())
        return ended.err

    return run


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """Run `jlstm train` up to the training, which is left out; the folder of the run."""
    monkeypatch.setattr("jlstm.cli.train.resume", lambda folder: None)
    count = iter(range(9))

    def run(*arguments):
        name = f"run-{next(count)}"
        ended = command(*arguments, "--out", tmp_path / "runs", "--name", name)
        assert (ended.status, ended.err) == (0, "")
        *before, last = ended.out.splitlines()
        assert last == f"The run is in {tmp_path / 'runs' / name}."
        # Of a run that is gone on from it says what that is worth.
        assert [line[:13] for line in before] == ["The model of "] * ("--from" in arguments)
        return tmp_path / "runs" / name

    return run


# What it prints and leaves.


@pytest.mark.parametrize("kind", FILES)
def test_it_trains_judges_and_leaves_what_it_names(trained, runs, kind):
    status, out, err = trained[kind]
    folder = runs / kind
    assert (status, err) == (0, "")
    assert "\x1b" not in out  # no terminal, no colours
    assert out.startswith(f"The run is in {folder}.\n")
    assert [n for n in range(1, 5) if f"step {n}/4: loss " in out] == [1, 2, 3, 4]
    named = out.partition(f"\nIn {folder}:\n")[2].splitlines()
    assert len(named) == 6
    assert all((folder / line.split()[0]).exists() for line in named)
    result = json.loads((folder / "result.json").read_text())
    assert result["verdict"] in out
    assert (result["step"], result["steps"]) == (4, 4)
    told = json.loads((folder / "config.json").read_text())
    assert told["kind"] == kind
    assert told["options"]["hidden"] == 4
    assert Path(told["files"][0]).name == FILES[kind]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert f"loss {records[-1]['loss']:.4f}, validation {result['best_loss']:.4f}" in out
    assert (folder / "evaluation" / "test.json").exists()
    pictures = {*(path.name for path in (folder / "plots").iterdir())}
    assert pictures >= {"training.png"}
    assert all((folder / "plots" / p).read_bytes().startswith(b"\x89PNG") for p in pictures)
    assert not [path for path in runs.iterdir() if path.name not in FILES]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", ("to train on", "Vocabulary: ", "Windows: 2 streams × 4 characters", "unigram",
                  "nats per character", "Kneser–Ney", "The LSTM loses")),
        ("table", ("200 rows", "steps of 1 hour", "A window has 8 steps to forecast from",
                   "last value", "drift", "linear")),
        ("sequences", ("are 40 sequences", "2 classes", "majority", "nearest neighbour", "recall")),
    ],
)  # fmt: skip
def test_it_tells_the_arithmetic_and_the_baselines(trained, kind, said):
    assert [words for words in said if words not in trained[kind].out] == []
    assert "…" not in trained[kind].out  # no table is cut off


@pytest.mark.slow
def test_a_process_of_its_own_has_nothing_to_complain_of(files, tmp_path):
    words = arguments("sequences", files / "kinds.csv", out=tmp_path / "new" / "runs")
    ran = subprocess.run(
        [sys.executable, "-m", "jlstm", *map(str, words)], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    (folder,) = (tmp_path / "new" / "runs").iterdir()
    assert f"In {folder}:" in ran.stdout


def test_a_folder_of_texts_is_one_text(begun, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text(TEXT[1000:])
    (folder / "a.txt").write_text(TEXT[:1000])
    (tmp_path / "whole.txt").write_text(TEXT[:1000] + "\n" + TEXT[1000:])
    one, several, whole = (
        (begun(*arguments("text", *given)) / "data/tokens.npy").read_bytes()
        for given in (
            [folder],
            [folder / "a.txt", folder / "b.txt"],
            [tmp_path / "whole.txt"],
        )
    )
    assert one == several == whole


@pytest.mark.parametrize(
    ("kind", "name"),
    [("text", "data/tokens.npy"), ("table", "data/values.npy"), ("sequences", "data/values.npy")],
)
def test_line_ends_and_a_byte_order_mark_change_nothing(begun, files, tmp_path, kind, name):
    plain = files / FILES[kind]
    other = tmp_path / plain.name
    other.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    one, two = (begun(*arguments(kind, file)) / name for file in (plain, other))
    assert one.read_bytes() == two.read_bytes()


def test_options_reach_the_configuration(begun, files):
    folder = begun(
        *arguments("table", files / "load.csv", target="load,wind"),
        *("--quantiles", "0.2, 0.8", "--no-calendar", "--tensorboard"),
    )
    one_by_one = begun(
        *arguments("table", files / "load.csv"), "--quantiles", "0.2", "--quantiles", "0.8"
    )
    told = json.loads((one_by_one / "config.json").read_text())["options"]
    assert told["quantiles"] == [0.2, 0.5, 0.8]
    options = json.loads((folder / "config.json").read_text())["options"]
    assert options["target"] == ["load", "wind"]
    assert options["quantiles"] == [0.2, 0.5, 0.8]
    assert options["calendar"] is False
    assert options["tensorboard"] is True


def test_a_table_in_another_form_is_the_same(begun, files, tmp_path):
    plain = files / "load.csv"
    other = tmp_path / "load.csv"
    text = plain.read_text().replace(",", ";").replace(".", ",").replace("when", '"Öl, °C"')
    text = re.sub(r"2020-01-(\d\d)", r"01/\1/2020", text)
    other.write_text(text, "cp1252")
    one = begun(*arguments("table", plain))
    two = begun(
        *arguments("table", other, time='"Öl, °C"', separator=";", decimal=",", encoding="cp1252"),
        *("--time-format", "%m/%d/%Y %H:%M"),
    )
    assert (one / "data/values.npy").read_bytes() == (two / "data/values.npy").read_bytes()


def test_rows_out_of_order_are_sorted_and_it_says_so(files, tmp_path, trained, runs):
    said = command(*arguments("table", files / "reversed.csv", out=tmp_path, name="run"))
    assert said.status == 0
    assert "The rows were not in order of time, and have been sorted." in said.out
    one, two = (folder / "metrics.jsonl" for folder in (runs / "table", tmp_path / "run"))
    assert one.read_text() == two.read_text()


def test_a_constant_column_is_named(tmp_path):
    file = tmp_path / "flat.csv"
    file.write_text("\n".join(line.rpartition(",")[0] + ",5" for line in table()) + "\n")
    file.write_text(file.read_text().replace("load,5", "load,wind"))
    said = command(*arguments("table", file, past="wind", out=tmp_path, name="run"))
    assert (said.status, said.err) == (0, "")
    assert "Column 'wind' is constant in the training part: nothing to learn." in said.out


# Resuming.


@contextmanager
def interrupted_after_two_steps():
    asked = iter([False, True])
    yield lambda: next(asked, True)


def test_an_interrupt_saves_and_resume_goes_on(monkeypatch, files, tmp_path, trained, runs):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("jlstm.train.interrupt_flag", interrupted_after_two_steps)
        status, out, err = command(*arguments("text", files / "beer.txt", out=tmp_path, name="run"))
    assert (status, err) == (130, "jlstm: interrupted\n")
    assert out.endswith(
        f"Stopped after step 2; all of it is saved. To go on:\n  jlstm resume {folder}\n"
    )
    assert not (folder / "result.json").exists()
    status, out, err = command("resume", folder)
    assert (status, err) == (0, "")
    assert "Going on from the checkpoint of step 2." in out
    assert "step 2/4" not in out
    assert "step 4/4" in out
    for name in ("metrics.jsonl", "best.safetensors"):  # as if it had not been stopped
        assert (folder / name).read_bytes() == (runs / "text" / name).read_bytes()


def test_a_process_asked_to_end_while_it_reads_the_data_leaves_nothing(
    monkeypatch, files, tmp_path
):
    def slow(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr("jlstm.tasks.text.job.prepare", slow)
        ended = command(*arguments("text", files / "beer.txt", out=tmp_path / "runs", name="run"))
    assert (ended.status, ended.err) == (130, "jlstm: interrupted\n")
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_finished_run_is_judged_again_and_stays_as_it_was(trained, runs):
    folder = runs / "sequences"
    before = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "result.json")}
    status, out, err = command("resume", folder)
    assert (status, err) == (0, "")
    assert "The training is finished; the model is judged again." in out
    assert "step 1/4" not in out
    assert json.loads(before["result.json"])["verdict"] in out
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_a_finished_run_is_made_longer_in_a_folder_beside_it(trained, runs):
    folder = runs / "text"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, out, err = command("resume", folder, "--steps", 6, "--name", "longer")
    assert (status, err) == (0, "")
    assert f"The longer run is in {runs / 'longer'}.\n" in out
    assert f"Going on where {folder} ended, after step 4.\n" in out
    assert "step 4/6" not in out
    assert "step 6/6" in out
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    options = json.loads((runs / "longer" / "config.json").read_text())["options"]
    old = json.loads((folder / "config.json").read_text())["options"]
    own = {name for name in options if options[name] != old[name]}
    assert own == {"steps", "from_", "name"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--steps", "4"), "--steps: expected more than the 4 of "),
        (("--epochs", "0"), 'Invalid value "0.0" for --epochs. Expected a finite number above 0.'),
        (("--steps", "9", "--epochs", "3"), "--epochs, --steps: expected one of them, got 3.0 and"),
        (("--learning-rate", "0.1"), "--steps, --epochs: expected the length of the longer run"),
        (("--steps", "9", "--name", "table"), "--name: there is a run "),
        (("--steps", "9", "--name", "a/b"), "--name: expected the name of a folder in one line"),
    ],
)
def test_a_length_that_cannot_be_is_named(trained, runs, options, said):
    before = sorted(runs.iterdir())
    ended = command("resume", runs / "text", *options)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said.lower() in ended.err.lower()
    assert sorted(runs.iterdir()) == before


# On another file.


@pytest.mark.parametrize(
    ("kind", "typed"), [("text", {}), ("table", {"dropout": 0.3}), ("sequences", {"batch": 7})]
)
def test_what_is_not_typed_is_as_in_the_run_that_is_gone_on_from(
    begun, files, trained, runs, kind, typed
):
    flags = [word for name, value in typed.items() for word in (f"--{name}", value)]
    folder = begun("train", kind, files / FILES[kind], "--from", runs / kind, "--steps", 2, *flags)
    own, old = (
        json.loads((run / "config.json").read_text())["options"] for run in (folder, runs / kind)
    )
    assert own == {
        **old, **typed, "from_": str(runs / kind), "steps": 2,
        "out": str(folder.parent), "name": folder.name,
    }  # fmt: skip


def test_what_another_file_cannot_go_on_from_is_named(mistake, files, trained, runs):
    kinds = files / "kinds.csv"
    for arguments, said in (
        (("text", files / "beer.txt", "--from", runs / "table"),
         f"--from: expected a run of jlstm train text, got {runs / 'table'}, one of "),
        (("text", files / "beer.txt", "--from", files),
         "--from: expected the folder of a run, but "),
        (("text", files / "beer.txt", "--from", runs / "text", "--hidden", 5),
         "--hidden: expected 4, with which the model of "),
        (("table", files / "load.csv", "--from", runs / "table", "--horizon", 3),
         "--horizon: expected 4, with which"),
        (("table", kinds, "--from", runs / "table"),
         "--time: expected a column of the table (id, step, x, kind), got 'when'"),
    ):  # fmt: skip
        assert said in mistake("train", *arguments)


def test_what_is_no_run_is_not_resumed(mistake, files, trained, runs, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    for folder, said in (
        (empty / "nowhere", f"but {empty / 'nowhere'} is not there"),
        (empty, "holds no config.json"),
        (files / "beer.txt", "beer.txt is a file"),
    ):
        status, out, err = command("resume", folder)
        assert (status, out) == (2, "")
        assert err.startswith("jlstm: RUN: expected the folder of a run, but ")
        assert said in err
        assert err.count("\n") == 1
    assert "--run" in command("resume").err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda told: "{", "got: "),
        (lambda told: "[]", "got: "),
        (lambda told: b"\xff\xfe", "got: "),
        (lambda told: json.dumps(told | {"kind": "dance"}), "'dance'"),
        (lambda told: json.dumps(told | {"options": {}}), "which differ in: "),
        (lambda told: json.dumps(told | {"options": told["options"] | {"hidden": 0}}),
         "hidden: expected at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_named(trained, runs, tmp_path, content, said):
    told = content(json.loads((runs / "text" / "config.json").read_text()))
    (tmp_path / "config.json").write_bytes(told if isinstance(told, bytes) else told.encode())
    status, out, err = command("resume", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"jlstm: {tmp_path / 'config.json'}: expected the ")
    assert said in err
    assert err.count("\n") == 1


def test_a_training_that_diverges_ends_in_one_line(files, tmp_path):
    wild = {"learning_rate": 1e30, "clip": 1e30, "warmup": 0, "steps": 60}
    ended = command(*arguments("text", files / "beer.txt", out=tmp_path, **wild))
    assert ended.status == 2
    assert "expected a finite number, got" in ended.err
    assert "a lower learning rate may help" in ended.err
    assert ended.err.count("\n") == 1


# Mistakes, one of each kind.


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere.txt", "nowhere.txt: not there"),
        ("nothing", "expected files in the folder"),
        ("empty.txt", "expected a text, got nothing to read in"),
        ("line.txt", "expected at least two characters in each part, got 0"),
        ("latin.txt", "latin.txt: expected UTF-8, got something else at byte 3"),
    ],
)
def test_a_text_that_cannot_be_trained_on_is_named(mistake, files, file, said):
    assert said in mistake(*arguments("text", files / file))


def test_no_text_and_the_same_text_twice_are_refused(mistake, files):
    assert "FILES: expected a text file or a folder of them, got none" in mistake("train", "text")
    twice = arguments("text", files / "beer.txt", files / "beer.txt")
    assert mistake(*twice).startswith("jlstm: FILES: expected each once")
    blank = arguments("text", files / "blank.txt", tokens="word")
    assert "expected a text, got nothing to read in" in mistake(*blank)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": "0"}, "--epochs: expected a finite number above 0, got 0"),
        ({"epochs": "-1"}, "--epochs: expected a finite number above 0, got -1"),
        ({"steps": "0"}, "--steps: expected at least 1, got 0"),
        ({"steps": "1.5"}, "--steps: expected a whole number, got 1.5"),
        ({"hidden": "0"}, "--hidden: expected at least 1, got 0"),
        ({"hidden": "many"}, "--hidden: expected a whole number, got many"),
        ({"hidden": "10000000000"}, "--hidden: expected at most 2147483647"),
        ({"dropout": "1"}, "--dropout: expected a finite number of at least 0 and below 1, got 1"),
        ({"learning_rate": "nan"}, "--learning-rate: expected a finite number"),
        ({"learning_rate": "fast"}, "--learning-rate: unable to convert \"fast\" into float"),
        ({"warmup": "-1"}, "--warmup: expected at least 0, got -1"),
        ({"seed": "-1"}, "--seed: expected at least 0, got -1"),
        ({"tokens": "letter"}, "\"letter\" for --tokens. Choose from: \"byte\", \"char\", "),
        ({"optimizer": "rmsprop"}, "\"rmsprop\" for --optimizer"),
        ({"validation": "0.6", "test": "0.6"}, "--validation, --test: expected to leave something"),
        ({"time": "100000"}, "expected at least 200001 characters to train on"),
        ({"name": "a/b"}, "--name: expected the name of a folder in one line, without /"),
        ({"name": ""}, "--name: expected the name of a folder"),
        ({"name": ".."}, "--name: expected the name of a folder"),
        ({"name": "a\nb"}, "--name: expected the name of a folder in one line, "),
        ({"bogus": "1"}, "Unknown option: --bogus.\n"),
        ({"nosuch": "1"}, "Unknown option: --nosuch.\n"),
        ({"learningrate": "1"}, "Did you mean --learning-rate?"),
        ({"hiden": "1"}, "Did you mean --hidden?"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_option_is_named_as_it_was_typed(mistake, files, options, said):
    assert said in mistake(*arguments("text", files / "beer.txt", **options))


def test_a_flag_without_its_value_is_named(mistake, files):
    line = mistake("train", "text", "--out", files, files / "beer.txt", "--hidden")
    assert "--hidden requires an argument" in line


def test_an_out_that_is_a_file_is_refused_and_kept(mistake, files):
    for out in (files / "line.txt", files / "line.txt" / "runs"):
        line = mistake(*arguments("text", files / "beer.txt", out=out))
        assert f"--out: expected a folder to write in, got {out}" in line
    assert (files / "line.txt").read_text() == "One line.\n"


def test_a_name_that_is_taken_is_refused(trained, files, runs):
    before = {path.name for path in runs.iterdir()}
    ended = command(*arguments("table", files / "load.csv", out=runs, name="text"))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"jlstm: --name: there is a run {runs / 'text'} already; see jlstm resume\n"
    )
    assert {path.name for path in runs.iterdir()} == before


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere.csv", "nowhere.csv: expected a file, got a path where there is none"),
        ("nothing", "expected a file, got a folder"),
        ("empty.csv", "empty.csv: expected a table, got an empty file"),
        ("header.csv", "header.csv: expected rows below the header, got none"),
        ("row.csv", "expected at least two rows of a series, got one"),
        ("cells.csv", "row 10: expected 3 cells, got 4"),
        ("twice.csv", "column 'when', row 10: expected a time of its own, got 2020-01-01 07:00"),
        ("latin.csv", "latin.csv: expected text in UTF-8, got byte 0xe9"),
        ("flat.csv", "--target: expected values that vary in the training part, before 2020-01-06 "
                     "20:00, got column 'load', which is 7.5 throughout"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_trained_on_is_named(mistake, files, file, said):
    assert said in mistake(*arguments("table", files / file))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": None}, "--target requires an argument"),
        ({"horizon": None}, "--horizon requires an argument"),
        ({"target": "laod"}, "(when, load, wind), got 'laod'; is it 'load'?"),
        ({"time": "whem"}, "(when, load, wind), got 'whem'; is it 'when'?"),
        ({"time": "load", "target": "wind"}, "column 'load', row 2: expected a time such as"),
        ({"target": "load,load"}, "--target: expected names of different columns"),
        ({"target": "when"}, "--target: expected other columns than those of time, got 'when'"),
        ({"past": "load"}, "--past: expected other columns than those of target, got 'load'"),
        ({"horizon": "4000"}, "training: expected at least 4008 rows, a window of 8 + 4000"),
        ({"horizon": "4000"}, "; --lookback asks for fewer to forecast from"),
        ({"horizon": "0"}, "--horizon: expected at least 1, got 0"),
        ({"horizon": "4.5"}, "--horizon: expected a whole number, got 4.5"),
        ({"lookback": "2.5"}, "--lookback: expected a whole number, got 2.5"),
        ({"quantiles": "1"}, "--quantiles: expected a finite number above 0 and below 1"),
        ({"quantiles": "0.1,half"}, "--quantiles: expected numbers with commas between them, got"),
        ({"separator": "tabs"}, "--separator: expected one character that is no letter"),
        ({"encoding": "latin-99"}, "--encoding: expected the name of one, such as utf-8"),
        ({"decimal": ";"}, "\";\" for --decimal. Choose from: \".\", \",\""),
        ({"time_format": "%d/%m"}, "--time-format: expected a pattern with a year, such as"),
        ({"season": "1000"}, "--season: expected fewer steps than the training part has"),
        ({"patch": "1000"}, "--patch: expected at most the 8 steps of lookback, got 1000"),
        ({"test": "2"}, "--test: expected a number between 0 and 1, or a date, got 2"),
        ({"until": "soon"}, "--until: expected a date such as 2016-07-01, got 'soon'"),
        ({"missing": "drop"}, "\"drop\" for --missing. Choose from: \"error\", \"fill\""),
    ],
)  # fmt: skip
def test_a_mistake_in_an_option_of_a_table_is_named(mistake, files, options, said):
    assert said in mistake(*arguments("table", files / "load.csv", **options))


def test_a_cell_that_is_no_number_is_named_with_its_row(mistake, files):
    line = mistake(*arguments("table", files / "number.csv", target="wind"))
    assert line == "jlstm: column 'wind', row 10: expected a number, got 'many'\n"


def test_a_second_table_and_none_are_refused(mistake, files):
    line = mistake(*arguments("table", files / "load.csv", files / "row.csv"))
    assert f"unexpected argument: {files / 'row.csv'}" in line
    assert "--file" in mistake(*arguments("table"))
    assert "FILE: expected a path, got nothing" in mistake(*arguments("table", ""))
    assert "FILES: expected a path, got nothing" in mistake(*arguments("text", ""))


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("kinds.csv", {"label": "knid"}, "--label: expected a column of the table"),
        ("kinds.csv", {"label": "knid"}, "got 'knid'; is it 'kind'?"),
        ("kinds.csv", {"label": "id"}, "--label: expected the name of a column of its own"),
        ("kinds.csv", {"label": None}, "--label requires an argument"),
        ("kinds.csv", {"features": "kind"}, "--features: expected columns to learn from"),
        ("kinds.csv", {"features": "id"}, "learn from, got 'id', which has another use"),
        ("kinds.csv", {"features": "x,x"}, "--features: expected names of different columns"),
        ("kinds.csv", {"label": "x"}, "column 'x', row 3: expected one value in all rows"),
        ("kinds.csv", {"task": "regress"}, "column 'kind', row 2: expected a number, got 'a'"),
        ("kinds.csv", {"task": "guess"}, "\"guess\" for --task"),
        ("kinds.csv", {"smoothing": "1"}, "--smoothing: expected a finite number"),
        ("kinds.csv", {"batch": "0"}, "--batch: expected at least 1, got 0"),
        ("kinds.csv", {"buckets": "1.5"}, "--buckets: expected a whole number, got 1.5"),
        ("sequence.csv", {}, "expected enough for training, validation and test, got 1"),
        ("classes.csv", {}, "--label: expected classes with several sequences each"),
        ("load.csv", {}, "--id: expected a column of the table (when, load, wind), got 'id'"),
    ],
)  # fmt: skip
def test_a_mistake_with_sequences_is_named(mistake, files, file, options, said):
    assert said in mistake(*arguments("sequences", files / file, **options))


def test_without_an_extra_it_says_how_to_get_it_before_the_work(monkeypatch, mistake, files):
    for package, extra in (("polars", "train"), ("matplotlib", "plots")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            line = mistake(*arguments("text", files / "beer.txt"))
        said = f"{package} is not installed; it comes with: pip install 'jlstm[{extra}]'"
        assert line == f"jlstm: {said}\n"
