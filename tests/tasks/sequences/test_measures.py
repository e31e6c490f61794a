"""Measures of labels, against values counted by hand."""

import numpy as np
import pytest

from jlstm.tasks.sequences.measures import (
    accuracy,
    confusion_matrix,
    macro_f1,
    majority,
    majority_of_equals,
    nearest,
    per_class,
    regression_scores,
    summary_features,
)

#            true      0 0 0 0 1 1 2
PREDICTED = np.array([0, 0, 0, 1, 1, 2, 1])
TRUE = np.array([0, 0, 0, 0, 1, 1, 2])
CONFUSION = [[3, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_the_confusion_matrix_has_a_row_for_what_is_true():
    np.testing.assert_array_equal(confusion_matrix(TRUE, PREDICTED, 3), CONFUSION)
    with pytest.raises(ValueError, match=r"predictions: expected the shape of targets, \(7,\)"):
        confusion_matrix(TRUE, PREDICTED[:1], 3)


def test_accuracy_precision_recall_and_f1_are_what_they_are_by_hand():
    confusion = np.array(CONFUSION)
    assert accuracy(confusion) == pytest.approx(4 / 7)
    by_class = per_class(confusion)
    np.testing.assert_allclose(by_class["precision"], [1, 1 / 3, 0])
    np.testing.assert_allclose(by_class["recall"], [3 / 4, 1 / 2, 0])
    np.testing.assert_allclose(by_class["f1"], [6 / 7, 2 / 5, 0])
    np.testing.assert_array_equal(by_class["support"], [4, 2, 1])
    assert macro_f1(confusion) == pytest.approx((6 / 7 + 2 / 5 + 0) / 3)


def test_a_class_that_nobody_has_seen_does_not_lower_the_macro_f1():
    assert macro_f1(confusion_matrix(TRUE, TRUE, 3)) == 1
    assert macro_f1(confusion_matrix(TRUE, TRUE, 9)) == 1
    # One that is predicted, though it never occurs, does.
    assert macro_f1(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 2)) == pytest.approx(1 / 3)


def test_of_nothing_all_measures_are_0():
    nothing = np.zeros((2, 2), np.int64)
    assert accuracy(nothing) == macro_f1(nothing) == 0


def test_numbers_are_measured_by_their_distance():
    scores = regression_scores(np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0]))
    assert scores["mae"] == pytest.approx(1)
    assert scores["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert scores["r2"] == pytest.approx(1 - 5 / 14)  # the mean is 3: 4 + 1 + 9
    assert regression_scores(np.array([3.0]), np.array([4.0]))["r2"] is None
    with pytest.raises(ValueError, match="targets: expected at least one, got none"):
        regression_scores(np.array([]), np.array([]))


def test_the_majority_is_the_most_frequent_class():
    assert majority(np.array([2, 1, 1, 2, 0, 2])) == 2
    assert majority(np.array([1, 0])) == 0


def test_a_sequence_is_summed_up_in_a_few_numbers():
    values = np.array([[1.0, 8], [3, 8], [5, 2], [7, -1]])
    summary = summary_features(values, np.array([0, 3, 4]))
    root = np.sqrt
    np.testing.assert_allclose(
        summary,
        [
            # mean, standard deviation, minimum, maximum, first, last, length
            [3, 6, root(8 / 3), root(8), 1, 2, 5, 8, 1, 8, 5, 2, 3],
            [7, -1, 0, 0, 7, -1, 7, -1, 7, -1, 7, -1, 1],
        ],
    )


def test_near_is_what_is_near_in_scaled_columns():
    known = np.array([[0.0, 0], [1, 1000], [0, 1000], [1, 0]])
    # Unscaled, the second column would decide.
    asked = np.array([[0.9, 480.0], [0.2, 900.0], [0.1, 0.0]])
    np.testing.assert_array_equal(nearest(known, asked), [3, 2, 0])


def test_near_is_the_same_in_pieces(monkeypatch):
    draw = np.random.default_rng(0)
    known, asked = draw.normal(size=(50, 4)), draw.normal(size=(33, 4))
    whole = nearest(known, asked)
    scaled = [(a - known.mean(0)) / known.std(0) for a in (known, asked)]
    brute = np.linalg.norm(scaled[0] - scaled[1][:, None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(whole, brute)
    monkeypatch.setattr("jlstm.tasks.sequences.measures.BLOCK", 170)
    np.testing.assert_array_equal(nearest(known, asked), whole)


def test_equal_steps_get_the_tag_that_most_of_them_have():
    values = np.array([[1.0, 0], [0, 1], [1, 0], [1, 0], [0, 1]])
    different, tags = majority_of_equals(values, np.array([2, 0, 1, 2, 0]))
    assert dict(zip(map(tuple, different), tags, strict=True)) == {(1.0, 0.0): 2, (0.0, 1.0): 0}
