"""A table made into regular series, and series cut into windows to forecast from.

A table has a row for each time, and one or many series, told apart by the columns of a group. Each
series becomes regular, one row for every step of time, NaN where the table says nothing, and all
lie one behind the other::

    group  time   y            values   offsets
    a      01:00  5            5        0          a: values[0:3], from 01:00
    a      03:00  6            NaN      3          b: values[3:4], from 02:00
    b      02:00  7            6        4
                               7

A *window* belongs to an origin, a row o: it has the L rows before o to forecast from and the H rows
from o on to foretell. With v and t the rows at which validation and test begin,

    training     o + H ≤ v          validation   v ≤ o,  o + H ≤ t          test   t ≤ o

and so no truth of one part is seen in another; what a window looks back on may lie in the part
before, as it will when the model is used. Scales come from the rows before v alone.

A missing truth never counts. A missing value among those that are forecast from is the last one
before it, or lies on the line between its neighbours if the later one is known by then, too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from jlstm.data.frame import Times, check_columns, numbers, texts, times
from jlstm.extras import require
from jlstm.metrics.forecasting import seasonal_error
from jlstm.models import WindowBatch

if TYPE_CHECKING:
    import polars

Missing = Literal["error", "fill", "interpolate"]
Floats = Float32[np.ndarray, "..."]
Counts = Int[np.ndarray, "..."]
Time = Any
"""A moment, ``np.datetime64`` to the microsecond."""
DAY = 86_400_000_000
"""Microseconds."""
CYCLES = {"day": DAY, "week": 7 * DAY, "year": 365.2425 * DAY}
MOST_CATEGORIES = 100
MOST_ABSENT = 50
"""Steps of time for a row, above which the times are not regular."""
LONGEST_SEASON = 200
"""Steps of a season above which two of them are too long a window to be the default."""


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


# Time: from rows that say when they are to a step and a count.


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
    text = str(np.datetime64(time, "us")).replace("T", " ")
    for rest in (".000000", ":00", " 00:00"):
        text = text.removesuffix(rest)
    return text


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


# Series: from rows in any order to one row for each step.


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

    @property
    def member(self) -> Int[np.ndarray, " rows"]:
        """Which series each row belongs to."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.offsets))

    def times(self, step: Step) -> Times:
        """Of each row."""
        counts = np.arange(len(self.values)) - self.offsets[self.member]
        if not len(counts):
            return np.empty(0, "datetime64[us]")
        found = [
            step.times(start, counts[a:b])
            for start, a, b in zip(self.starts, self.offsets[:-1], self.offsets[1:], strict=True)
        ]
        return np.concatenate(found)


def regular(
    frame: "polars.DataFrame",
    roles: Roles,
    *,
    step: Step | None = None,
    until: Time | None = None,
) -> tuple[Series, Step]:
    """The series of a table, and the step of their time.

    Args:
        frame: from ``read_table``.
        roles: what its columns are for.
        step: what the step has to be; None to find it.
        until: rows from this time on are left out.

    Raises:
        ValueError: a column is not there or a cell is not what it should be; a time is there twice,
            or not a whole number of steps after the first of its series; nothing is left.
    """
    for role in ("time", "target", "past", "known", "group"):
        names = getattr(roles, role)
        check_columns(frame, (names,) if isinstance(names, str) else names, role)
    when = times(frame, roles.time)
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
        kept = np.flatnonzero(when < until)
        notes.append(
            f"{len(when) - len(kept):,} of {len(when):,} rows are left out, from "
            f"{show_time(until)} on."
        )
        if not kept.size:
            raise ValueError(f"until: expected rows before {show_time(until)}, got none")
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
        for at in np.flatnonzero(np.diff(when[rows]) == np.timedelta64(0))[:1]:
            raise ValueError(
                f"column {roles.time!r}, row {rows[at + 1] + 2}: expected a time of its own, got "
                f"{show_time(when[rows[at]])}, which row {rows[at] + 2} has"
                + (f" for {_name(key)}" if key else "; what tells series apart is the group")
            )
    if unsorted:
        of = f" of {unsorted} series" if roles.group else ""
        notes.append(f"The rows{of} were not in order of time, and have been sorted.")
    step = step or find_step([when[rows] for rows in sorted_rows])

    parts, places, starts = [], [], []
    for rows in sorted_rows:
        start = when[rows[0]]
        counts = step.counts(start, when[rows])
        for at in np.flatnonzero(step.times(start, counts) != when[rows])[:1]:
            raise ValueError(
                f"column {roles.time!r}, row {rows[at] + 2}: expected a whole number of steps of "
                f"{step} after {show_time(start)}, got {show_time(when[rows[at]])}"
            )
        if counts[-1] >= MOST_ABSENT * (len(rows) + 10):
            raise ValueError(
                f"column {roles.time!r}: expected regular times, got {len(rows):,} rows in "
                f"{counts[-1] + 1:,} steps of {step}, the most frequent one"
            )
        part = np.full((counts[-1] + 1, cells.shape[1]), np.nan)
        part[counts] = cells[rows]
        place = np.full(len(part), -1)
        place[counts] = rows + 2
        parts.append(part)
        places.append(place)
        starts.append(start)
    series = Series(
        names=tuple(_name(key) for key in members),
        groups=tuple(members),
        starts=np.asarray(starts, "datetime64[us]"),
        offsets=np.cumsum([0, *map(len, parts)]),
        values=np.concatenate(parts),
        rows=np.concatenate(places),
        notes=tuple(notes),
    )
    return series, step


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
            f"{absent.sum():,} steps of time without a row, the first{of} at "
            f"{show_time(series.times(step)[first])}"
        )
    for column, name in enumerate(roles.columns):
        if holes[:, column].any():
            row = series.rows[holes[:, column].argmax()]
            found.append(
                f"{holes[:, column].sum():,} empty cells of column {name!r}, the first in row {row}"
            )
    if not found:
        return ()
    if missing == "error":
        raise ValueError(
            f"missing: expected a value at every step of {step}, got {'; '.join(found)}; say fill "
            "or interpolate for what to do with them"
        )
    how = "the last value before" if missing == "fill" else "a line between the neighbours"
    return (
        f"Missing: {'; '.join(found)}. In their place is {how} to forecast from; as truths they "
        "do not count.",
    )


def read_static(
    frame: "polars.DataFrame", roles: Roles, series: Series
) -> tuple[Float[np.ndarray, "series static"], list[str]]:
    """What the static columns say of each series, as features, and the names of these.

    A column of numbers is standardised over the series, any other one is taken as categories, with
    a feature of 0 or 1 for each.

    Raises:
        ValueError: a column is not there, has several values in one series, or none; there are too
            many categories, or fewer than two series.
    """
    check_columns(frame, roles.static, "static")
    if roles.static and len(series.names) < 2:
        raise ValueError("static: expected several series to tell apart, see group; got one")
    assert series.rows is not None
    features: list[Float[np.ndarray, " series"]] = []
    names: list[str] = []
    for name in roles.static:
        cells = texts(frame, name)
        own = []
        for n, group in enumerate(series.names):
            rows = series.rows[series.offsets[n] : series.offsets[n + 1]]
            rows = rows[rows >= 0] - 2
            values = [cells[row] for row in rows]
            for row, value in zip(rows, values, strict=True):
                if value != values[0] or not value:
                    raise ValueError(
                        f"column {name!r}, row {row + 2}: expected one value for all of {group}, "
                        f"got {value!r} after {values[0]!r}"
                    )
            own.append(values[0])
        try:
            column = np.array([float(value) for value in own])
        except ValueError:
            categories = sorted(set(own))
            if len(categories) > MOST_CATEGORIES:
                raise ValueError(
                    f"static: expected at most {MOST_CATEGORIES} categories in column {name!r}, "
                    f"got {len(categories)}"
                ) from None
            for category in categories:
                features.append(np.array([float(value == category) for value in own]))
                names.append(f"{name}={category}")
        else:
            features.append((column - column.mean()) / (column.std() or 1.0))
            names.append(name)
    return np.stack(features, axis=1) if features else np.zeros((len(series.names), 0)), names


# The split, the scales, and all else that is learned from a table before any training.


@dataclass(frozen=True)
class Schema:
    """What is to be known of a table to forecast from another one like it."""

    roles: Roles
    step: Step
    lookback: int
    horizon: int
    season: int
    missing: Missing
    validation: Time
    """When the validation part begins."""
    test: Time
    """When the test part begins."""
    names: tuple[str, ...]
    """Of the series."""
    mean: Float[np.ndarray, "series columns"]
    """Of the training part."""
    std: Float[np.ndarray, "series columns"]
    """Of the training part; 1 where nothing varies. NaN for a target that has no training value."""
    naive: Float[np.ndarray, "series target"]
    """``seasonal_error`` of the training part."""
    static: Float[np.ndarray, "series static"]
    static_names: tuple[str, ...]
    cycles: tuple[str, ...]
    """What the calendar tells: the keys of ``CYCLES``."""

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, which knows no NaN."""
        known = asdict(self)
        for name in ("mean", "std", "naive", "static"):
            known[name] = [
                [x if math.isfinite(x) else None for x in row] for row in known[name].tolist()
            ]
        return known | {"validation": str(self.validation), "test": str(self.test)}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> "Schema":
        """What ``to_json`` wrote."""
        own: dict[str, Any] = dict(known)
        for name in ("mean", "std", "naive", "static"):
            table = np.array(own[name], np.float64)  # None becomes NaN
            own[name] = table.reshape(len(own["names"]), -1)
        for name in ("names", "static_names", "cycles"):
            own[name] = tuple(own[name])
        for name in ("validation", "test"):
            own[name] = np.datetime64(own[name], "us")
        roles: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in own["roles"].items()
        }
        return cls(**own | {"roles": Roles(**roles), "step": Step(**own["step"])})


def split_times(series: Series, step: Step, validation: str, test: str) -> tuple[Time, Time]:
    """When validation and test begin, for all series alike.

    Args:
        series: the series.
        step: of their time.
        validation: a date, or a part of the time from the first row to the last, before the test.
        test: a date, or a part of the time, its end.

    Raises:
        ValueError: neither a number between 0 and 1 nor a date; or not one after the other.
    """
    lengths = np.diff(series.offsets)
    ends = [step.times(s, np.asarray(n - 1)) for s, n in zip(series.starts, lengths, strict=True)]
    start, last = series.starts.min(), np.max(ends)
    total = int(step.counts(start, last)) + 1

    def begin(name: str, text: str, end: int) -> Time:
        try:
            part = float(text)
        except ValueError:
            return parse_time(name, text)
        if not 0 < part < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1, or a date, got {text}")
        return step.times(start, np.asarray(end - round(part * total)))

    begins_test = begin("test", test, total)
    if not start < begins_test <= last:
        raise ValueError(
            f"test: expected it to begin after the first row, of {show_time(start)}, and not after "
            f"the last, of {show_time(last)}, got {show_time(begins_test)}"
        )
    begins = begin("validation", validation, int(step.counts(start, begins_test)))
    if not start < begins < begins_test:
        raise ValueError(
            f"validation: expected it to begin after the first row, of {show_time(start)}, and "
            f"before the test, {show_time(begins_test)}, got {show_time(begins)}"
        )
    return begins, begins_test


def learn(
    series: Series,
    roles: Roles,
    step: Step,
    *,
    horizon: int,
    lookback: int | None,
    season: int | None,
    missing: Missing,
    calendar: bool,
    split: tuple[Time, Time],
    static: tuple[Float[np.ndarray, "series static"], Sequence[str]],
) -> tuple[Schema, tuple[str, ...]]:
    """All that the training part says of the table, and sentences on it.

    A cycle is told by the calendar if the training part covers it twice.
    """
    when = series.times(step)
    train = when < split[0]
    notes = []
    found = season is None
    season = default_season(step) if season is None else season
    longest = max((train[a:b].sum() for a, b in _bounds(series)), default=0)
    if found and longest < 3 * season and season > 1:
        notes.append(
            f"The training part is too short for a season of {season} steps: none is used."
        )
        season = 1
    if lookback is None:
        lookback = max(4 * horizon, 2 * season if season <= LONGEST_SEASON else 0)

    shape = (len(series.names), len(roles.columns))
    mean, std = np.zeros(shape), np.ones(shape)
    naive = np.full((shape[0], len(roles.target)), np.nan)
    constant: dict[str, list[str]] = {}
    for n, (a, b) in enumerate(_bounds(series)):
        for column, name in enumerate(roles.columns):
            values = series.values[a:b, column][train[a:b]]
            seen = values[np.isfinite(values)]
            if column < len(roles.target):
                naive[n, column] = seasonal_error(values, season)
                if not seen.size:
                    std[n, column] = np.nan
            if seen.size:
                mean[n, column] = seen.mean()
                spread = seen.std()
                # A mean of equal numbers may differ from them in the last bit.
                if spread <= 1e-12 * np.abs(seen).max():
                    constant.setdefault(name, []).append(series.names[n])
                else:
                    std[n, column] = spread
    for name, where in constant.items():
        of = f" for {some(where)}" if roles.group else ""
        notes.append(f"Column {name!r} is constant in the training part{of}: nothing to learn.")
    unseen = [series.names[n] for n in np.flatnonzero(np.isnan(std).any(axis=1))]
    if unseen and roles.group:
        notes.append(
            f"Targets without a value in the training part are left out: those of {some(unseen)}."
        )
    span = float((when[train].max() - when[train].min()) / np.timedelta64(1, "s"))
    cycles = tuple(
        name
        for name, size in CYCLES.items()
        if calendar and 2 * step.seconds <= size / 1e6 and 2 * size / 1e6 <= span
    )
    schema = Schema(
        roles=roles,
        step=step,
        lookback=lookback,
        horizon=horizon,
        season=season,
        missing=missing,
        validation=split[0],
        test=split[1],
        names=series.names,
        mean=mean,
        std=std,
        naive=naive,
        static=static[0],
        static_names=tuple(static[1]),
        cycles=cycles,
    )
    return schema, tuple(notes)


def _bounds(series: Series) -> list[tuple[int, int]]:
    return list(zip(series.offsets[:-1].tolist(), series.offsets[1:].tolist(), strict=True))


def some(names: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# Windows.


@dataclass(frozen=True)
class Panel:
    """Scaled series, ready to be cut into windows."""

    schema: Schema
    member: Int[np.ndarray, " rows"]
    """Which series of the schema each row belongs to."""
    truth: Float32[np.ndarray, "rows target"]
    """NaN where there is none."""
    forward: Float32[np.ndarray, "rows columns"]
    """The last value at or before each row; 0, the mean, where there is none."""
    line: Float32[np.ndarray, "rows columns"] | None
    """The values with lines in the gaps; None where there is no gap, or none is to be drawn."""
    until: Int[np.ndarray, "rows columns"] | None
    """The first row at or after each that has a value, on which the line ends."""
    calendar: Float32[np.ndarray, "rows calendar"]


class Places(NamedTuple):
    """Windows, told by their origin and target."""

    origins: Int[np.ndarray, " windows"]
    """The first row to foretell."""
    targets: Int[np.ndarray, " windows"]
    """Which target."""

    def __len__(self) -> int:
        return len(self.origins)


def make_panel(series: Series, schema: Schema) -> Panel:
    """Series as a model sees them.

    Raises:
        ValueError: a series is none of the schema's.
    """
    place = {name: n for n, name in enumerate(schema.names)}
    for name in series.names:
        if name not in place:
            raise ValueError(
                f"group: expected series that the model was trained on ({some(schema.names)}), "
                f"got {name}"
            )
    member = np.array([place[name] for name in series.names], np.int64)[series.member]
    scaled = (series.values - schema.mean[member]) / schema.std[member]
    forward, line, until = fill(scaled, series.offsets)
    lines = schema.missing == "interpolate" and bool(np.isnan(scaled).any())
    return Panel(
        schema=schema,
        member=member,
        truth=scaled[:, : len(schema.roles.target)].astype(np.float32),
        forward=forward.astype(np.float32),
        line=line.astype(np.float32) if lines else None,
        until=until if lines else None,
        calendar=calendar_features(series.times(schema.step), schema.cycles),
    )


def fill(
    values: Float[np.ndarray, "rows columns"], offsets: Int[np.ndarray, " series+1"]
) -> tuple[
    Float[np.ndarray, "rows columns"],
    Float[np.ndarray, "rows columns"],
    Int[np.ndarray, "rows columns"],
]:
    """Without gaps: the last value before each; lines; and the rows on which these end.

    Nothing passes from one series to the next. Before the first value of a series stands 0; after
    the last, its line goes on level, and ends on a row that never comes.
    """
    rows = np.arange(len(values))[:, None]
    known = np.isfinite(values)
    lengths = np.diff(offsets)
    first = np.repeat(offsets[:-1], lengths)[:, None]
    last = np.repeat(offsets[1:], lengths)[:, None]
    never = len(values) + 1
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, rows, never)[::-1], axis=0)[::-1]
    has_before, has_after = before >= first, after < last
    at_before = np.take_along_axis(values, np.where(has_before, before, rows), axis=0)
    at_after = np.take_along_axis(values, np.where(has_after, after, rows), axis=0)
    forward = np.where(has_before, at_before, 0.0)
    part = (rows - before) / np.maximum(after - before, 1)
    between = at_before + part * (at_after - at_before)
    line = np.where(has_before & has_after, between, forward)
    return forward, line, np.where(has_after, after, never)


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


Part = Literal["training", "validation", "test", "all"]


def find_windows(series: Series, panel: Panel, part: Part) -> Places:
    """The windows of a part, origin by origin, and for each origin target by target.

    Left out are those of a target without a value to forecast from, without a truth, or without a
    scale.

    Args:
        series: the series.
        panel: the same, scaled.
        part: which; ``"all"`` for every window that lies in a series.
    """
    s = panel.schema
    when = series.times(s.step)
    origins = []
    for a, b in _bounds(series):
        validation, test = (a + int(np.searchsorted(when[a:b], t)) for t in (s.validation, s.test))
        begin, end = {
            "training": (a, validation),
            "validation": (validation, test),
            "test": (test, b),
            "all": (a, b),
        }[part]
        origins.append(np.arange(max(begin, a + s.lookback), end - s.horizon + 1))
    rows = np.concatenate(origins)
    known = np.concatenate([np.zeros((1, len(s.roles.target)), np.int64), _counts(panel.truth)])
    seen = known[rows] - known[rows - s.lookback]
    coming = known[rows + s.horizon] - known[rows]
    at, targets = np.nonzero((seen > 0) & (coming > 0))
    return Places(rows[at], targets)


def _counts(truth: Float32[np.ndarray, "rows target"]) -> Int[np.ndarray, "rows target"]:
    return np.cumsum(np.isfinite(truth), axis=0)


def cut(panel: Panel, places: Places) -> WindowBatch:
    """Windows as a model takes them; the key is for the caller to add.

    ``past`` has the past columns, and, where anything is missing, whether the target is known;
    ``known`` the columns of a known future; ``about`` the static features and the calendar at the
    origin. ``series`` numbers the targets of the schema's series.
    """
    s = panel.schema
    targets, past = len(s.roles.target), len(s.roles.past)
    origins = places.origins
    back = origins + np.arange(-s.lookback, 0)[:, None]
    ahead = origins + np.arange(s.horizon)[:, None]
    whole = np.concatenate([back, ahead])

    def values(rows: Any, columns: Any, limit: Any) -> Floats:
        found: Floats = panel.forward[rows, columns]
        if panel.line is not None and panel.until is not None:
            # A line whose later end is not known yet is not drawn.
            found = np.where(panel.until[rows, columns] < limit, panel.line[rows, columns], found)
        return found

    features = values(back[..., None], np.arange(targets, targets + past), origins[:, None])
    if s.missing != "error":
        observed = np.isfinite(panel.truth[back, places.targets])
        features = np.concatenate([features, observed[..., None].astype(np.float32)], axis=-1)
    member = panel.member[origins]
    known = np.arange(targets + past, len(s.roles.columns))
    about = [s.static[member].astype(np.float32), panel.calendar[origins]]
    return WindowBatch(
        values=values(back, places.targets, origins),
        series=(member * targets + places.targets).astype(np.int32),
        past=features,
        known=values(whole[..., None], known, (origins + s.horizon)[:, None]),
        about=np.concatenate(about, axis=-1),
        targets=panel.truth[ahead, places.targets],
    )


def shuffled(count: int, size: int, seed: int) -> Callable[[int], Int[np.ndarray, " size"]]:
    """Batch n, from 0, of the numbers below ``count``, each pass in another order.

    A pure function of seed and n. It never ends, and a batch may reach into the next pass.

    Raises:
        MissingExtraError: grain is not installed.
    """
    grain = require("grain", "train")
    order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return lambda n: np.array([order[i] for i in range(n * size, (n + 1) * size)], np.int64)


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
        for (a, b), end in zip(_bounds(series), ends.tolist(), strict=True)
    ]
    place = np.concatenate(rows)
    values = np.where(place[:, None] < 0, np.nan, series.values[place])
    own = None if series.rows is None else np.where(place < 0, -1, series.rows[place])
    return replace(series, offsets=np.cumsum([0, *map(len, rows)]), values=values, rows=own)
