"""Tables as people have them: CSV or Parquet, read without guessing what a column means.

Of a CSV every cell is text, until somebody asks for a column as numbers, times or text and thereby
says what it is to be. Where a cell is something else, the message names its column and its row as
the file has it, the header being row 1. Nothing becomes missing without a word. What could be read
in two ways is refused, and the message names the option that says which one it is.

Polars comes with ``jlstm[train]``.
"""

import codecs
import csv
import difflib
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.files import replacing

if TYPE_CHECKING:
    import polars

TEXT_FILES, PARQUET_FILES = (".csv", ".tsv", ".txt"), (".parquet", ".pq")
ZIPPED = ".gz"
DELIMITERS = (",", ";", "\t")
MISSING = ("", "nan", "na", "n/a", "null", "none")
"""What stands for a missing value, in small or capital letters, whatever the column is for."""


def read_table(
    path: str | os.PathLike[str], *, separator: str | None = None, encoding: str = "utf-8"
) -> "polars.DataFrame":
    """The table of a file, every column of a CSV as text.

    A byte order mark is dropped, any kind of line end is fine, and so are empty lines at the end,
    and blanks around cells in quotes.

    Args:
        path: a file that ends in .csv, .tsv or .txt, perhaps with .gz behind, or a Parquet file.
        separator: the character between the cells of a CSV; None for the comma, semicolon or tab
            that cuts the header into most names.
        encoding: of a CSV, as Python names it.

    Raises:
        MissingExtraError: polars is not installed.
        OSError: there is no such file, or it cannot be read.
        ValueError: it is of another kind or encoding, empty, or no table: two columns of one name,
            a row with more or fewer cells than the header; or two separators fit equally well.
    """
    pl = require("polars", "train")
    path = Path(path)
    zipped = path.suffix.lower() == ZIPPED
    kind = Path(path.stem if zipped else path.name).suffix.lower()
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file, got a path where there is none")
    if kind not in TEXT_FILES + PARQUET_FILES:
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(TEXT_FILES + PARQUET_FILES)}, "
            f"got {kind or 'no such ending'}"
        )
    content = path.read_bytes()
    if zipped:
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: expected a file packed by gzip, got: {error}") from None
    if not content.strip():
        raise ValueError(f"{path}: expected a table, got an empty file")
    frame: polars.DataFrame
    if kind in PARQUET_FILES:
        try:
            frame = pl.read_parquet(io.BytesIO(content))
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: expected a Parquet file, got: {reason}") from None
    else:
        frame = _read_csv(path, _in_utf8(path, content, encoding), separator)
    if not frame.height:
        raise ValueError(f"{path}: expected rows below the header, got none")
    return frame


def _in_utf8(path: Path, content: bytes, encoding: str) -> bytes:
    """The content in UTF-8, without a byte order mark."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in {encoding.upper()}, got byte {content[error.start]:#04x} at "
            f"offset {error.start}; if it is in another encoding, such as cp1252 or utf-16: "
            "--encoding"
        ) from None
    return text.encode().removeprefix(codecs.BOM_UTF8)


def _read_csv(path: Path, content: bytes, separator: str | None) -> "polars.DataFrame":
    """A CSV in UTF-8, every column as text.

    Polars reads what it cannot misread; the rest, and all that is wrong, Python's reader, which is
    slow, but says where.
    """
    pl = require("polars", "train")
    delimiter = separator or _find_separator(path, content)
    content = _unspaced(content, delimiter)
    try:
        first = next(_rows(content, delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: row 1: expected cells of a CSV, got: {error}") from None
    header = [name.strip() for name in first]
    if not header:
        raise ValueError(f"{path}: row 1: expected the names of the columns, got an empty line")
    for name in header:
        if not name:
            place = header.index(name) + 1
            raise ValueError(
                f"{path}: row 1: expected a name for each column, column {place} has none"
            )
        if header.count(name) > 1:
            raise ValueError(
                f"{path}: row 1: expected a name of its own for each column, "
                f"got {name!r} {header.count(name)} times"
            )
    frame = _read_fast(content, delimiter, header)
    if frame is None:
        rows = _read_slowly(path, content, delimiter, len(header))
        cells = zip(*rows, strict=True) if rows else [()] * len(header)
        named = zip(header, cells, strict=True)
        frame = pl.DataFrame({name: pl.Series(values, dtype=pl.String) for name, values in named})
    return frame


def _find_separator(path: Path, content: bytes) -> str:
    """The one that cuts the header into most names; of equals, the one that also cuts row 2 so.

    Raises:
        ValueError: there are still two.
    """

    def widths(delimiter: str) -> list[int]:
        try:
            return [len(row) for row in islice(_rows(content, delimiter, strict=False), 2)]
        except csv.Error:  # a cell that does not end
            return [0]

    cut = {delimiter: widths(delimiter) for delimiter in DELIMITERS}
    most = max(found[0] for found in cut.values())
    fitting = [d for d in DELIMITERS if cut[d][0] == most]
    if len(fitting) > 1 and most > 1:
        fitting = [d for d in fitting if cut[d][1:] in ([], [most])] or fitting
        if len(fitting) > 1:
            raise ValueError(
                f"{path}: row 1: expected one character between the names of the columns, got "
                f"{most} names by {' as well as by '.join(map(repr, fitting))}; see --separator"
            )
    return fitting[0]


def _rows(content: bytes, delimiter: str, *, strict: bool) -> Iterator[list[str]]:
    """What Python's reader makes of a CSV."""
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="")
    return csv.reader(lines, delimiter=delimiter, strict=strict)


_QUOTED = rb'(?:[^"]*+(?<![^%b\r\n])"[^"]*+(?:""[^"]*+)*+"(?![^%b\r\n]))*+[^"]*+'
"""A CSV in which each quote opens a cell, closes one, or is doubled within one."""


def _unspaced(content: bytes, delimiter: str) -> bytes:
    """A CSV without the blanks around cells in quotes, if that makes each quote stand well."""
    if b'"' not in content or delimiter == " ":
        return content
    cut = re.escape(delimiter.encode())
    pattern = rb'(?:(?<=[%b\r\n])|^) +(?=")|(?<=") +(?=[%b\r\n]|$)' % (cut, cut)
    found = re.sub(pattern, b"", content)
    whole = found != content and re.fullmatch(_QUOTED % (cut, cut), found)
    return found if whole else content


def _read_fast(content: bytes, delimiter: str, header: list[str]) -> "polars.DataFrame | None":
    """The table as Polars reads it; None where it might not be as Python's reader would."""
    pl = require("polars", "train")
    cut = delimiter.encode()
    if len(cut) > 1:  # Polars takes a byte
        return None
    content = content.rstrip(b"\r\n") + b"\n"
    if b'"' in content:
        quoted = _QUOTED % (re.escape(cut), re.escape(cut))
        if b"\r" in content or not re.fullmatch(quoted, content):
            return None
    elif b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n\n" in content:  # an empty line, which Polars passes over
        return None
    try:
        frame: polars.DataFrame = pl.read_csv(
            io.BytesIO(content),
            has_header=False,
            schema=dict.fromkeys(header, pl.String),
            separator=delimiter,
        ).fill_null("")
    except pl.exceptions.PolarsError:
        return None
    # Polars refuses a row with too many cells, but fills one with too few. If there is any, fewer
    # delimiters are between cells than there should be.
    inside = 0
    if b'"' in content:
        within = pl.all().str.count_matches(delimiter, literal=True).cast(pl.Int64).sum()
        inside = sum(frame.select(within).row(0))
    between = content.count(cut) - inside
    if between != (len(header) - 1) * frame.height:
        return None
    return frame[1:]


def _read_slowly(path: Path, content: bytes, delimiter: str, width: int) -> list[list[str]]:
    """The rows below the header, each with as many cells."""
    row = 1
    rows: list[list[str]] = []
    try:
        for cells in _rows(content, delimiter, strict=True):
            rows.append(cells)
            row += 1
    except csv.Error as error:
        raise ValueError(f"{path}: row {row}: expected cells of a CSV, got: {error}") from None
    while not rows[-1]:
        rows.pop()
    for row, cells in enumerate(rows[1:], 2):
        if len(cells) != width:
            got = str(len(cells)) if cells else "an empty line"
            raise ValueError(f"{path}: row {row}: expected {counted(width, 'cell')}, got {got}")
    return rows[1:]


def check_columns(frame: "polars.DataFrame", names: Sequence[str], role: str) -> None:
    """Raise ValueError unless the table has each of these columns, saying which it has.

    Args:
        frame: the table.
        names: of columns.
        role: what they are for, as the user knows it: the name of the option.
    """
    for name in names:
        if name not in frame.columns:
            single = frame.width == 1
            near = [] if single else difflib.get_close_matches(name, frame.columns, 1, 0.5)
            shown = ", ".join(frame.columns[:20]) + (", …" if frame.width > 20 else "")
            raise wrong(
                role,
                f"expected a column of the table ({shown}), got {name!r}"
                + (f"; is it {_as_typed(near[0])}?" if near else "")
                + ("; what stands between its cells is said by --separator" * single),
            )


def _as_typed(name: str) -> str:
    """A column's name as an option has it: one with a comma stands in double quotes, in others."""
    return f"'\"{name}\"'" if "," in name else repr(name)


_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"


def with_points(frame: "polars.DataFrame", names: Sequence[str]) -> "polars.DataFrame":
    """The table, its decimals after a comma made decimals after a point.

    Args:
        frame: the table.
        names: of the columns in which there may be numbers; other cells in them stay.

    Raises:
        ValueError: a cell in them is a number with a point, which could be for thousands.
    """
    pl = require("polars", "train")
    made = []
    for name in dict.fromkeys(names):
        if name in frame.columns and frame[name].dtype == pl.String:
            text = frame[name].fill_null("").str.strip_chars()
            pointed = text.str.contains(rf"^[+-]?[0-9]*\.[0-9]+{_EXPONENT}$")
            for at in pointed.arg_true().head(1):
                raise ValueError(
                    f"{place(name, at)}: expected decimals after a comma, as --decimal says, got "
                    f"{frame[name][at]!r}"
                )
            made.append(
                text.str.replace(rf"^([+-]?[0-9]*),([0-9]+{_EXPONENT})$", "${1}.${2}").alias(name)
            )
    return frame.with_columns(made)


def numbers(frame: "polars.DataFrame", name: str) -> Float[np.ndarray, " rows"]:
    """A column as numbers, float64; NaN where a cell is empty, or says so (``MISSING``).

    Raises:
        ValueError: there is no such column, or a cell holds something else, or infinity.
    """
    pl = require("polars", "train")
    check_columns(frame, [name], "column")
    column = frame[name]
    if column.dtype == pl.String:
        text = column.fill_null("").str.strip_chars()
        found = text.cast(pl.Float64, strict=False)
        bad = found.is_null() & ~text.str.to_lowercase().is_in(MISSING)
        for at in bad.arg_true().head(1):
            hint = ""
            if re.fullmatch(r"[+-]?\d*,\d+", text[at]):
                hint = "; decimals follow a point, unless --decimal says that they follow a comma"
                if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text[at]):
                    hint += f", and then this is {text[at].replace(',', '.')}; are they thousands?"
            raise ValueError(f"{place(name, at)}: expected a number, got {column[at]!r}{hint}")
    elif column.dtype.is_numeric() or column.dtype == pl.Boolean:
        found = column.cast(pl.Float64)
    else:
        raise ValueError(f"column {name!r}: expected numbers, got {column.dtype}")
    values: Float[np.ndarray, " rows"] = found.fill_null(np.nan).to_numpy().astype(np.float64)
    for at in np.flatnonzero(np.isinf(values))[:1]:
        raise ValueError(f"{place(name, at)}: expected a finite number, got {column[int(at)]!r}")
    return values


def texts(frame: "polars.DataFrame", name: str) -> list[str]:
    """A column as text, without blanks around it; missing cells are empty.

    Raises:
        ValueError: there is no such column.
    """
    pl = require("polars", "train")
    check_columns(frame, [name], "column")
    found: list[Any] = frame[name].cast(pl.String).fill_null("").str.strip_chars().to_list()
    return found


def is_missing(text: str) -> bool:
    """Whether a cell says that there is nothing in it: see ``MISSING``."""
    return text.lower() in MISSING


def center_and_spread(values: Float[np.ndarray, " n"], name: str) -> tuple[float, float]:
    """The mean and the standard deviation of a column's values, of which there is at least one.

    Raises:
        ValueError: they are so large that float64 does not have their squares.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(values.mean()), float(values.std())
    if not np.isfinite([mean, std]).all():
        raise ValueError(
            f"column {name!r}: expected values whose standard deviation is a number, got some as "
            f"large as {np.abs(values).max():.3g}; give them in a larger unit"
        )
    return mean, std


def counted(n: int, what: str, many: str | None = None) -> str:
    """``1 step``, ``2 steps``; ``many`` for what does not take an s at its end."""
    return f"{n:,} {what if n == 1 else many or what + 's'}"


def check_ending(path: Path) -> None:
    """Raise ValueError unless ``write_table`` knows files that end like this one."""
    if path.suffix not in {".csv", ".parquet"}:
        raise wrong("out", f"expected a .csv or .parquet file, got {path}")


def write_table(frame: "polars.DataFrame", path: Path) -> None:
    """Write a table as CSV or Parquet, whole or not at all.

    Args:
        frame: the table.
        path: see ``check_ending``.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as beside:
        if path.suffix == ".parquet":
            frame.write_parquet(beside)
        else:
            frame.write_csv(beside)


def rounded(
    values: Float[np.ndarray, "*shape"], spread: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Values with the decimals that the spread of their like has in four digits.

    With a standard deviation of 8.5, which is 8.500 in four digits, 23.1421356 is 23.142. What goes
    is less than chance, and what a model in float32 knows is all that stays. Of large numbers the
    whole part stays, too.
    """
    decimals = np.clip(3 - np.floor(np.log10(spread)), 0, 300)
    unit = 10.0**decimals
    found: Float[np.ndarray, "*shape"] = np.round(values * unit) / unit + 0.0  # no −0
    return found


def place(name: str, at: int | np.integer) -> str:
    """Where a cell is, for messages: the row at 0 is row 2 of a file with a header."""
    return f"column {name!r}, row {int(at) + 2}"
