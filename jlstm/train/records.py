"""What a run writes down about itself, as JSON."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from jlstm.files import replacing


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


def environment() -> dict[str, Any]:
    """What else a result depends on: versions, devices, machine."""
    versions: dict[str, str | None] = {}
    for package in ("jlstm", "jax", "jaxlib", "numpy", "optax"):
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
    }
