"""Variants of the cell: a NumPy loop with every option, and random problems for it and jlstm."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

import jlstm
from jlstm import activations
from jlstm.dropout import sequence_keys
from jlstm.variants import Variant

# The witness: one step for one sequence, and a loop over both. Nothing but NumPy.

FUNCTIONS = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda a: np.clip(0.2 * a + 0.5, 0, 1),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "softsign": lambda a: a / (1 + np.abs(a)),
}

DEFAULTS = {
    "peepholes": False,
    "coupled": False,
    "layer_norm": False,
    "epsilon": 1e-5,
    "gate": "sigmoid",
    "candidate": "tanh",
    "output": "tanh",
    "forget_offset": 0.0,
    "preact_clip": np.inf,
    "cell_clip": np.inf,
    "projection_clip": np.inf,
    "zoneout_h": 0.0,
    "zoneout_c": 0.0,
}


def normal_of(a, epsilon):
    return (a - a.mean()) / np.sqrt(a.var() + epsilon)


def step_of(w, options, h, c, x, *, keep_h=None, keep_c=None, drop=1.0, hide=1.0):
    """(h, c) after one step of one sequence; w is a dictionary of weights, [·, gates, hidden].

    keep_h and keep_c say what zoneout keeps, drop and hide are factors; zoneout by its mean and
    nothing dropped where they are not given.
    """
    o = DEFAULTS | options
    sigma, phi, psi = (FUNCTIONS[o[role]] for role in ("gate", "candidate", "output"))
    keep_h = o["zoneout_h"] if keep_h is None else keep_h
    keep_c = o["zoneout_c"] if keep_c is None else keep_c
    names = "igo" if o["coupled"] else "ifgo"
    peep = dict.fromkeys("ifo", 0.0)
    if o["peepholes"]:
        peep |= dict(zip(names.replace("g", ""), w["peepholes"], strict=True))

    def clip(a, limit):
        return np.minimum(np.maximum(a, -o[limit]), o[limit])

    x_part = np.einsum("k,kgn->gn", x, w["w_ih"])
    h_part = np.einsum("k,kgn->gn", hide * h, w["w_hh"])
    if o["layer_norm"]:
        x_part = w["gain_x"] * normal_of(x_part, o["epsilon"])
        h_part = w["gain_h"] * normal_of(h_part, o["epsilon"])
    blocks = x_part + h_part + (0 if w["b"] is None else w["b"])
    z = dict(zip(names, blocks, strict=True))
    i = sigma(clip(z["i"] + peep["i"] * c, "preact_clip"))
    if o["coupled"]:
        f = 1 - i
    else:
        f = sigma(clip(z["f"] + peep["f"] * c + o["forget_offset"], "preact_clip"))
    g = drop * phi(clip(z["g"], "preact_clip"))
    v = clip(f * c + i * g, "cell_clip")
    out = sigma(clip(z["o"] + peep["o"] * v, "preact_clip"))
    n = v
    if o["layer_norm"]:
        n = w["gain_c"] * normal_of(v, o["epsilon"]) + w["shift_c"]
    r = out * psi(n)
    if w["w_hr"] is not None:
        r = clip(r @ w["w_hr"], "projection_clip")
    return keep_h * h + (1 - keep_h) * r, keep_c * c + (1 - keep_c) * v


def loop_of(
    w, options, h, c, xs, *, drawn=None, lengths=None, resets=None, reset_to=None, reverse=False
):
    """(h, c, hs), sequence by sequence; ``drawn(t, n)`` gives the masks of a step."""
    h, c, (time, batch) = h.copy(), c.copy(), xs.shape[:2]
    hs = np.zeros((time, *h.shape))
    for n, t in itertools.product(range(batch), range(time)[:: -1 if reverse else 1]):
        if lengths is not None and t >= lengths[n]:
            continue
        if resets is not None and resets[t, n]:
            h[n], c[n] = reset_to[0][n], reset_to[1][n]
        masks = drawn(t, n) if drawn else {}
        h[n], c[n] = step_of(w, options, h[n], c[n], xs[t, n], **masks)
        hs[t, n] = h[n]
    return h, c, hs


# Options

NOISE = {"zoneout_h": 0.3, "zoneout_c": 0.4, "recurrent_dropout": 0.25, "state_dropout": 0.35}
CLIPS = {"preact_clip": 1.0, "cell_clip": 0.6}
NAMES = {"gate": "hard_sigmoid", "candidate": "elu", "output": "softsign"}
EVERYTHING = {
    "peepholes": True,
    "layer_norm": True,
    "projection": True,
    "projection_clip": 0.5,
    "epsilon": 1e-3,
    **NOISE,
    **NAMES,
}

# "projection" is not an option of Variant: it is the weights that have one.
CASES = {
    "nothing": {},
    "no bias": {"bias": False},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "coupled, peepholes": {"coupled": True, "peepholes": True},
    "layer_norm": {"layer_norm": True},
    "layer_norm, no bias": {"layer_norm": True, "bias": False, "epsilon": 0.1},
    "activations": NAMES,
    "forget_offset": {"forget_offset": 0.7},
    "preact_clip": {"preact_clip": 0.8, "peepholes": True},
    "cell_clip": {"cell_clip": 0.5, "peepholes": True},
    "coupled, clips": {"coupled": True, **CLIPS},
    "projection": {"projection": True},
    "projection_clip": {"projection": True, "projection_clip": 0.3},
    "zoneout_h": {"zoneout_h": 0.3},
    "zoneout_c": {"zoneout_c": 0.4, "cell_clip": 0.5},
    "zoneout's mean": {**NOISE, "deterministic": True, "projection": True},
    "recurrent_dropout": {"recurrent_dropout": 0.25},
    "state_dropout": {"state_dropout": 0.35},
}
ALL = {
    "everything": {**EVERYTHING, "forget_offset": 0.5, "preact_clip": 2.0, "cell_clip": 1.0},
    "everything, coupled": {**EVERYTHING, "coupled": True, **CLIPS},
}
TOGETHER = ALL["everything"]
# What is drawn is most of a program to compile: for tests in which that plays no part, and a part.
QUIET = TOGETHER | {"deterministic": True}
SOME = {"peepholes": True, "projection": True, "zoneout_c": 0.4, "recurrent_dropout": 0.25}
RULES = [*itertools.product(("vjp", "jvp"), ("gates", "carry", "chunks"))]

# float64 rounds at 1.1e-16; a gradient here is a sum of some tens of terms through seven steps.
ROUNDING = 1e-12
# A normalised vector is a difference divided by its size, which costs it some digits more.
NORMED = 1e-11
# Central differences over 2e-6 are off by 1e-12 times the third derivative, and by the rounding of
# values of about 30, which is 4e-15, over 2e-6.
DIFFERENCES = 3e-7


@st.composite
def any_options(draw):
    """Any options that go together."""
    flags = ("peepholes", "coupled", "layer_norm", "projection", "bias", "deterministic")
    options: dict[str, Any] = {name: draw(st.booleans()) for name in flags}
    options |= {name: draw(st.sampled_from([0.0, 0.0, 0.2, 0.7])) for name in NOISE}
    options |= {role: draw(st.sampled_from(["tanh", "sigmoid", "softsign"])) for role in NAMES}
    limits = ["preact_clip", "cell_clip", *(["projection_clip"] if options["projection"] else [])]
    options |= {name: draw(st.sampled_from([None, 0.4, 1.5])) for name in limits}
    if not options["coupled"]:
        options["forget_offset"] = draw(st.sampled_from([0.0, -0.8]))
    return options


# Problems


class Problem(NamedTuple):
    """The arguments of ``lstm`` and the cotangents of its results."""

    options: dict[str, Any]
    gates: Variant
    key: Any
    point: tuple[Any, ...]  # params, carry, xs, reset_to
    cotangents: tuple[Any, ...]  # carry, hs
    masks: dict[str, Any]

    def lstm(self, params, carry, xs, reset_to, key=None, **options):
        key = self.key if key is None else key
        common = {"gates": self.gates, "key": key, "reset_to": reset_to}
        return jlstm.lstm(params, carry, xs, **common, **self.masks, **options)

    def loss(self, *point, **options):
        """A number that uses every result, nonlinearly."""
        carry, hs = self.lstm(*point, **options)
        (dh, dc), dhs = self.cotangents
        return jnp.vdot(hs**3, dhs) + jnp.vdot(carry.h, dh) + jnp.vdot(carry.c**2, dc)


def variant_of(options):
    """The ``Variant`` that the options of a case describe."""
    options = {k: v for k, v in options.items() if k not in ("projection", "bias")}
    for role in ("gate", "candidate", "output"):
        if role in options:
            found = getattr(activations, options[role])
            is_one = isinstance(found, activations.Activation)
            options[role] = found if is_one else found()
    return Variant(**options)


def problem_of(
    options,
    seed=0,
    *,
    time=9,
    batch=(8,),
    inputs=5,
    hidden=10,
    output=6,
    reverse=False,
    masks=True,
    dtype=np.float64,
):
    """Normal entries; all sizes differ, so that a transposed axis cannot go unnoticed."""
    draw, gates = np.random.default_rng(seed), variant_of(options)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * draw.standard_normal(shape), dtype)

    output = output if options.get("projection") else None
    params = gates.init(
        jax.random.key(seed),
        inputs,
        hidden,
        output_size=output,
        bias=options.get("bias", True),
        dtype=dtype,
    )
    params = jax.tree.map(lambda w: w + normal(*w.shape, scale=0.5), params)
    state = (*batch, hidden if output is None else output), (*batch, hidden)

    def carry():
        return jlstm.Carry(*(normal(*shape) for shape in state))

    lengths = draw.integers(0, time, endpoint=True, size=batch)
    if lengths.size > 1:
        lengths.reshape(-1)[[0, -1]] = time, 0
    resets = draw.random((time, *batch)) < 0.3
    return Problem(
        options=options,
        gates=gates,
        key=jax.random.key(seed + 1) if gates.extras.random else None,
        point=(params, carry(), normal(time, *batch, inputs), carry()),
        cotangents=(carry(), normal(time, *state[0])),
        masks={"reverse": reverse} | ({"lengths": lengths, "resets": resets} if masks else {}),
    )


def drawn_by(problem):
    """What the library draws for a step of a sequence, in the words of ``step_of``."""
    extras, carry = problem.gates.extras, problem.point[1]
    if not extras.random:
        return None
    time, batch = problem.point[2].shape[:2]
    keys = sequence_keys(problem.key, (batch,))
    noise = extras.noise and [extras.noise(keys, jnp.asarray(t), carry) for t in range(time)]
    hide = extras.mask and extras.mask(keys, carry.h)

    def drawn(t, n):
        masks = {"hide": hide}
        if noise:
            masks |= {"keep_h": noise[t].h, "keep_c": noise[t].c, "drop": noise[t].g}
        return {name: np.asarray(mask[n]) for name, mask in masks.items() if mask is not None}

    return drawn


def witness(problem):
    """(params, carry, xs, reset_to) -> (carry, hs), by the NumPy loop."""
    drawn = drawn_by(problem)

    def run(params, carry, xs, reset_to):
        more = {"drawn": drawn, "reset_to": reset_to, **problem.masks}
        options = {k: v for k, v in problem.options.items() if k in DEFAULTS}
        h, c, hs = loop_of(params._asdict(), options, *carry, xs, **more)
        return jlstm.Carry(h, c), hs

    return run


def slope_of(run, problem, leaf, seed):
    """(the slope of ⟨cotangents, run(point)⟩ along a random direction in one leaf, it)."""
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, problem.point))
    direction = np.random.default_rng(seed).standard_normal(leaves[leaf].shape)

    def value(size):
        moved = [a + size * direction if n == leaf else a for n, a in enumerate(leaves)]
        results = jax.tree.leaves(run(*jax.tree.unflatten(tree, moved)))
        return sum(map(np.vdot, results, jax.tree.leaves(problem.cotangents)))

    return (value(1e-6) - value(-1e-6)) / 2e-6, direction


def assert_slopes_agree(run, problem, gradients, leaves=None):
    """Each gradient (or some) against a difference of ``run``, in a random direction."""
    found = jax.tree.leaves(gradients)
    assert len(found) == len(jax.tree.leaves(problem.point))
    for n in range(len(found)) if leaves is None else leaves:
        slope, direction = slope_of(run, problem, n, seed=n)
        scale = float(jnp.linalg.norm(found[n])) + 1
        assert abs(np.vdot(found[n], direction) - slope) < DIFFERENCES * scale, n


def pulling_back(problem, **options):
    """(point, cotangents) -> (results, gradients of the point), compiled."""

    @jax.jit
    def run(point, cotangents):
        out, pull_back = jax.vjp(partial(problem.lstm, **options), *point)
        return out, pull_back(cotangents)

    return run


def pulled_back(problem, **options):
    """(results, gradients of the point)."""
    return pulling_back(problem, **options)(problem.point, problem.cotangents)


def random_like(seed, tree):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(draw.standard_normal(a.shape), a.dtype), tree)


def inner(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(float(jnp.vdot(x, y)) for x, y in pairs)


def tolerance_of(options):
    return NORMED if options.get("layer_norm") else ROUNDING
