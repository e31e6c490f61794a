"""What a trained forecaster is worth, by rolling origin: beside baselines, and in pictures."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jlstm.extras import MissingExtraError
from jlstm.plots import plot_forecast
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Picture
from jlstm.tasks.running import runner
from jlstm.tasks.table.calibrating import FEWEST
from jlstm.tasks.table.clock import default_season
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import Forecaster, forecast
from jlstm.tasks.table.pictures import pictures
from jlstm.tasks.table.report import report
from jlstm.tasks.table.subject import subject


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
    of = subject(config, folder, params, file)
    model, params, schema, places = of.model, of.params, of.schema, of.places
    part, notes, judged = "test" if file is None else "all", [*of.notes], of.judged()
    season = default_season(schema.step) if config.season is None else schema.season
    if "seasonal naive" not in judged.errors and season > 1:
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
        run = runner(config.implementation)
        compiled = partial(jax.jit(partial(forecast, model, run=run)), params)
        model_errors = judged.errors["model"]
        some = pictures(compiled, model.quantiles, of.series, of.panel, places, model_errors)
        plot_forecast(some, folder / picture, model.quantiles)
        notes.append(f"Forecasts beside the truth: {picture}.")
        shown = "; ".join(one.title for one in some)
        drawn = [Picture(picture, f"Forecasts beside the truth. From above: {shown}.")]
    except MissingExtraError as error:
        notes.append(f"No picture: {error}")
    if config.calibrate and params.calibration is None and len(model.quantiles) > 1:
        notes.append(
            "The intervals are as they were trained: fitted to one half of the validation part "
            "they would not have been better on the other, or it has fewer than "
            f"{FEWEST} windows that do not overlap."
        )
    found = report(model, schema, judged, len(np.unique(places.origins)), part, notes)
    return replace(found, pictures=drawn)
