"""Equinox's ``eqx.nn.LSTMCell``: ``weight_ih [4 · hidden, input]``, gates i, f, g, o, one bias."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jlstm.equations import PLAIN
from jlstm.interop.arrays import (
    Direction,
    NDArray,
    apart,
    array,
    join_gates,
    split_gates,
    together,
)
from jlstm.layers import LayerParams, Stack
from jlstm.variants import VariantParams

ORDER = "ifgo"


class CellWeights(NamedTuple):
    """The arrays of an ``eqx.nn.LSTMCell``, named as it names them.

    They go into a cell by ``eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell,
    tuple(weights))``, or without the bias where there is none.
    """

    weight_ih: NDArray
    weight_hh: NDArray
    bias: NDArray | None


def from_equinox(cells: Any) -> tuple[Stack, tuple[LayerParams, ...]]:
    """Equinox's cells as one stack.

    Args:
        cells: one, or a list with one for each layer, or with a pair for each, forward and
            backward. A cell is anything with ``weight_ih``, ``weight_hh`` and ``bias`` as
            attributes or keys.

    Returns:
        The stack, and its weights: NumPy arrays of the dtype that they have.

    Raises:
        TypeError: no cells; weights that are no arrays, or not of one floating-point dtype.
        ValueError: no cells in the list; shapes that do not fit, also from layer to layer.
    """
    layers = cells if _is_list(cells) else [cells]

    def direction(place: str, cell: Any) -> Direction:
        sizes: dict[str, int] = {}

        def take(name: str, *shape: str) -> NDArray:
            value = cell.get(name) if isinstance(cell, Mapping) else getattr(cell, name, None)
            return array(f"{place}.{name}", value, shape, sizes)

        w_hh = take("weight_hh", "4 hidden", "hidden")
        w_ih = take("weight_ih", "4 hidden", "input")
        bias = cell.get("bias") if isinstance(cell, Mapping) else getattr(cell, "bias", None)
        b = None if bias is None else split_gates(take("bias", "4 hidden"), ORDER)
        weights: Any = split_gates(w_ih.T, ORDER), split_gates(w_hh.T, ORDER), b
        return Direction(PLAIN, VariantParams(*weights))

    return together(
        [
            [direction(f"cells[{n}]", cell) for cell in (layer if _is_list(layer) else [layer])]
            for n, layer in enumerate(layers)
        ]
    )


def to_equinox(
    stack: Stack, params: Sequence[LayerParams]
) -> tuple[CellWeights | tuple[CellWeights, CellWeights], ...]:
    """The weights of a stack for Equinox's cells: one for each layer, or a pair for each.

    Raises:
        TypeError: no stack, or weights of another kind.
        ValueError: what Equinox cannot represent, and why.
    """

    def rows(w: Any) -> NDArray:
        return np.array(join_gates(np.asarray(w), ORDER).T, order="C")

    def cell(weights: VariantParams) -> CellWeights:
        b = None if weights.b is None else join_gates(np.asarray(weights.b), ORDER)
        return CellWeights(rows(weights.w_ih), rows(weights.w_hh), b)

    layers: Any = [
        tuple(cell(one.weights) for one in layer) for layer in apart("Equinox", stack, params)
    ]
    return tuple(layer if stack.bidirectional else layer[0] for layer in layers)


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple | list) and not hasattr(value, "_fields")
