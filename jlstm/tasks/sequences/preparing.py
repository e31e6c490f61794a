"""From the user's table to the arrays in the folder of a run, and back."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from jlstm.checks import wrong
from jlstm.files import sha256
from jlstm.records import write_json
from jlstm.tasks.frame import (
    check_columns,
    place,
    read_table,
    with_points,
)
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import (
    PARTS,
    Feature,
    Groups,
    Sequences,
    encode,
    group_rows,
    learn_features,
    one_per_sequence,
    split_by_chance,
)
from jlstm.tasks.sequences.labels import (
    RawLabels,
    class_weights,
    find_labels,
    learn_labels,
    scale_labels,
)

if TYPE_CHECKING:
    import polars

ABOUT = ("data/sequences.json",)
"""Columns, scales, categories, labels, and the sum of the file: what a model needs to be used."""
ARRAYS = ("values", "offsets", "targets", "parts")
"""The steps of all sequences as the model reads them, one behind the other; where each sequence
begins, and the last one ends; the labels, as places in their list or as numbers; and, for each
sequence, 0 for training, 1 for validation, 2 for the test."""
FILES = (*ABOUT, *(f"data/{name}.npy" for name in ARRAYS))
"""What ``prepare`` writes."""

SAID = {
    **{name: name for name in PARTS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
}
"""What a column ``split`` may say."""


@dataclass(frozen=True)
class Schema:
    """What is known of the table, from the training on."""

    file: str
    sha256: str
    rows: int
    features: tuple[Feature, ...]
    labels: tuple[str, ...]
    """The classes; nothing for numbers."""
    mean: float
    scale: float
    """Of numbers, in the training part."""
    notes: tuple[str, ...]

    @property
    def width(self) -> int:
        """Numbers that a step becomes."""
        return sum(feature.width for feature in self.features)


class Prepared(NamedTuple):
    """What is in the folder."""

    schema: Schema
    data: Sequences
    parts: Int[np.ndarray, " sequences"]

    def part(self, name: str) -> Int[np.ndarray, " chosen"]:
        """The numbers of the sequences of a part."""
        return np.flatnonzero(self.parts == PARTS.index(name))


def prepare(config: SequencesConfig, files: Sequence[Path], folder: Path) -> None:
    """Check the user's table, split and encode it, and write that into ``folder``.

    What is learnt from it, scales and categories, is learnt from the training part alone.

    Raises:
        MissingExtraError: polars is not installed.
        ValueError: more than one file; a table that is not what ``config`` says; too few sequences.
        OSError: the file cannot be read, or the folder not written.
    """
    if len(files) != 1:
        raise wrong("files", f"expected one table, got {len(files)}")
    frame = read(config, files[0])
    groups = group_rows(frame, config.id, config.time, config.time_format)
    raw = find_labels(config, frame, groups)
    parts = _split(config, frame, groups, raw)
    train = parts == PARTS.index("train")

    if config.from_ is None:
        about, targets = learn_labels(config, raw, train)
        names = config.features or [
            name
            for name in frame.columns
            if name not in (config.id, config.time, config.label, config.split)
        ]
        in_train = np.zeros(frame.height, bool)
        in_train[groups.rows] = np.repeat(train, groups.lengths)
        features, learned = learn_features(
            frame, names, in_train, categories=config.categories, missing=config.missing
        )
        notes = [*about.pop("notes"), *learned]
    else:
        like = load(config, config.from_).schema
        about = {"labels": like.labels, "mean": like.mean, "scale": like.scale}
        targets, features = known_targets(config, like, raw), like.features
        notes = [f"Features and labels, and their scales, are those of {config.from_}."]
    values, more = encode(frame, groups.rows, features, config.missing)
    known = Schema(
        file=files[0].name,
        sha256=sha256(files[0]),
        rows=frame.height,
        features=features,
        notes=(*notes, *more),
        **about,
    )
    write(folder, known, (values, groups.offsets, targets, parts))


def write(folder: Path, schema: Schema, arrays: Sequence[np.ndarray]) -> None:
    """Write what is known of the table, and ``ARRAYS``, into the folder of a run.

    Raises:
        OSError: it cannot be written.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / "data" / f"{name}.npy", array, allow_pickle=False)
    write_json(folder / "data" / "sequences.json", asdict(schema))


def read(config: SequencesConfig, file: Path) -> "polars.DataFrame":
    """The table of a file that is written as the configuration says.

    Raises:
        OSError, ValueError: as ``read_table`` and ``with_points`` do.
    """
    frame = read_table(file, separator=config.separator, encoding=config.encoding)
    if config.decimal == ".":
        return frame
    names = {config.time, *(config.features or frame.columns)} - {config.id, config.split}
    names -= {*config.categories} | ({config.label} if config.task != "regress" else set())
    return with_points(frame, [name for name in frame.columns if name in names])


def _split(
    config: SequencesConfig, frame: "polars.DataFrame", groups: Groups, raw: RawLabels
) -> Int[np.ndarray, " sequences"]:
    """The part of each sequence, by the user's column or by chance."""
    strata = raw.texts if config.task == "classify" else None
    count = len(groups.ids)
    if config.split is None:
        return split_by_chance(strata, count, config.validation, config.test, config.seed)
    check_columns(frame, [config.split], "split")
    said = one_per_sequence(frame, groups, config.split)
    first = groups.rows[groups.offsets[:-1]]
    for n, text in enumerate(said):
        if text.lower() not in SAID:
            raise ValueError(
                f"{place(config.split, first[n])}: expected train, validation or test, got {text!r}"
            )
    parts = np.asarray([PARTS.index(SAID[text.lower()]) for text in said])
    train = np.flatnonzero(parts == 0)
    if not len(train):
        raise wrong(
            "split", f"expected sequences for training, got none in column {config.split!r}"
        )
    if not (parts == 1).any():
        few = None if strata is None else [strata[n] for n in train]
        parts[train] = split_by_chance(few, len(train), config.validation, 0.0, config.seed)
    return parts


def load_schema(folder: Path) -> Schema:
    """What ``prepare`` wrote of the table: all that the model needs to be used.

    Raises:
        OSError, ValueError: it is not there, or not as it was written.
    """
    path = folder / "data" / "sequences.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        features = []
        for one in known["features"]:
            names = one["categories"]
            features.append(Feature(**{**one, "categories": names and tuple(names)}))
        known |= {"features": tuple(features)}
        return Schema(**known | {name: tuple(known[name]) for name in ("labels", "notes")})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what jlstm wrote there, got: {error}") from None


def load(config: SequencesConfig, folder: Path) -> Prepared:
    """What ``prepare`` wrote.

    Raises:
        OSError, ValueError: it is not there, or not as it was written.
    """
    schema = load_schema(folder)
    try:
        values, offsets, targets, parts = (
            np.load(folder / "data" / f"{name}.npy", allow_pickle=False) for name in ARRAYS
        )
    except (ValueError, EOFError) as error:
        raise ValueError(f"{folder}/data: expected what jlstm wrote there, got: {error}") from None
    by_step = config.task == "tag"
    weights = np.ones(len(targets), np.float32)
    if config.class_weights == "balanced":
        train = parts == PARTS.index("train")
        in_train = np.repeat(train, np.diff(offsets)) if by_step else train
        weights = class_weights(targets[in_train], len(schema.labels))[targets]
    return Prepared(schema, Sequences(values, offsets, targets, weights, by_step), parts)


def read_labelled(
    config: SequencesConfig, schema: Schema, file: Path
) -> tuple[Sequences, list[str]]:
    """The sequences of another file, with labels that the model knows, and what to say of them.

    Raises:
        OSError, ValueError: the file is no table of this form, or has a label not known.
    """
    frame = read(config, file)
    groups = group_rows(frame, config.id, config.time, config.time_format)
    raw = find_labels(config, frame, groups)
    targets = known_targets(config, schema, raw)
    values, notes = encode(frame, groups.rows, schema.features, config.missing)
    weights = np.ones(len(targets), np.float32)
    return Sequences(values, groups.offsets, targets, weights, config.task == "tag"), notes


def known_targets(config: SequencesConfig, schema: Schema, raw: RawLabels) -> np.ndarray:
    """Labels as the model of a run tells them: places in its list of labels, or scaled numbers.

    Raises:
        ValueError: a label that the model does not know.
    """
    if raw.values is not None:
        return scale_labels(config, raw, schema.mean, schema.scale)
    numbered = {label: n for n, label in enumerate(schema.labels)}
    for text, row in zip(raw.texts, raw.rows, strict=True):
        if text not in numbered:
            shown = ", ".join(schema.labels[:20]) + (", …" if len(schema.labels) > 20 else "")
            raise ValueError(
                f"{place(config.label, row)}: expected a label that the model knows ({shown}), "
                f"got {text!r}"
            )
    return np.asarray([numbered[text] for text in raw.texts], np.int32)


def places_of_targets(
    config: SequencesConfig, data: Sequences, chosen: Int[np.ndarray, " chosen"]
) -> Int[np.ndarray, " items"]:
    """Where their targets are: one for each of these sequences, or for each of their steps."""
    if config.task != "tag":
        return chosen
    return np.concatenate([np.arange(*data.offsets[n : n + 2]) for n in chosen])
