"""Options as they are typed, and the command that a configuration stands for."""

import csv
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jlstm.runs.kinds import kind_of
from jlstm.tasks.config import Training, flag


def command_line(config: Training, files: Sequence[Path]) -> str:
    """`jlstm train …` with all options that are not the defaults, quoted for a shell.

    Where the run lies and what it is called is left out: the command makes a new one.
    """
    without = {field.name: field.default for field in fields(config)}
    without |= {"out": config.out, "name": config.name}
    if config.from_ is not None:  # wherever the shell is
        config = replace(config, from_=Path(os.path.abspath(config.from_)))
    command = ["jlstm", "train", kind_of(config), *map(str, files)]
    return shlex.join([*command, *arguments(config, without)])


def arguments(config: Training, without: Mapping[str, Any]) -> list[str]:
    """The options on a command line that ask for this configuration.

    Args:
        config: what is asked for.
        without: what holds where nothing is said.
    """
    asked = []
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if value is None or value == () or (name in without and without[name] == value):
            continue
        if (kind_of(config), name) == ("table", "time"):  # one column, written as several are
            value = (value,)
        option, said = flag(name), typed(value)
        if isinstance(value, bool):
            asked.append(option if value else f"--no-{option[2:]}")
        elif said.startswith("-"):  # stays with its name
            asked.append(f"{option}={said}")
        else:
            asked += [option, said]
    return asked


def typed(value: Any) -> str:
    """The value of an option as it is typed; nothing where it is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "\t":
        return "tab"
    if isinstance(value, tuple):  # names with a comma in them stand in quotes
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue() if value else ""
    return str(value)
