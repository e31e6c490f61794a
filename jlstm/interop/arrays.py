"""What all of ``interop`` shares: the order of gates, checks of arrays, stacks apart and together.

Between the two sides stands a list: for each layer one or two directions, each a ``Direction`` of
its cell and its weights, ``VariantParams`` of NumPy arrays. ``together`` makes a stack of it, and
``apart`` makes it of a stack.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jlstm.equations import PLAIN
from jlstm.gates import Gates, check_weights
from jlstm.layers import Connections, LayerParams, Stack
from jlstm.types import GATES, LSTMParams, check_float, format_shape
from jlstm.variants import Variant, VariantParams

NDArray = npt.NDArray[Any]

OF_TRAINING = ("deterministic", "recurrent_dropout", "state_dropout", "product_dtype")
"""Options of a ``Variant`` without effect on what an evaluated cell computes in full precision."""


class Direction(NamedTuple):
    """One direction of one layer."""

    gates: Gates
    """``PLAIN`` or a ``Variant``."""
    weights: VariantParams
    """NumPy arrays, None where it has none."""


# The order of gates


def split_gates(w: NDArray, order: Sequence[str]) -> NDArray:
    """``[…, gates·n]`` with the gates in this order to ``[…, gates, n]`` in ours.

    Args:
        w: the array; for one that has gates and units as rows, its transpose.
        order: of the gates, by their names in ``GATES``; what is not there is left out of ours,
            so ``"iog"`` becomes i, g, o. Of peepholes, say ``"iof"``.
    """
    apart = w.reshape(*w.shape[:-1], len(order), w.shape[-1] // len(order))
    return apart[..., [order.index(gate) for gate in _ours(order)], :]


def join_gates(w: NDArray, order: Sequence[str]) -> NDArray:
    """The way back: ``[…, gates, n]`` in our order to ``[…, gates·n]`` in this one."""
    w = w[..., [_ours(order).index(gate) for gate in order], :]
    return w.reshape(*w.shape[:-2], w.shape[-2] * w.shape[-1])


def _ours(order: Sequence[str]) -> list[str]:
    return [gate for gate in GATES if gate in order]


# Checks


def array(name: str, value: Any, shape: Sequence[int | str], sizes: dict[str, int]) -> NDArray:
    """``value`` as a NumPy array of its own dtype; raise unless it is weights of this shape.

    Args:
        name: what messages call it.
        value: an array of NumPy, JAX or any framework whose arrays become NumPy's.
        shape: a number, or a name, which stands for any size of at least 1, and for the same one
            wherever it is in ``sizes``. A number before a name, ``"4 hidden"``, is their product.
        sizes: the sizes known so far; those found are added.

    Raises:
        TypeError: no array, or not of a floating-point dtype.
        ValueError: another shape.
    """
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    found = tuple(value.shape)
    fits, known = len(found) == len(shape), dict(sizes)
    for size, n in zip(shape, found, strict=False):
        if isinstance(size, int):
            fits &= n == size
        else:
            count, _, unit = size.rpartition(" ")
            whole, rest = divmod(n, int(count or 1))
            fits &= not rest and whole > 0 and known.setdefault(unit, whole) == whole
    if not fits:
        wanted = [size if isinstance(size, int) else _said(size, sizes) for size in shape]
        raise ValueError(f"{name}: expected shape {format_shape(wanted)}, got {list(found)}")
    converted = as_numpy(value)
    check_float(name, converted.dtype)
    sizes |= known
    return converted


def _said(size: str, sizes: dict[str, int]) -> int | str:
    """``4·hidden`` for ``"4 hidden"``; a number where it is known."""
    count, _, unit = size.rpartition(" ")
    if unit in sizes:
        return int(count or 1) * sizes[unit]
    return f"{count}·{unit}" if count else unit


def as_numpy(value: Any) -> NDArray:
    """Any framework's array as NumPy's."""
    if hasattr(value, "detach"):  # torch's, of which a gradient may be asked, or on a GPU
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not know; float32 holds it
            return np.asarray(value.float()).astype(jnp.bfloat16)
    return np.asarray(value)


def one_dtype(named: dict[str, NDArray]) -> None:
    """Raise TypeError unless all arrays are of one dtype."""
    first: str | None = None
    for name, one in named.items():
        first = first or name
        if one.dtype != named[first].dtype:
            raise TypeError(
                f"{name}: expected dtype {named[first].dtype.name}, as {first} has, "
                f"got {one.dtype.name}"
            )


def same_activation(to: str, layers: Sequence[Sequence[Direction]], why: str) -> None:
    """Raise unless candidate and output have one activation, for whom there is only one of both."""
    for gates in (one.gates for layer in layers for one in layer):
        if isinstance(gates, Variant) and gates.candidate != gates.output:
            raise refusal("output", to, why, f"{gates.candidate} and {gates.output}")


def refusal(name: str, to: str, why: str, got: Any) -> ValueError:
    """The error for what the other side cannot represent."""
    return ValueError(f"{name}: expected what {to} can represent ({why}), got {got}")


# Names


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key to sort names by as people do: ``lstm_2`` before ``lstm_10``."""
    parts = re.findall(r"(\D*)(\d{0,18})", name)
    return tuple((text, int(number) if number else -1) for text, number in parts)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in a message, of which there may be many."""
    known = sorted(names, key=natural)
    said = ", ".join(f"{name!r:.60}" for name in known[:most]) or "none"
    return f"{said} and {len(known) - most} more" if len(known) > most else said


def by_layer(names: Iterable[str], forward: str, backward: str) -> list[tuple[str, ...]]:
    """Paths in natural order, those that differ by forward and backward only as a pair.

    Args:
        names: paths, with ``/`` between their parts.
        forward: what the part that leads to the forward direction is called.
        backward: what the other one is called.

    Raises:
        ValueError: a backward direction without a forward one.
    """
    layers: dict[str, dict[bool, str]] = {}
    for name in sorted(names, key=natural):
        parts = name.split("/")
        first = "/".join(forward if part == backward else part for part in parts)
        layers.setdefault(first, {})[backward in parts] = name
    for ways in layers.values():
        if False not in ways:
            raise ValueError(f"{ways[True]}: expected a forward direction beside it, got none")
    return [tuple(ways[key] for key in sorted(ways)) for ways in layers.values()]


def check_order(names: Iterable[str]) -> None:
    """Raise ValueError unless names differ by numbers alone: ``encoder`` may come first or last."""
    known = list(names)
    if len({re.sub(r"_?\d+", "", name) for name in known}) > 1:
        raise ValueError(
            f"layers: expected them, from the first to the last, as names do not tell the order: "
            f"{listed(known)}"
        )


Name = str | Sequence[str]
"""A cell by its name on the other side; for a layer of two directions a pair of them."""


def pairs_of(layers: Sequence[Name]) -> list[tuple[str, ...]]:
    """The names of each layer's directions.

    Raises:
        TypeError: other than names and pairs of names.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        raise TypeError(
            f"layers: expected a list of names, or of pairs of them, got {type(layers).__name__}"
        )
    pairs = [(layer,) if isinstance(layer, str) else tuple(layer) for layer in layers]
    if not all(isinstance(name, str) for pair in pairs for name in pair):
        raise TypeError(f"layers: expected names, or pairs of them, got {list(layers)!r:.80}")
    return pairs


def names_for(layers: Sequence[Name], stack: Stack) -> list[tuple[str, ...]]:
    """``pairs_of``, for this stack.

    Raises:
        TypeError: other than names and pairs of names.
        ValueError: not a name for each direction of each layer.
    """
    pairs, ways = pairs_of(layers), 1 + stack.bidirectional
    if [len(pair) for pair in pairs] != [ways] * len(stack.cells):
        wanted = "a pair of names" if ways == 2 else "a name"
        raise ValueError(
            f"layers: expected {wanted} for each of {len(stack.cells)} layers, "
            f"got {list(layers)!r:.80}"
        )
    return pairs


# Stacks


def together(
    layers: Sequence[Sequence[Direction]],
    connections: Connections = "chain",
    reverse: bool = False,
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """The stack of these layers, connected and walked in this way, and its weights.

    A cell without any option becomes ``PLAIN``, whose weights are ``LSTMParams``.

    Raises:
        TypeError: weights of different dtypes.
        ValueError: no layers; layers of which some have one direction and some two; weights that
            do not fit together, or do not fit their cell, or a layer that is not as wide as what
            it is given.
    """
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    ways = len(layers[0])
    width, first, params, cells = None, 0, [], []
    for n, layer in enumerate(layers):
        if len(layer) != ways or ways not in (1, 2):
            raise ValueError(
                f"layer {n}: expected {ways} directions, as layer 0 has, got {len(layer)}"
            )
        own = [_simplest(n, one) for one in layer]
        for _, weights in own:
            if width is not None and weights.w_ih.shape[0] != width:
                raise ValueError(
                    f"layer {n}: expected {width} inputs, as many as the layer before gives, "
                    f"got {weights.w_ih.shape[0]}"
                )
        outputs, sizes = ([w.w_hh.shape[axis] for _, w in own] for axis in (0, -1))
        inputs = [w.w_ih.shape[0] for _, w in own]
        if any(len(set(some)) > 1 for some in (outputs, sizes, inputs)):
            raise ValueError(
                f"layer {n}: expected directions of equal sizes, got inputs {inputs}, units "
                f"{sizes} and outputs {outputs}"
            )
        first = inputs[0] if n == 0 else first
        width = ways * outputs[0] + (first if connections == "skip" else 0)
        projects = getattr(own[0].weights, "w_hr", None) is not None
        cells.append((sizes[0], outputs[0] if projects else None, tuple(g for g, _ in own)))
        params.append(LayerParams(*(w for _, w in own)))
    one_dtype(
        {
            f"layer {n}, {direction}.{name}": leaf
            for n, layer in enumerate(params)
            for direction, weights in zip(("forward", "backward"), layer[:ways], strict=False)
            for name, leaf in weights._asdict().items()
            if leaf is not None
        }
    )
    pairs = [gates[0] if len(set(gates)) == 1 else gates for _, _, gates in cells]
    stack = Stack(
        sizes=[size for size, _, _ in cells],
        output_sizes=[output for _, output, _ in cells],
        gates=pairs,
        bidirectional=ways == 2,
        reverse=reverse,
        connections=connections,
    )
    return stack, tuple(params)


def _simplest(n: int, one: Direction) -> Direction:
    """The same with ``PLAIN`` and its weights where that says all."""
    gates, weights = one
    if gates == PLAIN and any(leaf is not None for leaf in weights[3:]):
        gates = Variant()
    if gates in (PLAIN, Variant()) and all(leaf is None for leaf in weights[3:]):
        gates, weights = PLAIN, LSTMParams(*weights[:3])  # type: ignore[assignment]
    _check(f"layer {n}", gates, weights)
    return Direction(gates, weights)


def _check(place: str, gates: Gates, weights: Any) -> None:
    """Raise unless the weights are those of the cell."""
    try:
        check_weights(gates, weights)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from error


def apart(
    to: str,
    stack: Stack,
    params: Sequence[LayerParams],
    *,
    options: Collection[str] = (),
    bidirectional: bool = True,
    projection: bool = False,
    learned_carry: bool = False,
    connections: Collection[str] = ("chain",),
    reverse: bool = False,
) -> list[list[Direction]]:
    """The layers of a stack, for a framework or format that has no more than what is said here.

    Args:
        to: its name.
        stack: the stack.
        params: its weights.
        options: those of ``Variant`` that it has.
        bidirectional: whether it has layers of two directions.
        projection: whether it has a recurrent projection.
        learned_carry: whether it has a learned carry (which is left in ``params``).
        connections: those between layers that it has.
        reverse: whether it has stacks that walk from the end to the start alone.

    Raises:
        TypeError: no stack, or weights of another kind.
        ValueError: what it cannot represent, and why; weights that are not those of the stack.
    """
    if not isinstance(stack, Stack):
        raise TypeError(f"stack: expected Stack, got {type(stack).__name__}")
    if not isinstance(params, tuple | list) or not all(isinstance(p, LayerParams) for p in params):
        raise TypeError(
            f"params: expected a tuple of LayerParams, one for each layer, got "
            f"{type(params).__name__}"
        )
    if len(params) != len(stack.cells):
        raise ValueError(
            f"params: expected one for each of {len(stack.cells)} layers, got {len(params)}"
        )
    if stack.connections not in connections:
        raise refusal("connections", to, "each layer sees the one before", stack.connections)
    if stack.learned_carry and not learned_carry:
        raise refusal("learned_carry", to, "the first carry is no parameter", "learned_carry=True")
    if stack.bidirectional and not bidirectional:
        raise refusal("bidirectional", to, "layers walk forward only", "bidirectional=True")
    if stack.reverse and not reverse:
        raise refusal("reverse", to, "stacks walk forward, or both ways", "reverse=True")
    layers = []
    width = None
    for n, (cell, one) in enumerate(zip(stack.cells, params, strict=True)):
        ways = [one.forward, one.backward] if stack.bidirectional else [one.forward]
        if (one.backward is not None) != stack.bidirectional:
            raise ValueError(
                f"params[{n}].backward: expected {'weights' if stack.bidirectional else 'None'} "
                "by the stack"
            )
        layer = []
        for direction, gates, weights in zip(
            ("forward", "backward"), cell.ways, ways, strict=False
        ):
            place = f"params[{n}].{direction}"
            _check_options(to, gates, options)
            _check(place, gates, weights)
            leaves: Any = (None if w is None else np.asarray(w) for w in weights)
            full = VariantParams(*leaves)
            wanted = (cell.size if cell.output is None else cell.output, cell.size)
            found = (full.w_hh.shape[0], full.w_hh.shape[-1])
            if found != wanted or (full.w_hr is None) != (cell.output is None):
                raise ValueError(
                    f"{place}: expected {wanted[1]} units and {wanted[0]} outputs by the stack, "
                    f"got {found[1]} and {found[0]}"
                )
            if full.w_hr is not None and not projection:
                raise refusal("output_sizes", to, "h is as wide as c", cell.output)
            if width is not None and full.w_ih.shape[0] != width:
                raise ValueError(
                    f"{place}.w_ih: expected {width} inputs, as many as the layer before gives, "
                    f"got {full.w_ih.shape[0]}"
                )
            layer.append(Direction(gates, full))
        layers.append(layer)
        width = stack.outputs[n]
        if stack.connections == "skip":
            width += layers[0][0].weights.w_ih.shape[0]
    return layers


def _check_options(to: str, gates: Gates, options: Collection[str]) -> None:
    """Raise unless the cell is an LSTM with no other options than these."""
    if gates == PLAIN:
        return
    if not isinstance(gates, Variant):
        raise refusal("gates", to, "an LSTM", repr(gates))
    known = {*options, *OF_TRAINING}
    if "layer_norm" not in known and not gates.layer_norm:
        known.add("epsilon")  # which nothing sees
    for field in fields(gates):
        value = getattr(gates, field.name)
        if field.name not in known and value != field.default:
            said = f"{', '.join(options)} at most" if options else "no options of a cell"
            raise refusal(field.name, to, said, repr(value))
