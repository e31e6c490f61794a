"""Verdicts on sequences: who is better, and whether it may be chance."""

import re

import numpy as np
import pytest

from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.measures import confusion_matrix
from jlstm.tasks.sequences.report import MODEL, Errors, joined_errors, judge_classes, judge_numbers

CONFIG = SequencesConfig(id="who", time="step", label="kind")


def judged(count, own, other, config=CONFIG):
    """Of so many sequences, the model is wrong in the first ``own``, the baseline in the last."""
    wrong = {MODEL: np.arange(count) < own, "nearest": np.arange(count) >= count - other}
    zeros = np.zeros(count, int)
    confusions = {who: confusion_matrix(zeros, w.astype(int), 2) for who, w in wrong.items()}
    errors = Errors(np.ones(count), {who: w.astype(float) for who, w in wrong.items()})
    return judge_classes(config, {"sequences": count}, ("a", "b"), confusions, errors, []).verdict


@pytest.mark.parametrize(
    ("count", "own", "other", "begins", "says"),
    [
        (18, 7, 8, "The model is ahead of the baselines, perhaps by chance: 61.11% against 55.5",
         r"differ by \+5.56 ± 47 points, no more than chance may do (95 % interval over 18 seq"),
        (1800, 700, 800, "The model beats the baselines: 61.11% against 55.56%",
         "more than chance (95 % interval over 1,800 sequences)."),
        (18, 8, 7, "The model is WORSE than a baseline, nearest, perhaps by chance: ", "-5.56 ±"),
        (900, 400, 200, "The model is WORSE than a baseline, nearest: 55.56% against", "-22.2 ±"),
        (18, 8, 8, "The model is no better than a baseline, nearest: ", "."),
    ],
)  # fmt: skip
def test_classes(count, own, other, begins, says):
    found = judged(count, own, other)
    assert found.startswith(begins)
    assert says.replace("\\", "") in found


def test_of_a_macro_f1_nothing_is_said_of_chance():
    balanced = SequencesConfig(id="who", time="step", label="kind", class_weights="balanced")
    assert "chance" not in judged(18, 7, 8, balanced)
    assert "±" not in judged(18, 7, 8, balanced)


def test_numbers():
    draw = np.random.default_rng(0)
    true = draw.normal(size=400)
    guesses = {who: true + draw.normal(0, sd, 400) for who, sd in ((MODEL, 1.0), ("mean", 1.5))}
    found = judge_numbers({}, true, guesses, []).verdict
    assert found.startswith("The model beats the baselines: ")
    assert re.search(r"differ by -0\.\d+ ± 0\.\d+ in squared error, more than chance", found)
    few = judge_numbers({}, true[:8], {who: g[:8] for who, g in guesses.items()}, []).verdict
    assert "no more than chance may do (95 % interval over 8 sequences)" in few


def test_steps_of_one_sequence_are_no_witnesses_of_their_own():
    """As many steps in fewer sequences tell less."""
    many = Errors(np.ones(600), {MODEL: np.arange(600) < 200, "b": np.arange(600) >= 300})
    few = Errors(np.full(6, 100.0), {MODEL: np.array([100, 100, 0, 0, 0, 0.0]),
                                     "b": np.array([0, 0, 0, 100, 100, 100.0])})  # fmt: skip
    confusions = {MODEL: np.array([[400, 200], [0, 0]]), "b": np.array([[300, 300], [0, 0]])}
    for errors, clear in ((many, True), (few, False)):
        errors = errors._replace(of={who: np.asarray(e, float) for who, e in errors.of.items()})
        found = judge_classes(CONFIG, {"sequences": 6}, ("a", "b"), confusions, errors, [])
        assert ("no more than chance" not in found.verdict) == clear


def test_parts_are_joined():
    one = Errors(np.array([1, 2]), {MODEL: np.array([0, 1]), "b": np.array([1, 1])})
    other = Errors(np.array([3]), {MODEL: np.array([2]), "b": np.array([0])})
    known, of = joined_errors([one, other])
    np.testing.assert_array_equal(known, [1, 2, 3])
    np.testing.assert_array_equal(of[MODEL], [0, 1, 2])
    np.testing.assert_array_equal(of["b"], [1, 1, 0])
