"""From an ``LSTM`` node of ONNX, or several, one upon the other, to a stack and its weights."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jlstm.activations import Activation
from jlstm.checks import check_number
from jlstm.interop.arrays import Direction, NDArray, array, split_gates, together
from jlstm.interop.onnx.operator import ACTIVATIONS, DEFAULTED, DIRECTIONS, ORDER, PEEPHOLES, ROLES
from jlstm.interop.onnx.reading import Model, attributes, constant, read_model
from jlstm.layers import Connections, LayerParams, Stack
from jlstm.types import Carry
from jlstm.variants import Variant, VariantParams

if TYPE_CHECKING:
    from onnx import ModelProto

ATTRIBUTES = {
    "activations": "STRINGS",
    "activation_alpha": "FLOATS",
    "activation_beta": "FLOATS",
    "clip": "FLOAT",
    "direction": "STRING",
    "hidden_size": "INT",
    "input_forget": "INT",
    "layout": "INT",
    "output_sequence": "INT",  # of version 1: which outputs there are
}


def from_onnx(
    model: "ModelProto | str | os.PathLike[str]",
    node: str | int | Sequence[str | int] | None = None,
    *,
    connections: Connections = "chain",
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """The stack that an ``LSTM`` node is, with its weights.

    The node's lengths, and its carry before the first step where that is an input of the model, are
    arguments of ``stack`` and in no way in what is returned; nor is ``layout``, the order of axes
    of what goes in and out (1 is ``batch_major``). A constant carry, the same for all sequences,
    becomes a learned one. Two biases become their sum.

    Args:
        model: the model, or the path of its file; weights in other files have to be in its folder.
        node: the name of the node, or its number among the LSTM nodes of the graph, from 0; several
            for the layers of a stack, from the first. None for the only one there is.
        connections: how several are connected, which the nodes do not say.

    Returns:
        The stack and its weights, arrays of NumPy in the dtype that they have in the model.

    Raises:
        MissingExtraError: onnx is not installed.
        OSError: a file that is not there or cannot be read.
        TypeError: an argument of another type; weights that are not of one floating-point dtype.
        ValueError: no such node; a file that is damaged; weights that are computed within the
            model, or of other shapes; what no variant is.
    """
    read = read_model(model)
    chosen = _choose(read.graph, node)
    layers, starts, directions = [], [], []
    for one in chosen:
        told = attributes(one, ATTRIBUTES, unknown=False)
        direction = _text(one, told.get("direction", b"forward"))
        if direction not in DIRECTIONS:
            raise _wrong(one, "direction", f"one of {', '.join(DIRECTIONS)}", direction)
        layer, start = _layer(read, one, told, DIRECTIONS[direction])
        layers.append(layer)
        starts.append(start)
        directions.append(direction)
    if len(set(directions)) > 1:
        raise ValueError(f"node: expected nodes of one direction for one stack, got {directions}")
    stack, params = together(layers, connections)
    stack = replace(stack, reverse=directions[0] == "reverse")
    if any(start is not None for start in starts):
        stack = replace(stack, learned_carry=True)
        params = tuple(
            one._replace(start=start or _zeros(one))
            for one, start in zip(params, starts, strict=True)
        )
    return stack, params


def _choose(graph: Any, asked: Any) -> list[Any]:
    """The nodes that are asked for."""
    nodes = [n for n in graph.node if n.op_type == "LSTM" and n.domain in ("", "ai.onnx")]
    shown = ", ".join(repr(n.name) for n in nodes[:8]) + (", …" if len(nodes) > 8 else "")
    if not nodes:
        raise ValueError("model: expected an LSTM node in its graph, found none")
    if asked is None:
        if len(nodes) > 1:
            raise ValueError(f"node: expected the name of one or more of {len(nodes)}: {shown}")
        return nodes
    chosen = []
    for one in [asked] if isinstance(asked, str | int) else asked:
        if not isinstance(one, str | int) or isinstance(one, bool):
            raise TypeError(f"node: expected a name or a number, got {type(one).__name__}")
        if isinstance(one, int):
            found = nodes[one : one + 1] if one >= 0 else []
        else:
            found = [n for n in nodes if n.name == one]
        if len(found) != 1:
            raise ValueError(f"node: expected one of {shown}, found {len(found)} for {one!r}")
        chosen += found
    return chosen


def _layer(
    model: Model, node: Any, told: Mapping[str, Any], ways: int
) -> tuple[list[Direction], tuple[Carry, ...] | None]:
    """A node's directions, and the carry before the first step where it is a constant."""
    names = [*node.input, *[""] * 8][:8]

    def known(place: int) -> NDArray | None:
        return constant(model, names[place]) if names[place] else None

    def weights(place: int, name: str, shape: Sequence[int | str]) -> NDArray | None:
        label, value = f"node {node.name!r}, {name}", known(place)
        if value is None and names[place]:
            maker = model.makers.get(names[place])
            by = f"the output of {maker.op_type}" if maker else "an input of the model"
            raise ValueError(f"{label}: expected constants of the model, got {by}")
        return None if value is None else array(label, value, shape, sizes)

    sizes: dict[str, int] = {}
    r = weights(2, "R", (ways, "4 hidden", "hidden"))
    w = weights(1, "W", (ways, "4 hidden", "input"))
    if w is None or r is None:
        raise ValueError(f"node {node.name!r}: expected the inputs X, W and R")
    b = weights(3, "B", (ways, "8 hidden"))
    p = weights(7, "P", (ways, "3 hidden"))
    hidden = sizes["hidden"]
    if told.get("hidden_size", hidden) != hidden:
        raise _wrong(node, "hidden_size", f"{hidden}, as R has", told["hidden_size"])
    coupled = _flag(node, told, "input_forget")

    def ours(rows: NDArray, order: str) -> Any:
        """``[rows, …]`` to ``[…, gates, hidden]``, of a coupled cell without f."""
        blocks = split_gates(rows.T, order)
        return np.array(np.delete(blocks, 1, axis=-2) if coupled else blocks, order="C")

    layer = []
    for way, roles in enumerate(_activations(node, told, ways)):
        own = VariantParams(
            w_ih=ours(w[way], ORDER),
            w_hh=ours(r[way], ORDER),
            b=None if b is None else ours(np.add(*np.split(b[way], 2)), ORDER),
            peepholes=None if p is None else ours(p[way], PEEPHOLES),
        )
        clip = _clip(node, told)
        gates = Variant(peepholes=p is not None, coupled=coupled, preact_clip=clip, **roles)
        layer.append(Direction(gates, own))
    axis = 0 if _flag(node, told, "layout") else 1  # of the batch
    states = [_same_for_all(node, name, known(k), axis) for k, name in ((5, "h"), (6, "c"))]
    return layer, _start(node, states, names[5:7], (ways, hidden), w.dtype)


def _activations(node: Any, told: Mapping[str, Any], ways: int) -> list[dict[str, Any]]:
    """What f, g and h are, for each direction."""
    names = [_text(node, name) for name in told.get("activations", ())]
    names = names or ["Sigmoid", "Tanh", "Tanh"] * ways
    if len(names) != 3 * ways:
        raise _wrong(node, "activations", f"{3 * ways} names", names[:9])
    # Each takes its own from the front of two lists, in which those with none have no place.
    alphas, betas = (list(told.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    spelt = {name.lower(): name for name in ACTIVATIONS}
    made = []
    for given in names:
        name = spelt.get(given.lower())
        if name is None:
            raise _wrong(node, "activations", f"some of {', '.join(ACTIVATIONS)}", given)
        known = ACTIVATIONS[name]
        constants = []
        for values, default in zip((alphas, betas), known.constants, strict=False):
            if not values and name not in DEFAULTED:
                raise _wrong(node, "activations", f"alpha (and beta) of {name}", "none")
            constants.append(_number(values.pop(0)) if values else default)
            check_number(f"node {node.name!r}, {name}", constants[-1])
        made.append(Activation(known.function, tuple(constants)))
    if alphas or betas:
        raise _wrong(node, "activation_alpha, activation_beta", "as many as are taken", "more")
    return [dict(zip(ROLES, made[3 * n : 3 * n + 3], strict=True)) for n in range(ways)]


def _clip(node: Any, told: Mapping[str, Any]) -> float | None:
    clip: float = told.get("clip", np.inf)
    if not clip > 0:
        raise _wrong(node, "clip", "a positive number", clip)
    return None if clip == np.inf else _number(clip)


def _number(value: float) -> float:
    """0.3 for the float32 next to it, as which ONNX has it: the shortest one of that rounding."""
    return float(str(np.float32(value)))


def _same_for_all(node: Any, name: str, state: NDArray | None, axis: int) -> NDArray | None:
    """A constant h or c, ``[directions, hidden]``, which has to be the same for all sequences."""
    if state is None:
        return None
    if state.ndim != 3 or not state.shape[axis]:
        raise _wrong(node, f"initial_{name}", "[directions, batch, hidden]", state.shape)
    first = state.take([0], axis)
    if not np.array_equal(np.broadcast_to(first, state.shape), state):
        raise _wrong(node, f"initial_{name}", "one for all sequences, or an input", "several")
    return first.squeeze(axis)


def _start(
    node: Any,
    states: Sequence[NDArray | None],
    names: Sequence[str],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> tuple[Carry, ...] | None:
    """The carry before the first step, for each direction; None for 0 and for an input."""
    if not any(state is not None and state.any() for state in states):
        return None
    filled = []
    for state, name in zip(states, names, strict=True):
        if state is None and name:
            raise ValueError(f"node {node.name!r}: expected constants for both h and c, or neither")
        try:
            state = np.zeros(shape, dtype) if state is None else np.broadcast_to(state, shape)
        except ValueError:
            raise _wrong(node, "initial_h, initial_c", f"{list(shape)}", states) from None
        filled.append(np.array(state, dtype))
    return tuple(Carry(h, c) for h, c in zip(*filled, strict=True))


def _zeros(params: LayerParams) -> tuple[Carry, ...]:
    """The carry before the first step of a layer that starts from nothing."""
    ways = [w for w in params[:2] if w is not None]
    return tuple(Carry(*np.zeros((2, w.w_hh.shape[-1]), w.w_hh.dtype)) for w in ways)


def _flag(node: Any, told: Mapping[str, Any], name: str) -> bool:
    value = told.get(name, 0)
    if value not in (0, 1):
        raise _wrong(node, name, "0 or 1", value)
    return bool(value)


def _text(node: Any, value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise _wrong(node, "attributes", "names in ASCII", value[:20]) from None


def _wrong(node: Any, name: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"node {node.name!r}, {name}: expected {expected}, got {got}")
