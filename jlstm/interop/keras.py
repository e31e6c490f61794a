"""Keras 3's ``LSTM`` and ``LSTMCell``: layers, ``get_weights()``, and ``.weights.h5`` files.

Keras keeps ``kernel [input, 4 · hidden]``, ``recurrent_kernel [hidden, 4 · hidden]`` and ``bias``,
the gates i, f, c, o one after another: c is our g. Of ``Bidirectional`` the forward layer comes
first.
"""

import os
import shutil
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
from jlstm.files import replacing, with_an_end
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

OF_TRAINING = ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise")
"""Layers that do nothing in evaluation."""

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
            ``get_weights()``; or a ``.weights.h5`` file. (Arrays and files do not tell what lies
            between LSTMs, nor that a layer has ``go_backwards=True``: of a first one in a model,
            that is ``Stack(reverse=True)``, whose outputs are in the order of the inputs.)
        layers: of a file, where the cells are: a name for each layer or a pair of them, forward and
            backward, such as ``"layers/lstm_1/cell"``. None for all, in the order of the numbers in
            their names.
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
    lstms = list(_lstms(source))
    # Layers after a first that goes backwards are given the last step first, and so do the same.
    reverse = getattr(lstms[0], "go_backwards", False)
    found = [one for n, lstm in enumerate(lstms) for one in _of_layer(lstm, reverse > n, gates)]
    return together(found, reverse=reverse)


def to_keras(stack: Stack, params: Sequence[LayerParams]) -> list[NDArray]:
    """The arrays for ``set_weights`` of a layer, or of a ``Sequential`` of layers.

    A layer without bias has none there either (``use_bias=False``). Activations other than the
    usual have to be said to Keras where the layer is made, as ``recurrent_activation`` and
    ``activation``; so has ``return_sequences=True`` of all layers but the last, and, for a stack
    that is ``reverse``, ``go_backwards=True`` of the first: it is given the last step first then,
    and so are all others. Outputs are in that order, too, where ours are in that of the inputs.

    Raises:
        TypeError: no stack, or weights of another kind.
        ValueError: what Keras cannot represent, and why.
    """
    return [w for layer in _arrays(stack, params) for own in layer for w in own]


def write_weights(
    path: str | os.PathLike[str],
    stack: Stack,
    params: Sequence[LayerParams],
    like: str | os.PathLike[str] | None = None,
    *,
    layers: Sequence[Name] | None = None,
) -> None:
    """Write a stack as a ``.weights.h5`` file, for ``model.load_weights``.

    Args:
        path: the file.
        stack: the stack.
        params: its weights; what Keras has to be told besides is as for ``to_keras``.
        like: a file of the model that they are for, from ``model.save_weights``, whose other
            weights are taken over. None for a ``Sequential`` of ``LSTM`` or ``Bidirectional``
            layers alone.
        layers: where in ``like`` the cells are, as for ``from_keras``.

    Raises:
        MissingExtraError: h5py is not installed.
        OSError: a file cannot be read or written.
        TypeError: no stack, or weights of another kind.
        ValueError: what Keras cannot represent, and why; a name that ends otherwise; another file,
            with other cells, or a damaged one.
    """
    if not Path(path).name.endswith(".weights.h5"):
        raise ValueError(f"path: expected a name that ends in .weights.h5, got {path}")
    if layers is not None and like is None:
        raise ValueError("layers: expected None without like, a file in which they are")
    arrays = _arrays(stack, params)

    def named(names: Sequence[tuple[str, ...]]) -> dict[str, list[NDArray]]:
        pairs = zip(names, arrays, strict=True)
        return {name: own for pair in pairs for name, own in zip(*pair, strict=True)}

    if like is None:
        kind = "bidirectional" if stack.bidirectional else "lstm"
        ways = ("/forward_layer", "/backward_layer") if stack.bidirectional else ("",)
        numbered = [f"layers/{kind}_{n}" if n else f"layers/{kind}" for n in range(len(arrays))]
        new = named([tuple(f"{layer}{way}/cell" for way in ways) for layer in numbered])
    else:
        with _opened(like) as (_, found):
            new = named(names_for(_in_order(found) if layers is None else layers, stack))
            for name, own in new.items():
                wanted, got = ([[*w.shape] for w in some] for some in (own, _cell(name, found)))
                if wanted != got:
                    raise ValueError(f"{name}: expected shapes {wanted} by the stack, got {got}")
    h5py = require("h5py", "interop")
    with replacing(path) as beside:
        if like is not None:
            shutil.copyfile(like, beside)
        with h5py.File(beside, "a") as file:
            for name, own in new.items():
                if name in file:
                    del file[f"{name}/vars"]
                for n, w in enumerate(own):
                    file[f"{name}/vars/{n}"] = w


def _arrays(stack: Stack, params: Sequence[LayerParams]) -> list[list[list[NDArray]]]:
    """The arrays of a stack as Keras has them, for each direction of each layer."""
    options = ("gate", "candidate", "output")
    layers = apart("Keras", stack, params, options=options, reverse=True)
    same_activation("Keras", layers, "candidate and output have one activation")
    for layer in layers:
        if len({one.gates for one in layer}) > 1:
            raise refusal("gates", "Keras", "both directions are of one layer", layer[0].gates)
        if len({one.weights.b is None for one in layer}) > 1:
            raise refusal("params", "Keras", "both directions have a bias, or none", "one")
    return [
        [
            [join_gates(np.asarray(w), ORDER) for w in one.weights[:3] if w is not None]
            for one in layer
        ]
        for layer in layers
    ]


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


def _lstms(source: Any) -> Iterator[Any]:
    """The LSTMs of a layer, a list of layers or a model."""
    if not isinstance(source, Sequence) and not hasattr(source, "get_config"):
        raise TypeError(
            f"source: expected a layer, a model, a list of arrays or a file, got {_kind(source)}"
        )
    model = getattr(source, "layers", None)
    parts = source if isinstance(source, Sequence) else [source] if model is None else model
    known = [n for n, part in enumerate(parts) if _is_lstm(part)]
    if not known:
        raise ValueError(f"source: expected LSTM layers, got {listed(map(_kind, parts))}")
    for part in parts:
        if any(map(_is_lstm, getattr(part, "layers", ()))):
            raise _not_a_chain(f"a {_kind(part)} with some in it")
    for n in range(known[0], known[-1] + 1):
        if n in known:
            yield parts[n]
        elif not any(_is(parts[n], name) for name in OF_TRAINING):
            raise _not_a_chain(f"{_kind(parts[n])} between")
        if model is not None and n > known[0] and not _is_fed_by(parts[n - 1], parts[n]):
            raise _not_a_chain(f"{parts[n].name!r}, whose input is not what the one before gives")


def _not_a_chain(got: str) -> ValueError:
    return ValueError(
        f"source: expected LSTMs that follow one another, got {got}: take lists of its layers"
    )


def _is_fed_by(before: Any, layer: Any) -> bool:
    """Whether what a layer gives goes into the next, and else at most a mask."""
    try:
        first, *others = layer.input if isinstance(layer.input, Sequence) else [layer.input]
        outputs = before.output
    except AttributeError:  # called by a model's own code, which nobody can look into
        return False
    fed = first is (outputs[0] if isinstance(outputs, Sequence) else outputs)
    return fed and all(other.dtype == "bool" for other in others)


def _is_lstm(layer: Any) -> bool:
    inner = getattr(layer, "forward_layer", layer)
    cell = getattr(inner, "cell", inner)
    cells = getattr(cell, "cells", [cell])
    return all(_is(one, "LSTMCell") for one in cells) and not hasattr(layer, "layers")


def _of_layer(layer: Any, backwards: bool, gates: Gates | None) -> Iterator[list[Direction]]:
    """The layers in one of Keras's: several where it has a list of cells."""
    ways = [layer]
    if hasattr(layer, "forward_layer"):
        if layer.merge_mode != "concat":
            raise refusal(
                "merge_mode", "a Stack", "directions are side by side", repr(layer.merge_mode)
            )
        ways = [layer.forward_layer, layer.backward_layer]
    for way, expected in zip(ways, (backwards, True), strict=False):
        if getattr(way, "go_backwards", expected) != expected:
            why = "of two directions the second, else the first layer or none"
            raise refusal("go_backwards", "a Stack", why, f"{not expected} of {way.name!r}")
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
        names = _in_order(found) if layers is None else pairs_of(layers)
        if not names:
            raise ValueError("expected weights of LSTM layers, got none")
        return [
            [_direction(name, _read(_cell(name, found), size), gates) for name in pair]
            for pair in names
        ]


def _in_order(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """All cells, where their names tell the order."""
    names = by_layer(found, "forward_layer", "backward_layer")
    check_order(name for name, *_ in names)
    return names


def _cell(name: str, found: Mapping[str, list[Any]]) -> list[Any]:
    if name not in found:
        raise ValueError(f"layers: expected cells out of {listed(found)}, got {name!r:.60}")
    return found[name]


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
