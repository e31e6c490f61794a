"""Dynamic evaluation: a token is judged before anything is learnt from it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm.layers import Stack, init_stack_carry, stack
from jlstm.tasks.text import dynamic
from jlstm.tasks.text.dynamic import RATES, TIME, evaluate_learning, learning_loss
from jlstm.tasks.text.model import (
    LanguageModelConfig,
    init_language_model,
    language_model_loss,
    token_count,
)
from jlstm.tasks.text.windows import evaluation_windows
from jlstm.train import make_evaluate

CONFIG = LanguageModelConfig(vocabulary=5, embedding=4, stack=Stack(sizes=(8,)))
TEXT = np.tile([0, 1, 2, 3, 4, 3, 2, 1], 40)
loss = partial(language_model_loss, CONFIG, run=stack)


@pytest.fixture(scope="module")
def params():
    fresh = init_language_model(jax.random.key(0), CONFIG)
    readout = jax.random.normal(jax.random.key(1), fresh.readout.shape, fresh.readout.dtype)
    return fresh._replace(readout=readout)  # the fresh one is zero, and knows nothing


def judged(params, text, rate, time=TIME):
    carry = init_stack_carry(CONFIG.stack, params.lstm, 1)
    return learning_loss(loss, params, carry, evaluation_windows(text, time=time), rate)


def test_what_does_not_learn_is_judged_as_ever(params):
    carry = init_stack_carry(CONFIG.stack, params.lstm, 1)
    ever = make_evaluate(loss, token_count)(params, carry, evaluation_windows(TEXT, time=TIME))
    assert judged(params, TEXT, 0.0) == pytest.approx(ever, rel=1e-6)


def test_a_step_is_that_of_the_page(params):
    """θ' = θ − η·g/max(1, ‖g‖) after the first of two windows."""
    text = TEXT[: 2 * TIME + 1]
    first, second = evaluation_windows(text, time=TIME)
    carry = init_stack_carry(CONFIG.stack, params.lstm, 1)
    (one, carry), g = jax.value_and_grad(loss, has_aux=True)(params, carry, first)
    length = jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(g)))
    moved = jax.tree.map(lambda a, d: a - 0.1 * d / jnp.maximum(1, length), params, g)
    two, _ = loss(moved, carry, second)
    assert judged(params, text, 0.1) == pytest.approx(float(one + two) / 2, rel=1e-5)


def test_nothing_is_learnt_from_what_is_still_to_come(params):
    """What a text costs up to a window is the same whatever follows it."""

    def costs(text):
        return [judged(params, text[: n * TIME + 1], 0.1) for n in (1, 2, 3)]

    changed = np.array(TEXT)
    changed[2 * TIME + 1 :] = changed[0]
    np.testing.assert_allclose(costs(changed)[:2], costs(TEXT)[:2], rtol=1e-6)
    assert costs(changed)[2] != pytest.approx(costs(TEXT)[2], rel=1e-3)
    # And of the first window, at whatever rate.
    one = TEXT[: TIME + 1]
    assert judged(params, one, 0.1) == pytest.approx(judged(params, one, 0.0), rel=1e-6)


def test_a_text_that_repeats_itself_is_learnt_and_the_model_stays_as_it_is(params):
    before = jax.tree.map(np.array, params)
    found = evaluate_learning(CONFIG, params, TEXT, TEXT, run=stack)
    assert found.nats < judged(params, TEXT, 0.0) - 0.1
    assert found.rate == max(RATES)  # of a text as simple as this
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_the_rate_is_chosen_on_the_part_for_validation_alone(params, monkeypatch):
    """Of two texts, the one is foretold the better the lower the rate, the other the worse."""

    def cost(loss, params, carry, windows, rate):
        return rate if int(np.ravel(next(iter(windows)).inputs)[0]) == 0 else -rate

    monkeypatch.setattr(dynamic, "learning_loss", cost)
    one, other = np.zeros(100, np.int32), np.ones(100, np.int32)
    assert evaluate_learning(CONFIG, params, one, other, run=stack) == (-min(RATES), min(RATES))
    assert evaluate_learning(CONFIG, params, other, one, run=stack) == (max(RATES), max(RATES))
