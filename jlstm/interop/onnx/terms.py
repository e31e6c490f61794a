"""A layer of a stack in the terms of ONNX's LSTM: its arrays and attributes, or why there are none.

A recurrent projection without a limit needs no operator of its own. With h = m·P, all that is fed
back is m·(P·U): the operator runs on m, with the recurrent weights P·U, and what comes out is
multiplied by P. An h that is given goes in as h·P⁺, with the pseudo-inverse.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jlstm.gates import Gates
from jlstm.interop.arrays import Direction, NDArray, array, join_gates, refusal
from jlstm.interop.onnx.operator import ACTIVATIONS, ORDER, PEEPHOLES, ROLES, name_of
from jlstm.types import GATES
from jlstm.variants import Variant, VariantParams

TO = "ONNX's LSTM"
OPTIONS = ("peepholes", "coupled", "gate", "candidate", "output", "forget_offset", "preact_clip")
"""Those of ``Variant`` that it has."""


class Terms(NamedTuple):
    """What the operator is given for one layer; an array has its directions, d, first."""

    attributes: Mapping[str, Any]
    W: NDArray
    """``[d, gates · hidden, input]``; a coupled cell has three gates, and ONNX wants f as well."""
    R: NDArray
    """``[d, gates · hidden, output]``."""
    B: NDArray | None
    P: NDArray | None
    projection: NDArray | None
    """P of the module, ``[d, hidden, output]``."""
    inverse: NDArray | None
    """P⁺, ``[d, output, hidden]``, where it is asked for."""
    start: tuple[NDArray, NDArray] | None
    """What was learned of h and c, ``[d, 1, ·]``."""


def terms_of(
    n: int, layer: Sequence[Direction], start: Sequence[Any] | None, reverse: bool, carries: bool
) -> Terms:
    """Layer n of a stack.

    Args:
        n: the number of the layer.
        layer: its directions.
        start: what was learned of the carry, for each direction.
        reverse: whether a single direction walks from the end to the start.
        carries: whether a carry may be given.

    Raises:
        ValueError: what ONNX's operator has not.
    """
    gates = [_variant(way.gates) for way in layer]
    weights = [way.weights for way in layer]
    for option in ("coupled", "preact_clip"):
        values = [getattr(g, option) for g in gates]
        if len(set(values)) > 1:
            raise refusal(f"layer {n}, {option}", TO, "one for both directions", values)
    coupled = gates[0].coupled
    order = [gate for gate in ORDER if not (coupled and gate == "f")]
    hidden, dtype = weights[0].w_hh.shape[-1], weights[0].w_hh.dtype

    def rows(field: str) -> NDArray:
        return np.stack([join_gates(getattr(w, field), order).T for w in weights])

    def vectors(values: Sequence[Any], order: str) -> NDArray | None:
        """Bias or peepholes of each direction, 0 where there are none; None if nowhere."""
        if all(value is None for value in values):
            return None
        full = [np.zeros((len(order), hidden), dtype) for _ in values]
        for value, into in zip(values, full, strict=True):
            if value is not None:  # of a coupled cell, without f
                into[[0, 2, 3][: len(value)] if coupled else slice(None)] = value
        return np.stack([join_gates(one, order) for one in full])

    b = vectors([_bias(w, g) for w, g in zip(weights, gates, strict=True)], ORDER)
    projection = None
    if weights[0].w_hr is not None:
        projection = np.stack([np.asarray(w.w_hr) for w in weights])
    before = None
    if start is not None:
        sizes = {"output": weights[0].w_hh.shape[0], "hidden": hidden}
        h, c = (
            np.stack([array(f"params[{n}].start", s[k], (size,), sizes)[None] for s in start])
            for k, size in enumerate(sizes)
        )
        before = (h, c)
    needed = projection is not None and (carries or start is not None)
    return Terms(
        attributes={
            "hidden_size": hidden,
            "direction": "bidirectional" if len(layer) == 2 else ("forward", "reverse")[reverse],
            **_attributes(n, gates),
        },
        W=rows("w_ih"),
        R=rows("w_hh"),
        # ONNX's second bias is −0: what that is added to stays the same to the last bit.
        B=None if b is None else np.concatenate([b, np.full_like(b, -0.0)], axis=1),
        P=vectors([w.peepholes for w in weights], PEEPHOLES),
        projection=projection,
        inverse=_inverse(n, projection) if needed and projection is not None else None,
        start=before,
    )


def _variant(gates: Gates) -> Variant:
    return gates if isinstance(gates, Variant) else Variant()


def _bias(weights: VariantParams, gates: Variant) -> NDArray | None:
    """b, with the offset of f if there is one."""
    if not gates.forget_offset:
        return None if weights.b is None else np.asarray(weights.b)
    offset = np.zeros((len(GATES), weights.w_hh.shape[-1]), weights.w_hh.dtype)
    offset[GATES.index("f")] = gates.forget_offset
    return offset if weights.b is None else np.asarray(weights.b) + offset


def _inverse(n: int, projection: NDArray) -> NDArray:
    """P⁺, so that (h·P⁺)·P is h; refuse where that loses more than three digits."""
    wide = projection.astype(np.float64)
    values = np.linalg.svd(wide, compute_uv=False)  # the largest first
    if wide.shape[1] < wide.shape[2] or (values[:, -1] < 1e-3 * values[:, 0]).any():
        why = "the carry given is what h was before the projection"
        raise refusal(f"layer {n}, w_hr", TO, why, "columns that are (nearly) dependent")
    return np.asarray(np.linalg.pinv(wide), projection.dtype)


def _attributes(n: int, gates: Sequence[Variant]) -> dict[str, Any]:
    """What the node is told of the cell; what has its value by default is left out."""
    attributes: dict[str, Any] = {}
    if gates[0].coupled:
        attributes["input_forget"] = 1
    if gates[0].preact_clip is not None:
        attributes["clip"] = gates[0].preact_clip
    names, constants = [], []
    for g in gates:
        for role in ROLES:
            known = name_of(getattr(g, role))
            if known is None:
                why = f"one of {', '.join(ACTIVATIONS)}"
                raise refusal(f"layer {n}, {role}", TO, why, getattr(g, role))
            names.append(known[0])
            constants.append(known[1])
    if names != ["Sigmoid", "Tanh", "Tanh"] * len(gates):
        attributes["activations"] = names
        for place, key in enumerate(("activation_alpha", "activation_beta")):
            if values := [c[place] for c in constants if len(c) > place]:
                attributes[key] = values
    return attributes
