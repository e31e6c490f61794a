"""Parameters as a safetensors file: names, shapes and numbers, and nothing that could be run."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jlstm.tensors import named, read_tensors, write_tensors


def save_params(
    path: str | os.PathLike[str], params: Any, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a pytree of arrays; the file is there whole or not at all.

    An array's name is its place in the tree, ``lstm.w_ih`` for instance.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    write_tensors(path, named(params), metadata)


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
    arrays, _ = read_tensors(path)
    wanted = named(template)
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
