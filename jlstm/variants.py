"""Every LSTM that a paper or a framework names: one gate arithmetic with options.

In the notation of ``cell.py``, with h', c' those of the step before; what is not asked for falls
away, and what is left with no option at all is equations (1) to (6)::

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
times a gain, and N(v) has a shift as well. The hand-derived backward pass is that of the plain
cell, the local Jacobian holding what each option puts into it. Slopes being 0 where something is
clipped::

    ∂v/∂z_i = σ'·g = A_i    ∂v/∂z_f = σ'·c' = A_f    ∂v/∂z_g = d·φ'·i    ∂m/∂z_o = σ'·ψ = A_o
    ∂v/∂c' = f + A_i·p_i + A_f·p_f               ∂m/∂v = o·ψ' + A_o·p_o

with A_i = σ'·(g − c') for coupled gates. Projection and zoneout are linear maps around that, and so
is the derivative of N, which stands between v and o·ψ'. The weights' own gradients are sums over
all steps, found after the walk::

    dp_i = Σ dz_i ⊙ c'    dp_f = Σ dz_f ⊙ c'    dp_o = Σ dz_o ⊙ v    dP = Σ mᵀ·dr

Sources: peepholes, Gers & Schmidhuber 2000, "Recurrent nets that time and count"; coupled gates,
Greff et al. 2017, "LSTM: a search space odyssey"; layer normalisation, Ba et al. 2016, equations
(20) to (22), with one bias b where they write three that are added up; projection and the clipping
of the cell, Sak et al. 2014; clipping of the projection, TensorFlow; of preactivations, ONNX;
zoneout, Krueger et al. 2017; recurrent dropout without memory loss, Semeniuta et al. 2016; one mask
per sequence on the state, which a reset leaves as it is, Gal & Ghahramani 2016.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from jlstm.activations import Activation, sigmoid, tanh
from jlstm.cell import check_init, glorot_per_gate, orthogonal_per_gate
from jlstm.checks import check_flag, check_number, check_size
from jlstm.gates import Flat, State
from jlstm.linear import Into, along, outer, total
from jlstm.types import GATES, Carry, at_least_32_bits, check_array, check_float, exportable


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


Rest = Any
"""``VariantParams``, flat, without w_ih and w_hh. Here and below, fields that may be None are Any:
what an option needs is there where the option is."""


class Noise(NamedTuple):
    """The random masks of one step, ``[batch, ·]``."""

    h: Any
    """1 where zoneout keeps h', else 0."""
    c: Any
    """1 where zoneout keeps c', else 0."""
    g: Any
    """0 where the candidate is dropped, else 1/(1 − rate)."""


class Normed(NamedTuple):
    """A vector taken to mean 0 and variance 1."""

    n: Array
    """(a − mean)·rate."""
    rate: Array
    """1/√(variance + ε), the last axis 1; in at least 32 bits."""

    def linear(self, d: Array) -> Array:
        """The derivative of n with respect to a, applied to d; symmetric, so both ways the same."""
        mean, n = partial(jnp.mean, axis=-1, keepdims=True), self.n.astype(self.rate.dtype)
        wide = d.astype(n.dtype)
        return (self.rate * (wide - mean(wide) - n * mean(n * wide))).astype(d.dtype)


def normalise(a: Array, epsilon: float) -> Normed:
    """Layer normalisation over the last axis (Ba et al. 2016); squares of 16 bits overflow."""
    wide = a.astype(at_least_32_bits(a.dtype))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return Normed((centred * rate).astype(a.dtype), rate)


class Saved(NamedTuple):
    """What the forward pass keeps: all else is elementwise, and found again from it."""

    z: Flat
    h_part: Any
    """h'·U, which layer normalisation has to see again."""


class Values(NamedTuple):
    """Everything that the arithmetic finds on its way."""

    preacts: tuple[State, ...]
    """What the activations are given, before it is clipped: one for each gate."""
    i: State
    f: State
    g: State
    """Before the dropout."""
    u: State
    """The cell before clipping."""
    v: State
    o: State
    n: Any
    """``Normed`` v, or None."""
    y_in: State
    y: State
    m: State


class Local(NamedTuple):
    """The local derivative, in the terms of the module's equations; ∂v/∂z_i is v_zi."""

    v_zi: State
    v_zf: Any
    """None for coupled gates."""
    v_zg: State
    m_zo: State
    m_v: State
    """Without the part that goes through N(v)."""
    v_c: State
    """∂v/∂c'."""
    v: Any
    """The cell, for the peepholes' gradient."""
    m: Any
    """What is projected, for the projection's gradient."""
    open: Any
    """1 where the projection is not clipped, else 0."""
    keep_h: Any
    """ζ_h where it is random."""
    keep_c: Any
    """ζ_c where it is random."""
    norm_h: Any
    """``Normed`` of h'·U."""
    norm_c: Any
    """``Normed`` of v."""
    m_n: Any
    """∂m/∂N(v), that is, o·ψ'."""


class Left(NamedTuple):
    """What the pullback of one step leaves for the gradients of the weights; and their tangents."""

    z: Flat
    r: Any
    """Of the projection's result."""
    n: Any
    """Of the normalised cell."""


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
    def random(self) -> bool:
        """Whether it needs a key."""
        rates = (self.zoneout_h, self.zoneout_c, self.recurrent_dropout, self.state_dropout)
        return any(rates) and not self.deterministic

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

        Args:
            key: a key of ``jax.random``.
            input_size: features of x, at least 1.
            hidden_size: units of c, at least 1.
            output_size: units of h, with a projection from hidden_size to it (orthogonal);
                None for none.
            forget_bias: the forget gate's bias.
            bias: False for none.
            dtype: of all weights.

        Raises:
            TypeError: an argument of another type, or a dtype that is not floating-point.
            ValueError: a size below 1, or a bias that is not finite.
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
        if not isinstance(params, VariantParams):
            raise TypeError(
                f"params: expected VariantParams, as gates is a Variant, got "
                f"{type(params).__name__}"
            )
        n = self.gates
        w_hh = check_array("params.w_hh", params.w_hh, ("output", n, "hidden"))
        dtype = check_float("params.w_hh", w_hh.dtype)
        output, _, hidden = w_hh.shape
        wanted: dict[str, tuple[bool | None, tuple[int | str, ...]]] = {
            "w_ih": (True, ("input", n, hidden)),
            "b": (None, (n, hidden)),
            "peepholes": (self.peepholes, (n - 1, hidden)),
            "w_hr": (None, (hidden, output)),
            "gain_x": (self.layer_norm, (n, hidden)),
            "gain_h": (self.layer_norm, (n, hidden)),
            "gain_c": (self.layer_norm, (hidden,)),
            "shift_c": (self.layer_norm, (hidden,)),
        }
        checked: dict[str, Any] = {"w_hh": w_hh}
        for name, (use, shape) in wanted.items():
            value = getattr(params, name)
            if use is not None and use is not (value is not None):
                said = "an array" if use else "None"
                got = "None" if value is None else "an array"
                raise ValueError(f"params.{name}: expected {said} for these gates, got {got}")
            if value is not None:
                value = check_array(f"params.{name}", value, shape, dtype)
            checked[name] = value
        if params.w_hr is None:
            check_array("params.w_hh", w_hh, (hidden, n, hidden))
            if self.projection_clip is not None:
                raise ValueError(
                    "projection_clip: expected None where there is no projection "
                    f"(params.w_hr is None), got {self.projection_clip}"
                )
        return VariantParams(**checked)

    def flatten(self, params: VariantParams) -> VariantParams:
        """The weights with the gate axis and the axis ``hidden`` as one."""
        fields = ("w_ih", "w_hh", "b", "peepholes", "gain_x", "gain_h")
        present = {f: getattr(params, f) for f in fields if getattr(params, f) is not None}
        return params._replace(**{f: w.reshape(*w.shape[:-2], -1) for f, w in present.items()})

    # Randomness: a sequence's masks come from its own key, a step's also from its number.

    def mask(self, keys: Array, output: int, dtype: Any) -> State | None:
        """What h' is multiplied with before h'·U, one for each sequence."""
        if not self.state_dropout:
            return None
        return dropout_mask(fold_keys(keys, 2**32 - 1), self.state_dropout, output, dtype)

    def noise(self, keys: Array, t: Array, hidden: int, output: int, dtype: Any) -> Noise:
        """The random masks of step t."""
        keys = fold_keys(keys, t)

        def keep(n: int, rate: float, size: int) -> State | None:
            return _kept(fold_keys(keys, n), rate, size).astype(dtype) if rate else None

        rate = self.recurrent_dropout
        return Noise(
            h=keep(0, self.zoneout_h, output),
            c=keep(1, self.zoneout_c, hidden),
            g=dropout_mask(fold_keys(keys, 2), rate, hidden, dtype) if rate else None,
        )

    # Forward

    def inputs(self, rest: Rest, x_part: Flat) -> Flat:
        """What is known of z before h'."""
        z, rest = x_part, _along(rest, x_part)
        if self.layer_norm:
            z = rest.gain_x * normalise(x_part, self.epsilon).n
        if rest.b is not None:
            z = z + rest.b
        if self.forget_offset:
            z_i, z_f, *others = self._split(z)
            z = jnp.concatenate([z_i, z_f + self.forget_offset, *others], axis=-1)
        return z

    def equations(
        self,
        rest: Rest,
        z: Flat,
        h_part: Flat,
        prev: Carry,
        noise: Noise | None,
        into: Into,
    ) -> Carry:
        """(z, h'·U, carry') to the carry: the module's equations, one by one."""
        sigma, phi, psi = self.gate, self.candidate, self.output
        rest = _along(rest, z)

        def peep(n: int, c: State) -> State | float:
            return 0.0 if rest.peepholes is None else self._peepholes(rest)[n] * c

        def norm(a: Array) -> Array:
            wide = a.astype(at_least_32_bits(a.dtype))
            mean, variance = jnp.mean(wide, -1, keepdims=True), jnp.var(wide, -1, keepdims=True)
            return ((wide - mean) / jnp.sqrt(variance + self.epsilon)).astype(a.dtype)

        if self.layer_norm:
            h_part = rest.gain_h * norm(h_part)
        blocks = jnp.split(z + h_part, self.gates, axis=-1)
        z_i, z_g, z_o = blocks[0], blocks[-2], blocks[-1]
        i = sigma(clip(z_i + peep(0, prev.c), self.preact_clip))
        f = 1 - i if self.coupled else sigma(clip(blocks[1] + peep(1, prev.c), self.preact_clip))
        g = phi(clip(z_g, self.preact_clip))
        if noise is not None and noise.g is not None:
            g = g * noise.g
        v = clip(f * prev.c + i * g, self.cell_clip)
        o = sigma(clip(z_o + peep(-1, v), self.preact_clip))
        n = v
        if self.layer_norm:
            n = rest.gain_c * norm(v) + rest.shift_c
        r = o * psi(n)
        if rest.w_hr is not None:
            r = clip(into(r, rest.w_hr), self.projection_clip)
        zeta_h, zeta_c = self._zeta(noise)
        return Carry(_mix(zeta_h, prev.h, r), _mix(zeta_c, prev.c, v))

    def forward(
        self,
        rest: Rest,
        z: Flat,
        h_part: Flat,
        prev: Carry,
        noise: Noise | None,
        into: Into,
    ) -> tuple[Carry, Saved]:
        """``equations``, and what ``jacobian`` needs to know."""
        rest = _along(rest, z)
        z = z + (rest.gain_h * normalise(h_part, self.epsilon).n if self.layer_norm else h_part)
        values = self._values(rest, z, prev, noise)
        r = values.m
        if rest.w_hr is not None:
            r = clip(into(r, rest.w_hr), self.projection_clip)
        zeta_h, zeta_c = self._zeta(noise)
        carry = Carry(_mix(zeta_h, prev.h, r), _mix(zeta_c, prev.c, values.v))
        return carry, Saved(z, h_part if self.layer_norm else None)

    def _values(self, rest: Rest, z: Flat, prev: Carry, noise: Noise | None) -> Values:
        """The elementwise part, from z to m."""
        z_i, *z_f, z_g, z_o = self._split(z)
        c_prev = prev.c
        # As in cell.forward: one wide pass of σ, over all of z unless peepholes come in between.
        if rest.peepholes is None:
            i, *forget, _, o = self._split(self.gate(self._clip(z)))
        else:
            p_i, *p_f, p_o = self._peepholes(rest)
            seen = [a + p * c_prev for a, p in zip((z_i, *z_f), (p_i, *p_f), strict=True)]
            early = jnp.concatenate(seen, axis=-1)
            z_i, *z_f = jnp.split(early, len(seen), axis=-1)
            i, *forget = jnp.split(self.gate(self._clip(early)), len(seen), axis=-1)
        f = 1 - i if self.coupled else forget[0]
        g = self.candidate(self._clip(z_g))
        u = f * c_prev + i * _times(noise.g if noise else None, g)
        v = clip(u, self.cell_clip)
        if rest.peepholes is not None:
            z_o = z_o + p_o * v
            o = self.gate(self._clip(z_o))
        n = normalise(v, self.epsilon) if self.layer_norm else None
        y_in = v if n is None else rest.gain_c * n.n + rest.shift_c
        y = self.output(y_in)
        return Values((z_i, *z_f, z_g, z_o), i, f, g, u, v, o, n, y_in, y, o * y)

    # Its derivative

    def jacobian(
        self,
        rest: Rest,
        saved: Saved,
        before: Carry,
        after: Carry,
        noise: Noise | None,
        into: Into,
    ) -> Local:
        """The local derivative, every value found again from z and the carry before."""
        rest = _along(rest, saved.z)
        value = self._values(rest, saved.z, before, noise)
        a_i, *a_f, a_g, a_o = value.preacts
        c_prev = before.c

        def slope(activation: Activation, a: State, v: State) -> State:
            return _inside(a, self.preact_clip, activation.slope(self._clip(a), v))

        drop = noise.g if noise else None
        candidate = _times(drop, value.g)
        di = slope(self.gate, a_i, value.i)
        v_zi = di * (candidate - c_prev if self.coupled else candidate)
        v_zf = None if self.coupled else slope(self.gate, a_f[0], value.f) * c_prev
        v_zg = _times(drop, slope(self.candidate, a_g, value.g) * value.i)
        v_zi, v_zg, v_c = (_inside(value.u, self.cell_clip, a) for a in (v_zi, v_zg, value.f))
        v_zf = None if v_zf is None else _inside(value.u, self.cell_clip, v_zf)
        m_zo = slope(self.gate, a_o, value.o) * value.y
        m_y = value.o * self.output.slope(value.y_in, value.y)
        m_v = jnp.zeros_like(m_y) if self.layer_norm else m_y
        if rest.peepholes is not None:
            p_i, *p_f, p_o = self._peepholes(rest)
            v_c = v_c + v_zi * p_i
            if v_zf is not None:
                v_c = v_c + v_zf * p_f[0]
            m_v = m_v + m_zo * p_o
        within = None
        if self.projection_clip is not None:
            r = into(value.m, rest.w_hr)
            within = _inside(r, self.projection_clip, jnp.ones_like(r))
        return Local(
            v_zi=v_zi,
            v_zf=v_zf,
            v_zg=v_zg,
            m_zo=m_zo,
            m_v=m_v,
            v_c=v_c,
            v=None if rest.peepholes is None else value.v,
            m=None if rest.w_hr is None else value.m,
            open=within,
            keep_h=noise.h if noise else None,
            keep_c=noise.c if noise else None,
            norm_h=None if saved.h_part is None else normalise(saved.h_part, self.epsilon),
            norm_c=value.n,
            m_n=m_y if self.layer_norm else None,
        )

    def pullback(
        self, rest: Rest, jac: Local, d: Carry, into: Into
    ) -> tuple[Left, Flat, tuple[State | None, State]]:
        """One step of back-propagation through time; ``rest.w_hr`` is Pᵀ here."""
        rest, (zeta_h, zeta_c) = _along(rest, d.c), self._zeta(jac)
        dr = _times(jac.open, _scaled(zeta_h, d.h))
        dm = dr if rest.w_hr is None else into(dr, rest.w_hr)
        dn = None if jac.m_n is None else dm * jac.m_n
        dv = _scaled(zeta_c, d.c) + dm * jac.m_v
        if dn is not None:
            dv = dv + jac.norm_c.linear(rest.gain_c * dn)
        slopes = [jac.v_zi, *([] if jac.v_zf is None else [jac.v_zf]), jac.v_zg]
        dz = jnp.concatenate([*(dv * a for a in slopes), dm * jac.m_zo], axis=-1)
        dc_prev = dv * jac.v_c
        if self.zoneout_c:
            dc_prev = dc_prev + zeta_c * d.c
        dh_prev = zeta_h * d.h if self.zoneout_h else None
        left = Left(dz, None if rest.w_hr is None else dr, dn)
        return left, self._through_norm(rest, jac, dz), (dh_prev, dc_prev)

    def pushforward(
        self, rest: Rest, jac: Local, known: Left, h_part: Flat, d_prev: Carry, into: Into
    ) -> Carry:
        """Tangents of (all that is known beforehand, h'·U, carry') to those of the carry."""
        rest, (zeta_h, zeta_c) = _along(rest, d_prev.c), self._zeta(jac)
        if self.layer_norm:
            h_part = rest.gain_h * jac.norm_h.linear(h_part)
        dz_i, *dz_f, dz_g, dz_o = self._split(known.z + h_part)
        dv = d_prev.c * jac.v_c + dz_i * jac.v_zi + dz_g * jac.v_zg
        if dz_f:
            dv = dv + dz_f[0] * jac.v_zf
        dm = dz_o * jac.m_zo + dv * jac.m_v
        if jac.m_n is not None:
            dm = dm + jac.m_n * (rest.gain_c * jac.norm_c.linear(dv) + known.n)
        dr = dm if rest.w_hr is None else _times(jac.open, into(dm, rest.w_hr) + known.r)
        return Carry(_mix(zeta_h, d_prev.h, dr), _mix(zeta_c, d_prev.c, dv))

    def gradient(
        self,
        rest: Rest,
        jac: Local,
        before: Carry,
        out: Left,
        x_part: Callable[[], Flat],
        into: Into,
    ) -> tuple[Flat, Flat, VariantParams]:
        """What the pullback left, to cotangents of x·W, h'·U and ``rest``: all steps at once."""
        dz, rest = out.z, _along(rest, out.z)
        dx_part, dh_part = dz, self._through_norm(rest, jac, dz)
        d: dict[str, Any] = dict.fromkeys(VariantParams._fields)

        if rest.b is not None:
            d["b"] = total(dz)
        if rest.peepholes is not None:
            dz_i, *dz_f, _, dz_o = self._split(dz)
            seen = [a * before.c for a in (dz_i, *dz_f)]
            d["peepholes"] = total(jnp.concatenate([*seen, dz_o * jac.v], axis=-1))
        if rest.w_hr is not None:
            d["w_hr"] = outer(jac.m, out.r, into)
        if self.layer_norm:
            norm_x = normalise(x_part(), self.epsilon)
            dx_part = norm_x.linear(rest.gain_x * dz)
            d["gain_x"], d["gain_h"] = total(dz * norm_x.n), total(dz * jac.norm_h.n)
            d["gain_c"], d["shift_c"] = total(out.n * jac.norm_c.n), total(out.n)
        return dx_part, dh_part, VariantParams(**d)

    def tangent(
        self,
        rest: Rest,
        d_rest: Rest,
        jac: Local,
        before: Carry,
        x_part: Callable[[], Flat],
        dx_part: Flat,
        dh_part: Flat,
        into: Into,
    ) -> Left:
        """The transpose of ``gradient``; what is None in ``d_rest`` does not move."""
        rest, d_rest = (_along(some, dx_part) for some in (rest, d_rest))
        dn = None
        if self.layer_norm:
            norm_x = normalise(x_part(), self.epsilon)
            dx_part = rest.gain_x * norm_x.linear(dx_part)
            dh_part = rest.gain_h * jac.norm_h.linear(dh_part)
            if d_rest.gain_x is not None:
                dx_part = dx_part + d_rest.gain_x * norm_x.n
            if d_rest.gain_h is not None:
                dh_part = dh_part + d_rest.gain_h * jac.norm_h.n
            dn = jnp.zeros_like(jac.m_n)
            if d_rest.gain_c is not None:
                dn = dn + d_rest.gain_c * jac.norm_c.n
            if d_rest.shift_c is not None:
                dn = dn + d_rest.shift_c
        dz = dx_part + dh_part
        if d_rest.b is not None:
            dz = dz + d_rest.b
        if d_rest.peepholes is not None:
            *early, p_o = self._peepholes(d_rest)
            seen = [p * before.c for p in early]
            dz = dz + jnp.concatenate([*seen, jnp.zeros_like(before.c), p_o * jac.v], axis=-1)
        dr = None
        if rest.w_hr is not None:
            dr = jnp.zeros_like(before.h) if d_rest.w_hr is None else into(jac.m, d_rest.w_hr)
        return Left(dz, dr, dn)

    # Small parts

    def _split(self, z: Flat) -> list[State]:
        return jnp.split(z, self.gates, axis=-1)

    def _peepholes(self, rest: Rest) -> list[State]:
        return jnp.split(rest.peepholes, self.gates - 1, axis=-1)

    def _clip(self, a: State) -> State:
        return clip(a, self.preact_clip)

    def _zeta(self, source: Any) -> tuple[Any, Any]:
        """ζ_h and ζ_c: the masks that were drawn, or the rates, which are their means."""
        if not self.random:
            return self.zoneout_h, self.zoneout_c
        if isinstance(source, Local):
            source = Noise(source.keep_h, source.keep_c, None)
        return (
            source.h if self.zoneout_h else 0.0,
            source.c if self.zoneout_c else 0.0,
        )

    def _through_norm(self, rest: Rest, jac: Local, dz: Flat) -> Flat:
        """The cotangent of h'·U from that of z."""
        return jac.norm_h.linear(rest.gain_h * dz) if self.layer_norm else dz


def _along(rest: Rest, a: Array) -> Rest:
    """The weights, all vectors among them with as many axes as a."""
    return jax.tree.map(lambda w: along(w, a) if w.ndim == 1 else w, rest)


def _mix(zeta: Any, old: State, new: State) -> State:
    """ζ ⊙ old + (1 − ζ) ⊙ new; ``new`` itself where ζ is the number 0."""
    return new if isinstance(zeta, float) and not zeta else zeta * old + (1 - zeta) * new


def _scaled(zeta: Any, d: State) -> State:
    return d if isinstance(zeta, float) and not zeta else (1 - zeta) * d


def _times(mask: Array | None, a: Array) -> Array:
    return a if mask is None else mask * a


def clip(a: Array, limit: float | None) -> Array:
    """Kept within ±limit, if there is one; with slope 1 on the limit, where jnp.clip has ½."""
    if limit is None:
        return a
    over, under = jnp.full_like(a, limit), jnp.full_like(a, -limit)
    return jnp.where(a > limit, over, jnp.where(a < -limit, under, a))


def _inside(a: Array, limit: float | None, value: Array) -> Array:
    """``value`` where a is within ±limit, else 0: the derivative through a clipping."""
    return value if limit is None else jnp.where(jnp.abs(a) <= limit, value, jnp.zeros_like(value))


def fold_keys(keys: PRNGKeyArray, number: Any) -> PRNGKeyArray:
    """Another key for each sequence, ``[*batch]``."""
    return _each(lambda key: jax.random.fold_in(key, number), keys)


def _kept(keys: PRNGKeyArray, rate: float, size: int) -> Array:
    """True with probability ``rate``, ``[*batch, size]``; in float32, whatever is switched on."""
    return _each(partial(jax.random.bernoulli, p=jnp.float32(rate), shape=(size,)), keys)


def _each(draw: Callable[[PRNGKeyArray], Array], keys: PRNGKeyArray) -> Array:
    """``draw`` for the key of each sequence."""
    for _ in range(keys.ndim):
        draw = jax.vmap(draw)
    return draw(keys)


def dropout_mask(keys: PRNGKeyArray, rate: float, size: int, dtype: Any) -> Array:
    """0 with probability ``rate``, else what makes the mean 1; ``[*batch, size]``."""
    dropped = _kept(keys, rate, size)
    return jnp.where(dropped, jnp.zeros((), dtype), jnp.asarray(1 / (1 - rate), dtype))
