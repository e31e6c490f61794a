"""The training run on a table: its model, its batches, and the arithmetic behind its steps."""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from jlstm.layers import Stack
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Job, count_steps, show_ratio
from jlstm.tasks.running import runner, runner_over_devices
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.clock import show_times
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.measures import Moments, fit_linear, moments
from jlstm.tasks.table.model import (
    Forecaster,
    ForecasterConfig,
    forecaster_loss,
    init_forecaster,
    target_count,
)
from jlstm.tasks.table.preparing import count_rows, load, load_schema
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import Series
from jlstm.tasks.table.windows import (
    Panel,
    Part,
    Places,
    augmented,
    batches,
    cut,
    find_windows,
    make_panel,
    shuffled,
)
from jlstm.train import make_evaluate

EPOCHS = 5
"""Of a training, where none are asked for."""
FEW = 10
"""Windows for validation that do not overlap, below which it is told."""
MOST_VALIDATED = 2**15
"""Windows, spread evenly, that judge the parameters in training; the test has no such limit."""
AT_ONCE = 2048
"""Windows that are judged at once; without influence on the results."""
MOST_FITTED = 2**17
"""Windows, spread evenly, that fit the linear baseline; the test has no such limit."""
FITTED_AT_ONCE = 8192
"""Windows; without influence on the result."""
DROPOUT, AUGMENT = 1, 2
"""Tells what is random in training from the first parameters, and from each other."""
SPREAD, SPREAD_OF_ONE = 0.2, 0.5
"""Of the sizes of windows in training, unless another is asked for; the latter where one series is
all there is to learn from, for several show more sizes by themselves."""


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


def spread_of(config: TableConfig, schema: Schema) -> float:
    """How much windows differ in size from what they were, in training.

    By default not at all where there are columns of the past or of a known future: what a holiday
    adds to a load does not grow with it.
    """
    if config.augment is not None:
        return config.augment
    if schema.roles.past or schema.roles.known:
        return 0.0
    return SPREAD if len(schema.names) * len(schema.roles.target) > 1 else SPREAD_OF_ONE


def fit_baseline(
    panel: Panel, series: Series, *, size: int = FITTED_AT_ONCE
) -> Float[np.ndarray, "lookback horizon"]:
    """The weights of the linear baseline, at which the model's own linear map begins.

    Args:
        panel: the data.
        series: of which it was made.
        size: windows that are gone through at once; without influence on the result.
    """

    def add(part: Part) -> Moments:
        s = panel.schema
        total = Moments(
            np.zeros((s.lookback, s.lookback)), np.zeros((s.lookback, s.horizon)), np.zeros(())
        )
        places = find_windows(series, panel, part).evenly(MOST_FITTED)
        for batch, _ in batches(panel, places, size):
            total = total + moments(np.asarray(batch.values).T, np.asarray(batch.targets).T)
        return total

    return fit_linear(add("training"), add("validation"))


def template(config: TableConfig, folder: Path) -> Forecaster:
    """The shapes and dtypes of the parameters, as ``jax.eval_shape`` gives them."""
    return _template(model_config(config, load_schema(folder)))


def _template(model: ForecasterConfig) -> Forecaster:
    shapes: Forecaster = jax.eval_shape(lambda key: init_forecaster(key, model), jax.random.key(0))
    return shapes


def build(config: TableConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote."""
    known, schema, series = load(folder)
    panel = make_panel(series, schema)
    model = model_config(config, schema)
    parts = {part: find_windows(series, panel, part) for part in ("training", "validation", "test")}
    places = parts["training"]
    size = min(config.batch, len(places))
    run, devices = runner_over_devices(config.implementation, size)
    chosen = shuffled(len(places), size, config.seed)
    spread = spread_of(config, schema)
    noise = jax.random.fold_in(jax.random.key(config.seed), DROPOUT)

    def batch(n: int) -> WindowBatch:
        window = cut(panel, places.at(chosen(n)))
        if spread:
            window = augmented(window, spread, (config.seed, AUGMENT, n))
        return window._replace(key=jax.random.fold_in(noise, n))

    def init(key: PRNGKeyArray) -> Forecaster:
        return init_forecaster(key, model, window=baseline() if config.linear else None)

    @cache
    def baseline() -> Float[np.ndarray, "lookback horizon"]:
        return fit_baseline(panel, series)

    whole = runner(config.implementation)
    judge = make_evaluate(partial(forecaster_loss, model, run=whole), target_count)
    validated = parts["validation"].evenly(MOST_VALIDATED)

    def validate(params: Forecaster) -> float:
        return judge(params, None, (batch for batch, _ in batches(panel, validated, AT_ONCE)))

    epoch = -(-len(places) // size)
    steps = count_steps(config, epoch, EPOCHS)
    template = _template(model)
    return Job(
        init=init,
        template=template,
        loss=partial(forecaster_loss, model, run=run),
        batch=batch,
        steps=steps,
        epoch=epoch,
        validate=validate,
        score="quantile loss, in standard deviations",
        unit="windows",
        per_step=lambda batch: float(len(batch.series)),
        devices=devices,
        about=_about(known, schema, series, template, parts, (size, epoch, steps, devices), spread),
    )


def _about(
    known: Mapping[str, Any],
    schema: Schema,
    series: Series,
    template: Forecaster,
    parts: Mapping[str, Places],
    sizes: tuple[int, int, int, int],
    spread: float,
) -> Sequence[str]:
    """From the rows of the file to the steps of the training, in sentences."""
    s = schema
    size, epoch, steps, devices = sizes
    when = series.times(s.step)
    last, count = when.max(), len(series.names)
    rows = count_rows(when, s)
    windows = {part: len(places) for part, places in parts.items()}
    cycles = ", ".join(s.cycles)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template))
    over = f", each cut over {devices} devices" if devices > 1 else ""
    passes = "1 pass" if steps == epoch else f"{show_ratio(steps / epoch)} passes"
    apart = windows["validation"] // s.horizon
    few = ""
    if apart < FEW:
        few = f" Of those for validation {apart} do not overlap: what it chooses is partly luck."
    begin, end, validation, test = show_times(when.min(), last, s.validation, s.test, form=s.form)
    return [
        f"{known['file']['name']}: {counted(known['file']['rows'], 'row')}, of which "
        f"{counted(len(when), 'step')} of {s.step} from {begin} to {end}"
        + (f" in {count:,} series" if count > 1 else "")
        + f"; {counted(len(s.roles.target), 'target')}: {', '.join(s.roles.target)}.",
        *known["notes"],
        f"Training up to {validation} ({counted(rows['training'], 'row')}), validation up to "
        f"{test} ({rows['validation']:,}), test up to the end ({rows['test']:,}). "
        "Scales, mean and standard deviation of each target and series, are those of "
        f"{known['scales'] or 'the training part'}.",
        f"A window has {counted(s.lookback, 'step')} to forecast from and {s.horizon} to foretell; "
        "one for each step that it can begin at, and each target: "
        f"{windows['training']:,} for training, {windows['validation']:,} for "
        f"validation, {windows['test']:,} for the test." + few,
        (f"Season: {s.season} steps. " if s.season > 1 else "No season. ")
        + (f"The calendar tells the time of the {cycles}." if cycles else "No calendar."),
        f"{counted(windows['training'], 'window')} in batches of {size}{over}: "
        f"{counted(epoch, 'step')} for a pass; {counted(steps, 'step')}, or {passes}. The model "
        f"has {parameters:,} parameters.",
        *(
            [
                "In training each window is made larger or smaller by chance, by a factor whose "
                f"logarithm has the standard deviation {spread:g}; see --augment."
            ]
            if spread
            else []
        ),
    ]
