"""The errors of a forecaster and its baselines, as means, tables and sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jlstm.records import plain
from jlstm.tasks.chance import Difference
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.table.chance import FEWEST, Scores, difference, spans
from jlstm.tasks.table.judging import Judged
from jlstm.tasks.table.measures import Errors, measures
from jlstm.tasks.table.model import ForecasterConfig
from jlstm.tasks.table.schema import Schema
from jlstm.tasks.table.series import some

NAMES = {
    "mse": "MSE",
    "mae": "MAE",
    "rmse": "RMSE",
    "mase": "MASE",
    "smape": "sMAPE %",
    "wql": "WQL",
    "coverage": "coverage",
    "width": "width",
}
MOST_SERIES = 20
"""In a table for a terminal."""


class Means(NamedTuple):
    """The measures of the model and of each baseline, by name, see ``measures``."""

    raw: dict[str, dict[str, Any]]
    """Over all windows, in the units of the table."""
    scaled: dict[str, dict[str, Any]]
    """The same in standard deviations."""
    by_step: dict[str, dict[str, Any]]
    """For each step ahead, in standard deviations."""
    by_series: dict[str, dict[str, Any]]
    """For each target of each series, in the units of the table."""

    @property
    def skill(self) -> Float[np.ndarray, " horizon"]:
        """What the model saves of the error of the last value, step by step."""
        naive = self.by_step["last value"]["mae"]  # 0 for a target that does not move
        skill: Float[np.ndarray, " horizon"]
        skill = 1 - self.by_step["model"]["mae"] / np.where(naive > 0, naive, np.nan)
        return skill


def report(
    model: ForecasterConfig,
    schema: Schema,
    judged: Judged,
    origins: int,
    part: str,
    notes: Sequence[str],
    *,
    refits: int = 0,
) -> Evaluation:
    """Means, tables and a verdict from the sums.

    Args:
        model: what the model is made of.
        schema: of the table it was trained on.
        judged: the errors of the model and of each baseline.
        origins: from how many rows was forecast.
        part: which part was judged, or ``"all"`` of a file.
        notes: to be told after those on the errors.
        refits: how often the model was trained anew on the way.
    """
    errors = judged.errors
    # Targets that have no scale have no window, either; 1 keeps NaN out of the sums.
    std, naive = (_pairs(a, len(schema.roles.target)) for a in (schema.std, schema.naive))
    units: dict[str, Any] = {"unit": np.where(np.isfinite(std), std, 1.0), "naive": naive}
    means = Means(
        raw=_measures(errors, (0, 1), naive=naive),
        scaled=_measures(errors, (0, 1), **units),
        by_step=_measures(errors, (0,), **units),
        by_series=_measures(errors, (1,), naive=naive),
    )
    low, high = model.quantiles[0], model.quantiles[-1]
    many, targets = _targets(schema)
    seen = np.flatnonzero(errors["model"].known.sum(axis=1) > 0).tolist()
    results = plain(
        {
            "part": part,
            "origins": origins,
            "truths": round(float(errors["model"].known.sum())),
            "refitted": refits,
            "quantiles": model.quantiles,
            "nominal_coverage": high - low,
            "raw": means.raw,
            "scaled": means.scaled,
            "by_horizon_scaled": means.by_step,
            "skill_against_last_value": means.skill,
            "by_series": {"names": targets, **means.by_series},
        }
    )
    enough, chance = _chance(judged, schema, means.scaled)
    results["chance"] = plain(chance)
    before = _before(judged, units)
    if before:
        results["uncalibrated"] = plain(before)

    interval = f"in the {100 * (high - low):g} % interval"
    what = f"Every window of the {part if part == 'test' else 'file'}"
    by_step, by_every_step = _step_tables(means, schema.horizon, interval)
    by_series = _series_table(means, {n: targets[n] for n in seen}, many, interval)
    tables, details = [_whole_table(means, what, origins, interval), by_step], []
    if schema.horizon > len(by_step.rows):
        details.append(by_every_step)
    if len(seen) > 1:
        (tables if len(seen) <= MOST_SERIES else details).append(by_series)
    trained = f"trained anew for each of {refits} stretches" if refits else "as it was trained"
    return Evaluation(
        results=results,
        tables=tables,
        verdict=verdict(
            {name: (float(m["mae"]), float(m["mse"])) for name, m in means.scaled.items()},
            enough,
            any(Difference(**chance[m]).beyond_chance for m in ("mae", "mse") if m in chance),
        )
        + _told(chance),
        notes=[
            *_worse(many, means.by_series, {n: targets[n] for n in seen}),
            *_worse("steps ahead", means.by_step, {n: str(n + 1) for n in range(schema.horizon)}),
            *_intervals(float(means.scaled["model"]["coverage"]), high - low, before, interval),
            f"Rolling origin: one forecast from each step of the part, the model {trained}.",
            *notes,
        ],
        sums=judged,
        details=details,
        scores=plain({name: _scores(means.raw[name], means.scaled[name]) for name in errors}),
    )


def _targets(schema: Schema) -> tuple[str, list[str]]:
    """What the targets of all series are together, and what each is called."""
    targets = schema.roles.target
    if len(schema.names) == 1:
        return "targets", list(targets)
    if len(targets) == 1:
        return "series", list(schema.names)
    return "series and targets", [f"{name} {t}" for name in schema.names for t in targets]


def _whole_table(means: Means, what: str, origins: int, interval: str) -> Table:
    """The measures over all windows."""

    def row(name: str) -> list[str]:
        found = [means.scaled[name]["mse"], means.scaled[name]["mae"]]
        found += [means.raw[name][m] for m in ("mae", "rmse", "mase", "smape", "wql")]
        covered = _percent(means.scaled["model"]["coverage"]) if name == "model" else "–"
        return [name, *map(show, found), covered]

    names = list(means.scaled)
    return Table(
        f"{what}: {counted(origins, 'origin')}; s: in standard deviations",
        ("", "MSE s", "MAE s", "MAE", "RMSE", "MASE", "sMAPE %", "WQL", interval),
        [row(name) for name in names],
        (int(np.argmin([means.scaled[name]["mae"] for name in names])),),
    )


def _step_tables(means: Means, horizon: int, interval: str) -> tuple[Table, Table]:
    """MAE for some of the steps ahead, and for all of them."""
    names, skill = list(means.by_step), means.skill
    rows = [
        [
            str(step + 1),
            *(show(means.by_step[name]["mae"][step]) for name in names),
            _percent(skill[step]),
            _percent(means.by_step["model"]["coverage"][step]),
        ]
        for step in range(horizon)
    ]
    columns = ("step", *names, "skill", interval)
    title = "MAE in standard deviations, for each step ahead; skill: what the model saves of the "
    some_steps = Table(f"{title}last value's", columns, [rows[n] for n in _handful(horizon)])
    return some_steps, Table("MAE in standard deviations, for every step ahead", columns, rows)


def _series_table(means: Means, labels: Mapping[int, str], many: str, interval: str) -> Table:
    """The measures for each of these targets, by their numbers."""
    columns, found = ("mae", "rmse", "mase", "smape", "wql"), means.by_series
    baselines = [name for name in found if name != "model"]
    return Table(
        f"For each {'target' if many == 'targets' else 'series'}, the model",
        ("", *(NAMES[m] for m in columns), interval, "MAE of the best baseline"),
        [
            [
                label,
                *(show(found["model"][m][n]) for m in columns),
                _percent(found["model"]["coverage"][n]),
                _best_of({b: found[b]["mae"][n] for b in baselines}),
            ]
            for n, label in labels.items()
        ],
    )


def _worse(
    what: str, found: Mapping[str, Mapping[str, Any]], labels: Mapping[int, str]
) -> Iterator[str]:
    """Where a baseline has the lower MAE; of one alone the verdict tells."""
    others = {name: of["mae"] for name, of in found.items() if name != "model"}
    worse = [
        f"{label} ({min(others, key=lambda b: others[b][n])})"
        for n, label in labels.items()
        if not found["model"]["mae"][n] < min(mae[n] for mae in others.values())
    ]
    if worse and len(labels) > 1:
        yield (
            f"A baseline has the lower MAE for {len(worse)} of {len(labels)} {what}: {some(worse)}."
        )


def _intervals(
    covered: float, nominal: float, before: Mapping[str, float], interval: str
) -> Iterator[str]:
    """What share of the truths the intervals hold, where there is something to say of it."""
    if before:
        yield (
            "The intervals are calibrated by the errors on the validation part: "
            f"{_percent(before['coverage'])} of the truths were {interval} before, "
            f"{_percent(covered)} are now."
        )
    if abs(covered - nominal) > 0.1 * nominal:
        how = "narrow" if covered < nominal else "wide"
        yield f"The intervals are too {how}: {_percent(covered)} of the truths are {interval}."


def _before(judged: Judged, units: Mapping[str, Any]) -> dict[str, float]:
    """What the intervals were worth before they were calibrated; nothing where they were not."""
    if judged.uncalibrated is None:
        return {}
    found = measures(judged.uncalibrated, (0, 1), **units)
    return {name: float(found[name]) for name in ("coverage", "width", "wql")}


def _chance(
    judged: Judged, schema: Schema, scaled: Mapping[str, Mapping[str, Any]]
) -> tuple[bool, dict[str, Any]]:
    """Whether there are windows enough for a verdict, and what chance has a part in."""
    own, std = judged.errors["model"], _pairs(schema.std, len(schema.roles.target))
    series = np.flatnonzero(own.known.sum(axis=1)) // len(schema.roles.target)
    groups, of = spans(judged.origins, schema.horizon), "horizon"
    if len(np.unique(series)) > len(groups.at):
        of = "series"
        groups = Scores(
            np.arange(len(std)),
            own.known.sum(axis=1),
            *(
                {
                    name: np.nan_to_num(getattr(e, what).sum(axis=1) / std**power)
                    for name, e in judged.errors.items()
                }
                for power, what in ((1, "absolute"), (2, "squared"))
            ),
        ).grouped(np.arange(len(std)) // len(schema.roles.target))
        groups = groups.seen()
    found: dict[str, Any] = {"groups": len(groups.at), "of": of}
    if len(groups.at) < FEWEST:
        return False, found
    for measure in ("mae", "mse"):
        best = min((n for n in scaled if n != "model"), key=lambda n: scaled[n][measure])
        found[measure] = difference(
            groups, best, squared=measure == "mse", neighbours=of == "horizon"
        )._asdict()
    return True, found


def _told(chance: Mapping[str, Any]) -> str:
    """What chance has a part in, in a sentence; nothing where there are too few windows."""
    if "mae" not in chance:
        return ""
    parts = []
    for measure in ("mae", "mse"):
        d = Difference(**chance[measure])
        parts.append(
            f"{NAMES[measure]} and that of {d.baseline} differ by {d.mean:+.3g} ± {d.margin:.2g}, "
            f"{d.in_words}"
        )
    groups = counted(chance["groups"], chance["of"], "series" if chance["of"] == "series" else None)
    return f" Its {'; its '.join(parts)} (95 % intervals over {groups})."


def _scores(raw: Mapping[str, Any], scaled: Mapping[str, Any]) -> dict[str, Any]:
    """The measures over all windows by the names that they have in the tables."""
    in_deviations = {f"{NAMES[name]} s": scaled[name] for name in ("mse", "mae")}
    return {**in_deviations, **{NAMES[name]: raw[name] for name in NAMES if name in raw}}


def _measures(
    errors: Mapping[str, Errors], axes: tuple[int, ...], **units: Any
) -> dict[str, dict[str, Float[np.ndarray, "*rest"]]]:
    """The measures of the model and of the baselines, which are points and have no intervals."""
    found = {name: measures(e, axes, **units) for name, e in errors.items()}
    for name in found.keys() - {"model"}:
        del found[name]["coverage"], found[name]["width"]
    return found


def verdict(
    scores: Mapping[str, tuple[float, float]], enough: bool = True, clear: bool = True
) -> str:
    """Whether the model beats the baselines, in both MAE and MSE, in a plain sentence.

    Args:
        scores: MAE and MSE of ``"model"`` and of each baseline.
        enough: whether there are windows enough to say so, see ``chance.py``.
        clear: whether the least difference in one of them is more than chance may do.
    """
    own = scores["model"]
    others = {name: found for name, found in scores.items() if name != "model"}

    def said(name: str) -> str:
        mae, mse = others[name]
        return f"{name} (MAE {show(mae)}, MSE {show(mse)})"

    best = min(others, key=lambda name: others[name][0])
    mine = f"MAE {show(own[0])}, MSE {show(own[1])}, in standard deviations"
    if not enough:
        return (
            f"Too few windows for a verdict: expected at least {FEWEST} that do not overlap, or as "
            f"many series. So far, of the model: {mine}; the best baseline is {said(best)}."
        )
    worse = [
        [name for name, found in others.items() if not own[measure] < found[measure]]
        for measure in (0, 1)
    ]
    losses = [name for name in others if name in worse[0] or name in worse[1]]
    if not losses:
        won = "beats every baseline"
        if not clear:
            won = "has lower errors than every baseline, by no more than chance may do"
        return f"The model {won}: {mine}; the best of them is {said(best)}."
    far = "" if clear else ", by no more than chance may do"
    if len(losses) == len(others) and all(n in w for n in losses for w in worse):
        return f"The model LOSES to every baseline{far}: {mine}; the best of them is {said(best)}."
    lost = []
    for name in losses:
        where = [m for m, w in zip(("MAE", "MSE"), worse, strict=True) if name in w]
        lost.append(f"{said(name)} in {' and '.join(where)}")
    return f"The model LOSES to {'; to '.join(lost)}{far}. Its own: {mine}."


def _pairs(table: Float[np.ndarray, "series columns"], targets: int) -> Float[np.ndarray, " pairs"]:
    """What a table of the schema says of each target, numbered as in a batch."""
    return table[:, :targets].ravel()


def show(number: Any) -> str:
    """Four digits, or a dash for what could not be measured."""
    return f"{number:#.4g}".rstrip(".") if np.isfinite(number) else "–"


def _percent(share: Any) -> str:
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"


def _best_of(found: Mapping[str, float]) -> str:
    name = min(found, key=lambda name: found[name])
    return f"{show(found[name])} {name}"


def _handful(horizon: int) -> list[int]:
    """Some steps of the horizon, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, horizon - 1, min(horizon, 8))})
