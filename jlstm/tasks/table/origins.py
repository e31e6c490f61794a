"""Rolling origin with refits: the test part in stretches, the model of each trained on all before.

    |———— training ————|— validation —|· stretch 1 ·|                      test part
    |———————— training ————————|— validation —|· stretch 2 ·|
    |———————————— training ————————————|— validation —|· stretch 3 ·|

A stretch is some origins of the test part, which each belong to one stretch; what is foretold from
its last origins lies in the next. Scales are those of each training part; the validation part is as
long as that of the run; windows, season and calendar are those of the run, and so is the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jlstm.checks import wrong
from jlstm.records import plain
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Evaluation, Table
from jlstm.tasks.table.chance import Scores
from jlstm.tasks.table.clock import show_times
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.judging import Judged
from jlstm.tasks.table.measures import Errors, measures
from jlstm.tasks.table.preparing import load, write
from jlstm.tasks.table.report import report, show
from jlstm.tasks.table.schema import Schema, learn
from jlstm.tasks.table.series import Series
from jlstm.tasks.table.training import model_config


def resplits(
    config: TableConfig, folder: Path, count: int
) -> Sequence[tuple[str, Callable[[Path], TableConfig]]]:
    """The stretches of the test part of a run, by name, and what makes a run of each.

    Args:
        config: of the run.
        folder: of the run; of the user's file nothing is needed.
        count: how many stretches.

    Returns:
        For each its name, and a function that writes the data of its run into a folder and returns
        what to ask for.

    Raises:
        ValueError: the test part has fewer origins.
    """
    known, schema, series = load(folder)
    bounds = _bounds(schema, series, count)
    return [
        (str(n + 1), partial(_fill, config, known, schema, series, begin, end))
        for n, (begin, end) in enumerate(pairwise(bounds))
    ]


def _bounds(schema: Schema, series: Series, count: int) -> list[int]:
    """The origins at which the stretches begin, and the one after the last, in steps."""
    at = schema.step.counts(series.starts.min(), series.times(schema.step))
    first = int(at[series.times(schema.step) >= schema.test].min())
    origins = int(at.max()) + 1 - first - schema.horizon + 1
    if not 1 <= count <= origins:
        raise wrong(
            "refit",
            f"expected at most the {counted(origins, 'origin')} of the test part, got {count}",
        )
    return [first + round(n * origins / count) for n in range(count + 1)]


def _fill(
    config: TableConfig,
    known: Mapping[str, Any],
    schema: Schema,
    series: Series,
    begin: int,
    end: int,
    folder: Path,
) -> TableConfig:
    s, start, when = schema, series.starts.min(), series.times(schema.step)
    at = s.step.counts(start, when)
    kept = at < end + s.horizon - 1
    ends = [int(kept[a:b].sum()) for a, b in series.bounds]
    own = replace(
        series,
        offsets=np.cumsum([0, *ends]),
        values=series.values[kept],
        shift=None if series.shift is None else series.shift[kept],
    )
    tested, validated = (int(at[when >= t].min()) for t in (s.test, s.validation))
    split = s.step.times(start, np.array([begin - (tested - validated), begin]))
    learned, notes = learn(
        own,
        s.roles,
        s.step,
        horizon=s.horizon,
        lookback=s.lookback,
        season=s.season,
        missing=s.missing,
        calendar=False,
        split=(split[0], split[1]),
        static=(s.static, s.static_names),
    )
    about = {"file": known["file"], "notes": notes, "scales": None}
    write(folder, own, replace(learned, cycles=s.cycles), about)
    return replace(config, from_=None)


def pooled(
    config: TableConfig, folder: Path, results: Sequence[Evaluation], once: Evaluation
) -> Evaluation:
    """The judgements of the stretches as one of the whole test part, beside the run as it is.

    Args:
        config: of the run.
        folder: of the run.
        results: of the stretches, in their order.
        once: of the run itself, whose model was trained once, on the same windows.
    """
    _, schema, series = load(folder)
    bounds = _bounds(schema, series, len(results))
    std = schema.std[:, : len(schema.roles.target)].ravel()
    parts = [_of_series(one.sums, np.isfinite(std)) for one in results]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    unit = np.where(np.isfinite(std), std, 1.0)
    origins = once.results["origins"]
    found = report(
        model_config(config, schema), schema, total, origins, "test", (), refits=len(results)
    )

    def scaled(judged: Judged, name: str) -> tuple[float, float]:
        of = measures(judged.errors[name], (0, 1), unit=unit)
        return float(of["mae"]), float(of["mse"])

    baselines = [name for name in total.errors if name != "model"]
    rows, stretches = [], []
    own: dict[str, tuple[float, float]] = {}
    old = (np.nan, np.nan)
    starts = schema.step.times(series.starts.min(), np.array(bounds))
    for n, part in enumerate([*parts, total]):
        within = (bounds[n], bounds[n + 1]) if n < len(parts) else (bounds[0], bounds[-1])
        at = part.origins.at
        own = {name: scaled(part, name) for name in part.errors}
        old = _once(once.sums.origins, *within)
        begins = show_times(starts[n], form=schema.form)[0] if n < len(parts) else "all"
        stretches.append({"begins": begins, "origins": len(at), "once": old, **own})
        rows.append(
            [
                begins,
                f"{len(at):,}",
                *(show(x) for x in (*own["model"], *old)),
                *(show(own[name][0]) for name in baselines),
            ]
        )
    gain = " and ".join(
        f"{name} {show(new)} in place of {show(before)}"
        for name, new, before in zip(("MAE", "MSE"), own["model"], old, strict=True)
    )
    return replace(
        found,
        results={**found.results, "stretches": plain(stretches)},
        tables=[
            *found.tables,
            Table(
                "For each stretch, in standard deviations: the model trained on all before it, and "
                "trained once",
                ("from", "origins", "MAE", "MSE", "once: MAE", "MSE", *baselines),
                rows,
                (len(rows) - 1,),
            ),
        ],
        notes=[f"Trained anew for each stretch the model has {gain}.", *found.notes],
    )


def _of_series(judged: Judged, chosen: np.ndarray) -> Judged:
    """The errors of some series alone."""
    return judged._replace(
        errors={
            name: Errors(*(np.where(_like(chosen, a), a, 0.0) for a in errors))
            for name, errors in judged.errors.items()
        }
    )


def _like(chosen: np.ndarray, array: np.ndarray) -> np.ndarray:
    return chosen.reshape(-1, *[1] * (array.ndim - 1))


def _once(origins: Scores, begin: int, end: int) -> tuple[float, float]:
    """MAE and MSE of the model over the windows of some origins."""
    within = (origins.at >= begin) & (origins.at < end)
    known = origins.known[within].sum()
    mae, mse = (part["model"][within].sum() / known for part in origins[2:])
    return float(mae), float(mse)
