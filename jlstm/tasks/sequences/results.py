"""What a trained labeller is worth: judged beside those who know nothing of order."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jlstm.extras import MissingExtraError
from jlstm.files import sha256
from jlstm.plots import plot_confusion, plot_predicted
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Picture
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import Sequences
from jlstm.tasks.sequences.measures import (
    confusion_matrix,
    majority,
    majority_of_equals,
    nearest,
    summary_features,
)
from jlstm.tasks.sequences.predictions import find_scores
from jlstm.tasks.sequences.preparing import Prepared, load, places_of_targets, read_labelled
from jlstm.tasks.sequences.report import MODEL, Errors, judge_classes, judge_numbers

NEAREST = "nearest neighbour"
MOST_NEIGHBOURS = 20_000
"""Of the training part, among which the baseline looks for the nearest."""


def evaluate(
    config: SequencesConfig,
    folder: Path,
    params: Any,
    file: Path | None = None,
    name: str | None = None,
) -> Evaluation:
    """Judge the model beside the baselines, on the test part or on a file with labels.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on; None for the test part.
        name: what the picture is called after; None for the file, without its ending.

    Raises:
        ValueError: the file is no table of this form, or has a label that the model does not know.
        OSError: the file cannot be read, or the picture not written.
    """
    prepared = load(config, folder)
    notes: list[str] = []
    if file is None:
        part = "test" if len(prepared.part("test")) else "validation"
        if part == "validation":
            notes.append(
                "There is no test part: this is the validation part, by which the parameters were "
                "chosen, so that the model looks a little better than it is."
            )
        data, chosen = prepared.data, prepared.part(part)
    else:
        data, notes = read_labelled(config, prepared.schema, file)
        if sha256(file) == prepared.schema.sha256:
            notes.insert(
                0,
                f"This is the very file that the run was trained on: "
                f"{len(prepared.part('train')):,} of {counted(len(data.lengths), 'sequence')} "
                "were in the training part. The model knows their labels, and looks better than it "
                "is; what it is worth is told by the test part.",
            )
        part, chosen = file.name, np.arange(len(data.lengths))
    scores = find_scores(config, prepared.schema, params, data, chosen)
    guesses, more = _baselines(config, prepared, data, chosen)
    notes += more
    results: dict[str, Any] = {"part": part, "sequences": len(chosen), "steps": len(scores)}
    if config.task != "tag":
        results["steps"] = int(data.lengths[chosen].sum())
    targets = data.targets[places_of_targets(config, data, chosen)]
    if config.task == "regress":
        schema = prepared.schema
        guesses = {MODEL: scores[:, 0], **guesses}
        true = targets * schema.scale + schema.mean
        told = {who: guess * schema.scale + schema.mean for who, guess in guesses.items()}
        return _with_picture(
            judge_numbers(results, true, told, notes),
            folder,
            "predicted" if file is None else f"predicted-{name or file.stem}",
            f"What was predicted for each sequence, over what is true: {part}.",
            lambda path: plot_predicted(true, told[MODEL], path, title=f"On {part}"),
        )
    guesses = {MODEL: scores.argmax(axis=1), **guesses}
    confusions = {
        who: confusion_matrix(targets, guess, len(prepared.schema.labels))
        for who, guess in guesses.items()
    }
    known = data.lengths[chosen] if config.task == "tag" else np.ones(len(chosen), np.int64)
    sequence = np.repeat(np.arange(len(chosen)), known)
    wrong = {who: np.bincount(sequence, guess != targets) for who, guess in guesses.items()}
    labels = prepared.schema.labels
    return _with_picture(
        judge_classes(config, results, labels, confusions, Errors(known, wrong), notes),
        folder,
        "confusion" if file is None else f"confusion-{name or file.stem}",
        f"How often each class was taken for which: {part}.",
        lambda path: plot_confusion(confusions[MODEL], labels, path, title=f"On {part}"),
    )


def _with_picture(
    judged: Evaluation, folder: Path, name: str, about: str, draw: Callable[[Path], None]
) -> Evaluation:
    """The same with a picture, ``plots/<name>.png``, where matplotlib is installed."""
    (folder / "plots").mkdir(exist_ok=True)
    try:
        draw(folder / f"plots/{name}.png")
    except MissingExtraError as error:
        return replace(judged, notes=[*judged.notes, f"No picture: {error}"])
    return replace(judged, pictures=[Picture(f"plots/{name}.png", about)])


def _baselines(
    config: SequencesConfig,
    prepared: Prepared,
    data: Sequences,
    chosen: Int[np.ndarray, " chosen"],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What those guess who know nothing of order, and what to say of them."""
    train = prepared.part("train")
    known = prepared.data
    notes = []

    def few(count: int) -> Int[np.ndarray, " n"]:
        """Evenly spread, where there are too many."""
        if count <= MOST_NEIGHBOURS:
            return np.arange(count)
        notes.append(f"The nearest neighbour is looked for among {MOST_NEIGHBOURS:,} of {count:,}.")
        return np.linspace(0, count - 1, MOST_NEIGHBOURS).astype(np.int64)

    asked = places_of_targets(config, data, chosen)
    at = places_of_targets(config, known, train)
    targets = known.targets[at]
    if config.task == "tag":
        different, tags = majority_of_equals(known.values[at], targets)
        some = few(len(different))
        near = tags[some][nearest(different[some], data.values[asked])]
    else:
        some = few(len(train))
        summary = summary_features(known.values, known.offsets)[train[some]]
        others = summary_features(data.values, data.offsets)[chosen]
        near = targets[some][nearest(summary, others)]
    if config.task == "regress":
        return {"mean": np.zeros(len(asked)), NEAREST: near}, notes
    return {"majority": np.full(len(asked), majority(targets)), NEAREST: near}, notes
