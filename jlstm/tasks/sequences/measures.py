"""How good labels are, and what there is to beat: for classes and numbers of sequences or steps.

With C the confusion matrix, its rows the true classes and its columns the predicted ones::

    accuracy = Σ_k C_kk / ΣC        recall_k = C_kk / Σ_j C_kj        precision_k = C_kk / Σ_j C_jk
    F1_k = 2·C_kk / (Σ_j C_kj + Σ_j C_jk)      macro F1 = the mean of F1_k over the classes seen

A quotient of nothing by nothing is 0, and a class that neither occurs nor is predicted is not among
those that the macro F1 is a mean over. For numbers y with predictions p::

    MAE = mean |y − p|      RMSE = √(mean (y − p)²)      R² = 1 − Σ(y − p)²/Σ(y − ȳ)²

The baselines know nothing of order: they see a sequence as a handful of numbers, or a step alone.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

BLOCK = 2**22
"""Distances found at once."""


def confusion_matrix(
    targets: Int[np.ndarray, " items"], predictions: Int[np.ndarray, " items"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How often class k (row) was taken for class j (column).

    Raises:
        ValueError: not as many predictions as targets.
    """
    _check_pairs(targets, predictions)
    pairs = np.asarray(targets, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def accuracy(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """The part of all that is labelled rightly."""
    return float(_divide(np.trace(confusion), confusion.sum()))


def per_class(confusion: Int[np.ndarray, "classes classes"]) -> dict[str, np.ndarray]:
    """``precision``, ``recall``, ``f1`` and ``support``, how often it occurs, of each class."""
    right, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        "precision": _divide(right, said),
        "recall": _divide(right, true),
        "f1": _divide(2 * right, true + said),
        "support": true,
    }


def macro_f1(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """The mean F1 of the classes that occur or are predicted: each counts as much as any other."""
    seen = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    return float(per_class(confusion)["f1"][seen].mean()) if seen.any() else 0.0


def regression_scores(
    targets: Float[np.ndarray, " items"], predictions: Float[np.ndarray, " items"]
) -> dict[str, float | None]:
    """``mae``, ``rmse`` and ``r2``, which is None where all targets are equal.

    Raises:
        ValueError: not as many predictions as targets, or none.
    """
    _check_pairs(targets, predictions)
    if not len(targets):
        raise ValueError("targets: expected at least one, got none")
    y, p = np.asarray(targets, np.float64), np.asarray(predictions, np.float64)
    off, spread = np.square(y - p).sum(), np.square(y - y.mean()).sum()
    return {
        "mae": float(np.abs(y - p).mean()),
        "rmse": float(np.sqrt(off / len(y))),
        "r2": float(1 - off / spread) if spread > 0 else None,
    }


def majority(targets: Int[np.ndarray, " items"]) -> int:
    """The most frequent class; of several, the first."""
    return int(np.bincount(targets).argmax())


def summary_features(
    values: Float[np.ndarray, "rows width"], offsets: Int[np.ndarray, " sequences+1"]
) -> Float[np.ndarray, "sequences 6*width+1"]:
    """What can be said of a sequence in a few numbers.

    Of each column mean, standard deviation, minimum, maximum, first and last value; and the length.

    Args:
        values: the steps of all sequences, one behind the other.
        offsets: sequence n is ``values[offsets[n] : offsets[n + 1]]``; none is empty.
    """
    values, starts = np.asarray(values, np.float64), offsets[:-1]
    lengths = np.diff(offsets)
    means = np.add.reduceat(values, starts) / lengths[:, None]
    squares = np.square(values - np.repeat(means, lengths, axis=0))
    columns = [
        means,
        np.sqrt(np.add.reduceat(squares, starts) / lengths[:, None]),
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
        values[starts],
        values[offsets[1:] - 1],
        lengths[:, None],
    ]
    return np.concatenate(columns, axis=1)


def nearest(
    known: Float[np.ndarray, "known width"], asked: Float[np.ndarray, "asked width"]
) -> Int[np.ndarray, " asked"]:
    """For each row of ``asked`` the nearest row of ``known``; of several, the first.

    The distance is Euclid's, over columns scaled to mean 0 and standard deviation 1 in ``known``.

    Raises:
        ValueError: there is nothing to be near to.
    """
    if not len(known):
        raise ValueError("known: expected at least one row, got none")
    known, asked = np.asarray(known, np.float64), np.asarray(asked, np.float64)
    mean, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 1e-9 * np.abs(mean), scale, 1.0)
    known, asked = (known - mean) / scale, (asked - mean) / scale
    lengths = np.square(known).sum(axis=1)
    found = np.empty(len(asked), np.int64)
    at_once = max(1, BLOCK // len(known))
    for n in range(0, len(asked), at_once):
        # |k − a|² without |a|², which is the same for all k.
        found[n : n + at_once] = (lengths - 2 * asked[n : n + at_once] @ known.T).argmin(axis=1)
    return found


def majority_of_equals(
    values: Float[np.ndarray, "rows width"], targets: Int[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, "different width"], Int[np.ndarray, " different"]]:
    """The different rows among ``values``, and the most frequent class of those equal to each."""
    different, which = np.unique(values, axis=0, return_inverse=True)
    which = which.reshape(-1)
    classes = int(targets.max()) + 1
    counts = np.bincount(which * classes + targets, minlength=len(different) * classes)
    return different, counts.reshape(len(different), classes).argmax(axis=1)


def _divide(a: Any, b: Any) -> Any:
    """a/b in float64; 0 where both are."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a / np.where(b > 0, b, 1.0)


def _check_pairs(targets: np.ndarray, predictions: np.ndarray) -> None:
    if np.shape(targets) != np.shape(predictions):
        raise ValueError(
            f"predictions: expected the shape of targets, {np.shape(targets)}, "
            f"got {np.shape(predictions)}"
        )
