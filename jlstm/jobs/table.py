"""Forecasts of the columns of a table: prepared, trained, judged by rolling origin, and used.

Every target of every series is a sample of its own, so that all of them train one model; a learned
embedding tells them apart. The model is judged on every window of the test part, one for each
origin, without being trained again on the way; and so, on the same windows, are the baselines of
``jlstm.metrics.forecasting``. Errors *in standard deviations* are divided by that of their target
in the training part.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jlstm.data.frame import read_table
from jlstm.data.series import (
    Panel,
    Part,
    Places,
    Roles,
    Schema,
    Series,
    check_missing,
    cut,
    extend,
    find_windows,
    learn,
    make_panel,
    parse_time,
    read_static,
    regular,
    show_time,
    shuffled,
    some,
    split_times,
)
from jlstm.devices import spread
from jlstm.extras import MissingExtraError, require
from jlstm.files import replacing, sha256
from jlstm.jobs.config import TableConfig
from jlstm.jobs.job import Evaluation, Job, Table, count_steps
from jlstm.layers import Stack
from jlstm.metrics.forecasting import (
    Errors,
    Moments,
    add_errors,
    drift,
    fit_linear,
    last_value,
    linear,
    measures,
    moments,
    no_errors,
    seasonal_naive,
)
from jlstm.models import (
    Forecaster,
    ForecasterConfig,
    WindowBatch,
    forecast,
    forecaster_loss,
    init_forecaster,
)
from jlstm.plots import Forecasted, plot_forecast
from jlstm.sequence import lstm
from jlstm.train.records import write_json

FILES = {
    "data/table.json": "columns, steps, split, scales, what was missing, and the sum of the file",
    "data/values.npy": "the series, one behind the other: a row for each step, NaN where missing",
}
"""What ``prepare`` writes."""

FEWEST_STEPS = 500
"""Of a training, unless ``steps`` says otherwise: small tables have few windows."""
MOST_VALIDATED, MOST_FITTED = 2**15, 2**17
"""Windows, spread evenly, that judge the parameters in training, and that fit the linear baseline;
the test has no such limit."""
AT_ONCE = 2048
"""Windows that are judged at once; without influence on the results."""
DROPOUT = 1
"""Tells the keys of the dropout from those of the first parameters."""


# Prepare, and what it left.


def prepare(config: TableConfig, files: Sequence[Path], folder: Path) -> None:
    """Check the user's table, and write what is to be known of it into the folder of the run.

    Raises:
        MissingExtraError: polars is not installed.
        OSError, ValueError: the file is no table of this form, or too short for the windows.
    """
    if len(files) != 1:
        raise ValueError(f"files: expected one table, got {len(files)}")
    file = Path(files[0])
    frame = read_table(file)
    roles = _roles(config)
    until = None if config.until is None else parse_time("until", config.until)
    series, step = regular(frame, roles, until=until)
    notes = series.notes + check_missing(series, roles, step, config.missing)
    schema, learned = learn(
        series,
        roles,
        step,
        horizon=config.horizon,
        lookback=config.lookback,
        season=config.season,
        missing=config.missing,
        calendar=config.calendar,
        split=split_times(series, step, config.validation, config.test),
        static=read_static(frame, roles, series),
    )
    _check_windows(series, make_panel(series, schema))
    known = {
        "file": {"name": file.name, "sha256": sha256(file), "rows": frame.height},
        "schema": schema.to_json(),
        "groups": series.groups,
        "starts": [str(start) for start in series.starts],
        "offsets": series.offsets.tolist(),
        "notes": [*notes, *learned],
    }
    (folder / "data").mkdir(exist_ok=True)
    with replacing(folder / "data/values.npy") as beside, open(beside, "wb") as out:
        np.save(out, series.values, allow_pickle=False)
    write_json(folder / "data/table.json", known)


def _roles(config: TableConfig) -> Roles:
    c: Any = config  # the columns have been made tuples
    return Roles(c.time, c.target, c.past, c.known_future, c.static, c.group)


def _check_windows(series: Series, panel: Panel) -> None:
    s = panel.schema
    when = series.times(s.step)
    rows = {
        "training": int((when < s.validation).sum()),
        "validation": int(((s.validation <= when) & (when < s.test)).sum()),
        "test": int((when >= s.test).sum()),
    }
    parts: tuple[Part, ...] = ("training", "validation", "test")
    for part in parts:
        if not len(find_windows(series, panel, part)):
            need = s.horizon + (s.lookback if part == "training" else 0)
            what = f"a window of {s.lookback} + {s.horizon}" if part == "training" else "a horizon"
            of = " in at least one series" if len(series.names) > 1 else ""
            raise ValueError(
                f"{part}: expected at least {need} rows, {what}{of}, got {rows[part]} rows of "
                f"{show_time(series.starts.min())} to {show_time(when.max())} in steps of "
                f"{s.step}, with validation from {show_time(s.validation)} and test from "
                f"{show_time(s.test)}"
            )


def _read(folder: Path) -> tuple[Mapping[str, Any], Schema, Series]:
    """What ``prepare`` wrote.

    Raises:
        OSError, ValueError: it is not there, or damaged.
    """
    path = folder / "data/table.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        schema = Schema.from_json(known["schema"])
        series = Series(
            names=schema.names,
            groups=tuple(map(tuple, known["groups"])),
            starts=np.array(known["starts"], "datetime64[us]"),
            offsets=np.array(known["offsets"]),
            values=np.load(folder / "data/values.npy", allow_pickle=False),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what jlstm wrote there, got: {error}") from None
    return known, schema, series


# Training.


def model_config(config: TableConfig, schema: Schema) -> ForecasterConfig:
    """The model for such a table."""
    roles = schema.roles
    patch = config.patch or min(8, max(1, schema.lookback // 12))
    return ForecasterConfig(
        lookback=schema.lookback,
        horizon=schema.horizon,
        quantiles=config.quantiles,
        series=len(schema.names) * len(roles.target),
        past=len(roles.past) + (schema.missing != "error"),
        known=len(roles.known),
        about=schema.static.shape[1] + 2 * len(schema.cycles),
        stack=Stack(
            sizes=(config.hidden,) * config.layers,
            dropout=config.dropout,
            output_dropout=config.dropout,
        ),
        patch=min(patch, schema.lookback),
        linear=config.linear,
    )


def build(config: TableConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote."""
    known, schema, series = _read(folder)
    panel = make_panel(series, schema)
    model = model_config(config, schema)
    parts = {part: find_windows(series, panel, part) for part in ("training", "validation", "test")}
    places = parts["training"]
    size = min(config.batch, len(places))
    layer, devices = spread(lstm, size)
    chosen = shuffled(len(places), size, config.seed)
    noise = jax.random.fold_in(jax.random.key(config.seed), DROPOUT)

    def batch(n: int) -> WindowBatch:
        window = cut(panel, _at(places, chosen(n)))
        return window._replace(key=jax.random.fold_in(noise, n))

    def loss(params: Forecaster, carry: Any, batch: WindowBatch) -> tuple[Any, Any]:
        return forecaster_loss(model, params, batch, layer=layer), carry

    epoch = -(-len(places) // size)
    steps = count_steps(config, epoch)
    if config.steps is None:
        steps = max(steps, FEWEST_STEPS)
    return Job(
        init=lambda key: init_forecaster(key, model),
        loss=loss,
        batch=batch,
        steps=steps,
        epoch=epoch,
        validate=_make_validate(model, panel, _some(parts["validation"], MOST_VALIDATED)),
        score="quantile loss, in standard deviations",
        unit="windows",
        per_step=lambda batch: float(len(batch.series)),
        devices=devices,
        about=_about(config, known, schema, series, model, parts, (size, epoch, steps, devices)),
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _at(places: Places, chosen: Any) -> Places:
    return Places(places.origins[chosen], places.targets[chosen])


def _some(places: Places, most: int) -> Places:
    """At most so many of them, spread evenly."""
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(np.int64)
    return _at(places, chosen)


def _make_validate(
    model: ForecasterConfig, panel: Panel, places: Places
) -> Callable[[Forecaster], float]:
    """Parameters to the mean loss over these windows."""
    compiled = jax.jit(lambda params, batch: forecaster_loss(model, params, batch))

    def validate(params: Forecaster) -> float:
        losses, counts = [], []
        for batch, _ in _batches(panel, places, AT_ONCE):
            losses.append(compiled(params, batch))
            counts.append(np.isfinite(np.asarray(batch.targets)).sum())
        return float(np.average(jax.device_get(losses), weights=counts))

    return validate


def _batches(panel: Panel, places: Places, size: int) -> Iterator[tuple[WindowBatch, Places]]:
    """All windows, in batches of one size; in the last, the first one stands for those missing.

    Its targets there are NaN, and do not count.
    """
    size = min(size, len(places))
    for start in range(0, len(places), size):
        here = _at(places, slice(start, start + size))
        more = size - len(here)
        batch = cut(panel, Places(*(np.pad(a, (0, more), mode="edge") for a in here)))
        targets = np.array(batch.targets)
        targets[:, len(here) :] = np.nan
        yield batch._replace(targets=targets), here


def _about(
    config: TableConfig,
    known: Mapping[str, Any],
    schema: Schema,
    series: Series,
    model: ForecasterConfig,
    parts: Mapping[str, Places],
    sizes: tuple[int, int, int, int],
) -> Sequence[str]:
    """From the rows of the file to the steps of the training, in sentences."""
    s = schema
    size, epoch, steps, devices = sizes
    when = series.times(s.step)
    last, count = when.max(), len(s.names)
    rows = {
        "training": (when < s.validation).sum(),
        "validation": ((s.validation <= when) & (when < s.test)).sum(),
        "test": (when >= s.test).sum(),
    }
    windows = {part: len(places) for part, places in parts.items()}
    cycles = ", ".join(s.cycles)
    weights = jax.eval_shape(lambda: init_forecaster(jax.random.key(0), model))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
    over = f", each cut over {devices} devices" if devices > 1 else ""
    passes = f"{steps / epoch:.3g} passes"
    return [
        f"{known['file']['name']}: {known['file']['rows']:,} rows, of which {len(when):,} steps of "
        f"{s.step} from {show_time(when.min())} to {show_time(last)}"
        + (f" in {count:,} series" if count > 1 else "")
        + f"; {_count(len(s.roles.target), 'target')}: {', '.join(s.roles.target)}.",
        *known["notes"],
        f"Training up to {show_time(s.validation)} ({rows['training']:,} rows), validation up to "
        f"{show_time(s.test)} ({rows['validation']:,}), test up to the end ({rows['test']:,}). "
        "Scales, mean and standard deviation of each target and series, are those of the training "
        "part.",
        f"A window has {s.lookback} steps to forecast from and {s.horizon} to foretell; one for "
        f"each step that it can begin at, and each target: {windows['training']:,} for training, "
        f"{windows['validation']:,} for validation, {windows['test']:,} for the test.",
        (f"Season: {s.season} steps. " if s.season > 1 else "No season. ")
        + (f"The calendar tells the time of the {cycles}." if cycles else "No calendar."),
        f"{windows['training']:,} windows in batches of {size}{over}: {_count(epoch, 'step')} "
        f"for a pass; {steps:,} steps, or {passes}. The model has {parameters:,} parameters.",
    ]


# Evaluation.


def evaluate(
    config: TableConfig, folder: Path, params: Forecaster, file: Path | None = None
) -> Evaluation:
    """Judge the parameters and the baselines on every window of the test part, or of a file.

    Writes the picture ``plots/forecast.png`` where matplotlib is installed; for a file,
    ``plots/forecast-<name of the file>.png``.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on; None for the test part.

    Raises:
        OSError, ValueError: the file is no table of this form, or has no whole window.
    """
    _, schema, own = _read(folder)
    panel = make_panel(own, schema)
    weights = _fit_linear(panel, own)
    series, part, notes = own, "test", []
    if file is not None:
        series, _ = regular(read_table(file), schema.roles, step=schema.step)
        notes += [*series.notes, *check_missing(series, schema.roles, schema.step, schema.missing)]
        panel, part = make_panel(series, schema), "all"
    places = find_windows(series, panel, "test" if file is None else "all")
    if not len(places):
        raise ValueError(
            f"{file or 'test'}: expected at least {schema.lookback} + {schema.horizon} rows of a "
            "series, a window, got fewer"
        )
    model = model_config(config, schema)
    errors = judge(model, params, panel, places, weights)
    if "seasonal naive" not in errors and schema.season > 1:
        notes.append(
            f"The seasonal naive forecast is left out: a window has {schema.lookback} steps, fewer "
            f"than the season's {schema.season}."
        )
    name = "forecast" if file is None else f"forecast-{file.stem}"
    try:
        (folder / "plots").mkdir(exist_ok=True)
        pictures = _pictures(model, params, series, panel, places)
        plot_forecast(pictures, folder / f"plots/{name}.png", model.quantiles)
        notes.append(f"Forecasts beside the truth: plots/{name}.png.")
    except MissingExtraError as error:
        notes.append(f"No picture: {error}")
    return _evaluation(model, schema, errors, len(np.unique(places.origins)), part, notes)


def _fit_linear(panel: Panel, series: Series) -> Float[np.ndarray, "lookback horizon"]:
    def add(part: Part) -> Moments:
        s = panel.schema
        total = Moments(
            np.zeros((s.lookback, s.lookback)), np.zeros((s.lookback, s.horizon)), np.zeros(())
        )
        for batch, _ in _batches(
            panel, _some(find_windows(series, panel, part), MOST_FITTED), 8192
        ):
            total = total + moments(np.asarray(batch.values).T, np.asarray(batch.targets).T)
        return total

    return fit_linear(add("training"), add("validation"))


def judge(
    model: ForecasterConfig,
    params: Forecaster,
    panel: Panel,
    places: Places,
    weights: Float[np.ndarray, "lookback horizon"],
    *,
    size: int = AT_ONCE,
) -> dict[str, Errors]:
    """The errors of the model and of each baseline over the same windows, in units of the table.

    The series of the errors are the targets of the first series, then those of the second…

    Args:
        model: what the model is made of.
        params: its parameters.
        panel: the data.
        places: the windows.
        weights: of the linear baseline.
        size: windows that are gone through at once; without influence on the result.
    """
    s = panel.schema
    compiled = jax.jit(lambda params, batch: forecast(model, params, batch))
    baselines: dict[str, Callable[[Any], Any]] = {
        "last value": lambda windows: last_value(windows, s.horizon),
        "drift": lambda windows: drift(windows, s.horizon),
        "linear": lambda windows: linear(windows, weights),
    }
    if 1 < s.season <= s.lookback:
        baselines["seasonal naive"] = lambda windows: seasonal_naive(windows, s.horizon, s.season)
    nothing = no_errors(model.series, s.horizon, len(model.quantiles))
    errors = dict.fromkeys(("model", *baselines), nothing)
    for batch, here in _batches(panel, places, size):
        rows = np.arange(s.horizon) + here.origins[:, None]
        pairs = np.asarray(batch.series)[: len(here)]
        mean, std = (a[panel.member[here.origins], here.targets][:, None] for a in (s.mean, s.std))
        truth = panel.truth[rows, here.targets[:, None]] * std + mean
        windows = np.asarray(batch.values).T[: len(here)].astype(np.float64)
        found = np.asarray(compiled(params, batch)).swapaxes(0, 1)[: len(here)]
        forecasts = {"model": found.astype(np.float64)}
        for name, baseline in baselines.items():
            point = baseline(windows)[..., None]
            forecasts[name] = np.broadcast_to(point, (*point.shape[:2], len(model.quantiles)))
        for name, values in forecasts.items():
            raw = values * std[..., None] + mean[..., None]
            errors[name] = add_errors(errors[name], truth, raw, pairs, model.quantiles)
    return errors


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


def _evaluation(
    model: ForecasterConfig,
    schema: Schema,
    errors: Mapping[str, Errors],
    origins: int,
    part: str,
    notes: Sequence[str],
) -> Evaluation:
    """Means, tables and a verdict from the sums."""
    # Targets that have no scale have no window, either; 1 keeps NaN out of the sums.
    std, naive = (_pairs(a, len(schema.roles.target)) for a in (schema.std, schema.naive))
    units: dict[str, Any] = {"unit": np.where(np.isfinite(std), std, 1.0), "naive": naive}
    raw = {name: measures(e, naive=units["naive"]) for name, e in errors.items()}
    scaled = {name: measures(e, **units) for name, e in errors.items()}
    by_step = {name: measures(e, (0,), **units) for name, e in errors.items()}
    by_series = {name: measures(e, (1,), naive=units["naive"]) for name, e in errors.items()}
    baselines = [name for name in errors if name != "model"]
    skill = 1 - by_step["model"]["mae"] / by_step["last value"]["mae"]
    low, high = model.quantiles[0], model.quantiles[-1]
    targets = [
        (name if len(schema.roles.target) == 1 and len(schema.names) > 1 else f"{name} {target}")
        if len(schema.names) > 1
        else target
        for name in schema.names
        for target in schema.roles.target
    ]
    windows = round(float(errors["model"].known.sum()))
    results = _plain(
        {
            "part": part,
            "origins": origins,
            "truths": windows,
            "refitted": False,
            "quantiles": model.quantiles,
            "nominal_coverage": high - low,
            "raw": raw,
            "scaled": scaled,
            "by_horizon_scaled": by_step,
            "skill_against_last_value": skill,
            "by_series": {"names": targets, **by_series},
        }
    )

    def row(name: str) -> list[str]:
        found = [scaled[name]["mse"], scaled[name]["mae"]]
        found += [raw[name][m] for m in ("mae", "rmse", "mase", "smape", "wql")]
        covered = f"{100 * scaled['model']['coverage']:.1f} %" if name == "model" else "–"
        return [name, *map(_show, found), covered]

    names = list(errors)
    best = int(np.argmin([scaled[name]["mae"] for name in names]))
    tables = [
        Table(
            f"Every window of the {part if part == 'test' else 'file'}: {origins:,} origins; "
            "s: in standard deviations",
            ("", "MSE s", "MAE s", "MAE", "RMSE", "MASE", "sMAPE %", "WQL", _interval(low, high)),
            [row(name) for name in names],
            (best,),
        ),
        Table(
            "MAE in standard deviations, for each step ahead; skill: what the model saves of the "
            "last value's",
            ("step", *names, "skill", _interval(low, high)),
            [
                [
                    str(step + 1),
                    *(_show(by_step[name]["mae"][step]) for name in names),
                    f"{100 * skill[step]:.1f} %",
                    f"{100 * by_step['model']['coverage'][step]:.1f} %",
                ]
                for step in _handful(schema.horizon)
            ],
        ),
    ]
    seen = np.flatnonzero(errors["model"].known.sum(axis=1) > 0)
    said = []
    for what, means, labels in (
        ("targets", by_series, {n: targets[n] for n in seen}),
        ("steps ahead", by_step, {n: str(n + 1) for n in range(schema.horizon)}),
    ):
        others = {b: means[b]["mae"] for b in baselines}
        worse = [
            f"{label} ({min(others, key=lambda b: others[b][n])})"
            for n, label in labels.items()
            if not means["model"]["mae"][n] < min(found[n] for found in others.values())
        ]
        if worse:
            said.append(
                f"A baseline has the lower MAE for {len(worse)} of {len(labels)} {what}: "
                f"{some(worse)}."
            )
    if 1 < len(seen) <= 20:
        columns = ("mae", "rmse", "mase", "smape", "wql")
        tables.append(
            Table(
                "For each target, the model",
                (
                    "",
                    *(NAMES[m] for m in columns),
                    _interval(low, high),
                    "MAE of the best baseline",
                ),
                [
                    [
                        targets[n],
                        *(_show(by_series["model"][m][n]) for m in columns),
                        f"{100 * by_series['model']['coverage'][n]:.1f} %",
                        _best_of({b: by_series[b]["mae"][n] for b in baselines}),
                    ]
                    for n in seen
                ],
            )
        )
    covered, nominal = float(scaled["model"]["coverage"]), high - low
    if abs(covered - nominal) > 0.1 * nominal:
        how = "narrow" if covered < nominal else "wide"
        said.append(
            f"The intervals are too {how}: {100 * covered:.1f} % of the truths are "
            f"{_interval(low, high)}."
        )
    return Evaluation(
        results=results,
        tables=tables,
        verdict=verdict({name: (float(m["mae"]), float(m["mse"])) for name, m in scaled.items()}),
        notes=[
            *said,
            "Rolling origin: one forecast from each step of the part, the model as it was trained.",
            *notes,
        ],
    )


def verdict(scores: Mapping[str, tuple[float, float]]) -> str:
    """Whether the model beats the baselines, in both MAE and MSE, in a plain sentence.

    Args:
        scores: MAE and MSE of ``"model"`` and of each baseline.
    """
    own = scores["model"]
    others = {name: found for name, found in scores.items() if name != "model"}

    def said(name: str) -> str:
        mae, mse = others[name]
        return f"{name} (MAE {_show(mae)}, MSE {_show(mse)})"

    best = min(others, key=lambda name: others[name][0])
    mine = f"MAE {_show(own[0])}, MSE {_show(own[1])}, in standard deviations"
    worse = [
        [name for name, found in others.items() if not own[measure] < found[measure]]
        for measure in (0, 1)
    ]
    losses = [name for name in others if name in worse[0] or name in worse[1]]
    if not losses:
        return f"The model beats every baseline: {mine}; the best of them is {said(best)}."
    if len(losses) == len(others) and all(n in w for n in losses for w in worse):
        return f"The model LOSES to every baseline: {mine}; the best of them is {said(best)}."
    lost = []
    for name in losses:
        where = [m for m, w in zip(("MAE", "MSE"), worse, strict=True) if name in w]
        lost.append(f"{said(name)} in {' and '.join(where)}")
    return f"The model LOSES to {'; to '.join(lost)}. Its own: {mine}."


def _pairs(table: Float[np.ndarray, "series columns"], targets: int) -> Float[np.ndarray, " pairs"]:
    """What a table of the schema says of each target, numbered as in a batch."""
    return table[:, :targets].ravel()


def _show(number: Any) -> str:
    """Four digits, or a dash for what could not be measured."""
    return f"{number:#.4g}".rstrip(".") if np.isfinite(number) else "–"


def _interval(low: float, high: float) -> str:
    return f"in the {100 * (high - low):g} % interval"


def _best_of(found: Mapping[str, float]) -> str:
    name = min(found, key=lambda name: found[name])
    return f"{_show(found[name])} {name}"


def _handful(horizon: int) -> list[int]:
    """Some steps of the horizon, the first and the last among them."""
    return sorted({round(x) for x in np.linspace(0, horizon - 1, min(horizon, 8))})


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no arrays and no NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _pictures(
    model: ForecasterConfig, params: Forecaster, series: Series, panel: Panel, places: Places
) -> list[Forecasted]:
    """Some targets, each with a few windows that follow each other, from the middle of the part."""
    s = panel.schema
    when = series.times(s.step)
    pair = panel.member[places.origins] * len(s.roles.target) + places.targets
    compiled = jax.jit(lambda params, batch: forecast(model, params, batch))
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
                times=when[shown],
                truth=panel.truth[shown, target] * std + mean,
                pieces=[
                    (when[origin : origin + s.horizon], found[:, k] * std + mean)
                    for k, origin in enumerate(own)
                ],
            )
        )
    return pictures


# Forecasts.


def predict(
    config: TableConfig, folder: Path, params: Forecaster, file: Path, out: Path
) -> Sequence[str]:
    """Forecast what comes after the last target of each series in a file.

    A row for each series, target and step: the columns of the group, the time, ``target``, and the
    quantiles as ``q0.1``, ``q0.5``…, of which ``q0.5`` is the point forecast.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on. It has at least as many rows as a
            window looks back on; and, where there are columns of a known future, also the rows to
            forecast, with the targets empty.
        out: a .csv or .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: the file is no table of this form, has too few rows, or lacks what is to be
            known of the future; then the rows that are needed are written beside ``out``, to be
            filled in. Or ``out`` ends in something else.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    if out.suffix not in {".csv", ".parquet"}:
        raise ValueError(f"out: expected a .csv or .parquet file, got {out}")
    schema = _read(folder)[1]
    roles, targets = schema.roles, len(schema.roles.target)
    found, _ = regular(read_table(file), roles, step=schema.step)
    origins = _ends(found, schema, file)
    rows = np.arange(len(found.values))
    ends = origins[found.member]
    notes = found.notes + check_missing(
        found,
        roles,
        schema.step,
        schema.missing,
        (ends - schema.lookback <= rows) & (rows < ends),  # what stands before does not matter
    )
    whole = extend(found, origins, schema.horizon)
    origins = whole.offsets[1:] - schema.horizon
    _check_future(whole, schema, out)

    panel = make_panel(whole, schema)
    places = Places(np.repeat(origins, targets), np.tile(np.arange(targets), len(origins)))
    model = model_config(config, schema)
    compiled = jax.jit(lambda params, batch: forecast(model, params, batch))
    columns: dict[str, list[Any]] = {
        name: [] for name in (*roles.group, roles.time, "target", *map(_quantile, model.quantiles))
    }
    when = whole.times(schema.step)
    parts = []
    for batch, here in _batches(panel, places, AT_ONCE):
        values = np.asarray(compiled(params, batch), np.float64)[:, : len(here)].swapaxes(0, 1)
        mean, std = (a[panel.member[here.origins], here.targets] for a in (schema.mean, schema.std))
        parts.append(values * std[:, None, None] + mean[:, None, None])
    forecasts = np.concatenate(parts)
    members = whole.member
    for values, origin, target in zip(forecasts, *places, strict=True):
        for name, key in zip(roles.group, whole.groups[members[origin]], strict=True):
            columns[name] += [key] * schema.horizon
        columns[roles.time] += when[origin : origin + schema.horizon].tolist()
        columns["target"] += [roles.target[target]] * schema.horizon
        for q, name in enumerate(map(_quantile, model.quantiles)):
            columns[name] += values[:, q].tolist()
    _write(pl.DataFrame(columns), out)
    return [
        *notes,
        f"{len(forecasts) * schema.horizon:,} rows, {schema.horizon} steps of {schema.step} for "
        f"each of {len(forecasts):,} series and targets, are in {out}.",
    ]


def _quantile(q: float) -> str:
    return f"q{q:g}"


def _ends(found: Series, schema: Schema, file: Path) -> Int[np.ndarray, " series"]:
    """The row after the last target of each series."""
    targets = np.isfinite(found.values[:, : len(schema.roles.target)]).any(axis=1)
    ends = []
    for n, name in enumerate(found.names):
        a, b = int(found.offsets[n]), int(found.offsets[n + 1])
        known = np.flatnonzero(targets[a:b])
        length = int(known[-1]) + 1 if known.size else 0
        if length < schema.lookback:
            of = f" of {name}" if schema.roles.group else ""
            raise ValueError(
                f"{file}: expected at least {schema.lookback} rows{of} with targets to forecast "
                f"from, got {length}"
            )
        ends.append(a + length)
    return np.array(ends)


def _check_future(whole: Series, schema: Schema, out: Path) -> None:
    """Raise where something that is to be known of the horizon is not, and write what is needed."""
    roles, step = schema.roles, schema.step
    rows = np.concatenate([np.arange(end - schema.horizon, end) for end in whole.offsets[1:]])
    columns = len(roles.columns) - len(roles.known) + np.arange(len(roles.known))
    values = whole.values[rows[:, None], columns]
    lacking = np.isnan(values)
    if not lacking.any():
        return
    when, member = whole.times(step)[rows], whole.member[rows]
    needed: dict[str, Any] = {
        name: [whole.groups[n][place] for n in member] for place, name in enumerate(roles.group)
    }
    needed[roles.time] = when
    for name in (*roles.target, *roles.past):
        needed[name] = [None] * len(rows)
    for place, name in enumerate(roles.known):
        needed[name] = [None if np.isnan(x) else x for x in values[:, place]]
    template = out.with_name(f"{out.stem}-needed.csv")
    pl = require("polars", "train")
    empty = dict.fromkeys(roles.columns, pl.Float64)
    _write(pl.DataFrame(needed, schema_overrides=empty), template)
    at, column = (int(a[0]) for a in np.nonzero(lacking))
    of = f" of {whole.names[member[at]]}" if roles.group else ""
    raise ValueError(
        f"known_future: expected values for {schema.horizon} steps after the last target, got "
        f"{lacking.sum():,} missing, the first of column {roles.known[column]!r}{of} at "
        f"{show_time(when[at])}; the rows that are needed are in {template}, to be filled in and "
        "added to the file"
    )


def _write(frame: Any, path: Path) -> None:
    """As CSV or Parquet, whole or not at all."""
    with replacing(path) as beside:
        if path.suffix == ".parquet":
            frame.write_parquet(beside)
        else:
            frame.write_csv(beside, datetime_format="%Y-%m-%d %H:%M:%S")
