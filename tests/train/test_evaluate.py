"""Evaluation: the same number however the data is cut."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import init_carry
from jlstm.tasks.text.model import TokenBatch, init_language_model, language_model_loss, token_count
from jlstm.tasks.text.windows import evaluation_windows
from jlstm.train import make_evaluate

HIDDEN = 7
TEXT = np.random.default_rng(0).integers(97, 123, 230, np.uint8)


@pytest.fixture(scope="module")
def params():
    with jax.enable_x64(True):
        model = init_language_model(
            jax.random.key(0), 256, embedding_size=5, hidden_size=HIDDEN, dtype=jnp.float64
        )
        readout = jax.random.normal(jax.random.key(1), model.readout.shape, jnp.float64)
    return model._replace(readout=readout)


evaluate = make_evaluate(language_model_loss, token_count)


def mean_loss(params, streams, time):
    carry = init_carry(streams, HIDDEN, jnp.float64)
    return evaluate(params, carry, evaluation_windows(TEXT, streams=streams, time=time))


@pytest.mark.parametrize("time", [3, 64, 229, 1000])
def test_the_length_of_the_windows_does_not_matter(params, time):
    tokens = TEXT.astype(np.int32)[:, None]
    whole, _ = language_model_loss(params, None, TokenBatch(tokens[:-1], tokens[1:]))
    # float64; sums in another order.
    assert mean_loss(params, 1, time) == pytest.approx(float(whole), rel=1e-12)


def test_how_many_streams_are_read_at_once_does_not_matter(params):
    """Three streams side by side, the last one shorter, against one after the other."""
    together = mean_loss(params, 3, 16)
    borders = [round(s * 229 / 3) for s in range(4)]
    losses, counts = [], []
    for a, b in pairwise(borders):
        piece = evaluation_windows(TEXT[a : b + 1], time=50)
        losses.append(evaluate(params, init_carry(1, HIDDEN, jnp.float64), piece))
        counts.append(b - a)
    assert sum(counts) == 229
    assert len(set(counts)) > 1
    assert together == pytest.approx(np.average(losses, weights=counts), rel=1e-12)


def test_a_small_last_batch_weighs_little():
    mean = make_evaluate(lambda params, carry, batch: (jnp.mean(batch), carry), np.size)
    numbers = np.arange(10.0) ** 2
    for size in (1, 3, 4, 10):
        batches = [numbers[n : n + size] for n in range(0, 10, size)]
        assert mean(None, None, batches) == pytest.approx(numbers.mean(), rel=1e-14)


def test_nothing_to_evaluate():
    mean = make_evaluate(lambda params, carry, batch: (jnp.mean(batch), carry), np.size)
    with pytest.raises(ValueError, match="batches: expected at least one item"):
        mean(None, None, [])


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match="loss_fn: expected a function, got int 3"):
        make_evaluate(3, token_count)
    with pytest.raises(TypeError, match="count: expected a function, got NoneType"):
        make_evaluate(language_model_loss, None)


def test_batches_of_weight_zero_are_left_out():
    mean = make_evaluate(lambda params, carry, batch: (jnp.mean(batch), carry), np.nansum)
    assert mean(None, None, [np.array([np.nan]), np.array([2.0])]) == 2
