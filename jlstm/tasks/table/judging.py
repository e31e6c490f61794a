"""The windows of a table gone through once: forecasts of the model and of the baselines, errors."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jlstm.layers import stack
from jlstm.tasks.running import Run
from jlstm.tasks.table.chance import Scores, add_scores, joined_scores, no_scores
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
from jlstm.tasks.table.training import AT_ONCE
from jlstm.tasks.table.windows import Panel, Places, batches

UNCALIBRATED = "uncalibrated"
"""The name of the model's errors without its calibration."""


class Found(NamedTuple):
    """Some windows: what came, and what was foretold, in units of the table."""

    places: Places
    series: Int[np.ndarray, " windows"]
    """Which target of which series each window is of, as the schema counts them."""
    truth: Float[np.ndarray, "windows horizon"]
    """NaN where nobody knows."""
    forecasts: Mapping[str, Float[np.ndarray, "windows horizon quantile"]]
    """Of ``"model"``, and of each baseline, whose quantiles are all its point."""


class Judged(NamedTuple):
    """The errors of the model and of each baseline over the same windows."""

    errors: Mapping[str, Errors]
    """In units of the table. The series of the errors are the targets of the first series, then
    those of the second…"""
    origins: Scores
    """The same errors by origin, in standard deviations."""
    uncalibrated: Errors | None = None
    """Of the model without its calibration; None where it has none."""

    def __add__(self, other: "Judged") -> "Judged":  # type: ignore[override]
        def add(one: Errors, two: Errors) -> Errors:
            return Errors(*(a + b for a, b in zip(one, two, strict=True)))

        shared = [name for name in self.errors if name in other.errors]
        both = self.uncalibrated, other.uncalibrated
        return Judged(
            {name: add(self.errors[name], other.errors[name]) for name in shared},
            joined_scores(self.origins, other.origins),
            add(both[0], both[1]) if both[0] is not None and both[1] is not None else None,
        )


def judge(
    model: ForecasterConfig,
    params: Forecaster,
    panel: Panel,
    places: Places,
    weights: Float[np.ndarray, "lookback horizon"],
    *,
    at: Int[np.ndarray, " rows"] | None = None,
    size: int = AT_ONCE,
    run: Run = stack,
) -> Judged:
    """Judge a model and the baselines on the same windows.

    Args:
        model: what the model is made of.
        params: its parameters.
        panel: the data.
        places: the windows.
        weights: of the linear baseline.
        at: the time of each row, in steps; None where there is one series.
        size: windows that are gone through at once; without influence on the result.
        run: what runs the stack of the model.
    """
    at = np.arange(len(panel.truth)) if at is None else at
    nothing = no_errors(model.series, model.horizon, len(model.quantiles))
    errors: dict[str, Errors] = {}
    scores = no_scores(np.unique(at[places.origins]))
    for found in forecasts(model, params, panel, places, weights, size=size, run=run):
        members, targets = panel.member[found.places.origins], found.places.targets
        std = panel.schema.std[members, targets][:, None]
        points = {}
        for name, values in found.forecasts.items():
            before = errors.get(name, nothing)
            errors[name] = add_errors(before, found.truth, values, found.series, model.quantiles)
            points[name] = values[..., model.median] / std
        points.pop(UNCALIBRATED, None)
        scores = add_scores(scores, found.truth / std, points, at[found.places.origins])
    uncalibrated = errors.pop(UNCALIBRATED) if UNCALIBRATED in errors else None
    return Judged(errors, scores, uncalibrated)


def forecasts(
    model: ForecasterConfig,
    params: Forecaster,
    panel: Panel,
    places: Places,
    weights: Float[np.ndarray, "lookback horizon"],
    *,
    size: int = AT_ONCE,
    run: Run = stack,
) -> Iterator[Found]:
    """The forecasts of the windows, some windows at a time; see ``judge`` for the arguments."""
    s = panel.schema
    compiled = jax.jit(partial(forecast, model, run=run))
    baselines: dict[str, Callable[[Any], Any]] = {
        "last value": lambda windows: last_value(windows, s.horizon),
        "drift": lambda windows: drift(windows, s.horizon),
        "linear": lambda windows: linear(windows, weights),
    }
    if 1 < s.season <= s.lookback:
        baselines["seasonal naive"] = lambda windows: seasonal_naive(windows, s.horizon, s.season)
    versions = {"model": params}
    if params.calibration is not None:
        versions[UNCALIBRATED] = params._replace(calibration=None)
    for batch, here in batches(panel, places, size):
        rows = np.arange(s.horizon) + here.origins[:, None]
        mean, std = (a[panel.member[here.origins], here.targets][:, None] for a in (s.mean, s.std))
        windows = np.asarray(batch.values).T[: len(here)].astype(np.float64)
        found: dict[str, Float[np.ndarray, "windows horizon quantile"]] = {}
        for name, version in versions.items():
            values = np.asarray(compiled(version, batch)).swapaxes(0, 1)[: len(here)]
            found[name] = values.astype(np.float64)
        for name, baseline in baselines.items():
            point = baseline(windows)[..., None]
            found[name] = np.broadcast_to(point, (*point.shape[:2], len(model.quantiles)))
        yield Found(
            places=here,
            series=np.asarray(batch.series)[: len(here)],
            truth=panel.truth[rows, here.targets[:, None]] * std + mean,
            forecasts={
                name: values * std[..., None] + mean[..., None] for name, values in found.items()
            },
        )
