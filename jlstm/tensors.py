"""Named arrays in a safetensors file: names, shapes and numbers, and nothing that could be run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jlstm.extras import require
from jlstm.files import replacing, with_an_end

NDArray = npt.NDArray[Any]

DTYPES = {
    "F64": jnp.dtype(jnp.float64),
    "F32": jnp.dtype(jnp.float32),
    "F16": jnp.dtype(jnp.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
}
"""The dtypes of parameters, by safetensors' names."""


class Header(NamedTuple):
    """What a file says of itself before its numbers."""

    shapes: dict[str, tuple[str, tuple[int, ...]]]
    """The dtype, by safetensors' name, and the shape of each array."""
    metadata: dict[str, str]


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write named arrays; the file is there whole or not at all.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    safetensors = require("safetensors.numpy", "interop")
    # (ascontiguousarray makes a vector of a scalar.)
    plain = {name: np.array(array, order="C", copy=None) for name, array in arrays.items()}
    content = safetensors.save(plain, metadata=metadata and dict(metadata))
    with replacing(path) as beside:
        beside.write_bytes(content)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Look into a file without reading its numbers: it may be of any size, and by anybody.

    What it declares is held against its size before anything is made of it.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or a damaged one.
    """
    safetensors = require("safetensors", "interop")
    try:
        with safetensors.safe_open(with_an_end(path), framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
            return Header(shapes, dict(file.metadata() or {}))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got: {error}") from None


def read_tensors(
    path: str | os.PathLike[str], *, all_weights: bool = True
) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Named arrays and metadata of a file.

    Args:
        path: the file.
        all_weights: whether arrays of other than floating-point dtypes are an error; or else they
            are left out.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, a damaged one, or has other arrays.
    """
    shapes, metadata = read_header(path)
    for name, (dtype, _) in shapes.items():
        if all_weights and dtype not in DTYPES:
            raise ValueError(
                f"{path}: {name}: expected a dtype out of {', '.join(DTYPES)}, got {dtype}"
            )
    safetensors = require("safetensors", "interop")
    try:
        entries = safetensors.deserialize(Path(path).read_bytes())
    except safetensors.SafetensorError as error:  # another file than the one looked into
        raise ValueError(f"{path}: expected a safetensors file, got: {error}") from None
    arrays = {
        name: np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in entries
        if entry["dtype"] in DTYPES
    }
    return arrays, metadata


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their place in it, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
