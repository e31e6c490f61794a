"""How time is counted: in steps from row to row, and in cycles that come round again.

A *step* is a fixed time or a number of months; it makes a time of a start and a count, and back. A
*season* is the number of steps after which a series should resemble itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from jlstm.data.frame import Times, times
from jlstm.extras import require

Counts = Int[np.ndarray, "..."]
Time = Any
"""A moment, ``np.datetime64`` to the microsecond."""
DAY = 86_400_000_000
"""Microseconds."""
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}
"""Microseconds of what the calendar can tell."""


@dataclass(frozen=True)
class Step:
    """The time from one row to the next: fixed, or a number of months."""

    microseconds: int = 0
    months: int = 0
    at_end: bool = False
    """Whether each time is the last day of its month."""

    def times(self, start: Time, counts: Counts) -> Times:
        """Those so many steps after ``start``."""
        counts = np.asarray(counts)
        found: Times
        if not self.months:
            found = start + (counts * self.microseconds).astype("timedelta64[us]")
            return found
        month: Any = start.astype("datetime64[M]")
        moved: Any = month + (counts * self.months).astype("timedelta64[M]")
        if self.at_end:  # the same time before the next month
            before = (month + 1).astype("datetime64[us]") - start
            found = (moved + 1).astype("datetime64[us]") - before
        else:
            found = moved.astype("datetime64[us]") + (start - month.astype("datetime64[us]"))
        return found

    def counts(self, start: Time, found: Times) -> Counts:
        """How many whole steps after ``start`` these times are."""
        apart, size = found - start, self.microseconds
        if self.months:
            apart = found.astype("datetime64[M]") - start.astype("datetime64[M]")
            size = self.months
        counts: Counts = apart.astype(np.int64) // size
        return counts

    @property
    def seconds(self) -> float:
        """How long it is, a month being a twelfth of a year."""
        return (self.microseconds or self.months * CYCLES["year"] / 12) / 1e6

    def __str__(self) -> str:
        names = {"day": DAY, "hour": DAY // 24, "minute": 60_000_000, "second": 1_000_000}
        if self.months:
            count, name = (
                (self.months, "month") if self.months % 12 else (self.months // 12, "year")
            )
        else:
            fitting = [n for n, size in names.items() if self.microseconds % size == 0]
            name = fitting[0] if fitting else "microsecond"
            count = self.microseconds // names.get(name, 1)
        return f"{count} {name}" + ("s" if count != 1 else "")


def find_step(runs: Sequence[Times]) -> Step:
    """The most frequent time from a row to the next, in runs of rising times.

    Months if no rows are closer than 28 days, and all fall on one day of their month, or on its
    last.

    Raises:
        ValueError: no run has two rows.
    """
    apart = np.concatenate([np.diff(run) for run in runs]).astype(np.int64)
    if not apart.size:
        raise ValueError("time: expected at least two rows of a series, got one")
    together = np.concatenate(list(runs))
    month = together.astype("datetime64[M]")
    since = together - month.astype("datetime64[us]")
    until = (month + 1).astype("datetime64[us]") - together
    if apart.min() >= 28 * DAY:
        for places, at_end in ((since, False), (until, True)):
            if (places == places[0]).all():
                months = [np.diff(run.astype("datetime64[M]")).astype(np.int64) for run in runs]
                return Step(months=_most_frequent(np.concatenate(months)), at_end=at_end)
    return Step(microseconds=_most_frequent(apart))


def _most_frequent(numbers: Int[np.ndarray, " n"]) -> int:
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[counts.argmax()])


def default_season(step: Step) -> int:
    """Steps after which a series should resemble itself; 1 where none is known.

    A year of months or weeks, a week of days, a day of hours or minutes, an hour of seconds.
    """
    if step.months:
        return 12 // step.months if 12 % step.months == 0 else 1
    seconds = step.microseconds / 1e6
    if seconds == 7 * 86_400:
        return 52
    for longest, season in ((60, 3600), (43_200, 86_400), (86_400, 7 * 86_400)):
        if seconds < longest or (longest > 60 and seconds == longest):
            return round(season / seconds) if seconds >= 1 and season % seconds == 0 else 1
    return 1


def show_time(time: Time) -> str:
    """A time as people write it, as short as it can be told."""
    return show_times(time)[0]


def show_times(*times: Time) -> tuple[str, ...]:
    """Several, as short as all of them can be told alike: to the day, the minute, the second."""
    shown = [str(np.datetime64(time, "us")).replace("T", " ") for time in times]
    for rest in (".000000", ":00", " 00:00"):
        if not all(text.endswith(rest) for text in shown):
            break
        shown = [text.removesuffix(rest) for text in shown]
    return tuple(shown)


def parse_time(name: str, text: str) -> Time:
    """The time that an option says, in the forms in which a table may have it.

    Raises:
        ValueError: it is none.
    """
    frame = require("polars", "train").DataFrame({name: [text]})
    try:
        return times(frame, name)[0]
    except ValueError:
        raise ValueError(f"{name}: expected a date such as 2016-07-01, got {text!r}") from None


def calendar_features(when: Times, cycles: Sequence[str]) -> Float32[np.ndarray, "rows calendar"]:
    """Sine and cosine of 2π · the part of each cycle that has gone by; a week begins on Monday."""
    if not cycles:
        return np.zeros((len(when), 0), np.float32)
    year = when.astype("datetime64[Y]").astype("datetime64[us]")
    since = {
        "day": when.astype(np.int64) % DAY,
        "week": (when.astype(np.int64) + 3 * DAY) % (7 * DAY),  # 1970 began on a Thursday
        "year": (when - year).astype(np.int64),
    }
    angles = [2 * np.pi * since[name] / CYCLES[name] for name in cycles]
    features = [part(angle) for angle in angles for part in (np.sin, np.cos)]
    return np.stack(features, axis=1).astype(np.float32)
