"""The errors of a forecaster and its baselines, as means, tables and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jlstm.records import plain
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.table.chance import FEWEST, Difference, Scores, difference, spans
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
    raw = _measures(errors, (0, 1), naive=units["naive"])
    scaled = _measures(errors, (0, 1), **units)
    by_step = _measures(errors, (0,), **units)
    by_series = _measures(errors, (1,), naive=units["naive"])
    baselines = [name for name in errors if name != "model"]
    naive_errors = by_step["last value"]["mae"]  # 0 for a target that does not move
    skill = 1 - by_step["model"]["mae"] / np.where(naive_errors > 0, naive_errors, np.nan)
    low, high = model.quantiles[0], model.quantiles[-1]
    targets = [
        (name if len(schema.roles.target) == 1 and len(schema.names) > 1 else f"{name} {target}")
        if len(schema.names) > 1
        else target
        for name in schema.names
        for target in schema.roles.target
    ]
    many = "targets"
    if len(schema.names) > 1:
        many = "series" if len(schema.roles.target) == 1 else "series and targets"
    windows = round(float(errors["model"].known.sum()))
    results = plain(
        {
            "part": part,
            "origins": origins,
            "truths": windows,
            "refitted": refits,
            "quantiles": model.quantiles,
            "nominal_coverage": high - low,
            "raw": raw,
            "scaled": scaled,
            "by_horizon_scaled": by_step,
            "skill_against_last_value": skill,
            "by_series": {"names": targets, **by_series},
        }
    )
    enough, chance = _chance(judged, schema, scaled)
    results["chance"] = plain(chance)
    before = _before(judged, units)
    if before:
        results["uncalibrated"] = plain(before)

    def row(name: str) -> list[str]:
        found = [scaled[name]["mse"], scaled[name]["mae"]]
        found += [raw[name][m] for m in ("mae", "rmse", "mase", "smape", "wql")]
        covered = f"{100 * scaled['model']['coverage']:.1f} %" if name == "model" else "–"
        return [name, *map(show, found), covered]

    names = list(errors)
    best = int(np.argmin([scaled[name]["mae"] for name in names]))

    def step_row(step: int) -> list[str]:
        return [
            str(step + 1),
            *(show(by_step[name]["mae"][step]) for name in names),
            f"{100 * skill[step]:.1f} %",
            f"{100 * by_step['model']['coverage'][step]:.1f} %",
        ]

    tables = [
        Table(
            f"Every window of the {part if part == 'test' else 'file'}: "
            f"{counted(origins, 'origin')}; s: in standard deviations",
            ("", "MSE s", "MAE s", "MAE", "RMSE", "MASE", "sMAPE %", "WQL", _interval(low, high)),
            [row(name) for name in names],
            (best,),
        ),
        Table(
            "MAE in standard deviations, for each step ahead; skill: what the model saves of the "
            "last value's",
            ("step", *names, "skill", _interval(low, high)),
            [step_row(step) for step in _handful(schema.horizon)],
        ),
    ]
    details = []
    if schema.horizon > len(tables[1].rows):
        every = [step_row(step) for step in range(schema.horizon)]
        details.append(
            replace(tables[1], title="MAE in standard deviations, for every step ahead", rows=every)
        )
    seen = np.flatnonzero(errors["model"].known.sum(axis=1) > 0)
    said = []
    for what, means, labels in (
        (many, by_series, {n: targets[n] for n in seen}),
        ("steps ahead", by_step, {n: str(n + 1) for n in range(schema.horizon)}),
    ):
        others = {b: means[b]["mae"] for b in baselines}
        worse = [
            f"{label} ({min(others, key=lambda b: others[b][n])})"
            for n, label in labels.items()
            if not means["model"]["mae"][n] < min(found[n] for found in others.values())
        ]
        if worse and len(labels) > 1:  # what the verdict says of one
            said.append(
                f"A baseline has the lower MAE for {len(worse)} of {len(labels)} {what}: "
                f"{some(worse)}."
            )
    if len(seen) > 1:
        columns = ("mae", "rmse", "mase", "smape", "wql")
        (tables if len(seen) <= 20 else details).append(
            Table(
                f"For each {'target' if many == 'targets' else 'series'}, the model",
                (
                    "",
                    *(NAMES[m] for m in columns),
                    _interval(low, high),
                    "MAE of the best baseline",
                ),
                [
                    [
                        targets[n],
                        *(show(by_series["model"][m][n]) for m in columns),
                        f"{100 * by_series['model']['coverage'][n]:.1f} %",
                        _best_of({b: by_series[b]["mae"][n] for b in baselines}),
                    ]
                    for n in seen
                ],
            )
        )
    covered, nominal = float(scaled["model"]["coverage"]), high - low
    if before:
        said.append(
            "The intervals are calibrated by the errors on the validation part: "
            f"{100 * before['coverage']:.1f} % of the truths were {_interval(low, high)} before, "
            f"{100 * covered:.1f} % are now."
        )
    if abs(covered - nominal) > 0.1 * nominal:
        how = "narrow" if covered < nominal else "wide"
        said.append(
            f"The intervals are too {how}: {100 * covered:.1f} % of the truths are "
            f"{_interval(low, high)}."
        )
    return Evaluation(
        results=results,
        tables=tables,
        verdict=verdict(
            {name: (float(m["mae"]), float(m["mse"])) for name, m in scaled.items()},
            enough,
            any(Difference(**chance[m]).beyond_chance for m in ("mae", "mse") if m in chance),
        )
        + _told(chance),
        notes=[
            *said,
            "Rolling origin: one forecast from each step of the part, the model "
            + (f"trained anew for each of {refits} stretches." if refits else "as it was trained."),
            *notes,
        ],
        sums=judged,
        details=details,
        scores=plain({name: _scores(raw[name], scaled[name]) for name in names}),
    )


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
        what = "more than chance" if d.beyond_chance else "no more than chance may do"
        parts.append(
            f"{NAMES[measure]} and that of {d.baseline} differ by {d.mean:+.3g} ± {d.margin:.2g}, "
            f"{what}"
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


def _interval(low: float, high: float) -> str:
    return f"in the {100 * (high - low):g} % interval"


def _best_of(found: Mapping[str, float]) -> str:
    name = min(found, key=lambda name: found[name])
    return f"{show(found[name])} {name}"


def _handful(horizon: int) -> list[int]:
    """Some steps of the horizon, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, horizon - 1, min(horizon, 8))})
