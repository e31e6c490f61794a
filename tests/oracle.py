"""The LSTM and its gradient as a plain NumPy loop over time, in float64.

The witness that owes nothing to the library: it imports neither jax nor jlstm, it is written from
the equations of the lecture notes (corrected), one line of code per equation, and it is meant to
be read beside them. It is slow and does not care.

Notation. Gates in the order i, f, g, o, where the notes write a for g. z is a preactivation (a hat
in the notes), σ the logistic function, ⊙ the elementwise product. d<name> is the cotangent of
<name>: the notes' ∂E/∂<name>. t counts the rows of xs from 0, whatever the direction.

Shapes. ``w_ih [input, 4, hidden]``, ``w_hh [hidden, 4, hidden]``, ``b [4, hidden]`` or None,
``h0, c0 [*batch, hidden]``, ``xs [time, *batch, input]``, ``lengths [*batch]``,
``resets [time, *batch]``, ``reset_to`` a pair ``(h, c)`` of ``[*batch, hidden]``; batch is any
number of axes, or none.

Masks. A step at t ≥ length is padding: it leaves the carry as it is, puts out zeros, and its row of
xs is never read. A reset at a valid step replaces the carry by ``reset_to`` (zeros if None)
*before* the step, in the order of the scan; a reset at a padded step does nothing. With ``reverse``
the scan runs from length − 1 down to 0, and hs stays aligned with xs.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MISPRINTS = (
    # ∂E/∂â is printed with 1 − tanh(â) where 1 − tanh²(â) belongs.
    "tanh-derivative-without-its-square",
    # ∂E/∂î is printed with â ⊙ (1 − â) where i ⊙ (1 − i) belongs.
    "i-derivative-with-a-preactivation",
    # ∂E/∂f̂ is printed with f̂ ⊙ (1 − f̂) where f ⊙ (1 − f) belongs.
    "f-derivative-with-its-preactivation",
    # ∂E/∂ô is printed with δ ⊙ (1 − δ), the accumulated error of c, where o ⊙ (1 − o) belongs.
    "o-derivative-with-delta",
    # "The backward pass updates W_o, U_o, W_f, U_f, W_i and U_i": W_a and U_a are left out.
    "W_a-and-U_a-not-updated",
    # The preactivations have no bias, so it gets no gradient.
    "no-bias-gradient",
    # Nothing is said of ∂E/∂x, which a layer below would need.
    "no-dx",
    # Nothing is said of ∂E/∂h at t − 1, without which no error flows through U back in time.
    "no-dh-of-the-step-before",
)
"""The errata of the notes' backward pass, each of which ``backward`` can commit on purpose."""


class Step(NamedTuple):
    """What one step of the forward pass leaves for the backward pass, ``[*batch, hidden]`` each."""

    t: int
    x: Array  # [*batch, input], zeros at padding
    h_prev: Array  # after the reset
    c_prev: Array  # after the reset
    z: tuple[Array, Array, Array, Array]  # preactivations, in gate order
    gates: tuple[Array, Array, Array, Array]
    c: Array
    valid: Mask  # [*batch, 1]
    reset: Mask  # [*batch, 1], False at padding


class Forward(NamedTuple):
    """``hs [time, *batch, hidden]``, the carry after the scan, and the steps in scan order."""

    hs: Array
    h: Array
    c: Array
    tape: list[Step]


class Gradients(NamedTuple):
    """The cotangent of every argument of ``forward``, each of its argument's shape."""

    w_ih: Array
    w_hh: Array
    b: Array | None
    h0: Array
    c0: Array
    xs: Array
    reset_h: Array | None
    reset_c: Array | None


def sigmoid(z: Array) -> Array:
    """The logistic function, σ(z) = 1 / (1 + exp(−z)), so that exp cannot overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)


def forward(
    w_ih: npt.ArrayLike,
    w_hh: npt.ArrayLike,
    b: npt.ArrayLike | None,
    h0: npt.ArrayLike,
    c0: npt.ArrayLike,
    xs: npt.ArrayLike,
    *,
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    reset_to: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    reverse: bool = False,
) -> Forward:
    """Run the LSTM over xs: the notes' forward pass, equations 1 to 6.

    Shapes, masks and direction are those of the module's docstring; everything is computed in
    float64.
    """
    w_ih, w_hh, h, c, xs = (np.asarray(a, np.float64) for a in (w_ih, w_hh, h0, c0, xs))
    b = np.zeros(w_hh.shape[1:]) if b is None else np.asarray(b, np.float64)
    time, batch = xs.shape[0], xs.shape[1:-1]
    lengths = np.full(batch, time) if lengths is None else np.asarray(lengths)
    resets = np.zeros((time, *batch), bool) if resets is None else np.asarray(resets, bool)
    reset_h, reset_c = (0.0, 0.0) if reset_to is None else (np.asarray(a) for a in reset_to)

    hs = np.zeros((time, *h.shape))
    tape = []
    for t in reversed(range(time)) if reverse else range(time):
        valid = np.asarray(t < lengths)[..., None]
        reset = np.asarray(resets[t])[..., None] & valid
        x = np.where(valid, xs[t], 0.0)
        h_prev = np.where(reset, reset_h, h)
        c_prev = np.where(reset, reset_c, c)

        # The arguments of the notes' 1, 2, 3 and 5, with the bias that they leave out:
        # z = W·x_t + U·h_{t−1} + b
        z_i, z_f, z_g, z_o = (x @ w_ih[:, k] + h_prev @ w_hh[:, k] + b[k] for k in range(4))
        g = np.tanh(z_g)  # 1: g = tanh(z_g), the notes' a
        i = sigmoid(z_i)  # 2: i = σ(z_i)
        f = sigmoid(z_f)  # 3: f = σ(z_f)
        c_new = g * i + c_prev * f  # 4: c_t = g ⊙ i + c_{t−1} ⊙ f
        o = sigmoid(z_o)  # 5: o = σ(z_o)
        h_new = np.tanh(c_new) * o  # 6: h_t = tanh(c_t) ⊙ o

        tape.append(
            Step(t, x, h_prev, c_prev, (z_i, z_f, z_g, z_o), (i, f, g, o), c_new, valid, reset)
        )
        hs[t] = np.where(valid, h_new, 0.0)
        h = np.where(valid, h_new, h)
        c = np.where(valid, c_new, c)
    return Forward(hs, h, c, tape)


def gate_derivatives(step: Step, dc: Array, misprint: str | None) -> tuple[Array, ...]:
    """The derivative of each gate by its preactivation: σ' = σ(1 − σ), tanh' = 1 − tanh².

    All that is misprinted in the notes' last four derivatives is misprinted here, on request.
    """
    (_, z_f, z_g, _), (i, f, g, o) = step.z, step.gates
    if misprint == "i-derivative-with-a-preactivation":
        i = z_g
    if misprint == "f-derivative-with-its-preactivation":
        f = z_f
    if misprint == "o-derivative-with-delta":
        o = dc
    power = 1 if misprint == "tanh-derivative-without-its-square" else 2
    return i * (1 - i), f * (1 - f), 1 - g**power, o * (1 - o)


def backward(
    w_ih: npt.ArrayLike,
    w_hh: npt.ArrayLike,
    b: npt.ArrayLike | None,
    h0: npt.ArrayLike,
    c0: npt.ArrayLike,
    xs: npt.ArrayLike,
    dhs: npt.ArrayLike,
    dh: npt.ArrayLike,
    dc: npt.ArrayLike,
    *,
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    reset_to: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    reverse: bool = False,
    misprint: str | None = None,
) -> Gradients:
    """Pull the cotangents dhs, dh, dc of ``forward``'s hs, h, c back to its arguments.

    The notes' backward pass, corrected; ``misprint`` puts one of MISPRINTS back in.
    """
    if misprint is not None and misprint not in MISPRINTS:
        raise ValueError(f"misprint must be None or one of {MISPRINTS}, got {misprint!r}")
    masks: dict[str, Any] = {
        "lengths": lengths,
        "resets": resets,
        "reset_to": reset_to,
        "reverse": reverse,
    }
    tape = forward(w_ih, w_hh, b, h0, c0, xs, **masks).tape
    w_ih, w_hh, xs = (np.asarray(a, np.float64) for a in (w_ih, w_hh, xs))
    dhs, dh, dc = (np.asarray(a, np.float64) for a in (dhs, dh, dc))

    dw_ih, dw_hh, db = np.zeros(w_ih.shape), np.zeros(w_hh.shape), np.zeros(w_hh.shape[1:])
    dxs = np.zeros(xs.shape)
    dreset_h, dreset_c = np.zeros(dh.shape), np.zeros(dc.shape)
    for step in reversed(tape):
        (i, f, g, o), t, valid, reset = step.gates, step.t, step.valid, step.reset

        dh_t = dh + dhs[t]  # ∂E/∂h_t: from the step after, and from the cost layer
        do = dh_t * np.tanh(step.c)  # ∂E/∂o = ∂E/∂h_t ⊙ tanh(c_t)
        dc_t = dc + dh_t * o * (1 - np.tanh(step.c) ** 2)  # δc_t += ∂E/∂h_t ⊙ o ⊙ (1 − tanh²(c_t))
        di = dc_t * g  # ∂E/∂i = δc_t ⊙ g
        dg = dc_t * i  # ∂E/∂g = δc_t ⊙ i
        df = dc_t * step.c_prev  # ∂E/∂f = δc_t ⊙ c_{t−1}
        dc_prev = dc_t * f  # ∂E/∂c_{t−1} = δc_t ⊙ f

        di_dz, df_dz, dg_dz, do_dz = gate_derivatives(step, dc_t, misprint)
        dz_i = di * di_dz  # ∂E/∂z_i = ∂E/∂i ⊙ i ⊙ (1 − i)
        dz_f = df * df_dz  # ∂E/∂z_f = ∂E/∂f ⊙ f ⊙ (1 − f)
        dz_g = dg * dg_dz  # ∂E/∂z_g = ∂E/∂g ⊙ (1 − g²)
        dz_o = do * do_dz  # ∂E/∂z_o = ∂E/∂o ⊙ o ⊙ (1 − o)

        dz = [np.where(valid, dz_k, 0.0) for dz_k in (dz_i, dz_f, dz_g, dz_o)]
        for k in range(4):
            dw_ih[:, k] += sum_of_outer_products(step.x, dz[k])  # ∂E/∂W = Σ_t x_tᵀ·∂E/∂z
            dw_hh[:, k] += sum_of_outer_products(step.h_prev, dz[k])  # ∂E/∂U = Σ_t h_{t−1}ᵀ·∂E/∂z
            db[k] += dz[k].sum(axis=tuple(range(dz[k].ndim - 1)))  # ∂E/∂b = Σ_t ∂E/∂z
            dxs[t] += dz[k] @ w_ih[:, k].T  # ∂E/∂x_t = ∂E/∂z·Wᵀ
        dh_prev = sum(dz[k] @ w_hh[:, k].T for k in range(4))  # ∂E/∂h_{t−1} = ∂E/∂z·Uᵀ
        if misprint == "no-dh-of-the-step-before":
            dh_prev = np.zeros(dh.shape)

        # A reset step read reset_to in place of the carry; a padded step passed the carry on.
        dreset_h += np.where(reset, dh_prev, 0.0)
        dreset_c += np.where(reset, dc_prev, 0.0)
        dh = np.where(valid, np.where(reset, 0.0, dh_prev), dh)
        dc = np.where(valid, np.where(reset, 0.0, dc_prev), dc)

    if misprint == "W_a-and-U_a-not-updated":
        dw_ih[:, 2], dw_hh[:, 2] = 0.0, 0.0
    if misprint == "no-bias-gradient":
        db[:] = 0.0
    if misprint == "no-dx":
        dxs[:] = 0.0
    return Gradients(
        w_ih=dw_ih,
        w_hh=dw_hh,
        b=None if b is None else db,
        h0=dh,
        c0=dc,
        xs=dxs,
        reset_h=None if reset_to is None else dreset_h,
        reset_c=None if reset_to is None else dreset_c,
    )


def sum_of_outer_products(a: Array, b: Array) -> Array:
    """Σ over the batch of aᵀ·b: ``[*batch, m], [*batch, n] -> [m, n]``."""
    batch_axes = range(a.ndim - 1)
    return np.tensordot(a, b, axes=(batch_axes, batch_axes))
