"""A search for better options: trainings that are tried out, and judged by their validation loss.

    folder = start(config, "load.csv", trials=30, minutes=20)
    found = resume(folder)          # from the beginning, or from whatever stopped it
    found.winner                    # an ordinary run: the best trial, judged on the test part

The first trial is the training that was asked for as it is, so that nothing worse is ever found.
The others are what ``proposals.py`` proposes, and ended early where it sees no hope in them.

All that a search knows stands in its folder:

    search.json      what was asked for, what is searched, how many trials and minutes
    spent.json       the seconds so far; which trial was begun, where, and how often
    trials.jsonl     a line for each trial that has ended
    trials.csv       the same as a table
    winner.json      the best trial, and the command that trains it again
    plots/trials.png the same as a picture
    trial-7/         the best one so far, whole; and the one that is under way

What is proposed is a function of the seed and of the trials before, and each training can be gone
on with: a search that was stopped, in whatever way, goes on as if it had not been. (For which
trials there is time, the clock says.)
"""

import os
import shutil
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jlstm.checks import check_number, check_size, wrong
from jlstm.files import sha256
from jlstm.records import plain, read_json_lines, write_json
from jlstm.runs import run as jobs
from jlstm.runs.command import command_line
from jlstm.runs.folder import (
    SEARCH,
    WINNER,
    as_asked,
    asked_in,
    begins_at,
    best_run,
    locked,
    make_folder,
    read_config,
    read_json,
)
from jlstm.runs.kinds import task_of
from jlstm.runs.proposals import Search, optuna, propose, searched
from jlstm.runs.report import write_report
from jlstm.runs.trials import Trial, best_of, ranking, read_trials, write_table, write_trials
from jlstm.runs.use import Path_
from jlstm.tasks.config import Range, Training
from jlstm.tasks.job import Evaluation, Say
from jlstm.train.checkpoints import newest_checkpoint

RUNGS = 10
"""In each training, how often it is asked whether to go on with it."""
TRIES = 3
"""How often a trial is begun, where it ends the process."""


class Outcome(NamedTuple):
    """What became of a search."""

    folder: Path
    trials: Sequence[Trial]
    finished: bool
    """False where it was interrupted."""
    winner: Path | None
    """The run of the best trial; None where no trial has finished."""
    score: str
    """What a validation loss is measured in."""
    command: str
    """Which trains the winner again, to be pasted into a shell."""
    evaluation: Evaluation | None
    """Of the winner, on the part for the test, which no other trial has looked at."""


def start(
    config: Training,
    *files: Path_,
    fixed: Sequence[str] = (),
    trials: int = 30,
    minutes: float | None = None,
    say: Say = print,
) -> Path:
    """Make the folder of a search, and in it the first trial, checked. Nothing is trained.

    Args:
        config: what to train; the options to be searched are where the search begins.
        files: the user's files.
        fixed: names of options that are not to be searched.
        trials: how many trainings to try, at most.
        minutes: how long the search may take in all; None for as long as it takes.
        say: is told what there is to know.

    Returns:
        The folder.

    Raises:
        MissingExtraError: a package is not installed.
        TypeError, ValueError, OSError: the configuration or the files are not what they should be;
            nothing is left behind.
    """
    optuna()
    check_size("trials", trials)
    if minutes is not None:
        check_number("minutes", minutes, above=0)
    if config.from_ is not None:
        config = replace(config, from_=best_run(config.from_))
    space = searched(config, fixed)
    paths = tuple(Path(file).resolve() for file in files)

    def fill(folder: Path) -> None:
        (folder / "trial-0").mkdir()
        jobs.fill(replace(config, name="trial-0"), paths, folder / "trial-0", say)
        about: dict[str, Any] = {"sums": _sums(paths), "trials": trials, "minutes": minutes}
        about["space"] = {
            name: among._asdict() if isinstance(among, Range) else list(among)
            for name, among in space.items()
        }
        write_json(folder / SEARCH, {**as_asked(config, paths), **about})

    folder = make_folder(config, fill)
    say(f"The search is in {folder}.")
    return folder


def read_search(folder: Path) -> Search:
    """What is asked for in the folder of a search.

    Raises:
        ValueError: it is damaged, or of another version of jlstm.
    """
    path = folder / SEARCH
    config = asked_in(path)
    try:
        said = read_json(path)
        space = {
            str(name): Range(**among) if isinstance(among, dict) else tuple(among)
            for name, among in said["space"].items()
        }
        files = tuple(Path(file) for file in said["files"])
        trials, minutes = int(said["trials"]), said["minutes"]
        if minutes is not None:
            minutes = float(minutes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: expected what jlstm wrote there, got: {error}") from None
    return Search(config, files, space, trials, minutes)


def extend(folder: Path_, *, trials: int | None = None, minutes: float | None = None) -> None:
    """Give a search more trials or more time: what there was so far included.

    Raises:
        OSError, ValueError: no folder of a search; less than before, or than it took so far.
    """
    folder = Path(folder)
    search = read_search(folder)
    spent = _Spent(folder).seconds / 60
    if minutes is not None and search.minutes is None and minutes < spent:
        raise wrong(
            "minutes",
            f"expected at least the {spent:.3g} that the search has taken so far, got {minutes:g}",
        )
    for name, value, before in (
        ("trials", trials, search.trials), ("minutes", minutes, search.minutes),
    ):  # fmt: skip
        if value is not None and before is not None and value < before:
            raise wrong(
                name, f"expected at least the {before:g} that were asked for before, got {value:g}"
            )
    with locked(folder):
        said = read_json(folder / SEARCH)
        asked = {"trials": trials, "minutes": minutes}
        changed = {name: value for name, value in asked.items() if value is not None}
        write_json(folder / SEARCH, {**said, **changed})


def resume(
    folder: Path_,
    *,
    say: Say = print,
    watch: Callable[[Trial, Trial | None], None] = lambda trial, best: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Go on with a search to its end; then judge the winner, once.

    A trial whose numbers are not finite, that does not fit into memory, or whose options do not go
    together, has failed, and the search goes on. A trial that the time runs out for counts as
    pruned; where it is the first, it is gone on with once there is more time.

    Args:
        folder: of the search.
        say: is told what there is to know.
        watch: is told of each trial that has ended, and of the best one so far.
        interrupted: asked after every step; True saves a checkpoint and ends the search for now.

    Raises:
        MissingExtraError: a package is not installed.
        OSError, ValueError: no folder of a search; it is damaged, or gone on with by another
            process; a file that trials are made from has changed.
    """
    folder = Path(folder)
    search = read_search(folder)
    optuna()
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = stopped or interrupted()
        return stopped

    with locked(folder):
        _sort_out(folder)
        _try_out(folder, search, say, watch, stop)
        trials = read_trials(folder)
        best = best_of(trials)
        score = str((read_json(folder / "spent.json") or {}).get("score", "loss"))
        write_table(folder, list(search.space), trials, score)
        if best is None:
            return Outcome(folder, trials, not stopped, None, score, "", None)
        winner = folder / f"trial-{best.number}"
        command = command_line(read_config(winner), search.files)
        about = {"trial": best.number, "validation_loss": best.loss, "command": command}
        shown = [plain(asdict(ranking(trials, score)))]
        write_json(folder / WINNER, {**about, "for_people": shown})
        if stopped:
            return Outcome(folder, trials, False, winner, score, command, None)
        outcome = jobs.resume(winner, say=_nothing)
        write_report(winner)  # which of an earlier end of the search may be there already
        return Outcome(folder, trials, True, winner, score, command, outcome.evaluation)


def _try_out(
    folder: Path,
    search: Search,
    say: Say,
    watch: Callable[[Trial, Trial | None], None],
    interrupted: Callable[[], bool],
) -> None:
    """Trial after trial, until there are enough, the time is over, or it is interrupted."""
    trials = read_trials(folder)
    sums = read_json(folder / SEARCH)["sums"]
    while len(trials) < search.trials and not interrupted():
        spent = _Spent(folder)
        left = None if search.minutes is None else 60 * search.minutes - spent.seconds
        if left is not None and left <= 0:
            return
        number = len(trials)
        if not (folder / f"trial-{number}").exists() and _sums(search.files) != sums:
            raise ValueError(
                f"{', '.join(map(str, search.files))}: expected what the search was begun with, "
                "but it has changed"
            )
        ended = _one(folder, search, trials, spent, left, say, interrupted)
        if ended is None:
            return
        trials = [*trials, ended]
        write_trials(folder, trials)
        _sort_out(folder)
        watch(ended, best_of(trials))


class _Spent:
    """The time that a search has taken, and how often its latest trial was begun where: on disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "spent.json"
        known = read_json(self._path) or {}
        self.seconds = float(known.get("seconds", 0.0))
        self.score = str(known.get("score", "loss"))
        self._place, self._begun = known.get("place"), int(known.get("begun", 0))
        self._start = clock.perf_counter()

    def begin(self, trial: int, step: int) -> int:
        """How often this trial has been begun from this step, this time included."""
        self._begun = self._begun + 1 if self._place == [trial, step] else 1
        self._place = [trial, step]
        self._write(self.seconds)
        return self._begun

    def end(self) -> float:
        """The seconds since it was read; whatever ended the trial, it did not end the process."""
        seconds, self._begun = clock.perf_counter() - self._start, 0
        self._write(self.seconds + seconds)
        return seconds

    def _write(self, seconds: float) -> None:
        known = {"seconds": round(seconds, 3), "score": self.score}
        write_json(self._path, {**known, "place": self._place, "begun": self._begun})


def _one(
    folder: Path,
    search: Search,
    trials: Sequence[Trial],
    spent: _Spent,
    left: float | None,
    say: Say,
    interrupted: Callable[[], bool],
) -> Trial | None:
    """The next trial, from its beginning or from where it stopped; None where it was stopped."""
    number, began = len(trials), clock.perf_counter()
    proposed = propose(search, trials)
    options = {name: proposed.params[name] for name in search.space}
    run = folder / f"trial-{number}"
    rungs: dict[int, float] = {}
    known: dict[str, Any] = {"step": 0, "loss": None}
    hopeless = False

    def watch(record: Mapping[str, Any]) -> None:
        nonlocal hopeless
        known["step"], spent.score = record["step"], record["score"]
        loss = record["validation_loss"]
        if loss is None:
            return
        known["loss"] = loss if known["loss"] is None else min(loss, known["loss"])
        begin = begins_at(run)
        rung = RUNGS * (record["step"] - begin) // (record["steps"] - begin)
        if rung not in rungs:
            rungs[rung] = known["loss"]
            proposed.report(known["loss"], rung)
            hopeless = hopeless or (rung < RUNGS and proposed.should_prune())

    def late() -> bool:
        return left is not None and clock.perf_counter() - began > left

    def ended(status: Any, why: str = "") -> Trial:
        loss, step = known["loss"], known["step"]
        return Trial(number, options, status, loss, step, round(spent.end(), 1), rungs, why)

    if spent.begin(number, newest_checkpoint(run / "checkpoints") or 0) > TRIES:
        return ended("failed", f"it ended the process {TRIES} times")
    try:
        config = replace(search.config, **options, out=folder, name=run.name)
        if run.exists() and replace(read_config(run), out=folder) != config:
            _remove(run)  # another version of Optuna may propose something else
        if not run.exists():
            jobs.start(config, *search.files, say=_nothing)
        for record in _so_far(run):  # what was seen before it was stopped
            watch({**record, "score": spent.score})
        said = say if number == 0 else _nothing
        outcome = jobs.resume(
            run,
            say=said,
            watch=watch,
            interrupted=lambda: hopeless or late() or interrupted(),
            judging=False,
        )
    except (ValueError, TypeError, FloatingPointError, OverflowError, MemoryError) as error:
        return ended("failed", " ".join(str(error).split()) or "out of memory")
    except RuntimeError as error:
        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        return ended("failed", " ".join(str(error).split()))
    finally:
        jax.clear_caches()  # type: ignore[no-untyped-call]  # of programs that no other trial runs
    if outcome.finished and outcome.best is not None:
        known["loss"], known["step"] = outcome.best.loss, outcome.step
        return ended("finished")
    if hopeless:
        return ended("pruned")
    if late() and best_of(trials) is not None:
        return ended("pruned", "the time was over")
    spent.end()
    return None


def _so_far(run: Path) -> Iterator[dict[str, Any]]:
    """The validations of a trial up to its newest checkpoint, with its length."""
    records = read_json_lines(run / "metrics.jsonl")
    if not records:
        return
    last = newest_checkpoint(run / "checkpoints") or 0
    config = read_config(run)
    steps = task_of(config).build(config, run).steps
    for record in records:
        if record["step"] <= last and record["step"] > begins_at(run):
            yield {**record, "steps": steps}


def _sort_out(folder: Path) -> None:
    """Take away the runs of trials that have ended, but for the best, and for winners of before."""
    trials = read_trials(folder)
    best = best_of(trials)
    for trial in trials:
        run = folder / f"trial-{trial.number}"
        if (best is None or trial.number != best.number) and not (run / "result.json").exists():
            _remove(run)


def _remove(run: Path) -> None:
    """Take a run away: first its name, so that nobody takes the rest of it for a run."""
    part = run.with_name(f".{run.name}.{os.getpid()}.part")
    with suppress(FileNotFoundError):
        run.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def _sums(files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file, and of each in a folder."""
    found: dict[str, str] = {}
    for path in files:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found |= {str(one): sha256(one) for one in inside}
    return found


def _nothing(text: str) -> None:
    pass
