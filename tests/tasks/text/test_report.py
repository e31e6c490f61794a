"""The sentence that says who wins, and the notes on a text."""

import pytest

from jlstm.tasks.text.report import report, verdict
from jlstm.tasks.text.tokens import Part


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        (1.5, "The LSTM wins: 25.0% fewer bits than the best baseline, unigram."),
        (2.5, "The LSTM loses: the baseline unigram needs 20.0% fewer bits."),
        (2.0, "The LSTM loses: the baseline unigram needs 0.0% fewer bits."),
        (0.0, "The LSTM needs 0 bits per token, the baseline unigram 2."),
    ],
)
def test_the_verdict_says_who_wins(ours, says):
    assert verdict({"LSTM": ours, "uniform": 4.0, "unigram": 2.0}) == says


def test_measures_are_per_what_was_foretold():
    part = Part(tokens=101, unknown=2, characters=200, bytes=400)
    found = report("word", {"uniform": 8.0, "LSTM": 4.0}, part, "a text", ["before"])
    assert found.results["models"]["LSTM"] == pytest.approx(
        {
            "nats_per_word": 2.772588722,
            "bits_per_character": 2.0,
            "bits_per_byte": 1.0,
            "perplexity": 16.0,
        }
    )
    assert found.notes[0] == "before"
    assert found.notes[2].startswith("2.0% of the words of a text are not in the vocabulary")
    assert [row[0] for row in found.tables[0].rows] == ["uniform", "LSTM"]
    assert found.tables[0].best == (1,)
    few = report("word", {"LSTM": 4.0, "uniform": 8.0}, part._replace(unknown=1), "a text", [])
    assert len(few.notes) == 1
