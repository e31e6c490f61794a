"""A cell of one's own: the GRU of the page that explains it is a GRU with every option.

The GRU is the very class of the page; nothing of it is written again here.
"""

import itertools
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pasted import blocks
from variant_witness import assert_slopes_agree, pulled_back, random_like
from witness import as_numpy, assert_trees_agree

import jlstm
from jlstm import Stack, init_stack, stack
from jlstm.gates import Extras

PAGE = Path(__file__).parents[1] / "docs" / "own_cell.md"
BLOCKS = blocks(PAGE, "python")
KNOWN: dict[str, Any] = {"__name__": "own_cell"}
for block in BLOCKS:
    if block is BLOCKS[0] or block.startswith("jax.export."):
        exec(block, KNOWN)
GRU, GRUParams, GRUCarry = (KNOWN[name] for name in ("GRU", "GRUParams", "GRUCarry"))

# float64 rounds at 1.1e-16; a gradient here is a sum of some tens of terms through seven steps.
ROUNDING = 1e-12
RULES = [*itertools.product(("vjp", "jvp", "autodiff"), ("gates", "carry", "chunks"))]
MASKS = {"lengths": True, "resets": True, "reset_to": True}


# The page


def test_a_cell_has_about_25_lines():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) <= 25


def test_the_page_names_all_that_a_cell_may_hand_over():
    text = PAGE.read_text("utf-8")
    fields = Extras.__dataclass_fields__
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [
        "summed",
        "derivative",
        "noise",
        "mask",
        "rounded",
    ]
    assert set(fields) == {"summed", "derivative", "noise", "mask", "rounded"}
    assert all(f"`{name}" in text for name in ("init", "start", "step", "check", "without_noise"))


# The witness, one step of one sequence at a time; nothing but NumPy.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def step_of(weights, h, x):
    w, u, b, d = weights
    r, z = (sigmoid(x @ w[:, k] + b[k] + h @ u[:, k] + d[k]) for k in (0, 1))
    n = np.tanh(x @ w[:, 2] + b[2] + r * (h @ u[:, 2] + d[2]))
    return (1 - z) * n + z * h


def loop(weights, h, xs, *, lengths=None, resets=None, reset_to=None, reverse=False):
    """(h, hs), sequence by sequence; ``reset_to`` is zeros if None."""
    h, time, batch = np.array(h), xs.shape[0], xs.shape[1:-1]
    again = np.zeros_like(h) if reset_to is None else reset_to
    hs = np.zeros((time, *h.shape))
    for n in np.ndindex(*batch):
        for t in range(time)[:: -1 if reverse else 1]:
            if lengths is None or t < lengths[n]:
                fresh = resets is not None and resets[(t, *n)]
                h[n] = step_of(weights, (again if fresh else h)[n], xs[(t, *n)])
                hs[(t, *n)] = h[n]
    return h, hs


class Problem(NamedTuple):
    """The arguments of ``lstm`` and the cotangents of its results."""

    point: tuple[Any, ...]  # params, carry, xs, reset_to
    cotangents: tuple[Any, ...]  # carry, hs
    masks: dict[str, Any]

    def lstm(self, params, carry, xs, reset_to, **options):
        common = {"gates": GRU(), "reset_to": reset_to}
        return jlstm.lstm(params, carry, xs, **common, **self.masks, **options)

    def loss(self, *point, **options):
        """A number that uses every result, nonlinearly."""
        carry, hs = self.lstm(*point, **options)
        return jnp.vdot(hs**3, self.cotangents[1]) + jnp.vdot(carry.h**2, self.cotangents[0].h)

    def witness(self, params, carry, xs, reset_to):
        again = None if reset_to is None else reset_to.h
        h, hs = loop(tuple(params), carry.h, xs, reset_to=again, **self.masks)
        return GRUCarry(h), hs


def problem_of(
    seed=0,
    *,
    time=7,
    batch=(8,),
    inputs=5,
    hidden=4,
    lengths=False,
    resets=False,
    reset_to=False,
    reverse=False,
):
    """Normal entries; all sizes differ, so that a transposed axis cannot go unnoticed."""
    draw = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * draw.standard_normal(shape))

    fresh = GRU().init(jax.random.key(seed), inputs, hidden, dtype=np.float64)
    params = jax.tree.map(lambda w: w + normal(*w.shape, scale=0.5), fresh)
    carry, again, d_carry = (GRUCarry(normal(*batch, hidden)) for _ in range(3))
    some = draw.integers(0, time, endpoint=True, size=batch)
    if some.size > 1:
        some.reshape(-1)[[0, -1]] = time, 0
    return Problem(
        point=(params, carry, normal(time, *batch, inputs), again if reset_to else None),
        cotangents=(d_carry, normal(time, *batch, hidden)),
        masks={
            "lengths": some if lengths else None,
            "resets": draw.random((time, *batch)) < 0.3 if resets else None,
            "reverse": reverse,
        },
    )


# Values and gradients

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "resets to a carry": {"resets": True, "reset_to": True},
    "reverse": {"reverse": True},
    "everything": MASKS,
    "everything in reverse": MASKS | {"reverse": True},
    "two batch axes": {**MASKS, "batch": (3, 2)},
    "no batch axis": {**MASKS, "batch": ()},
    "one unit": {"hidden": 1, "inputs": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_values_are_the_loops_and_gradients_its_differences(case):
    problem = problem_of(len(case), **CASES[case])
    point = as_numpy(problem.point)
    expected = problem.witness(*point)
    # The equations one by one without a gradient, the engine's way with one.
    assert_trees_agree(jax.jit(problem.lstm)(*problem.point), expected)
    out, gradients = pulled_back(problem, chunk=3)
    assert_trees_agree(out, expected)
    assert_slopes_agree(problem.witness, problem, gradients)


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("reverse", "rule", "chunk"), [*itertools.product((False, True), RULES, (None, 1, 3, 7))]
)
def test_every_rule_gives_the_same(reverse, rule, chunk):
    derivative, residuals = rule
    problem = problem_of(1, reverse=reverse, **MASKS)
    expected = pulled_back(problem, derivative="autodiff")
    answer = pulled_back(problem, derivative=derivative, residuals=residuals, chunk=chunk)
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.parametrize("sizes", [{"time": 0}, {"batch": (0,)}])
@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
def test_no_steps_and_no_sequences(sizes, derivative):
    problem = problem_of(2, **MASKS, **sizes)
    out, gradients = pulled_back(problem, derivative=derivative)
    assert_trees_agree(out, problem.witness(*as_numpy(problem.point)), 0)
    zeros = jax.tree.map(np.zeros_like, problem.point)
    expected = zeros[0], problem.cotangents[0], zeros[2], zeros[3]
    assert_trees_agree(gradients, expected, 0)


def test_cell_is_a_step_of_the_sequence():
    problem = problem_of(3)
    params, carry, xs, _ = problem.point
    step, hs = (
        jax.jit(partial(jlstm.cell, gates=GRU())),
        problem.witness(*as_numpy(problem.point))[1],
    )
    for x, expected in zip(xs, hs, strict=True):
        carry, h = step(params, carry, x)
        assert_trees_agree((carry.h, h), (expected, expected))


def test_none_starts_from_its_start():
    problem = problem_of(4)
    params, carry, xs, _ = problem.point
    expected = problem.witness(*as_numpy((params, GRUCarry(0 * carry.h), xs, None)))
    assert_trees_agree(jax.jit(problem.lstm)(params, None, xs, None), expected)


@pytest.mark.parametrize("residuals", ["gates", "carry", "chunks"])
def test_forward_mode(residuals):
    problem = problem_of(5, reverse=True, **MASKS)
    tangent = random_like(1, problem.point)
    jvp = jax.jit(lambda f: jax.jvp(f, problem.point, tangent), static_argnums=0)
    expected = jvp(partial(problem.lstm, derivative="autodiff"))
    answer = jvp(partial(problem.lstm, derivative="jvp", residuals=residuals, chunk=3))
    assert_trees_agree(answer, expected, ROUNDING)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_hessian_vector_products_in_both_orders(derivative):
    problem = problem_of(6, time=4, batch=(3,), **MASKS)
    vector, everything = random_like(1, problem.point), (0, 1, 2, 3)

    def products(loss):
        gradient = jax.grad(loss, everything)

        def slope(*p):
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient(*p), vector)))

        def both(*p):
            return jax.jvp(gradient, p, vector)[1], jax.grad(slope, everything)(*p)

        return jax.jit(both)(*problem.point)

    expected = products(partial(problem.loss, derivative="autodiff"))
    answer = products(partial(problem.loss, derivative=derivative, chunk=3))
    assert_trees_agree(answer, expected, ROUNDING)


def test_hessian_of_the_bias():
    problem = problem_of(7, time=4, batch=(3,), hidden=2, **MASKS)
    params, *others = problem.point

    def loss(b_hh, derivative):
        return problem.loss(params._replace(b_hh=b_hh), *others, derivative=derivative)

    hessian = jax.jit(jax.hessian(loss), static_argnums=1)
    expected = hessian(params.b_hh, "autodiff")
    assert expected.shape == (3, 2, 3, 2)
    assert_trees_agree(hessian(params.b_hh, "jvp"), expected, ROUNDING)


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_vmap_over_parameters_and_over_examples(derivative):
    problem = problem_of(8, time=4)
    params, carry, xs, _ = problem.point
    dhs = problem.cotangents[1]

    def loss(params, carry, xs, dhs):
        return jnp.vdot(problem.lstm(params, carry, xs, None, derivative=derivative)[1], dhs)

    gradient = jax.jit(jax.grad(loss))
    many = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a - 1]), params)
    ensemble = jax.jit(jax.vmap(gradient, (0, None, None, None)))(many, carry, xs, dhs)
    for n in range(3):
        pick = partial(jax.tree.map, lambda a, n=n: a[n])
        assert_trees_agree(pick(ensemble), gradient(pick(many), carry, xs, dhs), ROUNDING)
    each = jax.jit(jax.vmap(gradient, (None, 0, 1, 1)))(params, carry, xs, dhs)
    for n in (0, 7):
        one = gradient(params, GRUCarry(carry.h[n]), xs[:, n], dhs[:, n])
        assert_trees_agree(jax.tree.map(lambda a, n=n: a[n], each), one, ROUNDING)


def test_checkpoint_and_products_in_bfloat16():
    problem = problem_of(9, **MASKS)
    gradient = jax.jit(jax.grad(problem.loss))
    exact = gradient(*problem.point)
    assert_trees_agree(jax.grad(jax.checkpoint(problem.loss))(*problem.point), exact, ROUNDING)
    short = jax.grad(partial(problem.loss, compute_dtype=jnp.bfloat16))(*problem.point)
    assert {a.dtype for a in short} == {jnp.dtype(np.float64)}
    # The factors have eight digits of two, 4e-3; but they have been rounded.
    assert_trees_agree(short, exact, 0.1)
    with pytest.raises(AssertionError):
        assert_trees_agree(short, exact, 1e-4)


def test_over_devices():
    problem = problem_of(10, batch=(8,), **MASKS)
    params, carry, xs, reset_to = problem.point
    layer = jlstm.over_devices()

    def loss(params, xs, layer):
        masks = {name: jnp.asarray(problem.masks[name]) for name in ("lengths", "resets")}
        carry_, hs = layer(params, carry, xs, gates=GRU(), reset_to=reset_to, **masks)
        return jnp.sum(hs**3) + jnp.sum(carry_.h**2)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    assert_trees_agree(gradient(params, xs, layer), gradient(params, xs, jlstm.lstm), ROUNDING)


# In a stack, and exported


@pytest.mark.parametrize("connections", ["chain", "residual", "skip"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_stack_is_layer_upon_layer(connections, bidirectional):
    config = Stack(
        sizes=(4, 4),
        gates=GRU(),
        bidirectional=bidirectional,
        connections=connections,
        learned_carry=True,
    )
    params = init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    params = jax.tree.map(lambda a, d: a + 0.3 * d, params, random_like(1, params))
    assert isinstance(params[0].forward, GRUParams)
    xs = problem_of(11).point[2]
    lengths = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    run = jax.jit(partial(stack, config))
    carry, found = run(params, None, xs, lengths=jnp.asarray(lengths))

    outs, inputs = [], np.asarray(xs)
    x = inputs
    for n, one in enumerate(as_numpy(params)):
        hs = []
        for way, weights in enumerate(one[: 1 + bidirectional]):
            start = np.broadcast_to(one.start[way].h, (8, 4))
            last, h = loop(tuple(weights), start, x, lengths=lengths, reverse=bool(way))
            assert_trees_agree(carry[n][way] if bidirectional else carry[n], (last,))
            hs.append(h)
        outs.append(np.concatenate(hs, -1) + (outs[-1] if n and connections == "residual" else 0))
        x = np.concatenate([outs[-1], inputs], -1) if connections == "skip" else outs[-1]
    assert_trees_agree(found, np.concatenate(outs, -1) if connections == "skip" else outs[-1])


@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_gradients_of_a_stack_that_mixes_cells(derivative):
    gates = GRU(), (jlstm.Variant(peepholes=True), GRU())
    config = Stack(sizes=(4, 3), gates=gates, bidirectional=True, learned_carry=True)
    params = init_stack(jax.random.key(0), 5, config, dtype=np.float64)
    problem = problem_of(12, lengths=True, resets=True)
    masks = {name: jnp.asarray(problem.masks[name]) for name in ("lengths", "resets")}

    def loss(params, xs, derivative):
        carry, hs = stack(config, params, None, xs, derivative=derivative, **masks)
        return jnp.sum(hs**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

    gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    point = params, problem.point[2]
    assert_trees_agree(gradient(*point, derivative), gradient(*point, "autodiff"), ROUNDING)


@pytest.mark.parametrize(
    ("derivative", "shape"),
    [("vjp", "t, b"), ("jvp", "t, b"), ("autodiff", "t, 8"), ("vjp", "7, b")],
)
def test_export_with_symbolic_sizes(derivative, shape):
    problem = problem_of(13, lengths=True, resets=True)
    params, _, xs, _ = problem.point
    lengths, resets = problem.masks["lengths"], problem.masks["resets"]

    @jax.jit
    def run(params, xs, lengths, resets):
        def loss(params, xs):
            how = {"gates": GRU(), "derivative": derivative, "chunk": 3}
            carry, hs = jlstm.lstm(params, None, xs, lengths=lengths, resets=resets, **how)
            return jnp.sum(hs**3) + jnp.sum(carry.h**2), carry

        return jax.grad(loss, (0, 1), has_aux=True)(params, xs)

    dims = jax.export.symbolic_shape(shape)
    exported = jax.export.export(run)(
        params,
        jax.ShapeDtypeStruct((*dims, 5), xs.dtype),
        jax.ShapeDtypeStruct(dims[1:], lengths.dtype),
        jax.ShapeDtypeStruct(dims, np.bool_),
    )
    time, batch = (n if isinstance(n, int) else 2 for n in dims)
    small = xs[:time, :batch], np.minimum(lengths, time)[:batch], resets[:time, :batch]
    for given in (small, (xs, lengths, resets)):
        assert_trees_agree(exported.call(params, *given), run(params, *given))
    # Written down and read again, for which its NamedTuples have to be known, as the page says.
    pytest.importorskip("flatbuffers")
    again = jax.export.deserialize(exported.serialize())
    assert_trees_agree(again.call(params, *small), run(params, *small))


# Other people's GRU. Both in float64, in another order of summation.
OTHERS = 1e-13


@pytest.mark.parametrize("case", ["plain", "lengths", "reverse"])
def test_keras(keras, case):
    """Its batch is before time, its gates are z, r, n, and gates and hidden are one axis."""
    problem = problem_of(14, **CASES[case])
    lengths, reverse = problem.masks["lengths"], problem.masks["reverse"]
    layer = keras.layers.GRU(
        4,
        reset_after=True,
        return_sequences=True,
        return_state=True,
        go_backwards=reverse,
        zero_output_for_mask=True,
        activation=jnp.tanh,  # its own tanh computes in float32 on JAX
        dtype="float64",
    )

    def theirs(params, carry, xs, _):
        w, u, b, d = (a[..., jnp.array([1, 0, 2]), :] for a in params)
        weights = w.reshape(5, -1), u.reshape(4, -1), jnp.stack([b.reshape(-1), d.reshape(-1)])
        (hs, h), _ = layer.stateless_call(
            list(weights),
            [v.value for v in layer.non_trainable_variables],
            jnp.swapaxes(xs, 0, 1),
            mask=None if lengths is None else np.arange(7) < lengths[:, None],
            initial_state=[carry.h],
        )
        hs = jnp.swapaxes(hs, 0, 1)
        # What it finds going backwards comes in the order in which it finds it.
        return GRUCarry(h), hs[::-1] if reverse else hs

    with jax.numpy_dtype_promotion("standard"):  # Keras needs it
        layer.build((None, None, 5))
        out, pull_back = jax.vjp(theirs, *problem.point)
        gradients = pull_back(problem.cotangents)
    assert_trees_agree(pulled_back(problem), (out, gradients), OTHERS)


def test_torch():
    """The order of its gates is ours; a weight is ``[3 · hidden, input]``."""
    torch = pytest.importorskip("torch")
    problem = problem_of(15)
    params, carry, xs, _ = as_numpy(problem.point)
    layer = torch.nn.GRU(5, 4).double()
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    with torch.no_grad():
        for name, w in zip(names, params, strict=True):
            flat = w.reshape(*w.shape[:-2], 12).T
            getattr(layer, name).copy_(torch.tensor(np.array(flat)))
    inputs, first = (torch.tensor(np.array(a), requires_grad=True) for a in (xs, carry.h))
    hs, h = layer(inputs, first[None])
    d_carry, dhs = as_numpy(problem.cotangents)
    torch.autograd.backward([hs, h[0]], [torch.tensor(np.array(d)) for d in (dhs, d_carry.h)])
    weights = [
        getattr(layer, name).grad.numpy().T.reshape(w.shape)
        for name, w in zip(names, params, strict=True)
    ]
    found, (d_params, d_first, dxs, _) = pulled_back(problem)
    assert_trees_agree(found, (h[0].detach().numpy(), hs.detach().numpy()), OTHERS)
    expected = [*weights, first.grad.numpy(), inputs.grad.numpy()]
    assert_trees_agree((d_params, d_first, dxs), expected, OTHERS)


# Weights and carries as dataclasses, and bad input


@jax.tree_util.register_dataclass
@dataclass
class Weights:
    w_ih: Any
    w_hh: Any
    b_ih: Any
    b_hh: Any


@jax.tree_util.register_dataclass
@dataclass
class State:
    h: Any


class OfDataclasses(GRU):
    """The same cell, its weights and carry being dataclasses."""

    def start(self, params, batch_shape):
        return State(super().start(params, batch_shape).h)

    def step(self, own, x_part, h_part, carry, noise):
        assert type(own) is Weights
        return State(super().step(own, x_part, h_part, carry, noise).h)


@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
def test_dataclasses_will_do(derivative):
    problem = problem_of(16, lengths=True, resets=True)
    params, carry, xs, _ = problem.point

    def loss(params, carry, xs, gates):
        how = {"gates": gates, "derivative": derivative, "chunk": 3}
        after, hs = jlstm.lstm(params, carry, xs, **problem.masks, **how)
        return jnp.sum(hs**3) + jnp.sum(after.h**2)

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)), static_argnums=3)
    found = gradient(Weights(*params), State(carry.h), xs, OfDataclasses())
    assert_trees_agree(found, gradient(params, carry, xs, GRU()), 0)


class WithoutStep:
    init, start = GRU.init, GRU.start


class Others(NamedTuple):
    weight_ih: Any
    w_hh: Any


FRESH = GRU().init(jax.random.key(0), 5, 4)


def run(gates=None, params=FRESH, carry=None, **options):
    xs = jnp.ones((7, 8, 5), jnp.float32)
    return jlstm.lstm(params, carry, xs, gates=GRU() if gates is None else gates, **options)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            lambda: run(WithoutStep()),
            TypeError,
            "gates: expected a cell.*init, start and step, got WithoutStep",
        ),
        (lambda: run(GRU), TypeError, "gates: expected a cell.*got type"),
        (lambda: Stack(sizes=4, gates=GRU), TypeError, "gates: expected a cell"),
        (
            lambda: run(carry=jlstm.init_carry(8, 4)),
            TypeError,
            "carry: expected GRUCarry, got Carry",
        ),
        (
            lambda: run(reset_to=jlstm.init_carry(8, 4)),
            TypeError,
            "reset_to: expected GRUCarry, got Carry",
        ),
        (
            lambda: run(carry=GRUCarry(jnp.ones((7, 4), jnp.float32))),
            ValueError,
            r"carry\.h: expected shape \[8, 4\], got \[7, 4\]",
        ),
        (
            lambda: run(carry=GRUCarry(jnp.ones((8, 4), jnp.float16))),
            TypeError,
            r"carry\.h: expected dtype float32, got float16",
        ),
        (
            lambda: run(params=Others(FRESH.w_ih, FRESH.w_hh)),
            TypeError,
            "params: expected weights with the fields w_ih and w_hh, got Others",
        ),
        (
            lambda: run(params=FRESH._asdict()),
            TypeError,
            "params: expected weights with the fields w_ih and w_hh, got dict",
        ),
        (
            lambda: run(params=FRESH._replace(w_ih=FRESH.w_ih[:, :2])),
            ValueError,
            r"params.w_ih: expected shape \[input, 3, 4\], got \[5, 2, 4\]",
        ),
        (
            lambda: run(params=FRESH._replace(w_hh=FRESH.w_hh[:, 0])),
            ValueError,
            r"params.w_hh: expected shape \[output, gates, hidden\], got \[4, 4\]",
        ),
        (
            lambda: run(params=FRESH._replace(w_ih=FRESH.w_ih.astype(np.float16))),
            TypeError,
            "params.w_ih: expected dtype float32, got float16",
        ),
        (
            lambda: Stack(sizes=4, output_sizes=2, gates=GRU()),
            ValueError,
            "output_sizes: expected None",
        ),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


# Carries of other kinds


class MemoryCarry(NamedTuple):
    h: Any  # [*batch, n]
    memory: Any  # [*batch, n, n], as of an mLSTM
    count: Any  # [*batch]


@dataclass(frozen=True)
class Memory:
    """A cell that remembers outer products, and how many steps it has seen."""

    def init(self, key, input_size, hidden_size, dtype=np.float64):
        params = GRU().init(key, input_size, hidden_size, dtype)
        return jax.tree.map(
            lambda w: w + 0.3 * jnp.cos(jnp.arange(w.size)).reshape(w.shape), params
        )

    def start(self, params, batch_shape):
        n, dtype = params.w_hh.shape[-1], params.w_hh.dtype
        shapes = (n,), (n, n), ()
        return MemoryCarry(*(jnp.zeros((*batch_shape, *shape), dtype) for shape in shapes))

    def step(self, own, x_part, h_part, carry, noise):
        k, v, q = jnp.split(jnp.tanh(x_part + h_part), 3, axis=-1)
        memory = 0.8 * carry.memory + k[..., :, None] * v[..., None, :]
        count = carry.count + 0.1
        h = jnp.sum(memory * q[..., :, None], axis=-2) / (1 + count[..., None])
        return MemoryCarry(h, memory, count)


@pytest.mark.parametrize("masks", [{}, {"lengths": True}, {"resets": True}, MASKS])
@pytest.mark.parametrize("derivative", ["vjp", "jvp"])
def test_a_carry_with_any_axes_after_the_batch(derivative, masks):
    # As many sequences as units: a mask along the wrong axis would fit.
    cell, (time, batch, n) = Memory(), (7, 3, 3)
    params = cell.init(jax.random.key(0), 4, n)
    xs = jax.random.normal(jax.random.key(1), (time, batch, 4), np.float64)
    carry = jax.tree.map(lambda a: a + jnp.sin(jnp.arange(a.size)).reshape(a.shape) ** 2,
                         cell.start(params, (batch,)))  # fmt: skip
    given = {
        "lengths": jnp.asarray([7, 4, 0]) if "lengths" in masks else None,
        "resets": jax.random.bernoulli(jax.random.key(2), 0.3, (time, batch))
        if "resets" in masks
        else None,
        "reset_to": jax.tree.map(lambda a: 0.5 * a, carry) if "reset_to" in masks else None,
    }

    def run(params, carry, xs, **options):
        return jlstm.lstm(params, carry, xs, gates=cell, chunk=3, **given, **options)

    def one(n):
        """A sequence by itself, in which no mask can go along a wrong axis."""
        pick = partial(jax.tree.map, lambda a: a[n])
        alone = {
            "lengths": given["lengths"] if given["lengths"] is None else given["lengths"][n],
            "resets": given["resets"] if given["resets"] is None else given["resets"][:, n],
            "reset_to": pick(given["reset_to"]),
        }
        return jlstm.lstm(params, pick(carry), xs[:, n], gates=cell, **alone)

    last, hs = run(params, carry, xs)
    for k in range(batch):
        expected = one(k)
        assert_trees_agree((jax.tree.map(lambda a, k=k: a[k], last), hs[:, k]), expected, ROUNDING)

    def loss(*point, **options):
        last, hs = run(*point, **options)
        return jnp.sum(hs**2) + sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(last))

    for residuals in ("gates", "carry", "chunks"):
        gradient = jax.jit(jax.grad(partial(loss, derivative=derivative, residuals=residuals),
                                    (0, 1, 2)))  # fmt: skip
        expected = jax.grad(partial(loss, derivative="autodiff"), (0, 1, 2))(params, carry, xs)
        assert_trees_agree(gradient(params, carry, xs), expected, ROUNDING)


@dataclass(frozen=True)
class Counting(Memory):
    def start(self, params, batch_shape):
        return super().start(params, batch_shape)._replace(count=jnp.zeros(batch_shape, int))


def test_a_carry_of_integers_is_refused():
    params = Memory().init(jax.random.key(0), 4, 3)
    with pytest.raises(TypeError, match=r"gates\.start: expected a floating-point dtype, got int"):
        jlstm.lstm(params, None, jnp.zeros((2, 4)), gates=Counting())
