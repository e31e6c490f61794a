"""The labels of a table: found, checked, and made into numbers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jlstm.checks import wrong
from jlstm.tasks.frame import (
    center_and_spread,
    check_columns,
    is_missing,
    numbers,
    place,
    texts,
)
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import Groups, one_per_sequence, sort_labels

if TYPE_CHECKING:
    import polars


class RawLabels(NamedTuple):
    """Labels as the table has them, one for each sequence, or one for each step of the groups."""

    texts: list[str]
    rows: Int[np.ndarray, " labels"]
    """Where in the table."""
    counts: Int[np.ndarray, " sequences"]
    """How many labels belong to each sequence."""
    values: Float[np.ndarray, " labels"] | None
    """As numbers, where numbers are asked for."""


def find_labels(config: SequencesConfig, frame: "polars.DataFrame", groups: Groups) -> RawLabels:
    """The labels of a table.

    Raises:
        ValueError: there is no such column; a label is missing, no number where the task asks for
            one, or differs within a sequence that is to have one.
    """
    check_columns(frame, [config.label], "label")
    values = None
    if config.task == "tag":
        column = texts(frame, config.label)
        found, rows, counts = [column[row] for row in groups.rows], groups.rows, groups.lengths
    else:
        found = one_per_sequence(frame, groups, config.label)
        rows, counts = groups.rows[groups.offsets[:-1]], np.ones(len(groups.ids), np.int64)
    if config.task == "regress":
        values = numbers(frame, config.label)[rows]
    for n, text in enumerate(found):
        if is_missing(text):
            got = f"{text!r}, which stands for a missing one" if text else "an empty cell"
            raise ValueError(f"{place(config.label, rows[n])}: expected a label, got {got}")
    return RawLabels(found, rows, counts, values)


def learn_labels(
    config: SequencesConfig, raw: RawLabels, train: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """The part of the schema that is about labels, and the labels as arrays.

    Args:
        config: what they are to be: classes or numbers.
        raw: the labels.
        train: for each sequence, whether it is in the training part.

    Raises:
        ValueError: all are equal; or all different, and meant to be classes.
    """
    in_train = np.repeat(train, raw.counts)
    if raw.values is not None:
        known = raw.values[in_train]
        mean, scale = center_and_spread(known, config.label)
        if scale <= 1e-9 * abs(mean):
            raise wrong(
                "label", f"expected different numbers in the training part, got {known[0]:g} only"
            )
        known_of = {"labels": (), "mean": mean, "scale": scale, "notes": ()}
        return known_of, scale_labels(config, raw, mean, scale)
    labels = sort_labels(raw.texts)
    if len(labels) < 2:
        raise wrong("label", f"expected at least two classes, got only {labels[0]!r}")
    if config.task == "classify" and len(labels) == len(raw.texts):
        raise wrong(
            "label",
            f"expected classes with several sequences each, got {len(labels)} different "
            "labels; of numbers: --task regress",
        )
    numbered = {label: n for n, label in enumerate(labels)}
    targets = np.asarray([numbered[text] for text in raw.texts], np.int32)
    unseen = sorted(set(range(len(labels))) - set(targets[in_train].tolist()))
    notes = ["Not in the training part: " + ", ".join(labels[n] for n in unseen)] if unseen else []
    if config.task == "classify" and _are_measured(labels):
        notes.append(
            "The labels are numbers, some with decimals, and each different one is taken for a "
            "class; to predict a number instead: --task regress."
        )
    return {"labels": labels, "mean": 0.0, "scale": 1.0, "notes": notes}, targets


def _are_measured(labels: Sequence[str]) -> bool:
    """Whether all are numbers, and not all whole."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and not all(n.is_integer() for n in numbers)


def scale_labels(
    config: SequencesConfig, raw: RawLabels, mean: float, scale: float
) -> Float[np.ndarray, " labels"]:
    """Labels that are numbers as the model is to tell them, float32.

    Raises:
        ValueError: one lies further from those of the training part than float32 has numbers.
    """
    assert raw.values is not None
    with np.errstate(over="ignore"):
        scaled = ((raw.values - mean) / scale).astype(np.float32)
    for at in np.flatnonzero(np.isinf(scaled))[:1]:
        raise ValueError(
            f"{place(config.label, raw.rows[at])}: expected a number of the size of those in the "
            f"training part, got {raw.texts[at]}"
        )
    return scaled


def class_weights(targets: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """What an error of each class counts, float32: all errors of a class as much as of any other.

    ::

    w_k = n/(K·n_k)      n_k of n targets are of class k, one of the K that occur
    """
    counts = np.bincount(targets, minlength=classes)
    weights = len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 1.0).astype(np.float32)
