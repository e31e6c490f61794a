"""The training run on a table: its model, its batches, and the arithmetic behind its steps."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jlstm.data.clock import show_time
from jlstm.data.schema import Schema
from jlstm.data.series import Series
from jlstm.data.windows import Panel, Places, batches, cut, find_windows, make_panel, shuffled
from jlstm.devices import spread
from jlstm.jobs.config import TableConfig
from jlstm.jobs.job import Job, count_steps
from jlstm.jobs.table.preparing import count_rows, load
from jlstm.layers import Stack
from jlstm.models import (
    Forecaster,
    ForecasterConfig,
    WindowBatch,
    forecaster_loss,
    init_forecaster,
)
from jlstm.sequence import lstm

EPOCHS = 5
"""Of a training, where none are asked for."""
MOST_VALIDATED = 2**15
"""Windows, spread evenly, that judge the parameters in training; the test has no such limit."""
AT_ONCE = 2048
"""Windows that are judged at once; without influence on the results."""
DROPOUT = 1
"""Tells the keys of the dropout from those of the first parameters."""


def model_config(config: TableConfig, schema: Schema) -> ForecasterConfig:
    """The model for such a table."""
    roles = schema.roles
    patch = config.patch or min(8, max(1, schema.lookback // 12))
    return ForecasterConfig(
        lookback=schema.lookback,
        horizon=schema.horizon,
        quantiles=config.quantiles,
        series=len(schema.names) * len(roles.target),
        past=len(roles.past) + (schema.missing != "error"),
        known=len(roles.known),
        about=schema.static.shape[1] + 2 * len(schema.cycles),
        stack=Stack(
            sizes=(config.hidden,) * config.layers,
            dropout=config.dropout,
            output_dropout=config.dropout,
        ),
        patch=min(patch, schema.lookback),
        linear=config.linear,
    )


def build(config: TableConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote."""
    known, schema, series = load(folder)
    panel = make_panel(series, schema)
    model = model_config(config, schema)
    parts = {part: find_windows(series, panel, part) for part in ("training", "validation", "test")}
    places = parts["training"]
    size = min(config.batch, len(places))
    layer, devices = spread(lstm, size)
    chosen = shuffled(len(places), size, config.seed)
    noise = jax.random.fold_in(jax.random.key(config.seed), DROPOUT)

    def batch(n: int) -> WindowBatch:
        window = cut(panel, places.at(chosen(n)))
        return window._replace(key=jax.random.fold_in(noise, n))

    def loss(params: Forecaster, carry: Any, batch: WindowBatch) -> tuple[Any, Any]:
        return forecaster_loss(model, params, batch, layer=layer), carry

    epoch = -(-len(places) // size)
    steps = count_steps(config, epoch, EPOCHS)
    return Job(
        init=lambda key: init_forecaster(key, model),
        loss=loss,
        batch=batch,
        steps=steps,
        epoch=epoch,
        validate=_make_validate(model, panel, parts["validation"].evenly(MOST_VALIDATED)),
        score="quantile loss, in standard deviations",
        unit="windows",
        per_step=lambda batch: float(len(batch.series)),
        devices=devices,
        about=_about(config, known, schema, series, model, parts, (size, epoch, steps, devices)),
    )


def _make_validate(
    model: ForecasterConfig, panel: Panel, places: Places
) -> Callable[[Forecaster], float]:
    """Parameters to the mean loss over these windows."""
    compiled = jax.jit(lambda params, batch: forecaster_loss(model, params, batch))

    def validate(params: Forecaster) -> float:
        losses, counts = [], []
        for batch, _ in batches(panel, places, AT_ONCE):
            losses.append(compiled(params, batch))
            counts.append(np.isfinite(np.asarray(batch.targets)).sum())
        return float(np.average(jax.device_get(losses), weights=counts))

    return validate


def _about(
    config: TableConfig,
    known: Mapping[str, Any],
    schema: Schema,
    series: Series,
    model: ForecasterConfig,
    parts: Mapping[str, Places],
    sizes: tuple[int, int, int, int],
) -> Sequence[str]:
    """From the rows of the file to the steps of the training, in sentences."""
    s = schema
    size, epoch, steps, devices = sizes
    when = series.times(s.step)
    last, count = when.max(), len(s.names)
    rows = count_rows(when, s)
    windows = {part: len(places) for part, places in parts.items()}
    cycles = ", ".join(s.cycles)
    weights = jax.eval_shape(lambda: init_forecaster(jax.random.key(0), model))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
    over = f", each cut over {devices} devices" if devices > 1 else ""
    passes = f"{steps / epoch:.3g} passes"
    return [
        f"{known['file']['name']}: {known['file']['rows']:,} rows, of which {len(when):,} steps of "
        f"{s.step} from {show_time(when.min())} to {show_time(last)}"
        + (f" in {count:,} series" if count > 1 else "")
        + f"; {_count(len(s.roles.target), 'target')}: {', '.join(s.roles.target)}.",
        *known["notes"],
        f"Training up to {show_time(s.validation)} ({rows['training']:,} rows), validation up to "
        f"{show_time(s.test)} ({rows['validation']:,}), test up to the end ({rows['test']:,}). "
        "Scales, mean and standard deviation of each target and series, are those of the training "
        "part.",
        f"A window has {s.lookback} steps to forecast from and {s.horizon} to foretell; one for "
        f"each step that it can begin at, and each target: {windows['training']:,} for training, "
        f"{windows['validation']:,} for validation, {windows['test']:,} for the test.",
        (f"Season: {s.season} steps. " if s.season > 1 else "No season. ")
        + (f"The calendar tells the time of the {cycles}." if cycles else "No calendar."),
        f"{windows['training']:,} windows in batches of {size}{over}: {_count(epoch, 'step')} "
        f"for a pass; {steps:,} steps, or {passes}. The model has {parameters:,} parameters.",
    ]


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")
