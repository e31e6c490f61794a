"""A layer of a stack in the terms of ONNX's LSTM: its arrays and attributes, or why there are none.

A recurrent projection without a limit needs no operator of its own. With h = m·P, all that is fed
back is m·(P·U): the operator runs on m, with the recurrent weights P·U, and what comes out is
multiplied by P. An h that is given goes in as h·P⁺, with the pseudo-inverse.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jlstm.equations import PLAIN
from jlstm.gates import Gates
from jlstm.interop.onnx.operator import ORDER, PEEPHOLES, ROLES, Array, name_of, to_rows
from jlstm.layers import LayerParams, Stack
from jlstm.types import GATES
from jlstm.variants import Variant


class Terms(NamedTuple):
    """What the operator is given for one layer; an array has its directions, d, first."""

    attributes: Mapping[str, Any]
    W: Array
    """``[d, gates · hidden, input]``; a coupled cell has three gates, and ONNX wants f as well."""
    R: Array
    """``[d, gates · hidden, output]``."""
    B: Array | None
    P: Array | None
    projection: Array | None
    """P of the module, ``[d, hidden, output]``."""
    inverse: Array | None
    """P⁺, ``[d, output, hidden]``, where it is asked for."""
    start: tuple[Array, Array] | None
    """What was learned of h and c, ``[d, 1, ·]``."""


def terms_of(n: int, params: LayerParams, config: Stack, carries: bool) -> Terms:
    """Layer n of a stack.

    Args:
        n: the number of the layer.
        params: its weights, of NumPy.
        config: the stack.
        carries: whether a carry may be given.

    Raises:
        ValueError: what ONNX's operator has not.
    """
    ways = [way for way in params[:2] if way is not None]
    name = f"config.gates[{n}]"
    gates = [_variant(name, g) for g in config.cells[n].ways[: len(ways)]]
    for option in ("coupled", "preact_clip"):
        values = [getattr(g, option) for g in gates]
        if len(set(values)) > 1:
            raise ValueError(
                f"{name}: expected one {option} for both directions, as ONNX's LSTM has, "
                f"got {values}"
            )
    hidden, dtype = ways[0].w_hh.shape[-1], ways[0].w_hh.dtype
    names = gates[0].gate_names
    seen = [g for g in names if g != "g"]  # by the cell, through peepholes

    def both(values: Sequence[Array | None], otherwise: Array) -> Array | None:
        """Of both directions; None where neither has any."""
        if all(value is None for value in values):
            return None
        return np.stack([otherwise if value is None else value for value in values])

    def rows(field: str) -> Array:
        order = [g for g in ORDER if g in names]
        return np.stack([to_rows(getattr(way, field), names, order) for way in ways])

    biases = [_bias(way, g) for way, g in zip(ways, gates, strict=True)]
    b = both(biases, np.zeros((len(names), hidden), dtype))
    peepholes = [getattr(way, "peepholes", None) for way in ways]
    p = both(peepholes, np.zeros((len(seen), hidden), dtype))
    projection = both([getattr(way, "w_hr", None) for way in ways], np.eye(hidden, dtype=dtype))
    start = None
    if params.start is not None:
        h, c = (np.stack([getattr(s, field) for s in params.start])[:, None] for field in "hc")
        start = (h, c)
    needed = projection is not None and (carries or start is not None)
    return Terms(
        attributes=_attributes(name, gates, config, hidden),
        W=rows("w_ih"),
        R=rows("w_hh"),
        # ONNX's second bias is −0: what that is added to stays the same to the last bit.
        B=None if b is None else np.stack([_two_biases(to_rows(a, names, ORDER)) for a in b]),
        P=None if p is None else np.stack([to_rows(a, seen, PEEPHOLES) for a in p]),
        projection=projection,
        inverse=_inverse(f"params[{n}]", projection) if needed and projection is not None else None,
        start=start,
    )


def _variant(name: str, gates: Gates) -> Variant:
    """The gates as a variant; refuse what is not ONNX's, but for a projection."""
    if gates == PLAIN:
        return Variant()
    if not isinstance(gates, Variant):
        raise ValueError(f"{name}: expected PLAIN or a Variant, as ONNX has no cell for {gates!r}")
    for option in ("layer_norm", "cell_clip", "projection_clip", "zoneout_h", "zoneout_c"):
        if value := getattr(gates, option):
            raise ValueError(
                f"{name}: {option}={value!r} cannot be exported: it is inside a step, and ONNX's "
                f"LSTM has no such option"
            )
    return gates


def _bias(way: Any, gates: Variant) -> Array | None:
    """b, with the offset of f if there is one."""
    if not gates.forget_offset:
        b: Array | None = way.b
        return b
    offset = np.zeros((len(GATES), way.w_hh.shape[-1]), way.w_hh.dtype)
    offset[GATES.index("f")] = gates.forget_offset
    return offset if way.b is None else np.add(way.b, offset)


def _two_biases(rows: Array) -> Array:
    return np.concatenate([rows, np.full_like(rows, -0.0)])


def _inverse(name: str, projection: Array) -> Array:
    """P⁺, so that (h·P⁺)·P is h; refuse where that loses more than three digits."""
    wide = projection.astype(np.float64)
    values = np.linalg.svd(wide, compute_uv=False)  # the largest first
    if wide.shape[1] < wide.shape[2] or (values[:, -1] < 1e-3 * values[:, 0]).any():
        raise ValueError(
            f"{name}: w_hr cannot be exported with a carry: its columns are (nearly) dependent, "
            f"and ONNX's LSTM wants to know what h was before the projection"
        )
    return np.asarray(np.linalg.pinv(wide), projection.dtype)


def _attributes(name: str, gates: Sequence[Variant], config: Stack, hidden: int) -> dict[str, Any]:
    """The node's attributes; what has its value by default is left out."""
    direction = "reverse" if config.reverse else "forward"
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if config.bidirectional else direction,
    }
    if gates[0].coupled:
        attributes["input_forget"] = 1
    if gates[0].preact_clip is not None:
        attributes["clip"] = gates[0].preact_clip
    names, constants = [], []
    for g in gates:
        for role in ROLES:
            known = name_of(getattr(g, role))
            if known is None:
                raise ValueError(
                    f"{name}: {role}={getattr(g, role)!r} cannot be exported: ONNX's LSTM has no "
                    f"such activation"
                )
            names.append(known[0])
            constants.append(known[1])
    if names != ["Sigmoid", "Tanh", "Tanh"] * len(gates):
        attributes["activations"] = names
        for place, key in enumerate(("activation_alpha", "activation_beta")):
            if values := [c[place] for c in constants if len(c) > place]:
                attributes[key] = values
    return attributes
