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
from jlstm.tasks.table.judging import UNCALIBRATED
from jlstm.tasks.table.model import Forecaster
from jlstm.tasks.table.subject import subject


def save_forecasts(
    config: TableConfig, folder: Path, params: Forecaster, file: Path | None, out: Path
) -> Sequence[str]:
    """Write the forecasts of each window of the test part, or of a file.

    A row for each window and step: the columns of the group, ``target``, ``origin`` (the time of
    the last row that was forecast from), the column of the time, ``step`` from 1, ``truth`` (empty
    where there is none), the quantiles as ``q0.1``…, and the baselines, ``last_value``, ``drift``,
    ``linear`` and ``seasonal_naive``. Numbers are not rounded.

    They are written some windows at a time, so that memory does not limit how many there are.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on; None for the test part.
        out: a .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: as ``evaluate`` does; or a column of the group or the time has a name that one
            of the file has.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    of = subject(config, folder, params, file)
    roles, horizon = of.schema.roles, of.schema.horizon
    quantiles = [f"q{q:g}" for q in of.model.quantiles]
    own = ("target", "origin", "step", "truth", "last_value", "drift", "linear", "seasonal_naive")
    for name in (roles.time, *roles.group):
        if name in (*own, *quantiles):
            raise wrong(
                "save_forecasts",
                f"expected other names of the time and the group than {name!r}, "
                "which the forecasts have",
            )
    rows = 0
    with TemporaryDirectory(dir=out.resolve().parent, prefix=f".{out.name}.") as beside:
        for n, found in enumerate(of.forecasts()):
            origins, targets = found.places
            ahead = (origins[:, None] + np.arange(horizon)).ravel()
            member = of.series.member[ahead]
            columns: dict[str, Any] = {
                name: np.array([key[k] for key in of.series.groups])[member]
                for k, name in enumerate(roles.group)
            }
            columns["target"] = np.repeat(np.array(roles.target)[targets], horizon)
            last = np.repeat(origins - 1, horizon)
            columns["origin"] = of.series.written(of.schema.step, last, as_text=False)
            columns[roles.time] = of.series.written(of.schema.step, ahead, as_text=False)
            columns["step"] = np.tile(np.arange(1, horizon + 1, dtype=np.int32), len(origins))
            columns["truth"] = pl.Series(found.truth.ravel(), nan_to_null=True)
            forecasts = dict(found.forecasts)
            model = forecasts.pop("model")
            forecasts.pop(UNCALIBRATED, None)
            for k, name in enumerate(quantiles):
                columns[name] = model[..., k].ravel()
            for name, values in forecasts.items():
                columns[name.replace(" ", "_")] = values[..., 0].ravel()
            pl.DataFrame(columns).write_parquet(f"{beside}/{n:08d}.parquet")
            rows += len(ahead)
        with replacing(out) as part:
            pl.scan_parquet(f"{beside}/*.parquet").sink_parquet(part)
    return [f"{counted(rows, 'row')}, the forecasts of each window, are in {out}."]
