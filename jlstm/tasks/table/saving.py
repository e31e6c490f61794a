"""The forecasts of every window that a model is judged on, in a file."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.files import replacing
from jlstm.tasks.frame import counted
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.judging import UNCALIBRATED, Found
from jlstm.tasks.table.model import Forecaster
from jlstm.tasks.table.subject import Subject, subject

OWN = ("target", "origin", "step", "truth", "last_value", "drift", "linear", "seasonal_naive")
"""Columns of the file, beside those of the group, the time and the quantiles."""


def check_saving(config: TableConfig) -> None:
    """Raise ValueError where a column of the user has a name that one of the file has."""
    c: Any = config  # the columns have been made tuples
    quantiles = [f"q{q:g}" for q in c.quantiles]
    for name in (c.time, *c.group):
        if name in (*OWN, *quantiles):
            raise wrong(
                "save_forecasts",
                f"expected other names of the time and the group than {name!r}, "
                "which the forecasts have",
            )


def save_forecasts(
    models: Sequence[tuple[TableConfig, Path, Forecaster]], file: Path | None, out: Path
) -> Sequence[str]:
    """Write the forecasts of each window of the test part, or of a file.

    A row for each window and step: the columns of the group, ``target``, ``origin`` (the time of
    the last row that was forecast from), the column of the time, ``step`` from 1, ``truth`` (empty
    where there is none), the quantiles as ``q0.1``…, and the baselines, ``last_value``, ``drift``,
    ``linear`` and ``seasonal_naive``. Numbers are not rounded.

    They are written some windows at a time, so that memory does not limit how many there are.

    Args:
        models: of each its configuration, the folder of its run and its parameters: one, or those
            that were trained anew on the way, whose test parts follow each other.
        file: a table of the form that the models were trained on; None for the test part.
        out: a .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: as ``evaluate`` and ``check_saving`` do.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    check_saving(models[0][0])
    rows = 0
    with TemporaryDirectory(dir=out.resolve().parent, prefix=f".{out.name}.") as beside:
        subjects = (subject(*model, file) for model in models)
        parts = (_columns(of, found) for of in subjects for found in of.forecasts())
        for n, columns in enumerate(parts):
            frame = pl.DataFrame(columns)
            frame.write_parquet(f"{beside}/{n:08d}.parquet")
            rows += frame.height
        with replacing(out) as part:
            pl.scan_parquet(f"{beside}/*.parquet").sink_parquet(part)
    return [f"{counted(rows, 'row')}, the forecasts of each window, are in {out}."]


def _columns(of: Subject, found: Found) -> dict[str, Any]:
    """The forecasts of some windows, a row for each of their steps."""
    pl = require("polars", "train")
    roles, horizon, step = of.schema.roles, of.schema.horizon, of.schema.step
    origins, targets = found.places
    ahead = (origins[:, None] + np.arange(horizon)).ravel()
    member = of.series.member[ahead]
    columns: dict[str, Any] = {
        name: np.array([key[k] for key in of.series.groups])[member]
        for k, name in enumerate(roles.group)
    }
    columns["target"] = np.repeat(np.array(roles.target)[targets], horizon)
    columns["origin"] = of.series.written(step, np.repeat(origins - 1, horizon), as_text=False)
    columns[roles.time] = of.series.written(step, ahead, as_text=False)
    columns["step"] = np.tile(np.arange(1, horizon + 1, dtype=np.int32), len(origins))
    columns["truth"] = pl.Series(found.truth.ravel(), nan_to_null=True)
    for k, q in enumerate(of.model.quantiles):
        columns[f"q{q:g}"] = found.forecasts["model"][..., k].ravel()
    for name, values in found.forecasts.items():
        if name not in ("model", UNCALIBRATED):
            columns[name.replace(" ", "_")] = values[..., 0].ravel()
    return columns
