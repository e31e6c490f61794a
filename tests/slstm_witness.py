"""The sLSTM as a loop in NumPy, one sequence, step and head at a time, in float64.

The witness that owes nothing to the library: it imports neither jax nor jlstm. Written from the
paper (Beck et al. 2024, "xLSTM", equations 8 to 17) and meant to be read beside it. Twice: as the
paper defines the cell, where exponentials may overflow, and with the stabiliser m.

Shapes. ``w_ih [input, 4, hidden]``, ``w_hh [heads, units, 4, units]`` with hidden = heads · units,
``b [4, hidden]`` or None; the gates are i, f, z, o. A carry is ``(h, c, n, m)``, ``[*batch,
hidden]`` each. Masks are those of ``oracle.py``.
"""

import numpy as np


def sigmoid(z):
    """1 / (1 + exp(−z)), so that exp cannot overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)


def log_sigmoid(z):
    """Log σ(z), so that neither exp nor log can overflow."""
    return np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))


def preactivations(w_ih, w_hh, b, h, x):
    """The arguments of the four gates, ``[4, hidden]``; each head sees its own part of h only."""
    heads, units = w_hh.shape[:2]
    z = np.zeros((4, heads * units))
    for gate in range(4):
        for head in range(heads):
            own = slice(head * units, (head + 1) * units)
            z[gate, own] = x @ w_ih[:, gate, own] + h[own] @ w_hh[head, :, gate]
            if b is not None:
                z[gate, own] += b[gate, own]
    return z


def step(weights, carry, x, forget):
    """(h, c, n, m) after one step of one sequence, with the stabiliser."""
    h, c, n, m = carry
    z_i, z_f, z_z, z_o = preactivations(*weights, h, x)
    z, o = np.tanh(z_z), sigmoid(z_o)
    log_i, log_f = z_i, log_sigmoid(z_f) if forget == "sigmoid" else z_f
    m_new = np.zeros_like(m)
    for k in range(len(m)):
        # Where nothing is remembered, the scale is that of the input gate alone.
        m_new[k] = log_i[k] if n[k] == 0 else max(log_f[k] + m[k], log_i[k])
    i = np.exp(log_i - m_new)
    f = np.exp(np.where(n == 0, 0, log_f + m - m_new))
    c, n = f * c + i * z, f * n + i
    return o * c / n, c, n, m_new


def plain_step(weights, carry, x, forget):
    """The same by the definition, without a stabiliser: (h, c, n, m), with m always 0."""
    h, c, n, m = carry
    z_i, z_f, z_z, z_o = preactivations(*weights, h, x)
    z, o = np.tanh(z_z), sigmoid(z_o)
    i, f = np.exp(z_i), sigmoid(z_f) if forget == "sigmoid" else np.exp(z_f)
    c, n = f * c + i * z, f * n + i
    return o * c / n, c, n, m


def loop(
    weights,
    carry,
    xs,
    *,
    forget="sigmoid",
    lengths=None,
    resets=None,
    reset_to=None,
    reverse=False,
    step=step,
):
    """(carry, hs), sequence by sequence; ``reset_to`` is zeros if None."""
    carry = [np.array(a, np.float64) for a in carry]
    again = [np.zeros_like(a) for a in carry] if reset_to is None else reset_to
    time, batch = xs.shape[0], xs.shape[1:-1]
    hs = np.zeros((time, *carry[0].shape))
    for n in np.ndindex(*batch):
        for t in range(time)[:: -1 if reverse else 1]:
            if lengths is not None and t >= lengths[n]:
                continue
            fresh = resets is not None and resets[(t, *n)]
            start = [a[n] for a in (again if fresh else carry)]
            for old, new in zip(carry, step(weights, start, xs[(t, *n)], forget), strict=True):
                old[n] = new
            hs[(t, *n)] = carry[0][n]
    return tuple(carry), hs
