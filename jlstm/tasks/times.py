"""Times as people write them, read without guessing which of day and month comes first.

What could be read in two ways is refused, and the message says how ``--time-format`` settles it.
Numbers are no times until it is said what they count.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from jlstm.checks import check_text, wrong
from jlstm.extras import require
from jlstm.tasks.frame import check_columns, numbers, place

if TYPE_CHECKING:
    import polars

Times = np.ndarray
"""``datetime64[us]``."""
Ahead = np.ndarray
"""``timedelta64[us]``: how far a local clock is ahead of UTC."""

TIME = re.compile(
    r"(\d{4})([-/])(\d{1,2})(?:\2(\d{1,2})"
    r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6})\d*)?)?\s*(Z|[+-]\d{2}:?(?:\d{2})?)?)?)?",
    re.ASCII,
)
DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d)(.*)", re.ASCII | re.DOTALL)
_EITHER_WAY = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b.*", re.ASCII | re.DOTALL)


COUNTED = {
    "seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1,
    "steps": 10**3,
}  # fmt: skip
"""What the numbers of a column of times may count, since 1970, and how many nanoseconds one is.

Steps are just numbered. Here each is taken for a microsecond, and ``TimeForm`` knows that it is
none."""
NUMBERS = "seconds, milliseconds, microseconds or nanoseconds since 1970, or steps"


def check_time_format(name: str, value: Any) -> None:
    """Raise unless a value is a key of ``COUNTED``, or a pattern of ``datetime.strptime``.

    Raises:
        TypeError: no string.
        ValueError: neither.
    """
    check_text(name, value)
    if value in COUNTED:
        return
    some, back = datetime(2016, 7, 1, 13, 45, 10, tzinfo=UTC), None
    if re.search("%[YyGcx]", value.replace("%%", "")):  # else it would be 1900, with a warning
        with suppress(ValueError, re.error):
            back = datetime.strptime(some.strftime(value), value)
    if back is None or back.year != some.year:
        raise wrong(
            name,
            f"expected a pattern with a year, such as %d/%m/%Y %H:%M, or what numbers "
            f"count: {NUMBERS}; got {value!r}",
        )


def times(frame: "polars.DataFrame", name: str, time_format: str | None = None) -> Times:
    """A column as times, those with an offset in UTC: see ``times_and_offsets``."""
    return times_and_offsets(frame, name, time_format)[0]


def times_and_offsets(
    frame: "polars.DataFrame", name: str, time_format: str | None = None
) -> tuple[Times, Ahead | None]:
    """A column as times, such as 2016-07-01, 2016/07/01, 01.07.2016, or 2016-07.

    A time of the day follows a blank or T: 13:45, 13:45:10, 13:45:10.25; then, where there is one,
    Z or an offset such as +02:00.

    Args:
        frame: the table.
        name: of the column.
        time_format: how its times are written where it is otherwise: see ``check_time_format``.
            A column of Parquet that has times already needs none.

    Returns:
        The times, in UTC where they have offsets; and the offsets, None where they have none.

    Raises:
        ValueError: there is no such column, or a cell is empty, or anything else: also a date whose
            day and month could be either way round, or offsets in some rows only.
    """
    pl = require("polars", "train")
    check_columns(frame, [name], "time")
    column = frame[name]
    for at in column.is_null().arg_true().head(1):
        raise ValueError(f"{place(name, at)}: expected a time, got an empty cell")
    if column.dtype in (pl.Date, pl.Datetime):
        if getattr(column.dtype, "time_zone", None) is None:
            return _microseconds(column), None
        utc = _microseconds(column.dt.convert_time_zone("UTC").dt.replace_time_zone(None))
        return utc, _microseconds(column.dt.replace_time_zone(None)) - utc
    if time_format in COUNTED and (column.dtype == pl.String or column.dtype.is_numeric()):
        return _count_times(column, time_format), None
    if column.dtype != pl.String:
        raise ValueError(
            f"column {name!r}: expected times such as 2016-07-01 13:45, got {column.dtype}"
            + (f"; {_WHICH_NUMBERS}" * column.dtype.is_numeric())
        )
    column = column.str.strip_chars()
    if time_format is not None:
        return _times_by_pattern(column, time_format)
    found, ahead, with_offset = _usual_times(column)
    for at in np.flatnonzero(np.isnat(found)).tolist():
        time = _time(place(name, at), column[at])
        with_offset[at] = time.tzinfo is not None
        ahead[at] = time.utcoffset() or timedelta()
        found[at] = np.datetime64(time.replace(tzinfo=None), "us") - ahead[at]
    for at in np.flatnonzero(with_offset != with_offset[:1])[:1].tolist():
        raise ValueError(
            f"{place(name, at)}: expected an offset in each row or in none, got {column[at]!r}"
        )
    return found, ahead if with_offset[:1].any() else None


def _microseconds(column: "polars.Series") -> Times:
    pl = require("polars", "train")
    found: Times = column.cast(pl.Datetime("us")).to_numpy().astype("datetime64[us]")
    return found


_WHICH_NUMBERS = f"of numbers, --time-format says what they count: {NUMBERS}"


def _count_times(column: "polars.Series", unit: str) -> Times:
    """Numbers as times: what they count has gone by since 1970.

    Raises:
        ValueError: a cell is no number, or so large that there is no such year; or no whole one,
            where they are steps.
    """
    pl = require("polars", "train")
    size = COUNTED[unit]
    text = column.str.strip_chars() if column.dtype == pl.String else column
    real = text.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    whole = text.cast(pl.Int64, strict=False).fill_null(0).to_numpy()  # with more digits
    steps = unit == "steps"
    least, most = (-(2**61), 2**61) if steps else (-62 * 10**18 // size, 250 * 10**18 // size)
    with np.errstate(invalid="ignore"):
        fits = (least < real) & (real < most)  # from the year 5 to 9892
    if steps:
        fits &= real == np.round(real)
    for at in np.flatnonzero(~fits)[:1]:
        wanted = "a whole number" if steps else f"{unit} since 1970"
        got = repr(column[int(at)]) if str(column[int(at)]).strip() else "an empty cell"
        far = not steps and np.isfinite(real[at])
        hint = "; there is no such year: --time-format may be something finer" if far else ""
        raise ValueError(f"{place(column.name, at)}: expected {wanted}, got {got}{hint}")
    # Digits beyond a microsecond are dropped, as they are elsewhere.
    counts = whole * (size // 1000) if size >= 1000 else whole // 1000
    parts = np.floor(real * (size / 1000)).astype(np.int64)
    return np.where(whole == real, counts, parts).astype("datetime64[us]")


def _times_by_pattern(column: "polars.Series", pattern: str) -> tuple[Times, Ahead | None]:
    """Text as times, by a pattern of ``datetime.strptime``; and offsets, where it has them."""
    found: dict[str, datetime] = {}
    for at, text in enumerate(column):
        if text not in found:
            try:
                found[text] = datetime.strptime(text, pattern)
            except ValueError:
                got = repr(text) if text else "an empty cell"
                raise ValueError(
                    f"{place(column.name, at)}: expected a time of the --time-format {pattern}, "
                    f"got {got}"
                ) from None
    all_times = [found[text] for text in column]
    local = np.array([time.replace(tzinfo=None) for time in all_times], "datetime64[us]")
    if all_times[0].tzinfo is None:
        return local, None
    ahead = np.array([time.utcoffset() for time in all_times], "timedelta64[us]")
    return local - ahead, ahead


_REWRITTEN = (
    (r"^([0-9]{2})\.([0-9]{2})\.([0-9]{4})", "${3}-${2}-${1}"),
    (r"^([0-9]{4})/([0-9]{2})/", "${1}-${2}-"),
    (r"^([0-9]{4}-[0-9]{2}-[0-9]{2})T", "${1} "),
)
"""What makes one form of several that are as usual."""
_ZONE = r"(:[0-9]{2}(?:\.[0-9]+)?)(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
_DATE = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_CLOCK = r" (?:[01][0-9]|2[0-3]):[0-5][0-9]"
_USUAL = (
    (f"{_DATE}$", "%Y-%m-%d"),
    (f"{_DATE}{_CLOCK}$", "%Y-%m-%d %H:%M"),
    (f"{_DATE}{_CLOCK}:[0-5][0-9]$", "%Y-%m-%d %H:%M:%S"),
    (rf"{_DATE}{_CLOCK}:[0-5][0-9]\.[0-9]{{1,6}}$", "%Y-%m-%d %H:%M:%S%.f"),
)
"""Stricter than ``TIME``: nothing that is read here would be refused, or read otherwise, there."""


def _usual_times(column: "polars.Series") -> tuple[Times, Ahead, np.ndarray]:
    """All cells of the usual forms at once, NaT for any other; offsets, and who has one."""
    text = column
    for pattern, form in _REWRITTEN:
        text = text.str.replace(pattern, form)
    zone = text.str.extract(_ZONE, 2)
    text = text.str.replace(_ZONE, "${1}")
    found = np.full(len(text), np.datetime64("NaT", "us"))
    for pattern, form in _USUAL:
        fits = text.str.contains(pattern)
        if fits.any():
            parsed = text.filter(fits).str.to_datetime(form, strict=False, time_unit="us")
            found[fits.to_numpy()] = parsed.to_numpy()
    ahead = np.zeros(len(text), "timedelta64[us]")
    for offset in zone.drop_nulls().unique():
        ahead[(zone == offset).fill_null(False).to_numpy()] = _ahead(offset)
    return found - ahead, ahead, zone.is_not_null().to_numpy().copy()


def _ahead(offset: str) -> timedelta:
    """How far ahead of UTC an offset is: Z, +02:00, -0530 or +02."""
    if offset == "Z":
        return timedelta()
    digits = offset[1:].replace(":", "").ljust(4, "0")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return ahead if offset[0] == "+" else -ahead


def _time(place: str, text: str) -> datetime:
    day_first = DAY_FIRST.fullmatch(text)
    year_first = "{2}-{1}-{0}{3}".format(*day_first.groups()) if day_first else text
    match = TIME.fullmatch(year_first)
    if match is None:
        half = re.search("[AaPp][Mm]$", text)
        hours = (
            f" {'%I' if half else '%H'}:%M{':%S' * (text.count(':') > 1)}{' %p' if half else ''}"
        )
        hours *= ":" in text
        if _EITHER_WAY.fullmatch(text):
            raise ValueError(
                f"{place}: expected the year first, as in 2016-07-01 (day and month could be "
                f"either way round), got {text!r}; --time-format says how it is, such as "
                f"'%d/%m/%Y{hours}' or '%m/%d/%Y{hours}'"
            )
        got = repr(text) if text else "an empty cell"
        hint = f"; --time-format says how it is written, such as '%b %d, %Y{hours}'" if text else ""
        if re.fullmatch(r"[+-]?\d+(?:[.]\d*)?", text, re.ASCII):
            hint = f"; {_WHICH_NUMBERS}" + "; a date is %Y%m%d" * (len(text) == 8)
        raise ValueError(f"{place}: expected a time such as 2016-07-01 13:45, got {got}{hint}")
    year, _, month, day, hour, minute, second, part, offset = match.groups()
    try:
        zone = timezone(_ahead(offset)) if offset else None
        micro = int((part or "").ljust(6, "0"))
        clock = (int(hour or 0), int(minute or 0), int(second or 0), micro)
        return datetime(int(year), int(month), int(day or 1), *clock, tzinfo=zone)
    except ValueError as error:  # the 30th of February
        raise ValueError(
            f"{place}: expected a time that there is, got {text!r} ({error})"
        ) from None


def order(frame: "polars.DataFrame", name: str, time_format: str | None = None) -> np.ndarray:
    """A column to sort rows by: numbers (float64) if its first cell is one, else times.

    Args:
        frame: the table.
        name: of the column.
        time_format: of its times, as for ``times``; where it is a pattern, they are no numbers.

    Raises:
        ValueError: there is no such column, or a cell is empty or of another kind than the first.
    """
    pl = require("polars", "train")
    check_columns(frame, [name], "time")
    column = frame[name]
    is_number = column.dtype.is_numeric()
    if column.dtype == pl.String and (time_format is None or time_format in COUNTED):
        is_number = (
            column.head(1).str.strip_chars().cast(pl.Float64, strict=False).is_finite().any()
        )
    if not is_number:
        return times(frame, name, time_format)
    values = numbers(frame, name)
    for at in np.flatnonzero(np.isnan(values))[:1]:
        raise ValueError(f"{place(name, at)}: expected a number, got {column[int(at)]!r}")
    return values
