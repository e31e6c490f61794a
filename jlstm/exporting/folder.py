"""A trained model as a folder that needs no jlstm.

In it are::

    model.onnx, model.stablehlo     the model; or, where the other side has no graphs,
    model.safetensors, model.py     torch's state dict, and the module that takes it
    stack.safetensors, model.py     what ``jlstm.save`` writes, and the model in NumPy,
    around.safetensors              with the other weights
    model.json                      what goes in and comes out; scales, vocabulary, columns
    example.npz, expected.npz       inputs in the units of the user's file; what jlstm computes
    use_it.py                       runs the model on the example

All but the model itself is the same for every target.
"""

import ast
import json
import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from jax import export as jax_export

from jlstm import __version__
from jlstm.checks import check_choice, wrong
from jlstm.exporting.graphs import to_graph
from jlstm.exporting.portable import Input, Portable, portable
from jlstm.exporting.script import name_in_model, script
from jlstm.extras import require
from jlstm.files import sync
from jlstm.interop.stablehlo import PLATFORMS, sealed
from jlstm.interop.torch import to_torch
from jlstm.runs.use import Path_, load
from jlstm.saving import save
from jlstm.tasks.config import Target
from jlstm.tasks.job import Say
from jlstm.tensors import named, write_tensors

HERE = Path(__file__).parent
"""Where the code is that is written beside weights."""


def export(run: Path_, to: Target, out: Path_, *, say: Say = print) -> Path:
    """Write the model of a run, with all that is needed to use it elsewhere, into a new folder.

    Args:
        run: the folder of the run.
        to: what the other side reads.
        out: the folder to make; it is there whole or not at all.
        say: is told what there is to know.

    Returns:
        ``out``.

    Raises:
        MissingExtraError: a package that writes it is not installed.
        OSError, ValueError: as ``jlstm.runs.use.load`` does; ``out`` is there already, or cannot be
            made; the target cannot hold the model.
    """
    check_choice("to", to, get_args(Target))
    out = Path(out)
    target = Path(os.path.abspath(out))
    if target.exists() or target.is_symlink():
        raise wrong(
            "out", f"expected the name of a new folder, but there is {out} already", FileExistsError
        )
    if not target.parent.is_dir():
        raise wrong("out", f"expected a folder to make {target.name} in, got {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise wrong("out", f"expected a folder to write in, got {target.parent}")
    model = portable(load(run, say=say))
    fill = {"onnx": _onnx, "stablehlo": _stablehlo, "safetensors": _numpy, "torch": _torch}[to]
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write = fill(model)  # refuses what the target cannot hold
        beside.mkdir()
        write(beside)
        for path in beside.iterdir():
            sync(path)
        beside.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def _write_around(
    model: Portable,
    to: Target,
    folder: Path,
    *,
    sizes: dict[str, Any] | None = None,
    without: Iterable[str] = (),
) -> None:
    """What stands beside every model.

    Args:
        model: the model.
        to: the target.
        folder: where to write.
        sizes: for the code of the model.
        without: inputs that the target has otherwise, or need not be given.
    """
    inputs = {name: one for name, one in model.inputs.items() if name not in without}
    expected = jax.jit(model.run)(model.params, **model.scaled)[model.output]
    about = {
        "jlstm": __version__,
        "model": model.kind,
        "stack": {
            "sizes": [cell.size for cell in model.stack.cells],
            "bidirectional": model.stack.bidirectional,
        },
        "inputs": {
            name: {"shape": one.shape, "dtype": np.dtype(one.dtype).name}
            for name, one in inputs.items()
        },
        "output": model.output,
        **model.about,
        **({} if sizes is None else {"sizes": sizes}),
    }
    text = json.dumps(about, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "model.json").write_text(text + "\n", "utf-8")
    given: dict[str, Any] = {name: model.example[name] for name in inputs}
    np.savez(folder / "example.npz", **given)
    outputs: dict[str, Any] = {model.output: np.asarray(expected)}
    np.savez(folder / "expected.npz", **outputs)
    (folder / "use_it.py").write_text(script(model, to), "utf-8")


def _onnx(model: Portable) -> Any:
    made = to_graph(model).SerializeToString()

    def write(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(made)
        _write_around(model, "onnx", folder, without=("state",))

    return write


def _stablehlo(model: Portable) -> Any:
    require("flatbuffers", "interop")
    time, batch = jax_export.symbolic_shape("t, b")
    sizes: dict[Any, Any] = {"time": time, "batch": batch}

    def array(one: Input) -> Any:
        shape = tuple(sizes.get(n, n) for n in one.shape)
        return jax.ShapeDtypeStruct(shape, one.dtype)  # type: ignore[no-untyped-call]

    given: dict[str, Any] = {name: array(one) for name, one in model.inputs.items()}
    run = jax.jit(partial(model.run, model.params))
    made = sealed(jax_export.export(run, platforms=PLATFORMS)(**given))

    def write(folder: Path) -> None:
        (folder / "model.stablehlo").write_bytes(made)
        _write_around(model, "stablehlo", folder)

    return write


def _numpy(model: Portable) -> Any:
    around = {
        name: array for name, array in named(model.params).items() if not name.startswith("lstm.")
    }

    def write(folder: Path) -> None:
        save(folder / "stack.safetensors", model.stack, model.layers)
        write_tensors(folder / "around.safetensors", around)
        names = ("sigmoid", "lstm", "stack", model.kind)
        (folder / "model.py").write_text(_source("with_numpy.py", names), "utf-8")
        _write_around(model, "safetensors", folder, sizes=dict(model.sizes))

    return write


def _torch(model: Portable) -> Any:
    p = model.params
    state = to_torch(model.stack, model.layers, prefix="lstm.")
    sizes = {name: size for name, size in model.sizes.items() if name != "zoneout"}
    if getattr(p, "embedding", None) is not None:
        state["embedding.weight"] = p.embedding
    readout = p.embedding.T if p.readout is None else p.readout
    state["readout.weight"] = readout.reshape(len(readout), -1).T
    state["readout.bias"] = p.readout_bias.reshape(-1)
    if model.kind == "table":
        state |= {"hidden.weight": p.hidden.T, "hidden.bias": p.hidden_bias}
        if p.linear is not None:
            state |= {"window.weight": p.linear.window.T, "window.bias": p.linear.bias}
            if p.linear.effect.size:
                state["effect.weight"] = p.linear.effect[None]
        if p.calibration is not None:
            state |= p.calibration._asdict()

    def write(folder: Path) -> None:
        write_tensors(folder / "model.safetensors", state)
        source = _source("with_torch.py", ("load", name_in_model(model, "torch")))
        (folder / "model.py").write_text(source, "utf-8")
        _write_around(model, "torch", folder, sizes=sizes, without=("state",))

    return write


def _source(file: str, names: Iterable[str]) -> str:
    """The head of a file, and the functions or classes of these names."""
    source = (HERE / file).read_text("utf-8")
    body = ast.parse(source).body
    lines = source.splitlines()
    first = next(n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef))
    parts = [lines[: first.lineno - 1]]
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            parts.append(["", "", *lines[node.lineno - 1 : node.end_lineno]])
    text = "\n".join("\n".join(part).rstrip() for part in parts)
    return text + "\n"
