"""The job of labelled sequences: from a table in long format to a model of classes or numbers."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jlstm.data.frame import check_columns, numbers, read_table, texts
from jlstm.data.labelled import (
    PARTS,
    Chosen,
    Feature,
    Groups,
    Sequences,
    bucket_lengths,
    cut_batches,
    encode,
    group_rows,
    learn_features,
    one_per_sequence,
    pad,
    padded_share,
    place,
    places,
    sort_labels,
    split_by_chance,
    stretch,
)
from jlstm.devices import spread
from jlstm.extras import MissingExtraError, require
from jlstm.files import replacing, sha256
from jlstm.jobs.config import SequencesConfig
from jlstm.jobs.job import Evaluation, Job, Table, count_steps
from jlstm.layers import Stack
from jlstm.metrics.classification import (
    accuracy,
    confusion_matrix,
    macro_f1,
    majority,
    majority_of_equals,
    nearest,
    per_class,
    regression_scores,
    summary_features,
)
from jlstm.models import SequenceBatch, init_labeller, label_count, label_scores, labeller_loss
from jlstm.plots import plot_confusion
from jlstm.sequence import lstm
from jlstm.train import make_evaluate
from jlstm.train.records import write_json

if TYPE_CHECKING:
    import polars

FILES = {
    "data/sequences.json": "columns, scales, categories, labels, and the sum of the file",
    "data/values.npy": "the steps of all sequences as the model reads them, one behind the other",
    "data/offsets.npy": "where each sequence begins, and where the last one ends",
    "data/targets.npy": "the labels: places in the list of labels, or numbers",
    "data/parts.npy": "0 for training, 1 for validation, 2 for the test, for each sequence",
    "data/ids.npy": "the ids of the sequences",
}
"""What ``prepare`` writes."""

SAID = {
    **{name: name for name in PARTS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
}
"""What a column ``split`` may say."""
MOST_SHOWN = 20
"""Classes above which the confusion matrix is no table any more."""
MOST_NEIGHBOURS = 20_000
"""Of the training part, among which the baseline looks for the nearest."""

FEW = 100
"""Sequences of validation below which chance has a large part in what is best."""

MODEL, NEAREST = "LSTM", "nearest neighbour"


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
        raise ValueError(f"files: expected one table, got {len(files)}")
    frame = read_table(files[0])
    groups = group_rows(frame, config.id, config.time)
    check_columns(frame, [config.label], "label")
    raw = _raw_labels(config, frame, groups)
    parts = _split(config, frame, groups, raw)
    train = parts == PARTS.index("train")

    schema, targets = _learn_labels(config, raw, train)
    names = config.features or [
        name
        for name in frame.columns
        if name not in (config.id, config.time, config.label, config.split)
    ]
    in_train = np.zeros(frame.height, bool)
    in_train[groups.rows] = np.repeat(train, groups.lengths)
    features, notes = learn_features(
        frame, names, in_train, categories=config.categories, missing=config.missing
    )
    values, more = encode(frame, groups.rows, features, config.missing)
    known = Schema(
        file=files[0].name,
        sha256=sha256(files[0]),
        rows=frame.height,
        features=features,
        notes=(*schema.pop("notes"), *notes, *more),
        **schema,
    )
    (folder / "data").mkdir(parents=True, exist_ok=True)
    arrays = {
        "values": values,
        "offsets": groups.offsets,
        "targets": targets,
        "parts": parts,
        "ids": np.asarray(groups.ids, dtype=str),
    }
    for name, array in arrays.items():
        with replacing(folder / "data" / f"{name}.npy") as beside, open(beside, "wb") as file:
            np.save(file, array, allow_pickle=False)
    write_json(folder / "data" / "sequences.json", asdict(known))


def build(config: SequencesConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote.

    Raises:
        OSError, ValueError: the folder is not what ``prepare`` left.
    """
    prepared = _read(config, folder)
    schema, data, _ = prepared
    train, validation = prepared.part("train"), prepared.part("validation")
    lengths, batch = data.lengths, config.batch
    bounds = bucket_lengths(lengths[train], config.buckets, batch)
    wide = stretch(bounds, int(lengths.max()))
    model = _model(config)
    by_step, outputs = config.task == "tag", max(1, len(schema.labels))

    def init(key: Any) -> Any:
        return init_labeller(key, schema.width, outputs, model, pooled=not by_step)

    def loss(params: Any, carry: Any, batch: SequenceBatch) -> Any:
        return labeller_loss(
            params,
            carry,
            batch,
            model,
            dropout=config.dropout,
            smoothing=config.smoothing,
            over=_over(config),
        )

    @lru_cache(maxsize=2)
    def batches_of(epoch: int) -> list[Chosen]:
        return cut_batches(lengths, train, bounds, batch, seed=(config.seed, epoch))

    epoch = len(batches_of(0))
    steps = count_steps(config, epoch)
    key = jax.random.key(config.seed)

    def make(n: int) -> SequenceBatch:
        chosen = batches_of(n // epoch)[n % epoch]
        return pad(data, chosen, batch, jax.random.fold_in(key, n))

    judge = make_evaluate(loss, label_count)
    held_out = cut_batches(lengths, validation, wide, batch)

    def validate(params: Any) -> float:
        return judge(params, None, (pad(data, chosen, batch) for chosen in held_out))

    score = "squared error, scaled"
    if schema.labels:
        score = "nats per step" if by_step else "nats per sequence"
        score += ", smoothed" if config.smoothing else ""
        score += ", classes balanced" if config.class_weights == "balanced" else ""
    return Job(
        init=init,
        loss=loss,
        batch=make,
        steps=steps,
        epoch=epoch,
        validate=validate,
        score=score,
        unit="sequences",
        per_step=lambda batch: float((batch.lengths > 0).sum()),
        devices=spread(lstm, batch)[1],
        about=_about(config, prepared, bounds, batches_of(0), held_out, steps),
    )


def evaluate(
    config: SequencesConfig, folder: Path, params: Any, file: Path | None = None
) -> Evaluation:
    """Judge the model beside the baselines, on the test part or on a file with labels.

    Raises:
        ValueError: the file is no table of this form, or has a label that the model does not know.
        OSError: the file cannot be read, or the picture not written.
    """
    prepared = _read(config, folder)
    notes: list[str] = []
    if file is None:
        name = "test" if len(prepared.part("test")) else "validation"
        if name == "validation":
            notes.append(
                "There is no test part: this is the validation part, by which the parameters were "
                "chosen, so that the model looks a little better than it is."
            )
        data, chosen = prepared.data, prepared.part(name)
        picture = folder / "plots" / "confusion.png"
    else:
        data, notes = _labelled(config, prepared.schema, file)
        name, chosen = file.name, np.arange(len(data.lengths))
        picture = folder / "plots" / f"confusion-{file.stem}.png"
    scores = _scores(config, params, data, chosen)
    guesses, more = _baselines(config, prepared, data, chosen)
    notes += more
    results: dict[str, Any] = {"part": name, "sequences": len(chosen), "steps": len(scores)}
    if config.task != "tag":
        results["steps"] = int(data.lengths[chosen].sum())
    targets = data.targets[_of_targets(config, data, chosen)]
    if config.task == "regress":
        schema = prepared.schema
        guesses = {MODEL: scores[:, 0], **guesses}
        true = targets * schema.scale + schema.mean
        told = {who: guess * schema.scale + schema.mean for who, guess in guesses.items()}
        return _judge_numbers(results, true, told, notes)
    guesses = {MODEL: scores.argmax(axis=1), **guesses}
    confusions = {
        who: confusion_matrix(targets, guess, len(prepared.schema.labels))
        for who, guess in guesses.items()
    }
    try:
        picture.parent.mkdir(exist_ok=True)
        plot_confusion(confusions[MODEL], prepared.schema.labels, picture, title=f"On {name}")
    except MissingExtraError as error:
        notes.append(f"No picture of the confusion matrix: {error}")
    return _judge_classes(config, results, prepared.schema.labels, confusions, notes)


def predict(
    config: SequencesConfig, folder: Path, params: Any, file: Path, out: Path
) -> Sequence[str]:
    """Label the sequences of a file; the column with the labels need not be there.

    A row for each sequence, in the order in which they first occur, or, for tags, for each step, in
    the order of the file: the id (and the time), ``predicted``, and for classes their probabilities
    in columns named ``p_<class>``.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on.
        out: a .csv or .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: the file is no table of this form, or ``out`` ends in something else.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    if out.suffix not in {".csv", ".parquet"}:
        raise ValueError(f"out: expected a .csv or .parquet file, got {out}")
    schema = _read(config, folder).schema
    frame = read_table(file)
    groups = group_rows(frame, config.id, config.time)
    values, notes = encode(frame, groups.rows, schema.features, config.missing)
    by_step = config.task == "tag"
    nothing = np.zeros(len(values) if by_step else len(groups.ids), np.float32)
    data = Sequences(values, groups.offsets, nothing, nothing, by_step)
    scores = _scores(config, params, data, np.arange(len(groups.ids)))
    columns: dict[str, Any] = {config.id: groups.ids}
    if by_step:
        columns = {name: frame[name] for name in (config.id, config.time)}
        scores[groups.rows] = scores.copy()
    if config.task == "regress":
        columns["predicted"] = scores[:, 0] * schema.scale + schema.mean
    else:
        columns["predicted"] = [schema.labels[n] for n in scores.argmax(axis=1)]
        chances = _softmax(scores)
        columns |= {f"p_{label}": chances[:, n] for n, label in enumerate(schema.labels)}
    table = pl.DataFrame(columns)
    with replacing(out) as beside:
        table.write_csv(beside) if out.suffix == ".csv" else table.write_parquet(beside)
    return notes


# From the table to arrays


class RawLabels(NamedTuple):
    """Labels as the table has them, one for each sequence, or one for each step of the groups."""

    texts: list[str]
    rows: Int[np.ndarray, " labels"]
    """Where in the table."""
    counts: Int[np.ndarray, " sequences"]
    """How many labels belong to each sequence."""
    values: Float[np.ndarray, " labels"] | None
    """As numbers, where numbers are asked for."""


def _raw_labels(config: SequencesConfig, frame: "polars.DataFrame", groups: Groups) -> RawLabels:
    """The labels; raise where one is missing, or differs within a sequence that is to have one."""
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
        if not text or (values is not None and math.isnan(values[n])):
            raise ValueError(
                f"{place(config.label, rows[n])}: expected a label, got {text or 'an empty cell'}"
            )
    return RawLabels(found, rows, counts, values)


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
        raise ValueError(
            f"split: expected sequences for training, got none in column {config.split!r}"
        )
    if not (parts == 1).any():
        few = None if strata is None else [strata[n] for n in train]
        parts[train] = split_by_chance(few, len(train), config.validation, 0.0, config.seed)
    return parts


def _learn_labels(
    config: SequencesConfig, raw: RawLabels, train: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """The part of the schema that is about labels, and the labels as arrays."""
    in_train = np.repeat(train, raw.counts)
    if raw.values is not None:
        known = raw.values[in_train]
        mean, scale = float(known.mean()), float(known.std())
        if scale <= 1e-9 * abs(mean):
            raise ValueError(
                f"label: expected different numbers in the training part, got {known[0]:g} only"
            )
        scaled = ((raw.values - mean) / scale).astype(np.float32)
        return {"labels": (), "mean": mean, "scale": scale, "notes": ()}, scaled
    labels = sort_labels(raw.texts)
    if len(labels) < 2:
        raise ValueError(f"label: expected at least two classes, got only {labels[0]!r}")
    if config.task == "classify" and len(labels) == len(raw.texts):
        raise ValueError(
            f"label: expected classes with several sequences each, got {len(labels)} different "
            "labels; are they numbers, for the task regress?"
        )
    numbered = {label: n for n, label in enumerate(labels)}
    targets = np.asarray([numbered[text] for text in raw.texts], np.int32)
    unseen = sorted(set(range(len(labels))) - set(targets[in_train].tolist()))
    notes = ["Not in the training part: " + ", ".join(labels[n] for n in unseen)] if unseen else []
    return {"labels": labels, "mean": 0.0, "scale": 1.0, "notes": notes}, targets


def _labelled(config: SequencesConfig, schema: Schema, file: Path) -> tuple[Sequences, list[str]]:
    """The sequences of another file, with labels that the model knows."""
    frame = read_table(file)
    groups = group_rows(frame, config.id, config.time)
    check_columns(frame, [config.label], "label")
    raw = _raw_labels(config, frame, groups)
    if raw.values is not None:
        targets = ((raw.values - schema.mean) / schema.scale).astype(np.float32)
    else:
        numbered = {label: n for n, label in enumerate(schema.labels)}
        for text, row in zip(raw.texts, raw.rows, strict=True):
            if text not in numbered:
                shown = ", ".join(schema.labels[:20]) + (", …" if len(schema.labels) > 20 else "")
                raise ValueError(
                    f"{place(config.label, row)}: expected a label that the model knows ({shown}), "
                    f"got {text!r}"
                )
        targets = np.asarray([numbered[text] for text in raw.texts], np.int32)
    values, notes = encode(frame, groups.rows, schema.features, config.missing)
    weights = np.ones(len(targets), np.float32)
    return Sequences(values, groups.offsets, targets, weights, config.task == "tag"), notes


def _read(config: SequencesConfig, folder: Path) -> Prepared:
    """What ``prepare`` wrote."""
    known = json.loads((folder / "data" / "sequences.json").read_text("utf-8"))
    features = []
    for one in known["features"]:
        names = one["categories"]
        features.append(Feature(**{**one, "categories": names and tuple(names)}))
    known |= {"features": tuple(features)}
    known |= {name: tuple(known[name]) for name in ("labels", "notes")}
    values, offsets, targets, parts = (
        np.load(folder / "data" / f"{name}.npy", allow_pickle=False)
        for name in ("values", "offsets", "targets", "parts")
    )
    by_step = config.task == "tag"
    weights = np.ones(len(targets), np.float32)
    if config.class_weights == "balanced":
        train = parts == PARTS.index("train")
        in_train = np.repeat(train, np.diff(offsets)) if by_step else train
        weights = class_weights(targets[in_train], len(known["labels"]))[targets]
    return Prepared(Schema(**known), Sequences(values, offsets, targets, weights, by_step), parts)


def class_weights(targets: Int[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """What an error of each class counts, float32: all errors of a class as much as of any other.

    ::

    w_k = n/(K·n_k)      n_k of n targets are of class k, one of the K that occur
    """
    counts = np.bincount(targets, minlength=classes)
    weights = len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 1.0).astype(np.float32)


# The model at work


def _model(config: SequencesConfig) -> Stack:
    return Stack(
        sizes=(config.hidden,) * config.layers,
        bidirectional=config.bidirectional,
        input_dropout=config.input_dropout,
        dropout=config.dropout,
    )


def _over(config: SequencesConfig) -> Callable[[Any], Any]:
    """What cuts a batch over the cores."""
    return lambda layer: spread(layer, config.batch)[0]


def _scores(
    config: SequencesConfig, params: Any, data: Sequences, chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "items outputs"]:
    """The scores of the chosen sequences, or of their steps, in their order, float64."""
    model = _model(config)
    params = jax.tree.map(jnp.asarray, params)

    @jax.jit
    def run(params: Any, xs: Any, lengths: Any) -> Any:
        pooled, over = not data.by_step, _over(config)
        return label_scores(params, xs, lengths, model, pooled=pooled, over=over)

    lengths = data.lengths
    bounds = bucket_lengths(lengths[chosen], config.buckets, config.batch)
    found: np.ndarray = np.empty((len(data.targets), params.readout.shape[1]))
    for one in cut_batches(lengths, chosen, bounds, config.batch):
        batch = pad(data, one, config.batch)
        given = np.asarray(run(params, batch.xs, batch.lengths), np.float64)
        if data.by_step:
            at, valid = places(data, one, config.batch)
            found[at[valid]] = given[valid]
        else:
            found[one.sequences] = given[: len(one.sequences)]
    scores: np.ndarray = found[_of_targets(config, data, chosen)]
    return scores


def _of_targets(
    config: SequencesConfig, data: Sequences, chosen: Int[np.ndarray, " chosen"]
) -> Int[np.ndarray, " items"]:
    """Where their targets are: one for each of these sequences, or for each of their steps."""
    if config.task != "tag":
        return chosen
    return np.concatenate([np.arange(*data.offsets[n : n + 2]) for n in chosen])


def _softmax(scores: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return chances


# What it is worth


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

    asked = _of_targets(config, data, chosen)
    at = _of_targets(config, known, train)
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


def _judge_classes(
    config: SequencesConfig,
    results: dict[str, Any],
    labels: Sequence[str],
    confusions: Mapping[str, np.ndarray],
    notes: list[str],
) -> Evaluation:
    items = "steps" if config.task == "tag" else "sequences"
    count = results[items]
    measures = {
        who: {"accuracy": accuracy(c), "macro_f1": macro_f1(c)} for who, c in confusions.items()
    }
    confusion = confusions[MODEL]
    each = per_class(confusion)
    results |= {
        "measures": measures,
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "per_class": {name: values.tolist() for name, values in each.items()},
    }
    decides = "macro_f1" if config.class_weights == "balanced" else "accuracy"
    ranks = {who: m[decides] for who, m in measures.items()}
    most = max(ranks.values())
    tables = [
        Table(
            f"{count:,} {items}",
            ("", "accuracy", "macro F1"),
            [(who, f"{m['accuracy']:.2%}", f"{m['macro_f1']:.4f}") for who, m in measures.items()],
            best=[n for n, rank in enumerate(ranks.values()) if rank == most],
        )
    ]
    if len(labels) <= MOST_SHOWN:
        tables.append(
            Table(
                "How often the class of the row was taken for that of the column",
                ("true", *labels, "recall"),
                [
                    (label, *(str(n) for n in row), f"{recall:.1%}")
                    for label, row, recall in zip(labels, confusion, each["recall"], strict=True)
                ]
                + [("precision", *(f"{p:.1%}" for p in each["precision"]), "")],
            )
        )
    said = "macro F1" if decides == "macro_f1" else f"{items} labelled rightly"
    return Evaluation(results, tables, _verdict(ranks, said, "{:.2%}", 1), notes)


def _judge_numbers(
    results: dict[str, Any],
    true: np.ndarray,
    guesses: Mapping[str, np.ndarray],
    notes: list[str],
) -> Evaluation:
    measures = {who: regression_scores(true, guess) for who, guess in guesses.items()}
    results |= {"measures": measures}
    ranks: dict[str, Any] = {who: m["rmse"] for who, m in measures.items()}
    least = min(ranks.values())
    table = Table(
        f"{len(true):,} sequences",
        ("", "MAE", "RMSE", "R²"),
        [
            (who, *("–" if m[name] is None else f"{m[name]:.4g}" for name in ("mae", "rmse", "r2")))
            for who, m in measures.items()
        ],
        best=[n for n, rank in enumerate(ranks.values()) if rank == least],
    )
    return Evaluation(results, [table], _verdict(ranks, "RMSE", "{:.4g}", -1), notes)


def _verdict(ranks: Mapping[str, float], measure: str, form: str, sign: int) -> str:
    """Whether the model beats the baselines: ``sign`` is 1 where more is better, −1 where less."""
    model = ranks[MODEL]
    others = {who: rank for who, rank in ranks.items() if who != MODEL}
    best = max(others, key=lambda who: sign * others[who])
    shown = f"{form.format(model)} against {form.format(others[best])} ({measure})"
    if sign * model > sign * others[best]:
        return f"The model beats the baselines: {shown}, the best of which is: {best}."
    if model == others[best]:
        return f"The model is no better than a baseline, {best}: {shown}."
    return f"The model is WORSE than a baseline, {best}: {shown}."


def _about(
    config: SequencesConfig,
    prepared: Prepared,
    bounds: Sequence[int],
    batches: Sequence[Chosen],
    held_out: Sequence[Chosen],
    steps: int,
) -> list[str]:
    """The arithmetic from the table to the steps."""
    schema, data, _ = prepared
    sizes = {name: len(prepared.part(name)) for name in PARTS}
    train, validation = prepared.part("train"), prepared.part("validation")
    lengths = data.lengths[train]
    share = padded_share(data.lengths, batches, config.batch)
    features = ", ".join(f.name for f in schema.features[:8])
    about = [
        f"{schema.rows:,} rows of {schema.file} are {len(prepared.parts):,} sequences: "
        + ", ".join(f"{size:,} for {name}" for name, size in sizes.items())
        + ("." if config.split is None else f", as the column {config.split!r} says."),
        f"{len(schema.features)} features ({features}{', …' if len(schema.features) > 8 else ''}), "
        f"{schema.width} numbers at each step.",
        f"{_spans(lengths, bounds)}: {share:.1%} of the steps are padding; "
        f"{_compilations(batches)} to compile for training, {_compilations(held_out)} for "
        "validation.",
        f"{len(train):,} sequences in batches of up to {config.batch:,} are {len(batches):,} "
        f"steps an epoch, {steps:,} steps in all.",
        *schema.notes,
    ]
    if schema.labels:
        true = data.targets[_of_targets(config, data, train)]
        counts = np.bincount(true, minlength=len(schema.labels))
        about.append(
            f"{len(schema.labels)} classes; of {len(true):,} labels in the training part, "
            f"{counts.max():,} are {schema.labels[int(counts.argmax())]!r}."
        )
    if len(validation) < FEW:
        about.append(
            f"The validation part has {len(validation):,} sequences only: the best parameters are "
            "those with the least loss, the earliest where two are equal, and some of it is luck."
        )
    return about


def _spans(lengths: Int[np.ndarray, " n"], bounds: Sequence[int]) -> str:
    if lengths.min() == lengths.max():
        return f"All sequences for training have length {bounds[0]:,}"
    padded = ", ".join(f"{bound:,}" for bound in bounds)
    return f"Lengths from {lengths.min():,} to {lengths.max():,} are padded to {padded}"


def _compilations(batches: Sequence[Chosen]) -> str:
    count = len({chosen.time for chosen in batches})
    return f"{count} program{'s' if count > 1 else ''}"
