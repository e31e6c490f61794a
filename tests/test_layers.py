"""Stacks against layers called one by one, a NumPy loop and autodiff; and what goes around them."""

import pickle
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import witness
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from witness import equations_of

import jlstm
from jlstm import Carry, LSTMParams, Stack, Variant, VariantParams, activations, init_stack, stack
from jlstm.dropout import dropout_mask
from jlstm.equations import PLAIN
from jlstm.layers import (
    LayerParams,
    batch_major,
    drop_weights,
    init_stack_carry,
    last,
    maximum,
    mean,
)

# float64 rounds at 1.1e-16; a gradient here is a sum of some hundred terms through a few layers.
ROUNDING = 1e-12

COUPLED = Variant(coupled=True, peepholes=True)
CONFIGS = {
    "one layer": Stack(sizes=4),
    "chain": Stack(sizes=(4, 3, 2)),
    "residual": Stack(sizes=(3, 3, 3), connections="residual", learned_carry=True),
    "skip": Stack(sizes=(4, 3, 2), connections="skip"),
    "reverse": Stack(sizes=(4, 2), reverse=True, learned_carry=True),
    "two ways": Stack(sizes=(2, 3), bidirectional=True),
    "two ways, residual": Stack(sizes=(2, 2), bidirectional=True, connections="residual"),
    "two ways, skip": Stack(
        sizes=(2, 3), bidirectional=True, connections="skip", learned_carry=True
    ),
    "cells": Stack(sizes=[3, 4], gates=[PLAIN, COUPLED], learned_carry=True),
    "projections": Stack(
        sizes=(4, 5), output_sizes=2, gates=Variant(), connections="residual", learned_carry=True
    ),
    "a cell for each way": Stack(
        sizes=(3, 2), gates=(PLAIN, [COUPLED, PLAIN]), bidirectional=True, learned_carry=True
    ),
    "one projection": Stack(
        sizes=(3, 4), output_sizes=(None, 2), gates=(PLAIN, Variant()), bidirectional=True
    ),
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)

LENGTHS = np.asarray([7, 4, 0])
RESETS = np.zeros((7, 3), bool)
RESETS[[0, 2, 3, 6, 1, 3, 6], [0, 0, 0, 0, 1, 1, 2]] = True
MASKS = {"lengths": LENGTHS, "resets": RESETS}


def random_like(seed, tree, scale=1.0):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(scale * draw.standard_normal(a.shape)), tree)


def problem_of(config, seed=0, *, time=7, batch=(3,), inputs=3):
    """(params, carry, xs), all of them random: biases and learned carries, too."""
    shapes = jax.eval_shape(lambda: init_stack(jax.random.key(0), inputs, config))
    params = random_like(seed, shapes, 0.6)
    xs = random_like(seed + 1, jnp.zeros((time, *batch, inputs)))
    carry, _ = jax.eval_shape(partial(stack, config.without_noise()), params, None, xs)
    return params, random_like(seed + 2, carry), xs


def assert_trees_agree(actual, expected, tolerance=ROUNDING):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    witness.assert_trees_agree(actual, expected, tolerance)


def loss_of(config, **options):
    """A loss of (params, carry, xs) that uses every output, nonlinearly."""

    def loss(params, carry, xs):
        carry, hs = stack(config, params, carry, xs, **options)
        weights = random_like(9, hs)
        return jnp.vdot(hs**3, weights) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

    return loss


# Values


def by_hand(config, params, carry, xs, *, resets=None, **options):
    """The equations of the module, written out for nothing random."""
    batch = xs.shape[1:-1]
    ahead = None if resets is None else np.append(resets[1:], np.zeros((1, *batch), bool), axis=0)

    def walk(weights, before, start, x, gates, reverse):
        if start is not None:
            start = jax.tree.map(lambda a: jnp.tile(a, (*batch, 1)), start)
        before = start if before is None else before
        masks = {"resets": ahead if reverse else resets, "reset_to": start, "reverse": reverse}
        return jlstm.lstm(weights, before, x, gates=gates, **masks, **options)

    carries, outs, x = [], [], xs
    for n, (forward, backward, start) in enumerate(params):
        ways = config.gates[n] if isinstance(config.gates[n], tuple) else (config.gates[n],) * 2
        start, before = start or (None, None), carry and carry[n]
        if not config.bidirectional:
            after, h = walk(forward, before, start[0], x, ways[0], config.reverse)
        else:
            before = before or (None, None)
            first, h_first = walk(forward, before[0], start[0], x, ways[0], False)
            second, h_second = walk(backward, before[1], start[1], x, ways[1], True)
            after, h = (first, second), jnp.concatenate([h_first, h_second], axis=-1)
        h = h + x if config.connections == "residual" and n else h
        x = jnp.concatenate([h, xs], axis=-1) if config.connections == "skip" else h
        carries.append(after)
        outs.append(h)
    out = jnp.concatenate(outs, axis=-1) if config.connections == "skip" else outs[-1]
    return tuple(carries), out


@configs
def test_a_copy_of_a_stack_is_the_same_stack(config):
    for copy in (deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copy == config
        assert hash(copy) == hash(config)
        known = vars(activations) | {"Stack": Stack, "Variant": Variant, "PLAIN": PLAIN}
        assert eval(repr(copy), known) == config


@pytest.mark.grid(3)
@configs
@pytest.mark.parametrize("streamed", [False, True])
def test_a_stack_is_its_layers_one_by_one(config, streamed):
    params, carry, xs = problem_of(config)
    # Learned carries are what a sequence starts from, and what a reset puts in place.
    carry, masks = (carry, MASKS) if streamed else (None, {})
    answer = stack(config, params, carry, xs, **masks)
    assert_trees_agree(answer, by_hand(config, params, carry, xs, **masks), 0)
    assert answer[1].shape == (7, 3, config.output_size)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_deep_stack_is_the_loop_in_numpy(bidirectional):
    config = Stack(sizes=(4, 3, 2, 3), bidirectional=bidirectional, learned_carry=True)
    params, _, xs = problem_of(config)
    carry, hs = stack(config, params, None, xs, lengths=LENGTHS)
    expected = np.asarray(xs)
    for n, layer in enumerate(params):
        ways = []
        for back, weights in enumerate(layer[: 1 + bidirectional]):
            first = [np.tile(a, (3, 1)) for a in layer.start[back]]
            out = oracle.forward(*weights, *first, expected, lengths=LENGTHS, reverse=bool(back))
            after = carry[n][back] if bidirectional else carry[n]
            assert_trees_agree(after, Carry(out.h, out.c))
            ways.append(out.hs)
        expected = np.concatenate(ways, axis=-1)
    assert_trees_agree(hs, expected)


@configs
def test_the_weights_are_those_that_the_layers_take(config):
    params = init_stack(jax.random.key(0), 6, config, forget_bias=2.0)
    width = 6
    for layer, cell, output in zip(params, config.cells, config.outputs, strict=True):
        ways = layer[: 1 + config.bidirectional]
        assert (layer.backward is None) is (not config.bidirectional)
        for way, gates in zip(ways, cell.ways, strict=False):
            assert isinstance(way, LSTMParams if gates is PLAIN else VariantParams)
            coupled = gates is COUPLED
            assert way.w_ih.shape == (width, 4 - coupled, cell.size)
            assert way.w_hh.shape == (output // len(ways), 4 - coupled, cell.size)
            np.testing.assert_array_equal(way.b[0 if coupled else 1], -2 if coupled else 2)
        assert (layer.start is None) is (not config.learned_carry)
        for start in layer.start or ():
            assert (start.h.shape, start.c.shape) == ((output // len(ways),), (cell.size,))
            assert not np.any(start.h)
            assert not np.any(start.c)
        width = output + (6 if config.connections == "skip" else 0)


def test_all_weights_are_drawn_on_their_own_in_one_dtype():
    config = Stack(sizes=(6, 3, 3), gates=[PLAIN] * 2 + [Variant()], bidirectional=True)
    params = init_stack(jax.random.key(0), 6, config, bias=False, dtype=jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    ways = [way for layer in params for way in layer[:2]]
    assert all(way.b is None for way in ways)
    for name in ("w_ih", "w_hh"):
        assert len({tuple(getattr(way, name).ravel()[:8].tolist()) for way in ways}) == 6


# Sequences of different lengths, and several in one


@pytest.mark.grid(3)
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("connections", ["residual", "skip"])
def test_nothing_leaks_over_a_border_or_from_the_padding(learned, connections):
    config = Stack(sizes=(3, 3), bidirectional=True, connections=connections, learned_carry=learned)
    params, _, xs = problem_of(config)
    carry, hs = stack(config, params, None, xs, **MASKS)
    # One sequence has no steps at all.
    for n, length in enumerate(LENGTHS):
        inner = [t for t in range(1, length) if RESETS[t, n]]
        episodes = [xs[a:b, n] for a, b in pairwise([0, *inner, length])]
        alone = [stack(config, params, None, episode) for episode in episodes]
        assert_trees_agree(hs[:length, n], jnp.concatenate([out for _, out in alone]))
        # The way forward ends in the last episode, the way back in the first.
        for after, final, initial in zip(carry, alone[-1][0], alone[0][0], strict=True):
            after = jax.tree.map(lambda a, n=n: a[n], after)
            assert_trees_agree(after, (final[0], initial[1]))


def test_a_reset_at_a_padded_step_does_nothing():
    config = Stack(sizes=3, bidirectional=True)
    params, carry, xs = problem_of(config)
    lengths = np.asarray([2, 4, 6])
    resets = np.arange(7)[:, None] == lengths
    answer = stack(config, params, carry, xs, lengths=lengths, resets=resets)
    assert_trees_agree(answer, stack(config, params, carry, xs, lengths=lengths))


@hypothesis.settings(max_examples=12)
@hypothesis.given(
    cuts=st.lists(st.integers(0, 5), max_size=4),
    connections=st.sampled_from(["chain", "residual", "skip"]),
    learned=st.booleans(),
    given=st.booleans(),
)
def test_a_sequence_in_pieces_is_the_sequence(cuts, connections, learned, given):
    config = Stack(sizes=(3, 3), connections=connections, learned_carry=learned)
    params, carry, xs = problem_of(config, time=5)
    resets = RESETS[:5]
    carry = carry if given else None
    whole = stack(config, params, carry, xs, resets=resets)
    outputs = []
    for a, b in pairwise([0, *sorted(cuts), 5]):
        carry, hs = stack(config, params, carry, xs[a:b], resets=resets[a:b])
        outputs.append(hs)
    # To rounding, as a product's order of sums may depend on the number of its rows.
    assert_trees_agree((carry, jnp.concatenate(outputs)), whole, 1e-14)


@pytest.mark.parametrize(
    ("kind", "variational"),
    [("chain", False), ("residual", True), ("skip", True), ("two ways, residual", True)],
)
def test_nan_in_the_padding_has_no_influence(kind, variational):
    config = replace(CONFIGS[kind], input_dropout=0.3, variational=variational)
    params, carry, xs = problem_of(config)
    padding = np.arange(7)[:, None] >= LENGTHS
    spoilt = jnp.where(padding[..., None], np.nan, xs)

    @jax.jit
    def run(xs):
        options = {"key": jax.random.key(0), "lengths": LENGTHS}
        out, pull_back = jax.vjp(lambda *point: stack(config, *point, **options), params, carry, xs)
        return out, pull_back(out)

    answer = run(spoilt)
    assert_trees_agree(answer, run(xs), 0)
    (_, hs), (*_, dxs) = answer
    np.testing.assert_array_equal(hs[padding], 0)
    np.testing.assert_array_equal(dxs[padding], 0)


@pytest.mark.grid(5)
@pytest.mark.parametrize("time", [0, 4])
@pytest.mark.parametrize("batch", [(), (0,), (2, 3)])
@pytest.mark.parametrize("kind", ["residual", "two ways, skip"])
def test_any_number_of_sequences(time, batch, kind):
    config, many = CONFIGS[kind], int(np.prod(batch))
    params, carry, xs = problem_of(config, time=time, batch=batch)
    resets = np.ones((time, *batch), bool)
    after, hs = stack(config, params, carry, xs, resets=resets)
    assert hs.shape == (time, *batch, config.output_size)
    if not time:
        assert_trees_agree(after, carry, 0)

    def flat(carry):
        return jax.tree.map(lambda a: a.reshape(many, a.shape[-1]), carry)

    xs, resets = xs.reshape(time, many, 3), resets.reshape(time, many)
    answer = stack(config, params, flat(carry), xs, resets=resets)
    assert_trees_agree((flat(after), hs.reshape(time, many, hs.shape[-1])), answer, 0)


def test_equal_stacks_compile_once():
    run = jax.jit(stack, static_argnums=0)
    params, carry, xs = problem_of(Stack(sizes=(3, 3)))
    for sizes, gates in [((3, 3), PLAIN), ([3, 3], (PLAIN, PLAIN)), ([3, 3], [PLAIN] * 2)]:
        run(Stack(sizes=sizes, gates=gates, output_sizes=[None, None]), params, carry, xs)
    for copied in (deepcopy, lambda config: pickle.loads(pickle.dumps(config))):
        run(copied(Stack(sizes=(3, 3))), params, carry, xs)
    assert run._cache_size() == 1
    assert Stack(sizes=3) == Stack(sizes=[3]) != Stack(sizes=4)


# Derivatives

DROPPED = {"input_dropout": 0.2, "dropout": 0.3, "output_dropout": 0.25}
RICH = Stack(
    sizes=(3, 2),
    gates=(PLAIN, Variant(peepholes=True)),
    bidirectional=True,
    connections="skip",
    learned_carry=True,
)


@pytest.fixture(scope="module")
def rich():
    """A point and the gradient there, by autodiff."""
    point = problem_of(RICH)
    loss = loss_of(RICH, derivative="autodiff", **MASKS)
    return point, jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*point)


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("derivative", "residuals", "around"),
    [
        ("vjp", "gates", jax.checkpoint),
        ("vjp", "carry", lambda f: f),
        ("vjp", "chunks", lambda f: f),
        ("jvp", "gates", lambda f: f),
    ],
)
def test_gradients_of_everything(rich, derivative, residuals, around):
    point, expected = rich
    # In one chunk, which compiles soonest.
    loss = loss_of(RICH, derivative=derivative, residuals=residuals, chunk=7, **MASKS)
    answer = jax.jit(jax.grad(around(loss), argnums=(0, 1, 2)))(*point)
    assert_trees_agree(answer, expected)
    # Even a carry that is given leaves something to the learned one: resets put it in place.
    assert all(np.any(a) for a in jax.tree.leaves(answer))


@pytest.mark.grid(3)
@pytest.mark.parametrize(
    ("variational", "impl"),
    [(True, "threefry2x32"), (False, "threefry2x32"), (True, "rbg"), (False, "unsafe_rbg")],
)
def test_gradients_are_slopes(variational, impl):
    gates = [PLAIN, replace(COUPLED, zoneout_c=0.3)]
    config = replace(CONFIGS["cells"], gates=gates, variational=variational, **DROPPED)
    params, _, xs = problem_of(config, time=4)
    key = jax.random.key(0, impl=impl)

    @jax.jit
    def loss(params, carry, xs):
        return loss_of(config, key=key)(drop_weights(key, params, 0.3), carry, xs)

    direction = random_like(5, params)

    def along(step):
        return loss(jax.tree.map(lambda a, d: a + step * d, params, direction), None, xs)

    gradient = jax.jit(jax.grad(loss))(params, None, xs)
    assert all(np.any(a) for a in jax.tree.leaves(gradient))  # learned carries included
    products = jax.tree.map(jnp.vdot, gradient, direction)
    # Central differences over 2e-6 of values of about 100, which round at 1e-14.
    slope = (along(1e-6) - along(-1e-6)) / 2e-6
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-6)


def test_hessian_vector_products():
    config = Stack(sizes=(2, 2), connections="residual", learned_carry=True)
    point = problem_of(config, time=3)
    vector = random_like(1, point)

    def product(derivative):
        slope = jax.grad(loss_of(config, derivative=derivative), argnums=(0, 1, 2))
        return jax.jit(lambda *point: jax.jvp(slope, point, vector)[1])(*point)

    assert_trees_agree(product("vjp"), product("autodiff"))


def test_vmap_over_ensembles_is_a_loop():
    config = Stack(sizes=2, bidirectional=True, learned_carry=True)
    members = [problem_of(config, seed)[0] for seed in range(3)]
    _, carry, xs = problem_of(config)
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    gradient = jax.jit(jax.grad(loss_of(config, **MASKS)))
    mapped = jax.jit(jax.vmap(gradient, (0, None, None)))(many, carry, xs)
    for n, params in enumerate(members):
        one = jax.tree.map(lambda a, n=n: a[n], mapped)
        assert_trees_agree(one, gradient(params, carry, xs))


def test_per_example_gradients_add_up():
    config = Stack(sizes=(3, 3), connections="residual", learned_carry=True)
    params, _, xs = problem_of(config)

    def loss(params, xs, resets, lengths):
        _, hs = stack(config, params, None, xs, resets=resets, lengths=lengths)
        return jnp.sum(hs**3)

    each = jax.jit(jax.vmap(jax.grad(loss), (None, 1, 1, 0)))(params, xs, RESETS, LENGTHS)
    total = jax.jit(jax.grad(loss))(params, xs, RESETS, LENGTHS)
    assert_trees_agree(jax.tree.map(lambda a: a.sum(0), each), total)


# What is random


def seen_by(config, time=6, batch=5, width=8):
    """What stubs for layers are given and the stack gives, where all that is not dropped is 1.

    As the stubs give ones, whatever they get, each of these is one mask: (one for each call, that
    of the outputs, the keys of the cells).
    """
    seen, keys = [], []

    def stub(weights, carry, xs, *, gates, lengths, resets, reverse, key=None, t=0):
        seen.append(np.asarray(xs))
        keys.append(key)
        return Carry(xs[-1], xs[-1]), jnp.ones((time, batch, width))

    back = () if config.bidirectional else None  # stubs need no weights
    params = (LayerParams(None, back),) * len(config.sizes)
    xs = jnp.ones((time, batch, width))
    _, out = stack(config, params, None, xs, key=jax.random.key(1), layer=stub)
    return seen, np.asarray(out), keys


SITES = {
    "inputs": {"input_dropout": 0.4},
    "between": {"dropout": 0.4},
    "outputs": {"output_dropout": 0.4},
    "cells": {"gates": (Variant(), Variant(state_dropout=0.4))},
}


@pytest.mark.parametrize("site", SITES)
def test_each_site_alone_changes_results(site):
    config = Stack(sizes=(3, 3), **{"gates": Variant()} | SITES[site])
    quiet = config.without_noise()
    assert (config.random, quiet.random) == (True, False)
    run = partial(stack, config, *problem_of(config))
    one, same, other = (run(key=jax.random.key(n))[1] for n in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
    assert np.any(one != stack(quiet, *problem_of(config))[1])
    with pytest.raises(ValueError, match=r"^key: expected a key of jax.random, .*, got None"):
        run()


@pytest.mark.parametrize("site", ["inputs", "between", "outputs"])
@pytest.mark.parametrize("variational", [True, False])
@pytest.mark.parametrize("connections", ["chain", "skip"])
def test_each_site_drops_what_it_says(site, variational, connections):
    config = Stack(sizes=(8, 8), variational=variational, connections=connections, **SITES[site])
    (first, second), out, _ = seen_by(config)
    handed, again = (second, first) if connections == "chain" else np.split(second, 2, axis=-1)
    # The inputs that a skip hands to the layers above are the ones that the first layer sees.
    np.testing.assert_array_equal(again, first)
    masks = {"inputs": first, "between": handed, "outputs": out}
    for name, mask in masks.items():
        assert set(np.unique(mask)) == ({0, 1 / 0.6} if name == site else {1})
    mask = masks[site]
    # Sequences have masks of their own, and steps where they are drawn anew.
    assert len(np.unique(mask, axis=1)[0]) == 5
    assert len(np.unique(mask, axis=0)) == (1 if variational else 6)


def test_rates_are_as_asked_and_masks_independent():
    config = Stack(sizes=(40, 40, 40), gates=Variant(zoneout_h=0.1), **DROPPED)
    seen, out, keys = seen_by(config, time=1, batch=500, width=40)
    masks = [mask[0] for mask in (*seen, out)]
    for mask, rate in zip(masks, (0.2, 0.3, 0.3, 0.25), strict=True):
        deviation = np.sqrt(rate * (1 - rate) / mask.size)
        assert abs(np.mean(mask == 0) - rate) < 4 * deviation
        assert abs(mask.mean() - 1) < 4 * deviation / (1 - rate)  # on average nothing changes
        for axis in (0, 1):  # each feature and each sequence by itself: the worst of 540
            off = np.abs(np.mean(mask == 0, axis) - rate)
            assert np.max(off) < 5 * deviation * np.sqrt(off.size)
    # What the cells would draw with their keys is one more mask each.
    masks += [np.asarray(dropout_mask(key, 0.3, 40, "f8")) for key in keys]
    for one, other in combinations(masks, 2):
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(one.size)


def test_every_layer_and_direction_has_keys_of_its_own():
    config = Stack(sizes=(8, 8, 8), bidirectional=True, gates=Variant(zoneout_h=0.1))
    *_, keys = seen_by(config)
    data = np.concatenate([jax.random.key_data(key) for key in keys])
    assert len(data) == len(np.unique(data, axis=0)) == 2 * 3 * 5


def test_the_same_key_the_same_results():
    config = Stack(sizes=(3, 3), gates=Variant(zoneout_h=0.3), variational=False, **DROPPED)
    params, carry, xs = problem_of(config, batch=(4,))
    run = partial(stack, config, params, carry, xs)
    key = jax.random.key(7)
    expected = run(key=key)
    options = {"chunk": 2, "derivative": "jvp", "residuals": "carry"}
    assert_trees_agree(run(key=key, **options), expected)
    inside = jax.jit(partial(run, layer=jlstm.over_devices()))
    assert_trees_agree(inside(key=key), expected)
    # One key for each sequence is that sequence's, whoever else is there.
    keys = jax.random.split(jax.random.key(8), 4)
    _, hs = run(key=keys)
    some = jax.tree.map(lambda a: a[1:3], carry)
    _, alone = stack(config, params, some, xs[:, 1:3], key=keys[1:3])
    assert_trees_agree(alone, hs[:, 1:3])
    assert np.any(hs != expected[1])


def test_gradients_over_devices():
    config = Stack(sizes=2, bidirectional=True, learned_carry=True, output_dropout=0.3)
    params, _, xs = problem_of(config, batch=(4,))

    def gradient(layer):
        def loss(params, xs):
            carry, hs = layer(params, None, xs, key=jax.random.key(0))
            return jnp.sum(hs**3) + sum(jnp.sum(a**2) for a in jax.tree.leaves(carry))

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(params, xs)

    layer = partial(stack, config)
    assert_trees_agree(gradient(jlstm.over_devices(layer)), gradient(layer))


@pytest.mark.usefixtures("two_devices")
@pytest.mark.slow
def test_a_stack_over_an_explicit_mesh():
    gates = Variant(zoneout_c=0.3, layer_norm=True, peepholes=True)
    options = {"bidirectional": True, "learned_carry": True, "variational": False}
    config = Stack(sizes=(3, 2), gates=gates, **options, **DROPPED)
    params, _, xs = problem_of(config, batch=(4,))
    lengths = np.asarray([7, 4, 0, 2])

    def loss(params, xs, lengths):
        carry, hs = stack(config, params, None, xs, lengths=lengths, key=jax.random.key(0))
        pooled = [pool(hs, lengths) for pool in (partial(last, config=config), mean, maximum)]
        return sum(jnp.sum(a**3) for a in (hs, *pooled, *jax.tree.leaves(carry)))

    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    expected = run(params, xs, lengths)
    mesh = jax.make_mesh((2,), ("d",))
    cut = [NamedSharding(mesh, P(*spec)) for spec in ((), (None, "d"), ("d",))]
    with jax.set_mesh(mesh):
        point = jax.device_put((params, xs, lengths), tuple(cut))
        program = run.lower(*point).compile()
        assert_trees_agree(program(*point), expected, 1e-11)
    assert "all-gather" not in program.as_text()


def test_without_noise_is_a_stack_without_rates():
    noisy = Variant(recurrent_dropout=0.3, state_dropout=0.2)
    config = Stack(sizes=(3, 2), gates=(noisy, PLAIN), **DROPPED)
    point = problem_of(config)
    expected = stack(Stack(sizes=(3, 2), gates=(Variant(), PLAIN)), *point)
    assert_trees_agree(stack(config.without_noise(), *point), expected)


def test_dropout_leaves_the_residual_stream_alone():
    config = Stack(sizes=(3,) * 5, dropout=0.5, connections="residual")
    (first, *others), _, xs = problem_of(config)
    silent = jax.tree.map(jnp.zeros_like, others)  # layers that give 0
    _, hs = stack(config, (first, *silent), None, xs, key=jax.random.key(0))
    assert_trees_agree(hs, stack(Stack(sizes=3), (first,), None, xs)[1], 0)


@pytest.mark.grid(2)
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_random_sequence_in_pieces_is_the_sequence(impl):
    gates = Variant(zoneout_c=0.3)
    config = Stack(sizes=(3, 2), gates=gates, dropout=0.3, input_dropout=0.2, variational=False)
    params, _, xs = problem_of(config)
    run = partial(stack, config, params, key=jax.random.key(0, impl=impl))
    carry, first = run(None, xs[:4])
    carry, second = run(carry, xs[4:], t=4)
    assert_trees_agree((carry, jnp.concatenate([first, second])), run(None, xs))


def test_rates_of_numpy_do_not_mix_in_their_dtype():
    params = init_stack(jax.random.key(0), 3, Stack(sizes=2))
    assert drop_weights(jax.random.key(1), params, np.float64(0.5))[0].forward.w_hh.dtype == "f4"
    assert type(Stack(sizes=2, dropout=np.float64(0.5)).dropout) is float


def test_a_cell_for_each_way_may_be_random_in_one():
    ways = (PLAIN, Variant(zoneout_h=0.5))
    config = Stack(sizes=3, gates=[ways], bidirectional=True)
    assert (config.random, config.without_noise().random) == (True, False)
    point = problem_of(config)
    run = partial(stack, config, *point)
    one, other = (run(key=jax.random.key(n))[1] for n in (0, 1))
    np.testing.assert_array_equal(one[..., :3], other[..., :3])
    assert np.any(one[..., 3:] != other[..., 3:])


def test_deterministic_is_without_noise():
    config = Stack(sizes=3, gates=Variant(zoneout_h=0.3))
    point = problem_of(config)
    answer = stack(replace(config, deterministic=True), *point, key=jax.random.key(0))
    assert_trees_agree(answer, stack(config.without_noise(), *point))


def test_masks_drawn_at_every_step_are_not_kept():
    time, batch = 12, 4

    def kept(**rates):
        config = Stack(sizes=(3, 3), connections="skip", variational=False, **rates)
        run = partial(stack, config, chunk=time, key=jax.random.key(0))
        _, pull_back = jax.vjp(run, *problem_of(config, time=time, batch=(batch,)))
        return sum(a.size for a in jax.tree.leaves(pull_back))

    # A key for each sequence and site, and no more.
    assert kept(**DROPPED) < kept() + time * batch


def test_export_with_symbolic_sizes():
    gates = [PLAIN, Variant(peepholes=True, zoneout_c=0.3)]
    options = {"bidirectional": True, "learned_carry": True, "variational": False, "dropout": 0.2}
    config = Stack(sizes=(3, 2), gates=gates, **options)
    params, carry, xs = problem_of(config)

    @jax.jit
    def run(params, carry, xs, lengths):
        carry, hs = stack(config, params, carry, xs, lengths=lengths, key=jax.random.key(0))
        return carry, hs, [pool(hs, lengths) for pool in (partial(last, config=config), maximum)]

    t, b = jax.export.symbolic_shape("t, b")

    def named(a, *axes):
        return jax.ShapeDtypeStruct((*axes, *a.shape[len(axes) :]), a.dtype)

    shapes = jax.tree.map(named, params), jax.tree.map(lambda a: named(a, b), carry)
    exported = jax.export.export(run)(*shapes, named(xs, t, b), named(LENGTHS, b))
    expected = run(params, carry, xs, LENGTHS)
    assert_trees_agree(exported.call(params, carry, xs, LENGTHS), expected)
    # Written down and read again, for which our NamedTuples have to be known.
    pytest.importorskip("flatbuffers")
    again = jax.export.deserialize(exported.serialize())
    assert_trees_agree(again.call(params, carry, xs, LENGTHS), expected)


# Weights dropped before it


def ways_of(tree):
    return [way for layer in tree for way in layer[:2] if way is not None]


def test_drop_weights():
    config = Stack(sizes=(40, 40), gates=(PLAIN, Variant()), bidirectional=True, learned_carry=True)
    params, *_ = problem_of(config, inputs=40)
    drop = partial(drop_weights, jax.random.key(1), params)
    dropped = drop(0.3)
    masks = []
    for new, old in zip(ways_of(dropped), ways_of(params), strict=True):
        assert_trees_agree(new._replace(w_hh=None), old._replace(w_hh=None), 0)
        gone = np.asarray(new.w_hh == 0)
        np.testing.assert_allclose(new.w_hh[~gone], old.w_hh[~gone] / 0.7)
        assert abs(gone.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / gone.size)
        masks.append(gone.ravel())
    assert_trees_agree([one.start for one in dropped], [one.start for one in params], 0)
    other = drop_weights(jax.random.key(2), params, 0.3)[0].forward.w_hh
    for one, two in combinations([*masks, np.ravel(other == 0)], 2):
        assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / np.sqrt(one.size)
    assert_trees_agree(drop(0.3), dropped, 0)
    assert_trees_agree(drop(0), params, 0)


@pytest.mark.parametrize("place", [lambda w: w, lambda w: [{"lstm": w, "w": w.w_hh}]])
@pytest.mark.parametrize("gates", [PLAIN, Variant()])
def test_drop_weights_wherever_they_are(place, gates):
    (layer,), *_ = problem_of(Stack(sizes=8, gates=gates))
    params = place(jax.tree.map(np.float32, layer.forward))
    dropped = drop_weights(jax.random.key(0), params, 0.5)
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), dropped, params)
    assert sum(jax.tree.leaves(changed)) == 1
    assert {a.dtype for a in jax.tree.leaves(dropped)} == {jnp.dtype("float32")}


def test_no_gradient_to_what_is_dropped():
    config = Stack(sizes=(3, 3))
    params, carry, xs = problem_of(config)
    drop = partial(drop_weights, jax.random.key(0), rate=0.5)
    gradient = jax.jit(jax.grad(lambda params: loss_of(config)(drop(params), carry, xs)))(params)
    for d, w in zip(ways_of(gradient), ways_of(drop(params)), strict=True):
        np.testing.assert_array_equal(d.w_hh == 0, w.w_hh == 0)


# Another order of axes around it


@pytest.mark.parametrize("batch", [(3,), (2, 3)])
@pytest.mark.parametrize("masks", [False, True])
def test_batch_major(batch, masks):
    config = CONFIGS["two ways, skip"]
    params, carry, xs = problem_of(config, batch=batch)
    lengths = np.broadcast_to(LENGTHS, batch)
    resets = np.broadcast_to(RESETS.T, (*batch, 7))
    first = {"lengths": lengths, "resets": np.moveaxis(resets, -1, 0)} if masks else {}
    after, hs = stack(config, params, carry, xs, **first)
    given = {"lengths": lengths, "resets": resets} if masks else {}
    answer = batch_major(partial(stack, config))(params, carry, jnp.moveaxis(xs, 0, -2), **given)
    assert_trees_agree(answer, (after, jnp.moveaxis(hs, 0, -2)), 0)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("masks", [{}, {"resets": RESETS.T}])
def test_two_transpositions_however_deep(depth, masks):
    config = Stack(sizes=(3,) * depth, bidirectional=True, connections="skip")
    params, carry, xs = problem_of(config)
    layer = partial(batch_major(partial(stack, config)), **masks)
    program = jax.make_jaxpr(layer)(params, carry, jnp.swapaxes(xs, 0, 1))
    assert len(list(equations_of(program, "transpose"))) == (3 if masks else 2)


# Pooling after it

POOLS = {
    "last": (last, lambda steps: steps[-1]),
    "last of two ways": (
        partial(last, config=Stack(sizes=2, bidirectional=True)),
        lambda steps: np.append(steps[-1, :2], steps[0, 2:]),
    ),
    "mean": (mean, lambda steps: steps.mean(0)),
    "maximum": (maximum, lambda steps: steps.max(0)),
}
pools = pytest.mark.parametrize(("pool", "loop"), POOLS.values(), ids=POOLS)


@pytest.mark.grid(5)
@pools
@pytest.mark.parametrize("time", [0, 7])
@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
def test_pooling_is_a_loop(pool, loop, time, batch):
    hs = np.random.default_rng(0).standard_normal((time, *batch, 4))
    hs[..., 0] = -1 - hs[..., 0] ** 2  # a maximum below 0
    every, some = np.full(batch, time), np.resize([time, time // 2, 0], batch)
    run = jax.jit(pool)
    for answer, lengths in [(run(hs, None), every), (run(hs, some), some), (pool(hs), every)]:
        assert answer.shape == (*batch, 4)
        for n in np.ndindex(*batch):
            steps = hs[(slice(lengths[n]), *n)]
            np.testing.assert_allclose(answer[n], loop(steps) if len(steps) else np.zeros(4))


@pools
@pytest.mark.parametrize("padding", [np.nan, 1e3])
def test_pooling_does_not_see_the_padding(pool, loop, padding):
    clean = np.random.default_rng(0).standard_normal((7, 3, 4)) - 5
    valid = np.arange(7)[:, None] < LENGTHS
    hs = jnp.where(valid[..., None], clean, padding)
    np.testing.assert_array_equal(pool(hs, LENGTHS), pool(clean, LENGTHS))
    gradient = np.asarray(jax.grad(lambda hs: jnp.sum(pool(hs, LENGTHS)))(hs))
    np.testing.assert_array_equal(gradient[~valid], 0)
    # Each of these is an average, or one of its arguments: the weights add up to 1.
    np.testing.assert_allclose(gradient.sum(0), np.sign(LENGTHS)[:, None] * np.ones(4))


@pytest.mark.parametrize("pool", [last, mean, maximum])
def test_pooling_keeps_the_dtype(pool):
    for lengths in (None, np.asarray([7, 2, 0], np.int8)):
        assert pool(jnp.ones((7, 3, 4), jnp.bfloat16), lengths).dtype == jnp.bfloat16


def test_the_last_of_two_ways_has_read_everything():
    config = Stack(sizes=(3, 2), bidirectional=True)
    params, _, xs = problem_of(config)
    carry, hs = stack(config, params, None, xs, lengths=LENGTHS)
    expected = jnp.concatenate([way.h for way in carry[-1]], axis=-1)
    assert_trees_agree(last(hs, LENGTHS, config), expected, 0)


def test_the_last_of_a_reverse_stack_is_the_first():
    config = Stack(sizes=(3, 2), reverse=True)
    params, _, xs = problem_of(config)
    carry, hs = stack(config, params, None, xs, lengths=LENGTHS)
    assert_trees_agree(last(hs, LENGTHS, config), jnp.where(LENGTHS[:, None], carry[-1].h, 0), 0)


def test_the_last_of_a_skip_stack_is_that_of_every_layer():
    config = Stack(sizes=(3, 2), bidirectional=True, connections="skip")
    params, _, xs = problem_of(config)
    carry, hs = stack(config, params, None, xs, lengths=LENGTHS)
    expected = jnp.concatenate([way.h for layer in carry for way in layer], axis=-1)
    assert_trees_agree(last(hs, LENGTHS, config), expected, 0)


def test_the_mean_of_many_steps_in_half_precision():
    assert mean(jnp.ones((70_000, 1), jnp.float16)) == 1


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_initial_carry_is_what_none_stands_for(learned, bidirectional):
    options = {"bidirectional": bidirectional, "learned_carry": learned}
    config = Stack(sizes=(3, 2), gates=[Variant(), PLAIN], output_sizes=[1, None], **options)
    params, _, xs = problem_of(config)
    start = init_stack_carry(config, params, 3)
    assert_trees_agree(stack(config, params, start, xs), stack(config, params, None, xs), 0)
    assert jax.tree.structure(start) == jax.tree.structure(stack(config, params, start, xs)[0])


# Bad input


def said_by(call, *arguments, **options):
    with pytest.raises((TypeError, ValueError)) as caught:
        call(*arguments, **options)
    return f"{caught.type.__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, "ValueError: sizes: expected at least one layer, got none"),
        ({"sizes": 0}, "ValueError: sizes: expected at least 1, got 0"),
        ({"sizes": (3, 2.0)}, "TypeError: sizes: expected an int, got float 2.0"),
        ({"output_sizes": (1,)}, "ValueError: output_sizes: expected one for each of 2 layers, g"),
        ({"gates": [PLAIN] * 3}, "ValueError: gates: expected one for each of 2 layers, got 3"),
        ({"gates": (PLAIN, None)}, "TypeError: gates: expected "),
        (
            {"gates": (PLAIN, (PLAIN, PLAIN))},
            "ValueError: gates: expected a single one for each la",
        ),
        (
            {"gates": (PLAIN, (PLAIN,)), "bidirectional": True},
            "ValueError: gates: expected a pair, forward and backward, for each layer, got 1",
        ),
        (
            {"gates": [(PLAIN, Variant())] * 2, "bidirectional": True, "output_sizes": 1},
            "ValueError: output_sizes: expected None for PLAIN",
        ),
        ({"output_sizes": 2}, "ValueError: output_sizes: expected None for PLAIN, which"),
        ({"output_sizes": (0, None)}, "ValueError: output_sizes: expected at least 1, got 0"),
        ({"bidirectional": 1}, "TypeError: bidirectional: expected True or False, got int 1"),
        (
            {"bidirectional": True, "reverse": True},
            "ValueError: reverse: expected False where bidirectional=True, got True",
        ),
        ({"learned_carry": None}, "TypeError: learned_carry: expected True or False, got NoneType"),
        ({"variational": "no"}, "TypeError: variational: expected True or False, got str 'no'"),
        ({"deterministic": 0}, "TypeError: deterministic: expected True or False, got int 0"),
        ({"input_dropout": 1}, "ValueError: input_dropout: expected a finite number of at least 0"),
        (
            {"dropout": -0.1},
            "ValueError: dropout: expected a finite number of at least 0 and below 1",
        ),
        ({"output_dropout": None}, "TypeError: output_dropout: expected a number, got NoneType"),
        ({"connections": "x"}, "ValueError: connections: expected one of 'chain', 'residual', 's"),
        (
            {"connections": "residual", "sizes": (3, 4), "output_sizes": (2, None)},
            "ValueError: connections: expected layers of one output size for 'residual', got [2,",
        ),
    ],
)
def test_bad_stacks_are_named(options, message):
    gates = Variant() if options.get("connections") else PLAIN
    assert said_by(Stack, **{"sizes": (3, 4), "gates": gates} | options).startswith(message)


CHAIN, BOTH = Stack(sizes=(3, 2)), Stack(sizes=(3, 2), bidirectional=True)
SKIP, NOISY = Stack(sizes=(3, 2), connections="skip"), Stack(sizes=(3, 2), dropout=0.1)
PARAMS, CARRY, XS = problem_of(CHAIN)
PARAMS_BOTH, CARRY_BOTH, _ = problem_of(BOTH)
KEYS = jax.random.split(jax.random.key(0))
WIDE, LEARNED = Stack(sizes=(3, 9)), Stack(sizes=(3, 2), learned_carry=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "TypeError: config: expected Stack, got NoneType"),
        ({"layer": 3}, "TypeError: layer: expected a function, got int 3"),
        ({"params": PARAMS[0]}, "TypeError: params: expected a tuple of 2 layers, got LayerP"),
        ({"params": PARAMS[:1]}, "ValueError: params: expected one for each of 2 layers, got"),
        ({"params": PARAMS[0][:1] * 2}, "TypeError: params[0]: expected LayerParams, got LST"),
        ({"carry": CARRY[0]}, "TypeError: carry: expected a tuple of 2 layers, got Carry"),
        ({"carry": CARRY * 2}, "ValueError: carry: expected one for each of 2 layers, got 4"),
        ({"carry": CARRY_BOTH}, "TypeError: carry[0]: expected Carry, got tuple"),
        ({"carry": (CARRY[0], None)}, "TypeError: carry[1]: expected Carry, got NoneType"),
        (
            {"config": BOTH, "params": PARAMS_BOTH},
            "TypeError: carry[0]: expected a pair of Carry, got Carry",
        ),
        ({"carry": CARRY[::-1]}, "ValueError: layer 0: carry.h: expected shape [3, 3], got"),
        ({"config": BOTH, "carry": None}, "ValueError: params[0].backward: expected weights by"),
        ({"params": PARAMS_BOTH}, "ValueError: params[0].backward: expected None by config, go"),
        ({"config": WIDE}, "ValueError: params[1].forward.w_hh: expected shape [9, gates, 9]"),
        ({"config": LEARNED}, "ValueError: params[0].start: expected weights by config, got No"),
        ({"reverse": True}, "TypeError: reverse: expected it in config, which says it for each"),
        ({"config": NOISY}, "ValueError: key: expected a key of jax.random, for what is rand"),
        ({"config": NOISY, "key": 1}, "TypeError: key: expected a key of jax.random, got int"),
        ({"config": NOISY, "key": KEYS}, "ValueError: key: expected one key, or one for each"),
        ({"xs": [1.0]}, "TypeError: xs: expected an array, got list"),
        ({"xs": XS[0, 0]}, "ValueError: xs: expected shape [time, ..., input], got [3]"),
        ({"xs": XS[..., :2]}, "ValueError: layer 0: xs: expected shape [time, ..., 3], got ["),
        ({"xs": np.float32(XS)}, "TypeError: layer 0: xs: expected dtype float64, got float"),
        ({"config": SKIP}, "ValueError: layer 1: xs: expected shape [time, ..., 3], got [7, "),
        ({"resets": RESETS[1:]}, "ValueError: resets: expected shape [7, 3], got [6, 3]"),
        ({"resets": XS[..., 0]}, "TypeError: resets: expected dtype bool, got float64"),
        ({"lengths": LENGTHS + 1}, "ValueError: layer 0: lengths: expected values from 0 to 7"),
        ({"chunk": 0}, "ValueError: layer 0: chunk: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_of_stack_are_named(change, message):
    given = {"config": CHAIN, "params": PARAMS, "carry": CARRY, "xs": XS} | change
    assert said_by(stack, **given).startswith(message)
    assert said_by(jax.eval_shape, partial(stack, **given)).startswith(message)  # at trace time


POOL_ERRORS = [
    (([1.0],), "TypeError: hs: expected an array, got list"),
    ((XS[0, 0],), "ValueError: hs: expected shape [time, ..., output], got [3]"),
    ((XS, LENGTHS + 1), "ValueError: lengths: expected values from 0 to 7 (the time axis"),
]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((init_stack, 0, 3, CHAIN), "TypeError: key: expected a key of jax.random, got int 0"),
        ((init_stack, KEYS[0], 0, CHAIN), "ValueError: input_size: expected at least 1, got 0"),
        ((init_stack, KEYS[0], 3, 3), "TypeError: config: expected Stack, got int"),
        ((drop_weights, 0, PARAMS, 0.1), "TypeError: key: expected a key of jax.random, got i"),
        ((drop_weights, KEYS[0], PARAMS, 1), "ValueError: rate: expected a finite number of a"),
        ((drop_weights, KEYS[0], PARAMS, None), "TypeError: rate: expected a number, got None"),
        ((drop_weights, KEYS[0], XS, 0.1), "ValueError: params: expected weights of a layer o"),
        ((batch_major, 3), "TypeError: layer: expected a function, got int 3"),
        ((batch_major(), 0, 0, [1.0]), "TypeError: xs: expected an array, got list"),
        ((batch_major(), 0, 0, XS[0]), "ValueError: xs: expected shape [batch, ..., time, in"),
        *(((f, *given), text) for f in (last, mean, maximum) for given, text in POOL_ERRORS),
    ],
)
def test_bad_arguments_of_the_rest_are_named(call, message):
    assert said_by(*call).startswith(message)


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (init_stack, {"forget_bias": np.inf}, "ValueError: forget_bias: expected a finite numb"),
        (init_stack, {"bias": None}, "TypeError: bias: expected True or False, got NoneType None"),
        (init_stack, {"dtype": int}, "TypeError: dtype: expected a floating-point dtype, got"),
        (batch_major(), {"resets": RESETS}, "ValueError: resets: expected shape [3, 7], got [7"),
    ],
)
def test_bad_options_are_named(call, options, message):
    given = (KEYS[0], 3, CHAIN) if call is init_stack else (None, None, jnp.swapaxes(XS, 0, 1))
    assert said_by(call, *given, **options).startswith(message)


def test_an_error_of_any_kind_is_handed_on():
    def branching(params, carry, xs, **options):
        return jlstm.lstm(params, carry, xs if xs[0, 0, 0] > 0 else -xs, **options)

    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(partial(stack, CHAIN, layer=branching))(PARAMS, None, XS)


def test_a_pair_is_of_two():
    (first, _), second = CARRY_BOTH
    said = said_by(stack, BOTH, PARAMS_BOTH, ((first,), second), XS)
    assert said.startswith("ValueError: carry[0]: expected")
