"""Equinox's ``eqx.nn.LSTMCell`` over a sequence, with the forward and backward of ``jlstm``.

::

    from jlstm.modules.equinox import scan

    (h, c), hs = scan(self.cell, (h, c), xs)         # was: jax.lax.scan(body, (h, c), xs)
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from jlstm.extras import needs
from jlstm.sequence import lstm
from jlstm.types import Carry, LSTMParams

with needs("equinox", extra="equinox"):
    import equinox as eqx

State = tuple[Float[Array, "*batch hidden"], Float[Array, "*batch hidden"]]
"""h and c, in this order."""


def scan(
    cell: eqx.nn.LSTMCell,
    init: State | None,
    xs: Float[Array, "time *batch input"],
    **options: Any,
) -> tuple[State, Float[Array, "time *batch hidden"]]:
    """The cell over a sequence: ``jax.lax.scan`` of it, which gives h at every step.

    It is ``lax.scan(body, init, xs)`` with ``body(state, x) = (cell(x, state), its h)``. A batch
    may be put around by ``vmap``; handed over, after time, it is faster, as the gradient of the
    weights is a single product then and not one for each sequence.

    Args:
        cell: the cell, part of the model as it was: its leaves, their order and every file of
            ``eqx.tree_serialise_leaves`` stay.
        init: h and c before the first step, ``[*batch, hidden]``; None for zeros.
        xs: the inputs.
        options: of ``jlstm.lstm``: ``reverse``, ``lengths``, ``resets``, ``residuals`` …

    Returns:
        h and c after the last step, and h of all steps.

    Raises:
        TypeError: another cell; and as ``jlstm.lstm``.
        ValueError: as ``jlstm.lstm``.
    """
    if type(cell) is not eqx.nn.LSTMCell:
        raise TypeError(f"cell: expected eqx.nn.LSTMCell, got {type(cell).__name__}")
    leaves = LSTMParams(cell.weight_ih.T, cell.weight_hh.T, cell.bias)
    params = jax.tree.map(lambda w: w.reshape(*w.shape[:-1], 4, cell.hidden_size), leaves)
    carry, hs = lstm(params, None if init is None else Carry(*init), xs, **options)
    return (carry.h, carry.c), hs
