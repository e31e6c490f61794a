"""What is asked for of a training, as a file of TOML: written into each run's folder, and read.

    kind = "table"              # may be left out
    files = ["power.csv"]       # so may this, where the files are typed
    time = "date"
    target = ["OT", "HUFL"]
    learning-rate = 1e-3        # or learning_rate

The options are those of the command line. Paths are relative to the folder of the file.
"""

import ast
import difflib
import inspect
import os
import textwrap
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jlstm.checks import options_of, renamed
from jlstm.extras import require
from jlstm.files import replacing, with_an_end
from jlstm.runs.kinds import KINDS, kind_of
from jlstm.tasks.config import Training, key_of

NOT_OF_A_RUN = ("seeds", "trials", "minutes")
"""Options of the commands that say how many runs there are to be."""
WIDTH = 100
"""Of a line of comment."""


class Asked(NamedTuple):
    """What a file asks for."""

    files: tuple[Path, ...]
    options: dict[str, Any]
    """By the names that they have in Python; those alone that are in the file."""


def read_toml(path: str | os.PathLike[str], kind: str, replaced: Collection[str] = ()) -> Asked:
    """What a file asks for.

    Each option is checked by itself, and with the others of the file. What they must not be
    together with options that are added is seen when a configuration is made of them.

    Args:
        path: of the file.
        kind: of the training, a key of ``KINDS``.
        replaced: options, as they are called in Python, that are said elsewhere: those of the file
            are checked by themselves, and left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no TOML, or of another kind; an option is unknown, of another type or out
            of range; some do not go together. The message names file and options.
    """
    path = with_an_end(path)
    try:
        told = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: expected TOML, got: {error}") from None
    if (theirs := told.pop("kind", kind)) != kind:
        raise ValueError(f"{path}: kind: expected {kind!r}, got {theirs!r}")
    files = told.pop("files", [])
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
        raise ValueError(f"{path}: files: expected paths, got {files!r}")
    options: dict[str, Any] = {}
    names = {key_of(field.name): field.name for field in fields(KINDS[kind])}
    for key, value in told.items():
        same = key_of(key)
        if same in NOT_OF_A_RUN:
            raise ValueError(f"{path}: {key}: expected an option of a run; it is typed: --{same}")
        if same not in names:
            near = difflib.get_close_matches(same, [*names, "files", "kind"], 1, 0.6)
            hint = f"; is it {near[0]}?" if near else ""
            raise ValueError(f"{path}: expected options of jlstm train {kind}, got {key!r}{hint}")
        name = names[same]
        if name in options:
            raise ValueError(f"{path}: {key}: expected each option once, got it in two spellings")
        options[name] = str(value) if isinstance(value, date) else value
        try:
            KINDS[kind](**{**_placeholders(KINDS[kind]), name: options[name]})
        except (ValueError, TypeError) as error:
            if options_of(error) == (name,):
                said = renamed(error, {name: key}.__getitem__)
                raise ValueError(f"{path}: {said}") from None
        if name in ("out", "from_"):
            options[name] = path.parent / options[name]
    options = {name: value for name, value in options.items() if name not in replaced}
    try:
        KINDS[kind](**{**_placeholders(KINDS[kind]), **options})
    except (ValueError, TypeError) as error:
        if options.keys() >= {*options_of(error)} > set():
            raise ValueError(f"{path}: {renamed(error, key_of)}") from None
    return Asked(tuple(path.parent / file for file in files), options)


def _placeholders(cls: type[Training]) -> dict[str, Any]:
    """Something for each option that has to be given, like nothing that anybody would give."""
    return {
        field.name: 1 if field.type is int else f"\x1f{field.name}"
        for field in fields(cls)
        if field.default is MISSING
    }


def write_toml(path: Path, config: Training, files: Sequence[Path]) -> None:
    """Write down what was asked for, such that ``jlstm train … --config`` does the same again.

    First comes what is not as by default, with what it means; the rest is there as comments. The
    name is left out: another run needs another one.

    Raises:
        MissingExtraError: tomlkit is not installed.
        OSError: the file cannot be written.
    """
    tomlkit = require("tomlkit", "train")
    kind, meaning = kind_of(config), sentences(type(config))
    asked, rest, open_ = {}, {}, []
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        # What is not said of a run that goes on from another one is as it was in that one.
        inherited = config.from_ is not None and name not in config.of_one_run
        if name == "name":
            continue
        if value is None:
            open_.append(key_of(name))
        elif inherited or value != field.default:
            asked[name] = _plain(value)
        else:
            rest[name] = _plain(value) if name != "out" else str(value)
    lines = [f"# The same again, in another folder: jlstm train {kind} --config config.toml"]
    said = {"kind": kind, "files": [_plain(file) for file in files]}
    lines += [f"{name} = {tomlkit.item(value).as_string()}" for name, value in said.items()]
    for name, value in asked.items():
        lines += ["", *_commented(meaning.get(name, ""))]
        lines.append(f"{key_of(name)} = {tomlkit.item(value).as_string()}")
    lines += ["", "# As by default:"]
    lines += [f"# {key_of(n)} = {tomlkit.item(value).as_string()}" for n, value in rest.items()]
    lines += _commented(f"Left open: {', '.join(open_)}")
    with replacing(path) as beside:
        # A name of a file need not be UTF-8, which TOML has to be.
        beside.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "replace"))


def _plain(value: Any) -> Any:
    """The value as TOML has it."""
    if isinstance(value, Path):
        return os.path.abspath(value)
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _commented(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False)]


def sentences(cls: type) -> dict[str, str]:
    """What is said below each field of a dataclass; nothing where its source is not at hand."""
    return {
        name: said
        for base in reversed(cls.__mro__)
        if is_dataclass(base)
        for name, said in _sentences(base)
    }


def _sentences(cls: type) -> Iterator[tuple[str, str]]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except OSError:
        return
    assert isinstance(tree, ast.ClassDef)
    for field, below in pairwise(tree.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                yield name, " ".join(said.split())
