"""The folder of a run: what was asked for, the data, what happened, and what was learnt.

    config.json          the kind of job, the files it was made from, every option: what jlstm reads
    config.toml          the same for people, what was asked for first: ``jlstm train … --config``
    environment.json     versions and machine
    data/                what ``prepare`` made of the user's files
    about.json           what there is to say of it, from the files to the steps
    start/               what a run begins with that goes on from another one: a checkpoint
    checkpoints/         see ``jlstm.train.checkpoints``
    metrics.jsonl        a line for each report: the same for the same configuration
    timing.jsonl         the same lines: how long it took
    best.safetensors     the parameters with the lowest validation loss
    best.json            that loss, the step, the sum of the file
    result.json          how the training ended, once it has
    evaluation/, plots/  the model judged
    report.html          all of this as a page to read
    log.txt              what was said

A folder with several runs has them as folders in it: see ``best_run``.

Everything that resumes, evaluates, predicts or samples needs this folder alone: it can be moved.
"""

import json
import os
import re
import shutil
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.files import quoted, sha256
from jlstm.records import read_json_lines, write_json
from jlstm.runs.kinds import KINDS, kind_of
from jlstm.tasks.config import Training
from jlstm.train.checkpoints import newest_checkpoint


def make_folder(config: Training, fill: Callable[[Path], None]) -> Path:
    """A new folder for a run, there as a whole or not at all.

    Args:
        config: says where, and perhaps its name.
        fill: writes into the folder; where it raises, nothing is left behind.

    Raises:
        FileExistsError: there is a folder of that name already.
        OSError: it cannot be made.
    """
    parent, name = config.out, config.name
    if name is not None and (parent / name).exists():
        raise wrong(
            "name", f"there is a run {parent / name} already; see jlstm resume", FileExistsError
        )
    name = name or clock.strftime(f"{kind_of(config)}-%Y%m%d-%H%M%S")
    part = parent / f".{name}.{os.getpid()}.part"
    _clear_parts(parent)
    new = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except OSError as error:
        raise wrong(
            "out", f"expected a folder to write in, got {parent} ({error.strerror})", OSError
        ) from error
    try:
        fill(part)
        target = parent / name
        for n in count(2):  # a second run within the second
            if not target.exists():
                return part.rename(target)
            target = parent / f"{name}-{n}"
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
    raise AssertionError  # count has no end


def _clear_parts(folder: Path) -> None:
    """Take away what processes that were killed had begun to write."""
    for path in folder.glob(".*.part"):
        process = path.name.split(".")[-2]
        with suppress(OSError, ValueError):
            # Another machine may have a process of that number: give it an hour.
            if clock.time() - path.stat().st_mtime > 3600 and not _lives(int(process)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write down the SHA-256 of the data's files, so that a damaged one is noticed."""
    write_json(folder / "data/sums.json", {name: sha256(folder / name) for name in names})


def check_sums(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raise unless the data's files are as they were written.

    Args:
        folder: of the run.
        names: of the files that are needed; None for all of them.

    Raises:
        ValueError: one is missing or has changed.
    """
    sums = read_json(folder / "data/sums.json")
    if not isinstance(sums, dict):
        raise ValueError(f"{folder}/data/sums.json: expected the sums of the data, got none")
    for name in sums if names is None else names:
        known = sums.get(name)
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: expected the data of the run, but the file is not there")
        if sha256(path) != known:
            raise ValueError(f"{path}: expected the file that was written, but it has changed")


def check_best(folder: Path) -> Mapping[str, Any]:
    """What ``best.json`` says of the best parameters.

    Raises:
        ValueError: it, or their file, is missing or not as it was written.
    """
    path, known = folder / "best.safetensors", read_json(folder / "best.json")
    if not isinstance(known, dict) or not path.is_file():
        raise ValueError(f"{path}, best.json: expected the best parameters and their sum, got none")
    if sha256(path) != known.get("sha256"):
        raise ValueError(f"{path}: expected the file whose sum is in best.json, got another")
    return known


def write_config(folder: Path, config: Training, files: Sequence[Path]) -> None:
    """Write down what was asked for."""
    write_json(folder / "config.json", as_asked(config, files))


def as_asked(config: Training, files: Sequence[Path]) -> dict[str, Any]:
    """What was asked for, as JSON has it."""
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(config).items()
    }
    return {"kind": kind_of(config), "files": [str(file) for file in files], "options": options}


def read_config(folder: Path, name: str = "run") -> Training:
    """What was asked for in this run; ``name`` is that of the option which the folder comes from.

    Raises:
        OSError: the folder is none of a run, or cannot be read.
        ValueError: its configuration is damaged, or of another version of jlstm.
    """
    path = folder / "config.json"
    if not path.is_file():
        what = "is a file" if folder.is_file() else "is not there"
        what = "holds no config.json" if folder.is_dir() else what
        raise wrong(name, f"expected the folder of a run, but {folder} {what}", FileNotFoundError)
    return asked_in(path)


def asked_in(path: Path) -> Training:
    """The configuration in a file that holds ``as_asked``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or of another version of jlstm.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
        cls, options = KINDS[said["kind"]], dict(said["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the configuration of a run, got: {error}") from None
    names = {field.name for field in fields(cls)}
    if options.keys() != names:
        differ = ", ".join(sorted(options.keys() ^ names))
        raise ValueError(f"{path}: expected the options of this version, which differ in: {differ}")
    # JSON has lists where options have tuples.
    known: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    try:
        return cls(**known)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected the configuration of a run, got: {error}") from None


def read_sources(folder: Path) -> list[Path]:
    """The user's files that a run was made from, as they were given."""
    return [Path(file) for file in read_json(folder / "config.json")["files"]]


SEEDS, SEARCH = "seeds.json", "search.json"
"""The files that a folder of several runs is known by: one run for each seed, or the trials of a
search. Each of the runs is a folder in it like any other."""
WINNER = "winner.json"
"""In the folder of a search: which trial is the best."""
MEMBER = re.compile(r"(seed|trial)-\d+")
"""The name of such a run."""


def is_group(folder: Path) -> bool:
    """Whether this is a folder of several runs."""
    return any((folder / name).is_file() for name in (SEEDS, SEARCH))


def runs_in(parent: Path) -> list[Path]:
    """The folders of runs in a folder, the oldest first."""
    folders = [path.parent for path in parent.glob("[!.]*/config.json")]  # not the unfinished
    return sorted(folders, key=lambda path: path.stat().st_mtime)


def members(folder: Path) -> list[Path]:
    """Those of several runs that the folder is about, and no run that somebody put beside them."""
    return [path for path in runs_in(folder) if MEMBER.fullmatch(path.name)]


def best_run(folder: str | os.PathLike[str], say: Callable[[str], None] | None = None) -> Path:
    """The folder itself; of several runs, the one with the lowest validation loss.

    It is one of those that have finished, if any has.

    Args:
        folder: of a run, or of several.
        say: is told which of several it is.

    Raises:
        ValueError: of several, none has been validated yet.
    """
    folder = Path(folder)
    if not is_group(folder):
        return folder
    known = [(path, read_json(path / "best.json")) for path in members(folder)]
    ranked = [
        (not (path / "result.json").exists(), about["loss"], path.name)
        for path, about in known
        if isinstance(about, dict) and "loss" in about
    ]
    if not ranked:
        raise wrong(
            "run",
            f"expected trained models in {folder}, but nothing has been validated yet; see "
            f"jlstm resume {quoted(folder)}",
        )
    best = folder / min(ranked)[-1]
    if say is not None:
        say(f"Of the runs in {folder}, {best.name} has the lowest validation loss.")
    return best


def begins_at(folder: Path) -> int:
    """The step that a run begins at: 0, or the last one of the run that it makes longer."""
    stems = (path.stem for path in (folder / "start").glob("*.json"))
    return max((int(stem) for stem in stems if stem.isdecimal()), default=0)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else trains in this folder within the block; the lock of a process ends with it.

    Raises:
        ValueError: somebody else does.
    """
    with _lock(folder, seconds=2) as taken:
        if not taken:
            raise wrong("run", f"{folder} is being trained by another process")
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process trains in this folder now.

    To find out, the lock is taken for an instant, which ``locked`` waits for.
    """
    if not (folder / ".lock").exists():  # nobody ever trained here, and no file is to be left
        return False
    with suppress(OSError), _lock(folder, seconds=0.1) as taken:
        return not taken
    return False  # a folder in which one can only read


@contextmanager
def _lock(folder: Path, seconds: float) -> Iterator[bool]:
    """Hold the folder's lock within the block; False where nobody lets go of it in that time."""
    filelock = require("filelock", "train")
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def logged(folder: Path, say: Callable[[str], None]) -> Callable[[str], None]:
    """``say``, which also writes into the folder's log."""

    def both(text: str) -> None:
        with open(folder / "log.txt", "a", encoding="utf-8") as file:
            file.write(text + "\n")
        say(text)

    return both


def read_json(path: Path) -> Any:
    """What a JSON file of the folder says; None where there is none, or it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def changed(config: Training) -> dict[str, Any]:
    """The options that are not the defaults, and not where the run lies."""
    defaults = {field.name: field.default for field in fields(config)}
    options = {name: getattr(config, name) for name in defaults if name not in {"out", "name"}}
    return {name: value for name, value in options.items() if value != defaults[name]}


class Summary(NamedTuple):
    """A run, in a line."""

    folder: Path
    kind: str
    status: str
    """``training``, ``finished``, ``stopped`` or ``damaged``."""
    step: int
    best_loss: float | None
    score: str
    changed: Mapping[str, Any]
    """The options that are not the defaults."""
    damage: str = ""
    """Which file is not as it was written, and how."""


def summaries(parent: str | os.PathLike[str]) -> list[Summary]:
    """The runs in a folder, the oldest first; of the folder of a run, that one.

    A folder of several runs, see ``best_run``, is one of them, unless it is the folder asked for.

    Raises:
        OSError: there is no such folder.
    """
    parent = Path(parent)
    if not parent.is_dir():
        what = f"{parent} is a file" if parent.exists() else f"there is no {parent}"
        raise wrong("folder", f"expected a folder with runs, but {what}", FileNotFoundError)
    if (parent / "config.json").is_file():  # the folder of a run
        return [_summary(parent)]
    groups = {path.parent for name in (SEEDS, SEARCH) for path in parent.glob(f"[!.]*/{name}")}
    folders = sorted([*runs_in(parent), *groups], key=lambda path: path.stat().st_mtime)
    return [_group_summary(path) if path in groups else _summary(path) for path in folders]


def _group_summary(folder: Path) -> Summary:
    """Several runs in a line: how they stand, and the best of them."""
    runs = {path: _summary(path) for path in members(folder)}
    states = {one.status for one in runs.values()}
    if is_locked(folder):
        status = "training"
    else:
        status = next((s for s in ("training", "damaged", "stopped") if s in states), "finished")
    damage = next((one.damage for one in runs.values() if one.damage), "")
    seeds = (folder / SEEDS).is_file()
    count = len(runs) if seeds else len(read_json_lines(folder / "trials.jsonl"))
    said: dict[str, Any] = {"seeds" if seeds else "trials": count}
    if all(one.best_loss is None for one in runs.values()):
        return Summary(folder, "?", status, 0, None, "", said, damage)
    best = runs[best_run(folder)]
    options = {name: value for name, value in best.changed.items() if not seeds or name != "seed"}
    return best._replace(
        folder=folder,
        status=status,
        changed={**said, "best": best.folder.name, **options},
        damage=damage,
    )


def _resumed_from(checkpoints: Path) -> int:
    """The step from which a training that was stopped goes on.

    Raises:
        ValueError: no checkpoint is as it was written.
    """
    step = newest_checkpoint(checkpoints)
    if step is None and any(checkpoints.glob("*.json")):  # the first may have been cut off
        raise ValueError(f"{checkpoints}: expected one that is as it was written, got none")
    return step or 0


def _summary(folder: Path) -> Summary:
    try:
        config = read_config(folder)
    except (ValueError, OSError) as error:
        return Summary(folder, "?", "damaged", 0, None, "", {}, str(error))
    training = is_locked(folder)  # then its files change while they are read
    ended = read_json(folder / "result.json") is not None
    step, loss, score, damage = 0, None, "", ""
    try:
        check_sums(folder)
        name = "metrics.jsonl"
        for record in read_json_lines(folder / name)[-1:]:
            step = int(record["step"])
        name = "best.json"
        # Before the end, what a killed process left half done is taken back by resume.
        best = check_best(folder) if ended else read_json(folder / name)
        if best is not None:
            loss, score = float(best["loss"]), str(best["score"])
        name = "result.json"
        if ended:
            step = int(read_json(folder / name)["step"])
        elif not training:
            step = _resumed_from(folder / "checkpoints") or begins_at(folder)
    except (ValueError, OSError) as error:
        damage = str(error)
    except (KeyError, TypeError):
        damage = f"{folder / name}: expected what jlstm writes there, got something else"
    if training:
        status, damage = "training", ""
    else:
        status = "damaged" if damage else "finished" if ended else "stopped"
    return Summary(folder, kind_of(config), status, step, loss, score, changed(config), damage)
