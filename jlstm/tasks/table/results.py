"""What a trained forecaster is worth, by rolling origin: beside baselines, and in pictures."""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from jlstm.extras import MissingExtraError
from jlstm.plots import Forecasted, plot_forecast
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation
from jlstm.tasks.running import Run, runner
from jlstm.tasks.table.calibrating import FEWEST
from jlstm.tasks.table.clock import default_season
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import Forecaster, ForecasterConfig, forecast
from jlstm.tasks.table.report import report
from jlstm.tasks.table.series import Series
from jlstm.tasks.table.subject import subject
from jlstm.tasks.table.windows import Panel, Places, cut


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
    picture = "forecast" if file is None else f"forecast-{name or file.stem}"
    try:
        (folder / "plots").mkdir(exist_ok=True)
        pictures = _pictures(
            model, params, of.series, of.panel, places, runner(config.implementation)
        )
        plot_forecast(pictures, folder / f"plots/{picture}.png", model.quantiles)
        notes.append(f"Forecasts beside the truth: plots/{picture}.png.")
    except MissingExtraError as error:
        notes.append(f"No picture: {error}")
    if config.calibrate and params.calibration is None and len(model.quantiles) > 1:
        notes.append(
            "The intervals are as they were trained: the validation part has fewer than "
            f"{FEWEST} windows that do not overlap, too few to calibrate them."
        )
    return report(model, schema, judged, len(np.unique(places.origins)), part, notes)


def _pictures(
    model: ForecasterConfig,
    params: Forecaster,
    series: Series,
    panel: Panel,
    places: Places,
    run: Run,
) -> list[Forecasted]:
    """Some targets, each with a few windows that follow each other, from the middle of the part."""
    s = panel.schema
    shown_at = series.times(s.step)
    if s.form.numbered:
        shown_at = shown_at.astype(np.int64)
    pair = panel.member[places.origins] * len(s.roles.target) + places.targets
    compiled = jax.jit(partial(forecast, model, run=run))
    pictures = []
    for n in np.unique(pair)[:4]:
        own = places.origins[pair == n]
        first = own[len(own) // 2]
        own = own[(own >= first) & ((own - first) % s.horizon == 0)][:5]
        own = own[panel.member[own] == panel.member[first]]
        here = Places(own, np.full(len(own), n % len(s.roles.target)))
        found = np.asarray(compiled(params, cut(panel, here)), np.float64)
        member, target = divmod(int(n), len(s.roles.target))
        mean, std = s.mean[member, target], s.std[member, target]
        shown = np.arange(first - min(s.lookback, 2 * s.horizon), own[-1] + s.horizon)
        of = f"{s.names[member]}: " if len(s.names) > 1 else ""
        pictures.append(
            Forecasted(
                title=of + s.roles.target[target],
                times=shown_at[shown],
                truth=panel.truth[shown, target] * std + mean,
                pieces=[
                    (shown_at[origin : origin + s.horizon], found[:, k] * std + mean)
                    for k, origin in enumerate(own)
                ],
            )
        )
    return pictures
