"""What a language model writes after a prompt."""

from dataclasses import replace
from functools import partial

import jax
import optax
import pytest
from text_runs import SMALL, prepared, some_text, trained

from jlstm.tasks.text.preparing import load
from jlstm.tasks.text.results import evaluate
from jlstm.tasks.text.tokens import UNKNOWN
from jlstm.tasks.text.training import build
from jlstm.tasks.text.writing import sample as write


def sample(*arguments, **options):
    """The first sample, as one text."""
    return "".join(text for number, text in write(*arguments, **options) if number == 0)


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


def test_characters_of_several_bytes_are_whole(tmp_path):
    """The text goes on to the bytes of the last character that a piece of tokens cut."""
    config = replace(SMALL, tokens="byte", steps=1)
    folder = prepared(tmp_path, config, "€😀\n" * 200)
    params = jax.device_get(trained(config, folder, 150, optax.adam(0.05))[0])
    pieces = [*write(config, folder, params, "€😀\n", 400, 0.0)]
    assert len(pieces) > 10
    assert "".join(text for _, text in pieces) == "€😀\n" * 50


def test_several_samples_are_one_after_the_other_and_the_same_however_many(writer):
    folder, params = writer
    found = {}
    for count in (1, 3, 6):
        texts = [""] * count
        pieces = [*write(SMALL, folder, params, "ab", 70, 2.0, count=count)]
        assert [number for number, _ in pieces] == sorted(number for number, _ in pieces)
        for number, text in pieces:
            texts[number] += text
        assert {len(text) for text in texts} == {70}
        found[count] = texts
    assert found[1] == found[6][:1]
    assert found[3] == found[6][:3]
    assert len(set(found[6])) == 6


def test_a_model_without_newline_begins_with_its_first_token(tmp_path):
    folder = prepared(tmp_path, SMALL, "ab" * 400)
    params = build(SMALL, folder).init(jax.random.key(0))
    said = []
    text = sample(SMALL, folder, params, "", 5, say=said.append)
    assert text == sample(SMALL, folder, params, load(folder).vocabulary.tokens[0], 5)
    assert said == [
        "There is no prompt, and the model knows no new line: it goes on from its first token."
    ]
