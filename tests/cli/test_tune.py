"""`jlstm tune` and `--seeds`: what they print and leave, and each mistake in one line."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest
from command_line import command
from small_runs import table

from jlstm.cli.main import build_app
from jlstm.runs import search, seeds
from jlstm.runs.folder import best_run, read_config

pytest.importorskip("optuna")

TYPED = (
    "--time", "hour", "--target", "load", "--horizon", "4", "--lookback", "16", "--hidden", "6",
    "--batch", "16", "--steps", "5", "--validate-every", "1", "--patch", "4", "--layers", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "load.csv"
    table(path)
    return path


@pytest.fixture(scope="module")
def tuned(file, tmp_path_factory):
    """A search of two trials, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "found"
    told = command(
        "tune", "table", file, *TYPED, "--trials", "2", "--out", folder.parent, "--name", "found"
    )
    return folder, told


@pytest.fixture(scope="module")
def two(file, tmp_path_factory):
    """Runs with two seeds, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    told = command(
        "train", "table", file, *TYPED, "--seeds", "2", "--out", folder.parent, "--name", "two"
    )
    return folder, told


def test_there_is_a_line_for_each_trial_and_the_winner_is_judged(tuned):
    folder, (status, out, err) = tuned
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("Trial ")]
    assert len(lines) == 2
    for n, line in enumerate(lines):
        form = rf"Trial {n}, {n + 1} of 2: \d\.\d{{4}} \(best .*\), finished, \d+ s; learning_rate="
        assert re.match(form, line)
    assert "2 trials (2 finished); the best, by quantile loss" in out
    assert out.count("Every window of the test") == 1
    winner = best_run(folder)
    assert json.loads((winner / "result.json").read_text())["verdict"] in out
    for name in (winner.name, "trials.csv", "plots/trials.png"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE)


def test_what_was_typed_is_not_searched(tuned):
    folder, _ = tuned
    space = search.read_search(folder).space
    assert {*space} == {"learning_rate", "dropout", "augment", "weight_decay"}


def test_a_default_that_was_typed_is_not_searched_either(file, tmp_path, monkeypatch):
    monkeypatch.setattr("jlstm.cli.tune.go_on", lambda folder: None)
    ended = command(
        "tune", "table", file, *TYPED, "--dropout=0.2", "--out", tmp_path, "--name", "own"
    )
    assert ended.status == 0
    space = search.read_search(tmp_path / "own").space
    assert {*space} == {"learning_rate", "augment", "weight_decay"}


def test_what_a_run_that_is_gone_on_from_had_is_searched(file, two, tmp_path, monkeypatch):
    monkeypatch.setattr("jlstm.cli.tune.go_on", lambda folder: None)
    folder, _ = two
    ended = command("tune", "table", file, "--from", folder, "--steps", "5",
                    "--weight-decay", "0", "--out", tmp_path, "--name", "own")  # fmt: skip
    assert ended.status == 0, ended.err
    space = search.read_search(tmp_path / "own").space
    assert {*space} == {"learning_rate", "dropout", "augment", "batch"}
    assert read_config(tmp_path / "own/trial-0").from_ == best_run(folder)


def test_the_winning_command_asks_for_the_winner(tuned):
    folder, (_, out, _) = tuned
    name, *words = shlex.split(out.splitlines()[-1])
    assert name == "jlstm"
    _, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    winner = read_config(best_run(folder))
    asked = bound.arguments["config"]
    assert replace(asked, out=winner.out, name=winner.name) == winner


def test_the_same_name_twice_is_refused(file, tuned):
    folder, _ = tuned
    ended = command("tune", "table", file, *TYPED, "--out", folder.parent, "--name", "found")
    assert (ended.status, ended.out) == (2, "")
    assert "there is a run" in ended.err
    assert "see jlstm resume" in ended.err


def test_resume_makes_it_longer(tuned, monkeypatch):
    folder, _ = tuned
    asked = {}

    def resume(folder, **options):
        asked.update(trials=search.read_search(folder).trials)
        raise ValueError("far enough")

    monkeypatch.setattr(search, "resume", resume)
    assert command("resume", folder, "--trials", "3").err == "jlstm: far enough\n"
    assert asked == {"trials": 3}
    ended = command("resume", folder, "--trials", "1")
    assert ended.err == (
        "jlstm: --trials: expected at least the 3 that were asked for before, got 1\n"
    )
    ended = command("resume", best_run(folder), "--minutes", "1")
    assert ended.err.startswith("jlstm: --trials, --minutes: expected the folder of a search, got")


def test_time_that_is_over_is_told_and_cannot_be_taken_back(tuned, tmp_path):
    folder = shutil.copytree(tuned[0], tmp_path / "found")
    ended = command("resume", folder, "--minutes", "1e-9")
    assert ended.err.startswith("jlstm: --minutes: expected at least the ")
    assert ended.err.endswith(" that the search has taken so far, got 1e-09\n")
    path = folder / "search.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "minutes": 1e-9}))
    ended = command("resume", folder, "--trials", "3")
    assert ended.status == 0
    assert "The 1e-09 minutes are over after 2 of 3 trials. For more:" in ended.out


def test_the_folder_goes_where_that_of_a_run_does(tuned, file, tmp_path):
    folder, _ = tuned
    ended = command("predict", folder, file, "--out", tmp_path / "forecast.csv")
    assert ended.status == 0
    assert ended.out.startswith(f"Of the runs in {folder}, {best_run(folder).name} has the lowest")
    assert (tmp_path / "forecast.csv").read_text().startswith("hour,target,")


def test_without_time_for_a_trial_it_says_so(file, tmp_path):
    ended = command(
        "tune", "table", file, *TYPED, "--minutes", "0.00001", "--out", tmp_path, "--name", "own"
    )
    assert ended.status == 2
    assert ended.err.startswith("jlstm: --minutes: expected enough for a trial, but none has")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--trials", "0"), "--trials. Must be >= 1"),
        (("--trials", "many"), "--trials: expected a whole number, got many"),
        (("--minutes", "0"), "--minutes. Expected a finite number above 0"),
        (("--minutes", "nan"), "--minutes. Expected a finite number above 0"),
        (("--seeds", "2"), "Unknown option: --seeds."),
        (("--learning-rate=1e-3", "--dropout=0", "--augment=0", "--weight-decay=0"),
         "--weight-decay: expected one of them left to be searched, got all of them"),
        (("--past", "nope"), "--past: expected a column of the table"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(file, tmp_path, wrong, said):
    ended = command("tune", "table", file, *TYPED, *wrong, "--out", tmp_path / "new")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert not (tmp_path / "new").exists()


def test_the_extra_is_named(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    ended = command("tune", "table", file, *TYPED, "--out", tmp_path / "new")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        "jlstm: optuna is not installed; it comes with: pip install 'jlstm[tune]'\n"
    )


# Seeds.


def test_seeds_are_compared(two):
    folder, (status, out, err) = two
    assert (status, err) == (0, "")
    assert "Seed 0, 1 of 2." in out
    assert "mean ± standard deviation (n − 1) of 2 seeds" in out
    assert re.search(r"^model +\d.* ± \d", out, re.MULTILINE)
    best = best_run(folder).name
    assert re.search(rf"^{best.removeprefix('seed-')} .* the best *$", out, re.MULTILINE)
    assert f"{best} " in out
    assert {path.name for path in folder.glob("seed*")} == {
        "seed-0", "seed-1", "seeds.json", "seeds.csv",
    }  # fmt: skip


def test_resume_of_finished_seeds_trains_nothing(two, monkeypatch):
    folder, told = two
    monkeypatch.setattr(seeds.jobs, "resume", lambda *a, **o: pytest.fail("it began to train"))
    ended = command("resume", folder)
    assert ended.status == 0
    assert ended.out == told.out[-len(ended.out) :]


def test_runs_lists_seeds_in_one_line(two):
    folder, _ = two
    out = command("runs", folder.parent).out
    assert len(out.splitlines()) == 2
    assert re.search(r"^two +finished .*seeds=2 best=seed-\d", out, re.MULTILINE)
    assert len(command("runs", folder).out.splitlines()) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--seeds", "0"), "--seeds. Must be >= 1"),
        (("--seeds", "1.5"), "--seeds: expected a whole number, got 1.5"),
        (("--seeds", "2", "--seed", "2147483647"), "--seed: expected at most 2147483647"),
    ],
)
def test_a_mistake_with_seeds_leaves_nothing(file, tmp_path, wrong, said):
    ended = command("train", "table", file, *TYPED, *wrong, "--out", tmp_path / "new")
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
    assert not (tmp_path / "new").exists()
