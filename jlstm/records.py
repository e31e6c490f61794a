"""What is written down as JSON, whole or not at all."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jlstm.files import replacing


def plain(value: Any) -> Any:
    """The value as JSON has it: lists for arrays and tuples, None for what is no finite number."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON; the file is there whole or not at all.

    Raises:
        TypeError, ValueError: JSON has no word for the value.
        OSError: the file cannot be written.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def append_json_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add a record to a file of one JSON object per line.

    Raises:
        TypeError, ValueError: JSON has no word for the record.
        OSError: the file cannot be written.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of such a file; none where there is no file.

    A last line that was cut off in the middle of writing counts as not written.

    Raises:
        ValueError: another line is no JSON object.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")[:-1]  # every whole line ends in one
    records = []
    for n, line in enumerate(lines, 1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            if n == len(lines):
                break
            raise ValueError(f"{path}: expected a JSON object on line {n}") from None
    return records


def write_json_lines(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as a file of one JSON object per line, whole or not at all.

    Raises:
        TypeError, ValueError: JSON has no word for a record.
        OSError: the file cannot be written.
    """
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
