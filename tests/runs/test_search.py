"""A search: what is proposed, what becomes of each trial, and how it goes on.

Most of it is seen with trainings that take no time, and whose loss is a formula.
"""

import csv
import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest
from small_runs import nothing, result, table

from jlstm.runs import run as jobs
from jlstm.runs import search
from jlstm.runs.folder import best_run, read_config, summaries, write_config
from jlstm.runs.proposals import WARM
from jlstm.runs.report import write_report
from jlstm.runs.trials import SHOWN, best_of, ranking, read_trials
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig
from jlstm.train import Best

pytest.importorskip("optuna")


def formula(config):
    """The least at a learning rate of 0.01 and no dropout."""
    return 1 + math.log10(config.learning_rate / 0.01) ** 2 + config.dropout


class Trainings:
    """What takes the place of real ones: ten validations each, ten minutes long."""

    def __init__(self):
        self.loss = formula
        self.begun, self.judged, self.asked = [], [], 0
        self.now = 0.0
        self.stop_at = self.kill_at = None
        """At which question whether to go on: the answer, or the end of the process."""

    def fill(self, config, files, folder, say):
        write_config(folder, config, list(files))

    def start(self, config, *files, say):
        self.begun.append(config)
        folder = config.out / config.name
        folder.mkdir()
        write_config(folder, config, list(files))
        return folder

    def interrupted(self):
        self.asked += 1
        if self.asked == self.kill_at:
            raise SystemExit
        return self.asked == self.stop_at

    def resume(self, folder, *, say, watch=None, interrupted=None, judging=True):
        config = read_config(folder)
        if judging:
            self.judged.append(folder.name)
            (folder / "result.json").write_text("{}")
            return SimpleNamespace(evaluation=f"of {folder.name}")
        loss, best = self.loss(config), None
        for step in range(1, 11):
            self.now += 60
            seen = loss + 1 / step - 0.1
            best = seen if best is None else min(best, seen)
            (folder / "best.json").write_text(
                json.dumps({"loss": best, "step": step, "score": "points"})
            )
            watch({"step": step, "steps": 10, "validation_loss": seen, "score": "points"})
            if step < 10 and interrupted():
                return jobs.Outcome(folder, step, Best(best, step, None), False, None)
        return jobs.Outcome(folder, 10, Best(best, 10, None), True, None)


@pytest.fixture
def trainings(monkeypatch):
    made = Trainings()
    monkeypatch.setattr(search, "jobs", made)
    monkeypatch.setattr(search, "clock", SimpleNamespace(perf_counter=lambda: made.now))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "load.csv"
    path.write_text("when,load\n")
    return path


def config(tmp_path, **options):
    known = {"horizon": 4, "out": tmp_path / "runs", "name": "s", **options}
    return TableConfig(time="when", target="load", **known)


def begun(trainings, tmp_path, file, trials=12, minutes=None, fixed=(), **options):
    asked = config(tmp_path, **options)
    return search.start(asked, file, fixed=fixed, trials=trials, minutes=minutes, say=nothing)


def lines(folder):
    return (folder / "trials.jsonl").read_text()


def ended(folder):
    """The trials but for how long they took."""
    return [trial._replace(seconds=0) for trial in read_trials(folder)]


# What is found.


def test_the_first_trial_is_what_was_asked_for(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, learning_rate=0.0123)
    found = search.resume(folder, say=nothing)
    assert found.trials[0].options == {
        name: getattr(config(tmp_path, learning_rate=0.0123), name) for name in TableConfig.space
    }
    assert len(found.trials) == 12
    assert found.trials[0].status == "finished"
    best = min(trial.loss for trial in found.trials if trial.status == "finished")
    assert best < found.trials[0].loss  # it does not take much
    assert best_of(found.trials).loss == best


def test_the_winner_alone_is_kept_and_judged(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    found = search.resume(folder, say=nothing)
    number = best_of(found.trials).number
    assert [path.name for path in folder.glob("trial-*")] == [f"trial-{number}"]
    assert trainings.judged == [f"trial-{number}"]
    assert found.evaluation == f"of trial-{number}"
    assert best_run(folder) == found.winner == folder / f"trial-{number}"
    options = found.trials[number].options
    own = read_config(found.winner)
    assert {name: getattr(own, name) for name in options} == options
    assert own.seed == config(tmp_path).seed
    about = json.loads((folder / "winner.json").read_text())
    assert about["trial"] == number
    assert about["command"] == found.command
    assert f"--learning-rate {options['learning_rate']}" in found.command
    (one,) = summaries(folder.parent)
    assert (one.folder, one.changed["trials"]) == (folder, 12)


def test_a_pruned_trial_is_not_above_the_winner():
    options = {"dropout": 0.1, "patch": None, "linear": True}
    trials = [
        search.Trial(0, options, "pruned", 0.5, 3, 1.0, {}),
        search.Trial(1, options, "finished", 0.7, 9, 1.0, {}),
        search.Trial(2, options, "failed", None, 0, 1.0, {}, "it ended"),
        search.Trial(3, options, "finished", 0.6, 9, 1.0, {}),
    ]
    table = ranking(trials, "points")
    assert [row[0] for row in table.rows] == ["3", "1", "0"]
    assert table.rows[0][5:] == ["0.1", "default", "yes"]
    assert table.title == "4 trials (2 finished, 1 pruned, 1 failed); the best, by points"


def test_the_page_of_the_winner_shows_the_search(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    found = search.resume(folder, say=nothing)
    page = (found.winner / "report.html").read_text()
    table = ranking(found.trials, found.score)
    assert len(table.rows) == SHOWN < len(found.trials) == 12
    assert float(table.rows[0][1]) == round(best_of(found.trials).loss, 4)
    assert table.title.endswith("the best, by points")
    assert table.title in page
    assert all(f"<td>{cell}</td>" in page for cell in table.rows[-1][1:])
    assert 'alt="The validation loss of each trial."' in page
    alone = shutil.copytree(found.winner, tmp_path / found.winner.name)
    assert table.title not in write_report(alone).read_text()


def test_all_trials_stand_in_the_table_and_the_picture(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    found = search.resume(folder, say=nothing)
    with (folder / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["trial"]) for row in rows] == list(range(12))
    for row, trial in zip(rows, found.trials, strict=True):
        assert row["status"] == trial.status
        assert float(row["validation_loss"]) == trial.loss
        assert float(row["learning_rate"]) == trial.options["learning_rate"]
        assert row["seconds"] == str(trial.seconds)
    assert (folder / "plots/trials.png").stat().st_size > 10_000
    assert found.score == "points"


def test_without_hope_a_trial_ends_early(trainings, tmp_path, file):
    # After five that have finished: everything is bad but the first five.
    trainings.loss = lambda config: 1.0 if len(trainings.begun) < 5 else 9.0
    folder = begun(trainings, tmp_path, file, trials=8)
    trials = search.resume(folder, say=nothing).trials
    assert [trial.status for trial in trials] == ["finished"] * 5 + ["pruned"] * 3
    assert {trial.step for trial in trials[5:]} == {WARM}
    assert {*trials[5].rungs} == {1, 2}


def test_a_pruned_trial_does_not_win(trainings, tmp_path, file):
    trials = [
        search.Trial(0, {}, "finished", 2.0, 10, 1.0, {}),
        search.Trial(1, {}, "pruned", 1.0, 3, 1.0, {}),
        search.Trial(2, {}, "failed", 0.5, 3, 1.0, {}),
        search.Trial(3, {}, "finished", 2.0, 3, 1.0, {}),
    ]
    assert best_of(trials).number == 0
    assert best_of(trials[1:3]) is None


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (FloatingPointError("loss: expected a finite number, got nan"), "got nan"),
        (ValueError("hidden: expected a training that fits into 1 GiB"), "fits into"),
        (MemoryError(), "out of memory"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "RESOURCE_EXHAUSTED"),
    ],
)
def test_what_fails_is_told_and_the_search_goes_on(trainings, tmp_path, file, error, why):
    def loss(config):
        if len(trainings.begun) in (0, 2):
            raise error
        return formula(config)

    trainings.loss = loss
    folder = begun(trainings, tmp_path, file, trials=5)
    trials = search.resume(folder, say=nothing).trials
    assert [trial.status for trial in trials] == [
        "failed", "finished", "failed", "finished", "finished",
    ]  # fmt: skip
    assert why in trials[2].why
    assert best_of(trials).number in (1, 3, 4)


def test_options_that_do_not_go_together_are_a_failed_trial(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, trials=12, lookback=2, horizon=1, seed=1)
    trials = search.resume(folder, say=nothing).trials
    long = [trial for trial in trials if (trial.options["patch"] or 0) > 2]
    assert long
    assert {trial.status for trial in long} == {"failed"}
    assert "patch: expected at most the 2 steps of lookback" in long[0].why


def test_other_faults_end_the_search(trainings, tmp_path, file):
    def loss(config):
        raise OSError("No space left on device")

    trainings.loss = loss
    folder = begun(trainings, tmp_path, file, trials=5)
    with pytest.raises(OSError, match="No space left"):
        search.resume(folder, say=nothing)
    trainings.loss = formula
    assert len(search.resume(folder, say=nothing).trials) == 5


def test_where_nothing_finishes_there_is_no_winner(trainings, tmp_path, file):
    def loss(config):
        raise FloatingPointError("got nan")

    trainings.loss = loss
    folder = begun(trainings, tmp_path, file, trials=2)
    found = search.resume(folder, say=nothing)
    assert (found.finished, found.winner, found.evaluation) == (True, None, None)
    assert trainings.judged == []


# Going on.


@pytest.fixture
def whole(trainings, tmp_path, file):
    """A search that nothing happened to: its trials."""
    folder = begun(trainings, tmp_path, file, name="whole")
    search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    asked, trainings.asked = trainings.asked, 0
    trainings.begun.clear()
    trainings.judged.clear()
    return ended(folder), asked


def test_the_same_seed_proposes_the_same(trainings, whole, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    search.resume(folder, say=nothing)
    assert ended(folder) == whole[0]
    other = begun(trainings, tmp_path, file, name="other", seed=1)
    search.resume(other, say=nothing)
    assert ended(other)[0] == whole[0][0]
    assert ended(other)[1] != whole[0][1]
    learning_rates = {trial.options["learning_rate"] for trial in whole[0]}
    assert len(learning_rates) == len(whole[0])  # no startup trial is drawn twice


@pytest.mark.parametrize("how", ["stop_at", "kill_at"])
def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(trainings, whole, tmp_path, file, how):
    folder = begun(trainings, tmp_path, file)
    for gap in (1, 7, 14, 23, 30):
        setattr(trainings, how, trainings.asked + gap)
        if how == "stop_at":
            found = search.resume(folder, say=nothing, interrupted=trainings.interrupted)
            assert (found.finished, found.evaluation) == (False, None)
        else:
            with pytest.raises(SystemExit):
                search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    assert trainings.judged == []
    found = search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    assert found.finished
    assert ended(folder) == whole[0]
    assert len(trainings.judged) == 1
    assert len([*folder.glob("trial-*")]) == 1


def test_killed_before_or_after_a_trial_is_written_down(
    trainings, whole, tmp_path, file, monkeypatch
):
    folder = begun(trainings, tmp_path, file)
    write, count = search.write_trials, iter(range(99))

    def killed(path, records):
        n = next(count)
        if n == 2:
            raise SystemExit  # before
        write(path, records)
        if n == 5:
            raise SystemExit  # and after, with runs to be taken away

    monkeypatch.setattr(search, "write_trials", killed)
    for _ in range(2):
        with pytest.raises(SystemExit):
            search.resume(folder, say=nothing)
    search.resume(folder, say=nothing)
    assert ended(folder) == whole[0]


def test_a_trial_that_ends_the_process_again_and_again_has_failed(trainings, tmp_path, file):
    def loss(config):
        if len(trainings.begun) == 1:
            raise SystemExit  # the system takes the memory back
        return formula(config)

    trainings.loss = loss
    folder = begun(trainings, tmp_path, file, trials=3)
    for _ in range(search.TRIES):
        with pytest.raises(SystemExit):
            search.resume(folder, say=nothing)
    trials = search.resume(folder, say=nothing).trials
    assert [trial.status for trial in trials] == ["finished", "failed", "finished"]
    assert trials[1].why == "it ended the process 3 times"


def test_it_may_be_given_more_trials(trainings, whole, tmp_path, file):
    folder = begun(trainings, tmp_path, file, trials=3)
    search.resume(folder, say=nothing)
    search.extend(folder, trials=12)
    search.resume(folder, say=nothing)
    assert ended(folder) == whole[0]
    with pytest.raises(ValueError, match=r"trials: expected at least the 12 .* before, got 11"):
        search.extend(folder, trials=11)


def test_a_winner_of_before_stays_and_is_the_best_until_another_is_judged(
    trainings, tmp_path, file
):
    trainings.loss = lambda config: 1.0 / (1 + len(trainings.begun))  # each better than the last
    folder = begun(trainings, tmp_path, file, trials=2)
    before = search.resume(folder, say=nothing).winner
    search.extend(folder, trials=6)
    trainings.stop_at = trainings.asked + 30
    stopped = search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    assert not stopped.finished
    assert best_run(folder) == before
    said = json.loads((folder / "winner.json").read_text())
    assert f"trial-{said['trial']}" == stopped.winner.name
    found = search.resume(folder, say=nothing)
    assert best_run(folder) == found.winner == folder / "trial-5"
    assert {path.name for path in folder.glob("trial-*")} == {before.name, "trial-5"}


def test_a_finished_search_only_judges_again(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, trials=3)
    before = search.resume(folder, say=nothing)
    assert search.resume(folder, say=nothing) == before
    assert len(trainings.begun) == 2  # the first was made by start


# Time.


def test_the_time_bounds_all_of_it(trainings, tmp_path, file):
    trainings.loss = lambda config: 1.0
    folder = begun(trainings, tmp_path, file, minutes=34.5)
    found = search.resume(folder, say=nothing)
    assert [trial.status for trial in found.trials] == ["finished"] * 3 + ["pruned"]
    assert found.trials[-1].why == "the time was over"
    assert trainings.now == 35 * 60
    assert found.finished
    assert found.winner is not None
    # What there was counts after a stop, too.
    search.extend(folder, minutes=44.5)
    search.resume(folder, say=nothing)
    assert trainings.now == 45 * 60
    with pytest.raises(ValueError, match=r"minutes: expected at least the 44\.5"):
        search.extend(folder, minutes=1)


def test_a_stop_does_not_give_time_back(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, minutes=24.5)
    trainings.stop_at = 3
    search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    assert json.loads((folder / "spent.json").read_text())["seconds"] > 0
    search.resume(folder, say=nothing, interrupted=trainings.interrupted)
    assert trainings.now == 25 * 60


def test_without_time_for_the_first_it_is_gone_on_with(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, minutes=2.5)
    found = search.resume(folder, say=nothing)
    assert (found.finished, found.winner, found.trials) == (True, None, [])
    assert (folder / "trial-0").exists()
    search.extend(folder, minutes=30)
    assert search.resume(folder, say=nothing).trials[0].status == "finished"


# What may be wrong.


def test_another_file_of_the_same_name_is_noticed(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    file.write_text("when,load\n1,2\n")
    with pytest.raises(ValueError, match=r"load\.csv: expected what the search was begun with"):
        search.resume(folder, say=nothing)
    assert len(read_trials(folder)) == 1  # its data lies in its folder already
    file.unlink()
    with pytest.raises(OSError, match=r"load\.csv"):
        search.resume(folder, say=nothing)


def test_a_folder_of_files_is_watched_too(trainings, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    asked = TextConfig(out=tmp_path / "runs", name="s")
    folder = search.start(asked, texts, trials=2, say=nothing)
    (texts / "b.txt").write_text("b")
    with pytest.raises(ValueError, match="expected what the search was begun with"):
        search.resume(folder, say=nothing)


def test_damage_is_named(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file)
    search.resume(folder, say=nothing)
    good = (folder / "search.json").read_text()
    for bad in (good[:-20], good.replace('"space"', '"place"'), good.replace('"trials"', '"t"')):
        (folder / "search.json").write_text(bad)
        with pytest.raises(ValueError, match=r"search\.json: expected"):
            search.resume(folder, say=nothing)
    (folder / "search.json").write_text(good)
    (folder / "trials.jsonl").write_text('{"number": 0}\n')
    with pytest.raises(ValueError, match=r"trials\.jsonl: expected what jlstm wrote there"):
        search.resume(folder, say=nothing)


@pytest.mark.parametrize(
    "wrong", [{"trials": 0}, {"trials": 1.5}, {"minutes": 0}, {"minutes": math.nan}]
)
def test_limits_are_numbers_above_0(trainings, tmp_path, file, wrong):
    (name,) = wrong
    with pytest.raises((ValueError, TypeError), match=f"^{name}: expected"):
        search.start(config(tmp_path), file, say=nothing, **wrong)
    assert not (tmp_path / "runs").exists()


def test_nothing_is_pickled(trainings, tmp_path, file):
    folder = begun(trainings, tmp_path, file, trials=3)
    search.resume(folder, say=nothing)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {
        ".lock", "search.json", "spent.json", "trials.jsonl", "trials.csv", "winner.json",
    }  # fmt: skip
    for line in lines(folder).splitlines():
        assert json.loads(line)["options"]


# With real trainings.


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Three trials on a small table, stopped in the middle of the second, and gone on with."""
    path = tmp_path_factory.mktemp("files") / "load.csv"
    asked = replace(table(path), name="real", steps=10, validate_every=1, learning_rate=3e-3)
    fixed = ("hidden", "batch", "layers", "patch")
    folder = search.start(asked, path, fixed=fixed, trials=3, say=nothing)
    asks = iter([False] * 17 + [True])
    stopped = search.resume(folder, say=nothing, interrupted=lambda: next(asks, False))
    # Of the second trial, nothing has looked at the part for the test; nor of the first.
    early = [*folder.rglob("test.json"), *folder.rglob("result.json")]
    return asked, path, stopped, early, search.resume(folder, say=nothing)


@pytest.mark.slow
def test_it_is_so_with_real_trainings(real, tmp_path):
    asked, path, stopped, early, found = real
    assert (stopped.finished, len(stopped.trials), early) == (False, 1, [])
    assert found.finished
    whole = search.start(
        replace(asked, out=tmp_path), path, fixed=("hidden", "batch", "layers", "patch"),
        trials=3, say=nothing,
    )  # fmt: skip
    search.resume(whole, say=nothing)
    assert ended(found.folder) == ended(whole)


@pytest.mark.slow
def test_the_winner_is_what_its_options_give(real, tmp_path):
    _, path, _, _, found = real
    assert found.evaluation.verdict
    assert (found.winner / "result.json").is_file()
    assert (found.winner / "plots/training.png").is_file()
    own = replace(read_config(found.winner), out=tmp_path, name="again")
    again = jobs.train(own, path, say=nothing)
    assert result(again.folder, 10) == result(found.winner, 10)
    assert again.best.loss == best_of(found.trials).loss
    assert again.evaluation.results == found.evaluation.results
