"""A table made into regular series, and what is missing in them.

A table has a row for each time, and one or many series, told apart by the columns of a group. Each
series becomes regular, one row for every step of time, NaN where the table says nothing, and all
lie one behind the other::

    group  time   y            values   offsets
    a      01:00  5            5        0          a: values[0:3], from 01:00
    a      03:00  6            NaN      3          b: values[3:4], from 02:00
    b      02:00  7            6        4
                               7

What is learned from them is in ``schema.py``, the windows that they are cut into in ``windows.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.tasks.frame import center_and_spread, check_columns, counted, is_missing, numbers, texts
from jlstm.tasks.outliers import find_outliers, show_outliers
from jlstm.tasks.table.clock import (
    ISO,
    Clock,
    Step,
    TimeForm,
    find_step,
    parse_time,
    read_clocks,
    show_offset,
    show_time,
)
from jlstm.tasks.times import Times

if TYPE_CHECKING:
    import polars

Missing = Literal["error", "fill", "interpolate"]
MOST_CATEGORIES = 100
MOST_ABSENT = 50
"""Steps of time for a row, above which the times are not regular."""


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are for."""

    time: str
    target: tuple[str, ...]
    past: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    group: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of numbers for each step, in the order in which arrays have them."""
        return self.target + self.past + self.known


@dataclass(frozen=True)
class Series:
    """Regular series, one behind the other."""

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    """What the columns of the group say of each."""
    starts: Times
    """The time of the first row of each."""
    offsets: Int[np.ndarray, " series+1"]
    """Series n is ``values[offsets[n] : offsets[n + 1]]``."""
    values: Float[np.ndarray, "rows columns"]
    """In the order of ``Roles.columns``; NaN where there is none."""
    rows: Int[np.ndarray, " rows"] | None = None
    """Which row of the file each is, from 2; −1 where the file has none."""
    notes: tuple[str, ...] = ()
    """What is to be said of the table."""
    form: TimeForm = ISO
    """How the table writes its times, and on which clock ``starts`` are."""
    shift: Int[np.ndarray, " rows"] | None = None
    """Microseconds that local time is ahead of that clock; None where it never is."""
    ahead: Int[np.ndarray, " rows"] | None = None
    """Microseconds that local time is ahead of UTC; None where the table has no offsets, and in
    what a run keeps."""

    @property
    def member(self) -> Int[np.ndarray, " rows"]:
        """Which series each row belongs to."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.offsets))

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first row of each, and the one after its last."""
        return list(zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True))

    def local(self, step: Step) -> Times:
        """The local time of each row, whose hours the calendar tells."""
        found = self.times(step)
        return found if self.shift is None else found + self.shift.astype("timedelta64[us]")

    def times(self, step: Step) -> Times:
        """Of each row, on the clock on which they are counted."""
        counts = np.arange(len(self.values)) - self.offsets[self.member]
        if not len(counts):
            return np.empty(0, "datetime64[us]")
        found = [
            step.times(start, counts[a:b])
            for start, a, b in zip(self.starts, self.offsets[:-1], self.offsets[1:], strict=True)
        ]
        return np.concatenate(found)

    def written(self, step: Step, rows: Int[np.ndarray, " n"], *, as_text: bool) -> Any:
        """The times of some rows, each with its offset, as the table has them.

        Args:
            step: of their time.
            rows: which.
            as_text: whether to return a list of strings, or a column of Parquet.
        """
        write = self.form.write if as_text else self.form.column
        return write(self.local(step)[rows], None if self.ahead is None else self.ahead[rows])


def regular(
    frame: "polars.DataFrame",
    roles: Roles,
    *,
    step: Step | None = None,
    until: str | None = None,
    like: TimeForm | None = None,
    time_format: str | None = None,
) -> tuple[Series, Step]:
    """The series of a table, and the step of their time.

    Where the times have offsets that change, steps are counted evenly, in UTC, if they are regular
    there, and by the local clock if not; see ``clock.py``.

    Args:
        frame: from ``read_table``.
        roles: what its columns are for.
        step: what the step has to be; None to find it.
        until: rows from this time on, as an option says it, are left out.
        like: of another table, on whose clock times with offsets are counted.
        time_format: how the table writes its times, as for ``times_and_offsets``.

    Raises:
        ValueError: a column is not there or a cell is not what it should be; a time is there twice,
            or not a whole number of steps after the first of its series; nothing is left.
    """
    for role in ("time", "target", "past", "known", "group"):
        names = getattr(roles, role)
        option = "known_future" if role == "known" else role
        check_columns(frame, (names,) if isinstance(names, str) else names, option)
    base = None if like is None or like.zone is None else like.base
    clocks = read_clocks(frame, roles.time, base, time_format)
    form = clocks[0].form
    when = clocks[0].counted
    cells = np.stack([numbers(frame, name) for name in roles.columns], axis=1)
    keys = list(zip(*[texts(frame, name) for name in roles.group], strict=True))
    keys = keys or [()] * len(when)
    for row, key in enumerate(keys, 2):
        if "" in key:
            name = roles.group[key.index("")]
            raise ValueError(f"column {name!r}, row {row}: expected the series, got an empty cell")

    notes = []
    kept = np.arange(len(when))
    if until is not None:
        kept = np.flatnonzero(when < parse_time("until", until, clocks[0]))
        notes.append(
            f"{len(when) - len(kept):,} of {len(when):,} rows are left out, from {until} on."
        )
        if not kept.size:
            raise wrong("until", f"expected rows before {until}, got none")
    members: dict[tuple[str, ...], list[int]] = {}
    for row in kept.tolist():
        members.setdefault(keys[row], []).append(row)
    sorted_rows = []
    unsorted = 0
    for key, found in members.items():
        rows = np.asarray(found)
        order = np.argsort(when[rows], kind="stable")
        unsorted += bool((np.diff(order) < 0).any())
        rows = rows[order]
        sorted_rows.append(rows)
        for at in np.flatnonzero(np.diff(when[rows]) == np.timedelta64(0, "us"))[:1]:
            raise ValueError(
                f"column {roles.time!r}, row {rows[at + 1] + 2}: expected a time of its own, got "
                f"{show_time(when[rows[at]], form)}, which row {rows[at] + 2} has"
                + (f" for {_name(key)}" if key else "; what tells series apart is the group")
            )
    if unsorted:
        of = f" of {unsorted} series" if roles.group else ""
        notes.append(f"The rows{of} were not in order of time, and have been sorted.")
    reasons = []
    for clock in clocks:
        try:
            found_step, counts = _count(clock, sorted_rows, roles.time, step)
            break
        except ValueError as reason:
            reasons.append(reason)
    else:
        if not roles.group:
            raise reasons[0]
        by = f"by {', '.join(roles.group)} the table has {len(members):,} series"
        raise ValueError(f"{reasons[0]}; {by}") from None
    even = clocks[0]
    ahead = (even.local - even.counted).astype(np.int64) + even.form.base
    if even.form.zone is not None:
        notes.append(_of_offsets([ahead[rows] for rows in sorted_rows], sorted_rows, clock, even))

    parts, places, filled = [], [], []
    for rows, own in zip(sorted_rows, counts, strict=True):
        part = np.full((own[-1] + 1, cells.shape[1]), np.nan)
        part[own] = cells[rows]
        place = np.full(len(part), -1)
        place[own] = rows + 2
        before = np.searchsorted(own, np.arange(len(part)), side="right") - 1
        parts.append(part)
        places.append(place)
        filled.append(rows[before])
    last_row = np.concatenate(filled)  # the row itself, or the one before where it is missing
    shift = (clock.local - clock.counted)[last_row].astype(np.int64)
    series = Series(
        names=tuple(_name(key) for key in members),
        groups=tuple(members),
        starts=np.asarray([clock.counted[rows[0]] for rows in sorted_rows], "datetime64[us]"),
        offsets=np.cumsum([0, *map(len, parts)]),
        values=np.concatenate(parts),
        rows=np.concatenate(places),
        notes=tuple(notes),
        form=clock.form,
        shift=shift if shift.any() else None,
        ahead=None if even.form.zone is None else ahead[last_row],
    )
    return series, found_step


def _count(
    clock: Clock, sorted_rows: Sequence[Int[np.ndarray, " rows"]], name: str, step: Step | None
) -> tuple[Step, list[Int[np.ndarray, " rows"]]]:
    """The step of some times, and which step of its series each row is.

    Raises:
        ValueError: a time is not a whole number of steps after the first of its series; too many
            steps have no row.
    """
    when, form = clock.counted, clock.form
    step = step or find_step([when[rows] for rows in sorted_rows], numbered=form.numbered)
    found = []
    for rows in sorted_rows:
        start = when[rows[0]]
        counts = step.counts(start, when[rows])
        # On a local clock that was put back, a time may be there twice, or come before another.
        off = (step.times(start, counts) != when[rows]) | (np.diff(counts, prepend=-1) < 1)
        for at in np.flatnonzero(off)[:1]:
            raise ValueError(
                f"column {name!r}, row {rows[at] + 2}: expected a whole number of steps of "
                f"{step} after {show_time(start, form)}, got {show_time(when[rows[at]], form)}"
            )
        if counts[-1] >= MOST_ABSENT * (len(rows) + 10):
            raise ValueError(
                f"column {name!r}: expected regular times, got {len(rows):,} rows in "
                f"{counts[-1] + 1:,} steps of {step}, the most frequent one"
            )
        found.append(counts)
    return step, found


def _of_offsets(
    ahead: Sequence[Int[np.ndarray, " n"]],
    sorted_rows: Sequence[Int[np.ndarray, " n"]],
    clock: Clock,
    even: Clock,
) -> str:
    """What is to be said of times with offsets, those of each series, and the clock that counts."""
    offsets = list(dict.fromkeys(np.concatenate(ahead).tolist()))
    if len(offsets) == 1:
        hours = f"local, with the offset {show_offset(offsets[0])}" if offsets[0] else "in UTC"
        return f"The times are {hours}: so are the hours that the calendar tells."
    said = f"The series have different offsets: {some([show_offset(one) for one in offsets])}."
    for own, rows in zip(ahead, sorted_rows, strict=True):
        changed = np.flatnonzero(np.diff(own))
        if changed.size:
            before, after = own[changed[0] : changed[0] + 2]
            said = (
                f"The offset of the times changes, in row {rows[changed[0] + 1] + 2} from "
                f"{show_offset(before)} to {show_offset(after)}."
            )
            break
    evenly = f"evenly, at {show_offset(even.form.base)}" if clock is even else "by the local clock"
    return (
        f"{said} Steps are counted {evenly}; the calendar tells the local hours; forecasts have "
        "the last offset of their series."
    )


def _name(key: tuple[str, ...]) -> str:
    return " / ".join(key) or "the table"


def check_missing(
    series: Series,
    roles: Roles,
    step: Step,
    missing: Missing,
    within: Bool[np.ndarray, " rows"] | None = None,
) -> tuple[str, ...]:
    """Sentences on what is missing.

    Args:
        series: from ``regular``.
        roles: what its columns are for.
        step: of its time.
        missing: what is to be done about it.
        within: the rows to look at; None for all.

    Raises:
        ValueError: something is missing, and ``missing`` is ``"error"``.
    """
    assert series.rows is not None
    looked_at = np.ones(len(series.rows), np.bool_) if within is None else within
    absent = (series.rows < 0) & looked_at
    holes = np.isnan(series.values) & (looked_at & ~absent)[:, None]
    found = []
    if absent.any():
        first = int(absent.argmax())
        of = f" of {series.names[series.member[first]]}" if roles.group else ""
        found.append(
            f"{counted(int(absent.sum()), 'step')} of time without a row, the first{of} at "
            f"{show_time(series.times(step)[first], series.form)}"
        )
    for column, name in enumerate(roles.columns):
        if holes[:, column].any():
            row = series.rows[holes[:, column].argmax()]
            found.append(
                f"{counted(int(holes[:, column].sum()), 'empty cell')} of column {name!r}, the "
                f"first in row {row}"
            )
    if not found:
        return ()
    if missing == "error":
        raise wrong(
            "missing",
            f"expected a value at every step of {step}, got {'; '.join(found)}; say fill "
            "or interpolate for what to do with them",
        )
    how = "the last value before" if missing == "fill" else "a line between the neighbours"
    return (
        f"Missing: {'; '.join(found)}. In their place is {how} to forecast from; as truths they "
        "do not count.",
    )


def told_outliers(
    series: Series, roles: Roles, within: Bool[np.ndarray, " rows"], part: str
) -> tuple[str, ...]:
    """Sentences on columns in which a few numbers make the scale of a series.

    Args:
        series: from ``regular``.
        roles: what its columns are for.
        within: the rows to look at.
        part: what these are together.
    """
    assert series.rows is not None
    said = []
    for column, name in enumerate(roles.columns):
        values = np.where(within, series.values[:, column], np.nan)
        each = [(find_outliers(values[a:b]), a) for a, b in series.bounds]
        found = [(one, a + one.at) for one, a in each if one is not None]
        if found:
            worst, at = max(found, key=lambda one: one[0].std / one[0].without)
            of = f" of {series.names[series.member[at]]}" if roles.group else ""
            more = f" So it is in {len(found) - 1} more series." if len(found) > 1 else ""
            where = f"Column {name!r}{of}, row {series.rows[at]}"
            said.append(show_outliers(worst, where, part) + more)
    return tuple(said)


def read_static(
    frame: "polars.DataFrame", roles: Roles, series: Series
) -> tuple[Float[np.ndarray, "series static"], list[str]]:
    """What the static columns say of each series, as features, and the names of these.

    A column of numbers is standardised over the series, any other one is taken as categories, with
    a feature of 0 or 1 for each.

    Raises:
        ValueError: a column is not there, has several values in one series, or none; a number is
            infinite; there are too many categories, or fewer than two series.
    """
    pl = require("polars", "train")
    check_columns(frame, roles.static, "static")
    if roles.static and len(series.names) < 2:
        raise wrong("static", "expected several series to tell apart, see group; got one")
    assert series.rows is not None
    features: list[Float[np.ndarray, " series"]] = []
    names: list[str] = []
    for name in roles.static:
        cells = texts(frame, name)
        own, first = [], []
        for n, group in enumerate(series.names):
            rows = series.rows[series.offsets[n] : series.offsets[n + 1]]
            rows = rows[rows >= 0] - 2
            values = [cells[row] for row in rows]
            for row, value in zip(rows, values, strict=True):
                if is_missing(value):
                    raise ValueError(
                        f"column {name!r}, row {row + 2}: expected a value for {group}, got "
                        + (f"{value!r}, which stands for a missing one" if value else "none")
                    )
                if value != values[0]:
                    raise ValueError(
                        f"column {name!r}, row {row + 2}: expected one value for all of {group}, "
                        f"got {value!r} after {values[0]!r}"
                    )
            own.append(values[0])
            first.append(rows[0] + 2)
        found = pl.Series(own, dtype=pl.String).cast(pl.Float64, strict=False)
        if found.null_count():
            categories = sorted(set(own))
            if len(categories) > MOST_CATEGORIES:
                raise wrong(
                    "static",
                    f"expected at most {MOST_CATEGORIES} categories in column {name!r}, "
                    f"got {len(categories)}",
                )
            for category in categories:
                features.append(np.array([float(value == category) for value in own]))
                names.append(f"{name}={category}")
        else:
            column = found.to_numpy()
            for n in np.flatnonzero(~np.isfinite(column))[:1]:
                raise ValueError(
                    f"column {name!r}, row {first[n]}: expected a finite number, got {own[n]!r}"
                )
            mean, std = center_and_spread(column, name)
            features.append((column - mean) / (std or 1.0))
            names.append(name)
    return np.stack(features, axis=1) if features else np.zeros((len(series.names), 0)), names


def extend(series: Series, origins: Int[np.ndarray, " series"], horizon: int) -> Series:
    """Series cut or prolonged, by rows of NaN, so that each ends a horizon after its origin.

    Args:
        series: the series.
        origins: for each, the first row to foretell.
        horizon: rows from there to the end.
    """
    ends = origins + horizon
    rows = [
        np.where(np.arange(a, end) < b, np.arange(a, end), -1)  # −1: one of NaN
        for (a, b), end in zip(series.bounds, ends.tolist(), strict=True)
    ]
    place = np.concatenate(rows)
    values = np.where(place[:, None] < 0, np.nan, series.values[place])
    own = None if series.rows is None else np.where(place < 0, -1, series.rows[place])
    last = np.repeat(series.offsets[1:] - 1, list(map(len, rows)))
    going_on = np.where(place < 0, last, place)  # with the last offset
    return replace(
        series,
        offsets=np.cumsum([0, *map(len, rows)]),
        values=values,
        rows=own,
        shift=None if series.shift is None else series.shift[going_on],
        ahead=None if series.ahead is None else series.ahead[going_on],
    )


def some(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
