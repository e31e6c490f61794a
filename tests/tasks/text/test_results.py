"""Trained models judged: every token counted, the verdict, baselines left out, other texts."""

import json
import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from text_runs import SMALL, prepared, some_text, trained

from jlstm.tasks.text import results
from jlstm.tasks.text.dynamic import Learning
from jlstm.tasks.text.preparing import load
from jlstm.tasks.text.report import LEARNING
from jlstm.tasks.text.results import evaluate, evaluate_dynamic
from jlstm.tasks.text.training import build


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


def test_a_model_that_knows_nothing_loses(tmp_path):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))
    lost = evaluate(SMALL, folder, fresh)
    assert lost.verdict.startswith("The LSTM loses: the baseline order-5 Kneser–Ney needs ")


def test_learning_on_stands_beside_the_model_and_is_no_baseline(tmp_path):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))  # far from what the text can teach it
    once, found = evaluate(SMALL, folder, fresh), evaluate_dynamic(SMALL, folder, fresh)
    models = found.results["models"]
    assert models[LEARNING]["bits_per_byte"] < models["LSTM"]["bits_per_byte"]
    assert {who: models[who] for who in once.results["models"]} == once.results["models"]
    assert found.verdict == once.verdict
    (note,) = [note for note in found.notes if note.startswith(LEARNING)]
    assert "after each 32 characters" in note
    assert "chosen on the validation part" in note


def test_learning_that_does_not_help_is_told(tmp_path, monkeypatch):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))
    monkeypatch.setattr(results, "evaluate_learning", lambda *args, **options: Learning(1.0, 0.0))
    (note,) = [n for n in evaluate_dynamic(SMALL, folder, fresh).notes if n.startswith(LEARNING)]
    assert note.endswith("that is not at all: on the validation part it does not help.")


def test_baselines_that_are_left_out_are_named(tmp_path, monkeypatch):
    folder = prepared(tmp_path, SMALL, some_text(300))
    fresh = build(SMALL, folder).init(jax.random.key(0))
    monkeypatch.setattr(results, "COUNTED", 1000)
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


def test_a_text_that_was_trained_on_is_named(tmp_path):
    text = some_text(300)
    folder = prepared(tmp_path, SMALL, text)
    fresh = build(SMALL, folder).init(jax.random.key(0))
    same, other = tmp_path / "same.txt", tmp_path / "other.txt"
    same.write_text(text, "utf-8")
    other.write_text(text[:-1], "utf-8")
    first, *_ = evaluate(SMALL, folder, fresh, same).notes
    assert first.startswith("The run was trained on this text: ")
    assert not any("was trained on" in note for note in evaluate(SMALL, folder, fresh, other).notes)


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
