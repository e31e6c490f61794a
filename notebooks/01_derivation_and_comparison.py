# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The LSTM: its derivative by hand, and what that is good for
#
# This lecture starts from one page of lecture notes on the LSTM: six equations forward, a dozen
# backward. It goes through them in order. Each equation comes with the line of code that it is, and
# with a check of that very quantity against a derivative found some other way. On the way the
# page's misprints come to light. Then it turns the page into a fast rule, and holds that rule
# against autodiff.
#
# 1. What an LSTM is
# 2. Forward
# 3. Back-propagation through time
# 4. The misprints of the page
# 5. From the page to a fast rule
# 6. The rules side by side
# 7. Exercises

# %%
import io
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image, Markdown, display
from jax import lax
from matplotlib.ticker import LogLocator

import jlstm
from jlstm import GATES, Carry, LSTMParams
from jlstm.equations import Activated, forward, jacobian, pullback
from jlstm.plots import BLUE, GREY, RED, new_figure, plot_comparison

# Derivatives are compared at the level of rounding: that takes float64, and products that an
# accelerator does not round to fewer digits.
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

# %% [markdown]
# Two numbers are "the same" if they differ by no more than the order of summation can explain. The
# sums below have tens of terms, and a float64 is rounded at 1e-16.

# %%
ROUNDING = 1e-12


def relative_error(actual, expected):
    """The largest |actual - expected| over the largest |expected|, of arrays or trees of them."""
    actual, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (actual, expected)
    )
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


# %% [markdown]
# ## 1. What an LSTM is
#
# A recurrent network reads a sequence $x_1, \dots, x_T$ and keeps a state. A plain one replaces the
# whole state at every step, and whatever it should remember for a hundred steps has to survive a
# hundred matrix products. The long short-term memory has a second state, the *memory cell* $c$,
# that is changed by elementwise products and sums only. Four *gates*, each a small neural layer
# that looks at the input and at the last output, decide what enters the cell, what stays, and what
# is shown.
#
# | | the notes | here | shape |
# |---|---|---|---|
# | input | $x^t$ | `x`, row $t$ of `xs` | `[batch, input]` |
# | output | $h^t$ | `h` | `[batch, hidden]` |
# | memory cell | $c^t$ | `c` | `[batch, hidden]` |
# | the step before | $h^{t-1}, c^{t-1}$ | `h_prev`, `c_prev` | `[batch, hidden]` |
# | input gate, forget gate, output gate | $i, f, o$ | `i`, `f`, `o` | `[batch, hidden]` |
# | what may enter the cell | $a$ | `g`, the *candidate* | `[batch, hidden]` |
# | preactivations | $\hat\imath, \hat f, \hat a, \hat o$ | `z_i`, `z_f`, `z_g`, `z_o` | same |
# | input weights | $W_i, W_f, W_a, W_o$ | `w_ih[:, k]` | `[input, 4, hidden]` |
# | recurrent weights | $U_i, U_f, U_a, U_o$ | `w_hh[:, k]` | `[hidden, 4, hidden]` |
# | bias | (left out) | `b[k]` | `[4, hidden]` |
# | error | $E$ | `E` | scalar |
# | derivative | $\partial E/\partial i$ | `di`, and so on | that of `i` |
# | accumulated derivative of $c$ | $\delta c$ | `dc` | `[batch, hidden]` |
#
# The gate axis has the order `i, f, g, o`. The notes write vectors as columns, $W x$; in code each
# row of an array is one sequence of the batch, so the same product is `x @ w`. σ is the logistic
# function and ⊙ the elementwise product.
#
# The example that everything is tried on: all its sizes differ, so that no axis can be mistaken for
# another, and nothing in it is 0 or 1.

# %%
T, B, D, H = 5, 3, 4, 6  # time, batch, input, hidden

numbers = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(numbers.standard_normal(shape))


def normal_like(tree):
    return jax.tree.map(lambda leaf: normal(*leaf.shape), tree)


params = LSTMParams(w_ih=normal(D, 4, H) / 2, w_hh=normal(H, 4, H) / 2, b=normal(4, H) / 2)
start = Carry(h=normal(B, H), c=normal(B, H))
xs = normal(T, B, D)

# %% [markdown]
# ## 2. Forward
#
# First the four preactivations, a linear map of what the cell sees. All the weights are in it, and
# nearly all of the arithmetic:
#
# $$\hat k = W_k\, x^t + U_k\, h^{t-1} + b_k \qquad k \in \{i, f, a, o\}$$

# %%
x, (h_prev, c_prev) = xs[0], start
z_i, z_f, z_g, z_o = (
    x @ params.w_ih[:, k] + h_prev @ params.w_hh[:, k] + params.b[k] for k in range(4)
)
assert z_i.shape == (B, H)

# %% [markdown]
# **(1)** The candidate, what may enter the cell:
#
# $$a^t = \tanh(\hat a^t) \tag{1}$$

# %%
g = jnp.tanh(z_g)  # (1)
assert relative_error(g, np.sinh(z_g) / np.cosh(z_g)) < ROUNDING

# %% [markdown]
# **(2)** The input gate, how much of it does enter, between 0 and 1:
#
# $$i^t = \sigma(\hat\imath^t) = \frac{1}{1 + e^{-\hat\imath^t}} \tag{2}$$

# %%
i = jax.nn.sigmoid(z_i)  # (2)
assert relative_error(i, 1 / (1 + np.exp(-z_i))) < ROUNDING

# %% [markdown]
# **(3)** The forget gate, how much of the old cell stays:
#
# $$f^t = \sigma(\hat f^t) \tag{3}$$

# %%
f = jax.nn.sigmoid(z_f)  # (3)
assert relative_error(f, 1 / (1 + np.exp(-z_f))) < ROUNDING

# %% [markdown]
# **(4)** The memory cell. No matrix and no squashing stands between $c^{t-1}$ and $c^t$: with $f$
# near 1 the cell keeps what it has, and the derivative keeps what it has on the way back.
#
# $$c^t = a^t \odot i^t + c^{t-1} \odot f^t \tag{4}$$

# %%
c = g * i + c_prev * f  # (4)
assert relative_error(c, jlstm.cell(params, start, x)[0].c) < ROUNDING

# %% [markdown]
# **(5)** The output gate, how much of the cell is shown:
#
# $$o^t = \sigma(\hat o^t) \tag{5}$$

# %%
o = jax.nn.sigmoid(z_o)  # (5)
assert relative_error(o, 1 / (1 + np.exp(-z_o))) < ROUNDING

# %% [markdown]
# **(6)** The output:
#
# $$h^t = \tanh(c^t) \odot o^t \tag{6}$$

# %%
h = jnp.tanh(c) * o  # (6)
carry, output = jlstm.cell(params, start, x)
assert relative_error(h, output) < ROUNDING
assert relative_error(Carry(h, c), carry) < ROUNDING

# %% [markdown]
# ### A forward pass with handles on it
#
# Soon we want to compare, say, our $\partial E/\partial f^t$ with that of autodiff. But autodiff
# differentiates by the *arguments* of a function, and $f^t$ is computed deep inside. The trick: add
# to each inner quantity a **nudge** that is zero, and differentiate by the nudge.
#
# `step` is equations (1) to (6) with a nudge on everything, `h_prev` and `c_prev` included: there
# the nudge sits on the wire that leads from one step into the next. `unroll` takes it over all time
# steps and returns everything that was computed, which the backward pass is going to need: the
# *tape*.


# %%
def step(params, carry, x, nudge):
    """One step: the new carry, and every quantity by its name."""
    x = x + nudge["x"]
    h_prev = carry.h + nudge["h_prev"]
    c_prev = carry.c + nudge["c_prev"]
    z_i, z_f, z_g, z_o = (
        x @ params.w_ih[:, k] + h_prev @ params.w_hh[:, k] + params.b[k] + nudge[f"z_{name}"]
        for k, name in enumerate(GATES)
    )
    g = jnp.tanh(z_g) + nudge["g"]  # (1)
    i = jax.nn.sigmoid(z_i) + nudge["i"]  # (2)
    f = jax.nn.sigmoid(z_f) + nudge["f"]  # (3)
    c = g * i + c_prev * f + nudge["c"]  # (4)
    o = jax.nn.sigmoid(z_o) + nudge["o"]  # (5)
    h = jnp.tanh(c) * o + nudge["h"]  # (6)
    computed = {"x": x, "h_prev": h_prev, "c_prev": c_prev, "c": c, "h": h}
    computed |= {"i": i, "f": f, "g": g, "o": o}
    computed |= {"z_i": z_i, "z_f": z_f, "z_g": z_g, "z_o": z_o}
    return Carry(h, c), computed


@jax.jit
def unroll(params, start, xs, nudges):
    """The forward pass over all steps: every quantity at every step, by name."""
    _, tape = lax.scan(lambda carry, now: step(params, carry, *now), start, (xs, nudges))
    return tape


names = ["h_prev", "c_prev", "c", "h", *GATES, *(f"z_{name}" for name in GATES)]
nudges = {"x": jnp.zeros((T, B, D))} | {name: jnp.zeros((T, B, H)) for name in names}

tape = unroll(params, start, xs, nudges)

# The library's function for whole sequences, and a scan of its cell, say the same.
final, hs = jlstm.lstm(params, start, xs)
_, hs_scan = lax.scan(lambda carry, x: jlstm.cell(params, carry, x), start, xs)
assert relative_error(hs, tape["h"]) < ROUNDING
assert relative_error(hs_scan, tape["h"]) < ROUNDING
assert relative_error(final, Carry(tape["h"][-1], tape["c"][-1])) < ROUNDING

# %% [markdown]
# ## 3. Back-propagation through time
#
# ### The error
#
# Something judges the outputs: the error $E$ is a number that depends on all $h^t$ and, should
# another sequence start where this one ends, on the last $c^T$ too. Back-propagation never looks
# inside. All that it is told are the derivatives $\partial E/\partial h^t$ "from the cost layer",
# so we may as well draw them at random. The error that has just these derivatives is
#
# $$E = \sum_t \langle r^t, h^t \rangle + \langle s, c^T \rangle$$

# %%
dhs = normal(T, B, H)  # r: what the cost layer says of each h
dc_last = normal(B, H)  # s: and of the last c


@jax.jit
def E(params, start, xs, nudges):
    tape = unroll(params, start, xs, nudges)
    return jnp.sum(dhs * tape["h"]) + jnp.sum(dc_last * tape["c"][-1])


arguments = params, start, xs, nudges
gradients = jax.jit(jax.grad(E, argnums=(0, 1, 2, 3)))(*arguments)
true_dparams, true_dstart, true_dxs, true = gradients

# %% [markdown]
# `true["f"][t]` is now $\partial E/\partial f^t$ as autodiff finds it, for every inner quantity and
# every step. Is autodiff itself right? Finite differences owe nothing to it. Along any direction
# $v$,
#
# $$\frac{E(p + \varepsilon v) - E(p - \varepsilon v)}{2 \varepsilon} = \langle \nabla E, v \rangle
# + O(\varepsilon^2)$$
#
# and with $\varepsilon = 10^{-5}$ some nine or ten digits can be expected: above that the curvature
# shows, below it the cancellation.


# %%
def move(step, direction):
    return jax.tree.map(lambda p, v: np.asarray(p) + step * np.asarray(v), arguments, direction)


def inner(a, b):
    """The inner product of two trees of arrays."""
    return sum(np.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


v = normal_like(arguments)
slope = (E(*move(1e-5, v)) - E(*move(-1e-5, v))) / 2e-5
assert abs(slope / inner(gradients, v) - 1) < 1e-7

# %% [markdown]
# ### One step
#
# Back-propagation goes from $t = T$ to $1$. Say it has come down to step $t$, somewhere in the
# middle. By then two things are known, which for the moment we let autodiff hand us. Once the step
# is complete it will feed itself.
#
# - $\partial E/\partial h^t$, all of it: what the cost layer says of $h^t$, plus what came back
#   through the next step's preactivations.
# - what came back for $c^t$ from step $t + 1$.

# %%
t = 2

dh = true["h"][t]
dc_back = true["c_prev"][t + 1]

assert relative_error(dh, dhs[t] + true["h_prev"][t + 1]) < ROUNDING

x, h_prev, c_prev = tape["x"][t], tape["h_prev"][t], tape["c_prev"][t]
i, f, g, o, c = (tape[name][t] for name in ("i", "f", "g", "o", "c"))

# %% [markdown]
# **The output gate.** In $h = \tanh(c) \odot o$ each unit of $h$ is $o$ times a number that does
# not depend on $o$. The derivative of the product by $o$ is the other factor:
#
# $$\frac{\partial E}{\partial o^t} = \frac{\partial E}{\partial h^t} \odot \tanh(c^t)$$

# %%
do = dh * jnp.tanh(c)
assert relative_error(do, true["o"][t]) < ROUNDING

# %% [markdown]
# **The memory cell, through the output.** Now $o$ is the constant factor and $\tanh(c)$ moves. With
# $\tanh' = 1 - \tanh^2$ (from $\tanh = \sinh/\cosh$ and $\cosh^2 - \sinh^2 = 1$):
#
# $$\frac{\partial E}{\partial h^t} \frac{\partial h^t}{\partial c^t}
# = \frac{\partial E}{\partial h^t} \odot o^t \odot [1 - \tanh^2(c^t)]$$

# %%
dc_through_h = dh * o * (1 - jnp.tanh(c) ** 2)

_, pull_back = jax.vjp(lambda c: jnp.tanh(c) * o, c)
assert relative_error(dc_through_h, pull_back(dh)[0]) < ROUNDING

# %% [markdown]
# **The memory cell, all of it.** The output is not the only reader of $c^t$. The next step reads it
# too, as its $c^{t-1}$: that is the implicit dataflow from unit to unit, which no arrow labelled
# $h$ shows. Where a value is read in two places, the chain rule adds up what the two send back.
# Hence the notes' $\delta c^t$: it holds what came back from $t + 1$ already, and now this step's
# share is added.
#
# $$\delta c^t \mathrel{+}= \frac{\partial E}{\partial h^t} \odot o^t \odot [1 - \tanh^2(c^t)]$$

# %%
dc = dc_back + dc_through_h
assert relative_error(dc, true["c"][t]) < ROUNDING

# Either share alone is not the derivative.
assert relative_error(dc_through_h, true["c"][t]) > 0.01
assert relative_error(dc_back, true["c"][t]) > 0.01

# %% [markdown]
# **Everything that went into the cell.** $c^t = a^t \odot i^t + c^{t-1} \odot f^t$ is a sum of two
# products, so each factor's derivative is $\delta c^t$ times the other factor:
#
# $$\frac{\partial E}{\partial i^t} = \delta c^t \odot a^t$$

# %%
di = dc * g
assert relative_error(di, true["i"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial a^t} = \delta c^t \odot i^t$$

# %%
dg = dc * i
assert relative_error(dg, true["g"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial f^t} = \delta c^t \odot c^{t-1}$$

# %%
df = dc * c_prev
assert relative_error(df, true["f"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial c^{t-1}} = \delta c^t \odot f^t$$
#
# This one goes back in time. It is the initial value of $\delta c^{t-1}$, to which step $t - 1$
# will add its own share, just as we did above.

# %%
dc_prev = dc * f
assert relative_error(dc_prev, true["c_prev"][t]) < ROUNDING

# %% [markdown]
# **Through the activations.** Each gate is a function of its own preactivation alone, unit by unit,
# so the chain rule multiplies by a slope. It is a fortunate property of these two functions that
# the slope can be told from the value:
#
# $$\tanh' = 1 - \tanh^2 \qquad \sigma' = \frac{e^{-z}}{(1 + e^{-z})^2} = \sigma\,(1 - \sigma)$$
#
# so the preactivations need not be kept for the backward pass.

# %%
z = jnp.linspace(-6, 6, 121)
tanh, sigma = jnp.tanh(z), jax.nn.sigmoid(z)
slope_of_tanh = jax.vmap(jax.grad(jnp.tanh))(z)
slope_of_sigma = jax.vmap(jax.grad(jax.nn.sigmoid))(z)
assert relative_error(slope_of_tanh, 1 - tanh**2) < ROUNDING
assert relative_error(slope_of_sigma, sigma * (1 - sigma)) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial \hat a^t} = \frac{\partial E}{\partial a^t} \odot [1 - (a^t)^2]$$

# %%
dz_g = dg * (1 - g**2)
assert relative_error(dz_g, true["z_g"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial \hat\imath^t}
# = \frac{\partial E}{\partial i^t} \odot i^t \odot (1 - i^t)$$

# %%
dz_i = di * i * (1 - i)
assert relative_error(dz_i, true["z_i"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial \hat f^t}
# = \frac{\partial E}{\partial f^t} \odot f^t \odot (1 - f^t)$$

# %%
dz_f = df * f * (1 - f)
assert relative_error(dz_f, true["z_f"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial \hat o^t}
# = \frac{\partial E}{\partial o^t} \odot o^t \odot (1 - o^t)$$

# %%
dz_o = do * o * (1 - o)
assert relative_error(dz_o, true["z_o"][t]) < ROUNDING

# %% [markdown]
# **Through the linear map.** Here the notes stop short. They find the weights' derivative and leave
# out two others, without which nothing flows from step to step through $h$, or down to a layer
# below. In $\hat k = W_k x + U_k h^{t-1} + b_k$ every unit of $x$ reaches every unit of all four
# preactivations; adding up all these paths is a product with the transposed matrix:
#
# $$\frac{\partial E}{\partial x^t} = \sum_k W_k^\top \frac{\partial E}{\partial \hat k^t}$$

# %%
dz = jnp.stack([dz_i, dz_f, dz_g, dz_o], axis=1)  # [batch, 4, hidden], gates in the usual order

dx = jnp.einsum("bkh,dkh->bd", dz, params.w_ih)
assert relative_error(dx, true["x"][t]) < ROUNDING

# %% [markdown]
# $$\frac{\partial E}{\partial h^{t-1}} = \sum_k U_k^\top \frac{\partial E}{\partial \hat k^t}$$
#
# This is what "came back through the next step's preactivations"; with it, and with
# $\partial E/\partial c^{t-1}$, step $t - 1$ has all that it needs.

# %%
dh_prev = jnp.einsum("bkh,jkh->bj", dz, params.w_hh)
assert relative_error(dh_prev, true["h_prev"][t]) < ROUNDING

# %% [markdown]
# **The weights, this step's share.** The weight from unit $m$ of $x$ to unit $n$ of $\hat k$
# multiplies $x_m$, so its derivative is $x_m\, \partial E/\partial \hat k_n$. All pairs $(m, n)$
# together are an *outer product*, and the sequences of the batch add up. The notes say the same in
# one line: with $I^t = (x^t, h^{t-1})$ and $\Theta = (W, U)$,
#
# $$\delta\Theta^t = \frac{\partial E}{\partial \hat I^t}\, (I^t)^\top$$
#
# The bias is the weight of an input that is always 1.

# %%
dw_ih_t = jnp.einsum("bd,bkh->dkh", x, dz)
dw_hh_t = jnp.einsum("bj,bkh->jkh", h_prev, dz)
db_t = jnp.sum(dz, axis=0)


def linear_map(params):
    return (
        jnp.einsum("bd,dkh->bkh", x, params.w_ih)
        + jnp.einsum("bj,jkh->bkh", h_prev, params.w_hh)
        + params.b
    )


_, pull_back = jax.vjp(linear_map, params)
assert relative_error(LSTMParams(dw_ih_t, dw_hh_t, db_t), pull_back(dz)[0]) < ROUNDING

# %% [markdown]
# **The weights, all of it.** The same weights are read at every step: once more the chain rule adds
# up,
#
# $$\frac{\partial E}{\partial \Theta} = \sum_{t=1}^T \delta\Theta^t$$
#
# and here is the observation on which section 5 rests. A sum over time and batch of outer products
# *is* a product of two matrices, $[\,\text{input} \times (\text{time} \cdot \text{batch})]$ by
# $[(\text{time} \cdot \text{batch}) \times 4\,\text{hidden}]$. Given the `dz` of all steps, nothing
# has to be added up step by step.

# %%
dzs = jnp.stack([true[f"z_{name}"] for name in GATES], axis=2)  # [time, batch, 4, hidden]


def rows(a, width):
    return a.reshape(T * B, width)


dw_ih = rows(tape["x"], D).T @ rows(dzs, 4 * H)
dw_hh = rows(tape["h_prev"], H).T @ rows(dzs, 4 * H)
db = rows(dzs, 4 * H).sum(axis=0)

assert relative_error(dw_ih.reshape(D, 4, H), true_dparams.w_ih) < ROUNDING
assert relative_error(dw_hh.reshape(H, 4, H), true_dparams.w_hh) < ROUNDING
assert relative_error(db.reshape(4, H), true_dparams.b) < ROUNDING

# %% [markdown]
# ### The whole pass
#
# Now the step feeds itself. The lines that differ on the printed page are kept apart in a
# dictionary, so that the next section can put the printed ones in their place.

# %%
LINES = {
    "slope_i": lambda s, dc: s["i"] * (1 - s["i"]),
    "slope_f": lambda s, dc: s["f"] * (1 - s["f"]),
    "slope_g": lambda s, dc: 1 - s["g"] ** 2,
    "slope_o": lambda s, dc: s["o"] * (1 - s["o"]),
    "dc_prev": lambda s, dc: dc * s["f"],
    "dh_prev": lambda dz: jnp.einsum("bkh,jkh->bj", dz, params.w_hh),
}


def backward(tape, dhs, dc, lines=LINES):
    """Derivatives of E by the parameters, the initial carry and xs."""
    dh = jnp.zeros((B, H))  # beyond the last step there is nothing that could come back
    dzs = []
    for t in reversed(range(T)):
        s = {name: values[t] for name, values in tape.items()}
        dh = dh + dhs[t]
        do = dh * jnp.tanh(s["c"])
        dc = dc + dh * s["o"] * (1 - jnp.tanh(s["c"]) ** 2)
        di, dg, df = dc * s["g"], dc * s["i"], dc * s["c_prev"]
        dz_i = di * lines["slope_i"](s, dc)
        dz_f = df * lines["slope_f"](s, dc)
        dz_g = dg * lines["slope_g"](s, dc)
        dz_o = do * lines["slope_o"](s, dc)
        dz = jnp.stack([dz_i, dz_f, dz_g, dz_o], axis=1)
        dzs.insert(0, dz)
        dc = lines["dc_prev"](s, dc)
        dh = lines["dh_prev"](dz)
    dzs = jnp.stack(dzs)
    dparams = LSTMParams(
        w_ih=jnp.einsum("tbd,tbkh->dkh", tape["x"], dzs),
        w_hh=jnp.einsum("tbj,tbkh->jkh", tape["h_prev"], dzs),
        b=jnp.sum(dzs, axis=(0, 1)),
    )
    return dparams, Carry(dh, dc), jnp.einsum("tbkh,dkh->tbd", dzs, params.w_ih)


by_hand = backward(tape, dhs, dc_last)
by_autodiff = true_dparams, true_dstart, true_dxs
assert relative_error(by_hand, by_autodiff) < ROUNDING

# The third witness, which knows of no derivative rule at all: finite differences.
only_arguments = (*v[:3], nudges)
slope = (E(*move(1e-5, only_arguments)) - E(*move(-1e-5, only_arguments))) / 2e-5
assert abs(slope / inner(by_hand, only_arguments[:3]) - 1) < 1e-7

# %% [markdown]
# ## 4. The misprints of the page
#
# A network may well learn something with a wrong derivative, only less, and nobody sees why. So it
# is worth knowing what each misprint does. The last column is measured now: the printed line is put
# into the pass above, and the error is that of the derivative by the parameters, relative to
# autodiff's (the largest difference over the largest value).

# %%
MISPRINTS = (
    # where, as printed, as it should be, the lines to put in
    (
        r"$\partial E/\partial\hat a$",
        r"$1 - \tanh(\hat a)$",
        r"$1 - \tanh^2(\hat a) = 1 - a^2$",
        {"slope_g": lambda s, dc: 1 - jnp.tanh(s["z_g"])},
    ),
    (
        r"$\partial E/\partial\hat\imath$",
        r"$\hat a \odot (1 - \hat a)$: a preactivation, and of another gate",
        r"$i \odot (1 - i)$",
        {"slope_i": lambda s, dc: s["z_g"] * (1 - s["z_g"])},
    ),
    (
        r"$\partial E/\partial\hat f$",
        r"$\hat f \odot (1 - \hat f)$: a preactivation",
        r"$f \odot (1 - f)$",
        {"slope_f": lambda s, dc: s["z_f"] * (1 - s["z_f"])},
    ),
    (
        r"$\partial E/\partial\hat o$",
        r"$\delta \odot (1 - \delta)$, taken for $\delta c$ (an $\hat o$ would be no better)",
        r"$o \odot (1 - o)$",
        {"slope_o": lambda s, dc: dc * (1 - dc)},
    ),
    (
        "the implicit dataflow",
        r"$c^{t+1} = c^t$, taken at its word: $\partial E/\partial c^{t-1} = \delta c^t$",
        r"$\partial E/\partial c^{t-1} = \delta c^t \odot f^t$, as the page says further down",
        {"dc_prev": lambda s, dc: dc},
    ),
    (
        r"$\partial E/\partial h^{t-1}$",
        "missing",
        r"$\sum_k U_k^\top\, \partial E/\partial\hat k$",
        {"dh_prev": lambda dz: jnp.zeros((B, H))},
    ),
)

table = ["| where | printed | correct | relative error |", "|---|---|---|---|"]
for where, printed, correct, lines in MISPRINTS:
    misprinted, _, _ = backward(tape, dhs, dc_last, LINES | lines)
    error = relative_error(misprinted, true_dparams)
    assert error > 0.01, f"{where}: the misprint does no harm"
    table.append(f"| {where} | {printed} | {correct} | {error:.2f} |")
display(Markdown("\n".join(table)))

# %% [markdown]
# Some things cannot be measured by putting them in.
#
# | where | printed | correct |
# |---|---|---|
# | what the pass updates | $W_o, U_o, W_f, U_f, W_i, U_i$ | $W_a, U_a$ too |
# | preactivations | no bias | $b_k$, its derivative $\sum_t \partial E/\partial\hat k^t$ |
# | $\partial E/\partial x^t$ | missing | needed by any layer below |
# | $\delta\Theta^t$ | $[\dots] \times I^t$, row by column | outer product: $I^t$ transposed |
# | $\hat I^t$ | its last entry is $\delta^t$ | $\hat o^t$ |
# | the argument of (2) | $\hat\imath_t$ | $\hat\imath^t$ |
# | who sends gradients into $\delta c^t$ | "$h^T$" | $h^t$, and $c^{t+1}$ |
# | the non-linearity | tanh "doesn't have this problem" | it saturates too, see below |
#
# The first three are not small. A weight whose derivative is left out is never trained: its
# derivative is not off by some per cent, it is missing.

# %%
forgotten = [np.abs(by_hand[0].w_ih[:, 2]), np.abs(by_hand[0].b), np.abs(by_hand[2])]
assert all(np.max(part) > 0.01 for part in forgotten), "nothing would be lost by forgetting them"

printed_row, printed_column = np.ones((1, 4 * H)), np.ones((D + H, 1))
try:
    printed_row @ printed_column
except ValueError:
    outer = printed_row.T @ printed_column.T
assert outer.shape == (4 * H, D + H)  # the shape of Θ

# %% [markdown]
# As for saturation: both slopes die out exponentially, and that of tanh does so *faster*, since
# $\tanh z = 2\sigma(2z) - 1$ is the logistic function walked through at twice the speed. What
# speaks for tanh is that it is centred at 0 and that its slope there is 1, where that of σ is ¼.


# %%
def picture(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Image(buffer.getvalue())


figure = new_figure(7, 3.2)
axes = figure.add_subplot()
axes.plot(z, slope_of_tanh, color=BLUE)
axes.plot(z, slope_of_sigma, color=RED)
axes.text(2.8, 4e-3, "tanh′ = 1 − tanh²", color=BLUE, ha="right")
axes.text(3.9, 4e-2, "σ′ = σ(1 − σ)", color=RED)
axes.set(yscale="log", xlabel="z", title="Slopes: tanh saturates as σ does, and sooner")
axes.spines[["top", "right"]].set_visible(False)

assert jax.grad(jnp.tanh)(6.0) < jax.grad(jax.nn.sigmoid)(6.0) < 0.003
picture(figure)

# %% [markdown]
# ## 5. From the page to a fast rule
#
# ### The reverse pass is linear
#
# Look again at the backward pass, and at what in it depends on what. $\tanh(c)$, the slopes, $a$,
# $i$, $f$, $c^{t-1}$: all come from the forward pass, and are known for every step before the
# backward pass begins. What is handed from step to step, `dh` and `dc`, only ever gets multiplied
# by such numbers and added up. Merge the factors, and six vectors remain, the **local Jacobian** of
# a step:
#
# $$\begin{aligned}
# \partial c/\partial\hat\imath &= a\, i(1 - i) &
# \partial c/\partial\hat f &= c^{t-1} f(1 - f) &
# \partial c/\partial\hat a &= i\,(1 - a^2) \\
# \partial h/\partial\hat o &= \tanh(c)\, o(1 - o) &
# \partial h/\partial c &= o\,(1 - \tanh^2 c) &
# \partial c/\partial c^{t-1} &= f
# \end{aligned}$$
#
# `jlstm.equations` has them as `jacobian`; and `pullback`, which is a whole step of
# back-propagation but for the product with $U$, is three lines. Linear means that we may add before
# or after:

# %%
gates = Activated(jnp.concatenate([tape["i"], tape["f"]], axis=-1), tape["g"], tape["o"])

jacs = jacobian(gates, tape["c_prev"], tape["c"])  # every step at once
assert all(factor.shape == (T, B, H) for factor in jacs)

jac = jax.tree.map(lambda a: a[t], jacs)
assert relative_error(pullback(jac, dh, dc_back)[0], dz.reshape(B, 4 * H)) < ROUNDING
assert relative_error(pullback(jac, dh, dc_back)[1], dc_prev) < ROUNDING

other_dh, other_dc = normal(B, H), normal(B, H)
together = pullback(jac, 2 * dh + 3 * other_dh, 2 * dc_back + 3 * other_dc)
apart = jax.tree.map(
    lambda a, b: 2 * a + 3 * b, pullback(jac, dh, dc_back), pullback(jac, other_dh, other_dc)
)
assert relative_error(together, apart) < ROUNDING

# %% [markdown]
# ### Only dz is sequential
#
# So the backward pass falls into three parts: coefficients, for all steps at once; a short loop,
# that carries `dh` and `dc` and puts out `dz`; and the weights' derivatives and `dxs`, each a wide
# matrix product over all steps at once. The loop has one product left in it,
# $\partial E/\partial h^{t-1}$.


# %%
def flat(params):
    """(4, hidden) as one axis."""
    return jax.tree.map(lambda w: w.reshape(*w.shape[:-2], -1), params)


def fast_backward(dhs, dc_last):
    w_ih, w_hh, _ = flat(params)
    jacs = jacobian(gates, tape["c_prev"], tape["c"])

    def step(back, now):
        jac, dh_loss = now
        dz, dc_prev = pullback(jac, back.h + dh_loss, back.c)
        return Carry(dz @ w_hh.T, dc_prev), dz

    last = Carry(jnp.zeros((B, H)), dc_last)
    dstart, dzs = lax.scan(step, last, (jacs, dhs), reverse=True)
    dparams = LSTMParams(
        w_ih=jnp.einsum("tbd,tbz->dz", xs, dzs),
        w_hh=jnp.einsum("tbj,tbz->jz", tape["h_prev"], dzs),
        b=jnp.sum(dzs, axis=(0, 1)),
    )
    return dparams, dstart, dzs @ w_ih.T


dparams, dstart, dxs = fast_backward(dhs, dc_last)
assert relative_error(dparams, flat(true_dparams)) < ROUNDING
assert relative_error(dstart, true_dstart) < ROUNDING
assert relative_error(dxs, true_dxs) < ROUNDING

# %% [markdown]
# That is, in essence, the rule that `jlstm.lstm` registers with `jax.custom_vjp`. From here on we
# use the library's: `derivative="vjp"` is this rule, `derivative="autodiff"` leaves the plain scan
# to JAX.


# %%
def loss(params, start, xs, **options):
    carry, hs = jlstm.lstm(params, start, xs, **options)
    return jnp.sum(dhs * hs) + jnp.sum(dc_last * carry.c)


def gradient(**options):
    return jax.grad(lambda *args: loss(*args, **options), argnums=(0, 1, 2))


for derivative in ("vjp", "jvp", "autodiff"):
    found = jax.jit(gradient(derivative=derivative))(params, start, xs)
    assert relative_error(found, by_hand) < ROUNDING

# %% [markdown]
# ### What autodiff does instead
#
# Autodiff of a scan transposes it: the body of the loop backward is the transpose of the body
# forward. The body reads the weights, so the body of the transpose writes their derivative, and
# adds a weight-sized product to a weight-sized sum at *every* step. This can be read off the
# program: here is what each loop carries from turn to turn.


# %%
def carried(program):
    """The shapes that each loop of a traced program carries from turn to turn."""
    for equation in program.eqns:
        if equation.primitive.name == "scan":
            first, count = equation.params["num_consts"], equation.params["num_carry"]
            yield [v.aval.shape for v in equation.invars[first : first + count]]
        for inside in equation.params.values():
            if hasattr(inside, "eqns"):
                yield from carried(inside)


loops = {}
for derivative in ("autodiff", "vjp"):
    program = jax.make_jaxpr(gradient(derivative=derivative, chunk=T))(params, start, xs)
    loops[derivative] = list(carried(program))
    for shapes in loops[derivative]:
        print(f"{derivative:8}", *shapes)

weights = {(D, 4 * H), (H, 4 * H)}
assert any(weights <= set(shapes) for shapes in loops["autodiff"])
assert not any(weights & set(shapes) for shapes in loops["vjp"])

# %% [markdown]
# ### Chunks
#
# Wide products have a price: whatever is computed for all steps at once has to be stored for all
# steps at once, and for a long sequence that falls out of every cache. So time is cut into *chunks*
# of a few steps. Inside a chunk: one product for $xW$, the loop, one product each for the weights
# and for `dxs`. The weight-sized sum is back, but once per chunk instead of once per step.
#
# Chunks also give a choice of what the forward pass keeps for the backward pass, the `residuals`.
#
# | `residuals` | kept | computed again |
# |---|---|---|
# | `"gates"` | gates and $c$ of every step | nothing |
# | `"carry"` | $c$ of every step | the gates: one product per chunk, $h^{t-1}$ is known |
# | `"chunks"` | $h$ and $c$ at the chunks' borders | the chunk, step by step |
#
# $h$ of every step is there in any case: it is what the layer returns. None of this changes the
# derivative, whether or not the chunk divides the time:

# %%
for residuals, chunk in (("gates", 1), ("carry", 2), ("chunks", 3)):
    found = jax.jit(gradient(residuals=residuals, chunk=chunk))(params, start, xs)
    assert relative_error(found, by_hand) < ROUNDING

# %% [markdown]
# ### The tangent, which is the transpose
#
# The local Jacobian can be read in the other direction. Push small changes of $(\hat k, c^{t-1})$
# forward, and multiply by the same six vectors. As matrices, `pullback` is $J^\top$ and this is
# $J$, so it need not be written down a second time: JAX transposes any linear function. A transpose
# has a test that needs no third party, $\langle J^\top u, v\rangle = \langle u, J v\rangle$ for
# all $u$ and $v$.

# %%
u = normal(B, H), normal(B, H)  # cotangents of (h, c)
w = normal(B, 4 * H), normal(B, H)  # tangents of (z, c of the step before)

pulled = pullback(jac, *u)
pushed = jax.linear_transpose(lambda u: pullback(jac, *u), u)(w)[0]
assert relative_error(inner(pulled, w), inner(u, pushed)) < ROUNDING

# And against JAX's tangent of the step's arithmetic itself.
z = jnp.concatenate([tape[f"z_{name}"][t] for name in GATES], axis=-1)
_, by_jax = jax.jvp(lambda z, c: forward(z, c)[:2], (z, c_prev), w)
assert relative_error(pushed, by_jax) < ROUNDING

# %% [markdown]
# Written over a whole sequence this is the tangent rule of `derivative="jvp"`, under
# `jax.custom_jvp`. Of
#
# $$\dot z_t = [\,\dot x_t W + x_t \dot W + h_{t-1} \dot U + \dot b\,] + \dot h_{t-1} U$$
#
# what stands in brackets needs no loop. JAX then finds the reverse mode by transposing *this*, and
# since $\dot W$ and $\dot U$ enter outside the loop, their transposes, the weights' derivatives,
# leave it as wide products too. One derivation by hand, and every mode of differentiation:

# %%
primals, tangents = (params, start, xs), v[:3]
options = {"derivative": "jvp"}

_, pushed = jax.jvp(lambda *args: jlstm.lstm(*args, **options), primals, tangents)
_, pull_back = jax.vjp(lambda *args: jlstm.lstm(*args, **options), *primals)
u = normal_like(pushed)
assert relative_error(inner(pull_back(u), tangents), inner(u, pushed)) < ROUNDING

# %% [markdown]
# Second derivatives come along. The Hessian times a vector, $\nabla^2 E\, v$, can be had in two
# orders: push a tangent through the gradient, or take the gradient of a tangent. Both agree with
# autodiff of autodiff.


# %%
def forward_over_reverse(derivative):
    def first(p):
        return jax.grad(loss)(p, start, xs, derivative=derivative)

    return jax.jit(lambda p, w: jax.jvp(first, (p,), (w,))[1])(params, v[0])


def reverse_over_forward(derivative):
    def along(p, w):
        return jax.jvp(lambda p: loss(p, start, xs, derivative=derivative), (p,), (w,))[1]

    return jax.jit(jax.grad(along))(params, v[0])


reference = forward_over_reverse("autodiff")
assert relative_error(forward_over_reverse("jvp"), reference) < ROUNDING
assert relative_error(reverse_over_forward("jvp"), reference) < ROUNDING
assert relative_error(forward_over_reverse("vjp"), reference) < ROUNDING

# %% [markdown]
# The one thing that `"vjp"` cannot do is to *begin* with forward mode: `jax.custom_vjp` has been
# told how to pull back, and nothing else.

# %%
try:
    jax.jvp(lambda *args: loss(*args, derivative="vjp"), primals, tangents)
except TypeError as error:
    refusal = str(error).splitlines()[0]
assert "expected 'jvp'" in refusal
refusal

# %% [markdown]
# ## 6. The rules side by side
#
# `jlstm.compare` runs the rules on one model: the same weights, inputs and cotangents. It holds
# each rule's gradient against autodiff's in float64, times them in turn, and asks the compiler for
# the memory that each takes beside its arguments and results. The shape is small and the time
# short, so that this page stays quick; `jlstm compare` on the command line does the same at any
# shape.

# %%
result = jlstm.compare(time=128, batch=32, input_size=64, hidden_size=128, seconds=1)


def cells(row):
    leaf, worst = row.worst
    yield row.name
    yield f"{worst:.0e} ({leaf})"
    yield f"{1e3 * row.forward_seconds.median:.2f}"
    yield f"{1e3 * row.gradient_seconds.median:.2f} ± {1e3 * row.gradient_seconds.spread:.2f}"
    yield f"{row.gradient_speedup:.2f}×"
    yield "?" if row.temp_bytes is None else f"{row.temp_bytes / 1e6:.2f}"
    yield f"{row.flops / 1e6:.0f}"
    yield f"{row.weight_sum_flops / 1e6:.2f}"
    yield f"{row.compile_seconds:.1f}"


head = (
    "rule",
    "largest error",
    "forward, ms",
    "gradient, ms",
    "speed-up",
    "memory, MB",
    "products, MFLOP",
    "weight sums, MFLOP",
    "compiling, s",
)
lines = [head, ["---"] * len(head), *(list(cells(row)) for row in result.rows)]
display(Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines)))

# %%
with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/comparison.png"
    plot_comparison(result, path)
    display(Image(filename=path, width=1000))

# %% [markdown]
# What is certain in this table, and what belongs to this machine and this minute?
#
# **Errors** are certain: this was float32, whose rounding is $6 \cdot 10^{-8}$, and all rules stay
# within a small multiple of it. No rule is the accurate one.
#
# **Operations** are certain, being counted in the program. The rules that keep all gates do the
# products that autodiff does, no more and no fewer. Those that compute gates again do one more
# forward pass of them: fewer bytes are bought with more arithmetic. And the sums of weight size,
# one per step in autodiff, shrink to one per chunk.

# %%
base = result.baseline
assert all(row.worst[1] < 1e-5 for row in result.rows)
assert result["vjp gates"].flops == result["jvp gates"].flops == base.flops
assert result["vjp carry"].flops > base.flops
assert result["vjp chunks"].flops > base.flops
assert all(row.weight_sum_flops < base.weight_sum_flops for row in result.rows[1:])

# %% [markdown]
# **Times** are the machine's. On another shape or another processor the order can change: a large
# hidden size makes the one product inside the loop dominate, which no rule can avoid; with a small
# one most of the time goes into the turns of the loop, of which every rule needs as many. Here is
# how it went this time.

# %%
ahead = [row.name for row in result.rows[1:] if row.gradient_speedup > 1]
behind = [row.name for row in result.rows[1:] if row.gradient_speedup <= 1]
slower_to_compile = [
    row.name for row in result.rows[1:] if row.compile_seconds > base.compile_seconds
]
print("gradient faster than autodiff's:    ", ", ".join(ahead) or "none")
print("gradient no faster than autodiff's: ", ", ".join(behind) or "none")
print("slower to compile than autodiff:    ", ", ".join(slower_to_compile) or "none")

# %% [markdown]
# **Memory** is the compiler's plan, so it does not vary from run to run. Much of it is what the
# forward pass keeps for the backward pass, and that is in JAX's hands: the function that `jax.vjp`
# returns is a tree whose leaves are just these arrays. Tracing is enough to see their sizes,
# nothing needs to be compiled.

# %%
TIMES = (16, 32, 64, 128, 256, 512, 1024)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def kept(time, options):
    """The arrays that wait for the backward pass, batch 32, input 64, hidden 128."""

    def pull_back(params, xs):
        return jax.vjp(lambda *args: jlstm.lstm(args[0], None, args[1], **options), params, xs)[1]

    params = LSTMParams(shape(64, 4, 128), shape(128, 4, 128), shape(4, 128))
    return jax.tree.leaves(jax.eval_shape(pull_back, params, shape(time, 32, 64)))


megabytes = {
    name: [1e-6 * sum(4 * leaf.size for leaf in kept(time, result[name].options)) for time in TIMES]
    for name in ("autodiff", "vjp gates", "vjp carry", "vjp chunks")
}
last = [amounts[-1] for amounts in megabytes.values()]
assert last == sorted(last, reverse=True)

# %%
figure = new_figure(7, 4)
axes = figure.add_subplot()
for name, amounts in megabytes.items():
    colour = GREY if name == base.name else BLUE
    axes.plot(TIMES, amounts, "o-", color=colour, markersize=4)
    axes.annotate(
        name,
        (TIMES[-1], amounts[-1]),
        (8, 0),
        textcoords="offset points",
        color=colour,
        va="center",
    )
axes.set(xscale="log", yscale="log", xlabel="time steps", ylabel="MB")
axes.set_title("kept for the backward pass, weights and inputs included")
axes.set_xticks(TIMES, [str(time) for time in TIMES])
axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
axes.yaxis.set_major_formatter("{x:g}")
axes.set_xlim(TIMES[0] / 1.2, TIMES[-1] * 2.5)
axes.minorticks_off()
axes.spines[["top", "right"]].set_visible(False)
picture(figure)

# %% [markdown]
# Autodiff keeps a factor for every product that it is going to need. The rule keeps the gates and
# the carry, from which all factors follow; `"carry"` leaves the gates out, too. What these keep for
# every step grows as the sequence does. `"chunks"` keeps the inputs and, for every chunk, one
# carry, and takes longer chunks for longer sequences.

# %%
numbers_kept = {
    name: sum(leaf.size for leaf in kept(1024, result[name].options)) / (1024 * 32 * 128)
    for name in megabytes
}
for name, count in numbers_kept.items():
    print(f"{name:10} {count:4.1f} numbers per unit and step, weights and inputs included")

# %% [markdown]
# **Where autodiff wins.** It needs no derivation, hence no section 4: change an equation of the
# cell and the gradient follows. It gives every mode of differentiation, where `"vjp"` cannot begin
# with forward mode. Beside the rules that save memory by computing again, it does less arithmetic.
# And where a gradient is wanted once, of a short sequence, the hand-derived rule's larger program
# may take longer to compile than it ever saves; the last column of the table and the line printed
# above tell whether it did so here. It is also the reference that all of this was checked against,
# and there is no better reason to keep it.
#
# ## 7. Exercises
#
# 1. **Coupled gates.** Let $f = 1 - i$, so that the cell forgets just as much as it lets in. Which
#    lines of the backward pass change, and what is $\partial E/\partial\hat\imath$ now? Change
#    `step`, and let its nudges tell you whether you are right. How many of the six vectors remain?
# 2. **Peepholes.** Let the input gate see the cell,
#    $\hat\imath = W_i x + U_i h^{t-1} + b_i + p \odot c^{t-1}$. Now $c^{t-1}$ is read in one more
#    place. What joins $\partial E/\partial c^{t-1}$, and is the reverse pass still linear in (`dh`,
#    `dc`)? And if the *output* gate sees $c^t$?
# 3. **Where does it pay?** Find a shape at which autodiff's gradient is as fast as `"vjp gates"` on
#    your machine, and one at which `"vjp carry"` is faster than `"vjp gates"`. Before you run
#    `jlstm.compare`, write down which you expect, and why; the columns for products and weight sums
#    may help.
