"""How good the labels are, as tables and sentences: the model beside the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jlstm.tasks.chance import paired_difference
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.measures import accuracy, macro_f1, per_class, regression_scores

MODEL = "LSTM"
"""What it is called beside the baselines."""
MOST_SHOWN = 20
"""Classes above which the confusion matrix is no table any more."""


class Errors(NamedTuple):
    """The errors in each sequence: steps of one sequence know of each other."""

    known: Float[np.ndarray, " sequences"]
    """How many labels it has: 1, or one for each step."""
    of: Mapping[str, Float[np.ndarray, " sequences"]]
    """Of the model and of each baseline: how many were wrong, or the squared error."""


def joined_errors(parts: Sequence[Errors]) -> Errors:
    """Those of several parts."""
    return Errors(
        np.concatenate([part.known for part in parts]),
        {who: np.concatenate([part.of[who] for part in parts]) for who in parts[0].of},
    )


def judge_classes(
    config: SequencesConfig,
    results: dict[str, Any],
    labels: Sequence[str],
    confusions: Mapping[str, np.ndarray],
    errors: Errors,
    notes: list[str],
) -> Evaluation:
    """How often classes were right.

    Args:
        config: of the run.
        results: what is known already; what is measured is added.
        labels: the classes.
        confusions: the confusion matrix of the model, and of each baseline.
        errors: how many labels were wrong in each sequence.
        notes: to be told.
    """
    items, item = ("steps", "step") if config.task == "tag" else ("sequences", "sequence")
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
            counted(count, item),
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
    of_each = Table(
        "For each class, the model",
        ("", "precision", "recall", "F1", f"{items} of the class"),
        [
            (label, f"{p:.1%}", f"{r:.1%}", f"{f1:.4f}", f"{n:,}")
            for label, p, r, f1, n in zip(labels, *each.values(), strict=True)
        ],
    )
    said = "macro F1" if decides == "macro_f1" else f"{items} labelled rightly"
    scores = {
        who: {"accuracy": m["accuracy"], "macro F1": m["macro_f1"]} for who, m in measures.items()
    }
    return Evaluation(
        results,
        tables,
        # What chance makes of a macro F1 is another matter.
        _verdict(ranks, said, "{:.2%}", 1, errors if decides == "accuracy" else None),
        notes,
        scores,
        details=[of_each],
        sums=(confusions, errors),
    )


def judge_numbers(
    results: dict[str, Any],
    true: np.ndarray,
    guesses: Mapping[str, np.ndarray],
    notes: list[str],
) -> Evaluation:
    """How far off numbers were.

    Args:
        results: what is known already; what is measured is added.
        true: what they should be.
        guesses: what they are for the model, and for each baseline.
        notes: to be told.
    """
    measures = {who: regression_scores(true, guess) for who, guess in guesses.items()}
    results |= {"measures": measures}
    ranks: dict[str, Any] = {who: m["rmse"] for who, m in measures.items()}
    least = min(ranks.values())
    table = Table(
        counted(len(true), "sequence"),
        ("", "MAE", "RMSE", "R²"),
        [
            (who, *("–" if m[name] is None else f"{m[name]:.4g}" for name in ("mae", "rmse", "r2")))
            for who, m in measures.items()
        ],
        best=[n for n, rank in enumerate(ranks.values()) if rank == least],
    )
    scores = {
        who: {"MAE": m["mae"], "RMSE": m["rmse"], "R²": m["r2"]} for who, m in measures.items()
    }
    squares = {who: (guess - true) ** 2 for who, guess in guesses.items()}
    verdict = _verdict(ranks, "RMSE", "{:.4g}", -1, Errors(np.ones(len(true)), squares))
    return Evaluation(results, [table], verdict, notes, scores, sums=(true, guesses))


def _verdict(
    ranks: Mapping[str, float], measure: str, form: str, sign: int, errors: Errors | None
) -> str:
    """Whether the model beats the baselines.

    Args:
        ranks: the measure that decides, of the model and of each baseline.
        measure: what it is called.
        form: how a value of it is written.
        sign: 1 where more is better, −1 where less is.
        errors: by which to tell what chance may do; None to say nothing of it.
    """
    model = ranks[MODEL]
    others = {who: rank for who, rank in ranks.items() if who != MODEL}
    best = max(others, key=lambda who: sign * others[who])
    shown = f"{form.format(model)} against {form.format(others[best])} ({measure})"
    if model == others[best]:
        return f"The model is no better than a baseline, {best}: {shown}."
    told, clear = "", True
    if errors is not None and len(errors.known) > 1:
        d = paired_difference(best, errors.of[MODEL] - errors.of[best], errors.known)
        clear = d.beyond_chance
        by = f"{-100 * d.mean:+.3g} ± {100 * d.margin:.2g} points"
        if sign < 0:
            by = f"{d.mean:+.3g} ± {d.margin:.2g} in squared error"
        count = counted(len(errors.known), "sequence")
        told = f" They differ by {by}, {d.in_words} (95 % interval over {count})."
    if sign * model > sign * others[best]:
        won = "beats the baselines" if clear else "is ahead of the baselines, perhaps by chance"
        return f"The model {won}: {shown}, the best of which is: {best}.{told}"
    far = "" if clear else ", perhaps by chance"
    return f"The model is WORSE than a baseline, {best}{far}: {shown}.{told}"
