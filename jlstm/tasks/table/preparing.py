"""From the user's table to the series in the folder of a run, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jlstm.checks import wrong
from jlstm.files import sha256
from jlstm.records import write_json
from jlstm.tasks.frame import read_table, with_points
from jlstm.tasks.table.clock import show_times
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.schema import Schema, learn, split_times
from jlstm.tasks.table.series import (
    Roles,
    Series,
    check_missing,
    read_static,
    regular,
    told_outliers,
)
from jlstm.tasks.table.windows import Panel, Part, find_windows, make_panel
from jlstm.tasks.times import Times

if TYPE_CHECKING:
    import polars

ABOUT = ("data/table.json",)
"""Columns, steps, split, scales, what was missing, the sum of the file: what a model needs to be
used."""
FILES = (*ABOUT, "data/values.npy")
"""What ``prepare`` writes: that, and the series, one behind the other, a row for each step, with
NaN where one is missing."""


def prepare(config: TableConfig, files: Sequence[Path], folder: Path) -> None:
    """Check the user's table, and write what is to be known of it into the folder of the run.

    Raises:
        MissingExtraError: polars is not installed.
        OSError, ValueError: the file is no table of this form, too short for the windows, or has
            values too large to be scaled.
    """
    if len(files) != 1:
        raise wrong("files", f"expected one table, got {len(files)}")
    file = Path(files[0])
    frame = read(config, file)
    roles = _roles(config)
    learned: Sequence[str] = ()
    if config.from_ is None:
        series, step = regular(frame, roles, until=config.until, time_format=config.time_format)
        notes = series.notes + check_missing(series, roles, step, config.missing)
        schema, learned = learn(
            series,
            roles,
            step,
            horizon=config.horizon,
            lookback=config.lookback,
            season=config.season,
            missing=config.missing,
            calendar=config.calendar,
            split=split_times(series, step, config.validation, config.test),
            static=read_static(frame, roles, series),
        )
        if config.patch is not None and config.patch > schema.lookback:
            raise wrong(
                "patch",
                f"expected at most the {schema.lookback} steps to forecast from, see "
                f"--lookback, got {config.patch}",
            )
    else:
        like = load_schema(config.from_)
        series, step = regular(
            frame,
            roles,
            step=like.step,
            until=config.until,
            like=like.form,
            time_format=config.time_format,
        )
        notes = series.notes + check_missing(series, roles, step, config.missing)
        validation, test = split_times(series, step, config.validation, config.test)
        schema = replace(like, validation=validation, test=test, form=series.form)
    training = series.times(step) < schema.validation
    for within, part in ((training, "the training part"), (~training, "what is kept back")):
        notes += told_outliers(series, roles, within, part)
    about = {
        "file": {"name": file.name, "sha256": sha256(file), "rows": frame.height},
        "notes": [*notes, *learned],
        "scales": None if config.from_ is None else str(config.from_),
    }
    write(folder, series, schema, about)


def write(folder: Path, series: Series, schema: Schema, about: Mapping[str, Any]) -> None:
    """Write what a training needs into the folder of a run.

    Args:
        folder: of the run.
        series: the data.
        schema: what was learned of it.
        about: ``file``, ``notes`` and ``scales``, which it tells when it begins.

    Raises:
        ValueError: a part has no window.
    """
    written = schema.to_json()
    # What a run will read, so that it does not fail later for what is lost on the way.
    schema = Schema.from_json(json.loads(json.dumps(written)))
    _check_windows(series, make_panel(series, schema))
    known = {
        "schema": written,
        "series": series.names,
        "groups": series.groups,
        "starts": [str(start) for start in series.starts],
        "offsets": series.offsets.tolist(),
        "shifts": _changes(series.shift),
        **about,
    }
    (folder / "data").mkdir(exist_ok=True)
    np.save(folder / "data/values.npy", series.values, allow_pickle=False)
    write_json(folder / "data/table.json", known)


def read(config: TableConfig, file: Path) -> "polars.DataFrame":
    """The table of a file that is written as the configuration says.

    Raises:
        OSError, ValueError: as ``read_table`` and ``with_points`` do.
    """
    frame = read_table(file, separator=config.separator, encoding=config.encoding)
    if config.decimal == ".":
        return frame
    return with_points(frame, (*_roles(config).columns, *config.static))


def _roles(config: TableConfig) -> Roles:
    c: Any = config  # the columns have been made tuples
    return Roles(c.time, c.target, c.past, c.known_future, c.static, c.group)


def _check_windows(series: Series, panel: Panel) -> None:
    s = panel.schema
    when = series.times(s.step)
    rows = count_rows(when, s)
    ways = {
        "training": "--lookback asks for fewer to forecast from",
        "validation": "--validation and --horizon say otherwise",
        "test": "--test and --horizon say otherwise",
    }
    for part in rows:
        if not len(find_windows(series, panel, part)):
            need = s.horizon + (s.lookback if part == "training" else 0)
            what = f"a window of {s.lookback} + {s.horizon}" if part == "training" else "a horizon"
            of = " in at least one series" if len(series.names) > 1 else ""
            first, last, validation, test = show_times(
                series.starts.min(), when.max(), s.validation, s.test, form=series.form
            )
            raise ValueError(
                f"{part}: expected at least {need} row{'' if need == 1 else 's'}, {what}{of}, got "
                f"{rows[part]} row{'' if rows[part] == 1 else 's'} of {first} to {last} in steps "
                f"of {s.step}, with validation from {validation} and test from {test}; {ways[part]}"
            )


def count_rows(when: Times, schema: Schema) -> dict[Part, int]:
    """How many rows, at these times, each part has."""
    validation, test = schema.validation, schema.test
    return {
        "training": int((when < validation).sum()),
        "validation": int(((validation <= when) & (when < test)).sum()),
        "test": int((when >= test).sum()),
    }


def load_schema(folder: Path) -> Schema:
    """What ``prepare`` wrote of the table: all that the model needs to be used.

    Raises:
        OSError, ValueError: it is not there, or damaged.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, Any], Schema]:
    path = folder / "data/table.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        return known, Schema.from_json(known["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what jlstm wrote there, got: {error}") from None


def load(folder: Path) -> tuple[Mapping[str, Any], Schema, Series]:
    """What ``prepare`` wrote.

    Raises:
        OSError, ValueError: it is not there, or damaged.
    """
    known, schema = _read(folder)
    try:
        series = Series(
            names=tuple(known["series"]),
            groups=tuple(map(tuple, known["groups"])),
            starts=np.array(known["starts"], "datetime64[us]"),
            offsets=np.array(known["offsets"]),
            values=np.load(folder / "data/values.npy", allow_pickle=False),
            form=schema.form,
        )
        shift = _from_changes(known.get("shifts"), len(series.values))
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{folder}/data: expected what jlstm wrote there, got: {error}") from None
    return known, schema, replace(series, shift=shift)


Changes = Sequence[Sequence[int]] | None
"""Rows at which a value changes, and to what; None for no value."""


def _changes(shift: Int[np.ndarray, " rows"] | None) -> Changes:
    if shift is None:
        return None
    rows = np.flatnonzero(np.diff(shift, prepend=~shift[:1]))
    return list(zip(rows.tolist(), shift[rows].tolist(), strict=True))


def _from_changes(changes: Changes, rows: int) -> Int[np.ndarray, " rows"] | None:
    if changes is None:
        return None
    at, shift = np.transpose(changes)
    return np.repeat(shift, np.diff(at, append=rows))
