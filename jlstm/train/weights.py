"""Parameters as a safetensors file: names, shapes and numbers, and nothing that could be run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlstm.extras import require
from jlstm.files import replacing

DTYPES = {
    "F64": jnp.dtype(jnp.float64),
    "F32": jnp.dtype(jnp.float32),
    "F16": jnp.dtype(jnp.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
}
"""The dtypes of parameters, by safetensors' names."""


def save_params(
    path: str | os.PathLike[str], params: Any, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a pytree of arrays; the file is there whole or not at all.

    An array's name is its place in the tree, ``lstm.w_ih`` for instance.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    safetensors = require("safetensors.numpy", "train")
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in _named(params).items()}
    with replacing(path) as beside:
        beside.write_bytes(safetensors.save(arrays, metadata=metadata and dict(metadata)))


def load_params(path: str | os.PathLike[str], template: Any) -> Any:
    """Read what ``save_params`` wrote.

    Args:
        path: the file.
        template: a pytree of the structure, shapes and dtypes to expect, say fresh parameters, or
            what ``jax.eval_shape`` gives of them.

    Returns:
        The arrays of the file in the structure of ``template``.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: it is no safetensors file, or does not hold what ``template`` asks for.
    """
    safetensors = require("safetensors", "train")
    content = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got: {error}") from None
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{path}: {name}: expected a dtype out of {', '.join(DTYPES)}, got {entry['dtype']}"
            )
        flat = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    wanted = _named(template)
    if arrays.keys() != wanted.keys():
        raise ValueError(
            f"{path}: expected the arrays {', '.join(sorted(wanted))}; "
            f"missing: {', '.join(sorted(wanted.keys() - arrays.keys())) or 'none'}; "
            f"unknown: {', '.join(sorted(arrays.keys() - wanted.keys())) or 'none'}"
        )
    for name, leaf in wanted.items():
        got = arrays[name]
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"{path}: {name}: expected {leaf.dtype} of shape {tuple(leaf.shape)}, "
                f"got {got.dtype} of shape {got.shape}"
            )
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their place in it, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
