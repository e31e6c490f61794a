"""Forecasts of what comes after the end of a table."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.tasks.frame import check_ending, counted, rounded, write_table
from jlstm.tasks.running import runner
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import Forecaster, forecast
from jlstm.tasks.table.preparing import load_schema, read
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import Series, check_missing, extend, regular, some
from jlstm.tasks.table.subject import admit
from jlstm.tasks.table.training import AT_ONCE, model_config
from jlstm.tasks.table.windows import Places, batches, make_panel


def predict(
    config: TableConfig, folder: Path, params: Forecaster, file: Path, out: Path
) -> Sequence[str]:
    """Forecast what comes after the last target of each series in a file.

    A row for each series, target and step: the columns of the group, the time, ``target``, and the
    quantiles as ``q0.1``, ``q0.5``…, of which ``q0.5`` is the point forecast. Targets that did not
    vary in the training part of their series are left out. A series that the model was not trained
    on takes the scales of its own past, see ``admit``.

    Times are written as the file has them, see ``TimeForm``, and numbers with the decimals that
    their standard deviation in the training part has in four digits, see ``rounded``.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on. It has at least as many rows as a
            window looks back on; and, where there are columns of a known future, also the rows to
            forecast, with the targets empty.
        out: a .csv or .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: the file is no table of this form, has too few rows, or lacks what is to be
            known of the future; then the rows that are needed are written beside ``out``, to be
            filled in. Or it has no target that varied in the training part, or ``out`` ends in
            something else.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    check_ending(out)
    schema = load_schema(folder)
    roles, targets = schema.roles, len(schema.roles.target)
    found, _ = regular(read(config, file), roles, step=schema.step, time_format=config.time_format)
    origins = _ends(found, schema, file)
    rows = np.arange(len(found.values))
    ends = origins[found.member]
    notes = found.notes + check_missing(
        found,
        roles,
        schema.step,
        schema.missing,
        (ends - schema.lookback <= rows) & (rows < ends),  # what stands before does not matter
    )
    whole = extend(found, origins, schema.horizon)
    origins = whole.offsets[1:] - schema.horizon
    _check_future(whole, schema, out)

    schema, model, params, said = admit(
        schema, model_config(config, schema), params, whole, origins
    )
    notes += (said,) if said else ()
    panel = make_panel(whole, schema)
    places = Places(np.repeat(origins, targets), np.tile(np.arange(targets), len(origins)))
    varies = schema.has_scale(panel.member[places.origins], places.targets)
    if not varies.all():
        lacking = places.at(~varies)
        named = [
            f"{whole.names[whole.member[origin]]} {roles.target[target]}"
            for origin, target in zip(*lacking, strict=True)
        ]
        said = f"did not vary when the model was trained: {some(named)}"
        if not varies.any():
            raise ValueError(
                f"{file}: expected a target that the model has learned, got what {said}"
            )
        notes += (f"Left out is what {said}.",)
        places = places.at(varies)
    compiled = jax.jit(partial(forecast, model, run=runner(config.implementation)))
    columns: dict[str, list[Any]] = {
        name: [] for name in (*roles.group, roles.time, "target", *map(_quantile, model.quantiles))
    }
    parts = []
    for batch, here in batches(panel, places, AT_ONCE):
        values = np.asarray(compiled(params, batch), np.float64)[:, : len(here)].swapaxes(0, 1)
        mean, std = (a[panel.member[here.origins], here.targets] for a in (schema.mean, schema.std))
        raw = values * std[:, None, None] + mean[:, None, None]
        parts.append(rounded(raw, std[:, None, None]))
    forecasts = np.concatenate(parts)
    ahead = (places.origins[:, None] + np.arange(schema.horizon)).ravel()
    columns[roles.time] = whole.written(schema.step, ahead, as_text=out.suffix == ".csv")
    members = whole.member
    for values, origin, target in zip(forecasts, *places, strict=True):
        for name, key in zip(roles.group, whole.groups[members[origin]], strict=True):
            columns[name] += [key] * schema.horizon
        columns["target"] += [roles.target[target]] * schema.horizon
        for q, name in enumerate(map(_quantile, model.quantiles)):
            columns[name] += values[:, q].tolist()
    write_table(pl.DataFrame(columns), out)
    return [
        *notes,
        f"{counted(len(forecasts) * schema.horizon, 'row')}, {counted(schema.horizon, 'step')} of "
        f"{schema.step} for each of {len(forecasts):,} series and targets, are in {out}.",
    ]


def _quantile(q: float) -> str:
    return f"q{q:g}"


def _ends(found: Series, schema: Schema, file: Path) -> Int[np.ndarray, " series"]:
    """The row after the last target of each series."""
    targets = np.isfinite(found.values[:, : len(schema.roles.target)]).any(axis=1)
    ends = []
    for n, name in enumerate(found.names):
        a, b = int(found.offsets[n]), int(found.offsets[n + 1])
        known = np.flatnonzero(targets[a:b])
        length = int(known[-1]) + 1 if known.size else 0
        if length < schema.lookback:
            of = f" of {name}" if schema.roles.group else ""
            raise ValueError(
                f"{file}: expected at least {schema.lookback} rows{of} with targets to forecast "
                f"from, got {length}"
            )
        ends.append(a + length)
    return np.array(ends)


def _check_future(whole: Series, schema: Schema, out: Path) -> None:
    """Raise where something that is to be known of the horizon is not, and write what is needed."""
    roles = schema.roles
    rows = np.concatenate([np.arange(end - schema.horizon, end) for end in whole.offsets[1:]])
    columns = len(roles.columns) - len(roles.known) + np.arange(len(roles.known))
    values = whole.values[rows[:, None], columns]
    lacking = np.isnan(values)
    if not lacking.any():
        return
    member = whole.member[rows]
    needed: dict[str, Any] = {
        name: [whole.groups[n][place] for n in member] for place, name in enumerate(roles.group)
    }
    template = out.with_name(f"{out.stem}-needed.csv")
    needed[roles.time] = times = whole.written(schema.step, rows, as_text=True)
    for name in (*roles.target, *roles.past):
        needed[name] = [None] * len(rows)
    for place, name in enumerate(roles.known):
        needed[name] = [None if np.isnan(x) else x for x in values[:, place]]
    pl = require("polars", "train")
    empty = dict.fromkeys(roles.columns, pl.Float64)
    write_table(pl.DataFrame(needed, schema_overrides=empty), template)
    at, column = (int(a[0]) for a in np.nonzero(lacking))
    of = f" of {whole.names[member[at]]}" if roles.group else ""
    raise wrong(
        "known_future",
        f"expected values for {counted(schema.horizon, 'step')} after the last "
        f"target, got {lacking.sum():,} missing, the first of column "
        f"{roles.known[column]!r}{of} at "
        f"{times[at]}; the rows that are needed are in {template}, to be filled in and "
        "added to the file",
    )
