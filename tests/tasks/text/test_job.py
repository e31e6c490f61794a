"""The job of texts, from the files to what the model writes, at sizes that take seconds."""

import hashlib
import json
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jlstm.devices import place
from jlstm.tasks.text import job as job_text
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.job import (
    FILES,
    build,
    evaluate,
    load,
    make_stack,
    model_config,
    prepare,
    sample,
)
from jlstm.tasks.text.model import language_model_loss
from jlstm.tasks.text.tokens import PARTS, UNKNOWN
from jlstm.tasks.text.windows import evaluation_windows
from jlstm.train import init_train_state, make_evaluate, make_train_step

SENTENCES = ["the cat sat on the mat", "a dog ran to the cat", "we read the red book", "so it is"]


def some_text(lines: int, seed: int = 0) -> str:
    order = np.random.default_rng(seed).integers(len(SENTENCES), size=lines)
    return "".join(f"{SENTENCES[n]}\n" for n in order)


SMALL = TextConfig(
    streams=4, time=16, embedding=8, hidden=12, layers=1, steps=20, validation=0.1, test=0.2
)
NOISY = replace(
    SMALL,
    layers=2,
    tied=True,
    embedding_dropout=0.1,
    input_dropout=0.1,
    dropout=0.2,
    output_dropout=0.3,
    weight_dropout=0.4,
    recurrent_dropout=0.1,
    zoneout=0.1,
)


def prepared(folder, config=SMALL, content=None):
    content = some_text(150) if content is None else content
    (folder / "run").mkdir()
    file = folder / "book.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    prepare(config, [file], folder / "run")
    file.unlink()  # from here on the folder is enough
    return folder / "run"


def trained(config, folder, steps, optimizer=None):
    job = build(config, folder)
    optimizer = optimizer or optax.adam(0.02)
    params = job.init(jax.random.key(0))
    state = init_train_state(params, optimizer, job.carry(params))
    devices = jax.devices()[: job.devices]
    state = place(state, devices=devices)._replace(carry=place(state.carry, 0, devices))
    step = make_train_step(job.loss, optimizer)
    losses = []
    for n in range(steps):
        state, metrics = step(state, job.batch(n))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return state.params, losses


# What is written


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
def test_what_is_prepared(tmp_path, kind):
    content = some_text(150)
    config = replace(SMALL, tokens=kind, time=4)
    folder = prepared(tmp_path, config, content)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == set(FILES)
    about = json.loads((folder / "data/text.json").read_text())
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert [file["sha256"] for file in about["files"]] == [digest]
    data = load(folder)
    # The parts follow each other, with nothing between them and nothing twice.
    whole = np.concatenate([data.tokens[name] for name in PARTS])
    np.testing.assert_array_equal(whole, np.load(folder / "data/tokens.npy"))
    joined = content.replace("\n", " \n ").split(" ")[:-1] if kind == "word" else list(content)
    tokens = (
        [chr(n) for n in whole] if kind == "byte" else [data.vocabulary.tokens[n] for n in whole]
    )
    assert tokens == joined
    assert data.parts["test"].tokens == pytest.approx(0.2 * len(joined), rel=0.05)
    assert data.parts["validation"].tokens == pytest.approx(0.1 * len(joined), rel=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"files: expected a text, got nothing to read in .*book.txt"),
        ("ab", "at least two characters in each part, got 0 in that for validation"),
        (
            "a single line" * 5,
            r"at least 65 characters to train on \(4 streams × 16 steps.*, got 46;",
        ),
        (b"not \xff UTF-8" * 50, r"book.txt: expected UTF-8, .* byte 4; --tokens byte"),
    ],
)
def test_what_cannot_be_prepared(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, SMALL, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"expected a file or a folder, got .*missing.txt"):
        prepare(SMALL, [tmp_path / "missing.txt"], tmp_path)


def test_damage_is_noticed(tmp_path):
    folder = prepared(tmp_path)
    np.save(folder / "data/tokens.npy", np.load(folder / "data/tokens.npy")[:-1])
    with pytest.raises(ValueError, match=r"tokens.npy: expected \d+ tokens, got shape"):
        load(folder)
    np.save(folder / "data/tokens.npy", np.array([{"code": "run"}]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):  # nothing is unpickled
        load(folder)


# Training


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
    assert [n for n, batch in enumerate(batches) if batch.fresh.any()] == [0, job.epoch]
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
    monkeypatch.setattr(job_text, "READ", 3000)
    assert build(config, folder).validate(params) == pytest.approx(found, rel=1e-6)


# Evaluation


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
def test_the_evaluation_counts_every_token(tmp_path, kind):
    config = replace(SMALL, tokens=kind, time=8)
    folder = prepared(tmp_path, config, some_text(300).replace("cat", "cät"))
    params, _ = trained(config, folder, 60)
    params = jax.device_get(params)
    found = evaluate(config, folder, params)
    json.dumps(found.results, allow_nan=False)
    data = load(folder)
    part, models = data.parts["test"], found.results["models"]
    assert models.keys() == {"LSTM", "uniform", "unigram", "order-5 Kneser–Ney"}
    unit = {"byte": "byte", "char": "character", "word": "word"}[kind]
    for who, numbers in models.items():
        bits = numbers[f"nats_per_{unit}"] / math.log(2) * (part.tokens - 1)
        assert numbers["bits_per_byte"] == pytest.approx(bits / part.bytes, rel=1e-12)
        assert numbers["bits_per_character"] == pytest.approx(bits / part.characters, rel=1e-12)
        assert numbers["bits_per_byte"] < numbers["bits_per_character"]
        if kind == "word":
            assert numbers["perplexity"] == pytest.approx(math.exp(numbers["nats_per_word"]))
        else:
            assert "perplexity" not in numbers, who
    size = len(data.vocabulary)
    assert models["uniform"][f"nats_per_{unit}"] == pytest.approx(math.log(size), rel=1e-12)
    assert models["order-5 Kneser–Ney"]["bits_per_byte"] < models["unigram"]["bits_per_byte"]
    (table,) = found.tables
    assert table.rows[table.best[0]][0] == "LSTM"
    assert len({len(row) for row in table.rows} | {len(table.columns)}) == 1


def test_the_verdict_says_who_wins(tmp_path):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))
    lost = evaluate(SMALL, folder, fresh)
    assert lost.verdict.startswith("The LSTM loses: the baseline order-5 Kneser–Ney needs ")
    assert job_text._verdict({"LSTM": 1.5, "uniform": 4.0, "unigram": 2.0}) == (
        "The LSTM wins: 25.0% fewer bits than the best baseline, unigram."
    )


def test_baselines_that_are_left_out_are_named(tmp_path, monkeypatch):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))
    monkeypatch.setattr(job_text, "COUNTED", 1000)
    found = evaluate(SMALL, folder, fresh)
    assert "order-5 Kneser–Ney is left out: it is for at most 1,000 tokens." in found.notes
    assert found.results["models"].keys() == {"LSTM", "uniform", "unigram"}
    # At the start it knows as little as the uniform model, and the unigram model wins.
    assert found.verdict.startswith("The LSTM loses: the baseline unigram needs ")


def test_many_words_have_no_counted_baseline_and_many_unknown_ones_a_note(tmp_path):
    draw = np.random.default_rng(0)
    content = " ".join(f"w{n}" for n in draw.integers(2000, size=4000))
    config = replace(SMALL, tokens="word", time=4, vocabulary=500)
    folder = prepared(tmp_path, config, content)
    found = evaluate(config, folder, build(config, folder).init(jax.random.key(0)))
    notes = "\n".join(found.notes)
    assert "it is for at most 256 different tokens" in notes
    assert "% of the words of the test part are not in the vocabulary" in notes
    assert "White space between words costs nothing" in notes


def test_another_text_is_evaluated_with_the_vocabulary_of_the_run(tmp_path):
    folder = prepared(tmp_path, SMALL, some_text(300))
    params = build(SMALL, folder).init(jax.random.key(0))
    other = tmp_path / "other.txt"
    other.write_text("the cat read\r\nthe book\n", newline="")
    found = evaluate(SMALL, folder, params, other)
    size = len(load(folder).vocabulary)
    assert found.results["tokens"] == len("the cat read\nthe book\n")
    assert found.results["models"]["LSTM"]["nats_per_character"] == pytest.approx(
        math.log(size), rel=1e-5
    )
    other.write_text("the cät")
    with pytest.raises(ValueError, match="expected chars of the vocabulary, got 'ä'"):
        evaluate(SMALL, folder, params, other)
    other.write_text("t")
    with pytest.raises(ValueError, match=r"other.txt: expected at least two characters, got one"):
        evaluate(SMALL, folder, params, other)
    other.write_text("")
    with pytest.raises(ValueError, match="files: expected a text, got nothing to read"):
        evaluate(SMALL, folder, params, other)


# Writing


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A model that has learnt "ab" over and over."""
    folder = prepared(tmp_path_factory.mktemp("writer"), SMALL, "abab\n" * 200)
    return folder, jax.device_get(trained(SMALL, folder, 100)[0])


def test_it_writes_what_it_has_read(writer):
    folder, params = writer
    assert sample(SMALL, folder, params, "\nab", 13, 0.0) == "ab\nabab\nabab\n"
    assert sample(SMALL, folder, params, "", 5, 0.0) == "abab\n"
    hot = partial(sample, SMALL, folder, params, "ab", 40, 3.0)
    assert hot(seed=1) == hot(seed=1) != hot(seed=2)
    assert hot(top_k=1, seed=1) == sample(SMALL, folder, params, "ab", 40, 0.0)


def test_unknown_characters_of_a_prompt_are_named(writer):
    folder, params = writer
    with pytest.raises(ValueError, match=r"prompt: expected characters .* got 'x', 'é'"):
        sample(SMALL, folder, params, "abxéa", 3)
    told = []
    sample(SMALL, folder, params, "ab", 3, say=told.append)
    assert not told


def test_words(tmp_path):
    config = replace(SMALL, tokens="word", time=4, vocabulary=4)
    folder = prepared(tmp_path, config, some_text(300))
    vocabulary = load(folder).vocabulary
    params = build(config, folder).init(jax.random.key(0))
    # A model that would write little but <unk>.
    bias = params.readout_bias.at[vocabulary.unknown].set(9.0)
    params = params._replace(readout_bias=bias)
    told = []
    sample(config, folder, params, "the zebra sat", 3, say=told.append)
    assert told == ["The model does not know 'zebra', 'sat', and reads <unk> instead."]
    written = sample(config, folder, params, "the zebra", 200, say=told.append)
    assert UNKNOWN not in written
    assert set(written.replace("\n", " ").split()) == set(vocabulary.tokens) - {UNKNOWN, "\n"}
    # It is to be set right behind the prompt.
    assert written[0] in " \n"
    assert sample(config, folder, params, "the ", 200)[0] != " "


def test_bytes(tmp_path):
    config = replace(SMALL, tokens="byte")
    folder = prepared(tmp_path, config, bytes(range(256)) * 40)
    params = build(config, folder).init(jax.random.key(0))
    written = sample(config, folder, params, "é\udcff", 50)
    assert len(written) > 10
    assert evaluate(config, folder, params).results["bytes"] > 0


def test_a_model_without_newline_needs_a_prompt(tmp_path):
    folder = prepared(tmp_path, SMALL, "ab" * 400)
    params = build(SMALL, folder).init(jax.random.key(0))
    assert len(sample(SMALL, folder, params, "a", 5)) == 5
    with pytest.raises(ValueError, match="prompt: expected some text, got none"):
        sample(SMALL, folder, params, "", 5)


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
