"""Haiku's ``hk.LSTM``: one linear map of inputs and h' side by side, and a 1 added to f in code.

The map's ``w`` is ``[input + hidden, 4 · hidden]``, the gates i, g, f, o one after another, and its
bias ``b`` has no part in the 1. So it is ``Variant(forget_offset=1.0)``, with the very same
numbers there and back. ``hk.deep_rnn_with_skip_connections`` is known by the shapes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jlstm.equations import PLAIN
from jlstm.gates import Gates
from jlstm.interop.arrays import (
    Direction,
    Name,
    NDArray,
    apart,
    array,
    check_order,
    join_gates,
    listed,
    names_for,
    natural,
    pairs_of,
    refusal,
    split_gates,
    together,
)
from jlstm.layers import Connections, LayerParams, Stack
from jlstm.types import GATES, format_shape
from jlstm.variants import Variant, VariantParams

ORDER = "igfo"
CELL = Variant(forget_offset=1.0)
"""Haiku's cell."""


def from_haiku(
    params: Mapping[str, Any], *, layers: Sequence[Name] | None = None, gates: Gates = CELL
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """The LSTMs among Haiku's parameters, as one stack.

    Args:
        params: those of ``hk.transform(…).init``.
        layers: the modules, a name for each layer, or a pair of them where two cores walk forward
            and backward: what stands before ``/linear``, such as ``"encoder/lstm_1"``. None for all
            that are named ``lstm``, with or without a number, in the order of the numbers.
        gates: the cell; ``PLAIN`` has the 1 added to the bias instead (a rounding), and is faster.

    Returns:
        The stack, and its weights: NumPy arrays of the dtype that they have.

    Raises:
        TypeError: no parameters; weights that are no arrays, or not of one floating-point dtype.
        ValueError: no LSTM, or none of a name that was asked for; shapes that do not fit, also from
            layer to layer; other gates.
    """
    if gates not in (CELL, PLAIN):
        raise ValueError(f"gates: expected {CELL} or PLAIN, got {gates!r}")
    modules = _modules("params", params)
    names = _in_order(modules) if layers is None else pairs_of(layers)
    if not names:
        raise ValueError(f"params: expected modules named lstm, got {listed(map(str, params))}")

    def direction(name: str) -> Direction:
        module, place = _module(name, modules), f"{name}/linear"
        sizes: dict[str, int] = {}
        b = array(f"{place}/b", module.get("b"), ("4 hidden",), sizes)
        hidden = sizes["hidden"]
        w = array(f"{place}/w", module.get("w"), ("rows", "4 hidden"), sizes)
        if len(w) <= hidden:
            raise ValueError(
                f"{place}/w: expected rows for inputs and {hidden} units, got {len(w)}"
            )
        w, b = split_gates(w, ORDER), split_gates(b, ORDER)
        if gates == PLAIN:
            b = _moved(b, CELL.forget_offset)
        weights: Any = w[:-hidden], w[-hidden:], b
        return Direction(gates, VariantParams(*weights))

    found = [[direction(name) for name in pair] for pair in names]
    if not _skips(found):
        return together(found)
    first = found[0][0].weights.w_ih.shape[0]
    return together(found[:1] + _rolled(found[1:], -first), "skip")


def to_haiku(
    stack: Stack,
    params: Sequence[LayerParams],
    like: Mapping[str, Any] | None = None,
    *,
    layers: Sequence[Name] | None = None,
) -> dict[str, Any]:
    """Parameters for Haiku, with the weights of a stack in its LSTMs.

    A bias that a stack does not have is zeros, as every cell of Haiku has one; and of a cell with
    another ``forget_offset`` than 1, what differs goes into the bias of f.

    Args:
        stack: the stack.
        params: its weights.
        like: parameters to put them among; what is no LSTM stays as it is. None for these alone.
        layers: the names of the modules, as for ``from_haiku``. None for all that are in ``like``,
            or, without it, for ``lstm``, ``lstm_1``, … (of two directions, forward comes first).

    Returns:
        The parameters, of dictionaries and NumPy arrays.

    Raises:
        TypeError: no stack, weights of another kind, or no parameters.
        ValueError: what Haiku cannot represent, and why; other modules in ``like``.
    """
    known: tuple[Connections, ...] = ("chain", "skip")
    ours = apart("Haiku", stack, params, options=("forget_offset",), connections=known)
    if stack.connections == "skip":
        if stack.bidirectional:
            raise refusal("connections", "Haiku", "skip is of one direction", stack.connections)
        ours = ours[:1] + _rolled(ours[1:], ours[0][0].weights.w_ih.shape[0])
    ways = 1 + stack.bidirectional
    if layers is None and like is None:
        flat = [f"lstm_{n}" if n else "lstm" for n in range(ways * len(ours))]
        layers = [flat[n : n + ways] for n in range(0, len(flat), ways)]
    modules = {} if like is None else _modules("like", like)
    names = names_for(_in_order(modules) if layers is None else layers, stack)
    new: dict[str, Any] = {} if like is None else {key: dict(own) for key, own in like.items()}
    for pair, layer in zip(names, ours, strict=True):
        for name, (gates, weights) in zip(pair, layer, strict=True):
            w = np.concatenate([np.asarray(weights.w_ih), np.asarray(weights.w_hh)])
            b = np.zeros_like(w[0]) if weights.b is None else np.asarray(weights.b)
            offset = gates.forget_offset if isinstance(gates, Variant) else 0.0
            b = b if offset == CELL.forget_offset else _moved(b, offset - CELL.forget_offset)
            own = {"w": join_gates(w, ORDER), "b": join_gates(b, ORDER)}
            if like is not None:
                for leaf, value in _module(name, modules).items():
                    if leaf not in own or tuple(value.shape) != own[leaf].shape:
                        wanted = format_shape(own[leaf].shape) if leaf in own else "only w and b"
                        raise ValueError(
                            f"like: expected {wanted} at {name}/linear/{leaf}, by the stack, "
                            f"got {format_shape(value.shape)}"
                        )
            new[f"{name}/linear"] = own
    return new


def _modules(name: str, params: Any) -> dict[str, Any]:
    """What could be an LSTM, by its name."""
    if not isinstance(params, Mapping) or not all(isinstance(p, Mapping) for p in params.values()):
        raise TypeError(f"{name}: expected parameters of Haiku, got {type(params).__name__}")
    return {
        key.removesuffix("/linear"): module
        for key, module in params.items()
        if isinstance(key, str) and key.endswith("/linear")
    }


def _in_order(modules: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Those that have Haiku's own name for an LSTM, where their names tell the order."""
    names = [n for n in sorted(modules, key=natural) if re.search(r"(^|/)lstm(_\d+)?$", n)]
    check_order(names)
    return [(name,) for name in names]


def _module(name: str, modules: Mapping[str, Any]) -> Any:
    if name not in modules:
        raise ValueError(f"layers: expected modules out of {listed(modules)}, got {name!r:.60}")
    return modules[name]


def _skips(layers: Sequence[Sequence[Direction]]) -> bool:
    """Whether each layer sees the inputs, too: ``hk.deep_rnn_with_skip_connections``."""
    if any(len(layer) != 1 for layer in layers):
        return False
    inputs = [one.weights.w_ih.shape[0] for (one,) in layers]
    outputs = [one.weights.w_hh.shape[0] for (one,) in layers]
    return len(layers) > 1 and inputs[1:] == [inputs[0] + size for size in outputs[:-1]]


def _rolled(layers: Sequence[Sequence[Direction]], rows: int) -> list[list[Direction]]:
    """With the rows of w_ih moved down: Haiku has the inputs above what the layer before gives."""
    rolled: list[list[Direction]] = []
    for (one,) in layers:
        w_ih: Any = np.roll(one.weights.w_ih, rows, axis=0)
        rolled.append([one._replace(weights=one.weights._replace(w_ih=w_ih))])
    return rolled


def _moved(b: NDArray, offset: float) -> NDArray:
    """The bias with a constant added for f."""
    moved = b.copy()
    moved[GATES.index("f")] += np.asarray(offset, b.dtype)
    return moved
