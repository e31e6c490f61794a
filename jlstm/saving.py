"""A stack and its weights in one file, which whoever has it can load without asking further.

It is a safetensors file. An array's name is its place in the weights, ``0.forward.w_ih`` for
instance, or ``1.start.0.c`` for a learned carry. The metadata of the header has one entry,
``"jlstm"``, which is JSON::

    {"version": 1, "stack": {"sizes": [64, 64], "gates": [{"cell": "plain"}, …], …}}

with what differs from the defaults of ``Stack``, of ``Variant`` and of ``SLSTM``. An activation is
its name in ``jlstm.activations`` and its constants. Nothing in the file could be run.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp

from jlstm import activations
from jlstm.activations import Activation
from jlstm.equations import PLAIN
from jlstm.gates import Gates, check_weights
from jlstm.layers import LayerParams, Stack
from jlstm.slstm import SLSTM, SLSTMParams
from jlstm.tensors import named, read_header, read_tensors, write_tensors
from jlstm.types import LSTMParams, check_float
from jlstm.variants import Variant, VariantParams

VERSION = 1
"""Of the schema. It goes up when a file could be misread by the code before."""

CELLS: dict[str, tuple[Any, Any]] = {
    "plain": (type(PLAIN), LSTMParams),
    "variant": (Variant, VariantParams),
    "slstm": (SLSTM, SLSTMParams),
}
"""The cells that a file can name: their options and their weights."""

ACTIVATIONS = (
    "sigmoid", "tanh", "relu", "softsign", "softplus", "identity", "affine", "leaky_relu",
    "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu",
)  # fmt: skip
"""The activations that a file can name, those of ``jlstm.activations``."""

DEEPEST = 64
"""How deep JSON is nested at most; ours takes 7."""


def save(path: str | os.PathLike[str], stack: Stack, params: Sequence[LayerParams]) -> None:
    """Write a stack and its weights; the file is there whole or not at all.

    Args:
        path: of the file, by custom ``….safetensors``.
        stack: the stack.
        params: the weights.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be written.
        TypeError: no stack, or weights of another kind.
        ValueError: weights that are not those of the stack; what is code rather than data, so that
            a file cannot hold it: a cell or an activation of one's own.
    """
    if not isinstance(stack, Stack):
        raise TypeError(f"stack: expected Stack, got {type(stack).__name__}")
    said = {"version": VERSION, "stack": _stack_to_json(stack)}
    check_params(stack, params)
    write_tensors(path, named(tuple(params)), {"jlstm": json.dumps(said)})


def load(path: str | os.PathLike[str]) -> tuple[Stack, tuple[LayerParams, ...]]:
    """Read what ``save`` wrote: the stack and its weights, bit for bit.

    The file may be anybody's: it is refused unless it holds exactly the arrays that its stack asks
    for, of the shapes that it asks for and of one dtype.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: it is no such file, one of a version that this code does not know, or a damaged
            one; or its weights are float64, and ``jax_enable_x64`` is off.
    """
    stack = read_stack(path)
    arrays, _ = read_tensors(path)
    try:
        for name, array in arrays.items():
            if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
                raise ValueError(
                    f"{name}: expected jax_enable_x64=True for {array.dtype.name}, got False"
                )
        params = _params_of(stack, {n: jnp.asarray(array) for n, array in arrays.items()})
        check_params(stack, params)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return stack, params


def read_stack(path: str | os.PathLike[str]) -> Stack:
    """The stack alone, from the header of the file.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: as for ``load``.
    """
    shapes, metadata = read_header(path)
    try:
        if "jlstm" not in metadata:
            raise ValueError("expected a file of jlstm.save, got one of somebody else")
        said = _parsed(metadata["jlstm"])
        if not isinstance(said, dict) or "version" not in said:
            raise ValueError("metadata: expected an object with a version, got none")
        version = said["version"]
        if type(version) is not int or version != VERSION:
            raise ValueError(f"version: expected {VERSION}, got {version!r:.80}")
        _check_keys("metadata", said, {"version", "stack"})
        return _stack_from_json(said.get("stack"), most=len(shapes))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


# The stack as JSON


def _stack_to_json(stack: Stack) -> dict[str, Any]:
    said = _changed(stack)
    said["sizes"] = [int(size) for size in stack.sizes]  # type: ignore[union-attr]
    if any(cell.output is not None for cell in stack.cells):
        said["output_sizes"] = [cell.output and int(cell.output) for cell in stack.cells]
    else:
        said.pop("output_sizes", None)
    said["gates"] = [
        [_cell_to_json(g) for g in cell.gates]
        if type(cell.gates) is tuple
        else _cell_to_json(cell.gates)
        for cell in replace(stack, deterministic=False).cells
    ]
    return said


def _stack_from_json(said: Any, most: int) -> Stack:
    """The stack, of at most so many layers: of anybody's numbers not one is believed unchecked."""
    _check_keys("stack", said, {field.name for field in fields(Stack)})
    for name in ("sizes", "gates"):
        value = said.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise ValueError(
                f"{name}: expected a list with one entry for each layer, got {_short(value)}"
            )
    gates = [
        tuple(map(_cell_from_json, g)) if isinstance(g, list) else _cell_from_json(g)
        for g in said["gates"]
    ]
    return Stack(**{**said, "gates": gates})


def _cell_to_json(gates: Gates) -> dict[str, Any]:
    for name, (kind, _) in CELLS.items():
        if type(gates) is kind:
            return {"cell": name} | (_changed(gates) if name != "plain" else {})
    raise ValueError(
        f"gates: expected {', '.join(CELLS)}, whose equations every jlstm has; {gates!r} is code, "
        "which a file does not hold: save its weights with jlstm.train.save_params"
    )


def _cell_from_json(said: Any) -> Gates:
    if (
        not isinstance(said, dict)
        or not isinstance(said.get("cell"), str)
        or said["cell"] not in CELLS
    ):
        raise ValueError(f"gates: expected a cell out of {', '.join(CELLS)}, got {_short(said)}")
    kind, _ = CELLS[said["cell"]]
    if kind is type(PLAIN):
        _check_keys("gates", said, {"cell"})
        return PLAIN
    _check_keys("gates", said, {"cell", *(field.name for field in fields(kind))})
    options = {name: value for name, value in said.items() if name != "cell"}
    for name in ("gate", "candidate", "output"):
        if name in options:
            options[name] = _activation_from_json(name, options[name])
    if options.get("product_dtype") is not None:
        options["product_dtype"] = check_float("product_dtype", options["product_dtype"])
    cell: Gates = kind(**options)
    return cell


def _changed(value: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass that are not at their default, as JSON has them."""
    said = {}
    for field in fields(value):
        own = getattr(value, field.name)
        if field.name not in ("sizes", "gates") and own != field.default:
            said[field.name] = _plain(field.name, own)
    return said


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Activation):
        return _activation_to_json(name, value)
    if name == "product_dtype":
        return jnp.dtype(value).name
    return value.item() if hasattr(value, "item") else value  # NumPy's numbers and bools


def _activation_to_json(name: str, value: Activation) -> dict[str, Any]:
    for known in ACTIVATIONS:
        if _of_name(known).function is value.function:
            return {"activation": known, "constants": list(value.constants)}
    raise ValueError(
        f"{name}: expected an activation of jlstm.activations, which a file can name; {value!r} is "
        "code, which a file does not hold"
    )


def _activation_from_json(name: str, said: Any) -> Activation:
    _check_keys(name, said, {"activation", "constants"})
    known, constants = said.get("activation"), said.get("constants")
    if not isinstance(known, str) or known not in ACTIVATIONS:
        raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}, got {_short(known)}")
    model = _of_name(known)
    if not isinstance(constants, list) or len(constants) != len(model.constants):
        raise ValueError(
            f"{name}: expected {len(model.constants)} constants of {known}, got {_short(constants)}"
        )
    return getattr(activations, known)(*constants) if constants else model


def _of_name(known: str) -> Activation:
    value = getattr(activations, known)
    return value if isinstance(value, Activation) else value()


def _parsed(text: str) -> Any:
    depth = 0
    for letter in text:  # deeper than Python's stack, and the parser gives up without a ValueError
        depth += (letter in "[{") - (letter in "]}")
        if depth > DEEPEST:
            raise ValueError(f"metadata: expected JSON nested at most {DEEPEST} deep, got more")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("metadata: expected each key once, got one twice")
        return found

    return json.loads(text, object_pairs_hook=once)


def _check_keys(name: str, said: Any, known: set[str]) -> None:
    if not isinstance(said, Mapping):
        raise ValueError(f"{name}: expected an object, got {_short(said)}")
    unknown = sorted(said.keys() - known)
    if unknown:
        raise ValueError(f"{name}: expected keys out of {sorted(known)}, got {_short(unknown)}")


def _short(value: Any) -> str:
    return f"{value!r:.80}"


# The weights


def _params_of(stack: Stack, arrays: dict[str, Any]) -> tuple[LayerParams, ...]:
    """Named arrays in their places; raise where one has no place. What is missing is None."""
    left = dict(arrays)

    def weights(place: str, gates: Gates) -> Any:
        _, kind = next(known for known in CELLS.values() if type(gates) is known[0])
        return kind(**{field: left.pop(f"{place}.{field}", None) for field in kind._fields})

    def carry(place: str, gates: Gates, own: Any) -> Any:
        check_weights(gates, own)
        kind = type(jax.eval_shape(lambda: gates.start(own, ())))
        return kind(**{field: left.pop(f"{place}.{field}", None) for field in kind._fields})

    params = []
    for n, cell in enumerate(stack.cells):
        ways = cell.ways if stack.bidirectional else cell.ways[:1]
        own = [
            weights(f"{n}.{field}", gates)
            for field, gates in zip(("forward", "backward"), ways, strict=False)
        ]
        start = None
        if stack.learned_carry:
            pairs = enumerate(zip(ways, own, strict=True))
            start = tuple(carry(f"{n}.start.{k}", *pair) for k, pair in pairs)
        params.append(LayerParams(own[0], own[1] if stack.bidirectional else None, start))
    if left:
        raise ValueError(f"expected only the arrays of its stack, got {_short(sorted(left))}")
    return tuple(params)


def check_params(stack: Stack, params: Any) -> None:
    """Raise unless these are the weights of this stack: all there, and each as it should be.

    Raises:
        TypeError: weights of another kind, or not all of one dtype.
        ValueError: a shape that does not fit, something missing, or something too much.
    """
    if not isinstance(params, tuple | list) or len(params) != len(stack.cells):
        raise ValueError(f"params: expected one for each of {len(stack.cells)} layers")
    width, dtype = None, None
    for n, (cell, layer) in enumerate(zip(stack.cells, params, strict=True)):
        if not isinstance(layer, LayerParams):
            raise TypeError(f"params[{n}]: expected LayerParams, got {type(layer).__name__}")
        for field, wanted in (("backward", stack.bidirectional), ("start", stack.learned_carry)):
            if (getattr(layer, field) is not None) != wanted:
                said = ("None", "weights")
                raise ValueError(
                    f"params[{n}].{field}: expected {said[wanted]} by the stack, "
                    f"got {said[not wanted]}"
                )
        count = 2 if stack.bidirectional else 1
        if layer.start is not None and len(layer.start) != count:
            raise ValueError(f"params[{n}].start: expected {count}, got {len(layer.start)}")
        for k, gates in enumerate(cell.ways[:count]):
            place = f"params[{n}].{('forward', 'backward')[k]}"
            try:
                own = check_weights(gates, layer[k])
            except (TypeError, ValueError) as error:
                raise type(error)(f"{place}: {error}") from error
            size, projects = own.w_ih.shape[-1], getattr(own, "w_hr", None) is not None
            rows = math.prod(own.w_hh.shape[:-2])
            output = cell.size if cell.output is None else cell.output
            if (size, rows, projects) != (cell.size, output, cell.output is not None):
                with_or = "with" if projects else "without"
                raise ValueError(
                    f"{place}: expected {cell.size} units and {output} outputs by the stack, got "
                    f"{size} and {rows}, {with_or} a projection"
                )
            width = own.w_ih.shape[0] if width is None else width
            dtype = own.w_ih.dtype if dtype is None else dtype
            if own.w_ih.shape[0] != width or own.w_ih.dtype != dtype:
                raise ValueError(
                    f"{place}.w_ih: expected {width} inputs of {dtype.name} by what comes before, "
                    f"got {own.w_ih.shape[0]} of {own.w_ih.dtype.name}"
                )
            if layer.start is not None:
                first = jax.eval_shape(lambda gates=gates, own=own: gates.start(own, ()))
                _check_start(f"params[{n}].start[{k}]", first, layer.start[k])
        inputs = params[0].forward.w_ih.shape[0] if stack.connections == "skip" else 0
        width = stack.outputs[n] + inputs


def _check_start(place: str, first: Any, start: Any) -> None:
    if type(start) is not type(first):
        raise TypeError(f"{place}: expected {type(first).__name__}, got {type(start).__name__}")
    for field, one in first._asdict().items():
        own = getattr(start, field)
        found = (getattr(own, "shape", None), getattr(own, "dtype", None))
        if found != (one.shape, one.dtype):
            raise ValueError(
                f"{place}.{field}: expected {one.dtype.name} of shape {one.shape}, got {found}"
            )
