"""`jlstm demo`, short: what it makes, what it says, what it leaves."""

import csv
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import command

import jlstm.cli.demo
from jlstm.cli.demo import digits, python_text, seattle_weather, write_rows
from jlstm.runs.folder import read_config
from jlstm.runs.use import evaluate
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.windows import pydoc_text


def demo(*arguments):
    return command("demo", *arguments)


def small_text(folder, common):
    """The text of the demo, with a model that is trained and judged in a moment."""
    config, file = python_text(folder, common)
    return replace(config, hidden=8, embedding=4, streams=2, time=8, output_dropout=0.0), file


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Each demo, run once: its folder and what it said."""
    ended = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jlstm.cli.demo.python_text", small_text)
        for kind, more in (
            ("text", ("--compare-seconds", "0.1", "--seed", "3")),
            ("table", ()),
            ("sequences", ()),
        ):
            out = tmp_path_factory.mktemp(kind)
            said = demo(kind, "--steps", "3", "--out", out, *more)
            assert (said.status, said.err) == (0, "")
            (folder,) = out.iterdir()
            ended[kind] = folder, said.out
    return ended


KINDS = {"text": TextConfig, "table": TableConfig, "sequences": SequencesConfig}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_run_like_any_other(demos, kind):
    folder, out = demos[kind]
    assert re.fullmatch(rf"demo-{kind}-\d{{8}}-\d{{6}}", folder.name)
    assert out.startswith(f"The run is in {folder}.\n")
    assert re.search(rf"\n\d+ min \d+ s\. All of it is in {folder}\.\n$", out)
    assert "\x1b" not in out
    config = read_config(folder)
    assert type(config) is KINDS[kind]
    assert config.steps == 3
    assert evaluate(folder, say=print).verdict in out
    named = re.findall(r"^  (\S+) +\S", out.partition(f"In {folder}:\n")[2], re.MULTILINE)[:6]
    assert named == [
        "report.html",
        "best.safetensors",
        "evaluation",
        "plots",
        "metrics.jsonl",
        "config.toml",
    ]
    assert all((folder / name).exists() for name in named)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_records_agree(demos, kind):
    folder, out = demos[kind]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]
    result = json.loads((folder / "result.json").read_text())
    found = {r["validation_loss"]: r["step"] for r in records if r["validation_loss"] is not None}
    assert result["best_loss"] == min(found)
    assert result["best_step"] == found[min(found)]
    best = json.loads((folder / "best.json").read_text())
    assert (best["loss"], best["step"]) == (result["best_loss"], result["best_step"])
    assert f"validation {result['best_loss']:.4f}" in out
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    times = [record["seconds"] for record in timing]
    assert times == sorted(times)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", ("466,273 bytes" if len(pydoc_text()) == 466_273 else f"{len(pydoc_text()):,}",
                  "Vocabulary: 256 bytes", "Kneser–Ney", "Written by the model, at temperature 0.7",
                  "differentiated by hand and by autodiff", "vjp gates")),
        ("table", ("1,461 rows", "steps of 1 day", "Season: 7 steps", "seasonal naive",
                   "The calendar tells the time of the week, year")),
        ("sequences", ("1,797 sequences", "All sequences for training have length 8", "10 classes",
                       "nearest neighbour")),
    ],
)  # fmt: skip
def test_it_tells_of_its_data_and_of_the_baselines(demos, kind, said):
    assert [words for words in said if words not in demos[kind][1]] == []


@pytest.mark.slow
def test_the_text_is_sampled_and_the_rules_are_compared(demos):
    folder, out = demos["text"]
    sample = (folder / "sample.txt").read_text("utf-8")
    assert sample.startswith("The standard type hierarchy\n")
    assert 500 < len(sample) <= len("The standard type hierarchy\n") + 600
    assert sample in out
    compared = json.loads((folder / "comparison.json").read_text())
    sizes = [compared[name] for name in ("time", "batch", "input_size", "hidden_size", "seed")]
    assert sizes == [8, 2, 4, 8, 3]  # those of the model
    assert read_config(folder).seed == 3


def test_the_comparison_can_be_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(jlstm.cli.demo, "python_text", small_text)
    status, out, err = demo("--steps", "1", "--compare-seconds", "0", "--out", tmp_path)
    assert (status, err) == (0, "")
    (folder,) = tmp_path.iterdir()
    assert "autodiff" not in out
    assert not (folder / "comparison.json").exists()
    assert (folder / "sample.txt").exists()


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("table", "vega_datasets", "demo"),
        ("sequences", "sklearn", "demo"),
        ("text", "matplotlib", "plots"),
    ],
)
def test_a_missing_package_is_named_before_the_work(monkeypatch, tmp_path, kind, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert demo(kind, "--out", tmp_path / "runs") == (
        2,
        "",
        f"jlstm: {package} is not installed; it comes with: pip install 'jlstm[{extra}]'\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dance"], '"dance" for KIND. Choose from: "text", "table", "sequences"'),
        (["text", "table"], "unexpected argument: table"),
        (["--steps", "0"], "--steps"),
        (["--steps", "1.5"], "--steps"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "9999999999"], "--seed: expected at most 2147483647"),
        (["--compare-seconds", "-1"], "--compare-seconds. Expected a finite number of at least 0"),
        (["--compare-seconds", "inf"], "--compare-seconds. Expected a finite number of at least 0"),
        (["--hidden", "3"], "--hidden"),
        (["--out", __file__], f"--out: expected a folder to write in, got {__file__}"),
    ],
)
def test_a_mistake_is_told_in_one_line(monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = demo(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("jlstm: ")
    assert err.count("\n") == 1
    assert said in err
    assert not list(tmp_path.iterdir())


# Their data.


def rows_of(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return [*csv.DictReader(stream)]


def test_the_text_is_that_of_python_itself(tmp_path):
    config, file = python_text(tmp_path, {"steps": 7})
    assert file.read_bytes() == pydoc_text()
    assert (config.tokens, config.steps) == ("byte", 7)


def test_the_weather_has_every_day_of_four_years(tmp_path):
    config, file = seattle_weather(tmp_path, {})
    rows = rows_of(file)
    days = np.arange("2012-01-01", "2016-01-01", dtype="datetime64[D]")
    assert [row["date"] for row in rows] == [*days.astype(str)]
    high, low, rain = (
        np.array([float(row[name]) for row in rows])
        for name in ("temp_max", "temp_min", "precipitation")
    )
    assert (low <= high).all()
    assert (low > -20).all()
    assert (high < 40).all()  # degrees Celsius
    # Measured, not smoothed: of a day little is sure, and rain falls on some only.
    assert np.abs(np.diff(high)).mean() > 1.5
    assert 0.3 < (rain > 0).mean() < 0.6
    assert (config.time, config.target, config.horizon) == ("date", ("temp_max",), 7)
    assert config.past == ("temp_min", "precipitation", "wind")


def test_a_digit_is_eight_rows_of_eight_pixels(tmp_path):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    config, file = digits(tmp_path, {})
    rows = rows_of(file)
    assert len(rows) == 8 * len(images)
    for n in (0, 1, 1796):
        own = [row for row in rows if row[config.id] == str(n)]
        assert [row[config.time] for row in own] == [*"01234567"]
        assert [float(row[f"pixel{k}"]) for row in own for k in range(8)] == images[n].tolist()
        assert {row[config.label] for row in own} == {str(labels[n])}


def test_cells_are_quoted_where_they_must_be(tmp_path):
    file = write_rows(tmp_path / "a.csv", ("a", "b"), [("x, y", 'say "so"'), ("Ω", 3)])
    assert rows_of(file) == [{"a": "x, y", "b": 'say "so"'}, {"a": "Ω", "b": "3"}]
