"""Flax's ``LSTMCell`` and ``OptimizedLSTMCell``, of Linen and of NNX, wherever they are in a tree.

Linen's two cells, and NNX's ``LSTMCell``, keep a kernel ``[input, hidden]`` for each gate, named
``ii, if, ig, io`` for the inputs (NNX: ``if_``) and ``hi, hf, hg, ho`` for h', the latter with a
bias. NNX's ``OptimizedLSTMCell`` keeps ``dense_i`` and ``dense_h``, the gates i, f, g, o one after
another. ``nn.RNN``, ``nn.Bidirectional`` and a scan of one's own only put them in some place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jlstm.equations import PLAIN
from jlstm.gates import Gates
from jlstm.interop.arrays import (
    Direction,
    Name,
    NDArray,
    apart,
    array,
    by_layer,
    check_order,
    join_gates,
    listed,
    names_for,
    one_dtype,
    pairs_of,
    same_activation,
    split_gates,
    together,
)
from jlstm.layers import LayerParams, Stack
from jlstm.types import format_shape
from jlstm.variants import VariantParams

ORDER = "ifgo"
DEEPEST = 64
"""How deep a tree is searched."""


class Names(NamedTuple):
    """What a cell calls its parts: one for each gate, or one for all."""

    inputs: tuple[str, ...]
    hidden: tuple[str, ...]


FORMS = (
    Names(("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Names(("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho")),
    Names(("dense_i",), ("dense_h",)),
)


def from_flax(
    tree: Mapping[Any, Any], *, layers: Sequence[Name] | None = None, gates: Gates = PLAIN
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """The LSTMs in a tree of Flax's, as one stack.

    Args:
        tree: Linen's variables or their ``"params"``; of NNX, ``nnx.state(module)``, or a plain
            dictionary of it.
        layers: where the cells are, a name for each layer or a pair of them, forward and backward:
            the keys that lead there with ``/`` between, such as ``"params/encoder/cell"``. None for
            all cells, in the order of the numbers in their names, those below ``forward_rnn`` and
            ``backward_rnn`` of one place as a pair. (A compact module has both directions beside
            each other, ``[("params/LSTMCell_0", "params/LSTMCell_1")]``, and its tree does not tell
            them from two layers.)
        gates: the cell, where it has another ``gate_fn`` or ``activation_fn``, of which weights
            tell nothing: ``Variant(gate=…, candidate=…, output=…)``.

    Returns:
        The stack, and its weights: NumPy arrays of the dtype that they have.

    Raises:
        TypeError: no tree; weights that are no arrays, or not of one floating-point dtype.
        ValueError: no cells, or none of a name that was asked for; names that differ by more than
            numbers, and no ``layers``; weights whose shapes do not fit, also from layer to layer.
    """
    cells = _cells("tree", tree)
    names = _in_order(cells) if layers is None else pairs_of(layers)
    if not names:
        found = listed({*_weights_at(tree)})
        raise ValueError(f"tree: expected LSTM cells, got none, and weights at {found}")
    return together([[_direction(name, cells, gates) for name in pair] for pair in names])


def to_flax(
    stack: Stack,
    params: Sequence[LayerParams],
    like: Mapping[Any, Any] | None = None,
    *,
    layers: Sequence[Name] | None = None,
) -> dict[Any, Any]:
    """A tree for Flax, with the weights of a stack in its cells.

    A bias that a stack does not have is zeros, as every cell of Flax has one. Activations other
    than the usual have to be said to Flax where the module is made, as ``gate_fn`` and
    ``activation_fn``.

    Args:
        stack: the stack.
        params: its weights.
        like: the tree to put them into, from ``module.init`` or ``nnx.state(module)``, or shapes
            for it; what is no cell stays as it is. None for the variables of Linen's
            ``Sequential([RNN(LSTMCell(…)), …])``, with ``Bidirectional(RNN(…), RNN(…))`` for two
            directions.
        layers: where in ``like`` the cells are, as for ``from_flax``.

    Returns:
        The tree, of dictionaries and NumPy arrays. (For NNX: ``nnx.update(module, tree)``.)

    Raises:
        TypeError: no stack, weights of another kind, or no tree.
        ValueError: what Flax cannot represent, and why; a tree with other cells.
    """
    ours = apart("Flax", stack, params, options=("gate", "candidate", "output"))
    same_activation("Flax", ours, "candidate and output have one activation_fn")
    if like is None:
        rnns = ("forward_rnn/", "backward_rnn/") if stack.bidirectional else ("",)
        empty: Any = {"params": {}}
        for n in range(len(ours)):
            cell: Any = {part: {} for part in FORMS[0].inputs + FORMS[0].hidden}
            rnn = {"cell": cell}
            both = {"forward_rnn": rnn, "backward_rnn": rnn}
            empty["params"][f"layers_{n}"] = both if stack.bidirectional else rnn
        like, layers = (
            empty,
            [tuple(f"params/layers_{n}/{rnn}cell" for rnn in rnns) for n in range(len(ours))],
        )
    cells = _cells("like", like)
    names = names_for(_in_order(cells) if layers is None else layers, stack)
    new = {
        name: _parts(_cell(name, cells)[1], one.weights)
        for pair, layer in zip(names, ours, strict=True)
        for name, one in zip(pair, layer, strict=True)
    }
    filled: dict[Any, Any] = _filled(like, new, ())
    return filled


def _cells(name: str, tree: Any, path: tuple[str, ...] = ()) -> dict[str, tuple[Any, Names]]:
    """All nodes with the parts of a cell, by the keys that lead there."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"{name}: expected a tree of Flax, got {type(tree).__name__}")
    if len(path) > DEEPEST:
        raise ValueError(f"{name}: expected a tree at most {DEEPEST} deep, got a deeper one")
    for form in FORMS:
        if all(isinstance(tree.get(part), Mapping) for part in form.inputs + form.hidden):
            return {"/".join(path): (tree, form)}
    found: dict[str, tuple[Any, Names]] = {}
    for key, below in tree.items():
        if isinstance(below, Mapping):
            found |= _cells(name, below, (*path, str(key)))
    return found


def _weights_at(tree: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Where a tree has weights, whatever they are of."""
    for key, below in tree.items():
        if isinstance(below, Mapping):
            yield from _weights_at(below, (*path, str(key)))
        else:
            yield "/".join(path)


def _in_order(cells: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """All cells, where their names tell the order."""
    names = by_layer(cells, "forward_rnn", "backward_rnn")
    check_order(name for name, *_ in names)
    return names


def _cell(name: str, cells: Mapping[str, tuple[Any, Names]]) -> tuple[Any, Names]:
    if name not in cells:
        raise ValueError(f"layers: expected cells out of {listed(cells)}, got {name!r:.60}")
    return cells[name]


def _direction(name: str, cells: Mapping[str, tuple[Any, Names]], gates: Gates) -> Direction:
    """The weights of one cell."""
    cell, form = _cell(name, cells)
    sizes: dict[str, int] = {}
    size = "hidden" if len(form.inputs) > 1 else "4 hidden"

    def joined(parts: tuple[str, ...], leaf: str, *shape: str) -> NDArray:
        arrays = []
        for part in parts:
            if leaf not in cell[part]:
                raise ValueError(f"{name}/{part}: expected a {leaf}, got {listed(cell[part])}")
            value = _unboxed(cell[part][leaf])
            arrays.append(array(f"{name}/{part}/{leaf}", value, (*shape, size), sizes))
        one_dtype({f"{name}/{part}/{leaf}": a for part, a in zip(parts, arrays, strict=True)})
        return split_gates(np.concatenate(arrays, axis=-1), ORDER)

    for part in form.inputs:
        if cell[part].get("bias") is not None:
            raise ValueError(f"{name}/{part}: expected a kernel and no bias, got both")
    weights: Any = (
        joined(form.inputs, "kernel", "input"),
        joined(form.hidden, "kernel", "hidden"),
        joined(form.hidden, "bias"),
    )
    return Direction(gates, VariantParams(*weights))


def _parts(form: Names, weights: VariantParams) -> dict[str, dict[str, NDArray]]:
    """The weights as a cell of this form has them."""
    w_ih, w_hh = np.asarray(weights.w_ih), np.asarray(weights.w_hh)
    b = np.zeros_like(w_hh[0]) if weights.b is None else np.asarray(weights.b)

    def cut(parts: tuple[str, ...], w: NDArray) -> list[NDArray]:
        return np.split(join_gates(w, ORDER), len(parts), axis=-1)

    inputs, hidden = form
    parts = {
        part: {"kernel": kernel} for part, kernel in zip(inputs, cut(inputs, w_ih), strict=True)
    }
    both = zip(hidden, cut(hidden, w_hh), cut(hidden, b), strict=True)
    return parts | {part: {"kernel": kernel, "bias": bias} for part, kernel, bias in both}


def _filled(tree: Mapping[Any, Any], new: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The tree as dictionaries, with other weights in the cells named."""
    parts = new.get("/".join(path), {})
    filled: dict[Any, Any] = {}
    for key, below in tree.items():
        place = (*path, str(key))
        if key in parts:
            filled[key] = dict(below)
            for leaf, value in parts[key].items():
                old = below.get(leaf)
                shape = getattr(_unboxed(old), "shape", value.shape)
                if tuple(shape) != value.shape:
                    raise ValueError(
                        f"like: expected {format_shape(value.shape)} at {'/'.join(place)}/{leaf}, "
                        f"by the stack, got {format_shape(shape)}"
                    )
                filled[key][leaf] = value if _unboxed(old) is old else old.replace_boxed(value)
        elif isinstance(below, Mapping):
            filled[key] = _filled(below, new, place)
        else:
            filled[key] = below
    return filled


def _unboxed(leaf: Any) -> Any:
    """What is in a box of Linen, ``nn.Partitioned`` say, which tells where it lies on a mesh."""
    return leaf.value if hasattr(leaf, "replace_boxed") else leaf
