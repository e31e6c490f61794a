"""The command that a configuration stands for, to be pasted into a shell."""

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jlstm.runs.folder import changed
from jlstm.runs.kinds import kind_of
from jlstm.tasks.config import Training


def command_line(config: Training, files: Sequence[Path]) -> str:
    """`jlstm train …` with all options that are not the defaults, quoted for a shell.

    Where the run lies and what it is called is left out: the command makes a new one.
    """
    kind = kind_of(config)
    words = ["jlstm", "train", kind, *map(str, files)]
    for name, value in changed(config).items():
        of_columns = (kind, name) == ("table", "time")  # one column, written as several are
        words += _option(name, (value,) if of_columns else value)
    return shlex.join(words)


def _option(name: str, value: Any) -> list[str]:
    """An option as it is typed; what begins with a dash stays with its name."""
    flag = name.strip("_").replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    text = _listed(value) if isinstance(value, tuple) else str(value)
    return [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]


def _listed(values: Sequence[Any]) -> str:
    """Separated by commas; what has a comma in it stands in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([str(value) for value in values])
    return text.getvalue()
