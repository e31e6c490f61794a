"""What a run saves while it trains, and takes up again: checkpoints and the best parameters."""

import math
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jlstm.checks import wrong
from jlstm.devices import memory_bytes, place
from jlstm.files import sha256, sync
from jlstm.records import plain, write_json
from jlstm.runs.folder import check_best
from jlstm.tasks.config import Training
from jlstm.tasks.job import Job
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

PACKAGES = ("jlstm", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "polars", "safetensors")
"""What has a part in the results of a run, or in its files."""


def optimizer_of(config: Training, job: Job, begin: int = 0) -> optax.GradientTransformation:
    """The optimiser that was asked for, for a run of this length that begins at this step."""
    return make_optimizer(
        config.learning_rate,
        job.steps,
        begin=begin,
        warmup=config.warmup,
        clip=config.clip,
        weight_decay=config.weight_decay,
        kind=config.optimizer,
    )


def environment_of(job: Job) -> dict[str, Any]:
    """What else a result depends on: versions, devices, machine."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "versions": versions,
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "batch_devices": job.devices,
    }


def check_memory(config: Training, job: Job) -> None:
    """Raise unless a training step fits into memory; nothing is computed.

    Counted is what certainly is there at once: on each device the parameters, their gradient, the
    best ones so far and what the optimiser keeps; and what the backward pass needs of the forward
    pass, of which each device has its part.

    Raises:
        ValueError: it does not fit.
    """
    limit = memory_bytes()
    if limit is None:
        return

    def backward(params: Any, carry: Any, batch: Any) -> Any:
        return jax.vjp(lambda params: job.loss(params, carry, batch)[0], params)[1]

    optimizer = jax.eval_shape(optimizer_of(config, job).init, job.template)
    carry = jax.eval_shape(job.carry, job.template)
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(job.template))
    parameters, moments = _bytes(job.template), _bytes(optimizer)
    copies = job.devices if jax.default_backend() == "cpu" else 1  # whose devices share memory
    state = copies * (3 * parameters + moments)
    kept = 0
    if state <= limit:  # else the shapes may be larger than JAX can count
        handed = jax.tree.leaves(jax.eval_shape(backward, job.template, carry, job.batch(0)))
        kept = _bytes([a for a in handed if a.ndim > 2])  # of steps and sequences: no weights
        kept //= 1 if copies == job.devices else job.devices
    if state + kept > limit:
        names = [n for n in ("hidden", "layers", "streams", "batch") if hasattr(config, n)]
        on = f" on each of {copies} devices" if copies > 1 else ""
        back = f", and {_gigabytes(kept)} for the backward pass" if kept else ""
        raise wrong(
            ", ".join(names),
            f"expected a training that fits into {_gigabytes(limit)} of "
            f"memory, got {numbers:,} parameters: {_gigabytes(parameters)} for them, as much for "
            f"their gradient and for the best so far, {_gigabytes(moments)} for the "
            f"optimiser{on}{back}: {_gigabytes(state + kept)}",
        )


def _bytes(tree: Any) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not _is_key(leaf)]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"


def first_state(config: Training, job: Job, params: Any = None) -> TrainState:
    """The state of step 0, of fresh parameters or these, lying where the job's devices want it."""
    if params is None:
        params = job.init(jax.random.key(config.seed))
    return _placed(init_train_state(params, optimizer_of(config, job), job.carry(params)), job)


def _form(config: Training, job: Job) -> TrainState:
    """Shapes and dtypes of a state, and where it lies; nothing is computed."""

    def fresh(params: Any) -> TrainState:
        return init_train_state(params, optimizer_of(config, job), job.carry(params))

    return _placed(jax.eval_shape(fresh, job.template), job)


def _placed(state: TrainState, job: Job) -> TrainState:
    devices = jax.devices()[: job.devices]
    placed: TrainState = place(state, devices=devices)
    return placed._replace(carry=place(state.carry, 0, devices))


def save(folder: Path, progress: Progress) -> None:
    """Write a checkpoint: the state, the best parameters, and the numbers of the book.

    Raises:
        FloatingPointError: a number of the state is not finite.
        OSError: it cannot be written.
    """
    if (folder / "metrics.jsonl").exists():  # not before the first report
        sync(folder / "metrics.jsonl")  # a checkpoint says that all up to it has been recorded
    try:
        write_state(folder / "checkpoints", progress.state, progress.book)
    except FloatingPointError as error:
        raise FloatingPointError(
            f"training: expected finite parameters after step {progress.step}, got others; a lower "
            "learning rate may help"
        ) from error


def write_state(checkpoints: Path, state: TrainState, book: Book) -> None:
    """Write what a training goes on from into a folder of checkpoints.

    Raises:
        FloatingPointError: a number of the state is not finite.
        OSError: it cannot be written.
    """
    numbers = {
        "best": book.best and [book.best.loss, book.best.step],
        "stale": book.stale,
        "losses": book.losses,  # NaN where a step was skipped
        "grad_norms": book.grad_norms,
    }
    # Before the first validation any parameters will do: nobody will ask for them.
    best = state.params if book.best is None else book.best.params
    arrays = {"state": state, "best": best}
    save_checkpoint(checkpoints, int(state.step), arrays, {"book": plain(numbers)})


def restore(
    folder: Path, config: Training, job: Job, say: Callable[[str], None]
) -> tuple[TrainState, Book] | None:
    """State and book of the newest good checkpoint; None if there is none.

    A run that goes on from another has in its folder ``start`` what it begins with.

    Raises:
        ValueError: the checkpoint is one of another configuration; or what the run begins with is
            not as it was written.
    """
    if config.from_ is None and not (folder / "checkpoints").exists():
        return None
    template = _form(config, job)
    arrays = {"state": template, "best": template.params}
    found = load_checkpoint(folder / "checkpoints", arrays, say)
    begins = found is None and config.from_ is not None
    if begins:
        found = load_checkpoint(folder / "start", arrays, say)
        if found is None:
            raise ValueError(f"{folder / 'start'}: expected what the run begins with, got none")
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
    # However long it had been without a better one before: somebody wanted to go on.
    stale = 0 if begins else book["stale"]
    return found.arrays["state"], Book(best, stale, losses, grad_norms)


def save_best(folder: Path, best: Best, job: Job) -> None:
    """Write the best parameters, as a file that any framework reads, and what they are."""
    path = folder / "best.safetensors"
    # One entry: safetensors writes several in any order, and the same run is to give the same file.
    save_params(path, best.params, {"step": str(best.step)})
    known = {"step": best.step, "loss": best.loss, "score": job.score, "sha256": sha256(path)}
    write_json(folder / "best.json", known)


def read_best(folder: Path, template: Callable[[], Any]) -> Best | None:
    """The best parameters; None where their file is not there, or not as it was written.

    Args:
        folder: of the run.
        template: gives their shapes and dtypes.
    """
    try:
        known = check_best(folder)
    except ValueError:
        return None
    params = load_params(folder / "best.safetensors", template())
    return Best(known["loss"], known["step"], params)


def best_of_checkpoint(
    folder: Path, config: Training, job: Job, say: Callable[[str], None]
) -> Best:
    """The best parameters as the newest good checkpoint has them.

    Raises:
        ValueError: nothing has been validated yet.
    """
    found = restore(folder, config, job, say)
    best = found and found[1].best
    if not best:
        raise wrong(
            "run",
            f"expected a trained model in {folder}, but nothing has been validated yet; see "
            "jlstm resume",
        )
    say("best.safetensors is not as it was written; taking the best of the newest checkpoint.")
    return best._replace(params=jax.tree.map(jnp.asarray, jax.device_get(best.params)))
