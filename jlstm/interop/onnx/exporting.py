"""From a stack to a model of ONNX: one native ``LSTM`` node for each layer, both ways in one.

What the operator has not is said in standard operators around it: connections between layers,
projections (see ``terms``), and sequences of no steps, whose carry is the one given, where
onnxruntime gives zeros. A forget offset goes into the bias. What changes the inside of a step in
any other way cannot be said, and is refused: layer normalisation, zoneout, limits of the cell or of
the projection, other cells than the LSTM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jlstm import __version__
from jlstm.extras import require
from jlstm.interop.arrays import Direction, NDArray, apart, one_dtype
from jlstm.interop.onnx.terms import OPTIONS, TO, Terms, terms_of
from jlstm.layers import LayerParams, Stack

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# The first opset with the operator as it is now, of 2021: old enough for every reader.
OPSET, IR = 14, 8
DTYPES = ("float16", "float32", "float64")


def to_onnx(stack: Stack, params: Sequence[LayerParams]) -> "ModelProto":
    """A model of ONNX that gives what the stack gives in evaluation.

    Inputs, with d = 1 direction or 2; those in parentheses may be left out, and what has a batch of
    1 holds for all sequences::

        xs                       [time, batch, input]
        (lengths                 [batch], int32; below 0, as when left out, all steps count)
        (h_0, c_0, h_1, …        [d, batch, ·], the carry of each layer before the first step;
                                 when left out, what was learned, or 0)

    Outputs::

        hs                       [time, batch, output], 0 at padding
        h_0_last, c_0_last, …    the carries after the last step

    onnxruntime takes any time and any batch but 0.

    Args:
        stack: the stack, as for evaluation: what it drops in training is not in the model.
        params: its weights, in float16, float32 or float64 (for which onnxruntime has no LSTM).

    Raises:
        MissingExtraError: onnx is not installed.
        TypeError, ValueError: params that are not those of the stack; another dtype; what ONNX has
            not, see the module.
    """
    onnx = require("onnx", "interop")
    layers = _apart(stack, params)
    graph = onnx.GraphProto(name="stack")
    write = Writer(onnx, graph)
    w_ih = layers[0][0].weights.w_ih
    write.declare("input", "xs", w_ih.dtype, ["time", "batch", w_ih.shape[0]])
    write.declare("output", "hs", w_ih.dtype, ["time", "batch", stack.output_size])
    add_stack(graph, stack, params, "xs", "hs", lengths=add_lengths(graph, "xs"))
    opset = onnx.helper.make_opsetid("", OPSET)
    made: ModelProto = onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR, producer_name="jlstm"
    )
    made.producer_version = __version__
    return made


def add_lengths(graph: "GraphProto", xs: str, name: str = "lengths") -> str:
    """Give a graph an optional input, the lengths of its sequences.

    Args:
        graph: the graph, which is changed; of opset 14 or later.
        xs: the name of a tensor ``[time, batch, …]``.
        name: the name of the input, int32 ``[batch]``, or ``[1]`` for one length for all; below 0,
            as when it is left out, all steps count.

    Returns:
        The name of a tensor, ``[batch]``, for ``add_stack``.
    """
    write = Writer(require("onnx", "interop"), graph, f"{name}_")
    given = write.default(name, np.array([-1], np.int32), ["batch_or_1"])
    time = write.node("Cast", [write.size(xs, 0)], to=write.number(np.int32))
    missing = write.node("Less", [given, write.constant("zero", np.zeros(1, np.int32))])
    known = write.node("Where", [missing, time, given])
    return write.node("Expand", [known, write.size(xs, 1)])


def add_stack(
    graph: "GraphProto",
    stack: Stack,
    params: Sequence[LayerParams],
    xs: str,
    hs: str,
    *,
    lengths: str | None = None,
    carries: bool = True,
    prefix: str = "",
) -> None:
    """Add the nodes and weights of a stack to a graph under construction.

    Args:
        graph: the graph, which is changed; of opset 14 or later.
        stack: the stack.
        params: its weights, as for ``to_onnx``.
        xs: the name of the tensor that goes in, ``[time, batch, input]``.
        hs: the name of the tensor that comes out, ``[time, batch, output]``.
        lengths: the name of a tensor with the steps that count, int32 ``[batch]``: see
            ``add_lengths``. None for all.
        carries: whether the carries before and after are (optional) inputs and outputs of the
            graph, as in ``to_onnx``. If not, what was learned, or 0, comes before.
        prefix: what the names of all that is added begin with; another for each stack of a graph.

    Raises:
        MissingExtraError, TypeError, ValueError: as for ``to_onnx``; the graph is then as it was.
    """
    layers = [
        terms_of(n, layer, params[n].start, stack.reverse, carries)
        for n, layer in enumerate(_apart(stack, params))
    ]
    write = Writer(require("onnx", "interop"), graph, prefix)
    per_batch = empty = ""
    if carries or stack.learned_carry:
        one = write.constant("one", np.ones(1, np.int64))
        per_batch = write.node("Concat", [one, write.size(xs, 1), one], axis=0)
        if carries and lengths is not None:
            zero = write.constant("zero", np.zeros(1, np.int32))
            empty = write.node("Unsqueeze", [write.node("Equal", [lengths, zero]), one])
    outs: list[str] = []
    for n, layer in enumerate(layers):
        x = outs[-1] if outs else xs
        if outs and stack.connections == "skip":
            x = write.node("Concat", [x, xs], axis=2)
        before = _carry_before(write, n, layer, carries, per_batch)
        out, after = _layer(write, n, layer, x, lengths, before)
        if outs and stack.connections == "residual":
            out = write.node("Add", [out, outs[-1]])
        outs.append(out)
        if carries:
            _carry_after(write, n, layer, before, after, empty)
    if stack.connections == "skip":
        outs.append(write.node("Concat", outs, axis=2))
    write.node("Identity", outs[-1:], [hs])


def _apart(stack: Stack, params: Sequence[LayerParams]) -> list[list[Direction]]:
    """The layers; refuse what is not ONNX's."""
    layers = apart(
        TO,
        stack,
        params,
        options=OPTIONS,
        connections=("chain", "residual", "skip"),
        projection=True,
        learned_carry=True,
        reverse=True,
    )
    for n, one in enumerate(params):
        if (one.start is not None) != stack.learned_carry:
            said = "one for each direction" if stack.learned_carry else "None"
            raise ValueError(f"params[{n}].start: expected {said} by the stack, got {one.start}")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    one_dtype({f"params{jax.tree_util.keystr(path)}": np.asarray(w) for path, w in leaves})
    dtype = layers[0][0].weights.w_hh.dtype
    if dtype.name not in DTYPES:
        raise TypeError(
            f"params: expected {', '.join(DTYPES)}, as {TO} of opset {OPSET} takes, got {dtype}"
        )
    return layers


# One layer


def _carry_before(
    write: "Writer", n: int, layer: Terms, carries: bool, per_batch: str
) -> tuple[str, str]:
    """The names of h and c before the first step, ``[d, batch, ·]``; "" where they are 0."""
    if not carries and layer.start is None:
        return "", ""
    directions, _, output = layer.R.shape
    hidden, dtype = layer.attributes["hidden_size"], layer.R.dtype
    start = layer.start or [np.zeros((directions, 1, size), dtype) for size in (output, hidden)]
    names = []
    for name, value in zip((f"h_{n}", f"c_{n}"), start, strict=True):
        if carries:
            shape = [directions, "batch_or_1", value.shape[-1]]
            given = write.default(write.prefix + name, value, shape)
        else:
            given = write.constant(name, value)
        names.append(write.node("Expand", [given, per_batch]))
    h, c = names
    return h, c


def _layer(
    write: "Writer", n: int, layer: Terms, x: str, lengths: str | None, before: tuple[str, str]
) -> tuple[str, tuple[str, str]]:
    """What a layer gives, ``[time, batch, d · output]``, and its carry after the last step."""
    directions, _, output = layer.R.shape
    coupled = "input_forget" in layer.attributes
    w = _weights(write, f"W_{n}", layer.W, coupled)
    r = _weights(write, f"R_{n}", layer.R, coupled)
    b = "" if layer.B is None else write.constant(f"B_{n}", layer.B)
    peepholes = "" if layer.P is None else write.constant(f"P_{n}", layer.P)
    h, c = before
    project = None
    if layer.projection is not None:
        project = write.constant(f"projection_{n}", layer.projection)
        r = write.node("MatMul", [r, write.node("Transpose", [project], perm=[0, 2, 1])])
        if h and layer.inverse is not None:
            h = write.node("MatMul", [h, write.constant(f"inverse_{n}", layer.inverse)])
    inputs = [x, w, r, b, lengths or "", h, c, peepholes]
    while not inputs[-1]:
        inputs.pop()
    outputs = [f"{write.prefix}lstm_{n}_{name}" for name in ("hs", "h", "c")]
    write.node("LSTM", inputs, outputs, **layer.attributes)
    hs, h, c = outputs
    if project is not None:
        hs, h = (write.node("MatMul", [name, project]) for name in (hs, h))
    hs = write.node("Transpose", [hs], perm=[0, 2, 1, 3])
    shape = write.constant(f"beside_{n}", np.array([0, 0, directions * output], np.int64))
    return write.node("Reshape", [hs, shape]), (h, c)


def _carry_after(
    write: "Writer",
    n: int,
    layer: Terms,
    before: tuple[str, str],
    after: tuple[str, str],
    empty: str,
) -> None:
    """Make the carry an output of the graph; of a sequence of no steps, the one before."""
    directions, _, output = layer.R.shape
    sizes = (output, layer.attributes["hidden_size"])
    for name, size, old, new in zip("hc", sizes, before, after, strict=True):
        named = f"{write.prefix}{name}_{n}_last"
        write.declare("output", named, layer.R.dtype, [directions, "batch", size])
        if empty:
            write.node("Where", [empty, old, new], [named])
        else:
            write.node("Identity", [new], [named])


def _weights(write: "Writer", name: str, w: NDArray, coupled: bool) -> str:
    """W or R; of a coupled cell, with zeros for f, which take no place in the file."""
    if not coupled:
        return write.constant(name, w)
    directions, rows, width = w.shape
    shape = np.array([directions, rows // 3, width], np.int64)
    fill = [
        write.constant(f"{name}_fill", np.zeros((1, 1, 1), w.dtype)),
        write.constant(f"{name}_fill_shape", shape),
    ]
    parts = [
        write.constant(f"{name}_io", w[:, : 2 * rows // 3]),
        write.node("Expand", fill),
        write.constant(f"{name}_c", w[:, 2 * rows // 3 :]),
    ]
    return write.node("Concat", parts, axis=1)


# Into the graph


@dataclass(frozen=True)
class Writer:
    """Adds to a graph, and returns the name of the tensor that was added."""

    onnx: Any
    graph: Any
    prefix: str = ""

    def number(self, dtype: Any) -> int:
        """ONNX's number of a dtype."""
        number: int = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return number

    def declare(self, field: str, name: str, dtype: Any, shape: Sequence[int | str]) -> None:
        """An input or output of the graph."""
        info = self.onnx.helper.make_tensor_value_info(name, self.number(dtype), shape)
        getattr(self.graph, field).append(info)

    def constant(self, name: str, value: NDArray, prefix: str | None = None) -> str:
        """Numbers that are the same in every run."""
        name = (self.prefix if prefix is None else prefix) + name
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def default(self, name: str, value: NDArray, shape: Sequence[int | str]) -> str:
        """An input of the graph that may be left out, as it has a value."""
        self.declare("input", name, value.dtype, shape)
        return self.constant(name, value, prefix="")

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """A node; of several outputs, the first is returned."""
        name = f"{self.prefix}{kind.lower()}_{len(self.graph.node)}"
        outputs = outputs or [f"{name}_out"]
        made = self.onnx.helper.make_node(kind, inputs, outputs, name=name, **attributes)
        self.graph.node.append(made)
        return outputs[0]

    def size(self, tensor: str, axis: int) -> str:
        """The size of an axis, int64 ``[1]``."""
        shape = self.node("Shape", [tensor])
        return self.node("Gather", [shape, self.constant(f"axis_{axis}", np.array([axis]))])
