"""The training run on a text: layers, batches, what is dropped, validation."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from text_runs import NOISY, SMALL, prepared, some_text, trained

from jlstm.tasks.text import training
from jlstm.tasks.text.model import language_model_loss
from jlstm.tasks.text.preparing import load
from jlstm.tasks.text.tokens import UNKNOWN
from jlstm.tasks.text.training import build, make_stack, model_config
from jlstm.tasks.text.windows import evaluation_windows
from jlstm.train import make_evaluate


def test_the_layers_are_what_was_asked_for():
    config = make_stack(replace(NOISY, layers=3, hidden=12, embedding=8))
    assert config.sizes == (12, 12, 8)
    assert (config.input_dropout, config.dropout, config.output_dropout) == (0.1, 0.2, 0.3)
    assert (config.gates[0].recurrent_dropout, config.gates[0].zoneout_c) == (0.1, 0.1)
    assert config.gates[0].zoneout_h == 0
    assert make_stack(SMALL).sizes == (12,)


@pytest.mark.grid(2)
@pytest.mark.parametrize("config", [SMALL, NOISY], ids=["small", "noisy"])
def test_it_learns(tmp_path, config):
    config = replace(config, streams=8)
    folder = prepared(tmp_path, config, some_text(400))
    params, losses = trained(config, folder, 150)
    job = build(config, folder)
    assert losses[0] == pytest.approx(math.log(len(load(folder).vocabulary)), rel=0.05)
    assert np.mean(losses[-10:]) < 0.7 * losses[0]
    assert job.validate(params) < 0.6 * losses[0]
    assert job.validate(params) == job.validate(params)  # nothing is random here


def test_a_batch_is_a_pure_function_of_its_number(tmp_path):
    folder = prepared(tmp_path, NOISY)
    job, again = build(NOISY, folder), build(NOISY, folder)
    batches = [job.batch(n) for n in range(2 * job.epoch)]
    keys = {tuple(jax.random.key_data(batch.key).tolist()) for batch in batches}
    assert len(keys) == len(batches)
    for n in (5, 2, 2 * job.epoch - 1, 0):
        other = again.batch(n)
        np.testing.assert_array_equal(batches[n].inputs, other.inputs)
        np.testing.assert_array_equal(batches[n].fresh, other.fresh)
        assert (batches[n].key == other.key).all()
    assert [n for n, batch in enumerate(batches) if batch.fresh.all()] == [0, job.epoch]
    assert job.per_step(batches[0]) == 4 * 16
    assert job.epoch == (len(load(folder).tokens["training"]) - 16) // 4 // 16


def test_training_reads_nothing_but_its_part(tmp_path):
    """What is kept back is of other characters here."""
    content = some_text(150)
    first, last = round(0.1 * len(content)), round(0.2 * len(content))
    content = "Z" * first + content[first:-last] + "Z" * last
    folder = prepared(tmp_path, SMALL, content)
    data, job = load(folder), build(SMALL, folder)
    assert data.vocabulary.tokens[0] == UNKNOWN
    assert "Z" not in data.vocabulary.tokens
    assert {name: part.unknown for name, part in data.parts.items()} == {
        "training": 0,
        "validation": data.parts["validation"].tokens,
        "test": data.parts["test"].tokens,
    }
    for n in range(3 * job.epoch):
        batch = job.batch(n)
        assert min(batch.inputs.min(), batch.targets.min()) > 0
    assert any("Unknown: 100.00% validation, 0.00% training" in line for line in job.about)


def test_everything_that_is_dropped_depends_on_the_key(tmp_path):
    folder = prepared(tmp_path, NOISY)
    quiet = {name: 0.0 for name in vars(NOISY) if "dropout" in name or name == "zoneout"}
    assert len(quiet) == 7
    batches = None
    for name in [None, *quiet]:
        config = replace(NOISY, **(quiet | ({} if name is None else {name: 0.5})))
        job = build(config, folder)
        # Zoneout and recurrent dropout have weights of their own kind, drawn from the same key.
        params = job.init(jax.random.key(0))
        batches = [job.batch(0), job.batch(0)._replace(key=job.batch(1).key)]
        carry = jax.tree.map(lambda a: a + jnp.float32(0.5), job.carry(params))
        # A start that is not fresh, so that there is something to drop from the first step on.
        batches = [b._replace(fresh=np.zeros(4, bool)) for b in batches]
        first, second = (float(jax.jit(job.loss)(params, carry, b)[0]) for b in batches)
        assert (first == second) == (name is None), name


@pytest.mark.slow
def test_dropped_weights_come_back(tmp_path):
    """The gradient is that of the weights themselves, and validation uses all of them."""
    config = replace(SMALL, weight_dropout=0.9, output_dropout=0.0)
    folder = prepared(tmp_path, config)
    job, plain = build(config, folder), build(replace(config, weight_dropout=0.0), folder)
    params = job.init(jax.random.key(0))
    readout = jax.random.normal(jax.random.key(1), params.readout.shape, jnp.float32)
    params = params._replace(readout=readout)
    carry = job.carry(params)
    gradient = jax.grad(job.loss, has_aux=True)(params, carry, job.batch(0))[0]
    assert np.mean(gradient.lstm[0].forward.w_hh == 0) == pytest.approx(0.9, abs=0.05)
    assert job.validate(params) == plain.validate(params)


def test_tied_models_have_no_readout(tmp_path):
    folder = prepared(tmp_path, NOISY)
    params = build(NOISY, folder).init(jax.random.key(0))
    assert params.readout is None
    assert params.lstm[-1].forward.w_hh.shape[-1] == NOISY.embedding


def test_the_arithmetic_is_told(tmp_path):
    folder = prepared(tmp_path, NOISY)
    job = build(NOISY, folder)
    params = job.init(jax.random.key(0))
    about = "\n".join(job.about)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert f"{count:,} parameters" in about
    size = len(load(folder).vocabulary)
    assert f"Model: {size} → 8 → 12 → 8 → {size}, tied" in about
    assert f"4 streams × 16 characters; {job.epoch} of them" in about
    assert (job.score, job.unit, job.steps) == ("nats per character", "characters", 20)
    assert build(replace(NOISY, steps=None, epochs=2.0), folder).steps == 2 * job.epoch


# Validation


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", ["byte", "word"])
def test_the_validation_is_that_of_one_stream(tmp_path, monkeypatch, kind):
    config = replace(SMALL, tokens=kind, validation=0.4)
    folder = prepared(tmp_path, config, some_text(900))
    params, _ = trained(config, folder, 30)
    params = jax.device_get(params)
    text = load(folder).tokens["validation"]
    assert len(text) >= 2048  # more than one stream
    one = make_evaluate(
        partial(language_model_loss, model_config(config, params.readout_bias.size)),
        lambda batch: float(batch.weights.sum()),
    )
    expected = one(params, None, evaluation_windows(text, streams=1, time=64))
    found = build(config, folder).validate(params)
    # What lies further back than CONTEXT has next to no influence.
    assert found == pytest.approx(expected, rel=1e-4)
    # Neither the batch nor how much is computed at once changes it, but for rounding.
    for name, value in (("streams", 2), ("time", 5)):
        assert build(replace(config, **{name: value}), folder).validate(params) == found
    monkeypatch.setattr(training, "READ", 3000)
    assert build(config, folder).validate(params) == pytest.approx(found, rel=1e-6)
