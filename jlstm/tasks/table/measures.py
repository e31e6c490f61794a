"""How good forecasts are, and the simple forecasts that a model has to beat.

With y the truth, f the point forecast, f_q the forecast of quantile q, e = y − f, means over all
windows and steps for which there is a truth:

    MAE       mean |e|                        RMSE     √ mean e²
    MASE      MAE / mean |y_t − y_{t−s}|      s the season; the mean below over the training part
    sMAPE     200 · mean |e| / (|y| + |f|)    in percent; 0 where both are 0
    ρ_q       max(q·d, (q − 1)·d)             d = y − f_q
    WQL       the mean over q of 2·Σ ρ_q / Σ |y|
    coverage  the part of the truths between the lowest and the highest quantile

Everything is kept as sums and counts, for each series and each step of the horizon (``Errors``), so
that no mean depends on how the windows were batched. (MASE: Hyndman & Koehler 2006.)

The baselines see the same windows x_1 … x_L as the model, and foretell step h of H:

    last value       x_L
    seasonal naive   the newest x a whole number of seasons before
    drift            x_L + h·(x_L − x_1)/(L − 1)
    linear           x_L + Σ_l (x_l − x_L)·w_lh, one w for all series, by ridge regression
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Windows = Float[np.ndarray, "windows lookback"]
Forecasts = Float[np.ndarray, "windows horizon"]


class Errors(NamedTuple):
    """Sums over windows, float64; those that do not depend on a quantile ``[series, horizon]``."""

    known: Float[np.ndarray, "series horizon"]
    """Truths there were."""
    absolute: Float[np.ndarray, "series horizon"]
    squared: Float[np.ndarray, "series horizon"]
    symmetric: Float[np.ndarray, "series horizon"]
    """|e| / (|y| + |f|)."""
    magnitude: Float[np.ndarray, "series horizon"]
    """|y|."""
    covered: Float[np.ndarray, "series horizon"]
    """Truths between the lowest and the highest quantile."""
    width: Float[np.ndarray, "series horizon"]
    """From the lowest to the highest quantile."""
    quantile: Float[np.ndarray, "series horizon quantile"]
    """ρ_q."""


def no_errors(series: int, horizon: int, quantiles: int) -> Errors:
    """Where the summing starts."""
    zeros = np.zeros((series, horizon))
    each = dict.fromkeys(Errors._fields[:-1], zeros)
    return Errors(**each, quantile=np.zeros((series, horizon, quantiles)))


def add_errors(
    errors: Errors,
    truth: Forecasts,
    forecasts: Float[np.ndarray, "windows horizon quantile"],
    series: Int[np.ndarray, " windows"],
    quantiles: Sequence[float],
) -> Errors:
    """The sums with more windows.

    Args:
        errors: the sums so far.
        truth: what came; NaN where nobody knows, which does not count.
        forecasts: of each quantile.
        series: which series each window is of.
        quantiles: which, rising, 0.5 among them.

    Raises:
        ValueError: forecasts that are not of these windows and quantiles.
    """
    if forecasts.shape != (*truth.shape, len(quantiles)):
        raise ValueError(
            f"forecasts: expected shape {[*truth.shape, len(quantiles)]}, "
            f"got {list(forecasts.shape)}"
        )
    known = np.isfinite(truth)
    y = np.where(known, truth, 0.0).astype(np.float64)
    f_q = np.where(known[..., None], forecasts, 0.0).astype(np.float64)
    f, low, high = f_q[..., list(quantiles).index(0.5)], f_q[..., 0], f_q[..., -1]
    e, size = np.abs(y - f), np.abs(y) + np.abs(f)
    d, q = y[..., None] - f_q, np.asarray(quantiles)
    terms = Errors(
        known=known.astype(np.float64),
        absolute=e,
        squared=e**2,
        symmetric=np.divide(e, size, out=np.zeros_like(e), where=size > 0),
        magnitude=np.abs(y),
        covered=(known & (low <= y) & (y <= high)).astype(np.float64),
        width=high - low,
        quantile=np.maximum(q * d, (q - 1) * d),
    )
    sums = []
    for before, term in zip(errors, terms, strict=True):
        after = before.copy()
        np.add.at(after, series, term)
        sums.append(after)
    return Errors(*sums)


def measures(
    errors: Errors,
    axes: tuple[int, ...] = (0, 1),
    *,
    unit: Float[np.ndarray, " series"] | float = 1.0,
    naive: Float[np.ndarray, " series"] | float = np.nan,
) -> dict[str, Float[np.ndarray, "*rest"]]:
    """The measures, NaN where there is nothing to measure by.

    Args:
        errors: the sums.
        axes: those to take means over: 0 the series, 1 the horizon.
        unit: of each series, by which its errors are divided before they meet those of others.
        naive: of each series, what MASE divides by, from ``seasonal_error``. Series for which it is
            NaN are left out of MASE.

    Returns:
        mae, mse, rmse, mase, smape, wql, coverage, width: each with the axes that are left.
    """
    series = len(errors.known)
    by = np.broadcast_to(np.asarray(unit, np.float64), series)[:, None]
    naive = np.broadcast_to(np.asarray(naive, np.float64), series)[:, None]
    has_naive = np.isfinite(naive) & (naive > 0)

    def mean(
        total: Float[np.ndarray, "series horizon"], count: Float[np.ndarray, "series horizon"]
    ) -> Float[np.ndarray, "*rest"]:
        above, below = np.asarray(total.sum(axes)), np.asarray(count.sum(axes))
        found: Float[np.ndarray, "*rest"] = np.full_like(above, np.nan)
        np.divide(above, below, out=found, where=below > 0)
        return found

    mse = mean(errors.squared / by**2, errors.known)
    in_naive = errors.absolute / np.where(has_naive, naive, np.inf)
    by_quantile = [mean(2 * part, errors.magnitude) for part in np.moveaxis(errors.quantile, -1, 0)]
    return {
        "mae": mean(errors.absolute / by, errors.known),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "mase": mean(in_naive, errors.known * has_naive),
        "smape": 200 * mean(errors.symmetric, errors.known),
        "wql": np.mean(by_quantile, axis=0),
        "coverage": mean(errors.covered, errors.known),
        "width": mean(errors.width / by, errors.known),
    }


ROUNDING = 1e-9
"""Relative to the largest value: a seasonal error that is no larger is none. Files have as many
digits, and float64 seven more."""


def seasonal_error(values: Float[np.ndarray, " time"], season: int) -> float:
    """Mean |y_t − y_{t−season}|, what MASE divides by.

    NaN where nothing is known, or where the values are the same season by season but for rounding:
    what would be divided by says nothing of them.
    """
    steps = np.abs(values[season:] - values[:-season]) if len(values) > season else np.empty(0)
    steps = steps[np.isfinite(steps)]
    if not steps.size:
        return float("nan")
    error, size = float(steps.mean()), float(np.nanmax(np.abs(values)))
    return error if error > ROUNDING * size else float("nan")


def last_value(windows: Windows, horizon: int) -> Forecasts:
    """x_L at every step."""
    return np.repeat(windows[:, -1:], horizon, axis=1)


def seasonal_naive(windows: Windows, horizon: int, season: int) -> Forecasts:
    """The newest value a whole number of seasons before.

    Raises:
        ValueError: the window is shorter than a season.
    """
    lookback = windows.shape[1]
    if not 1 <= season <= lookback:
        raise ValueError(f"season: expected at most the {lookback} steps of a window, got {season}")
    found: Forecasts = windows[:, lookback - season + np.arange(horizon) % season]
    return found


def drift(windows: Windows, horizon: int) -> Forecasts:
    """The straight line through the first and the last value of the window."""
    slope = (windows[:, -1:] - windows[:, :1]) / max(1, windows.shape[1] - 1)
    found: Forecasts = windows[:, -1:] + slope * np.arange(1, horizon + 1)
    return found


class Moments(NamedTuple):
    """Sums over windows X and targets Y, both seen from the last value: all that ridge needs."""

    xx: Float[np.ndarray, "lookback lookback"]
    xy: Float[np.ndarray, "lookback horizon"]
    yy: Float[np.ndarray, ""]
    """The sum of the squares of Y."""

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))


def moments(windows: Windows, truth: Forecasts) -> Moments:
    """Those of some windows; windows with a truth that is NaN are left out."""
    whole = np.isfinite(truth).all(axis=1)
    windows, truth = windows[whole].astype(np.float64), truth[whole].astype(np.float64)
    x, y = windows - windows[:, -1:], truth - windows[:, -1:]
    return Moments(x.T @ x, x.T @ y, np.sum(y**2))


RIDGES = tuple(10.0**n for n in range(-6, 2))


def fit_linear(train: Moments, validation: Moments) -> Float[np.ndarray, "lookback horizon"]:
    """The weights of the linear baseline.

        w = (XᵀX + λ·I)⁻¹·XᵀY,     λ = r · the mean of the diagonal of XᵀX

    with the r out of ``RIDGES`` whose squared error ΣY² − 2·w∘XᵀY + w∘(XᵀX·w), all of the
    validation part and ∘ the sum of products, is lowest. Where all windows are flat, w is 0.
    """
    size = len(train.xx)
    # Far above the smallest number, whose reciprocal is infinite; far below any square of float32.
    least = float(np.sqrt(np.finfo(np.float64).tiny))
    diagonal = max(float(np.trace(train.xx)) / size, least)

    def fit(ridge: float) -> Float[np.ndarray, "lookback horizon"]:
        w: Float[np.ndarray, "lookback horizon"] = np.linalg.solve(
            train.xx + ridge * diagonal * np.eye(size), train.xy
        )
        return w

    def error(w: Float[np.ndarray, "lookback horizon"]) -> float:
        return float(
            validation.yy - 2 * np.sum(w * validation.xy) + np.sum(w * (validation.xx @ w))
        )

    return min(map(fit, RIDGES), key=error)


def linear(windows: Windows, weights: Float[np.ndarray, "lookback horizon"]) -> Forecasts:
    """What the linear baseline with these weights foretells."""
    last = windows[:, -1:]
    found: Forecasts = (windows - last) @ weights + last
    return found
