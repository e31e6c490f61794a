"""Series cut into windows to forecast from, each part by itself.

A *window* belongs to an origin, a row o: it has the L rows before o to forecast from and the H rows
from o on to foretell. With v and t the rows at which validation and test begin,

    training     o + H ≤ v          validation   v ≤ o,  o + H ≤ t          test   t ≤ o

and so no truth of one part is seen in another; what a window looks back on may lie in the part
before, as it will when the model is used.

A missing truth never counts. A missing value among those that are forecast from is the last one
before it, or lies on the line between its neighbours if the later one is known by then, too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from jlstm.checks import wrong
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.clock import calendar_features
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import Series, some

Floats = Float32[np.ndarray, "..."]
Part = Literal["training", "validation", "test", "all"]


@dataclass(frozen=True)
class Panel:
    """Scaled series, ready to be cut into windows."""

    schema: Schema
    member: Int[np.ndarray, " rows"]
    """Which series of the schema each row belongs to."""
    truth: Float32[np.ndarray, "rows target"]
    """NaN where there is none."""
    forward: Float32[np.ndarray, "rows columns"]
    """The last value at or before each row; 0, the mean, where there is none."""
    line: Float32[np.ndarray, "rows columns"] | None
    """The values with lines in the gaps; None where there is no gap, or none is to be drawn."""
    until: Int[np.ndarray, "rows columns"] | None
    """The first row at or after each that has a value, on which the line ends."""
    calendar: Float32[np.ndarray, "rows calendar"]


class Places(NamedTuple):
    """Windows, told by their origin and target."""

    origins: Int[np.ndarray, " windows"]
    """The first row to foretell."""
    targets: Int[np.ndarray, " windows"]
    """Which target."""

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, chosen: Any) -> "Places":
        """Those that an index chooses."""
        return Places(self.origins[chosen], self.targets[chosen])

    def evenly(self, most: int) -> "Places":
        """At most so many of them, spread evenly."""
        chosen = np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(np.int64)
        return self.at(chosen)


def make_panel(series: Series, schema: Schema) -> Panel:
    """Series as a model sees them.

    Raises:
        ValueError: a series is none of the schema's, or a value lies further from those of the
            training part than float32 has numbers.
    """
    place = {name: n for n, name in enumerate(schema.names)}
    for name in series.names:
        if name not in place:
            raise wrong(
                "group",
                f"expected series that the model was trained on ({some(schema.names)}), got {name}",
            )
    member = np.array([place[name] for name in series.names], np.int64)[series.member]
    with np.errstate(over="ignore"):
        scaled = (series.values - schema.mean[member]) / schema.std[member]
    for row, column in np.argwhere(np.abs(scaled) > np.finfo(np.float32).max)[:1]:
        raise ValueError(
            f"column {schema.roles.columns[column]!r}: expected values of the size of those in the "
            f"training part, got {series.values[row, column]:.3g}"
        )
    forward, line, until = fill(scaled, series.offsets)
    lines = schema.missing == "interpolate" and bool(np.isnan(scaled).any())
    return Panel(
        schema=schema,
        member=member,
        truth=scaled[:, : len(schema.roles.target)].astype(np.float32),
        forward=forward.astype(np.float32),
        line=line.astype(np.float32) if lines else None,
        until=until if lines else None,
        calendar=calendar_features(series.local(schema.step), schema.cycles),
    )


def fill(
    values: Float[np.ndarray, "rows columns"], offsets: Int[np.ndarray, " series+1"]
) -> tuple[
    Float[np.ndarray, "rows columns"],
    Float[np.ndarray, "rows columns"],
    Int[np.ndarray, "rows columns"],
]:
    """Without gaps: the last value before each; lines; and the rows on which these end.

    Nothing passes from one series to the next. Before the first value of a series stands 0; after
    the last, its line goes on level, and ends on a row that never comes.
    """
    rows = np.arange(len(values))[:, None]
    known = np.isfinite(values)
    lengths = np.diff(offsets)
    first = np.repeat(offsets[:-1], lengths)[:, None]
    last = np.repeat(offsets[1:], lengths)[:, None]
    never = len(values) + 1
    before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, rows, never)[::-1], axis=0)[::-1]
    has_before, has_after = before >= first, after < last
    at_before = np.take_along_axis(values, np.where(has_before, before, rows), axis=0)
    at_after = np.take_along_axis(values, np.where(has_after, after, rows), axis=0)
    forward = np.where(has_before, at_before, 0.0)
    part = (rows - before) / np.maximum(after - before, 1)
    between = at_before + part * (at_after - at_before)
    line = np.where(has_before & has_after, between, forward)
    return forward, line, np.where(has_after, after, never)


def find_windows(series: Series, panel: Panel, part: Part) -> Places:
    """The windows of a part, origin by origin, and for each origin target by target.

    Left out are those of a target without a value to forecast from, without a truth, or without a
    scale.

    Args:
        series: the series.
        panel: the same, scaled.
        part: which; ``"all"`` for every window that lies in a series.
    """
    s = panel.schema
    when = series.times(s.step)
    origins = []
    for a, b in series.bounds:
        validation, test = (a + int(np.searchsorted(when[a:b], t)) for t in (s.validation, s.test))
        begin, end = {
            "training": (a, validation),
            "validation": (validation, test),
            "test": (test, b),
            "all": (a, b),
        }[part]
        origins.append(np.arange(max(begin, a + s.lookback), end - s.horizon + 1))
    rows = np.concatenate(origins)
    known = np.concatenate([np.zeros((1, len(s.roles.target)), np.int64), _counts(panel.truth)])
    seen = known[rows] - known[rows - s.lookback]
    coming = known[rows + s.horizon] - known[rows]
    at, targets = np.nonzero((seen > 0) & (coming > 0))
    return Places(rows[at], targets)


def _counts(truth: Float32[np.ndarray, "rows target"]) -> Int[np.ndarray, "rows target"]:
    return np.cumsum(np.isfinite(truth), axis=0)


def cut(panel: Panel, places: Places) -> WindowBatch:
    """Windows as a model takes them; the key is for the caller to add.

    ``past`` has the past columns, and, where anything is missing, whether the target is known;
    ``known`` the columns of a known future; ``about`` the static features and the calendar at the
    origin. ``series`` numbers the targets of the schema's series.
    """
    s = panel.schema
    targets, past = len(s.roles.target), len(s.roles.past)
    origins = places.origins
    back = origins + np.arange(-s.lookback, 0)[:, None]
    ahead = origins + np.arange(s.horizon)[:, None]
    whole = np.concatenate([back, ahead])

    def values(rows: Any, columns: Any, limit: Any) -> Floats:
        found: Floats = panel.forward[rows, columns]
        if panel.line is not None and panel.until is not None:
            # A line whose later end is not known yet is not drawn.
            found = np.where(panel.until[rows, columns] < limit, panel.line[rows, columns], found)
        return found

    features = values(back[..., None], np.arange(targets, targets + past), origins[:, None])
    if s.missing != "error":
        observed = np.isfinite(panel.truth[back, places.targets])
        features = np.concatenate([features, observed[..., None].astype(np.float32)], axis=-1)
    member = panel.member[origins]
    known = np.arange(targets + past, len(s.roles.columns))
    about = [s.static[member].astype(np.float32), panel.calendar[origins]]
    return WindowBatch(
        values=values(back, places.targets, origins),
        series=(member * targets + places.targets).astype(np.int32),
        past=features,
        known=values(whole[..., None], known, (origins + s.horizon)[:, None]),
        about=np.concatenate(about, axis=-1),
        targets=panel.truth[ahead, places.targets],
    )


def augmented(batch: WindowBatch, spread: float, seed: Sequence[int]) -> WindowBatch:
    """Windows made larger or smaller about their last value, and so is what followed.

    With ``f = exp(spread·z)``, z standard normal, for each window: ``x_l → x_L + f·(x_l − x_L)``. A
    series that moves twice as much is mostly foretold to move on twice as much, and the model
    learns it from windows that were never seen (magnitude scaling, Um et al. 2017).

    Args:
        batch: windows with targets.
        spread: the standard deviation of log f.
        seed: of all that is random.
    """
    assert batch.targets is not None
    now, count = batch.values[-1], batch.values.shape[1]
    factor = np.exp(spread * np.random.default_rng(seed).normal(size=count)).astype(np.float32)
    return batch._replace(
        values=now + factor * (batch.values - now), targets=now + factor * (batch.targets - now)
    )


def batches(panel: Panel, places: Places, size: int) -> Iterator[tuple[WindowBatch, Places]]:
    """All windows, in batches of one size; in the last, its last one stands for those missing.

    Its targets there are NaN, and do not count.
    """
    size = min(size, len(places))
    for start in range(0, len(places), size):
        here = places.at(slice(start, start + size))
        more = size - len(here)
        batch = cut(panel, Places(*(np.pad(a, (0, more), mode="edge") for a in here)))
        targets = np.array(batch.targets)
        targets[:, len(here) :] = np.nan
        yield batch._replace(targets=targets), here


def shuffled(count: int, size: int, seed: int) -> Callable[[int], Int[np.ndarray, " size"]]:
    """Batch n, from 0, of the numbers below ``count``, each pass in another order.

    A pure function of seed and n. It never ends, and a batch may reach into the next pass.
    """

    @lru_cache(maxsize=2)  # a batch may need two of them
    def order(turn: int) -> Int[np.ndarray, " count"]:
        return np.random.default_rng((seed, turn)).permutation(count)

    def batch(n: int) -> Int[np.ndarray, " size"]:
        begin, end = n * size, (n + 1) * size
        turns = range(begin // count, (end - 1) // count + 1)
        parts = [order(t)[max(begin - t * count, 0) : end - t * count] for t in turns]
        return np.concatenate(parts)

    return batch
