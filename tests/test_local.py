"""The local derivative of every cell, step by step, against JAX's of the cell's own step."""

from functools import partial
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variant_witness import (
    ALL,
    CASES,
    NORMED,
    ROUNDING,
    any_options,
    inner,
    random_like,
    variant_of,
)
from witness import assert_trees_agree

from jlstm.equations import PLAIN
from jlstm.gates import Values
from jlstm.linear import flatten
from jlstm.local import _for_each, from_equations, local_of
from jlstm.slstm import SLSTM
from jlstm.types import replace

# name: (cell, options of its weights)
CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "plain, no bias": (PLAIN, {"bias": False}),
    "sLSTM": (SLSTM(heads=2), {}),
    "sLSTM, exponential": (SLSTM(heads=3, forget="exp"), {"bias": False}),
}


def variant_and_weights(options):
    output = {"output_size": 4} if options.get("projection") else {}
    return variant_of(options), {"bias": options.get("bias", True), **output}


CELLS |= {name: variant_and_weights(options) for name, options in (CASES | ALL).items()}


class Point(NamedTuple):
    """What the steps of a chunk start from, time leading; own is the weights of the cell's own."""

    params: Any
    own: Any
    x: Any
    h: Any
    before: Any
    noise: Any


def point_of(gates, weights, seed=0, *, time=3, batch=(2,)):
    """Normal entries; three inputs, six units, so that all sizes differ."""
    params = gates.init(jax.random.key(seed), 3, 6, dtype=np.float64, **weights)
    params = jax.tree.map(jnp.add, params, random_like(seed, params))
    before = random_like(seed + 1, gates.start(params, (time, *batch)))
    if hasattr(before, "n"):  # the normaliser of an sLSTM is 0, or at least 1
        before = before._replace(n=jnp.where(before.n < 0, 0, 1 + before.n))
    columns = jnp.zeros((time, *batch, params.w_ih[0].size))
    noise = None
    if gates.extras.noise is not None:
        keys = jax.random.split(jax.random.key(seed), batch)
        one = jax.tree.map(lambda a: a[0], before)
        drawn = [gates.extras.noise(keys, jnp.asarray(t), one) for t in range(time)]
        noise = jax.tree.map(lambda *masks: jnp.stack(masks), *drawn)
    x, h = random_like(seed + 2, (columns, columns))
    return Point(params, flatten(params, gates.extras.summed).own, x, h, before, noise)


def stepping(gates, noise):
    """(own, x·W, h'·U, carry') to the carry: the cell's step, for many steps one by one."""
    return lambda *primals: jax.vmap(gates.step, (None, 0, 0, 0, 0))(*primals, noise)


@partial(jax.jit, static_argnums=(0, 1))
def apart(local, gates, point, d, moving):
    """By ``Local``: the carries; cotangents of (own, x·W, h'·U, carry'); tangents of the carry.

    Tangents come from the transposes, as in the engine.
    """
    _, own, x, h, before, noise = point
    after, saved = local.forward(own, x, h, before, noise)
    values = Values(own, saved, before, after, noise)

    def each(function, *arrays):
        # As the walk through time does: one step at a time.
        return jax.lax.map(lambda step: function(*step), arrays)

    jac, pull = local.prepare(values)
    left, dh_of_each, d_before = each(pull, jac, d)
    dx, dh, d_own = local.gradient(values, left)

    # Half of the tangent of h'·U is known before the walk, the other half is found on the way.
    m_own, m_x, m_h, m_before = moving
    gradient = jax.linear_transpose(partial(local.gradient, values), left)
    (known,) = gradient((m_x, m_h / 2, m_own))

    def push(jac, d, *moving):
        return jax.linear_transpose(partial(pull, jac), d)(moving)[0]

    pushed = each(push, jac, d, known, m_h / 2, m_before)
    return after, (d_own, dx, dh, d_before), dh_of_each, pushed


@partial(jax.jit, static_argnums=0)
def together(gates, point, d, moving):
    """The same by JAX, of the cell's own step."""
    primals = point.own, point.x, point.h, point.before
    after, pull = jax.vjp(stepping(gates, point.noise), *primals)
    gradients = pull(d)
    return after, gradients, gradients[2], jax.jvp(stepping(gates, point.noise), primals, moving)[1]


def assert_is_the_derivative(local, gates, point, seed, tolerance):
    d = random_like(seed + 3, point.before)
    moving = random_like(seed + 4, (point.own, point.x, point.h, point.before))
    answer = apart(local, gates, point, d, moving)
    assert_trees_agree(answer, together(gates, point, d, moving), tolerance)
    _, gradients, _, pushed = answer
    # Each is the transpose of the other. The sums may cancel; their terms do not.
    size = inner(*(jax.tree.map(jnp.abs, tree) for tree in (gradients, moving)))
    assert abs(inner(gradients, moving) - inner(d, pushed)) <= tolerance * size


def tolerance_of(gates):
    return NORMED if getattr(gates, "layer_norm", False) else ROUNDING


@pytest.mark.parametrize("name", CELLS)
def test_the_local_derivative_is_that_of_the_step(name):
    gates, weights = CELLS[name]
    point = point_of(gates, weights)
    assert_is_the_derivative(local_of(gates), gates, point, 0, tolerance_of(gates))


def test_of_the_plain_cell_both_by_hand_and_from_the_equations():
    assert local_of(PLAIN) != from_equations(PLAIN)
    assert_is_the_derivative(from_equations(PLAIN), PLAIN, point_of(PLAIN, {}), 0, ROUNDING)


slstms = st.builds(
    SLSTM, heads=st.sampled_from([1, 2, 3, 6]), forget=st.sampled_from(["sigmoid", "exp"])
)
cells = st.one_of(
    st.tuples(st.just(PLAIN), st.fixed_dictionaries({"bias": st.booleans()})),
    st.tuples(slstms, st.fixed_dictionaries({"bias": st.booleans()})),
    any_options().map(variant_and_weights),
)


@hypothesis.given(
    cells,
    st.integers(0, 2**20),
    st.integers(1, 4),
    st.lists(st.integers(0, 3), max_size=2).map(tuple),
)
def test_the_local_derivative_of_any_cell_at_any_shape(cell, seed, time, batch):
    gates, weights = cell
    point = point_of(gates, weights, seed, time=time, batch=batch)
    assert_is_the_derivative(local_of(gates), gates, point, seed, tolerance_of(gates))


# What a cell says of itself


def test_all_cells_see_only_a_sum_but_for_layer_normalisation():
    both = {name for name, (gates, _) in CELLS.items() if not gates.extras.summed}
    normalised = {name for name, (gates, _) in CELLS.items() if getattr(gates, "layer_norm", False)}
    assert both == normalised != set()


@pytest.mark.parametrize("name", [n for n, (gates, _) in CELLS.items() if gates.extras.summed])
def test_a_summed_cell_sees_only_the_sum_of_the_products_and_the_bias(name):
    gates, weights = CELLS[name]
    point = point_of(gates, weights)
    own = replace(point.params, w_ih=None, w_hh=None)
    bias = 0.0 if own.b is None else own.b.reshape(1, 1, -1)
    assert point.own.b is None
    expected = gates.step(own, point.x, point.h, point.before, point.noise)
    total = point.x + point.h + bias
    summed = gates.step(point.own, jnp.zeros(()), total, point.before, point.noise)
    assert_trees_agree(summed, expected, ROUNDING)


# What is prepared for each step


def test_what_is_the_same_at_every_step_is_not_copied():
    m, shift = jnp.arange(15.0).reshape(3, 5), jnp.ones(5)
    steps = jnp.ones((7, 3))

    def make(a):
        return jax.vjp(lambda a: jnp.sin(a) @ m + shift, a)[1]

    each, rebuild = _for_each(make, steps)
    assert [a.shape for a in each] == [(7, 3)]
    for t in range(7):
        (found,) = rebuild([a[t] for a in each])(jnp.ones(5))
        np.testing.assert_allclose(found, jnp.cos(steps[t]) * m.sum(1), rtol=ROUNDING)


def test_where_nothing_differs_from_step_to_step_nothing_is_kept():
    m = jnp.arange(15.0).reshape(3, 5)
    each, rebuild = _for_each(lambda a: jax.vjp(lambda a: a @ m, a)[1], jnp.ones((7, 3)))
    assert each == []
    np.testing.assert_array_equal(rebuild([])(jnp.ones(5))[0], m.sum(1))


@pytest.mark.parametrize("name", ["projection", "everything"])
def test_a_projection_is_not_copied_for_each_step(name):
    gates, weights = CELLS[name]
    _, own, x, h, before, noise = point_of(gates, weights)
    assert own.w_hr.shape == (6, 4)
    local = local_of(gates)
    after, saved = local.forward(own, x, h, before, noise)
    jac, _ = local.prepare(Values(own, saved, before, after, noise))
    shapes = [a.shape for a in jax.tree.leaves(jac)]
    # Three steps of two sequences, and of each a vector; or one number, of its normalisation.
    assert shapes
    assert all(shape[:2] == (3, 2) and len(shape) <= 3 for shape in shapes)
