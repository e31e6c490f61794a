"""The equations of the LSTM: one step forward, and its derivative worked out by hand.

The cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000) as the
lecture notes have it, numbered as in their forward pass, with σ the logistic function, ⊙ the
elementwise product and h', c' the h and c of the step before. z is a preactivation, a hat in the
notes; their a is called g here::

    z = x·W + h'·U + b, in four blocks z_i, z_f, z_g, z_o
    g = tanh(z_g)                                                    (1)
    i = σ(z_i)                                                       (2)
    f = σ(z_f)                                                       (3)
    c = g ⊙ i + c' ⊙ f                                               (4)
    o = σ(z_o)                                                       (5)
    h = tanh(c) ⊙ o                                                  (6)

The linear map x·W + h'·U + b is the same for every gated cell, and nearly all of the arithmetic:
it belongs to ``sequence.py``. What makes this cell an LSTM is the gate arithmetic (z, c') → (h, c),
and that is here, as a few plain functions; ``PLAIN`` hands them over. It is elementwise over units,
so its local Jacobian is six vectors, and a derivative in either direction is a few multiply-adds
with them. They depend on forward values alone: ``jacobian`` finds them for many time steps at once,
and only ``pullback`` (or ``pushforward``) has to walk through time.

Errata of the notes:

- The implicit dataflow is printed as c^{t+1} = c^t; c^t is not equal to what follows it, it is what
  step t + 1 reads as the c of the step before. Nor does δc^t accumulate "from h^T", but from h^t.
- ∂E/∂â is printed with 1 − tanh(â); it is 1 − tanh²(â) = 1 − g².
- ∂E/∂î is printed with â ⊙ (1 − â); it is i ⊙ (1 − i): a gate value, not a preactivation, and of
  the gate i.
- ∂E/∂f̂ is printed with f̂ ⊙ (1 − f̂); it is f ⊙ (1 − f).
- ∂E/∂ô is printed with δ ⊙ (1 − δ); it is o ⊙ (1 − o).
- ∂E/∂Î is printed with δ^t for its fourth part, which is ∂E/∂ô, and times I^t where the outer
  product, times its transpose, is meant.
- The pass "updates W_o, U_o, W_f, U_f, W_i, and U_i"; it updates W_a and U_a as well.
- There is no bias, and neither ∂E/∂x nor ∂E/∂h of the step before; see ``sequence.py`` for them.
- tanh is said not to have the saturation of the sigmoid; it has: its slope 1 − tanh² goes to 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_flag, check_number, check_size
from jlstm.gates import Flat, Gates, State, check_gates, sequence_keys
from jlstm.linear import Into, alike, along, product, total
from jlstm.types import (
    Carry,
    LSTMParams,
    at_least_32_bits,
    check_array,
    check_carry,
    check_float,
    check_key,
    check_params,
    check_step,
)


class Jacobian(NamedTuple):
    """The local Jacobian where c comes from (z_i, z_f, z_g, c') and h from (z_o, c), unitwise."""

    c_zi: State
    """∂c/∂z_i."""
    c_zf: State
    """∂c/∂z_f."""
    c_zg: State
    """∂c/∂z_g."""
    h_zo: State
    """∂h/∂z_o."""
    h_c: State
    """∂h/∂c."""
    c_c: State
    """∂c/∂c'."""


def equations(z: Flat, c_prev: State) -> tuple[State, State]:
    """(z, c') to (h, c) as the notes have it: what autodiff is given, and the test of the rest."""
    z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
    g = jnp.tanh(z_g)  # (1)
    i = jax.nn.sigmoid(z_i)  # (2)
    f = jax.nn.sigmoid(z_f)  # (3)
    c = g * i + c_prev * f  # (4)
    o = jax.nn.sigmoid(z_o)  # (5)
    h = jnp.tanh(c) * o  # (6)
    return h, c


class Activated(NamedTuple):
    """The gates' values, as they are kept for the backward pass."""

    i_f: Float[Array, "*batch 2*hidden"]
    """i and f, side by side in z and so here: to keep them is one copy instead of two."""
    g: State
    o: State


def forward(z: Flat, c_prev: State) -> tuple[State, State, Activated]:
    """``equations`` the quick way: h, c, and the gates, which the backward pass needs.

    σ of all four blocks at once, and tanh of the candidate's beside it: on CPU, at the usual sizes,
    up to twice as fast as four functions on four slices. (One tanh would do, as
    σ(z) = ½·tanh(z/2) + ½, and be quicker still; but a nearly shut gate would then be the small
    difference of two numbers near ½, with nothing left of its digits.)
    """
    n = z.shape[-1] // 4
    sigma = jax.nn.sigmoid(z)
    i_f, g, o = sigma[..., : 2 * n], jnp.tanh(z[..., 2 * n : 3 * n]), sigma[..., 3 * n :]
    i, f = jnp.split(i_f, 2, axis=-1)
    c = f * c_prev + i * g
    h = o * jnp.tanh(c)
    return h, c, Activated(i_f, g, o)


def jacobian(gates: Activated, c_prev: State, c: State) -> Jacobian:
    """The local Jacobian at given forward values; any leading axes, so all time steps at once.

    In the notes' words: ∂c/∂a = i, ∂c/∂i = a, ∂c/∂f = c', ∂h/∂o = tanh(c), each times the slope of
    its activation, which is 1 − g² for tanh and s(1 − s) for σ.
    """
    i_f, g, o = gates
    i, f = jnp.split(i_f, 2, axis=-1)
    tanh_c = jnp.tanh(c)
    return Jacobian(
        c_zi=g * i * (1 - i),
        c_zf=c_prev * f * (1 - f),
        c_zg=i * (1 - g * g),
        h_zo=tanh_c * o * (1 - o),
        h_c=o * (1 - tanh_c * tanh_c),
        c_c=f,
    )


def pullback(jac: Jacobian, dh: State, dc: State) -> tuple[Flat, State]:
    """Cotangents of (h, c) to cotangents of (z, c'): one step of back-propagation through time.

    dh is already the sum of the loss's own part and what came back from the step after; dc only
    what came back, to which the first line adds what passes through h (the notes' δc accumulation).
    """
    dc = dc + dh * jac.h_c
    dz = jnp.concatenate([dc * jac.c_zi, dc * jac.c_zf, dc * jac.c_zg, dh * jac.h_zo], axis=-1)
    return dz, dc * jac.c_c


def pushforward(jac: Jacobian, dz: Flat, dc_prev: State) -> tuple[State, State]:
    """Tangents of (z, c') to tangents of (h, c): the transpose of ``pullback``."""
    dz_i, dz_f, dz_g, dz_o = jnp.split(dz, 4, axis=-1)
    dc = dc_prev * jac.c_c + dz_i * jac.c_zi + dz_f * jac.c_zf + dz_g * jac.c_zg
    return dz_o * jac.h_zo + dc * jac.h_c, dc


@dataclass(frozen=True)
class _Plain:
    """The gate arithmetic of this file: the functions above, as ``sequence.py`` asks for them."""

    random: bool = False

    def __repr__(self) -> str:
        return "PLAIN"

    def check(self, params: Any) -> LSTMParams:
        return check_params(params)

    def flatten(self, params: LSTMParams) -> LSTMParams:
        return flatten(params)

    def mask(self, keys: Array, output: int, dtype: Any) -> None:
        return None

    def noise(self, keys: Array, t: Array, hidden: int, output: int, dtype: Any) -> None:
        return None

    def inputs(self, rest: LSTMParams, x_part: Flat) -> Flat:
        return x_part if rest.b is None else x_part + along(rest.b, x_part)

    def equations(
        self, rest: Any, z: Flat, h_part: Flat, prev: Carry, noise: None, into: Into
    ) -> Carry:
        return Carry(*equations(z + h_part, prev.c))

    def forward(
        self, rest: Any, z: Flat, h_part: Flat, prev: Carry, noise: None, into: Into
    ) -> tuple[Carry, Activated]:
        h, c, gates = forward(z + h_part, prev.c)
        return Carry(h, c), gates

    def jacobian(
        self, rest: Any, saved: Activated, before: Carry, after: Carry, noise: None, into: Into
    ) -> Jacobian:
        return jacobian(saved, before.c, after.c)

    def pullback(
        self, rest: Any, jac: Jacobian, d: Carry, into: Into
    ) -> tuple[Flat, Flat, tuple[None, State]]:
        dz, dc_prev = pullback(jac, d.h, d.c)
        return dz, dz, (None, dc_prev)

    def pushforward(
        self, rest: Any, jac: Jacobian, known: Flat, h_part: Flat, d_prev: Carry, into: Into
    ) -> Carry:
        return Carry(*pushforward(jac, known + h_part, d_prev.c))

    def gradient(
        self,
        rest: LSTMParams,
        jac: Jacobian,
        before: Carry,
        out: Flat,
        x_part: Callable[[], Flat],
        into: Into,
    ) -> tuple[Flat, Flat, LSTMParams]:
        b = None if rest.b is None else total(out)
        return out, out, rest._replace(b=b)

    def tangent(
        self,
        rest: LSTMParams,
        d_rest: LSTMParams,
        jac: Jacobian,
        before: Carry,
        x_part: Callable[[], Flat],
        dx_part: Flat,
        dh_part: Flat,
        into: Into,
    ) -> Flat:
        known = dx_part + dh_part
        return known if d_rest.b is None else known + along(d_rest.b, known)


PLAIN: Gates = _Plain()
"""The plain LSTM."""


def flatten(params: LSTMParams) -> LSTMParams:
    """The same weights with (4, hidden) as one axis: one product instead of four; no data moves."""
    flat: LSTMParams = jax.tree.map(lambda w: w.reshape(*w.shape[:-2], 4 * w.shape[-1]), params)
    return flat


def cell(
    params: Any,
    carry: Carry,
    x: Float[Array, "*batch input"],
    *,
    gates: Gates = PLAIN,
    key: PRNGKeyArray | None = None,
    t: int | Int[Array, ""] | None = None,
) -> tuple[Carry, Float[Array, "*batch hidden"]]:
    """One step of the LSTM: equations (1) to (6), the pure function that ``lax.scan`` takes.

    Args:
        params: the weights, of one floating-point dtype.
        carry: h and c of the step before, ``[*batch, hidden]``, same dtype.
        x: the input of this step, ``[*batch, input]``, same dtype; any batch axes, or none.
        gates: the cell, a value of ``Variant`` if it is not the plain one; with its own weights.
        key: for a cell that is random: one key, or one for each sequence, ``[*batch]``.
        t: the number of the step, for a cell that is random: the same key and number give what
            ``lstm`` draws at that step.

    Returns:
        The new carry, and h once more as the step's output.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: a shape that does not fit, a key or t that is missing; both name the argument,
            what was expected and what came.
    """
    params = check_gates(gates).check(params)
    (inputs, *_), (output, _, hidden) = params.w_ih.shape, params.w_hh.shape
    dtype = params.w_hh.dtype
    x = check_array("x", x, ("...", inputs), dtype)
    batch = x.shape[:-1]
    carry = check_carry("carry", carry, batch, hidden, dtype, output)
    if t is not None:
        check_step("t", t)
    if key is not None:
        check_key("key", key)
    params, (x, carry), _ = alike(params, (x, carry))
    weights = gates.flatten(params)
    rest, h_prev, noise = weights._replace(w_ih=None, w_hh=None), carry.h, None
    if gates.random:
        keys = sequence_keys(key, batch)
        if t is None:
            raise ValueError("t: expected the number of the step, as gates is random, got None")
        noise = gates.noise(keys, jnp.asarray(t), hidden, output, dtype)
        mask = gates.mask(keys, output, dtype)
        h_prev = h_prev if mask is None else h_prev * mask
    z = gates.inputs(rest, product(x, weights.w_ih))
    new = gates.equations(rest, z, product(h_prev, weights.w_hh), carry, noise, product)
    return new, new.h


def init_params(
    key: PRNGKeyArray,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> LSTMParams:
    """Fresh weights: gates that pass gradients from the first step on.

    w_ih is Glorot uniform (Glorot & Bengio 2010) and w_hh orthogonal (Saxe et al. 2014), each gate
    drawn on its own. The bias is 0 but for the forget gate's, which starts at ``forget_bias`` so
    that the cell remembers until it learns to forget (Gers et al. 2000; Jozefowicz et al. 2015).

    Args:
        key: a key of ``jax.random``.
        input_size: features of x, at least 1.
        hidden_size: units of h and c, at least 1.
        forget_bias: the forget gate's bias.
        bias: False for an LSTM without one (``forget_bias`` then has no effect).
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


def check_init(
    key: Any, input_size: Any, hidden_size: Any, forget_bias: Any, bias: Any, dtype: Any
) -> np.dtype:
    """The dtype of fresh weights; raise where they cannot be drawn as asked."""
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
        TypeError: a size that is no int, or a dtype that is not floating-point.
        ValueError: a negative batch size, or a hidden size below 1.
    """
    batch = tuple(batch_shape) if isinstance(batch_shape, Sequence) else (batch_shape,)
    for n in batch:
        if not is_symbolic_dim(n):
            check_size("batch_shape", n, least=0)
    check_size("hidden_size", hidden_size)
    output = hidden_size if output_size is None else output_size
    check_size("output_size", output)
    dtype = check_float("dtype", dtype)
    return Carry(jnp.zeros((*batch, output), dtype), jnp.zeros((*batch, hidden_size), dtype))
