"""Checkpoints: all of a run at one step, from which it goes on as if it had never been stopped.

    checkpoints/300/        the arrays, written by Orbax
    checkpoints/300.json    the record: numbers beside the arrays, and a SHA-256 of every file

A checkpoint is one only with its record, which is written last and renamed into its place: whatever
is killed in the middle leaves what was there before. Files that are not those that were written are
noticed by their sums, and the checkpoint before is taken.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm.extras import require
from jlstm.files import sha256, sync
from jlstm.records import write_json


class Checkpoint(NamedTuple):
    """What was saved."""

    step: int
    arrays: Any
    """A pytree of arrays."""
    record: Mapping[str, Any]
    """What JSON can say."""


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    arrays: Any,
    record: Mapping[str, Any],
    *,
    keep: int = 2,
) -> None:
    """Write a checkpoint, then take away all but the newest.

    Args:
        folder: of the checkpoints; made if need be.
        step: its number.
        arrays: a pytree of arrays.
        record: what else has to be known, as JSON has it; Python's floats come back exactly.
        keep: how many to keep, this one included.

    Raises:
        MissingExtraError: Orbax is not installed.
        FloatingPointError: a number of the arrays is NaN or infinite: nothing is written.
        OSError: it cannot be written; the checkpoints before are as they were.
    """
    ocp = require("orbax.checkpoint", "train").v1
    for place, finite in jax.tree_util.tree_leaves_with_path(_all_finite(arrays)):
        if not finite:
            name = jax.tree_util.keystr(place)
            raise FloatingPointError(f"{name}: expected finite numbers at step {step}, got others")
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / str(step)
    _remove(target)  # what was damaged, or never got a record
    try:
        with _quiet():
            ocp.save(target, _named(arrays))
        for path in _files(target):
            sync(path)
        sums = {str(p.relative_to(target)): sha256(p) for p in _files(target)}
    except OSError:
        raise
    except Exception as error:  # Orbax and TensorStore tell of a full disk in their own words
        said = str(error).partition("\n")[0]
        raise OSError(f"{target}: the checkpoint could not be written: {said}") from error
    write_json(_record(target), {"step": step, "record": dict(record), "sha256": sums})
    # A later one belongs to a future that did not come: the run went on from before it.
    kept = [folder / str(n) for n in _steps(folder) if n <= step][:keep]
    for old in folder.iterdir():
        if old.is_dir() and old not in kept:
            _remove(old)


def load_checkpoint(
    folder: str | os.PathLike[str], template: Any, say: Callable[[str], None] = print
) -> Checkpoint | None:
    """The newest checkpoint that is as it was written; None if there is none.

    Args:
        folder: of the checkpoints.
        template: a pytree of arrays, or of ``jax.ShapeDtypeStruct``, with the structure, shapes,
            dtypes and, if it has them, shardings to expect.
        say: is told of each checkpoint that is passed over, and why.

    Raises:
        MissingExtraError: Orbax is not installed.
        ValueError: the checkpoint is whole but of another model.
    """
    folder = Path(folder).resolve()
    for step in _steps(folder):
        target = folder / str(step)
        wrong = _damage(target)
        if wrong is not None:
            say(f"Checkpoint {step} is not as it was written ({wrong}); trying the one before.")
            continue
        record = json.loads(_record(target).read_text("utf-8"))["record"]
        ocp = require("orbax.checkpoint", "train").v1
        forms = {name: _form(leaf) for name, leaf in _named(template).items()}
        try:
            found = ocp.load(target, forms)
        except Exception as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"{target}: expected a checkpoint of this configuration: {said}"
            ) from error
        return Checkpoint(step, _put(found, template), record)
    return None


def newest_checkpoint(folder: str | os.PathLike[str]) -> int | None:
    """The step of the newest checkpoint that is as it was written; None if there is none."""
    folder = Path(folder)
    good = (step for step in _steps(folder) if _damage(folder / str(step)) is None)
    return next(good, None)


def _steps(folder: Path) -> list[int]:
    """The steps of which there is a record, the newest first."""
    stems = (path.stem for path in folder.glob("*.json"))
    return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)


def _damage(target: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    try:
        sums = json.loads(_record(target).read_text("utf-8"))["sha256"]
        found = {str(p.relative_to(target)) for p in _files(target)}
        if found != sums.keys():
            return f"{len(sums.keys() - found)} files missing, {len(found - sums.keys())} too many"
        changed = [name for name, value in sums.items() if sha256(target / name) != value]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its record cannot be read: {error}"
    return f"{changed[0]} has changed" if changed else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs what goes wrong, with a traceback per thread; the caller says it in a line."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _named(tree: Any) -> dict[str, Any]:
    """The arrays by their place in the tree, without those of no size, which Orbax refuses."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if leaf.size}


def _put(named: Mapping[str, Any], template: Any) -> Any:
    """These arrays in the structure of the template, of which no array is used again.

    An array of no size is made anew for each of its places: whoever gives one place's memory away,
    as a training step does with its state, must not take it from another.
    """

    def leaf(path: Any, form: Any) -> Any:
        if form.size:
            return named[jax.tree_util.keystr(path)]
        return jnp.zeros(form.shape, form.dtype, device=form.sharding)

    return jax.tree_util.tree_map_with_path(leaf, template)


def _form(array: Any) -> Any:
    """Shape, dtype and place of an array; without a place, the first device."""
    form: Any = jax.ShapeDtypeStruct
    sharding = array.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return form(array.shape, array.dtype, sharding=sharding)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _remove(target: Path) -> None:
    """Take a checkpoint away, its record first: half of one must not count."""
    _record(target).unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)


@jax.jit
def _all_finite(arrays: Any) -> Any:
    return jax.tree.map(lambda a: jnp.isfinite(a).all(), arrays)
