"""How time is counted: in steps from row to row, and in cycles that come round again.

A *step* is a fixed time, a number of months, or a weekday; it makes a time of a start and a count,
and back. A *season* is the number of steps after which a series should resemble itself. Rows that
are just numbered are told as numbers, whatever they are counted by in here.

Times with offsets, such as 13:45+02:00, are on two clocks. On the local one the hours are those of
the people, which is what the calendar wants; but where the offset changes, an hour is there twice,
or not at all. So steps are counted on one that goes evenly, as far ahead of UTC as the first row
is; where they are regular on the local clock alone, such as days from midnight to midnight, on
that. A *form* remembers how a table writes its times, so that others can be written alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.tasks.times import COUNTED, DAY_FIRST, TIME, Ahead, Times, times_and_offsets

if TYPE_CHECKING:
    import polars

Counts = Int[np.ndarray, "..."]
Time = Any
"""A moment, ``np.datetime64`` to the microsecond."""
DAY = 86_400_000_000
"""Microseconds."""
MONTH = np.timedelta64(1, "M")
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}
"""Microseconds of what the calendar can tell."""


@dataclass(frozen=True)
class Step:
    """The time from one row to the next: fixed, or a number of months."""

    microseconds: int = 0
    months: int = 0
    at_end: bool = False
    """Whether each time is the last day of its month."""
    weekdays: bool = False
    """Whether Saturdays and Sundays are passed over; of months, it is the first or the last weekday
    of each."""
    numbered: bool = False
    """Whether the rows are just numbered, each number being a microsecond in here."""

    def times(self, start: Time, counts: Counts) -> Times:
        """Those so many steps after ``start``."""
        counts = np.asarray(counts)
        found: Times
        if self.weekdays:
            day = start.astype("datetime64[D]")
            if self.months:
                moved: Any = day.astype("datetime64[M]") + counts * self.months
                days = _weekday_of(moved, at_end=self.at_end)
            else:
                days = np.busday_offset(day, counts, roll="forward")
            found = days.astype("datetime64[us]") + (start - day)
            return found
        if not self.months:
            found = start + (counts * self.microseconds).astype("timedelta64[us]")
            return found
        month: Any = start.astype("datetime64[M]")
        moved = month + (counts * self.months).astype("timedelta64[M]")
        if self.at_end:  # the same time before the next month
            before = (month + MONTH).astype("datetime64[us]") - start
            found = (moved + MONTH).astype("datetime64[us]") - before
        else:
            found = moved.astype("datetime64[us]") + (start - month.astype("datetime64[us]"))
        return found

    def counts(self, start: Time, found: Times) -> Counts:
        """How many whole steps after ``start`` these times are."""
        apart, size = found - start, self.microseconds
        if self.months:
            apart = found.astype("datetime64[M]") - start.astype("datetime64[M]")
            size = self.months
        elif self.weekdays:
            apart = np.busday_count(start.astype("datetime64[D]"), found.astype("datetime64[D]"))
            size = 1
        counts: Counts = apart.astype(np.int64) // size
        return counts

    @property
    def seconds(self) -> float:
        """How long it is, a month being a twelfth of a year, a weekday a fifth of a week."""
        if self.weekdays and not self.months:
            return CYCLES["week"] / 5 / 1e6
        return (self.microseconds or self.months * CYCLES["year"] / 12) / 1e6

    def __str__(self) -> str:
        names = {"day": DAY, "hour": DAY // 24, "minute": 60_000_000, "second": 1_000_000}
        if self.numbered:
            return str(self.microseconds)
        if self.weekdays and not self.months:
            return "1 weekday"
        if self.months:
            count, name = (
                (self.months, "month") if self.months % 12 else (self.months // 12, "year")
            )
        else:
            fitting = [n for n, size in names.items() if self.microseconds % size == 0]
            name = fitting[0] if fitting else "microsecond"
            count = self.microseconds // names.get(name, 1)
        return f"{count} {name}" + ("s" if count != 1 else "")


def _weekday_of(months: Any, *, at_end: bool) -> Any:
    """The first weekday of each month, or the last one."""
    if at_end:
        return np.busday_offset((months + MONTH).astype("datetime64[D]"), -1, roll="forward")
    return np.busday_offset(months.astype("datetime64[D]"), 0, roll="forward")


def find_step(runs: Sequence[Times], *, numbered: bool = False) -> Step:
    """The most frequent time from a row to the next, in runs of rising times.

    Months if no rows are closer than 26 days, and all fall on one day of their month, or on its
    last, or on its first weekday, or the last. Weekdays if it is a day, and no row falls on a
    Saturday or Sunday, though some lie before and some after one.

    Args:
        runs: the times of each series.
        numbered: whether they are no times, but numbers of rows.

    Raises:
        ValueError: no run has two rows.
    """
    apart = np.concatenate([np.diff(run) for run in runs]).astype(np.int64)
    if not apart.size:
        raise wrong("time", "expected at least two rows of a series, got one")
    most = _most_frequent(apart)
    if numbered:
        return Step(microseconds=most, numbered=True)
    together = np.concatenate(list(runs))
    days, month = together.astype("datetime64[D]"), together.astype("datetime64[M]")
    since = together - month.astype("datetime64[us]")
    until = (month + MONTH).astype("datetime64[us]") - together
    clock = together - days.astype("datetime64[us]")
    if apart.min() >= 26 * DAY:
        for fits, options in (
            (since == since[0], {}),
            ((until == until[0]) & (until <= np.timedelta64(DAY, "us")), {"at_end": True}),
            ((days == _weekday_of(month, at_end=False)) & (clock == clock[0]), {"weekdays": True}),
            (
                (days == _weekday_of(month, at_end=True)) & (clock == clock[0]),
                {"weekdays": True, "at_end": True},
            ),
        ):
            if fits.all():
                months = [np.diff(run.astype("datetime64[M]")).astype(np.int64) for run in runs]
                return Step(months=_most_frequent(np.concatenate(months)), **options)
    if most == DAY and np.is_busday(days).all():
        weeks = [np.diff((run.astype("datetime64[D]").astype(int) + 3) // 7) for run in runs]
        if np.concatenate(weeks).any():  # weeks that begin on Mondays: 1970 began on a Thursday
            return Step(microseconds=DAY, weekdays=True)
    return Step(microseconds=most)


def _most_frequent(numbers: Int[np.ndarray, " n"]) -> int:
    values, counts = np.unique(numbers, return_counts=True)
    return int(values[counts.argmax()])


def default_season(step: Step) -> int:
    """Steps after which a series should resemble itself; 1 where none is known.

    A year of months or weeks, a week of days or weekdays, a day of hours or minutes, an hour of
    seconds.
    """
    if step.numbered:
        return 1
    if step.weekdays and not step.months:
        return 5
    if step.months:
        return 12 // step.months if 12 % step.months == 0 else 1
    seconds = step.microseconds / 1e6
    if seconds == 7 * 86_400:
        return 52
    for longest, season in ((60, 3600), (43_200, 86_400), (86_400, 7 * 86_400)):
        if seconds < longest or (longest > 60 and seconds == longest):
            return round(season / seconds) if seconds >= 1 and season % seconds == 0 else 1
    return 1


def show_time(time: Time, form: "TimeForm | None" = None) -> str:
    """A time as people write it, as short as it can be told; or a number, where rows have those."""
    return show_times(time, form=form)[0]


def show_times(*times: Time, form: "TimeForm | None" = None) -> tuple[str, ...]:
    """Several, as short as all of them can be told alike: to the day, the minute, the second."""
    if form is not None and form.numbered:
        return tuple(str(np.datetime64(time, "us").astype(int)) for time in times)
    shown = [str(np.datetime64(time, "us")).replace("T", " ") for time in times]
    for rest in (".000000", ":00", " 00:00"):
        if not all(text.endswith(rest) for text in shown):
            break
        shown = [text.removesuffix(rest) for text in shown]
    return tuple(shown)


DATE = "{0.year:04}-{0.month:02}-{0.day:02}"
TIME_OF_DAY = " {0.hour:02}:{0.minute:02}:{0.second:02}"


@dataclass(frozen=True)
class TimeForm:
    """How a table writes its times, and on which clock they are counted."""

    text: str = DATE + TIME_OF_DAY
    """For ``str.format``, of a ``datetime``, the digits of its microseconds, and the hours and the
    minutes of its offset."""
    unit: str = "us"
    """Of a column of Parquet: ms, us or ns; or date."""
    zone: str | None = None
    """The time zone of that column, UTC for text with offsets; None where there are no offsets."""
    offset: int = 0
    """Microseconds that local time is ahead of UTC in the last row."""
    base: int = 0
    """Microseconds that the clock on which times are counted is ahead of UTC, at its end."""
    days: bool = False
    """Whether that clock is the local one of ``zone``."""
    pattern: str | None = None
    """Of ``datetime.strftime``, or a key of ``COUNTED``; None where ``text`` tells how to write."""

    @property
    def numbered(self) -> bool:
        """Whether the times are none, but numbers of rows."""
        return self.pattern == "steps"

    def write(self, local: Times, ahead: Int[np.ndarray, " n"] | None = None) -> list[str]:
        """Times as text.

        Where the form has no room for a part of a time, all are written as 2016-07-01 13:45:10.

        Args:
            local: the times, on the clock of the people, whichever counts them.
            ahead: microseconds that it is ahead of UTC at each; None for ``offset``.
        """
        ahead = np.full(len(local), self.offset) if ahead is None else ahead
        zoned = self.zone is not None
        if self.pattern in COUNTED:
            return [str(n) for n in _counts_of(local, self.pattern)]
        utc = local - ahead.astype("timedelta64[us]") if zoned else local
        if self.pattern is not None:
            zones = [timezone(timedelta(microseconds=one)) for one in ahead.tolist()]
            moments = zip(local.tolist(), zones, strict=True)
            written = [time.replace(tzinfo=zone).strftime(self.pattern) for time, zone in moments]
            if (times_and_offsets(_frame(written), "time", self.pattern)[0] == utc).all():
                return written
        offsets = [show_offset(one).split(":") for one in ahead.tolist()]

        def cells(text: str) -> list[str]:
            return [
                text.format(time, f"{time.microsecond:06}", *offset)
                for time, offset in zip(local.tolist(), offsets, strict=True)
            ]

        if self.pattern is None:
            written = cells(self.text)
            found, read = times_and_offsets(_frame(written), "time")
            if (found == utc).all() and (read is None) != zoned:
                return written
        return cells(_full_text(local, zoned=zoned))

    def column(self, local: Times, ahead: Int[np.ndarray, " n"] | None = None) -> "polars.Series":
        """Times as a column of Parquet has them, told as to ``write``."""
        pl = require("polars", "train")
        if self.pattern in COUNTED:
            counted: polars.Series = pl.Series(_counts_of(local, self.pattern))
            return counted
        if self.zone is None:
            kind = pl.Date if self.unit == "date" else pl.Datetime(self.unit)
            plain: polars.Series = pl.Series(local).cast(kind)
            return plain
        ahead = np.full(len(local), self.offset) if ahead is None else ahead
        utc = pl.Series(local - ahead.astype("timedelta64[us]")).dt.replace_time_zone("UTC")
        found: polars.Series = utc.dt.convert_time_zone(self.zone)
        if self.days:
            # An hour that is there twice is the first one; one that is not, by the last offset.
            named = pl.Series(local).dt.replace_time_zone(
                self.zone, ambiguous="earliest", non_existent="null"
            )
            found = named.fill_null(found)
        return found.cast(pl.Datetime(self.unit, self.zone))


ISO = TimeForm()
"""2016-07-01 13:45:10, without an offset."""


def _counts_of(times: Times, unit: str) -> list[int] | list[float]:
    """What numbers of this unit count up to these times."""
    size = COUNTED[unit]
    nanoseconds = [1000 * n for n in times.astype("datetime64[us]").astype(np.int64).tolist()]
    if all(n % size == 0 for n in nanoseconds):
        return [n // size for n in nanoseconds]
    return [n / size for n in nanoseconds]


def _full_text(times: Times, *, zoned: bool) -> str:
    """The ``text`` of a form that has room for all of these times."""
    fraction = (times != times.astype("datetime64[s]")).any()
    return ISO.text + (".{1}" if fraction else "") + ("{2}:{3}" if zoned else "")


def _frame(cells: Sequence[str]) -> "polars.DataFrame":
    frame: polars.DataFrame = require("polars", "train").DataFrame({"time": cells})
    return frame


def show_offset(microseconds: int) -> str:
    """An offset such as +02:00."""
    minutes = abs(microseconds) // 60_000_000
    return f"{'-' if microseconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"


class Clock(NamedTuple):
    """The times of a column, counted on one clock."""

    counted: Times
    local: Times
    """The same, as the table has them."""
    form: TimeForm


def read_clocks(
    frame: "polars.DataFrame", name: str, base: int | None = None, time_format: str | None = None
) -> list[Clock]:
    """The clocks on which the times of a column may be counted, the likeliest first.

    Args:
        frame: the table.
        name: of the column.
        base: what ``TimeForm.base`` has to be, where there are offsets; None for the offset of the
            first row.
        time_format: how the table writes its times, as for ``times_and_offsets``.

    Raises:
        ValueError: as ``times_and_offsets`` does.
    """
    utc, ahead = times_and_offsets(frame, name, time_format)
    form = _find_form(frame[name], utc, ahead, time_format)
    if ahead is None:
        return [Clock(utc, utc, form)]
    local = utc + ahead
    even = replace(form, base=ahead[0].astype(int).item() if base is None else base)
    clocks = [Clock(utc + np.timedelta64(even.base, "us"), local, even)]
    if (clocks[0].counted != local).any():
        zoned = getattr(frame[name].dtype, "time_zone", None) is not None
        clocks.append(Clock(local, local, replace(form, base=form.offset, days=zoned)))
    return clocks


def _find_form(
    column: "polars.Series", utc: Times, ahead: Ahead | None, time_format: str | None
) -> TimeForm:
    """The form of a column of times, the last of which is written as all are to be written."""
    pl = require("polars", "train")
    last = int(utc.argmax())
    offset = 0 if ahead is None else int(ahead[last].astype(int))
    if time_format in COUNTED and column.dtype.is_numeric():
        return TimeForm(pattern=time_format)
    if column.dtype != pl.String:
        if column.dtype == pl.Date:
            return TimeForm(DATE, unit="date")
        zone = column.dtype.time_zone  # type: ignore[attr-defined]
        text = _full_text(utc, zoned=zone is not None)
        return TimeForm(text, column.dtype.time_unit, zone, offset)  # type: ignore[attr-defined]
    if time_format is not None:
        days = time_format not in COUNTED and (utc == utc.astype("datetime64[D]")).all()
        unit = "date" if days and ahead is None else "us"
        zone = None if ahead is None else "UTC"
        return TimeForm(unit=unit, zone=zone, offset=offset, pattern=time_format)
    text = _find_text(column.str.strip_chars(), last)
    if ahead is None:
        return TimeForm(text, "us" if "{0.hour" in text else "date")
    if text.endswith("Z") and ahead.any():
        text = text.removesuffix("Z") + "{2}:{3}"
    return TimeForm(text, "us", "UTC", offset)


def _find_text(cells: "polars.Series", last: int) -> str:
    """The ``text`` of a form: with each part that any cell has, in the order of the last one."""

    def some(pattern: str) -> bool:
        return bool(cells.str.contains(pattern).any())

    def width(single: str) -> str:
        return "" if some(single) else ":02"

    cell = str(cells[last])
    month = f"{{0.month{width(r'^(?:[0-9]+[.]|[0-9]{4}[-/])[0-9](?:[^0-9]|$)')}}}"
    day = f"{{0.day{width(r'^[0-9][.]|^[0-9]{4}[-/][0-9]+[-/][0-9](?:[^0-9]|$)')}}}"
    if DAY_FIRST.fullmatch(cell):
        text = f"{day}.{month}.{{0.year:04}}"
    else:
        match = TIME.fullmatch(cell)
        between = match[2] if match else "-"
        text = f"{{0.year:04}}{between}{month}"
        if some(r"^[0-9]{4}[-/][0-9]+[-/]|[.]"):
            text += between + day
    clocks = cells.filter(cells.str.contains(":", literal=True))
    if clocks.is_empty():
        return text
    text += "T" if "T" in (cell if ":" in cell else str(clocks[0])) else " "
    text += f"{{0.hour{width('[T ][0-9]:')}}}:{{0.minute:02}}"
    if some(":[0-9]{2}:[0-9]{2}"):
        text += ":{0.second:02}"
    parts = cells.str.extract_groups(":[0-9]{2}(?P<point>[.,])(?P<digits>[0-9]+)").struct.unnest()
    digits = parts["digits"].drop_nulls().str.len_chars()
    if not digits.is_empty():
        text += f"{parts['point'].drop_nulls()[0]}{{1:.{max(digits.to_list())}}}"
    found = re.search(r":.*?(\s*)(?:(Z)|[+-][0-9]{2}(:?)([0-9]{2})?)$", cell)
    if found:
        blank, utc, colon, minutes = found.groups("")
        text += blank + (utc or "{2}" + (f"{colon}{{3}}" if minutes else ""))
    return text


def parse_time(name: str, text: str, clock: Clock | None = None) -> Time:
    """The time that an option says, in the forms in which a table may have it.

    Args:
        name: of the option.
        text: what it says: without an offset it is local time.
        clock: of a table, on which the time is wanted.

    Raises:
        ValueError: it is none, or it has an offset, and the table's have none.
    """
    pattern = None if clock is None else clock.form.pattern
    forms: list[str | None] = [pattern]
    if pattern != "steps":
        # Of a pattern such as %d/%m/%Y %H:%M, the date will do.
        forms += [re.split(r"\W*%[HIXcT]", pattern or "")[0] or pattern, None]
    for form in dict.fromkeys(forms):
        try:
            (found,), ahead = times_and_offsets(_frame([text]), "time", form)
            break
        except ValueError:
            continue
    else:
        wanted = "a number of steps" if pattern == "steps" else "a date such as 2016-07-01"
        raise wrong(name, f"expected {wanted}, got {text!r}")
    if ahead is not None:
        if clock is None or clock.form.zone is None:
            raise wrong(
                name, f"expected a date without an offset, as those of the table, got {text!r}"
            )
        return found + np.timedelta64(clock.form.base, "us")
    if clock is None or (clock.counted == clock.local).all():
        return found
    # The first row that is not before it in its own local time.
    later = clock.counted[clock.local >= found]
    return later.min() if later.size else clock.counted.max() + np.timedelta64(1, "us")


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
