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
it belongs to the engine. What makes this cell an LSTM is the gate arithmetic (z, c') → (h, c), and
that is here, as a few plain functions; ``PLAIN`` hands them over. It is elementwise over units, so
its local Jacobian is six vectors, and a step of back-propagation is a few multiply-adds with them.
They depend on forward values alone: ``jacobian`` finds them for many time steps at once, and only
``pullback`` has to walk through time.

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
- There is no bias, and neither ∂E/∂x nor ∂E/∂h of the step before; see ``linear.py`` for them.
- tanh is said not to have the saturation of the sigmoid; it has: its slope 1 − tanh² goes to 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jlstm.gates import Columns, Extras, Gates, Local
from jlstm.initializers import init_carry, init_params
from jlstm.linear import along
from jlstm.types import Carry, LSTMParams, check_fields

State = Float[Array, "*batch hidden"]


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


def equations(z: Columns, c_prev: State) -> tuple[State, State]:
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


def forward(z: Columns, c_prev: State) -> tuple[State, State, Activated]:
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


def pullback(jac: Jacobian, dh: State, dc: State) -> tuple[Columns, State]:
    """Cotangents of (h, c) to cotangents of (z, c'): one step of back-propagation through time.

    dh is already the sum of the loss's own part and what came back from the step after; dc only
    what came back, to which the first line adds what passes through h (the notes' δc accumulation).
    """
    dc = dc + dh * jac.h_c
    dz = jnp.concatenate([dc * jac.c_zi, dc * jac.c_zf, dc * jac.c_zg, dh * jac.h_zo], axis=-1)
    return dz, dc * jac.c_c


# The same in the form that the engine asks for, with z = x·W + h'·U.


def _forward(
    own: Any, x_part: Columns, h_part: Columns, prev: Carry, noise: None
) -> tuple[Carry, Activated]:
    h, c, gates = forward(x_part + h_part, prev.c)
    return Carry(h, c), gates


def _pull(jac: Jacobian, d: Carry) -> tuple[Columns, Columns, Carry]:
    dz, dc_prev = pullback(jac, d.h, d.c)
    return dz, dz, Carry(jnp.zeros_like(d.h), dc_prev)


BY_HAND = Local(
    _forward,
    prepare=lambda v: (jacobian(v.saved, v.before.c, v.after.c), _pull),
    gradient=lambda v, dz: (dz, dz, v.own),
)


@dataclass(frozen=True)
class Plain:
    """The plain LSTM: the functions of this file, as the engine asks for them."""

    def __repr__(self) -> str:
        return "PLAIN"

    @property
    def extras(self) -> Extras:
        """The derivative by hand."""
        return Extras(summed=True, derivative=BY_HAND)

    @property
    def init(self) -> Callable[..., LSTMParams]:
        """``init_params``."""
        return init_params

    def check(self, params: Any) -> LSTMParams:
        """The weights as JAX arrays; raise where they are of another kind or do not fit."""
        shapes = {
            "w_hh": (True, ("hidden", 4, "hidden")),
            "w_ih": (True, ("input", 4, "hidden")),
            "b": (None, (4, "hidden")),
        }
        return check_fields(params, LSTMParams, shapes)

    def start(self, params: LSTMParams, batch_shape: int | Sequence[int] = ()) -> Carry:
        """The carry before the first step: zeros."""
        return init_carry(batch_shape, params.w_hh.shape[-1], params.w_hh.dtype)

    def step(
        self, own: LSTMParams, x_part: Columns, h_part: Columns, carry: Carry, noise: None
    ) -> Carry:
        """The equations, from the products on."""
        z = x_part + h_part
        if own.b is not None:
            z = z + along(own.b.reshape(-1), z)
        return Carry(*equations(z, carry.c))


PLAIN: Gates = Plain()
"""The plain LSTM."""
