"""What a run saves while it trains, and takes up again: checkpoints and the best parameters."""

import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from jlstm.devices import place
from jlstm.files import sha256, sync
from jlstm.jobs.config import Training
from jlstm.jobs.folder import read_json
from jlstm.jobs.job import Job
from jlstm.train import (
    Best,
    Book,
    Progress,
    TrainState,
    init_train_state,
    load_checkpoint,
    load_params,
    make_optimizer,
    save_checkpoint,
    save_params,
)
from jlstm.train.records import write_json


def optimizer_of(config: Training, job: Job) -> optax.GradientTransformation:
    """The optimiser that was asked for, for a run of this length."""
    return make_optimizer(
        config.learning_rate,
        job.steps,
        warmup=config.warmup,
        clip=config.clip,
        weight_decay=config.weight_decay,
        kind=config.optimizer,
    )


def first_state(config: Training, job: Job) -> TrainState:
    """The state of step 0, lying where the job's devices want it."""
    params = job.init(jax.random.key(config.seed))
    devices = jax.devices()[: job.devices]
    state = init_train_state(params, optimizer_of(config, job), job.carry(params))
    placed: TrainState = place(state, devices=devices)
    return placed._replace(carry=place(state.carry, 0, devices))


def save(folder: Path, progress: Progress) -> None:
    """Write a checkpoint: the state, the best parameters, and the numbers of the book.

    Raises:
        FloatingPointError: a number of the state is not finite.
        OSError: it cannot be written.
    """
    book = progress.book
    numbers = {
        "best": book.best and [book.best.loss, book.best.step],
        "stale": book.stale,
        # JSON has no word for NaN, which a skipped step may have left.
        "losses": [x if math.isfinite(x) else None for x in book.losses],
        "grad_norms": [x if math.isfinite(x) else None for x in book.grad_norms],
    }
    # Before the first validation any parameters will do: nobody will ask for them.
    best = progress.state.params if book.best is None else book.best.params
    arrays = {"state": progress.state, "best": best}
    sync(folder / "metrics.jsonl")  # a checkpoint says that all up to it has been recorded
    try:
        save_checkpoint(folder / "checkpoints", progress.step, arrays, {"book": numbers})
    except FloatingPointError as error:
        raise FloatingPointError(
            f"training: expected finite parameters after step {progress.step}, got others; a lower "
            "learning rate may help"
        ) from error


def restore(
    folder: Path, config: Training, job: Job, say: Callable[[str], None]
) -> tuple[TrainState, Book] | None:
    """State and book of the newest good checkpoint; None if there is none.

    Raises:
        ValueError: the checkpoint is one of another configuration.
    """
    if not (folder / "checkpoints").exists():
        return None
    template = first_state(config, job)
    arrays = {"state": template, "best": template.params}
    found = load_checkpoint(folder / "checkpoints", arrays, say)
    if found is None:
        return None
    book = found.record["book"]
    best = None
    if book["best"] is not None:
        loss, step = book["best"]
        best = Best(loss, step, found.arrays["best"])
    losses, grad_norms = (
        tuple(math.nan if x is None else x for x in book[name]) for name in ("losses", "grad_norms")
    )
    return found.arrays["state"], Book(best, book["stale"], losses, grad_norms)


def save_best(folder: Path, best: Best, job: Job) -> None:
    """Write the best parameters, as a file that any framework reads, and what they are."""
    path = folder / "best.safetensors"
    # One entry: safetensors writes several in any order, and the same run is to give the same file.
    save_params(path, best.params, {"step": str(best.step)})
    known = {"step": best.step, "loss": best.loss, "score": job.score, "sha256": sha256(path)}
    write_json(folder / "best.json", known)


def load_best(folder: Path, config: Training, job: Job, say: Callable[[str], None]) -> Best:
    """The best parameters; where their file is not as it was written, from the checkpoint.

    Raises:
        ValueError: nothing has been validated yet.
    """
    path, known = folder / "best.safetensors", read_json(folder / "best.json")
    if path.exists() and isinstance(known, dict) and sha256(path) == known.get("sha256"):
        template = jax.eval_shape(job.init, jax.random.key(0))
        return Best(known["loss"], known["step"], load_params(path, template))
    found = restore(folder, config, job, say)
    best = found and found[1].best
    if not best:
        raise ValueError(
            f"run: expected a trained model in {folder}, but nothing has been validated yet; see "
            "jlstm resume"
        )
    say(f"{path.name} is not as it was written; taking the best of the newest checkpoint.")
    return best._replace(params=jax.tree.map(jnp.asarray, jax.device_get(best.params)))
