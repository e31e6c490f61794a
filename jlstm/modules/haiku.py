"""Haiku's ``hk.LSTM`` over a sequence, with the forward and backward of ``jlstm``.

::

    from jlstm.modules.haiku import dynamic_unroll

    hs, state = dynamic_unroll(core, xs, core.initial_state(8))     # was: hk.dynamic_unroll(…)
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jlstm.extras import needs
from jlstm.sequence import lstm
from jlstm.types import GATES, Carry, LSTMParams

with needs("haiku", extra="haiku"):
    import haiku as hk

ORDER = [0, 2, 1, 3]
"""Of the gates: Haiku's are i, g, f, o."""


def dynamic_unroll(
    core: hk.LSTM,
    input_sequence: Float[Array, "..."],
    initial_state: hk.LSTMState | None,
    time_major: bool = True,
    reverse: bool = False,
    return_all_states: bool = False,
    **options: Any,
) -> tuple[Float[Array, "..."], hk.LSTMState]:
    """``hk.dynamic_unroll`` of an ``hk.LSTM``, inside ``hk.transform``.

    Parameters are made by the core itself, and looked up through Haiku, custom getters included.
    The 1 that Haiku adds to f is added to the bias.

    Args:
        core: the core.
        input_sequence: ``[time, *batch, input]``; without ``time_major`` batch and time change
            places, and there is one axis of batch.
        initial_state: h and c before the first step, ``[*batch, hidden]``; None for zeros.
        time_major: which of the first two axes is time.
        reverse: whether to walk from the last step to the first.
        return_all_states: refused: of the steps between only h is known, which is the output.
        options: of ``jlstm.lstm``: ``lengths``, ``resets`` (``[time, *batch]`` either way, in place
            of an ``hk.ResetCore``), ``residuals`` …

    Returns:
        The outputs, with the axes of the inputs, and the last state.

    Raises:
        TypeError: another core; and as ``jlstm.lstm``.
        ValueError: all states are asked for; and as ``jlstm.lstm``.
    """
    if type(core) is not hk.LSTM:
        raise TypeError(f"core: expected hk.LSTM, got {type(core).__name__}")
    if return_all_states:
        raise ValueError("return_all_states: expected False, as c is known at the end only")
    xs = input_sequence if time_major else jnp.swapaxes(input_sequence, 0, 1)
    params = weights_of(core, xs)
    carry = None if initial_state is None else Carry(initial_state.hidden, initial_state.cell)
    (h, c), hs = lstm(params, carry, xs, reverse=reverse, **options)
    return hs if time_major else jnp.swapaxes(hs, 0, 1), hk.LSTMState(h, c)


def weights_of(core: hk.LSTM, xs: Float[Array, "time *batch input"]) -> LSTMParams:
    """The weights of a core in our layout."""
    inputs, hidden = xs.shape[-1], core.hidden_size
    found: list[Array] = []

    def look(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = method(*args, **kwargs)
        if isinstance(context.module, hk.Linear) and context.method_name == "__call__":
            shapes = {"w": (inputs + hidden, 4 * hidden), "b": (4 * hidden,)}
            for name, shape in shapes.items():  # NumPy's, if they are from a file
                found.append(jnp.asarray(hk.get_parameter(name, shape, xs.dtype)))
        return out

    # A step of its own, whose result nobody uses, makes the core's linear map and its parameters.
    with hk.intercept_methods(look):
        core(jnp.zeros(inputs, xs.dtype), hk.LSTMState(*jnp.zeros((2, hidden), xs.dtype)))
    w, b = (leaf.reshape(*leaf.shape[:-1], 4, hidden)[..., ORDER, :] for leaf in found)
    return LSTMParams(w[:inputs], w[inputs:], b.at[GATES.index("f")].add(1))
