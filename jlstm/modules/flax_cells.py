"""What the two RNNs for Flax share: a cell of Flax walked through time, with Flax's conventions."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jlstm.activations import activation
from jlstm.equations import PLAIN
from jlstm.gates import Gates
from jlstm.sequence import lstm
from jlstm.types import Carry, LSTMParams
from jlstm.variants import Variant, VariantParams

FlaxCarry = tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]
"""c and h, in this order."""


def check_cell(cell: Any, known: tuple[type, ...]) -> None:
    """Raise unless the cell is exactly of one of these types: another may compute anything.

    Raises:
        TypeError: another cell.
    """
    if type(cell) not in known:
        names = " or ".join(kind.__name__ for kind in known)
        raise TypeError(f"cell: expected {names}, got {type(cell).__name__}")


def run(
    cell: Any,
    weights: LSTMParams,
    inputs: Float[Array, "..."],
    carry: FlaxCarry | None,
    seq_lengths: Int[Array, "*batch"] | None,
    resets: Bool[Array, "..."] | None,
    *,
    time_major: bool,
    reverse: bool,
    keep_order: bool,
    options: Mapping[str, Any],
) -> tuple[FlaxCarry, Array]:
    """The sequence through a cell of Flax, of either API.

    Args:
        cell: what it computes: ``gate_fn``, ``activation_fn``, ``dtype``.
        weights: its weights.
        inputs: ``[*batch, time, input]``, or with ``time_major`` ``[time, *batch, input]``.
        carry: c and h before the first step; None for zeros.
        seq_lengths: steps that count in each sequence.
        resets: the axes of inputs but the last: where a sequence starts anew.
        time_major: where the axis of time is.
        reverse: whether to walk from the last step that counts to the first.
        keep_order: whether what is found so is in the order of the inputs.
        options: of ``lstm``.

    Returns:
        c and h after the last step that counts, and the outputs, with the axes of inputs.
    """
    axis = 0 if time_major else inputs.ndim - 2
    # Flax rounds inputs and weights to the cell's dtype, and adds to a carry of the weights' own.
    asked = inputs.dtype if cell.dtype is None else jnp.dtype(cell.dtype)
    dtype = jnp.result_type(asked, *weights, *(carry or ()))
    if cell.dtype is not None and asked != dtype:
        options = {"compute_dtype": asked, **options}
    start, gates = None, gates_of(cell)
    if carry is not None:
        c, h = carry
        start = Carry(h.astype(dtype), c.astype(dtype))
    kind: Any = LSTMParams if gates is PLAIN else VariantParams
    (h, c), hs = lstm(
        kind(*jax.tree.map(lambda w: w.astype(dtype), tuple(weights))),
        start,
        jnp.moveaxis(inputs, axis, 0).astype(dtype),
        gates=gates,
        lengths=seq_lengths,
        resets=None if resets is None else jnp.moveaxis(resets, axis, 0),
        reverse=reverse,
        **options,
    )
    if reverse and not keep_order:
        hs = flipped(hs, seq_lengths)
    return (c, h), jnp.moveaxis(hs, 0, axis)


def gates_of(cell: Any) -> Gates:
    """What the cell computes, by its two functions."""
    plain = {jax.nn.sigmoid, jax.nn.tanh, jnp.tanh}
    if {cell.gate_fn, cell.activation_fn} <= plain and cell.gate_fn is jax.nn.sigmoid:
        return PLAIN
    candidate = activation(cell.activation_fn)
    return Variant(gate=activation(cell.gate_fn), candidate=candidate, output=candidate)


def flipped(
    hs: Float[Array, "time *batch hidden"], lengths: Int[Array, "*batch"] | None
) -> Float[Array, "time *batch hidden"]:
    """The steps that count, last first; padding stays at the end."""
    if lengths is None or not len(hs):
        return hs[::-1]
    steps = jnp.arange(len(hs)).reshape(-1, *[1] * lengths.ndim)
    places = (lengths - 1 - steps) % len(hs)
    return jnp.take_along_axis(hs, places[..., None], axis=0)
