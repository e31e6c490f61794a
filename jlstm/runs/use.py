"""A trained model at work: judged, asked for forecasts and labels, or made to write."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.runs.folder import check_sums, kind_of, read_config
from jlstm.runs.state import load_best
from jlstm.tasks.config import TextConfig, Training
from jlstm.tasks.job import Evaluation, Job
from jlstm.tasks.naming import name_for, results_path
from jlstm.train.records import write_json

Path_ = str | os.PathLike[str]
Say = Callable[[str], None]


def module_of(config: Training) -> Any:
    """The file of this folder that has the functions of this kind of job; job.py lists them."""
    module: Any
    match kind_of(config):  # only what is used is imported
        case "text":
            from jlstm.tasks.text import job as module
        case "table":
            from jlstm.tasks.table import job as module
        case _:
            from jlstm.tasks.sequences import job as module
    return module


class Trained(NamedTuple):
    """A trained model, as a run's folder has it."""

    folder: Path
    config: Training
    params: Any
    step: int
    """After which these were the parameters."""
    loss: float
    """On the validation data."""


def load(folder: Path_, *, say: Say = print) -> Trained:
    """The model of a run: the parameters with the lowest validation loss so far.

    Where their file is not as it was written, those of the newest good checkpoint are taken.

    Raises:
        OSError, ValueError: no folder of a run; nothing has been validated yet.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_sums(folder)
    job: Job = module_of(config).build(config, folder)
    best = load_best(folder, config, job, say)
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
    judged: Evaluation = module_of(model.config).evaluate(
        model.config, model.folder, model.params, path
    )
    name = None if path is None else name_for(model.folder, path)
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
    model = load(folder, say=say)
    module = module_of(model.config)
    if not hasattr(module, "predict"):
        raise ValueError("run: expected a model of a table or of sequences; see jlstm sample")
    for sentence in module.predict(model.config, model.folder, model.params, Path(file), Path(out)):
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
    model = load(folder, say=say)
    if not isinstance(model.config, TextConfig):
        raise ValueError("run: expected a language model; see jlstm predict")
    module = module_of(model.config)
    for note in module.prompt_notes(model.folder, prompt):
        say(note)
    written: str = module.sample(model.config, model.folder, model.params, prompt, **options)
    return written
