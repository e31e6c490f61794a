"""The labeller: its scores by hand, its loss, and what must not matter to either."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import Stack, stack
from jlstm.tasks.running import runner_over_devices
from jlstm.tasks.sequences.batch import SequenceBatch
from jlstm.tasks.sequences.model import (
    LabellerConfig,
    init_labeller,
    label_count,
    label_scores,
    labeller_loss,
)

TIME, BATCH, INPUT, HIDDEN, CLASSES = 7, 4, 3, 5, 6
STACK = Stack(sizes=(HIDDEN,), bidirectional=True)
CONFIG = LabellerConfig(inputs=INPUT, outputs=CLASSES, stack=STACK)
TAGS, NUMBERS = replace(CONFIG, pooled=False), replace(CONFIG, outputs=1)
HALVED = replace(CONFIG, dropout=0.5)
NOISY = replace(CONFIG, stack=replace(STACK, input_dropout=0.5))
LENGTHS = np.array([7, 3, 1, 5], np.int32)

scores_of = jax.jit(label_scores, static_argnums=0, static_argnames="run")
loss_of = jax.jit(labeller_loss, static_argnums=0, static_argnames="run")


def make_params(config=CONFIG, dtype=jnp.float64):
    params = init_labeller(jax.random.key(0), config, dtype=dtype)
    readout = jax.random.normal(jax.random.key(1), params.readout.shape, dtype)
    bias = jax.random.normal(jax.random.key(2), params.readout_bias.shape, dtype)
    return params._replace(readout=readout, readout_bias=bias)


def make_batch(kind="classes", dtype=np.float64):
    draw = np.random.default_rng(3)
    xs = draw.normal(size=(TIME, BATCH, INPUT)).astype(dtype)
    valid = np.arange(TIME)[:, None] < LENGTHS
    if kind == "tags":
        targets = draw.integers(0, CLASSES, (TIME, BATCH)).astype(np.int32)
        return SequenceBatch(xs, LENGTHS, targets, valid.astype(np.float32))
    if kind == "numbers":
        return SequenceBatch(xs, LENGTHS, draw.normal(size=BATCH), np.ones(BATCH, np.float32))
    targets = draw.integers(0, CLASSES, BATCH).astype(np.int32)
    return SequenceBatch(xs, LENGTHS, targets, np.array([1.0, 2, 0.5, 3], np.float32))


def pooled_by_hand(params, xs, lengths):
    """One sequence after the other, without padding or a mask."""
    found = []
    for n, length in enumerate(lengths):
        _, hs = stack(STACK, params.lstm, None, jnp.asarray(xs[:length, n]))
        h = np.asarray(hs)
        ends = np.concatenate([h[-1, :HIDDEN], h[0, HIDDEN:]])
        found.append(np.concatenate([ends, h.mean(axis=0), h.max(axis=0)]))
    return np.stack(found) @ np.asarray(params.readout) + np.asarray(params.readout_bias)


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def test_a_sequence_is_scored_by_its_ends_its_mean_and_its_maximum():
    params, batch = make_params(), make_batch()
    expected = pooled_by_hand(params, batch.xs, LENGTHS)
    # float64, sums of a few dozen numbers near 1.
    np.testing.assert_allclose(scores_of(CONFIG, params, batch.xs, LENGTHS), expected, rtol=1e-11)
    losses = -log_softmax(expected)[np.arange(BATCH), batch.targets]
    weights = np.array([1.0, 2, 0.5, 3])
    loss, carry = loss_of(CONFIG, params, None, batch)
    assert carry is None
    assert loss == pytest.approx((weights * losses).sum() / 6.5, rel=1e-11)
    assert label_count(batch) == 6.5


def test_a_step_is_scored_by_its_own_state():
    params, batch = make_params(TAGS), make_batch("tags")
    scores = scores_of(TAGS, params, batch.xs, LENGTHS)
    assert scores.shape == (TIME, BATCH, CLASSES)
    total = 0.0
    for n, length in enumerate(LENGTHS):
        _, hs = stack(STACK, params.lstm, None, jnp.asarray(batch.xs[:length, n]))
        expected = np.asarray(hs) @ np.asarray(params.readout) + np.asarray(params.readout_bias)
        np.testing.assert_allclose(scores[:length, n], expected, rtol=1e-11)
        total -= log_softmax(expected)[np.arange(length), batch.targets[:length, n]].sum()
    loss, _ = loss_of(TAGS, params, None, batch)
    assert loss == pytest.approx(total / LENGTHS.sum(), rel=1e-11)


def test_a_number_costs_its_squared_error():
    params, batch = make_params(NUMBERS), make_batch("numbers")
    expected = pooled_by_hand(params, batch.xs, LENGTHS)[:, 0]
    loss, _ = loss_of(NUMBERS, params, None, batch)
    assert loss == pytest.approx(np.square(expected - batch.targets).mean(), rel=1e-11)


def test_smoothing_shares_a_part_of_the_target_among_all_classes():
    params, batch = make_params(), make_batch()
    logs = log_softmax(pooled_by_hand(params, batch.xs, LENGTHS))
    losses = -(0.8 * logs[np.arange(BATCH), batch.targets] + 0.2 * logs.mean(axis=1))
    loss, _ = loss_of(replace(CONFIG, smoothing=0.2), params, None, batch)
    assert loss == pytest.approx(np.average(losses, weights=batch.weights), rel=1e-11)


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", ["classes", "numbers", "tags"])
def test_padding_does_not_matter(kind):
    config = {"classes": CONFIG, "numbers": NUMBERS, "tags": TAGS}[kind]
    params = make_params(config)
    batch = make_batch(kind)
    gradient = jax.jit(jax.grad(lambda p, b: labeller_loss(config, p, None, b)[0]))

    def more(a, axis, by):
        widths = [(0, by if n == axis else 0) for n in range(np.ndim(a))]
        return np.pad(a, widths, constant_values=1)  # anything: its weight is 0

    longer = batch._replace(xs=more(batch.xs, 0, 4))
    longer.xs[np.arange(TIME + 4)[:, None] >= LENGTHS] = 99.0
    if kind == "tags":
        longer = longer._replace(targets=more(batch.targets, 0, 4))
        longer = longer._replace(weights=np.pad(batch.weights, ((0, 4), (0, 0))))
    wide = longer._replace(
        xs=more(longer.xs, 1, 3),
        lengths=np.pad(LENGTHS, (0, 3)),
        targets=more(longer.targets, np.ndim(longer.targets) - 1, 3),
        weights=np.pad(longer.weights, [(0, 0)] * (np.ndim(longer.weights) - 1) + [(0, 3)]),
    )
    expected, _ = loss_of(config, params, None, batch)
    for padded in (longer, wide):
        loss, _ = loss_of(config, params, None, padded)
        assert loss == pytest.approx(float(expected), rel=1e-12)
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12),
            gradient(params, padded),
            gradient(params, batch),
        )


def test_a_batch_in_which_nothing_counts_costs_nothing():
    batch = make_batch()._replace(lengths=0 * LENGTHS, weights=np.zeros(BATCH, np.float32))
    loss, gradient = jax.value_and_grad(lambda p: labeller_loss(CONFIG, p, None, batch)[0])(
        make_params()
    )
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_training_starts_at_the_loss_of_knowing_nothing():
    fresh = init_labeller(jax.random.key(0), CONFIG)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}
    loss, _ = loss_of(CONFIG, fresh, None, make_batch(dtype=np.float32))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(np.log(CLASSES), rel=1e-6)


def test_nothing_is_dropped_without_a_key():
    params, batch = make_params(), make_batch()
    plain = scores_of(CONFIG, params, batch.xs, LENGTHS)
    both = replace(NOISY, dropout=0.5)
    np.testing.assert_array_equal(scores_of(both, params, batch.xs, LENGTHS), plain)
    key = jax.random.key(7)
    for config in (NOISY, HALVED):
        first, again, other = (
            scores_of(config, params, batch.xs, LENGTHS, key=k)
            for k in (key, key, jax.random.key(8))
        )
        np.testing.assert_array_equal(first, again)
        assert np.all(first != plain)
        assert np.any(first != other)  # of three features, two keys may keep the same ones


def test_dropout_leaves_the_mean_as_it_is():
    params, batch = make_params(), make_batch()
    keys = jax.random.split(jax.random.key(9), 4000)
    draw = jax.vmap(lambda k: label_scores(HALVED, params, batch.xs, LENGTHS, key=k))
    scores = np.asarray(jax.jit(draw)(keys))
    plain = scores_of(CONFIG, params, batch.xs, LENGTHS)
    # Five standard errors of the mean.
    assert np.all(np.abs(scores.mean(axis=0) - plain) < 5 * scores.std(axis=0) / 4000**0.5)


def test_the_mask_is_the_same_in_either_precision_of_jax():
    params, batch = make_params(dtype=jnp.float32), make_batch(dtype=np.float32)

    def scores():
        key = jax.random.key(1)
        return label_scores(HALVED, params, batch.xs, LENGTHS, key=key).astype(jnp.float32)

    wide = scores()
    with jax.enable_x64(False):
        np.testing.assert_allclose(scores(), wide, rtol=1e-5)


def test_devices_change_nothing():
    params, batch = make_params(), make_batch()._replace(key=jax.random.key(5))
    config, (run, _) = replace(NOISY, dropout=0.3), runner_over_devices(None, BATCH)
    loss, _ = loss_of(config, params, None, batch)
    cut, _ = loss_of(config, params, None, batch, run=run)
    assert cut == pytest.approx(float(loss), rel=1e-12)


def test_what_is_wrong_is_said():
    params, batch = make_params(), make_batch()
    with pytest.raises(TypeError, match="params: expected Labeller, got tuple"):
        label_scores(CONFIG, (), batch.xs, LENGTHS)
    with pytest.raises(TypeError, match="batch: expected SequenceBatch, got tuple"):
        labeller_loss(CONFIG, params, None, ())
    with pytest.raises(ValueError, match=r"batch\.targets: expected shape \[4\], got \[2\]"):
        labeller_loss(CONFIG, params, None, batch._replace(targets=batch.targets[:2]))
    with pytest.raises(
        ValueError, match="dropout: expected a finite number of at least 0 and below 1"
    ):
        replace(CONFIG, dropout=1.0)
    with pytest.raises(ValueError, match="outputs: expected at least 1, got 0"):
        replace(CONFIG, outputs=0)
