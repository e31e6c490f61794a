"""The trials of a search: what became of each, in lines of JSON, in tables and as a picture."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jlstm.files import replacing
from jlstm.plots import plot_trials
from jlstm.records import plain, read_json_lines, write_json_lines
from jlstm.runs.command import typed
from jlstm.tasks.config import key_of
from jlstm.tasks.job import Table

SHOWN = 10
"""Trials in tables for people: the best ones."""


class Trial(NamedTuple):
    """A training that was tried out."""

    number: int
    options: Mapping[str, Any]
    """Of those that are searched."""
    status: Literal["finished", "pruned", "failed"]
    loss: float | None
    """The lowest on the validation data; None where there is none."""
    step: int
    """The last one."""
    seconds: float
    rungs: Mapping[int, float]
    """For each tenth of the training that was reached, the lowest loss up to it."""
    why: str = ""
    """It failed, or ended early for another reason than its losses."""


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The one that has finished with the lowest validation loss, the first of equals."""
    ended = [trial for trial in trials if trial.status == "finished" and trial.loss is not None]
    return min(ended, key=lambda trial: trial.loss or 0.0, default=None)


def read_trials(folder: Path) -> list[Trial]:
    """The trials that have ended.

    Raises:
        ValueError: their file is damaged.
    """
    path = folder / "trials.jsonl"
    trials = []
    for record in read_json_lines(path):
        try:
            rungs = {int(rung): float(loss) for rung, loss in record["rungs"].items()}
            trials.append(Trial(**{**record, "rungs": rungs}))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{path}: expected what jlstm wrote there, got {record}") from None
    return trials


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write them as lines of JSON, whole or not at all."""
    write_json_lines(folder / "trials.jsonl", [plain(trial._asdict()) for trial in trials])


def ranking(trials: Sequence[Trial], score: str) -> Table:
    """The best trials as a table.

    Args:
        trials: those that have ended.
        score: what a validation loss is measured in.
    """
    known = [trial for trial in trials if trial.loss is not None]
    # The pruned ones may have had a low loss for a moment, but are not to be chosen from.
    known.sort(key=lambda trial: (trial.status != "finished", trial.loss or 0.0))
    names = list(trials[0].options)
    rows = [
        [
            *(str(t.number), f"{t.loss:.4f}", t.status, f"{t.step:,}", f"{t.seconds:,.0f}"),
            *(show_option(t.options[name]) for name in names),
        ]
        for t in known[:SHOWN]
    ]
    states = [trial.status for trial in trials]
    counts = {status: states.count(status) for status in ("finished", "pruned", "failed")}
    said = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    return Table(
        f"{len(trials)} trial{'s' * (len(trials) != 1)} ({said}); the best, by {score}",
        ("trial", "validation loss", "status", "step", "s", *map(key_of, names)),
        rows,
        (0,),
    )


def show_option(value: Any) -> str:
    """An option of a trial in a few digits."""
    return f"{value:.3g}" if isinstance(value, float) else typed(value) or "default"


def write_table(folder: Path, names: Sequence[str], trials: Sequence[Trial], score: str) -> None:
    """Write the trials as a table, ``trials.csv``, and as a picture, ``plots/trials.png``.

    Args:
        folder: of the search.
        names: of the options that are searched.
        trials: those that have ended.
        score: what a validation loss is measured in.
    """
    path = folder / "trials.csv"
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ["trial", "status", "validation_loss", "step", "seconds"]
        writer.writerow([*head, *names, "why"])
        for t in trials:
            options = [t.options[name] for name in names]
            writer.writerow([t.number, t.status, t.loss, t.step, t.seconds, *options, t.why])
    if any(trial.loss is not None for trial in trials):
        (folder / "plots").mkdir(exist_ok=True)
        shown = [(t.number, t.status, t.loss) for t in trials]
        plot_trials(shown, folder / "plots" / "trials.png", score=score)
