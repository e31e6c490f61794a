"""What is random in variants: rates, independence, and that the same key draws the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variant_witness import (
    NOISE,
    QUIET,
    SOME,
    TOGETHER,
    problem_of,
    pulled_back,
    random_like,
    variant_of,
)
from witness import assert_trees_agree, relative_error

import jlstm
from jlstm.variants import Variant, VariantParams

# Randomness

# Where a count of random numbers is off by 5 standard errors, once in two million is by chance.
Z = 5


def masks_of(gates, seed=0, batch=40, hidden=300, output=200, t=5):
    keys = jax.random.split(jax.random.key(seed), batch)
    carry = jlstm.init_carry(batch, hidden, np.float64, output_size=output)
    noise = gates.extras.noise(keys, jnp.asarray(t), carry)
    return {
        "zoneout_h": noise.h,
        "zoneout_c": noise.c,
        "recurrent_dropout": noise.g,
        "state_dropout": gates.extras.mask(keys, carry.h),
    }


def test_masks_have_the_rates_asked_for():
    for name, mask in masks_of(Variant(**NOISE)).items():
        mask, rate = np.asarray(mask), NOISE[name]
        dropped = "dropout" in name
        assert set(np.unique(mask)) == {0, 1 / (1 - rate) if dropped else 1}
        share = np.mean(mask == 0) if dropped else np.mean(mask)
        assert abs(share - rate) < Z * np.sqrt(rate * (1 - rate) / mask.size), name
        for axis in (0, 1):  # for each sequence and for each unit
            shares = np.mean(mask != 0, axis=axis)
            spread = np.sqrt(rate * (1 - rate) / mask.shape[axis])
            assert np.all(abs(shares - (1 - rate if dropped else rate)) < Z * spread), name


def test_masks_are_independent_of_each_other_and_from_step_to_step():
    gates = Variant(**dict.fromkeys(NOISE, 0.5))
    sizes = {"batch": 60, "hidden": 250, "output": 250}
    some = [*masks_of(gates, **sizes).values(), *masks_of(gates, t=6, **sizes).values()]
    some.pop()  # the mask on the state is the same at every step
    flat = np.stack([np.ravel(mask) for mask in some])
    np.testing.assert_array_less(np.abs(np.corrcoef(flat) - np.eye(7)), Z / np.sqrt(60 * 250))
    a, b = masks_of(gates)["state_dropout"], masks_of(gates, t=6)["state_dropout"]
    np.testing.assert_array_equal(a, b)
    rows = np.corrcoef(np.asarray(some[0]))  # sequences
    np.testing.assert_array_less(np.abs(rows - np.eye(60)), Z / np.sqrt(250))


def test_the_expectation_over_masks_is_the_step_without_noise():
    gates = Variant(zoneout_h=0.3, zoneout_c=0.4, recurrent_dropout=0.25)
    many, hidden = 20_000, 3
    params, carry, xs, _ = problem_of({}, time=1, batch=(1,), hidden=hidden, masks=False).point
    params = VariantParams(*params)
    carry = jlstm.Carry(*(jnp.broadcast_to(a, (many, hidden)) for a in carry))
    x = jnp.broadcast_to(xs[0], (many, 5))
    drawn, _ = jlstm.cell(params, carry, x, gates=gates, key=jax.random.key(5), t=0)
    mean, _ = jlstm.cell(params, carry, x, gates=gates.without_noise())
    error = np.abs(np.mean(drawn.c, axis=0) - mean.c[0])
    assert np.all(error < Z * np.std(drawn.c, axis=0) / np.sqrt(many))
    # h is no linear function of the mask on the candidate; of its own it is.
    gates = Variant(zoneout_h=0.3)
    drawn, _ = jlstm.cell(params, carry, x, gates=gates, key=jax.random.key(5), t=0)
    mean, _ = jlstm.cell(params, carry, x, gates=gates.without_noise())
    error = np.abs(np.mean(drawn.h, axis=0) - mean.h[0])
    assert np.all(error < Z * np.std(drawn.h, axis=0) / np.sqrt(many))


def test_without_noise_needs_no_key_and_nothing_else_changes():
    gates = variant_of(TOGETHER)
    assert gates.extras.random
    assert not gates.without_noise().extras.random
    assert gates.without_noise() == variant_of(QUIET)


@pytest.mark.parametrize("name", NOISE)
def test_each_rate_makes_it_random(name):
    assert Variant(**{name: 0.1}).extras.random
    assert not Variant().extras.random


def test_the_same_key_draws_the_same_however_it_is_computed():
    problem = problem_of(SOME | {"state_dropout": 0.35, "zoneout_h": 0.3}, batch=(4,))
    params, carry, xs, reset_to = problem.point
    expected = problem.lstm(*problem.point)
    for options in (
        {"chunk": 1},
        {"chunk": 3, "derivative": "jvp"},
        {"residuals": "chunks", "chunk": 2},
        {"derivative": "autodiff"},
        {"unroll": 3},
    ):
        assert_trees_agree(problem.lstm(*problem.point, **options), expected)
    common = {"gates": problem.gates, "key": problem.key, "reset_to": reset_to}
    cut = jax.jit(partial(jlstm.over_devices(), **common, **problem.masks, chunk=2))
    assert_trees_agree(cut(params, carry, xs), expected)
    other = problem.lstm(*problem.point, jax.random.key(99))
    assert relative_error(np.asarray(other[1]), np.asarray(expected[1])) > 0.1


def test_gradients_over_devices():
    problem = problem_of(SOME | {"state_dropout": 0.35}, batch=(4,), time=4)

    def gradient(layer):
        def loss(params, xs):
            carry, hs = layer(params, None, xs, gates=problem.gates, key=problem.key)
            return jnp.sum(hs**3) + jnp.sum(carry.c**2)

        return jax.jit(jax.grad(loss, (0, 1)))(problem.point[0], problem.point[2])

    assert_trees_agree(gradient(jlstm.over_devices()), gradient(jlstm.lstm))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_cell_step_by_step_is_lstm(batch):
    problem = problem_of(TOGETHER, batch=batch, masks=False, time=4)
    params, carry, xs, _ = problem.point
    (last, hs), step = (
        problem.lstm(*problem.point),
        jax.jit(partial(jlstm.cell, gates=problem.gates)),
    )
    for t in range(4):
        carry, h = step(params, carry, xs[t], key=problem.key, t=t)
        assert_trees_agree(h, hs[t])
    assert_trees_agree(carry, last)


def test_a_sequence_draws_the_same_in_any_batch():
    problem = problem_of(SOME | {"state_dropout": 0.35}, masks=False)
    params, carry, xs, _ = problem.point
    keys = jax.random.split(problem.key, 8)
    (_, hs) = problem.lstm(params, carry, xs, None, keys)
    # One key for all is split into these.
    assert_trees_agree(problem.lstm(*problem.point)[1], hs, 0)
    part = jax.tree.map(lambda a: a[5:6], carry)
    assert_trees_agree(problem.lstm(params, part, xs[:, 5:6], None, keys[5:6])[1], hs[:, 5:6])


def test_a_sequence_draws_the_same_without_a_batch():
    problem = problem_of(SOME, masks=False)
    params, carry, xs, _ = problem.point
    keys = jax.random.split(problem.key, 8)
    (_, hs) = problem.lstm(params, carry, xs, None, keys)
    alone = jax.tree.map(lambda a: a[5], carry)
    assert_trees_agree(problem.lstm(params, alone, xs[:, 5], None, keys[5])[1], hs[:, 5])


def test_either_kind_of_key():
    problem = problem_of(SOME, masks=False)
    old, new = (make(3) for make in (jax.random.PRNGKey, jax.random.key))
    for key in (old, np.asarray(old)):
        assert_trees_agree(problem.lstm(*problem.point, key), problem.lstm(*problem.point, new), 0)


@pytest.mark.parametrize("layer", [jlstm.lstm, jlstm.over_devices()])
def test_raw_keys_one_for_each_sequence(layer):
    problem = problem_of(SOME, masks=False)
    params, carry, xs, _ = problem.point
    keys = jax.random.split(jax.random.key(3), 8)
    run = jax.jit(partial(layer, gates=problem.gates))
    expected = run(params, carry, xs, key=keys)
    assert_trees_agree(run(params, carry, xs, key=jax.random.key_data(keys)), expected, 0)


IMPLEMENTATIONS = ["threefry2x32", "rbg", pytest.param("unsafe_rbg", marks=pytest.mark.slow)]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_the_backward_pass_draws_what_the_forward_pass_drew(impl):
    problem = problem_of(dict.fromkeys(NOISE, 0.5), time=6, batch=(4,))
    problem = problem._replace(key=jax.random.key(2, impl=impl))
    expected = pulled_back(problem, derivative="autodiff")
    for derivative, residuals in [("vjp", "gates"), ("vjp", "chunks"), ("jvp", "carry")]:
        how = {"derivative": derivative, "residuals": residuals, "chunk": 4}
        assert_trees_agree(pulled_back(problem, **how), expected)
    tangent = random_like(3, problem.point)

    def along(**how):
        return jax.jit(lambda: jax.jvp(partial(problem.lstm, **how), problem.point, tangent))()

    assert_trees_agree(along(derivative="jvp", chunk=4), along(derivative="autodiff"))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradients_over_examples_draw_what_the_forward_pass_drew(impl):
    problem = problem_of(dict.fromkeys(NOISE, 0.5), time=4, batch=(3,), masks=False)
    params, carry, xs, _ = problem.point
    keys = jax.random.split(jax.random.key(2, impl=impl), 3)

    def gradients(derivative):
        def loss(params, carry, xs, key):
            after, hs = problem.lstm(params, carry, xs, None, key, derivative=derivative)
            return jnp.sum(hs**3) + jnp.sum(after.c)

        each = jax.vmap(jax.value_and_grad(loss), (None, 0, 1, 0))
        return jax.jit(each)(params, carry, xs, keys)

    assert_trees_agree(gradients("vjp"), gradients("autodiff"))


def kept_by(options, **how):
    """The numbers that a backward pass keeps, without the integers that count the steps."""
    problem = problem_of(options, time=12, masks=False)
    _, pull_back = jax.vjp(partial(problem.lstm, chunk=4, **how), *problem.point)
    leaves = [a for a in jax.tree.leaves(pull_back) if jnp.issubdtype(a.dtype, jnp.floating)]
    return sum(a.size for a in leaves)


@pytest.mark.parametrize("residuals", ["gates", "carry", "chunks"])
def test_masks_are_drawn_again_rather_than_kept(residuals):
    quiet = kept_by({}, residuals=residuals)
    step_by_step = {"zoneout_h": 0.3, "zoneout_c": 0.4, "recurrent_dropout": 0.25}
    assert kept_by(step_by_step, residuals=residuals) == quiet
    # One mask for each of 8 sequences of 10 units.
    assert kept_by({"state_dropout": 0.3}, residuals=residuals) == quiet + 8 * 10


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_random_sequence_in_pieces_is_the_sequence(impl):
    gates = Variant(zoneout_c=0.5, recurrent_dropout=0.3, state_dropout=0.2)
    weights = gates.init(jax.random.key(0), 3, 4, dtype=jnp.float64)
    xs = jax.random.normal(jax.random.key(1), (7, 2, 3), jnp.float64)
    how = {"gates": gates, "key": jax.random.key(2, impl=impl)}
    carry, first = jlstm.lstm(weights, None, xs[:3], **how)
    carry, second = jax.jit(partial(jlstm.lstm, **how))(weights, carry, xs[3:], t=jnp.array(3))
    whole = jlstm.lstm(weights, None, xs, **how)
    assert_trees_agree((carry, jnp.concatenate([first, second])), whole)


def test_a_random_cell_wants_the_number_of_its_step():
    gates = Variant(zoneout_c=0.5)
    weights = gates.init(jax.random.key(0), 3, 4)
    with pytest.raises(ValueError, match="t: expected the number of the step, as gates is random"):
        jlstm.cell(
            weights,
            jlstm.init_carry((), 4),
            jnp.ones(3, jnp.float32),
            gates=gates,
            key=jax.random.key(0),
        )
