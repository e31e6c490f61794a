"""The same training with several seeds: one run each, and how far their results are apart.

    folder = start(config, "load.csv", count=5)     # NAME/seed-0 … seed-4, all data prepared
    found = resume(folder)                          # trains what has not finished, then compares
    found.best                                      # the run with the lowest validation loss

Each of the runs is one like any other. The part for the test is looked at by all of them, once
each, for the mean and the spread of what is measured there; which run is the best, validation says.
"""

import csv
import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.files import replacing
from jlstm.records import plain, write_json
from jlstm.runs import run as jobs
from jlstm.runs.folder import (
    SEEDS,
    best_run,
    locked,
    make_folder,
    members,
    read_config,
    read_json,
)
from jlstm.runs.kinds import kind_of
from jlstm.runs.report import write_report
from jlstm.runs.run import Watch
from jlstm.runs.use import Path_
from jlstm.tasks.config import Training
from jlstm.tasks.job import Say, Table


class Spread(NamedTuple):
    """What several runs have measured of one thing."""

    mean: float
    sd: float | None
    """The standard deviation of the sample, with n − 1 below; None of a single run."""
    n: int


class Outcome(NamedTuple):
    """What became of the runs."""

    folder: Path
    finished: bool
    """False where they were interrupted."""
    best: Path | None
    """The run with the lowest validation loss."""
    tables: Sequence[Table]
    """The runs, and mean and spread of each measure: for people; also in ``seeds.json``."""


def start(config: Training, *files: Path_, count: int, say: Say = print) -> Path:
    """Make the folder of ``count`` runs with the seeds ``config.seed``, one more, and so on.

    The arguments, and what it raises, are those of ``jlstm.runs.run.start``.
    """
    seeds = list(range(config.seed, config.seed + count))

    def fill(folder: Path) -> None:
        for seed in seeds:
            (folder / f"seed-{seed}").mkdir()
            own = replace(config, seed=seed, name=f"seed-{seed}")
            jobs.fill(own, files, folder / f"seed-{seed}", say if seed == seeds[0] else _nothing)
        write_json(folder / SEEDS, {"seeds": seeds})

    folder = make_folder(config, fill)
    say(f"The runs are in {folder}.")
    return folder


def resume(
    folder: Path_,
    *,
    say: Say = print,
    watch: Watch = lambda record: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train those of the runs that have not finished, one after the other; then compare all.

    A run whose numbers are not finite is told of, and left out.

    Args:
        folder: of the runs.
        say: is told what there is to know.
        watch: is told of every report, as a dict.
        interrupted: asked after every step; True saves a checkpoint and ends the training.

    Raises:
        OSError, ValueError: as ``jlstm.runs.run.resume`` does.
        FloatingPointError: no run has come to its end.
    """
    folder = Path(folder)
    seeds = seeds_of(folder)
    told: list[str] = []

    def say_new(text: str) -> None:
        if text not in told:
            say(text)

    with locked(folder):
        failed = {}
        for n, seed in enumerate(seeds, 1):
            path = folder / f"seed-{seed}"
            if read_json(path / "result.json") is not None:
                continue
            _check_there(folder, seed)
            say(f"Seed {seed}, {n} of {len(seeds)}.")
            try:
                outcome = jobs.resume(path, say=say_new, watch=watch, interrupted=interrupted)
            except FloatingPointError as error:
                failed[seed] = str(error)
                say(f"Seed {seed} is left out. {error}")
                continue
            finally:  # the data is the same, and what it is made into
                told = told or read_json(path / "about.json") or []
            if not outcome.finished or outcome.evaluation is None:
                return Outcome(folder, False, None, ())
            say(f"Seed {seed}: {outcome.evaluation.verdict}")
        if len(failed) == len(seeds):
            raise FloatingPointError(failed[seeds[0]])
        return _compared(folder, seeds, failed)


def seeds_of(folder: Path) -> list[int]:
    """The seeds of the runs in a folder.

    Raises:
        ValueError: it does not say.
    """
    known = read_json(folder / SEEDS)
    seeds = known.get("seeds") if isinstance(known, dict) else None
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise ValueError(f"{folder / SEEDS}: expected the seeds of the runs, got none")
    return seeds


def _check_there(folder: Path, seed: int) -> None:
    """Raise unless there is the run of a seed; the message says how to make it again."""
    path, others = folder / f"seed-{seed}", members(folder)
    if path in others or not others:
        return
    command = ["jlstm", "train", kind_of(read_config(others[0]))]
    command += ["--config", str(others[0] / "config.toml"), "--seed", str(seed)]
    command += ["--out", str(folder), "--name", path.name]
    raise ValueError(
        f"{path}: expected a run, but it is not there; to train it: {shlex.join(command)}"
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def spreads(
    scores: Sequence[Mapping[str, Mapping[str, float | None]]],
) -> dict[str, dict[str, Spread]]:
    """Of each measure of the model and of each baseline, over runs; of runs that have it.

    Args:
        scores: of each run, as ``Evaluation.scores``.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for run in scores:
        for who, measures in run.items():
            for what, value in measures.items():
                if value is not None and math.isfinite(value):
                    found.setdefault(who, {}).setdefault(what, []).append(value)
    return {
        who: {what: spread(values) for what, values in measures.items()}
        for who, measures in found.items()
    }


def show_spread(found: Spread | None) -> str:
    """Mean ± standard deviation, to the decimals in which the latter has two digits."""
    if found is None:
        return "–"
    if found.sd is None:
        return f"{found.mean:.4g}"
    if not found.sd:
        return f"{found.mean:.4g} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(found.sd)))
    return f"{found.mean:.{decimals}f} ± {found.sd:.{decimals}f}"


def _compared(folder: Path, seeds: Sequence[int], failed: Mapping[int, str]) -> Outcome:
    """Mean and spread over the runs that have finished, written down and as tables."""
    ended = [seed for seed in seeds if seed not in failed]
    results = {seed: read_json(folder / f"seed-{seed}" / "result.json") for seed in ended}
    try:
        losses = {seed: float(results[seed]["best_loss"]) for seed in ended}
        steps = {seed: int(results[seed]["best_step"]) for seed in ended}
        verdicts = {seed: str(results[seed]["verdict"]) for seed in ended}
        found = spreads([results[seed]["scores"] for seed in ended])
        score = str(results[ended[0]]["score"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{folder}: expected result.json of each run as jlstm writes it, got something else"
        ) from None
    best = best_run(folder)
    loss = spread(list(losses.values()))
    runs: list[dict[str, Any]] = [
        {"seed": s, "best_step": steps[s], "validation_loss": losses[s], "verdict": verdicts[s]}
        for s in ended
    ]
    runs += [{"seed": seed, "failed": why} for seed, why in failed.items()]
    about = {
        "seeds": list(seeds),
        "runs": runs,
        "best": best.name,
        "best_by": f"validation loss, {score}",
        "sd": "of the sample (n - 1)",
        "validation_loss": loss._asdict(),
        "measures": {
            who: {what: one._asdict() for what, one in measures.items()}
            for who, measures in found.items()
        },
    }
    columns = list(dict.fromkeys(what for measures in found.values() for what in measures))
    tables = (
        Table(
            f"Validation loss in {score}; mean ± standard deviation: {show_spread(loss)}",
            ("seed", "best step", "validation loss", ""),
            [
                (
                    str(seed),
                    f"{steps[seed]:,}",
                    f"{losses[seed]:.4f}",
                    "the best" if f"seed-{seed}" == best.name else "",
                )
                for seed in ended
            ],
            [n for n, seed in enumerate(ended) if f"seed-{seed}" == best.name],
        ),
        Table(
            f"What was kept back: mean ± standard deviation (n − 1) of {len(ended)} seeds",
            ("", *columns),
            [
                (who, *(show_spread(measures.get(what)) for what in columns))
                for who, measures in found.items()
            ],
        ),
    )
    shown = [plain(asdict(table)) for table in tables]
    write_json(folder / SEEDS, {**about, "for_people": shown})
    _write_csv(folder / "seeds.csv", found, {s: results[s]["scores"] for s in ended})
    for seed in ended:
        write_report(folder / f"seed-{seed}")
    return Outcome(folder, True, best, tables)


def _write_csv(
    path: Path, found: Mapping[str, Mapping[str, Spread]], scores: Mapping[int, Mapping[str, Any]]
) -> None:
    """A row for each measure of the model and of each baseline, with its value for each seed."""
    with replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["of", "measure", "mean", "sd", "n", *(f"seed {seed}" for seed in scores)])
        for who, measures in found.items():
            for what, one in measures.items():
                values = [run.get(who, {}).get(what) for run in scores.values()]
                writer.writerow([who, what, *one, *values])


def _nothing(text: str) -> None:
    pass
