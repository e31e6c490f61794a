"""Keras 3's ``LSTM`` and ``LSTMCell``: layers, ``get_weights()``, and ``.weights.h5`` files.

Keras keeps ``kernel [input, 4 · hidden]``, ``recurrent_kernel [hidden, 4 · hidden]`` and ``bias``,
the gates i, f, c, o one after another: c is our g. Of ``Bidirectional`` the forward layer comes
first.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jlstm import activations
from jlstm.activations import Activation
from jlstm.equations import PLAIN
from jlstm.extras import require
from jlstm.files import with_an_end
from jlstm.gates import Gates
from jlstm.interop.arrays import (
    Direction,
    Name,
    NDArray,
    apart,
    array,
    by_layer,
    join_gates,
    listed,
    pairs_of,
    refusal,
    same_activation,
    split_gates,
    together,
)
from jlstm.layers import LayerParams, Stack
from jlstm.variants import Variant, VariantParams

ORDER = "ifgo"
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": activations.sigmoid,
    "tanh": activations.tanh,
    "relu": activations.relu,
    "softsign": activations.softsign,
    "softplus": activations.softplus,
    "linear": activations.identity,
    "hard_sigmoid": activations.hard_sigmoid(1 / 6, 0.5),
    "elu": activations.elu(1.0),
    "leaky_relu": activations.leaky_relu(0.2),
}
"""Keras's names for what is in ``jlstm.activations``."""

DEEPEST = 32
"""How deep the groups of a file are searched."""


def from_keras(
    source: Any,
    *,
    layers: Sequence[Name] | None = None,
    bidirectional: bool | None = None,
    gates: Gates | None = None,
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """Keras's LSTMs as one stack.

    Args:
        source: a layer (``LSTM``, ``RNN`` of ``LSTMCell``, ``Bidirectional`` of one of them, or a
            list of layers); a model whose LSTMs follow one another; the arrays of
            ``get_weights()``; or a ``.weights.h5`` file.
        layers: of a file, where the cells are: a name for each layer or a pair of them, forward and
            backward, such as ``"layers/lstm_1/cell"``. None for all, in the order of their names.
        bidirectional: of ``get_weights()``, whether each layer has two directions; None to see it
            from the shapes, which nearly always tell.
        gates: the cell. None for what the layers say of themselves, or, of arrays and files, which
            do not, for the plain one; others as ``Variant(gate=…, candidate=…, output=…)``.

    Returns:
        The stack, and its weights: NumPy arrays of the dtype that they have.

    Raises:
        MissingExtraError: h5py is not installed, for a file.
        OSError: the file cannot be read.
        TypeError: another source; weights not of one floating-point dtype.
        ValueError: no LSTM; what a stack cannot represent, and why; shapes that do not fit, also
            from layer to layer, or that leave open what they are; a damaged file, or one that
            leads to others.
    """
    if isinstance(source, str | os.PathLike):
        if not Path(source).name.endswith(".h5"):
            raise ValueError(f"source: expected a file named ….weights.h5, got {source}")
        return together(_of_file(source, layers, gates or PLAIN))
    if layers is not None:
        raise ValueError("layers: expected None, as the source is no file")
    if isinstance(source, Sequence) and all(hasattr(one, "shape") for one in source):
        return together(_of_arrays(source, bidirectional, gates or PLAIN))
    found = list(_of_layers(source, gates))
    if not found:
        raise ValueError(f"source: expected LSTM layers, got none in {_kind(source)}")
    return together(found)


def to_keras(stack: Stack, params: Sequence[LayerParams]) -> list[NDArray]:
    """The arrays for ``set_weights`` of a layer, or of a ``Sequential`` of layers.

    A layer without bias has none there either (``use_bias=False``). Activations other than the
    usual have to be said to Keras where the layer is made, as ``recurrent_activation`` and
    ``activation``; so has ``return_sequences=True`` of all layers but the last.

    Raises:
        TypeError: no stack, or weights of another kind.
        ValueError: what Keras cannot represent, and why.
    """
    layers = apart("Keras", stack, params, options=("gate", "candidate", "output"))
    same_activation("Keras", layers, "candidate and output have one activation")
    arrays = []
    for layer in layers:
        if len({one.gates for one in layer}) > 1:
            raise refusal("gates", "Keras", "both directions are of one layer", layer[0].gates)
        if len({one.weights.b is None for one in layer}) > 1:
            raise refusal("params", "Keras", "both directions have a bias, or none", "one")
        for _, weights in layer:
            own = (np.asarray(w) for w in weights[:3] if w is not None)
            arrays += [join_gates(w, ORDER) for w in own]
    return arrays


def _direction(place: str, own: Sequence[Any], gates: Gates) -> Direction:
    """(kernel, recurrent_kernel[, bias]) as one direction."""
    sizes: dict[str, int] = {}
    names = ("recurrent_kernel", "kernel", "bias")
    shapes = (("hidden", "4 hidden"), ("input", "4 hidden"), ("4 hidden",))
    w_hh, w_ih, *b = (
        split_gates(array(f"{place}.{name}", w, shape, sizes), ORDER)
        for name, shape, w in zip(names, shapes, (own[1], own[0], *own[2:]), strict=False)
    )
    weights: Any = w_ih, w_hh, b[0] if b else None
    return Direction(gates, VariantParams(*weights))


# Arrays


def _of_arrays(
    source: Sequence[Any], bidirectional: bool | None, gates: Gates
) -> list[list[Direction]]:
    """``get_weights()``: two or three arrays for each direction."""
    # The state of a seed is among the weights where something is dropped.
    left = [a for a in source if np.dtype(a.dtype).kind != "u"]
    cells: list[list[Any]] = []
    while left:
        count = 3 if len(left) > 2 and len(left[2].shape) == 1 else 2
        own, left = left[:count], left[count:]
        if [len(a.shape) for a in own] != [2, 2, 1][:count]:
            raise ValueError(
                "source: expected kernel, recurrent_kernel and perhaps bias of each direction, "
                f"got shapes {[list(a.shape) for a in own]}"
            )
        cells.append(own)
    ones = [_direction(f"source[{n}]", own, gates) for n, own in enumerate(cells)]
    shapes = [(one.weights.w_ih.shape[0], one.weights.w_hh.shape[0]) for one in ones]
    pairs = list(zip(shapes[::2], shapes[1::2], strict=False))
    twice = (
        len(shapes) % 2 == 0
        and all(first == second for first, second in pairs)
        and all(after[0][0] == 2 * before[0][1] for before, after in pairwise(pairs))
    )
    once = all(after[0] == before[1] for before, after in pairwise(shapes))
    if bidirectional is None:
        if once and twice and shapes:
            raise ValueError(
                "bidirectional: expected True or False, as the shapes fit both, got None"
            )
        bidirectional = twice
    if bidirectional and len(ones) % 2:
        raise ValueError(f"bidirectional: expected pairs of directions, got {len(ones)} directions")
    ways = 1 + bidirectional
    return [ones[n : n + ways] for n in range(0, len(ones), ways)]


# Layers, known by what they have rather than by their classes: Keras is not imported


def _kind(layer: Any) -> str:
    return type(layer).__name__


def _is(layer: Any, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(layer).__mro__)


def _of_layers(source: Any, gates: Gates | None) -> Iterator[list[Direction]]:
    """The LSTMs of a layer, a list of layers or a model."""
    if not isinstance(source, Sequence) and not hasattr(source, "get_config"):
        raise TypeError(
            f"source: expected a layer, a model, a list of arrays or a file, got {_kind(source)}"
        )
    parts = source if isinstance(source, Sequence) else getattr(source, "layers", [source])
    known = [_is_lstm(part) for part in parts]
    last = max((n for n, yes in enumerate(known) if yes), default=-1)
    for n in range(known.index(True) if True in known else 0, last + 1):
        if known[n]:
            yield from _of_layer(parts[n], gates)
        elif getattr(parts[n], "weights", None) and not _is(parts[n], "Dropout"):
            raise ValueError(
                f"source: expected LSTMs that follow one another, got {_kind(parts[n])} between: "
                "take lists of its layers"
            )


def _is_lstm(layer: Any) -> bool:
    inner = getattr(layer, "forward_layer", layer)
    cell = getattr(inner, "cell", inner)
    cells = getattr(cell, "cells", [cell])
    return all(_is(one, "LSTMCell") for one in cells) and not hasattr(layer, "layers")


def _of_layer(layer: Any, gates: Gates | None) -> Iterator[list[Direction]]:
    """The layers in one of Keras's: several where it has a list of cells."""
    ways = [layer]
    if hasattr(layer, "forward_layer"):
        if layer.merge_mode != "concat":
            raise refusal(
                "merge_mode", "a Stack", "directions are side by side", repr(layer.merge_mode)
            )
        ways = [layer.forward_layer, layer.backward_layer]
    for n, way in enumerate(ways):
        if getattr(way, "go_backwards", bool(n)) != bool(n):
            raise refusal(
                "go_backwards", "a Stack", "one direction is forward", "True: use reverse of lstm"
            )
    inner = [getattr(way, "cell", way) for way in ways]
    cells = [getattr(one, "cells", [one]) for one in inner]
    if len(ways) == 2 and len(cells[0]) > 1:
        raise refusal("cells", "a Stack", "each layer has two directions", "two stacks of cells")
    for both in zip(*cells, strict=True):
        yield [_of_cell(f"{layer.name}[{n}]", cell, gates) for n, cell in enumerate(both)]


def _of_cell(place: str, cell: Any, gates: Gates | None) -> Direction:
    if not cell.built:
        raise ValueError(f"{place}: expected a layer that is built, got one without weights")
    own = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
    if gates is None:
        config = cell.get_config()
        gate, other = (_activation(config, n) for n in ("recurrent_activation", "activation"))
        gates = Variant(gate=gate, candidate=other, output=other)
    return _direction(place, [w.value for w in own], gates)


def _activation(config: Mapping[str, Any], name: str) -> Activation:
    said = config[name]
    if not isinstance(said, str) or said not in ACTIVATIONS:
        raise refusal(name, "jlstm.activations", ", ".join(ACTIVATIONS), f"{said!r:.60}; say gates")
    return ACTIVATIONS[said]


# Files


def find_cells(path: str | os.PathLike[str]) -> list[tuple[str, ...]]:
    """Where the cells of a ``.weights.h5`` file are, layer by layer, for ``from_keras(layers=…)``.

    Raises:
        MissingExtraError, OSError, ValueError: as for ``from_keras``.
    """
    with _opened(path) as (_, found):
        return by_layer(found, "forward_layer", "backward_layer")


def _of_file(
    path: str | os.PathLike[str], layers: Sequence[Name] | None, gates: Gates
) -> list[list[Direction]]:
    """The cells of a ``.weights.h5`` file."""
    with _opened(path) as (size, found):
        if layers is None:
            names = by_layer(found, "forward_layer", "backward_layer")
        else:
            names = pairs_of(layers)
        if not names:
            raise ValueError("expected weights of LSTM layers, got none")
        for name in (name for pair in names for name in pair):
            if name not in found:
                raise ValueError(f"layers: expected cells out of {listed(found)}, got {name!r}")
        return [
            [_direction(name, _read(found[name], size), gates) for name in pair] for pair in names
        ]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """The size of a file, and the data sets of its cells, while it is open."""
    h5py = require("h5py", "interop")
    size = with_an_end(path).stat().st_size
    try:
        with h5py.File(path, "r") as file:
            yield size, dict(_cells(h5py, file, "", set()))
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (OSError, RuntimeError, KeyError) as error:  # h5py's, of a file that is there
        raise ValueError(f"{path}: expected an HDF5 file of weights, got: {error}") from None


def _cells(h5py: Any, group: Any, path: str, seen: set[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The data sets of all cells in a file, which is followed nowhere else and in no circle."""
    here = h5py.h5o.get_info(group.id).addr
    if here in seen:
        raise ValueError(f"{path}: expected a tree of groups, got a circle")
    if path.count("/") > DEEPEST:
        raise ValueError(f"{path}: expected groups at most {DEEPEST} deep, got a deeper one")
    seen.add(here)
    for name in group:
        place = f"{path}/{name}" if path else name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{place}: expected weights in the file, got a link")
        below = group[name]
        if isinstance(below, h5py.Group) and name == "vars":
            own = [
                below[key]
                for key in sorted(below)
                if isinstance(below.get(key, getlink=True), h5py.HardLink)
            ]
            shapes: list[Any] = [getattr(one, "shape", None) or () for one in own]
            if len(own) in (2, 3) and [len(s) for s in shapes] == [2, 2, 1][: len(own)]:
                (_, columns), (rows, more), *_ = shapes
                if columns == more == 4 * rows:
                    yield path, own
        elif isinstance(below, h5py.Group):
            yield from _cells(h5py, below, place, seen)


def _read(sets: Sequence[Any], size: int) -> list[NDArray]:
    """The arrays of a cell, whose declared sizes are held against the file's before."""
    for one in sets:
        if one.dtype.kind != "f" or one.external or one.is_virtual or one.nbytes > size:
            raise ValueError(
                f"{one.name}: expected floating-point numbers in a file of {size} bytes, "
                f"got {one.dtype} of shape {list(one.shape)}"
            )
    return [one[()] for one in sets]
