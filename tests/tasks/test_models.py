"""What the models of all tasks have in common."""

import inspect
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jlstm import Stack, init_stack_carry
from jlstm.tasks.sequences import model as sequences
from jlstm.tasks.sequences.batch import SequenceBatch
from jlstm.tasks.table import model as table
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.text import model as text
from jlstm.tasks.text.batch import TokenBatch
from jlstm.train import init_train_state, make_evaluate, make_train_step

STACK, BATCH = Stack(sizes=5, output_dropout=0.2), 4
TEXT = text.LanguageModelConfig(vocabulary=11, embedding=3, stack=STACK)
TABLE = table.ForecasterConfig(lookback=7, horizon=2, stack=STACK, patch=3, width=6)
SEQUENCES = sequences.LabellerConfig(inputs=3, outputs=2, stack=STACK)


def text_batch(draw):
    tokens = draw.integers(0, 11, (9, BATCH)).astype(np.int32)
    weights = (np.arange(8 * BATCH) % 3 > 0).reshape(8, BATCH).astype(np.float32)
    return TokenBatch(tokens[:-1], tokens[1:], weights)


def table_batch(draw):
    targets = draw.normal(size=(2, BATCH)).astype(np.float32)
    targets[1, 2] = np.nan
    nothing = [np.zeros((*shape, 0), np.float32) for shape in ((7, BATCH), (9, BATCH), (BATCH,))]
    values = draw.normal(size=(7, BATCH)).astype(np.float32)
    return WindowBatch(values, np.zeros(BATCH, np.int32), *nothing, targets)


def sequences_batch(draw):
    xs = draw.normal(size=(6, BATCH, 3)).astype(np.float32)
    lengths = np.array([6, 2, 0, 5], np.int32)
    return SequenceBatch(xs, lengths, lengths % 2, np.array([1.0, 2, 0, 1], np.float32))


MODELS = {
    "text": (TEXT, text.init_language_model, text.language_model_loss, text.token_count),
    "table": (TABLE, table.init_forecaster, table.forecaster_loss, table.target_count),
    "sequences": (
        SEQUENCES, sequences.init_labeller, sequences.labeller_loss, sequences.label_count
    ),
}  # fmt: skip
BATCHES = {"text": text_batch, "table": table_batch, "sequences": sequences_batch}


@pytest.mark.parametrize("kind", MODELS)
def test_arguments_come_in_one_order(kind):
    _, init, loss, _ = MODELS[kind]
    assert list(inspect.signature(init).parameters)[:2] == ["key", "config"]
    parameters = inspect.signature(loss).parameters
    assert list(parameters) == ["config", "params", "carry", "batch", "run"]
    assert parameters["run"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("kind", MODELS)
def test_losses_go_into_training_and_evaluation(kind):
    config, init, loss, count = MODELS[kind]
    loss_fn, draw = partial(loss, config), np.random.default_rng(0)
    params = init(jax.random.key(0), config)
    carry = init_stack_carry(STACK, params.lstm, BATCH) if kind == "text" else None
    batch = BATCHES[kind](draw)
    optimizer = optax.adam(0.05)
    state = init_train_state(params, optimizer, carry)
    step = make_train_step(loss_fn, optimizer)
    for n in range(30):
        state, _ = step(state, batch._replace(key=jax.random.key(n)))
    assert step._cache_size() == 1
    mean = make_evaluate(loss_fn, count)
    after, before = (mean(p, carry, [batch, batch]) for p in (state.params, params))
    assert after < before
    assert count(batch) == {"text": 21, "table": 7, "sequences": 4}[kind]
