"""Whether a model and a baseline differ by more than chance would make them.

Errors that were made together tell little more than one of them: those of steps of one sequence, or
of windows that overlap. They are put into *groups* that know little of each other. With s_g the sum
over group g of what the model's errors are above those of the baseline on the same data, n_g how
many errors that are, G groups and N errors in all (Diebold & Mariano 1995, with groups in place of
errors):

    D = Σ s_g / N          r_g = s_g − n_g·D          margin = t_{G−1, 97.5 %} · √V

    V = (γ_0 + 2·γ_1) / N² · G/(G − 1)        γ_0 = Σ r_g²        γ_1 = Σ r_g·r_{g+1}

where γ_1 is for groups that reach into the next one, and counts only where it is above 0. The
difference is more than chance where |D| > margin.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Difference(NamedTuple):
    """What the errors of the model are above those of a baseline."""

    baseline: str
    mean: float
    margin: float
    """Half of the 95 % interval."""

    @property
    def beyond_chance(self) -> bool:
        """Whether 0 lies outside of that interval."""
        return abs(self.mean) > self.margin

    @property
    def in_words(self) -> str:
        """The same, for a sentence."""
        return "more than chance" if self.beyond_chance else "no more than chance may do"


def paired_difference(
    baseline: str,
    above: Float[np.ndarray, " groups"],
    known: Float[np.ndarray, " groups"],
    reaches: Bool[np.ndarray, " groups-1"] | None = None,
) -> Difference:
    """The difference of two, and what chance may have a part in.

    Args:
        baseline: its name.
        above: what the sums of the model's errors are above the baseline's, for each group, of
            which there are at least two.
        known: how many errors each group has.
        reaches: whether a group reaches into the one behind it; None for nowhere.
    """
    from scipy.special import stdtrit

    total, count = known.sum(), len(known)
    mean = above.sum() / total
    rest = above - known * mean
    variance = np.sum(rest**2)
    if reaches is not None:
        variance += 2 * max(0.0, float(np.sum((rest[1:] * rest[:-1])[reaches])))
    error = np.sqrt(variance * count / (count - 1)) / total
    return Difference(baseline, float(mean), float(stdtrit(count - 1, 0.975) * error))
