"""What a forecaster is judged on: the windows of the test part, or of another file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jlstm.files import sha256
from jlstm.tasks.frame import center_and_spread, counted
from jlstm.tasks.running import runner
from jlstm.tasks.table.clock import show_time
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.judging import Found, Judged, forecasts, judge
from jlstm.tasks.table.measures import seasonal_error
from jlstm.tasks.table.model import Calibration, Forecaster, ForecasterConfig
from jlstm.tasks.table.preparing import load, read
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import Series, check_missing, regular, some
from jlstm.tasks.table.training import fit_baseline, model_config
from jlstm.tasks.table.windows import Panel, Places, find_windows, make_panel


class Subject(NamedTuple):
    """A model and the windows that it is judged on."""

    config: TableConfig
    model: ForecasterConfig
    params: Forecaster
    schema: Schema
    series: Series
    panel: Panel
    places: Places
    weights: Float[np.ndarray, "lookback horizon"]
    """Of the linear baseline."""
    notes: list[str]

    def judged(self) -> Judged:
        """The errors of the model and the baselines."""
        step = self.schema.step
        at = step.counts(self.series.starts.min(), self.series.times(step))
        run = runner(self.config.implementation)
        return judge(self.model, self.params, self.panel, self.places, self.weights, at=at, run=run)

    def forecasts(self) -> Iterator[Found]:
        """The forecasts themselves, some windows at a time."""
        run = runner(self.config.implementation)
        return forecasts(self.model, self.params, self.panel, self.places, self.weights, run=run)


def subject(
    config: TableConfig, folder: Path, params: Forecaster, file: Path | None = None
) -> Subject:
    """The windows of the test part of a run, or all of those of a file.

    Of a series that the model was not trained on, the first half tells the scales, and the windows
    after it are judged.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on; None for the test part.

    Raises:
        OSError, ValueError: the file is no table of this form, or has no whole window.
    """
    known, schema, own = load(folder)
    panel = make_panel(own, schema)
    weights = fit_baseline(panel, own)
    model, series, notes = model_config(config, schema), own, []
    begin = np.zeros(len(own.names), np.int64)
    if file is not None:
        series, _ = regular(
            read(config, file),
            schema.roles,
            step=schema.step,
            like=schema.form,
            time_format=config.time_format,
        )
        notes += [*series.notes, *check_missing(series, schema.roles, schema.step, schema.missing)]
        lengths = np.diff(series.offsets)
        half = series.offsets[:-1] + np.maximum(schema.lookback, lengths // 2)
        new = np.array([name not in schema.names for name in series.names])
        begin = np.where(new, half, 0)
        half = np.minimum(half, series.offsets[1:])
        schema, model, params, said = admit(schema, model, params, series, half)
        if said:
            notes.append(f"{said} Its scales are those of its first half; judged is what follows.")
        panel = make_panel(series, schema)
    places = find_windows(series, panel, "test" if file is None else "all")
    if len(places):
        places = places.at(places.origins >= begin[series.member[places.origins]])
    if not len(places):
        raise ValueError(
            f"{file or 'test'}: expected at least {schema.lookback} + {schema.horizon} rows of a "
            "series, a window, with a target that varied in the training part, got fewer"
        )
    if file is not None:
        same = sha256(file) == known["file"]["sha256"]
        notes = [*_seen_in_training(same, schema, own, series, panel, places), *notes]
    return Subject(config, model, params, schema, series, panel, places, weights, notes)


def admit(
    schema: Schema,
    model: ForecasterConfig,
    params: Forecaster,
    series: Series,
    ends: Int[np.ndarray, " series"],
) -> tuple[Schema, ForecasterConfig, Forecaster, str]:
    """Schema and model with the series that they do not know, as if they did.

    A new series has the scales of its own past. What the model has learnt of each series, and what
    static columns say of it, is for a new one the mean of those that are known.

    Args:
        schema: of the run.
        model: what the model is made of.
        params: its parameters.
        series: those of a file.
        ends: for each of them the row before which its past lies.

    Returns:
        Schema, model and parameters, and a sentence on it: as they came, and none, where all
        series are known.
    """
    new = [n for n, name in enumerate(series.names) if name not in schema.names]
    if not new:
        return schema, model, params, ""
    targets, columns = len(schema.roles.target), schema.roles.columns
    mean, std = np.zeros((len(new), len(columns))), np.ones((len(new), len(columns)))
    naive, usual = np.full((len(new), targets), np.nan), np.ones((len(new), targets))
    for place, n in enumerate(new):
        past = series.values[series.offsets[n] : ends[n]]
        for column, name in enumerate(columns):
            values = past[:, column]
            seen = values[np.isfinite(values)]
            spread = 0.0
            if seen.size:
                mean[place, column], spread = center_and_spread(seen, name)
                spread = spread if spread > 1e-12 * np.abs(seen).max() else 0.0
            if column < targets:
                std[place, column] = spread or np.nan
                naive[place, column] = seasonal_error(values, schema.season)
                steps = np.abs(np.diff(seen)).mean() if seen.size > 1 else 0.0
                usual[place, column] = steps / spread if spread and steps else 1.0
            elif spread:
                std[place, column] = spread
    static = np.broadcast_to(schema.static.mean(axis=0), (len(new), schema.static.shape[1]))
    larger = replace(
        schema,
        names=(*schema.names, *(series.names[n] for n in new)),
        mean=np.concatenate([schema.mean, mean]),
        std=np.concatenate([schema.std, std]),
        naive=np.concatenate([schema.naive, naive]),
        static=np.concatenate([schema.static, static]),
    )

    def more(table: jnp.ndarray) -> jnp.ndarray:
        """A row for each target of each new series: the mean over the series there are."""
        rows = jnp.mean(table.reshape(-1, targets, *table.shape[1:]), axis=0)
        return jnp.concatenate([table, *[rows] * len(new)])

    if params.embedding is not None:
        params = params._replace(embedding=more(jnp.asarray(params.embedding)))
    if params.calibration is not None:
        spreads, known, power = map(jnp.asarray, params.calibration)
        everyone = jnp.concatenate([known, jnp.asarray(usual.ravel(), known.dtype)])
        params = params._replace(calibration=Calibration(more(spreads), everyone, power))
    names, each = (
        some([series.names[n] for n in new]),
        "it takes" if len(new) == 1 else "each takes",
    )
    said = (
        f"The model was not trained on {names}: {each} the scales of its own past, and for the "
        "rest counts as the mean of the series that were trained on."
    )
    return larger, replace(model, series=len(larger.names) * targets), params, said


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
