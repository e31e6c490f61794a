"""What a file of weights could become: the LSTMs in it, and how to load each."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jlstm.checks import wrong
from jlstm.equations import PLAIN
from jlstm.files import with_an_end
from jlstm.interop.keras import find_cells, from_keras
from jlstm.interop.onnx.importing import from_onnx
from jlstm.interop.onnx.reading import read_model
from jlstm.interop.stablehlo import from_stablehlo
from jlstm.interop.torch import find_prefixes, from_torch, read_state
from jlstm.layers import LayerParams, Stack
from jlstm.saving import load
from jlstm.tensors import read_header

Loaded = tuple[Stack, tuple[LayerParams, ...]]


class Found(NamedTuple):
    """An LSTM in a file."""

    what: str
    """Whose it is, and what it could become, in words."""
    code: tuple[str, ...]
    """The lines of Python that load and run it; none where it cannot be loaded."""


def look(path: str | os.PathLike[str]) -> list[Found]:
    """The LSTMs in a file.

    Args:
        path: of the file, which is known by its ending: ``.safetensors``, as ``jlstm.save`` writes
            it, or with a state dict of PyTorch; ``.pt``, ``.pth`` or ``.bin`` with such a one;
            ``.h5`` of Keras; ``.onnx``; ``.stablehlo``.

    Raises:
        MissingExtraError: a package that reads it is not installed.
        OSError: the file cannot be read.
        ValueError: another ending; no LSTM in it; a damaged file.
    """
    path = Path(path)
    looks: dict[str, Callable[[Path], list[Found]]] = {
        ".safetensors": _safetensors,
        ".pt": _torch,
        ".pth": _torch,
        ".bin": _torch,
        ".h5": _keras,
        ".onnx": _onnx,
        ".stablehlo": _stablehlo,
    }
    if path.suffix not in looks:
        raise wrong("file", f"expected a name that ends in {', '.join(looks)}, got {path}")
    with open(with_an_end(path), "rb"):  # or the error for what is not there
        pass
    return looks[path.suffix](path)


# What becomes a stack


def _try(owner: str, call: str, load: Callable[[], Loaded]) -> Found:
    """The stack that is loaded, or why there is none."""
    try:
        stack, params = load()
    except (TypeError, ValueError) as error:
        return Found(f"{owner}: no stack of jlstm. {error}", ())
    inputs = params[0].forward.w_ih.shape[0]
    leaves = jax.tree.leaves(params)
    count = sum(leaf.size for leaf in leaves)
    code = (
        "import jlstm",
        f"config, params = {call}",
        f"carry, hs = jlstm.stack(config, params, None, xs)  # xs [time, batch, {inputs}]",
    )
    return Found(
        f"{owner}: {inputs} inputs to {stack.output_size} outputs, {count:,} parameters of "
        f"{leaves[0].dtype.name}.\n{_said(stack)}",
        code,
    )


def _said(value: Any) -> str:
    """A configuration as code, without what is as it is by default."""
    if value == PLAIN:
        return "PLAIN"
    if isinstance(value, tuple) and len(set(map(repr, value))) == 1 and is_dataclass(value[0]):
        value = value[0]
    if isinstance(value, tuple):
        return f"({', '.join(map(_said, value))}{',' * (len(value) == 1)})"
    if not is_dataclass(value):
        return repr(value)
    changed = {
        field.name: own
        for field in fields(value)
        if (own := getattr(value, field.name)) != field.default
    }
    if isinstance(value, Stack):
        if all(one is None for one in changed["output_sizes"]):
            del changed["output_sizes"]
        if all(one == PLAIN for one in changed["gates"]):
            del changed["gates"]
    options = ", ".join(f"{name}={_said(own)}" for name, own in changed.items())
    return f"{type(value).__name__}({options})"


def _together_or_alone(
    owner: str,
    ways: Sequence[tuple[str, Any]],
    make: Callable[[Any], tuple[str, Callable[[], Loaded]]],
) -> list[Found]:
    """All as one stack if that fits, and else each alone."""
    if len(ways) > 1:
        all_of_it = make([way for _, way in ways])
        found = _try(f"{owner}, {len(ways)} layers one upon the other", *all_of_it)
        if found.code:
            return [found]
    return [_try(f"{owner}, {name}", *make([way])) for name, way in ways]


# The formats


def _safetensors(path: Path) -> list[Found]:
    shapes, metadata = read_header(path)
    if "jlstm" in metadata:
        return [_whole(path)]
    if any(name.endswith(".forward.w_ih") for name in shapes):
        raise ValueError(
            f"{path}: expected a stack with its options, as jlstm.save writes it, got weights of "
            "jlstm alone; of a run, jlstm export RUN --to safetensors has both"
        )
    return _torch(path)


def _whole(path: Path) -> Found:
    stack, params = load(path)  # what is damaged here is an error
    return _try("jlstm", f"jlstm.load({_quoted(path)})", lambda: (stack, params))


def _torch(path: Path) -> list[Found]:
    state = read_state(path)
    prefixes = [prefix for prefix, lstm in find_prefixes(state).items() if lstm]
    if not prefixes:
        shown = ", ".join(map(repr, list(state)[:6])) or "none"
        raise ValueError(f"{path}: expected weights of an LSTM, got {shown}")

    def one(prefix: str) -> Found:
        more = f", prefix={_quoted(prefix)}" if prefix or len(prefixes) > 1 else ""
        call = f"jlstm.interop.torch.from_torch({_quoted(path)}{more})"
        named = f"PyTorch, {_quoted(prefix)}" if prefix else "PyTorch"
        return _try(named, call, lambda: from_torch(state, prefix=prefix))

    return [one(prefix) for prefix in prefixes]


def _keras(path: Path) -> list[Found]:
    layers = find_cells(path)
    if not layers:
        raise ValueError(f"{path}: expected weights of LSTM layers, got none")

    def make(chosen: Any) -> Any:
        names = [pair if len(pair) > 1 else pair[0] for pair in chosen]
        every = len(chosen) == len(layers)
        more = "" if every else f", layers={names!r}"
        call = f"jlstm.interop.keras.from_keras({_quoted(path)}{more})"
        return call, lambda: from_keras(path, layers=None if every else names)

    ways = [(" and ".join(pair), pair) for pair in layers]
    return _together_or_alone("Keras", ways, make)


def _onnx(path: Path) -> list[Found]:
    nodes = [node for node in read_model(path).graph.node if node.op_type == "LSTM"]
    if not nodes:
        raise ValueError(f"{path}: expected an LSTM node in its graph, got none")

    def make(chosen: Any) -> Any:
        number = chosen[0] if len(chosen) == 1 else chosen
        more = "" if len(nodes) == 1 else f", {number!r}"
        call = f"jlstm.interop.onnx.from_onnx({_quoted(path)}{more})"
        return call, lambda: from_onnx(path, chosen)

    ways = [(f"node {node.name!r:.60}", n) for n, node in enumerate(nodes)]
    return _together_or_alone("ONNX", ways, make)


def _stablehlo(path: Path) -> list[Found]:
    program = from_stablehlo(path)
    _, given = jax.tree.unflatten(program.in_tree, program.in_avals)
    results = jax.tree.unflatten(program.out_tree, program.out_avals)

    def said(arrays: Any) -> str:
        paths = jax.tree_util.tree_leaves_with_path(arrays)
        named = ((jax.tree_util.keystr(p, simple=True, separator="."), a) for p, a in paths)
        return ", ".join(
            f"{name} {a.dtype.name}[{', '.join(map(str, a.shape))}]" for name, a in named
        )

    arguments = ", ".join(f"{name}={name}" for name in given)
    what = (
        f"A program in StableHLO for {', '.join(program.platforms)}: no stack, but to be called.\n"
        f"{said(given)} to {said(results)}"
    )
    code = (
        "import jlstm",
        f"program = jlstm.interop.stablehlo.from_stablehlo({_quoted(path)})",
        f"outputs = program.call({arguments})",
    )
    return [Found(what, code)]


def _quoted(text: Any) -> str:
    return json.dumps(str(text), ensure_ascii=False)
