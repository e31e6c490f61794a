"""A trained model at work: judged, asked for forecasts and labels, or made to write."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.records import write_json
from jlstm.runs.folder import best_run, check_sums, read_config
from jlstm.runs.kinds import task_of
from jlstm.runs.naming import name_for, results_path
from jlstm.runs.state import best_of_checkpoint, read_best
from jlstm.tasks.config import Training
from jlstm.tasks.job import Evaluation, Say

Path_ = str | os.PathLike[str]


class Trained(NamedTuple):
    """A trained model, as a run's folder has it."""

    folder: Path
    config: Training
    params: Any
    step: int
    """After which these were the parameters."""
    loss: float
    """On the validation data."""


def load(folder: Path_, *, whole: bool = True, say: Say = print) -> Trained:
    """The model of a run: the parameters with the lowest validation loss so far.

    Where their file is not as it was written, those of the newest good checkpoint are taken.

    Args:
        folder: of the run; of several runs, their best one is taken, see ``best_run``.
        whole: whether all of its data has to be as it was written, which is read for that; False
            for what forecasts, labels or writes, and asks nothing of what was trained on.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: no folder of a run; nothing has been validated yet.
    """
    folder, asked = best_run(folder), Path(folder)
    if folder != asked:
        say(f"Of the runs in {asked}, {folder.name} has the lowest validation loss.")
    config = read_config(folder)
    task = task_of(config)
    check_sums(folder, None if whole else task.ABOUT)
    best = read_best(folder, lambda: task.template(config, folder))
    if best is None:
        check_sums(folder)
        best = best_of_checkpoint(folder, config, task.build(config, folder), say)
    return Trained(folder, config, best.params, best.step, best.loss)


def evaluate(folder: Path_, file: Path_ | None = None, *, say: Say = print) -> Evaluation:
    """Judge the model of a run, and write the results into its folder ``evaluation``.

    Those of a file take the place of those that there are of the same file, see ``name_for``.

    Args:
        folder: of the run.
        file: what to judge it on, in the form of what it was trained on; None for the part of that
            which was kept back for the purpose.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: as ``load`` does; or the file is not what it should be.
    """
    return judge(load(folder, say=say), file)


def judge(model: Trained, file: Path_ | None = None) -> Evaluation:
    """``evaluate`` for a model that is loaded already."""
    path = None if file is None else Path(file)
    name = None if path is None else name_for(model.folder, path)
    task = task_of(model.config)
    judged = task.evaluate(model.config, model.folder, model.params, path, name)
    results = results_path(model.folder, name)
    about = {
        "step": model.step,
        "file": None if path is None else str(path.resolve()),
        "verdict": judged.verdict,
    }
    results.parent.mkdir(exist_ok=True)
    write_json(results, {**about, **judged.results})
    if path is None:
        return judged
    where = f"The results are in {results.relative_to(model.folder)}."
    return replace(judged, notes=[*judged.notes, where])


def predict(folder: Path_, file: Path_, out: Path_, *, say: Say = print) -> None:
    """Write what the model of a run foretells from a file: forecasts or labels.

    Args:
        folder: of the run.
        file: in the form of what the model was trained on; what is to be foretold may be missing.
        out: a .csv or .parquet file, there as a whole or not at all.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: as ``load`` does; the file is not what it should be, or ``out`` cannot
            be written; the model is one of texts.
    """
    model = load(folder, whole=False, say=say)
    task = task_of(model.config)
    for sentence in task.predict(model.config, model.folder, model.params, Path(file), Path(out)):
        say(sentence)


def sample(folder: Path_, prompt: str, *, say: Say = print, **options: Any) -> str:
    """Text that the language model of a run writes.

    Args:
        folder: of the run.
        prompt: the text to go on from.
        say: is told what there is to know.
        options: of ``jlstm.tasks.text.job.sample``: the length, the temperature, the seed…

    Raises:
        OSError, ValueError: as ``load`` does; the model is none of texts.
    """
    model = load(folder, whole=False, say=say)
    task = task_of(model.config)
    return task.sample(model.config, model.folder, model.params, prompt, say=say, **options)
