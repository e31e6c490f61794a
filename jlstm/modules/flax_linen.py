"""``RNN`` for Flax Linen: ``nn.RNN`` of an LSTM cell, with the forward and backward of ``jlstm``.

::

    from jlstm.modules.flax_linen import RNN

    layer = RNN(nn.OptimizedLSTMCell(64))            # was: nn.RNN(nn.OptimizedLSTMCell(64))
    layer = nn.Bidirectional(RNN(nn.LSTMCell(64)), RNN(nn.LSTMCell(64)))
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jlstm.extras import needs
from jlstm.modules.flax_cells import FlaxCarry, check_cell, run
from jlstm.types import GATES, LSTMParams

with needs("flax", extra="flax"):
    import flax.linen as nn

CELLS = (nn.LSTMCell, nn.OptimizedLSTMCell)


class RNN(nn.RNN):
    """``nn.RNN`` of an ``nn.LSTMCell`` or ``nn.OptimizedLSTMCell``, computed by ``jlstm.lstm``.

    Variables, their names and their initial values are those of ``nn.RNN``, and so are the
    arguments and what is returned, the gradients included, but for three things:

    - At length 0 the carry is the one given, where Flax returns that of the last step of all.
    - Outputs at padding are 0, where Flax goes on computing. Lengths may have any batch axes.
    - With a ``dtype`` narrower than the parameters' only the factors of the products are rounded to
      it, gates and state are not.

    ``unroll``, ``variable_axes`` and what else of ``nn.RNN`` says how to scan have no effect.

    Attributes:
        options: of ``jlstm.lstm``: ``residuals``, ``derivative``, ``chunk``, ``unroll`` …
    """

    options: Mapping[str, Any] | None = None

    def __call__(
        self,
        inputs: Float[Array, "..."],
        *,
        initial_carry: FlaxCarry | None = None,
        init_key: PRNGKeyArray | None = None,
        seq_lengths: Int[Array, "*batch"] | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        resets: Bool[Array, "..."] | None = None,
    ) -> Any:
        """The sequence through the cell.

        Args:
            inputs: ``[*batch, time, input]``, or with ``time_major`` ``[time, *batch, input]``.
            initial_carry: c and h before the first step, ``[*batch, hidden]``; None for what
                the cell's ``initialize_carry`` gives.
            init_key: for that.
            seq_lengths: steps that count in each sequence, ``[*batch]``.
            return_carry: whether to return (carry, outputs); None as in the attribute, and so on.
            time_major: where the axis of time is.
            reverse: whether to walk from the last step that counts to the first.
            keep_order: whether the outputs of a walk in reverse are in the order of the inputs.
            resets: bool, the axes of inputs but the last: where True the carry is 0 before this
                step, in the order of the walk. (``nn.RNN`` has no such argument.)

        Raises:
            TypeError: another cell; and as ``jlstm.lstm``.
            ValueError: as ``jlstm.lstm``.
        """
        check_cell(self.cell, CELLS)
        time_major = self.time_major if time_major is None else time_major
        axis = 0 if time_major else inputs.ndim - 2
        without_time = (*inputs.shape[:axis], *inputs.shape[axis + 1 :])
        if self.is_initializing():  # theirs, on one step: their variables and their values
            super().__call__(
                jnp.expand_dims(jnp.zeros(without_time, inputs.dtype), axis), time_major=time_major
            )
        if initial_carry is None:
            key = jax.random.key(0) if init_key is None else init_key
            initial_carry = self.cell.initialize_carry(key, without_time)
        own = nn.unbox(self.cell.variables["params"])  # of nn.Partitioned, which says where it lies
        carry, outputs = run(
            self.cell,
            LSTMParams(
                jnp.stack([own[f"i{gate}"]["kernel"] for gate in GATES], axis=1),
                jnp.stack([own[f"h{gate}"]["kernel"] for gate in GATES], axis=1),
                jnp.stack([own[f"h{gate}"]["bias"] for gate in GATES]),
            ),
            inputs,
            initial_carry,
            seq_lengths,
            resets,
            time_major=time_major,
            reverse=self.reverse if reverse is None else reverse,
            keep_order=self.keep_order if keep_order is None else keep_order,
            options=self.options or {},
        )
        return_carry = self.return_carry if return_carry is None else return_carry
        return (carry, outputs) if return_carry else outputs
