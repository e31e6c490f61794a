"""Cross-validation: the sequences of a run cut into folds, and their models judged together.

For each fold there is a training on the others, with the same options; a part of these, as large as
``validation`` says, chooses its best parameters, and the fold is its test part. Each sequence is
judged once, by a model that has not seen it.

A fold's data is made of that of the run, and is what ``prepare`` would have made of the file (to
rounding): scales and categories are learnt anew, from the training part of the fold alone. Only
what the training part of the run did not tell is not known: a category that was not in it, a column
that had one value.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jlstm.checks import check_size, wrong
from jlstm.extras import MissingExtraError
from jlstm.plots import plot_confusion
from jlstm.tasks.frame import center_and_spread, counted
from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import PARTS, Feature, split_by_chance
from jlstm.tasks.sequences.preparing import Prepared, load, load_schema, write
from jlstm.tasks.sequences.report import MODEL, joined_errors, judge_classes, judge_numbers

FEWEST = 2
"""Sequences outside of a fold: one to train on, and one to choose the best parameters."""
SHOWN = {"accuracy": "{:.2%}", "macro_f1": "{:.4f}", "mae": "{:.4g}", "rmse": "{:.4g}"}
"""The measures whose spread over the folds is shown, and how."""
TITLES = {"accuracy": "accuracy", "macro_f1": "macro F1", "mae": "MAE", "rmse": "RMSE"}


def resplits(
    config: SequencesConfig, folder: Path, count: int
) -> Sequence[tuple[str, Callable[[Path], SequencesConfig]]]:
    """The trainings of a cross-validation with so many folds.

    All sequences of the run take part, those of its test part included. For classes of sequences
    each class is spread over the folds as evenly as can be. The same run and count give the same
    folds.

    Args:
        config: of the run.
        folder: of the run.
        count: the number of folds.

    Returns:
        For each fold its name, and a function that writes the data of its training into a folder,
        and returns the configuration.

    Raises:
        OSError, ValueError: the folder is not what ``prepare`` left; fewer sequences than folds, or
            than a training needs; a run whose split is the user's, or that goes on from another.
    """
    check_size("folds", count, 2)
    if config.split is not None:
        raise wrong(
            "folds",
            f"expected a run whose sequences were split by chance, got one whose column "
            f"{config.split!r} says which belong together, and folds would tear them apart",
        )
    if config.from_ is not None:
        raise wrong(
            "folds",
            f"expected a run that began with nothing, got one that goes on from {config.from_}, "
            "which may have learnt from the sequences of a fold",
        )
    prepared = load(config, folder)
    sequences = len(prepared.parts)
    if count > sequences:
        raise wrong("folds", f"expected at most the {counted(sequences, 'sequence')}, got {count}")
    if sequences - -(-sequences // count) < FEWEST:
        raise wrong("folds", f"expected more than {count} for {sequences} sequences, got {count}")
    strata = prepared.data.targets if config.task == "classify" else None
    folds = deal(strata, sequences, count, config.seed)

    def resplit(fold: int, target: Path) -> SequencesConfig:
        parts = np.full(sequences, PARTS.index("test"))
        rest = np.flatnonzero(folds != fold)
        few = None if strata is None else [str(strata[n]) for n in rest]
        parts[rest] = split_by_chance(few, len(rest), config.validation, 0.0, config.seed)
        write(target, *relearn(config, prepared, parts))
        return config

    return [(str(n + 1), partial(resplit, n)) for n in range(count)]


def deal(
    strata: Int[np.ndarray, " sequences"] | None, sequences: int, count: int, seed: int
) -> Int[np.ndarray, " sequences"]:
    """The fold of each sequence: dealt out in turn, class by class, each in an order of chance.

    So no two folds differ by more than one sequence in size, nor in what they have of a class.
    """
    order = np.random.default_rng(seed).permutation(sequences)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    folds = np.empty(sequences, np.int64)
    folds[order] = np.arange(sequences) % count
    return folds


def relearn(
    config: SequencesConfig, prepared: Prepared, parts: Int[np.ndarray, " sequences"]
) -> tuple[Any, tuple[np.ndarray, ...]]:
    """The schema and the arrays of a run for another split.

    Raises:
        ValueError: no feature, or label, with two values in the new training part.
    """
    schema, data, _ = prepared
    train = parts == PARTS.index("train")
    in_train = np.repeat(train, data.lengths)
    features: list[Feature] = []
    columns: list[np.ndarray] = []
    at = 0
    for old in schema.features:
        block = data.values[:, at : at + old.width]
        at += old.width
        learn = _categories if old.categories is not None else _numbers
        feature, encoded = learn(old, block, in_train, config.missing == "mask")
        if feature.width:
            features.append(feature)
            columns.append(encoded)
    if not features:
        raise wrong("folds", "expected a feature with two values in each training part, got none")
    mean, scale, targets = schema.mean, schema.scale, data.targets
    if config.task == "regress":
        middle, spread = center_and_spread(targets[train].astype(np.float64), config.label)
        if not spread > 0:
            raise wrong("folds", "expected different labels in each training part, got equal ones")
        targets = ((targets - middle) / spread).astype(np.float32)
        mean, scale = mean + scale * middle, scale * spread
    left = [f.name for f in schema.features if f.name not in {feature.name for feature in features}]
    known = replace(
        schema,
        features=tuple(features),
        mean=mean,
        scale=scale,
        notes=(f"Left out, the same in all of the training part: {', '.join(left)}",)
        if left
        else (),
    )
    values = np.concatenate(columns, axis=1).astype(np.float32)
    return known, (values, data.offsets, targets, parts)


def _numbers(
    old: Feature,
    block: Float[np.ndarray, "rows width"],
    train: Bool[np.ndarray, " rows"],
    gaps: bool,
) -> tuple[Feature, Float[np.ndarray, "rows width"]]:
    """A column of numbers in the scale of another training part; of no width where it is constant.

    ``gaps``: whether there may be missing values. Where the training part of the run had none they
    are known by being 0, the mean.
    """
    x = block[:, 0].astype(np.float64)
    missing = block[:, 1] > 0 if old.masked else (x == 0) & gaps
    known = x[train & ~missing]
    masked = bool(old.masked and 0 < len(known) < train.sum())
    if not len(known) or (known.min() == known.max() and not masked):
        return replace(old, categories=()), block[:, :0]
    mean, scale = center_and_spread(known, old.name)
    scale = scale if known.min() < known.max() else 1.0
    columns = [np.where(missing, 0.0, np.clip((x - mean) / scale, -1e6, 1e6))]
    if masked:
        columns.append(missing.astype(np.float64))
    feature = Feature(old.name, old.mean + old.scale * mean, old.scale * scale, masked)
    return feature, np.stack(columns, axis=1)


def _categories(
    old: Feature,
    block: Float[np.ndarray, "rows width"],
    train: Bool[np.ndarray, " rows"],
    gaps: bool,
) -> tuple[Feature, Float[np.ndarray, "rows width"]]:
    """Those of the categories that another training part has; none where they say nothing."""
    assert old.categories is not None
    seen = block[train].any(axis=0)
    if seen.sum() < (2 if block[train].any(axis=1).all() else 1):
        seen[:] = False
    found = tuple(name for name, there in zip(old.categories, seen, strict=True) if there)
    return replace(old, categories=found), block[:, seen]


def pooled(
    config: SequencesConfig, folder: Path, evaluations: Sequence[Evaluation], once: Evaluation
) -> Evaluation:
    """What the models of all folds are worth together.

    Args:
        config: of the run.
        folder: of the run.
        evaluations: of each fold, by its own model.
        once: of the run itself, on its test part; of no use here.

    Raises:
        OSError: the picture cannot be written.
    """
    schema = load_schema(folder)
    measures = [evaluation.results["measures"] for evaluation in evaluations]
    notes = [
        f"{counted(len(measures), 'fold')}: every sequence of the run, those of its test part "
        "included, is judged once, by a model that was trained without it.",
        "± is the standard deviation over the folds; it tells how much a model depends on what it "
        "is trained on and judged on, not how sure the mean is.",
    ]
    results: dict[str, Any] = {
        "part": "folds",
        **{name: sum(e.results[name] for e in evaluations) for name in ("sequences", "steps")},
    }
    sums = [evaluation.sums for evaluation in evaluations]
    if config.task == "regress":
        true = np.concatenate([true for true, _ in sums])
        guesses = {who: np.concatenate([g[who] for _, g in sums]) for who in sums[0][1]}
        judged = judge_numbers(results, true, guesses, notes)
        decides, sign = "rmse", -1
    else:
        confusions = {who: np.sum([c[who] for c, _ in sums], axis=0) for who in sums[0][0]}
        errors = joined_errors([errors for _, errors in sums])
        judged = judge_classes(config, results, schema.labels, confusions, errors, notes)
        decides, sign = "macro_f1" if config.class_weights == "balanced" else "accuracy", 1
        try:
            (folder / "plots").mkdir(exist_ok=True)
            picture = folder / "plots" / "confusion-folds.png"
            plot_confusion(confusions[MODEL], schema.labels, picture, title="On all folds")
        except MissingExtraError as error:
            notes.append(f"No picture of the confusion matrix: {error}")
    others = {who: m[decides] for who, m in results["measures"].items() if who != MODEL}
    best = max(others, key=lambda who: sign * others[who])
    better = sum(sign * m[MODEL][decides] > sign * m[best][decides] for m in measures)
    verdict = f"{judged.verdict} It is better in {better} of {len(measures)} folds."
    summary = {who: _spread([m[who] for m in measures]) for who in results["measures"]}
    results |= {"folds": measures, "over_folds": summary}
    return replace(
        judged,
        tables=[*judged.tables, _table(summary, len(measures), decides, sign)],
        verdict=verdict,
    )


def _spread(measures: Sequence[dict[str, float | None]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each measure that all folds have."""
    found = {}
    for name in measures[0]:
        values = [m[name] for m in measures]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            found[name] = {"mean": float(np.mean(known)), "std": float(np.std(known, ddof=1))}
    return found


def _table(
    summary: dict[str, dict[str, dict[str, float]]], folds: int, decides: str, sign: int
) -> Table:
    names = [name for name in SHOWN if name in summary[MODEL]]
    ranks = [sign * of[decides]["mean"] for of in summary.values()]
    return Table(
        f"Mean ± standard deviation over {folds} folds",
        ("", *(TITLES[name] for name in names)),
        [
            (who, *(" ± ".join(SHOWN[n].format(of[n][k]) for k in ("mean", "std")) for n in names))
            for who, of in summary.items()
        ],
        best=[n for n, rank in enumerate(ranks) if rank == max(ranks)],
    )
