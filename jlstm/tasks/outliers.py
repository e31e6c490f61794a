"""A few numbers of a column so far from all others that they make its scale.

Many a table has −999 where nothing was measured, often many times. A column of numbers x with the
distinct values u, sorted, has outliers where

    |x − median(u)| > FAR · (u[m − 1 − k] − u[k])        m = |u|,  k = max(1, m/20)

that is, farther from the middle than ten times the range of the middle 90 % of its distinct values,
and where the standard deviation without them is at most half of that of all.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jlstm.tasks.frame import counted

FAR = 10
"""Ranges from the median: an outlier."""


class Outliers(NamedTuple):
    """What is to be said of them."""

    farthest: float
    at: int
    """Where that is."""
    number: int
    std: float
    """The standard deviation."""
    without: float
    """That of the other numbers."""


def find_outliers(values: Float[np.ndarray, " n"]) -> Outliers | None:
    """The outliers of a column; None where there are none. NaN is no number."""
    distinct = np.unique(values[~np.isnan(values)])
    beyond = max(1, len(distinct) // 20)  # at each end
    if len(distinct) < 4:
        return None
    median, middle = np.median(distinct), distinct[beyond:-beyond]
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.abs(values - median)
        far = distance > FAR * (middle[-1] - middle[0])
        std, without = float(np.nanstd(values)), float(np.nanstd(values[~far]))
    if not 2 * without <= std:
        return None
    at = int(np.nanargmax(distance))
    return Outliers(float(values[at]), at, int(far.sum()), std, without)


def show_outliers(found: Outliers, where: str, part: str) -> str:
    """A sentence on them.

    Args:
        found: in a column.
        where: the place of the farthest: ``"Column 'load', row 17"``.
        part: of the data, that was looked at: ``"the training part"``.
    """
    rest, them = found.number - 1, "them" if found.number > 1 else "it"
    what = f" and {counted(rest, 'other number')} are" if rest else " is"
    return (
        f"{where}: {found.farthest:g}{what} far from all others; the standard deviation in {part} "
        f"is {found.std:.3g} with {them}, {found.without:.3g} without. A cell whose value is not "
        "known is better left empty."
    )
