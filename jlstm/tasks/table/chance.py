"""Windows in groups that know little of each other, to tell what chance has a part in.

Windows that overlap have nearly the same errors, so thousands of them may tell as little as a few.
The groups of ``jlstm/tasks/chance.py`` are spans of time of one horizon each, all series together,
whose windows reach into the next; or, where there are more of them, series. Below ``FEWEST`` groups
there is no verdict.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jlstm.tasks.chance import Difference, paired_difference

FEWEST = 10
"""Groups, below which there is no verdict."""


class Scores(NamedTuple):
    """Sums of errors by groups of windows."""

    at: Int[np.ndarray, " groups"]
    """Where each group stands, rising: the time of an origin, in steps."""
    known: Float[np.ndarray, " groups"]
    """Truths there were."""
    absolute: Mapping[str, Float[np.ndarray, " groups"]]
    """|e|, of the model and of each baseline."""
    squared: Mapping[str, Float[np.ndarray, " groups"]]

    def grouped(self, place: Int[np.ndarray, " groups"]) -> "Scores":
        """The sums of larger groups: ``place`` is the one that each of these belongs to."""
        at, own = np.unique(place, return_inverse=True)

        def add(a: Float[np.ndarray, " groups"]) -> Float[np.ndarray, " larger"]:
            return np.bincount(own, a, len(at))

        sums = ({name: add(a) for name, a in part.items()} for part in self[2:])
        return Scores(at, add(self.known), *sums)

    def seen(self) -> "Scores":
        """Those groups for which there are truths."""
        some = self.known > 0
        sums = ({name: a[some] for name, a in part.items()} for part in self[2:])
        return Scores(self.at[some], self.known[some], *sums)


def no_scores(at: Int[np.ndarray, " groups"]) -> Scores:
    """Where the summing starts."""
    return Scores(at, np.zeros(len(at)), {}, {})


def add_scores(
    scores: Scores,
    truth: Float[np.ndarray, "windows horizon"],
    points: Mapping[str, Float[np.ndarray, "windows horizon"]],
    at: Int[np.ndarray, " windows"],
) -> Scores:
    """The sums with more windows, each in the group that stands at its place."""
    group = np.searchsorted(scores.at, at)
    zeros = np.zeros(len(scores.at))

    def add(
        before: Float[np.ndarray, " groups"], term: Float[np.ndarray, "windows horizon"]
    ) -> Float[np.ndarray, " groups"]:
        return before + np.bincount(group, term.sum(axis=1), len(zeros))

    errors = {name: np.nan_to_num(truth - point) for name, point in points.items()}
    return Scores(
        scores.at,
        add(scores.known, np.isfinite(truth).astype(np.float64)),
        {n: add(scores.absolute.get(n, zeros), np.abs(e)) for n, e in errors.items()},
        {n: add(scores.squared.get(n, zeros), e**2) for n, e in errors.items()},
    )


def joined_scores(one: Scores, other: Scores) -> Scores:
    """Those of both, of the models and baselines that both have."""
    at = np.concatenate([one.at, other.at])
    parts = (
        {name: np.concatenate([a, theirs[name]]) for name, a in mine.items() if name in theirs}
        for mine, theirs in zip(one[2:], other[2:], strict=True)
    )
    return Scores(at, np.concatenate([one.known, other.known]), *parts).grouped(at)


def spans(origins: Scores, horizon: int) -> Scores:
    """The sums of spans of time of one horizon each."""
    return origins.grouped((origins.at - origins.at[:1]) // horizon)


def difference(scores: Scores, baseline: str, *, squared: bool, neighbours: bool) -> Difference:
    """How much worse the model is than a baseline, and what chance may have a part in.

    Args:
        scores: by groups, at least two.
        baseline: its name.
        squared: whether to compare squared errors, or absolute ones.
        neighbours: whether the groups are spans, of which neighbours know of each other.
    """
    sums = scores.squared if squared else scores.absolute
    above = sums["model"] - sums[baseline]
    return paired_difference(
        baseline, above, scores.known, np.diff(scores.at) == 1 if neighbours else None
    )
