"""A run trained again on other splits of its own data, and judged on all of them together.

What the splits are, the task says (``resplits``). Each is an ordinary run in the folder
``evaluation`` of the run, with all its options: it can be resumed, and one that has finished is not
trained again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jlstm.checks import wrong
from jlstm.devices import use_cores
from jlstm.records import write_json
from jlstm.runs.folder import (
    best_run,
    check_sums,
    make_folder,
    read_config,
    read_json,
)
from jlstm.runs.kinds import kind_of, task_of
from jlstm.runs.report import for_people, write_report
from jlstm.runs.run import Watch, resume, settle
from jlstm.runs.use import Path_, evaluate, load, save_forecasts
from jlstm.tasks.config import Training
from jlstm.tasks.job import Evaluation, Say


def backtest(
    folder: Path_,
    count: int,
    option: str,
    *,
    forecasts: Path_ | None = None,
    say: Say = print,
    watch: Watch = lambda record: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Train the model of a run anew on each of several splits, and judge it on all of them.

    The runs are kept in ``evaluation/<option>-<count>``; what was interrupted goes on when it is
    asked for again. The results are in ``evaluation/<option>-<count>.json``.

    Args:
        folder: of the run, which stays as it is; nothing else is needed.
        count: how many splits.
        option: what the user calls it, ``refit`` or ``folds``.
        forecasts: a .parquet file to write those of all these models into, see ``save_forecasts``.
        say: is told what there is to know.
        watch: is told of every report of each training.
        interrupted: asked after every step; True saves a checkpoint and ends the training.

    Returns:
        The judgement of all; None where it was interrupted.

    Raises:
        OSError, ValueError: no folder of a run, or a damaged one; a run whose data is not split so,
            or not so often.
        FloatingPointError: a loss or gradient is not finite.
    """
    folder = best_run(folder, say)
    config = read_config(folder)
    task = task_of(config)
    if option != task.RESPLIT:
        way = f"; see --{task.RESPLIT}" if task.RESPLIT else ""
        raise wrong(
            option,
            "expected a run whose data can be split so, got one of jlstm train "
            f"{kind_of(config)}{way}",
        )
    if forecasts is not None:
        task.check_saving(config)
    check_sums(folder)
    parts = task.resplits(config, folder, count)
    use_cores()  # for the trainings; what is judged first would settle for one
    once = evaluate(folder, say=say)
    home = folder / "evaluation" / f"{option}-{count}"
    judged = []
    for n, (name, fill) in enumerate(parts, 1):
        run = home / name
        say(f"{option} {n} of {len(parts)}: {run}")
        if not run.exists():
            _make(replace(config, out=home, name=name), fill)
        if read_json(run / "result.json") is not None:
            judged.append(evaluate(run, say=say))
            continue
        outcome = resume(run, say=say, watch=watch, interrupted=interrupted)
        if outcome.evaluation is None:
            return None
        judged.append(outcome.evaluation)
    found = task.pooled(config, folder, judged, once)
    path = home.with_suffix(".json")
    where = (
        f"The results are in {path.relative_to(folder)}, the runs in {home.relative_to(folder)}."
    )
    begun = []
    if config.from_ is not None:
        begun = [f"The run went on from {config.from_}; these trainings began with nothing learnt."]
    found = replace(found, notes=[*begun, *found.notes, where])
    about = {option: count, "file": None, "splits": f"--{option} {count}", "verdict": found.verdict}
    write_json(path, {**about, **found.results, "for_people": for_people(found, "")})
    write_report(folder)
    if forecasts is None:
        return found
    models = [load(home / name, say=say) for name, _ in parts]
    return replace(found, notes=[*found.notes, *save_forecasts(models, None, forecasts)])


def _make(config: Training, fill: Callable[[Path], Any]) -> None:
    """The folder of one of the runs, there as a whole or not at all."""

    def whole(folder: Path) -> None:
        own = replace(fill(folder), out=config.out, name=config.name)
        settle(own, [], folder)

    make_folder(config, whole)
