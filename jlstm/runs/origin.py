"""Runs that begin with what another one has learnt: made longer, or on another file.

The other run stays as it is, and is not needed afterwards: what the new one begins with is a
checkpoint in its folder ``start``. There are two ways to get it:

    lengthen(run, steps=…)      all of the run after its last step, on the same data: it goes on
    train(like(run), file)      the best parameters, and nothing else: a training from step 0
"""

import math
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jlstm.checks import wrong
from jlstm.files import quoted
from jlstm.records import write_json
from jlstm.runs.folder import (
    best_run,
    check_sums,
    make_folder,
    read_config,
    read_json,
    read_sources,
    write_config,
)
from jlstm.runs.kinds import kind_of, task_of
from jlstm.runs.state import check_memory, environment_of, first_state, write_state
from jlstm.runs.use import load_best
from jlstm.tasks.config import Training
from jlstm.tasks.job import Job, Say
from jlstm.train import Best, Book
from jlstm.train.checkpoints import newest_checkpoint


def like(run: str | os.PathLike[str], **options: Any) -> Training:
    """What to ask for to train the model of a run on another file.

    Args:
        run: the folder of a run, or of several, of which the best one is taken.
        options: of the new one; what is not said is as it was in ``run``, but for the length and
            the place of the training: ``Training.of_one_run``.

    Raises:
        OSError: no folder of a run.
        TypeError, ValueError: an option that there is not, of another type or out of range; or one
            that is part of the model.
    """
    run = best_run(run)
    config = read_config(run)
    own = type(config)(**{**inherited(config), "from_": run, **options})
    check_origin(own)
    return own


def inherited(config: Training) -> dict[str, Any]:
    """The options that a training takes over from the one that it goes on from."""
    names = (field.name for field in fields(config))
    return {name: getattr(config, name) for name in names if name not in config.of_one_run}


def check_origin(config: Training) -> None:
    """Raise unless the run that this training goes on from has the same kind of model.

    Raises:
        OSError: there is no such run.
        ValueError: it is damaged, has learnt nothing yet, or is another kind of model.
    """
    if config.from_ is None:
        return
    run = config.from_
    theirs = read_config(run, "from_")
    check_kind(run, theirs, kind_of(config))
    for name in config.kept:
        wanted, got = getattr(theirs, name), getattr(config, name)
        if wanted != got:
            raise wrong(
                name,
                f"expected {_shown(wanted)}, with which the model of {run} was made, got "
                f"{_shown(got)}",
            )
    check_sums(run)


def check_kind(run: Path, config: Training, wanted: str) -> None:
    """Raise ValueError unless a run's model is of this kind."""
    got = kind_of(config)
    if got != wanted:
        raise wrong(
            "from_", f"expected a run of jlstm train {wanted}, got {run}, one of jlstm train {got}"
        )


def _shown(value: Any) -> str:
    """An option as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(value)


def begin_with_best(config: Training, folder: Path, job: Job, say: Say) -> None:
    """Write what a training on another file begins with: the best parameters of the other run.

    They are the first to be kept: where nothing better is found, they stay.

    Raises:
        OSError: it cannot be written.
        ValueError: the other run has learnt nothing yet.
    """
    assert config.from_ is not None
    best = load_best(config.from_, say=say)
    loss = job.validate(best.params)
    say(f"The model of {config.from_}: {loss:.4g} {job.score}, on the new data for validation.")
    state = first_state(config, job, best.params)
    kept = Best(loss, 0, state.params) if math.isfinite(loss) else None
    write_state(folder / "start", state, Book(kept))


def lengthen(
    run: str | os.PathLike[str],
    *,
    steps: int | None = None,
    epochs: float | None = None,
    learning_rate: float | None = None,
    name: str | None = None,
    say: Say = print,
) -> Path:
    """Make the folder of a run that goes on where a finished one ended; ``resume`` trains it.

    Parameters, optimiser, memory of the text, best parameters and the order of the data go on; of
    the validations without a better one none is counted any more. The learning rate rises and falls
    once more over the steps that are added, see ``make_optimizer``.

    Args:
        run: the folder of the finished run, which stays as it is; of several, the best is taken.
        steps: the new length, the steps made so far included.
        epochs: the same in epochs.
        learning_rate: the highest from now on; None for that of ``run``.
        name: of the new folder, beside ``run``; None for one with the time.
        say: is told where the folder is.

    Raises:
        OSError: no folder of a run, or the new one cannot be made.
        TypeError, ValueError: the run has not finished, or its last checkpoint is no longer there;
            a length that is no longer than the run, or another option out of range.
    """
    given = Path(run)
    run = best_run(given, say)
    old = read_config(run)
    check_sums(run)
    ended = read_json(run / "result.json")
    if ended is None:
        raise wrong(
            "run", f"expected one that has finished, got {run}; see jlstm resume {quoted(run)}"
        )
    last = int(ended["step"])
    rate = old.learning_rate if learning_rate is None else learning_rate
    parent = given.parent if given.name not in ("", "..") else given.resolve().parent
    config = replace(
        old, steps=steps, epochs=epochs, learning_rate=rate, from_=run, out=parent, name=name
    )
    if steps is None and epochs is None:
        raise wrong("steps, epochs", "expected the length of the longer run, got none")
    job = task_of(config).build(config, run)
    if job.steps <= last:
        asked = ("steps", str(steps), f"{last:,}")
        if epochs is not None:
            asked = ("epochs", f"{epochs:g}", f"{last / job.epoch:.4g}")
        raise wrong(asked[0], f"expected more than the {asked[2]} of {run}, got {asked[1]}")
    if config.warmup is not None:
        config = replace(config, warmup=min(config.warmup, job.steps - last))
    checkpoints = run / "checkpoints"
    if newest_checkpoint(checkpoints) != last:
        raise ValueError(
            f"{checkpoints}: expected the checkpoint of step {last}, the last, as it was written, "
            "got none; to begin with the best parameters: jlstm train … --from"
        )

    def fill(folder: Path) -> None:
        check_memory(config, job)
        shutil.copytree(run / "data", folder / "data")
        shutil.copytree(checkpoints / str(last), folder / "start" / str(last))
        for file in (f"checkpoints/{last}.json", "metrics.jsonl", "timing.jsonl"):
            shutil.copy2(run / file, folder / file.replace("checkpoints", "start"))
        check_sums(folder)
        write_config(folder, config, read_sources(run))
        write_json(folder / "environment.json", environment_of(job))

    folder = make_folder(config, fill)
    say(f"The longer run is in {folder}.")
    return folder
