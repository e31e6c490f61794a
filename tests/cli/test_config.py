"""`jlstm train … --config`: options and files from TOML, and each run's own file of them."""

import json
import math
from pathlib import Path

import pytest
from command_line import command

TEXT = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(200))
SMALL = 'hidden = 4\nembedding = 3\nstreams = 2\ntime = 4\nsteps = 4\nout = "runs"\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of each kind, and a place to call from that is not theirs."""
    (tmp_path / "beer.txt").write_text(TEXT)
    rows = (f"2020-01-{1 + n // 24:02d} {n % 24:02d}:00,{math.sin(n / 4):.3f}" for n in range(200))
    (tmp_path / "load.csv").write_text('when,"load, all"\n' + "\n".join(rows) + "\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.fixture
def begun(monkeypatch):
    """`jlstm train` up to the training, which is left out; its folder, and what was asked."""
    monkeypatch.setattr("jlstm.cli.train.resume", lambda folder: None)

    def run(*arguments):
        ended = command("train", *arguments)
        assert (ended.status, ended.err) == (0, "")
        place = Path(ended.out.splitlines()[-1].removeprefix("The run is in ").removesuffix("."))
        return place, json.loads((place / "config.json").read_text())

    return run


@pytest.fixture
def mistake():
    def run(*arguments):
        ended = command("train", *arguments)
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
        return ended.err

    return run


def test_options_and_files_come_from_the_file(folder, begun):
    (folder / "beer.toml").write_text(f'kind = "text"\nfiles = ["beer.txt"]\n{SMALL}clip = 2\n')
    run, told = begun("text", "--config", folder / "beer.toml")
    assert run.parent == folder / "runs"  # the folder of the file, not that of the call
    assert told["files"] == [str(folder / "beer.txt")]
    options = told["options"]
    assert (options["hidden"], options["clip"], options["patience"]) == (4, 2, 10)


def test_what_is_typed_comes_first(folder, begun):
    (folder / "beer.toml").write_text(f'files = "nowhere.txt"\n{SMALL}tied = true\n')
    _, told = begun(
        "text", folder / "beer.txt", "--config", folder / "beer.toml",
        *("--hidden", 3, "--no-tied", "--epochs", 2, "--out", folder / "typed"),
    )  # fmt: skip
    options = told["options"]
    assert told["files"] == [str(folder / "beer.txt")]
    assert (options["hidden"], options["tied"], options["embedding"]) == (3, False, 3)
    assert (options["epochs"], options["steps"]) == (2.0, None)  # one takes the other's place
    assert options["out"] == str(folder / "typed")


def test_a_run_is_asked_for_again_by_its_own_file(folder, begun):
    flags = ["--time", "when", "--target", '"load, all"', "--horizon", 3, "--lookback", 6]
    flags += ["--quantiles", "0.1,0.7", "--no-calendar", "--season", 1, "--learning-rate", 0.0017]
    run, told = begun("table", folder / "load.csv", *flags, "--name", "one", "--out", "runs")
    assert told["options"]["target"] == ["load, all"]
    again, same = begun("table", "--config", run / "config.toml")
    assert again.name != "one"
    assert same["options"] == {**told["options"], "name": None}
    assert same["files"] == told["files"]
    for name in ("values.npy", "sums.json"):
        assert (again / "data" / name).read_bytes() == (run / "data" / name).read_bytes()


def test_what_is_in_no_file_is_as_in_the_run_that_is_gone_on_from(folder, monkeypatch):
    (folder / "beer.toml").write_text(f"files = ['beer.txt']\n{SMALL}clip = 2\nname = 'old'\n")
    assert command("train", "text", "--config", folder / "beer.toml").status == 0
    (folder / "more.toml").write_text(
        "files = ['beer.txt']\nfrom = 'runs/old'\nsteps = 2\nout = 'runs'\nname = 'new'\n"
        "learning-rate = 0.5\n"
    )
    monkeypatch.setattr("jlstm.cli.train.resume", lambda folder: None)
    ended = command("train", "text", "--config", folder / "more.toml", "--patience", 3)
    assert (ended.status, ended.err) == (0, "")
    options = json.loads((folder / "runs/new/config.json").read_text())["options"]
    got = [options[name] for name in ("hidden", "clip", "learning_rate", "patience", "steps")]
    assert got == [4, 2, 0.5, 3, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = 'table'", "asked.toml: kind: expected 'text', got 'table'"),
        ("hiden = 3", "expected options of jlstm train text, got 'hiden'; is it hidden?"),
        ("hidden = 'many'", "asked.toml: hidden: expected an int, got str 'many'"),
        ("learning_rate = 0", "asked.toml: learning_rate: expected a finite number above 0, got 0"),
        ("validation = 0.6\ntest = 0.6", "asked.toml: validation, test: expected to leave some"),
        ("files = ['nowhere.txt']", "FILES: expected a file or a folder, got "),
        ("", "FILES: expected a text file or a folder of them, got none"),
        ("hidden =", "asked.toml: expected TOML, got: "),
        ("from = 'nowhere'", "--from: expected the folder of a run, but "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(folder, mistake, text, said):
    (folder / "asked.toml").write_text(text + "\n")
    assert said in mistake("text", "--config", folder / "asked.toml")


def test_a_table_is_one_file(folder, mistake):
    (folder / "asked.toml").write_text("files = ['load.csv', 'load.csv']\ntime = 'when'\n")
    assert "asked.toml: files: expected one file, got 2" in mistake(
        "table", "--config", folder / "asked.toml"
    )


def test_what_is_no_file_is_named(folder, mistake):
    nowhere = folder / "nowhere.toml"
    said = mistake("text", "--config", nowhere)
    assert said == f"jlstm: {nowhere}: No such file or directory\n"
    assert "expected a file, got a folder" in mistake("text", "--config", folder)
    assert "--config: expected a path, got nothing" in mistake("text", "--config", "")
