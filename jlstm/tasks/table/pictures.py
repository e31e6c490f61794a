"""Which forecasts are drawn: a choice from the best to the worst, each named with its error."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jlstm.plots import Forecasted
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.measures import Errors
from jlstm.tasks.table.series import Series
from jlstm.tasks.table.windows import Panel, Places, batches

Foretell = Callable[[WindowBatch], Float[np.ndarray, "horizon windows quantiles"]]

PIECES = 5
"""Forecasts in a stretch, at most."""
STRETCHES = 100
"""Stretches among which is chosen, spread evenly over the part."""
MOST_LETTERS = 50
"""Of a name in a title."""
AT_ONCE = 512
"""Windows; without influence on the result."""


def choose(errors: Float[np.ndarray, " things"]) -> list[tuple[int, str]]:
    """Some of many, spread over the range of their errors: the best, quartiles, median, the worst.

    Args:
        errors: of each; NaN for what has none, and is not chosen.

    Returns:
        The chosen and what each is among them, the best first; where there are fewer than five, the
        best and the worst come before the median, and that before the quartiles.
    """
    order = np.argsort(errors, kind="stable")[: int(np.isfinite(errors).sum())]
    if not len(order):
        return []
    wanted = {"best": 0.0, "worst": 1.0, "median": 0.5, "lower quartile": 0.25}
    wanted["upper quartile"] = 0.75
    names: dict[int, str] = {}
    for name, part in wanted.items():
        names.setdefault(round(part * (len(order) - 1)), name)
    return [(int(order[rank]), names[rank]) for rank in sorted(names)]


def find_stretches(
    origins: Int[np.ndarray, " origins"], horizon: int
) -> list[Int[np.ndarray, " pieces"]]:
    """Forecasts that follow each other without a gap, some at a time.

    Args:
        origins: of the windows of one target of one series, rising.
        horizon: the steps of a forecast.

    Returns:
        The origins of each stretch: as many as ``PIECES``, or fewer where there would not be five
        stretches, or at a gap.
    """
    pieces: list[int] = []
    for origin in origins.tolist():
        if not pieces or origin >= pieces[-1] + horizon:
            pieces.append(origin)
    most = max(1, min(PIECES, len(pieces) // 5))
    stretches: list[list[int]] = []
    for origin in pieces:
        follows = stretches and origin == stretches[-1][-1] + horizon
        if follows and len(stretches[-1]) < most:
            stretches[-1].append(origin)
        else:
            stretches.append([origin])
    return [np.array(stretch) for stretch in stretches]


class Stretch(NamedTuple):
    """Forecasts of one target that follow each other."""

    origins: Int[np.ndarray, " pieces"]
    forecasts: Float[np.ndarray, "pieces horizon quantiles"]
    error: float
    """The mean absolute one of the median; NaN where no truth is known."""


def pictures(
    foretell: Foretell,
    quantiles: Sequence[float],
    series: Series,
    panel: Panel,
    places: Places,
    errors: Errors,
) -> list[Forecasted]:
    """Forecasts beside the truth, from where the model is best to where it is worst.

    Of several targets or series, those at the least, the quartiles, the median and the greatest of
    their mean absolute errors (in standard deviations); of each the stretch of forecasts that has
    the median error of its stretches. Of a single one five stretches, chosen in the same way.

    Args:
        foretell: the model, compiled, for batches of any size; in standard deviations.
        quantiles: which it foretells, the median among them.
        series: the series.
        panel: the same, scaled.
        places: the windows that are judged.
        errors: of the model over all of them, in units of the table.
    """
    s = panel.schema
    targets = len(s.roles.target)
    pair = panel.member[places.origins] * targets + places.targets
    known, absolute = errors.known.sum(axis=1), errors.absolute.sum(axis=1)
    means = np.full(len(known), np.nan)
    np.divide(absolute, known * s.std[:, :targets].ravel(), out=means, where=known > 0)
    chosen = choose(means)
    count, many = int(np.isfinite(means).sum()), "series" if len(s.names) > 1 else "targets"
    found = []
    for n, rank in chosen:
        member, target = divmod(n, targets)
        own = _forecast(foretell, quantiles, panel, places.at(pair == n))
        stretches = choose(np.array([stretch.error for stretch in own]))
        if count == 1:
            titles = {
                k: _title(own[k].error, rank, len(own), "stretches of the part")
                for k, rank in stretches
            }
        else:
            (typical,) = [k for k, rank in stretches if rank == "median"] or [stretches[0][0]]
            titles = {typical: _title(means[n], rank, count, many)}
        names = [s.names[member]] * (len(s.names) > 1) + [s.roles.target[target]] * (targets > 1)
        name = ", ".join(names) or s.roles.target[target]
        name = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
        for k, title in titles.items():
            drawn = _draw(series, panel, own[k], member, target)
            found.append(drawn._replace(title=f"{name}: {title}"))
    return found


def _title(error: float, rank: str, count: int, what: str) -> str:
    said = f"MAE {error:.3g} standard deviations"
    return f"{said}, the {rank} of {count:,} {what}" if count > 1 else said


def _forecast(
    foretell: Foretell, quantiles: Sequence[float], panel: Panel, places: Places
) -> list[Stretch]:
    """The stretches of one target of one series, forecast."""
    horizon, middle = panel.schema.horizon, list(quantiles).index(0.5)
    stretches = find_stretches(np.sort(places.origins), horizon)
    few = np.linspace(0, len(stretches) - 1, min(len(stretches), STRETCHES)).round().astype(int)
    stretches = [stretches[k] for k in few]
    origins = np.concatenate(stretches)
    here = Places(origins, np.full(len(origins), places.targets[0]))
    found, off = [], []
    for batch, some in batches(panel, here, AT_ONCE):
        forecasts = np.asarray(foretell(batch), np.float64).swapaxes(0, 1)[: len(some)]
        truth = np.asarray(batch.targets, np.float64).T[: len(some)]
        found.append(forecasts)
        off.append(np.abs(truth - forecasts[..., middle]))
    ends = np.cumsum([len(stretch) for stretch in stretches])[:-1]
    return [
        Stretch(own, forecasts, float(e[np.isfinite(e)].mean()) if np.isfinite(e).any() else np.nan)
        for own, forecasts, e in zip(
            stretches,
            np.split(np.concatenate(found), ends),
            np.split(np.concatenate(off), ends),
            strict=True,
        )
    ]


def _draw(series: Series, panel: Panel, stretch: Stretch, member: int, target: int) -> Forecasted:
    """The stretch in units of the table, after some of what it was foretold from."""
    s = panel.schema
    mean, std = s.mean[member, target], s.std[member, target]
    first, last = stretch.origins[0], stretch.origins[-1]
    rows = np.arange(first - min(s.lookback, 2 * s.horizon), last + s.horizon)
    times = series.times(s.step)
    times = times.astype(np.int64) if s.form.numbered else times
    return Forecasted(
        title="",
        times=times[rows],
        truth=panel.truth[rows, target] * std + mean,
        pieces=[
            (times[origin : origin + s.horizon], forecast * std + mean)
            for origin, forecast in zip(stretch.origins, stretch.forecasts, strict=True)
        ],
    )
