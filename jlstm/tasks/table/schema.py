"""The split of a table, its scales, and all else that is learned from it before any training.

With v and t the times at which validation and test begin, the parts are

    training     time < v          validation   v ≤ time < t          test   t ≤ time

Scales, seasons and cycles come from the rows before v alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jlstm.checks import wrong
from jlstm.records import plain
from jlstm.tasks.frame import center_and_spread
from jlstm.tasks.table.clock import (
    CYCLES,
    ISO,
    Clock,
    Step,
    Time,
    TimeForm,
    default_season,
    parse_time,
    show_time,
)
from jlstm.tasks.table.measures import seasonal_error
from jlstm.tasks.table.series import Missing, Roles, Series, some
from jlstm.tasks.times import COUNTED

LONGEST_SEASON = 200
"""Steps of a season above which two of them are too long a window to be the default."""


@dataclass(frozen=True)
class Schema:
    """What is to be known of a table to forecast from another one like it."""

    roles: Roles
    step: Step
    lookback: int
    horizon: int
    season: int
    missing: Missing
    validation: Time
    """When the validation part begins."""
    test: Time
    """When the test part begins."""
    names: tuple[str, ...]
    """Of the series."""
    mean: Float[np.ndarray, "series columns"]
    """Of the training part."""
    std: Float[np.ndarray, "series columns"]
    """Of the training part; where nothing varies, 1, and NaN for a target, which has no scale: it
    is left out of training, evaluation and forecasts."""
    naive: Float[np.ndarray, "series target"]
    """``seasonal_error`` of the training part."""
    static: Float[np.ndarray, "series static"]
    static_names: tuple[str, ...]
    cycles: tuple[str, ...]
    """What the calendar tells: the keys of ``CYCLES``."""
    form: TimeForm = ISO
    """How the table writes its times, and on which clock those above are."""

    def has_scale(
        self, member: Int[np.ndarray, " n"], target: Int[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether these targets of these series vary in the training part."""
        known: Bool[np.ndarray, " n"] = np.isfinite(self.std[member, target])
        return known

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, which knows no NaN."""
        known = asdict(self)
        for name in ("mean", "std", "naive", "static"):
            known[name] = plain(known[name])
        return known | {"validation": str(self.validation), "test": str(self.test)}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> "Schema":
        """What ``to_json`` wrote."""
        own: dict[str, Any] = dict(known)
        for name in ("mean", "std", "naive", "static"):
            table = np.array(own[name], np.float64)  # None becomes NaN
            own[name] = table.reshape(len(own["names"]), -1)
        for name in ("names", "static_names", "cycles"):
            own[name] = tuple(own[name])
        for name in ("validation", "test"):
            own[name] = np.datetime64(own[name], "us")
        roles: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in own["roles"].items()
        }
        known_forms = {"step": Step(**own["step"]), "form": TimeForm(**own.get("form", {}))}
        return cls(**own | {"roles": Roles(**roles)} | known_forms)


def split_times(series: Series, step: Step, validation: str, test: str) -> tuple[Time, Time]:
    """When validation and test begin, for all series alike.

    Args:
        series: the series.
        step: of their time.
        validation: a date, or a part of the time from the first row to the last, before the test.
        test: a date, or a part of the time, its end.

    Raises:
        ValueError: neither a number between 0 and 1 nor a date; or not one after the other.
    """
    lengths = np.diff(series.offsets)
    ends = [step.times(s, np.asarray(n - 1)) for s, n in zip(series.starts, lengths, strict=True)]
    start, last = series.starts.min(), np.max(ends)
    total = int(step.counts(start, last)) + 1
    clock = Clock(series.times(step), series.local(step), series.form)

    def begin(name: str, text: str, end: int) -> Time:
        try:
            part = float(text)
        except ValueError:
            return parse_time(name, text, clock)
        if series.form.pattern in COUNTED and part >= 1:
            return parse_time(name, text, clock)
        if not 0 < part < 1:
            raise wrong(name, f"expected a number between 0 and 1, or a date, got {text}")
        return step.times(start, np.asarray(end - round(part * total)))

    told = partial(show_time, form=series.form)
    begins_test = begin("test", test, total)
    if not start < begins_test <= last:
        raise wrong(
            "test",
            f"expected it to begin after the first row, of {told(start)}, and not after "
            f"the last, of {told(last)}, got {told(begins_test)}",
        )
    begins = begin("validation", validation, int(step.counts(start, begins_test)))
    if not start < begins < begins_test:
        raise wrong(
            "validation",
            f"expected it to begin after the first row, of {told(start)}, and "
            f"before the test, {told(begins_test)}, got {told(begins)}",
        )
    return begins, begins_test


def learn(
    series: Series,
    roles: Roles,
    step: Step,
    *,
    horizon: int,
    lookback: int | None,
    season: int | None,
    missing: Missing,
    calendar: bool,
    split: tuple[Time, Time],
    static: tuple[Float[np.ndarray, "series static"], Sequence[str]],
) -> tuple[Schema, tuple[str, ...]]:
    """All that the training part says of the table, and sentences on it.

    A cycle is told by the calendar if the training part covers it twice. A target that does not
    vary in the training part of some series is left out there.

    Raises:
        ValueError: the values of a column are too large to be scaled; a target varies in the
            training part of no series.
    """
    when = series.times(step)
    train = when < split[0]
    notes = []
    found = season is None
    season = default_season(step) if season is None else season
    longest = max((train[a:b].sum() for a, b in series.bounds), default=0)
    if found and longest < 2 * season and season > 1:
        notes.append(
            f"The training part is too short for a season of {season} steps: none is used."
        )
        season = 1
    if season > 1 and season >= longest:
        raise wrong(
            "season", f"expected fewer steps than the training part has, {longest}, got {season}"
        )
    if lookback is None:
        seasons = 2 if 2 * season + horizon <= longest else 1
        lookback = max(4 * horizon, seasons * season if season <= LONGEST_SEASON else 0)

    shape = (len(series.names), len(roles.columns))
    mean, std = np.zeros(shape), np.ones(shape)
    naive = np.full((shape[0], len(roles.target)), np.nan)
    constant: dict[str, list[str]] = {}
    unseen: dict[str, list[str]] = {}
    for n, (a, b) in enumerate(series.bounds):
        for column, name in enumerate(roles.columns):
            values = series.values[a:b, column][train[a:b]]
            seen = values[np.isfinite(values)]
            is_target = column < len(roles.target)
            spread = 0.0
            if seen.size:
                mean[n, column], spread = center_and_spread(seen, name)
                # A mean of equal numbers may differ from them in the last bit.
                if spread <= 1e-12 * np.abs(seen).max():
                    spread = 0.0
                    constant.setdefault(name, []).append(series.names[n])
            elif is_target:
                unseen.setdefault(name, []).append(series.names[n])
            if is_target:
                naive[n, column] = seasonal_error(values, season)
                std[n, column] = spread or np.nan
            elif spread:
                std[n, column] = spread
    for column, name in enumerate(roles.target):
        if np.isnan(std[:, column]).all():
            what = f"is {mean[0, column]:g} throughout" if name in constant else "has no value"
            if roles.group:
                what = f"does not vary in any of {some(series.names)}"
            raise wrong(
                "target",
                "expected values that vary in the training part, before "
                f"{show_time(split[0], series.form)}, got column {name!r}, which {what}",
            )
    for named, what in ((constant, "is constant"), (unseen, "has no value")):
        for name, where in named.items():
            of = f" of {some(where)}" if roles.group else ""
            so = "left out there" if name in roles.target else "nothing to learn"
            notes.append(f"Column {name!r} {what} in the training part{of}: {so}.")
    span = float((when[train].max() - when[train].min()) / np.timedelta64(1, "s"))
    cycles = tuple(
        name
        for name, size in CYCLES.items()
        if calendar
        and not step.numbered
        and 2 * step.seconds <= size / 1e6
        and 2 * size / 1e6 <= span
    )
    schema = Schema(
        roles=roles,
        step=step,
        lookback=lookback,
        horizon=horizon,
        season=season,
        missing=missing,
        validation=split[0],
        test=split[1],
        names=series.names,
        mean=mean,
        std=std,
        naive=naive,
        static=static[0],
        static_names=tuple(static[1]),
        cycles=cycles,
        form=series.form,
    )
    return schema, tuple(notes)
