"""When a difference is more than chance, and when there are too few windows to say."""

import numpy as np
import pytest

from jlstm.tasks.table.chance import (
    Scores,
    add_scores,
    difference,
    joined_scores,
    no_scores,
    spans,
)


def windows(generator, origins, horizon, better):
    """Errors of overlapping windows: noise that all of them see, and a model that is better."""
    noise = generator.normal(size=origins + horizon)
    rows = np.arange(origins)[:, None] + np.arange(horizon)
    truth = noise[rows]
    points = {"model": 0.4 * generator.normal() * np.ones_like(truth), "naive": 0 * truth + 0.4}
    points["model"] = np.where(generator.random(1) < 0.5, -0.4, 0.4) * np.ones_like(truth)
    return truth, {**points, "model": (1 - better) * points["model"]}


def found(seed, better, origins=600, horizon=12):
    truth, points = windows(np.random.default_rng(seed), origins, horizon, better)
    at = np.arange(origins)
    scores = spans(add_scores(no_scores(at), truth, points, at), horizon)
    return difference(scores, "naive", squared=True, neighbours=True)


def test_equal_forecasts_differ_by_chance_alone():
    differ = [found(seed, 0.0).beyond_chance for seed in range(200)]
    assert np.mean(differ) < 0.1  # 5 % of those that are not the very same


def test_a_better_forecast_is_found():
    assert np.mean([found(seed, 1.0).beyond_chance for seed in range(50)]) > 0.9


def test_sums_and_margins_by_hand():
    truth = np.array([[1.0, np.nan], [2.0, 4.0], [3.0, 3.0], [5.0, 6.0]])
    points = {"model": np.full((4, 2), 2.0), "naive": np.full((4, 2), 3.0)}
    at = np.array([7, 8, 9, 10])
    scores = add_scores(no_scores(at), truth, points, at)
    np.testing.assert_array_equal(scores.known, [1, 2, 2, 2])
    np.testing.assert_array_equal(scores.absolute["model"], [1, 2, 2, 7])
    np.testing.assert_array_equal(scores.squared["naive"], [4, 2, 0, 13])
    two = spans(scores, 2)
    np.testing.assert_array_equal(two.at, [0, 1])
    np.testing.assert_array_equal(two.absolute["model"], [3, 9])
    halves = [
        add_scores(no_scores(at[a]), truth[a], {n: p[a] for n, p in points.items()}, at[a])
        for a in (slice(2), slice(2, 4))
    ]
    for one, other in zip(joined_scores(*halves)[:2], scores[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    # Above: 3 − 4 of 3 truths, 9 − 5 of 4; the mean 3/7, the rest −16/7 and 16/7, t of one degree
    # of freedom.
    d = difference(two, "naive", squared=False, neighbours=False)
    assert d.mean == pytest.approx(3 / 7)
    assert d.margin == pytest.approx(12.7062 * np.sqrt(2 * (16 / 7) ** 2 * 2) / 7, rel=1e-4)
    assert not d.beyond_chance


def test_neighbours_that_know_of_each_other_widen_the_margin():
    sums = {"model": np.array([2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0]), "naive": np.ones(8)}
    scores = Scores(np.arange(8), np.ones(8), sums, sums)
    apart, near = (difference(scores, "naive", squared=False, neighbours=n) for n in (False, True))
    assert near.margin == pytest.approx(apart.margin * np.sqrt(1 + 2 * 1 / 8), rel=1e-6)
    gaps = scores._replace(at=np.arange(8) * 2)  # none of them is the neighbour of another
    assert difference(gaps, "naive", squared=False, neighbours=True).margin == apart.margin
