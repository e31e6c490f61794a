"""What a file of ONNX holds, read with suspicion: arrays and attributes, or ValueError.

Nothing is computed or allocated on the word of the file alone: an array is as large as the bytes
that are there, and a file of weights beside the model has to be beside the model.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jlstm.extras import require
from jlstm.interop.arrays import NDArray

LARGEST = 2**31 - 1
"""Bytes of a file that protobuf reads."""
FIELDS = {
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "FLOAT16": "int32_data",
    "BFLOAT16": "int32_data",
    "INT64": "int64_data",
}
"""The dtypes that weights and shapes have, and where a tensor has its numbers if not as bytes."""


class Model(NamedTuple):
    """A graph, and what is found in it by name."""

    graph: Any
    folder: Path | None
    """Where weights in files of their own are; None for a model that came without a path."""
    stored: Mapping[str, Any]
    """The arrays of the graph."""
    makers: Mapping[str, Any]
    """The node that makes a tensor."""


def read_model(model: Any) -> Model:
    """A ``ModelProto``, or the path of a file with one."""
    onnx, folder = require("onnx", "interop"), None
    if not isinstance(model, onnx.ModelProto):
        try:
            path = Path(model)
        except TypeError:
            raise TypeError(
                f"model: expected an onnx.ModelProto or a path, got {type(model).__name__}"
            ) from None
        if not path.is_file():
            raise FileNotFoundError(f"model: expected a file, and there is none at {path}")
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"model: expected at most {LARGEST} bytes, got {size} in {path}")
        error = require("google.protobuf.message", "interop").DecodeError
        try:
            model = onnx.ModelProto.FromString(path.read_bytes())
        except error as why:
            raise ValueError(f"model: {path} is no ONNX model, or not all of one: {why}") from None
        folder = path.parent
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output if name}
    return Model(graph, folder, stored, makers)


# Arrays


def constant(model: Model, name: str) -> NDArray | None:
    """What a tensor is in every run; None if that is not known before.

    What is laid side by side is one array, and blocks of one number may be among it, as is written
    down for the gate that a coupled cell has not. Otherwise, of what is broadcast, this is what is
    there before.
    """
    node = model.makers.get(name)
    if name in model.stored or node is None or node.op_type != "Concat":
        return _single(model, name)[0]
    parts, filled = [], 0
    for part in node.input:
        a, shape = _single(model, part)
        if a is None:
            return None
        if shape is not None:
            a = _broadcast(f"node {node.name!r}", a, shape)  # no copy, however large
            filled += a.nbytes
        parts.append(a)
    if 2 * filled > sum(a.nbytes for a in parts):
        raise ValueError(f"node {node.name!r}: expected more bytes in the file than it makes")
    axis = attributes(node, {"axis": "INT"}).get("axis")
    try:
        return np.concatenate(parts, axis)
    except (TypeError, ValueError) as error:  # NumPy says what does not fit
        raise ValueError(f"node {node.name!r}: {error}") from None


def _single(model: Model, name: str) -> tuple[NDArray | None, NDArray | None]:
    """What is stored, and the shape to which it is broadcast."""
    shape = None
    for _ in range(8):  # a file may go round in circles
        if name in model.stored:
            return read_array(model, model.stored[name]), shape
        node = model.makers.get(name)
        if node is not None and node.op_type == "Constant":
            value = attributes(node, {"value": "TENSOR"}).get("value")
            return None if value is None else read_array(model, value), shape
        if node is None or node.op_type not in ("Identity", "Expand") or not node.input:
            return None, None
        if node.op_type == "Expand" and len(node.input) == 2 and node.input[1] in model.stored:
            shape = read_array(model, model.stored[node.input[1]])
        name = node.input[0]
    return None, None


def _broadcast(name: str, a: NDArray, shape: NDArray) -> NDArray:
    try:
        return np.broadcast_to(a, np.broadcast_shapes(a.shape, tuple(map(int, shape.flat))))
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def read_array(model: Model, tensor: Any) -> NDArray:
    """A stored array, in this file or in one beside it."""
    onnx, name = require("onnx", "interop"), f"tensor {tensor.name!r}"
    kinds = {getattr(onnx.TensorProto, kind): field for kind, field in FIELDS.items()}
    if tensor.data_type not in kinds:
        raise ValueError(
            f"{name}: expected a dtype among {', '.join(FIELDS)}, got number {tensor.data_type}"
        )
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    dims = list(tensor.dims)
    if any(n < 0 for n in dims) or len(dims) > 8 or tensor.HasField("segment"):
        raise ValueError(f"{name}: expected the whole of an array, got the shape {dims[:9]}")
    count = math.prod(dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        data: bytes = _beside(model, tensor, name, count * dtype.itemsize)
    elif tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        values = getattr(tensor, kinds[tensor.data_type])
        if len(values) != count:
            raise ValueError(f"{name}: expected {count} numbers for {dims}, got {len(values)}")
        wide: NDArray = onnx.numpy_helper.to_array(tensor)
        return wide
    if len(data) != count * dtype.itemsize:
        raise ValueError(
            f"{name}: expected {count * dtype.itemsize} bytes for {dtype.name} {dims}, "
            f"got {len(data)}"
        )
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(dims).astype(dtype, copy=False)


def _beside(model: Model, tensor: Any, name: str, size: int) -> bytes:
    """The bytes of an array in a file beside the model."""
    if model.folder is None:
        raise ValueError(
            f"{name}: expected its numbers in the model, which came without a path; they are in a "
            "file of their own: give the path of the model"
        )
    told = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = told.get("location", ""), model.folder.resolve()
    try:
        path = (folder / location).resolve()
        inside = not Path(location).is_absolute() and path.is_relative_to(folder)
        there = inside and path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        there = False
    if not there:
        raise ValueError(
            f"{name}: expected its numbers in a file within the model's folder, got {location!r}"
        )
    numbers = [told.get("offset", "0"), told.get("length", str(size))]
    if not all(n.isascii() and n.isdigit() and len(n) < 20 for n in numbers):
        raise ValueError(f"{name}: expected an offset and a length, got {numbers}")
    offset, length = map(int, numbers)
    if length != size or offset + length > path.stat().st_size:
        raise ValueError(
            f"{name}: expected {size} bytes for its shape, got {length} from {offset} on in "
            f"{path.name} of {path.stat().st_size}"
        )
    with path.open("rb") as file:
        file.seek(offset)
        data: bytes = file.read(length)
    return data


# Attributes


def attributes(node: Any, kinds: Mapping[str, str], unknown: bool = True) -> dict[str, Any]:
    """A node's attributes, each of the kind that it should be; ``unknown``: others are let pass."""
    onnx, found = require("onnx", "interop"), dict[str, Any]()
    for attribute in node.attribute:
        name = attribute.name
        if name not in kinds:
            if unknown:
                continue
            raise ValueError(f"node {node.name!r}: expected no attribute {name!r} of an LSTM")
        kind = getattr(onnx.AttributeProto, kinds[name])
        if attribute.type != kind or attribute.ref_attr_name or name in found:
            raise ValueError(f"node {node.name!r}: expected one {name} of type {kinds[name]}")
        found[name] = onnx.helper.get_attribute_value(attribute)
    return found
