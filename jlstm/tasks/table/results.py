"""What a trained forecaster is worth, by rolling origin: beside baselines, and in pictures."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jlstm.extras import MissingExtraError
from jlstm.files import sha256
from jlstm.layers import stack
from jlstm.plots import plot_forecast
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Picture
from jlstm.tasks.running import Run, runner
from jlstm.tasks.table.clock import default_season, show_time
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.measures import (
    Errors,
    add_errors,
    drift,
    last_value,
    linear,
    no_errors,
    seasonal_naive,
)
from jlstm.tasks.table.model import Forecaster, ForecasterConfig, forecast
from jlstm.tasks.table.pictures import pictures
from jlstm.tasks.table.preparing import load, read
from jlstm.tasks.table.report import report
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import Series, check_missing, regular
from jlstm.tasks.table.training import AT_ONCE, fit_baseline, model_config
from jlstm.tasks.table.windows import Panel, Places, batches, find_windows, make_panel


def evaluate(
    config: TableConfig,
    folder: Path,
    params: Forecaster,
    file: Path | None = None,
    name: str | None = None,
) -> Evaluation:
    """Judge the parameters and the baselines on every window of the test part, or of a file.

    Writes the picture ``plots/forecast.png`` where matplotlib is installed; for a file,
    ``plots/forecast-<name>.png``.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on; None for the test part.
        name: what the pictures are called after; None for the file, without its ending.

    Raises:
        OSError, ValueError: the file is no table of this form, or has no whole window.
    """
    known, schema, own = load(folder)
    panel = make_panel(own, schema)
    weights = fit_baseline(panel, own)
    series, part, notes = own, "test", []
    if file is not None:
        series, _ = regular(
            read(config, file),
            schema.roles,
            step=schema.step,
            like=schema.form,
            time_format=config.time_format,
        )
        notes += [*series.notes, *check_missing(series, schema.roles, schema.step, schema.missing)]
        panel, part = make_panel(series, schema), "all"
    places = find_windows(series, panel, "test" if file is None else "all")
    if not len(places):
        raise ValueError(
            f"{file or 'test'}: expected at least {schema.lookback} + {schema.horizon} rows of a "
            "series, a window, with a target that varied in the training part, got fewer"
        )
    if file is not None:
        same = sha256(file) == known["file"]["sha256"]
        notes = [*_seen_in_training(same, schema, own, series, panel, places), *notes]
    model = model_config(config, schema)
    run = runner(config.implementation)
    errors = judge(model, params, panel, places, weights, run=run)
    season = default_season(schema.step) if config.season is None else schema.season
    if "seasonal naive" not in errors and season > 1:
        reason = (
            f"a window has {counted(schema.lookback, 'step')}, fewer than the season's {season}"
        )
        if schema.season == 1:
            reason = f"the training part is too short for a season of {season} steps; see --season"
        notes.append(f"The seasonal naive forecast is left out: {reason}.")
    picture = f"plots/{'forecast' if file is None else f'forecast-{name or file.stem}'}.png"
    drawn = []
    try:
        (folder / "plots").mkdir(exist_ok=True)
        compiled = partial(jax.jit(partial(forecast, model, run=run)), params)
        some = pictures(compiled, model.quantiles, series, panel, places, errors["model"])
        plot_forecast(some, folder / picture, model.quantiles)
        notes.append(f"Forecasts beside the truth: {picture}.")
        shown = "; ".join(one.title for one in some)
        drawn = [Picture(picture, f"Forecasts beside the truth. From above: {shown}.")]
    except MissingExtraError as error:
        notes.append(f"No picture: {error}")
    judged = report(model, schema, errors, len(np.unique(places.origins)), part, notes)
    return replace(judged, pictures=drawn)


def _seen_in_training(
    same: bool, schema: Schema, own: Series, series: Series, panel: Panel, places: Places
) -> list[str]:
    """What is to be said of a file that the model has learned from.

    Args:
        same: whether it is the very file of the run.
        schema: of the run.
        own: the series of the run.
        series: those of the file.
        panel: the same, scaled.
        places: the windows that are judged.
    """
    when = series.times(schema.step)
    origins = np.unique(places.origins)
    starts = np.full(len(schema.names), "NaT", "datetime64[us]")  # which is before nothing
    starts[[schema.names.index(name) for name in own.names]] = own.starts
    began = starts[panel.member[origins]]
    seen = (when[origins] < schema.validation) & (when[origins + schema.horizon - 1] >= began)
    if not same and not seen.any():
        return []
    until = show_time(schema.validation, schema.form)
    what = "This is the very file that the run was trained on" if same else "The model has seen it"
    return [
        f"{what}: {seen.sum():,} of {counted(len(origins), 'origin')} lie in the time that the "
        f"model was trained on, up to {until}. It knows what came then, and "
        "looks better than it is; what it is worth is told by the test part, or by later rows."
    ]


def judge(
    model: ForecasterConfig,
    params: Forecaster,
    panel: Panel,
    places: Places,
    weights: Float[np.ndarray, "lookback horizon"],
    *,
    size: int = AT_ONCE,
    run: Run = stack,
) -> dict[str, Errors]:
    """The errors of the model and of each baseline over the same windows, in units of the table.

    The series of the errors are the targets of the first series, then those of the second…

    Args:
        model: what the model is made of.
        params: its parameters.
        panel: the data.
        places: the windows.
        weights: of the linear baseline.
        size: windows that are gone through at once; without influence on the result.
        run: what runs the stack of the model.
    """
    s = panel.schema
    compiled = jax.jit(partial(forecast, model, run=run))
    baselines: dict[str, Callable[[Any], Any]] = {
        "last value": lambda windows: last_value(windows, s.horizon),
        "drift": lambda windows: drift(windows, s.horizon),
        "linear": lambda windows: linear(windows, weights),
    }
    if 1 < s.season <= s.lookback:
        baselines["seasonal naive"] = lambda windows: seasonal_naive(windows, s.horizon, s.season)
    nothing = no_errors(model.series, s.horizon, len(model.quantiles))
    errors = dict.fromkeys(("model", *baselines), nothing)
    for batch, here in batches(panel, places, size):
        rows = np.arange(s.horizon) + here.origins[:, None]
        pairs = np.asarray(batch.series)[: len(here)]
        mean, std = (a[panel.member[here.origins], here.targets][:, None] for a in (s.mean, s.std))
        truth = panel.truth[rows, here.targets[:, None]] * std + mean
        windows = np.asarray(batch.values).T[: len(here)].astype(np.float64)
        found = np.asarray(compiled(params, batch)).swapaxes(0, 1)[: len(here)]
        forecasts = {"model": found.astype(np.float64)}
        for name, baseline in baselines.items():
            point = baseline(windows)[..., None]
            forecasts[name] = np.broadcast_to(point, (*point.shape[:2], len(model.quantiles)))
        for name, values in forecasts.items():
            raw = values * std[..., None] + mean[..., None]
            errors[name] = add_errors(errors[name], truth, raw, pairs, model.quantiles)
    return errors
