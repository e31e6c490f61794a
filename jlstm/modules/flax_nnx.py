"""``RNN`` for Flax NNX: ``nnx.RNN`` of an LSTM cell, with the forward and backward of ``jlstm``.

::

    from jlstm.modules.flax_nnx import RNN

    layer = RNN(nnx.OptimizedLSTMCell(32, 64, rngs=rngs))    # was: nnx.RNN(nnx.Optimized…)
    layer = nnx.Bidirectional(RNN(forward), RNN(backward))
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jlstm.extras import needs
from jlstm.modules.flax_cells import FlaxCarry, check_cell, run
from jlstm.types import LSTMParams

with needs("flax", extra="flax"):
    from flax import nnx

CELLS = (nnx.LSTMCell, nnx.OptimizedLSTMCell)


class RNN(nnx.RNN):
    """``nnx.RNN`` of an ``nnx.LSTMCell`` or ``nnx.OptimizedLSTMCell``, computed by ``jlstm.lstm``.

    Variables and their names are those of ``nnx.RNN``, and so are the arguments and what is
    returned, the gradients included, but for four things:

    - At length 0 the carry is the one given, where Flax returns that of the last step of all.
    - Outputs at padding are 0, where Flax goes on computing. Lengths may have any batch axes.
    - With a ``dtype`` narrower than the parameters' only the factors of the products are rounded to
      it, gates and state are not.
    - Keys are drawn only for a cell with a ``carry_init``; zeros need none.

    ``unroll``, ``state_axes`` and what else of ``nnx.RNN`` says how to scan have no effect.

    Args:
        cell: the cell, whose weights are the layer's.
        options: of ``jlstm.lstm``: ``residuals``, ``derivative``, ``chunk``, ``unroll`` …
        settings: as ``nnx.RNN`` has them: ``time_major``, ``return_carry``, ``reverse`` …

    Raises:
        TypeError: another cell.
    """

    def __init__(
        self, cell: Any, *, options: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        check_cell(cell, CELLS)
        super().__init__(cell, **settings)
        self.options = nnx.static(tuple((options or {}).items()))  # to be hashed with the module

    def __call__(
        self,
        inputs: Float[Array, "..."],
        *,
        initial_carry: FlaxCarry | None = None,
        seq_lengths: Int[Array, "*batch"] | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        resets: Bool[Array, "..."] | None = None,
    ) -> Any:
        """The sequence through the cell.

        Args:
            inputs: ``[*batch, time, input]``, or with ``time_major`` ``[time, *batch, input]``.
            initial_carry: c and h before the first step, ``[*batch, hidden]``; None for zeros, or
                for what the cell's ``carry_init`` draws.
            seq_lengths: steps that count in each sequence, ``[*batch]``.
            return_carry: whether to return (carry, outputs); None as in the attribute, and so on.
            time_major: where the axis of time is.
            reverse: whether to walk from the last step that counts to the first.
            keep_order: whether the outputs of a walk in reverse are in the order of the inputs.
            rngs: for a carry that is drawn.
            resets: bool, the axes of inputs but the last: where True the carry is 0 before this
                step, in the order of the walk. (``nnx.RNN`` has no such argument.)

        Raises:
            TypeError, ValueError: as ``jlstm.lstm``.
        """
        time_major = self.time_major if time_major is None else time_major
        if initial_carry is None and getattr(self.cell, "carry_init", None) is not None:
            axis = 0 if time_major else inputs.ndim - 2
            without_time = (*inputs.shape[:axis], *inputs.shape[axis + 1 :])
            initial_carry = self.cell.initialize_carry(
                without_time, self.rngs if rngs is None else rngs
            )
        carry, outputs = run(
            self.cell,
            weights_of(self.cell),
            inputs,
            initial_carry,
            seq_lengths,
            resets,
            time_major=time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
            options=dict(self.options),
        )
        return_carry = self.return_carry if return_carry is None else return_carry
        return (carry, outputs) if return_carry else outputs


def weights_of(cell: Any) -> LSTMParams:
    """The weights of either cell in our layout."""
    if hasattr(cell, "dense_h"):  # the optimised one
        flat = cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...]
        return LSTMParams(*(w.reshape(*w.shape[:-1], 4, cell.hidden_features) for w in flat))
    inputs, hidden = (cell.ii, cell.if_, cell.ig, cell.io), (cell.hi, cell.hf, cell.hg, cell.ho)
    return LSTMParams(
        jnp.stack([part.kernel[...] for part in inputs], axis=1),
        jnp.stack([part.kernel[...] for part in hidden], axis=1),
        jnp.stack([part.bias[...] for part in hidden]),
    )
