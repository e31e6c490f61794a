"""Every LSTM that a paper or a framework names: one cell with options.

In the notation of ``equations.py``, with h', c' those of the step before; what is not asked for
falls away, and what is left with no option at all is equations (1) to (6)::

    z   = N(x·W) + N((s ⊙ h')·U) + b             N: layer normalisation, s: state dropout
    i   = σ(κ(z_i + p_i ⊙ c'))                   p: peepholes, κ: clipping
    f   = σ(κ(z_f + p_f ⊙ c' + offset)), or 1 − i              coupled gates
    g   = d ⊙ φ(κ(z_g))                          d: recurrent dropout
    v   = κ(f ⊙ c' + i ⊙ g)                      κ: cell clipping
    o   = σ(κ(z_o + p_o ⊙ v))
    m   = o ⊙ ψ(N(v))
    r   = κ(m·P), or m                           P: recurrent projection
    c   = ζ_c ⊙ c' + (1 − ζ_c) ⊙ v               ζ: zoneout
    h   = ζ_h ⊙ h' + (1 − ζ_h) ⊙ r

σ, φ and ψ are any activations, the first for the gates. N takes a vector to mean 0 and variance 1,
times a gain, and N(v) has a shift as well. The derivative comes from these equations.

Sources: peepholes, Gers & Schmidhuber 2000, "Recurrent nets that time and count"; coupled gates,
Greff et al. 2017, "LSTM: a search space odyssey"; layer normalisation, Ba et al. 2016, equations
(20) to (22), with one bias b where they write three that are added up; projection and the clipping
of the cell, Sak et al. 2014; clipping of the projection, TensorFlow; of preactivations, ONNX;
zoneout, Krueger et al. 2017; recurrent dropout without memory loss, Semeniuta et al. 2016; one mask
per sequence on the state, which a reset leaves as it is, Gal & Ghahramani 2016.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from jlstm.activations import Activation, sigmoid, tanh
from jlstm.checks import check_flag, check_number, check_size
from jlstm.dropout import bernoulli, dropout_mask, fold_keys
from jlstm.gates import Columns, Extras
from jlstm.initializers import check_init, glorot_per_gate, init_carry, orthogonal_per_gate
from jlstm.linear import along, product
from jlstm.types import GATES, Carry, at_least_32_bits, check_array, check_fields, exportable

State = Float[Array, "*batch hidden"]


@exportable
class VariantParams(NamedTuple):
    """The weights of a variant; None for those that it does not have.

    ``gates`` is 4, in the order of ``GATES``, or 3 where the forget gate is coupled: i, g, o (see
    ``Variant.gate_names``).
    ``output`` is the size of h: ``hidden``, or less with a projection.
    """

    w_ih: Float[Array, "input gates hidden"]
    """W, input to preactivation."""
    w_hh: Float[Array, "output gates hidden"]
    """U, previous output to preactivation."""
    b: Float[Array, "gates hidden"] | None
    """The bias."""
    peepholes: Float[Array, "gates-1 hidden"] | None = None
    """What c adds to the preactivations of i, f and o (i and o)."""
    w_hr: Float[Array, "hidden output"] | None = None
    """P, the recurrent projection."""
    gain_x: Float[Array, "gates hidden"] | None = None
    """What the normalised x·W is multiplied with."""
    gain_h: Float[Array, "gates hidden"] | None = None
    """The same for h'·U."""
    gain_c: Float[Array, " hidden"] | None = None
    """The same for the cell on its way out."""
    shift_c: Float[Array, " hidden"] | None = None
    """What is added to that."""


class Noise(NamedTuple):
    """The random masks of one step, ``[batch, ·]``."""

    h: Any
    """1 where zoneout keeps h', else 0."""
    c: Any
    """1 where zoneout keeps c', else 0."""
    g: Any
    """0 where the candidate is dropped, else 1/(1 − rate)."""


def normalise(a: Float[Array, "*batch n"], epsilon: float) -> Float[Array, "*batch n"]:
    """Layer normalisation over the last axis (Ba et al. 2016): (a − mean)/√(variance + ε).

    In at least 32 bits, as squares of 16 bits overflow.
    """
    wide = a.astype(at_least_32_bits(a.dtype))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return (centred * rate).astype(a.dtype)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A cell: which options of the module's equations hold. A value to hand to ``lstm``.

    Options combine freely, but for those that need another: see ``ValueError`` below.

    Args:
        peepholes: the cell is seen by the gates i and f before, by o after it has changed.
        coupled: f = 1 − i; three gates, a quarter less arithmetic.
        layer_norm: N in the equations, over all gates' preactivations together.
        epsilon: what layer normalisation adds to the variance.
        gate: σ in the equations, of i, f and o.
        candidate: φ.
        output: ψ.
        forget_offset: is added to the preactivation of f, without being trained.
        preact_clip: preactivations are kept within ±preact_clip, as by ONNX's ``clip``.
        cell_clip: the cell is kept within ±cell_clip.
        projection_clip: what the projection gives is kept within ±projection_clip.
        zoneout_h: the part of h that stays as it was at a step; at random while training, and for
            evaluation the mean of both.
        zoneout_c: the same for c.
        recurrent_dropout: the part of the candidate that is dropped, anew at every step.
        state_dropout: the part of h' that is hidden from the gates, one mask for each sequence.
        deterministic: True for evaluation, see ``without_noise``.
        product_dtype: the dtype to which the factors of m·P are rounded; ``lstm`` sets it to its
            ``compute_dtype``.

    Raises:
        TypeError: an option of another type.
        ValueError: a rate outside 0 … 1, a limit that is not positive; forget_offset with coupled,
            which has no forget gate. (With the weights at hand:) projection_clip without a
            projection, weights that are missing or not asked for.
    """

    peepholes: bool = False
    coupled: bool = False
    layer_norm: bool = False
    epsilon: float = 1e-5
    gate: Activation = sigmoid
    candidate: Activation = tanh
    output: Activation = tanh
    forget_offset: float = 0.0
    preact_clip: float | None = None
    cell_clip: float | None = None
    projection_clip: float | None = None
    zoneout_h: float = 0.0
    zoneout_c: float = 0.0
    recurrent_dropout: float = 0.0
    state_dropout: float = 0.0
    deterministic: bool = False
    product_dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        for name in ("peepholes", "coupled", "layer_norm", "deterministic"):
            check_flag(name, getattr(self, name))
        for name in ("gate", "candidate", "output"):
            value = getattr(self, name)
            if not isinstance(value, Activation):
                raise TypeError(
                    f"{name}: expected an Activation of jlstm.activations, where activation(f) "
                    f"makes one of any function; got {type(value).__name__}"
                )
        check_number("forget_offset", self.forget_offset)
        if self.coupled and self.forget_offset:
            raise ValueError(
                "forget_offset: expected 0 where coupled=True, as there is no forget gate, "
                f"got {self.forget_offset}"
            )
        for name in ("epsilon", "preact_clip", "cell_clip", "projection_clip"):
            value = getattr(self, name)
            if value is not None or name == "epsilon":
                check_number(name, value, least=0)
                if not value:
                    raise ValueError(f"{name}: expected a positive number, got {value}")
        for name in ("zoneout_h", "zoneout_c", "recurrent_dropout", "state_dropout"):
            check_number(name, getattr(self, name), least=0, below=1)
        for name, value in vars(self).items():
            if isinstance(value, np.number | int) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))  # a NumPy number has a dtype to mix in

    def without_noise(self) -> "Variant":
        """The same cell for evaluation: nothing dropped, zoneout by its mean."""
        return replace(self, deterministic=True)

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The order of the gate axis: ``GATES``, without f where it is coupled to i."""
        return tuple(name for name in GATES if not (self.coupled and name == "f"))

    @property
    def gates(self) -> int:
        """How many blocks z has: 4, or 3 where f is coupled to i."""
        return len(self.gate_names)

    @property
    def extras(self) -> Extras:
        """What the engine may know besides the equations."""
        noise = any((self.zoneout_h, self.zoneout_c, self.recurrent_dropout))
        random = not self.deterministic
        return Extras(
            summed=not self.layer_norm,
            noise=self._noise if noise and random else None,
            mask=self._mask if self.state_dropout and random else None,
            rounded=lambda dtype: replace(self, product_dtype=dtype),
        )

    # The weights

    def init(
        self,
        key: PRNGKeyArray,
        input_size: int,
        hidden_size: int,
        *,
        output_size: int | None = None,
        forget_bias: float = 1.0,
        bias: bool = True,
        dtype: DTypeLike = jnp.float32,
    ) -> VariantParams:
        """Fresh weights, as ``init_params`` draws them.

        Peepholes start at 0 and gains at 1. Where f = 1 − i, the bias of i starts at −forget_bias.

        Arguments and errors are those of ``init_params``, and ``output_size``: the units of h, with
        a projection to them (orthogonal); None for no projection.
        """
        dtype = check_init(key, input_size, hidden_size, forget_bias, bias, dtype)
        if output_size is not None:
            check_size("output_size", output_size)
        n, hidden = self.gates, hidden_size
        output = hidden if output_size is None else output_size
        key_ih, key_hh, key_hr = jax.random.split(key, 3)
        b = jnp.zeros((n, hidden), dtype)
        b = b.at[0].set(-forget_bias) if self.coupled else b.at[1].set(forget_bias)

        def full(use: bool, value: float, *shape: int) -> Array | None:
            return jnp.full(shape, value, dtype) if use else None

        return VariantParams(
            w_ih=glorot_per_gate(key_ih, n, (input_size, hidden), dtype),
            w_hh=orthogonal_per_gate(key_hh, n, (output, hidden), dtype),
            b=b if bias else None,
            peepholes=full(self.peepholes, 0, n - 1, hidden),
            w_hr=None
            if output_size is None
            else orthogonal_per_gate(key_hr, 1, (hidden, output), dtype)[:, 0],
            gain_x=full(self.layer_norm, 1, n, hidden),
            gain_h=full(self.layer_norm, 1, n, hidden),
            gain_c=full(self.layer_norm, 1, hidden),
            shift_c=full(self.layer_norm, 0, hidden),
        )

    def check(self, params: Any) -> VariantParams:
        """The weights as JAX arrays; raise where they are of another kind or do not fit."""
        n, norm = self.gates, self.layer_norm
        checked = check_fields(
            params,
            VariantParams,
            {
                "w_hh": (True, ("output", n, "hidden")),
                "w_ih": (True, ("input", n, "hidden")),
                "b": (None, (n, "hidden")),
                "peepholes": (self.peepholes, (n - 1, "hidden")),
                "w_hr": (None, ("hidden", "output")),
                "gain_x": (norm, (n, "hidden")),
                "gain_h": (norm, (n, "hidden")),
                "gain_c": (norm, ("hidden",)),
                "shift_c": (norm, ("hidden",)),
            },
        )
        if params.w_hr is None:
            hidden = checked.w_hh.shape[-1]
            check_array("params.w_hh", checked.w_hh, (hidden, n, hidden))
            if self.projection_clip is not None:
                raise ValueError(
                    "projection_clip: expected None where there is no projection "
                    f"(params.w_hr is None), got {self.projection_clip}"
                )
        return checked

    def start(self, params: VariantParams, batch_shape: int | Sequence[int] = ()) -> Carry:
        """The carry before the first step: zeros."""
        output, _, hidden = params.w_hh.shape
        return init_carry(batch_shape, hidden, params.w_hh.dtype, output_size=output)

    # Randomness: a sequence's masks come from its own key, a step's also from its number.

    def _mask(self, keys: PRNGKeyArray, h: Array) -> State:
        """What h' is multiplied with before h'·U, one for each sequence."""
        keys = fold_keys(keys, 2**32 - 1)
        return dropout_mask(keys, self.state_dropout, h.shape[-1], h.dtype)

    def _noise(self, keys: PRNGKeyArray, t: Array, carry: Carry) -> Noise:
        """The random masks of step t."""
        keys, (h, c) = fold_keys(keys, t), carry

        def kept(n: int, rate: float, like: Array) -> Array | None:
            if not rate:
                return None
            return bernoulli(fold_keys(keys, n), rate, like.shape[-1]).astype(like.dtype)

        rate = self.recurrent_dropout
        return Noise(
            h=kept(0, self.zoneout_h, h),
            c=kept(1, self.zoneout_c, c),
            g=dropout_mask(fold_keys(keys, 2), rate, c.shape[-1], c.dtype) if rate else None,
        )

    # The equations

    def step(
        self,
        own: VariantParams,
        x_part: Columns,
        h_part: Columns,
        carry: Carry,
        noise: Noise | None,
    ) -> Carry:
        """The module's equations; σ of several gates at once, which on CPU is faster."""
        (h_prev, c_prev), count = carry, self.gates
        split = partial(jnp.split, axis=-1)
        zeta_h, zeta_c, drop = noise or Noise(self.zoneout_h or None, self.zoneout_c or None, None)

        def sigma(z: Array) -> Array:
            return self.gate(clip(z, self.preact_clip))

        def vector(w: Any) -> Array:
            return along(w.reshape(-1), c_prev)

        if self.layer_norm:
            x_part = vector(own.gain_x) * normalise(x_part, self.epsilon)
            h_part = vector(own.gain_h) * normalise(h_part, self.epsilon)
        z = x_part + h_part
        if own.b is not None:
            z = z + vector(own.b)
        if self.forget_offset:
            offset = np.repeat([0, self.forget_offset, 0, 0], z.shape[-1] // 4)
            z = z + vector(jnp.asarray(offset, z.dtype))

        *early, z_g, z_o = split(z, count)
        if own.peepholes is None:
            i, *f, _, o = split(sigma(z), count)
        else:
            *p_early, p_o = split(vector(own.peepholes), count - 1)
            seen = [a + p * c_prev for a, p in zip(early, p_early, strict=True)]
            i, *f = split(sigma(jnp.concatenate(seen, axis=-1)), count - 2)
        g = self.candidate(clip(z_g, self.preact_clip))
        g = g if drop is None else drop * g
        v = clip((1 - i if self.coupled else f[0]) * c_prev + i * g, self.cell_clip)
        if own.peepholes is not None:
            o = sigma(z_o + p_o * v)

        n = v
        if self.layer_norm:
            n = vector(own.gain_c) * normalise(v, self.epsilon) + vector(own.shift_c)
        r = o * self.output(n)
        if own.w_hr is not None:
            r = clip(product(r, own.w_hr, self.product_dtype), self.projection_clip)
        return Carry(_mix(zeta_h, h_prev, r), _mix(zeta_c, c_prev, v))


def _mix(zeta: Array | float | None, old: Array, new: Array) -> Array:
    """ζ ⊙ old + (1 − ζ) ⊙ new."""
    return new if zeta is None else zeta * old + (1 - zeta) * new


def clip(a: Array, limit: float | None) -> Array:
    """Kept within ±limit, if there is one; with slope 1 on the limit, where jnp.clip has ½."""
    if limit is None:
        return a
    over, under = jnp.full_like(a, limit), jnp.full_like(a, -limit)
    return jnp.where(a > limit, over, jnp.where(a < -limit, under, a))
