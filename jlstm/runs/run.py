"""A run from beginning to end: started, trained, stopped and gone on with, judged.

There is one way to train: go on from the newest checkpoint of a folder. A fresh folder
has none, and begins with step 0; what was resumed goes the way that any run goes::

    outcome = train(TextConfig(epochs=5), "book.txt")     # = resume(start(config, files))
    outcome = resume(outcome.folder)                      # after whatever stopped it
    outcome.evaluation.verdict

Runs that begin with what another one has learnt are in ``origin.py``.
"""

import errno
import shutil
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm.extras import require
from jlstm.files import quoted
from jlstm.plots import plot_training
from jlstm.records import (
    append_json_line,
    plain,
    read_json_lines,
    write_json,
    write_json_lines,
)
from jlstm.runs.folder import (
    begins_at,
    best_run,
    check_sums,
    locked,
    logged,
    make_folder,
    read_config,
    read_json,
    write_config,
    write_sums,
)
from jlstm.runs.kinds import task_of
from jlstm.runs.origin import begin_with_best, check_origin
from jlstm.runs.report import write_report
from jlstm.runs.state import (
    best_of_checkpoint,
    check_memory,
    environment_of,
    first_state,
    optimizer_of,
    read_best,
    restore,
    save,
    save_best,
)
from jlstm.runs.toml import write_toml
from jlstm.runs.use import Path_, Trained, judge, ready
from jlstm.tasks.config import Training
from jlstm.tasks.job import Evaluation, Job, Say
from jlstm.train import Best, Book, Progress, TrainState, fit, make_train_step

Watch = Callable[[Mapping[str, Any]], None]
"""Is told of every report: its metrics, its timing, and the names of what they count."""

REPORTS = 200
"""In a run, about: each waits for the device."""
CHECKPOINT_SECONDS = 300.0
"""Between checkpoints, where validations are further apart."""


class Outcome(NamedTuple):
    """What became of a run."""

    folder: Path
    step: int
    best: Best | None
    """The parameters with the lowest validation loss; None before the first validation."""
    finished: bool
    """False where it was interrupted."""
    evaluation: Evaluation | None
    """On the data that was kept back, once the run is finished and judged."""


def train(
    config: Training,
    *files: Path_,
    say: Say = print,
    watch: Watch = lambda record: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train a model on the user's files: ``start`` and ``resume``, whose arguments these are."""
    return resume(start(config, *files, say=say), say=say, watch=watch, interrupted=interrupted)


def start(config: Training, *files: Path_, say: Say = print) -> Path:
    """Make the folder of a run: the configuration and the data, checked. Nothing is trained.

    Args:
        config: ``TextConfig``, ``TableConfig`` or ``SequencesConfig``.
        files: the user's files.
        say: is told what was made of them.

    Returns:
        The folder.

    Raises:
        MissingExtraError: a package is not installed.
        TypeError, ValueError, OSError: the configuration or the files are not what they should be;
            nothing is left behind.
    """
    folder = make_folder(config, lambda folder: fill(config, files, folder, say))
    say(f"The run is in {folder}.")
    return folder


def check_packages() -> None:
    """Raise MissingExtraError where something is missing: before the work, not after it."""
    packages = ("orbax.checkpoint", "filelock", "safetensors", "polars", "tomlkit", "jinja2")
    for package in packages:
        require(package, "train")
    require("matplotlib", "plots")


def fill(config: Training, files: Sequence[Path_], folder: Path, say: Say) -> None:
    """Write into a new folder all that a run begins with; ``start`` says what it raises."""
    check_packages()
    if config.from_ is not None:
        config = replace(config, from_=best_run(config.from_))
    task, paths = task_of(config), [Path(file) for file in files]
    check_origin(config)
    task.prepare(config, paths, folder)
    job = settle(config, paths, folder)
    write_toml(folder / "config.toml", config, paths)
    if config.from_ is not None:
        begin_with_best(config, folder, job, say)


def settle(config: Training, paths: Sequence[Path], folder: Path) -> Job:
    """Check that what is prepared can be trained, and write down what was asked for, and on what.

    Raises:
        OSError, ValueError: it cannot be trained, or not be written.
    """
    task = task_of(config)
    job = task.build(config, folder)  # refuses what cannot be
    check_memory(config, job)
    write_config(folder, config, paths)
    write_sums(folder, task.FILES)
    write_json(folder / "environment.json", environment_of(job))
    return job


def resume(
    folder: Path_,
    *,
    say: Say = print,
    watch: Watch = lambda record: None,
    interrupted: Callable[[], bool] = lambda: False,
    judging: bool = True,
) -> Outcome:
    """Train on from the newest checkpoint, to the end; then judge the best parameters.

    Parameters and metrics are, bit for bit, those of a run that was never stopped (on the same
    machine, with the same number of devices).

    Args:
        folder: of the run.
        say: is told what there is to know.
        watch: is told of every report, as a dict.
        interrupted: asked after every step; True saves a checkpoint and ends the training.
        judging: whether the parameters are judged once the training is at its end. Where they are
            not, nothing has looked at the part for the test, and the run waits for a ``resume``
            that does.

    Raises:
        OSError, ValueError: no folder of a run, or a damaged one; somebody else trains in it; it
            cannot be written.
        FloatingPointError: a loss or gradient is not finite.
    """
    folder = Path(folder)
    config = read_config(folder)
    with locked(folder), _told(folder):
        say = logged(folder, say)
        check_sums(folder)
        job = task_of(config).build(config, folder)
        write_json(folder / "about.json", list(job.about))
        result = read_json(folder / "result.json")
        if result is not None:
            say("The training is finished; the model is judged again.")
            kept, judged = _judged(config, job, folder, say)
            write_report(folder)
            return Outcome(folder, result["step"], kept, True, judged)
        for sentence in (*job.about, *_elsewhere(folder, job)):
            say(sentence)
        step, best, finished = _fit(config, job, folder, say, watch, interrupted)
        if not finished:
            return Outcome(folder, step, best, False, None)
        if best is None:
            raise FloatingPointError(
                "training: expected a finite validation loss, got none in the whole run; a lower "
                "learning rate may help"
            )
        if not judging:
            return Outcome(folder, step, best, True, None)
        if config.from_ is not None and best.step <= begins_at(folder):
            say(f"Nothing was better than what {config.from_} had learnt, and that is kept.")
        (folder / "plots").mkdir(exist_ok=True)
        plot_training(
            read_json_lines(folder / "metrics.jsonl"),
            folder / "plots" / "training.png",
            score=job.score,
            best=(best.step, best.loss),
        )
        _, judged = _judged(config, job, folder, say)
        ended = {"step": step, "steps": job.steps, "best_step": best.step, "best_loss": best.loss}
        said = {"score": job.score, "verdict": judged.verdict, "scores": judged.scores}
        write_json(folder / "result.json", {**ended, **said})
        write_report(folder)
        return Outcome(folder, step, best, True, judged)


def _judged(config: Training, job: Job, folder: Path, say: Say) -> tuple[Best, Evaluation]:
    """The best parameters, as they were written, and what they are worth."""
    best = read_best(folder, lambda: job.template)
    best = best or best_of_checkpoint(folder, config, job, say)
    return best, judge(ready(Trained(folder, config, best.params, best.step, best.loss)))


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What ends a training also stands in its log; and how to go on, where there is no room."""
    try:
        yield
    except (FloatingPointError, OSError, ValueError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            said = f"{error.filename or folder}: {error.strerror}"
        if isinstance(error, OSError):
            said += f"; to go on from the last checkpoint: jlstm resume {quoted(folder)}"
        with suppress(OSError):
            logged(folder, lambda text: None)(f"Ended: {said}")
        if isinstance(error, OSError):
            raise OSError(said) from error
        raise


def _fit(
    config: Training,
    job: Job,
    folder: Path,
    say: Say,
    watch: Watch,
    interrupted: Callable[[], bool],
) -> tuple[int, Best | None, bool]:
    """Train to the end or an interruption: the last step, the best parameters, whether it ended."""
    state, book = _where_it_stands(folder, config, job, say)
    count, traced = int(state.step), 0

    def loss(*arguments: Any) -> tuple[Any, Any]:
        nonlocal traced  # a function of Python runs once for each program made of it
        traced += 1
        return job.loss(*arguments)

    skip = config.not_finite == "skip"
    optimizer = optimizer_of(config, job, begins_at(folder))
    step = make_train_step(loss, optimizer, skip_not_finite=skip)
    loader = Loader(job, count)
    stopped = False

    def stop() -> bool:
        nonlocal stopped
        stopped = interrupted() and loader.next < job.steps  # after the last step it is too late
        return stopped

    reports = fit(
        step,
        state,
        loader,
        report_every=max(1, job.steps // REPORTS),
        validate=loader.validate,
        validate_every=config.validate_every or max(1, min(job.epoch, job.steps // 10)),
        patience=config.patience,
        skip_not_finite=skip,
        stop=stop,
        book=book,
    )
    saved = clock.perf_counter()
    with scalars(folder if config.tensorboard else None, count) as write_scalars:
        for progress in reports:
            count, book = progress.step, progress.book
            if progress.reported:
                record = _report(folder, progress, loader, job, say)
                write_scalars(record)
                watch(record)
            now = clock.perf_counter()
            late = now - saved > CHECKPOINT_SECONDS
            if progress.validation_loss is not None or late or stopped:
                save(folder, progress)
                saved = now
    if traced and not stopped:
        seconds = loader.seconds()
        say(
            f"{loader.items:,.0f} {job.unit} in {seconds:.0f} s, of which "
            f"{loader.waited / seconds:.1%} went into making batches, beside the training, and "
            f"{loader.validated / seconds:.0%} into validation. Training steps compiled: {traced}."
        )
    if not stopped and count < job.steps:
        say(
            f"Ended after {count:,} of {job.steps:,} steps: {book.stale} validations in a row "
            "without a better one."
        )
    return count, book.best, not stopped


def _elsewhere(folder: Path, job: Job) -> Iterator[str]:
    """What of the machine has changed since the run was started, where it matters."""
    then, now = read_json(folder / "environment.json") or {}, environment_of(job)
    for name, what in (("batch_devices", "devices"), ("versions", "packages")):
        if then.get(name) != now[name]:
            yield (
                f"The run was started with other {what} ({then.get(name)}; now {now[name]}): what "
                "follows is as it would have been up to rounding only."
            )


def _where_it_stands(folder: Path, config: Training, job: Job, say: Say) -> tuple[TrainState, Book]:
    """The newest good checkpoint, or the first state; what was recorded later is taken back."""
    found = restore(folder, config, job, say)
    state, book = found or (first_state(config, job), Book())
    step, begin = int(state.step), begins_at(folder)
    if step > begin:
        say(f"Going on from the checkpoint of step {step:,}.")
    elif any(record["step"] > begin for record in read_json_lines(folder / "metrics.jsonl")):
        say("There is no good checkpoint: starting from the beginning.")
        if (folder / "best.json").exists():
            say("What there was is kept in files whose names begin with before-.")
            shutil.copy2(folder / "metrics.jsonl", folder / "before-metrics.jsonl")
            for name in ("best.safetensors", "best.json"):
                (folder / name).replace(folder / f"before-{name}")
    elif begin:
        say(f"Going on where {config.from_} ended, after step {begin:,}.")
    for name in ("metrics.jsonl", "timing.jsonl"):
        if (folder / name).exists():  # a line that was cut off goes, too
            kept = [record for record in read_json_lines(folder / name) if record["step"] <= step]
            write_json_lines(folder / name, kept)
    if book.best is not None:
        save_best(folder, book.best, job)
    return state, book


class Loader:
    """The batches from a step on, and where the time goes."""

    def __init__(self, job: Job, first: int) -> None:
        self.next = first
        self.items = 0.0
        self.waited = self.validated = 0.0
        self._job, self._start = job, clock.perf_counter()
        self._lap = (0.0, 0.0)

    def __iter__(self) -> Iterator[Any]:
        while self.next < self._job.steps:
            before = clock.perf_counter()
            batch = self._job.batch(self.next)
            self.waited += clock.perf_counter() - before
            self.next += 1
            yield batch
            self.items += self._job.per_step(batch)  # once its step is under way

    def validate(self, params: Any) -> float:
        """The job's validation, its time kept apart."""
        before = clock.perf_counter()
        # Fetched, so that the job is free to put them on any of the devices.
        loss = self._job.validate(jax.tree.map(jnp.asarray, jax.device_get(params)))
        self.validated += clock.perf_counter() - before
        return loss

    def seconds(self) -> float:
        """Since the beginning."""
        return clock.perf_counter() - self._start

    def speed(self) -> float:
        """Items per second of training since this was last asked for."""
        items, seconds = self.items, self.seconds() - self.validated
        before, self._lap = self._lap, (items, seconds)
        return (items - before[0]) / max(seconds - before[1], 1e-9)


def _report(folder: Path, progress: Progress, loader: Loader, job: Job, say: Say) -> dict[str, Any]:
    """Write down what a report says, and the best parameters where there are better ones."""
    p = progress
    if p.best is not None and p.best.step == p.step:
        save_best(folder, p.best, job)
    for step in p.skipped:
        say(f"Skipped step {step:,}: its loss or gradient was not finite.")
    metrics = plain(
        {
            "step": p.step,
            "loss": p.loss,
            "grad_norm": p.grad_norm,
            "skipped": len(p.skipped),
            "validation_loss": p.validation_loss,
        }
    )
    timing = {
        "step": p.step,
        "seconds": round(loader.seconds(), 3),
        "per_second": round(loader.speed(), 1),
        "waiting": round(loader.waited / loader.seconds(), 4),
        "validating": round(loader.validated / loader.seconds(), 4),
    }
    append_json_line(folder / "metrics.jsonl", metrics)
    append_json_line(folder / "timing.jsonl", timing)
    return {**metrics, **timing, "steps": job.steps, "unit": job.unit, "score": job.score}


@contextmanager
def scalars(folder: Path | None, step: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a record for TensorBoard, into ``folder``; for None it does nothing.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """
    if folder is None:
        yield lambda record: None
        return
    # What a run that was killed wrote after its last checkpoint is purged.
    writer = require("tensorboardX", "tensorboard").SummaryWriter(
        str(folder / "tensorboard"), purge_step=step + 1
    )

    def write(record: Mapping[str, Any]) -> None:
        for name in ("loss", "validation_loss", "grad_norm", "per_second"):
            if record[name] is not None:
                writer.add_scalar(name, record[name], record["step"])

    try:
        yield write
    finally:
        writer.close()
