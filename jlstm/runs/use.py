"""A trained model at work: judged, asked for forecasts and labels, or made to write."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.records import write_json
from jlstm.runs.folder import best_run, check_sums, read_config
from jlstm.runs.kinds import task_of
from jlstm.runs.naming import name_for, results_path
from jlstm.runs.report import for_people, write_report
from jlstm.runs.state import best_of_checkpoint, read_best
from jlstm.tasks.config import Training
from jlstm.tasks.job import Evaluation, Say, no_text

Path_ = str | os.PathLike[str]
SAMPLED = 400
"""Tokens of a language model's sample in the report."""


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
    """The model of a run as it is used: its best parameters, and what is learnt of them afterwards.

    Args:
        folder: of the run.
        whole: as for ``load_best``; a run that has not finished is always looked at as a whole.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: as ``load_best`` does.
    """
    finished = (Path(folder) / "result.json").is_file()
    return ready(load_best(folder, whole=whole or not finished, say=say))


def ready(model: Trained) -> Trained:
    """The best parameters with what is learnt of them after the training."""
    found = task_of(model.config).ready(model.config, model.folder, model.params)
    return model._replace(params=found)


def load_best(folder: Path_, *, whole: bool = True, say: Say = print) -> Trained:
    """The parameters of a run with the lowest validation loss so far, as they were trained.

    Where their file is not as it was written, those of the newest good checkpoint are taken.

    Args:
        folder: of the run; of several runs, their best one is taken, see ``best_run``.
        whole: whether all of its data has to be as it was written, which is read for that; False
            for what forecasts, labels or writes, and asks nothing of what was trained on.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: no folder of a run; nothing has been validated yet.
    """
    folder = best_run(folder, say)
    config = read_config(folder)
    task = task_of(config)
    check_sums(folder, None if whole else task.ABOUT)
    best = read_best(folder, lambda: task.template(config, folder))
    if best is None:
        check_sums(folder)
        best = best_of_checkpoint(folder, config, task.build(config, folder), say)
    return Trained(folder, config, best.params, best.step, best.loss)


def evaluate(
    folder: Path_,
    file: Path_ | None = None,
    *,
    forecasts: Path_ | None = None,
    dynamic: bool = False,
    say: Say = print,
) -> Evaluation:
    """Judge the model of a run, and write the results into its folder ``evaluation``.

    They are in its ``report.html``, too.

    Those of a file take the place of those that there are of the same file, see ``name_for``.

    Args:
        folder: of the run.
        file: what to judge it on, in the form of what it was trained on; None for the part of that
            which was kept back for the purpose.
        forecasts: a .parquet file to write those of a table into, see ``save_forecasts``.
        dynamic: whether to judge a language model once more, as it goes on learning.
        say: is told what there is to know.

    Raises:
        OSError, ValueError: as ``load`` does; or the file is not what it should be.
    """
    model = load(folder, say=say)
    saved = [] if forecasts is None else save_forecasts([model], file, forecasts)
    judged = judge(model, file, dynamic=dynamic)
    write_report(model.folder)
    return replace(judged, notes=[*judged.notes, *saved])


def save_forecasts(models: Sequence[Trained], file: Path_ | None, out: Path_) -> list[str]:
    """Write the forecasts of every window that ``judge`` looks at into a .parquet file.

    Args:
        models: of a table; of several, the forecasts of one stand behind those of the other.
        file: as for ``evaluate``.
        out: there as a whole or not at all.

    Returns:
        What there is to say of it.

    Raises:
        OSError, ValueError: the file is not what it should be, or ``out`` cannot be written; the
            model is none of a table.
    """
    path = None if file is None else Path(file)
    task = task_of(models[0].config)
    each = [(model.config, model.folder, model.params) for model in models]
    return [*task.save_forecasts(each, path, Path(out))]


def judge(model: Trained, file: Path_ | None = None, *, dynamic: bool = False) -> Evaluation:
    """``evaluate`` for a model that is loaded already, without the report."""
    path = None if file is None else Path(file)
    name = None if path is None else name_for(model.folder, path)
    task = task_of(model.config)
    way = task.evaluate_dynamic if dynamic else task.evaluate
    judged = way(model.config, model.folder, model.params, path, name)
    results = results_path(model.folder, name)
    about = {
        "step": model.step,
        "file": None if path is None else str(path.resolve()),
        "verdict": judged.verdict,
    }
    results.parent.mkdir(exist_ok=True)
    shown = for_people(judged, _sample(model) if path is None else "")
    write_json(results, {**about, **judged.results, "for_people": shown})
    if path is None:
        return judged
    where = f"The results are in {results.relative_to(model.folder)}."
    return replace(judged, notes=[*judged.notes, where])


def _sample(model: Trained) -> str:
    """A little of what a language model writes, the same each time; nothing of other models."""
    task = task_of(model.config)
    if task.sample is no_text:
        return ""
    options: dict[str, Any] = {"length": SAMPLED, "temperature": 0.8, "say": lambda text: None}
    try:
        pieces = task.sample(model.config, model.folder, model.params, "", **options)
        return "".join(text for _, text in pieces)
    except ValueError:  # it does not know the line break that it would begin after
        return ""


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


def write(
    folder: Path_, prompt: str, *, say: Say = print, **options: Any
) -> Iterator[tuple[int, str]]:
    """What the language model of a run writes after a prompt, in pieces as it is written.

    Args:
        folder: of the run.
        prompt: the text to go on from.
        say: is told what there is to know.
        options: of ``jlstm.tasks.text.writing.sample``: ``length``, ``temperature``, ``count``,
            ``top_k``, ``top_p``, ``seed``.

    Returns:
        The number of a sample, from 0, and the text that it goes on with: all pieces of sample 0,
        then all of sample 1, and so on.

    Raises:
        OSError, TypeError, ValueError: as ``load`` does; the model is none of texts; an option of
            another type or range.
    """
    model = load(folder, whole=False, say=say)
    task = task_of(model.config)
    return task.sample(model.config, model.folder, model.params, prompt, say=say, **options)


def samples(
    folder: Path_, prompt: str, count: int, *, say: Say = print, **options: Any
) -> list[str]:
    """Several texts that could follow the prompt, as ``write`` writes them."""
    pieces = write(folder, prompt, count=count, say=say, **options)
    texts = [""] * count
    for number, text in pieces:
        texts[number] += text
    return texts


def sample(folder: Path_, prompt: str, *, say: Say = print, **options: Any) -> str:
    """A text that could follow the prompt: the first of all ``samples``, however many there are."""
    return samples(folder, prompt, 1, say=say, **options)[0]
