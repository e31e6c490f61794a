"""The sLSTM: exponential gates with a normaliser and a stabiliser (Beck et al. 2024, "xLSTM").

In the notation of ``equations.py``, with c', n', m' those of the step before; their cell input z is
called g here, to keep z for preactivations. Equations (8) to (16) of the paper, with the stabilised
gates i and f in place of exp(z_i) and of σ(z_f) or exp(z_f)::

    z = x·W + h'·U + b, in four blocks z_i, z_f, z_g, z_o
    g = tanh(z_g)
    l = m' + log σ(z_f), or m' + z_f for an exponential forget gate; z_i where n' = 0
    m = max(l, z_i)                              the stabiliser
    i = exp(z_i − m)
    f = exp(l − m)
    c = f ⊙ c' + i ⊙ g
    n = f ⊙ n' + i                               the normaliser
    o = σ(z_o)
    h = o ⊙ c/n

m cancels out in h; it keeps the exponentials from overflowing, as c and n are both stored times
exp(−m). At the start, where nothing is remembered and n' = 0, m is z_i; so n becomes 1, and from
then on it is at least 1.

The units are divided into heads, which do not see each other through U: it is block-diagonal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from jlstm.checks import check_choice, check_size
from jlstm.gates import Columns, Extras
from jlstm.initializers import check_batch_shape, check_init, glorot_per_gate, orthogonal_per_gate
from jlstm.linear import along
from jlstm.types import at_least_32_bits, check_fields, exportable

State = Float[Array, "*batch hidden"]


@exportable
class SLSTMParams(NamedTuple):
    """The weights of an sLSTM; the gates are i, f, g, o."""

    w_ih: Float[Array, "input 4 hidden"]
    """W, input to preactivation."""
    w_hh: Float[Array, "heads hidden/heads 4 hidden/heads"]
    """U, previous output to preactivation, one block for each head."""
    b: Float[Array, "4 hidden"] | None
    """The bias."""


@exportable
class SLSTMCarry(NamedTuple):
    """What an sLSTM remembers from one step to the next."""

    h: State
    """The output."""
    c: State
    """The cell, times exp(−m)."""
    n: State
    """The normaliser, times exp(−m)."""
    m: State
    """The stabiliser: the logarithm of the scale of c and n; in at least 32 bits, as it may grow
    until 16 bits no longer tell its steps apart."""


@dataclass(frozen=True, kw_only=True)
class SLSTM:
    """An sLSTM. A value to hand to ``lstm``, ``cell`` or a ``Stack`` as ``gates``.

    Args:
        heads: into how many heads the units are divided.
        forget: ``"sigmoid"`` or ``"exp"``, the forget gate.

    Raises:
        TypeError: an option of another type.
        ValueError: heads below 1, or another forget gate.
    """

    heads: int = 1
    forget: Literal["sigmoid", "exp"] = "sigmoid"

    def __post_init__(self) -> None:
        check_size("heads", self.heads)
        check_choice("forget", self.forget, ("sigmoid", "exp"))

    @property
    def extras(self) -> Extras:
        """The products are seen as a sum, so the engine keeps only that."""
        return Extras(summed=True)

    def init(
        self,
        key: PRNGKeyArray,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float = 1.0,
        bias: bool = True,
        dtype: DTypeLike = jnp.float32,
    ) -> SLSTMParams:
        """Fresh weights, drawn as those of ``init_params``, each head of U on its own.

        Arguments and errors are those of ``init_params``; hidden_size is a multiple of the heads.
        """
        dtype = check_init(key, input_size, hidden_size, forget_bias, bias, dtype)
        if hidden_size % self.heads:
            raise ValueError(
                f"hidden_size: expected a multiple of heads={self.heads}, got {hidden_size}"
            )
        units = hidden_size // self.heads
        key_ih, *keys = jax.random.split(key, 1 + self.heads)
        b = jnp.zeros((4, hidden_size), dtype).at[1].set(forget_bias) if bias else None
        return SLSTMParams(
            w_ih=glorot_per_gate(key_ih, 4, (input_size, hidden_size), dtype),
            w_hh=jnp.stack([orthogonal_per_gate(k, 4, (units, units), dtype) for k in keys]),
            b=b,
        )

    def check(self, params: Any) -> SLSTMParams:
        """The weights as JAX arrays; raise where they are of another kind or do not fit."""
        blocks: Any = getattr(getattr(params, "w_hh", None), "shape", ())  # checked below
        hidden: Any = self.heads * blocks[1] if len(blocks) == 4 else "hidden"
        shapes = {
            "w_hh": (True, (self.heads, "units", 4, "units")),
            "w_ih": (True, ("input", 4, hidden)),
            "b": (None, (4, hidden)),
        }
        return check_fields(params, SLSTMParams, shapes)

    def start(self, params: SLSTMParams, batch_shape: int | Sequence[int] = ()) -> SLSTMCarry:
        """The carry before the first step: zeros."""
        shape, dtype = (*check_batch_shape(batch_shape), params.w_ih.shape[-1]), params.w_ih.dtype
        h, c, n = (jnp.zeros(shape, dtype) for _ in range(3))
        return SLSTMCarry(h, c, n, jnp.zeros(shape, at_least_32_bits(dtype)))

    def step(
        self, own: SLSTMParams, x_part: Columns, h_part: Columns, carry: SLSTMCarry, noise: None
    ) -> SLSTMCarry:
        """The module's equations, one by one."""
        _, c, n, m = carry
        z = x_part + h_part
        if own.b is not None:
            z = z + along(own.b.reshape(-1), z)
        z_i, z_f, z_g, z_o = jnp.split(z, 4, axis=-1)
        g = jnp.tanh(z_g)
        log_f = jax.nn.log_sigmoid(z_f) if self.forget == "sigmoid" else z_f
        z_i, log_f = z_i.astype(m.dtype), log_f.astype(m.dtype)
        kept = jnp.where(n == 0, z_i, m + log_f)
        m = jnp.maximum(kept, z_i)
        i, f = jnp.exp(z_i - m).astype(c.dtype), jnp.exp(kept - m).astype(c.dtype)
        c = f * c + i * g
        n = f * n + i
        h = jax.nn.sigmoid(z_o) * (c / n)
        return SLSTMCarry(h, c, n, m)
