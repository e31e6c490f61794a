"""Fresh weights and the carry to start from.

Input weights are Glorot uniform (Glorot & Bengio 2010) and recurrent weights orthogonal (Saxe et
al. 2014), each gate drawn on its own. Biases are 0 but for the forget gate's, which starts at
``forget_bias``, so that the cell remembers until it learns to forget (Gers et al. 2000; Jozefowicz
et al. 2015).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, DTypeLike, PRNGKeyArray

from jlstm.checks import check_flag, check_number, check_size
from jlstm.types import Carry, LSTMParams, at_least_32_bits, check_float, check_key


def init_params(
    key: PRNGKeyArray,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> LSTMParams:
    """Fresh weights of the plain LSTM, drawn as the module says.

    Args:
        key: a key of ``jax.random``.
        input_size: features of x, at least 1.
        hidden_size: units of h and c, at least 1.
        forget_bias: the forget gate's bias.
        bias: False for none.
        dtype: of all weights.

    Raises:
        TypeError: an argument of another type, or a dtype that is not floating-point.
        ValueError: a size below 1, or a bias that is not finite.
    """
    dtype = check_init(key, input_size, hidden_size, forget_bias, bias, dtype)
    key_ih, key_hh = jax.random.split(key)
    w_ih = glorot_per_gate(key_ih, 4, (input_size, hidden_size), dtype)
    w_hh = orthogonal_per_gate(key_hh, 4, (hidden_size, hidden_size), dtype)
    b = jnp.zeros((4, hidden_size), dtype).at[1].set(forget_bias) if bias else None
    return LSTMParams(w_ih, w_hh, b)


def init_carry(
    batch_shape: int | Sequence[int],
    hidden_size: int,
    dtype: DTypeLike = jnp.float32,
    *,
    output_size: int | None = None,
) -> Carry:
    """The carry before the first step: zeros of shape ``[*batch_shape, hidden_size]``.

    Args:
        batch_shape: the batch axes, ``()`` for a single sequence; one int stands for one axis. A
            size may be a symbolic one of ``jax.export``.
        hidden_size: units of h and c, at least 1.
        dtype: that of the parameters.
        output_size: units of h, where a projection makes them others than those of c.

    Raises:
        TypeError: a size that is not an int, or a dtype that is not floating-point.
        ValueError: a negative batch size, or a hidden size below 1.
    """
    batch = check_batch_shape(batch_shape)
    check_size("hidden_size", hidden_size)
    output = hidden_size if output_size is None else output_size
    check_size("output_size", output)
    dtype = check_float("dtype", dtype)
    return Carry(jnp.zeros((*batch, output), dtype), jnp.zeros((*batch, hidden_size), dtype))


def check_batch_shape(batch_shape: int | Sequence[int]) -> tuple[int, ...]:
    """The batch axes as a tuple; raise unless they are sizes."""
    batch = tuple(batch_shape) if isinstance(batch_shape, Sequence) else (batch_shape,)
    for n in batch:
        if not is_symbolic_dim(n):
            check_size("batch_shape", n, least=0)
    return batch


def check_init(
    key: Any, input_size: Any, hidden_size: Any, forget_bias: Any, bias: Any, dtype: Any
) -> np.dtype:
    """The dtype of fresh weights; raise unless the arguments are those of ``init_params``."""
    check_key("key", key, single=True)
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    check_number("forget_bias", forget_bias)
    check_flag("bias", bias)
    return check_float("dtype", dtype)


def _per_gate(init: Any, key: PRNGKeyArray, count: int, shape: Any, dtype: Any) -> Array:
    # Orthogonalisation is not defined in 16 bits: draw wide, round once.
    wide = at_least_32_bits(dtype)
    gates = [init(k, shape, wide) for k in jax.random.split(key, count)]
    return jnp.stack(gates, axis=1).astype(dtype)


glorot_per_gate = partial(_per_gate, jax.nn.initializers.glorot_uniform())
"""(key, gates, (rows, columns), dtype) -> ``[rows, gates, columns]``, each gate on its own."""

orthogonal_per_gate = partial(_per_gate, jax.nn.initializers.orthogonal())
"""The same with orthogonal matrices, or as near to it as their shape allows."""
