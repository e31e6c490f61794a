"""The measures and the baselines, against values found by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks.table.measures import (
    add_errors,
    drift,
    fit_linear,
    last_value,
    linear,
    measures,
    moments,
    no_errors,
    seasonal_error,
    seasonal_naive,
)

QUANTILES = (0.1, 0.5, 0.9)
TRUTH = np.array([[10.0, 0.0], [4.0, np.nan], [2.0, -6.0]])
FORECASTS = np.array(
    [[[7.0, 8.0, 9.0], [-1.0, 0.0, 2.0]], [[3.0, 5.0, 8.0], [0.0, 9.0, 9.0]], [[2.0, 2.0, 2.0]] * 2]
)
SERIES = np.array([0, 0, 1])


def errors():
    return add_errors(no_errors(2, 2, 3), TRUTH, FORECASTS, SERIES, QUANTILES)


def test_all_windows_together():
    found = measures(errors())
    assert found["mae"] == pytest.approx((2 + 0 + 1 + 0 + 8) / 5)
    assert found["mse"] == pytest.approx((4 + 0 + 1 + 0 + 64) / 5)
    assert found["rmse"] == pytest.approx((69 / 5) ** 0.5)
    assert found["smape"] == pytest.approx(200 * (2 / 18 + 0 + 1 / 9 + 0 + 8 / 8) / 5)
    # Above 7, 8 and 9 by 3, 2 and 1; and so on. Where the truth is lower, it weighs 1 − q.
    low = 0.1 * 3 + 0.1 * 1 + 0.1 * 1 + 0 + 0.9 * 8
    middle = 0.5 * (2 + 0 + 1 + 0 + 8)
    high = 0.9 * 1 + 0.1 * 2 + 0.1 * 4 + 0 + 0.1 * 8
    assert found["wql"] == pytest.approx(2 * (low + middle + high) / 3 / (10 + 0 + 4 + 2 + 6))
    assert found["coverage"] == pytest.approx(3 / 5)  # not 10, not −6; 2 is on the border
    assert found["width"] == pytest.approx((2 + 3 + 5 + 0 + 0) / 5)


def test_by_horizon_and_by_series():
    np.testing.assert_allclose(measures(errors(), (0,))["mae"], [(2 + 1 + 0) / 3, (0 + 8) / 2])
    np.testing.assert_allclose(measures(errors(), (1,))["mse"], [(4 + 0 + 1) / 3, (0 + 64) / 2])


def test_units_are_those_of_each_series():
    found = measures(errors(), unit=np.array([2.0, 4.0]))
    assert found["mae"] == pytest.approx((1 + 0 + 0.5 + 0 + 2) / 5)
    assert found["mse"] == pytest.approx((1 + 0 + 0.25 + 0 + 4) / 5)
    assert found["smape"] == measures(errors())["smape"]


def test_mase_leaves_out_series_that_have_no_naive_error():
    assert measures(errors(), naive=np.array([2.0, 4.0]))["mase"] == pytest.approx(
        (1 + 0 + 0.5 + 0 + 2) / 5
    )
    assert measures(errors(), naive=np.array([2.0, np.nan]))["mase"] == pytest.approx(1.5 / 3)
    assert np.isnan(measures(errors())["mase"])


def test_where_nothing_is_known_nothing_is_measured():
    nothing = measures(no_errors(2, 2, 3))
    assert all(np.isnan(value) for value in nothing.values())


@given(st.data())
def test_how_windows_are_batched_does_not_matter(data):
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    truth = generator.normal(size=(12, 3))
    truth[generator.random((12, 3)) < 0.2] = np.nan
    forecasts = np.sort(generator.normal(size=(12, 3, 3)), axis=-1)
    series = generator.integers(0, 4, 12)
    whole = add_errors(no_errors(4, 3, 3), truth, forecasts, series, QUANTILES)
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=4)))
    pieces = no_errors(4, 3, 3)
    for a, b in zip([0, *cuts], [*cuts, 12], strict=True):
        pieces = add_errors(pieces, truth[a:b], forecasts[a:b], series[a:b], QUANTILES)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)  # another order of sums


def test_forecasts_of_other_quantiles_are_refused():
    with pytest.raises(ValueError, match=r"forecasts: expected shape \[3, 2, 2\], got \[3, 2, 3\]"):
        add_errors(no_errors(2, 2, 2), TRUTH, FORECASTS, SERIES, (0.5, 0.9))


def test_seasonal_error():
    values = np.array([1.0, 5.0, 2.0, np.nan, 6.0, 5.0])
    assert seasonal_error(values, 2) == pytest.approx((1 + 4) / 2)  # 2 − 1, 6 − 2
    assert np.isnan(seasonal_error(values, 6))
    assert np.isnan(seasonal_error(np.ones(5), 1))
    # Periodic but for rounding.
    day = 7 * np.sin(2 * np.pi * np.arange(480) / 24)
    assert 0 < np.abs(day[24:] - day[:-24]).mean() < 1e-12
    assert np.isnan(seasonal_error(day, 24))
    assert seasonal_error(day + 1e-3 * (np.arange(480) >= 240), 24) > 0


WINDOWS = np.array([[1.0, 2.0, 4.0, 7.0], [0.0, 0.0, 0.0, 3.0]])


def test_baselines():
    np.testing.assert_array_equal(last_value(WINDOWS, 3), [[7, 7, 7], [3, 3, 3]])
    np.testing.assert_array_equal(drift(WINDOWS, 3), [[9, 11, 13], [4, 5, 6]])
    np.testing.assert_array_equal(seasonal_naive(WINDOWS, 5, 3), [[2, 4, 7, 2, 4], [0, 0, 3, 0, 0]])
    with pytest.raises(ValueError, match="season: expected at most the 4 steps of a window, got 5"):
        seasonal_naive(WINDOWS, 3, 5)


def test_the_linear_baseline_finds_a_linear_law():
    generator = np.random.default_rng(0)
    windows = generator.normal(size=(200, 5)) + 40
    law = generator.normal(size=(5, 2))
    truth = (windows - windows[:, -1:]) @ law + windows[:, -1:]
    train = moments(windows[:80], truth[:80]) + moments(windows[80:120], truth[80:120])
    weights = fit_linear(train, moments(windows[120:], truth[120:]))
    np.testing.assert_allclose(linear(windows, weights), truth, rtol=1e-5)
    # The last value of a window seen from the last value is 0: nothing hangs on its weight.
    np.testing.assert_allclose(weights[:-1], law[:-1], rtol=1e-3)


def test_the_ridge_is_chosen_on_the_validation_part():
    generator = np.random.default_rng(1)
    windows, noise = generator.normal(size=(12, 10)), generator.normal(size=(12, 1))
    windows[:, -1] = 0
    other, truth = generator.normal(size=(500, 10)), np.zeros((500, 1))
    other[:, -1] = 0
    train = moments(windows, noise)
    shy = fit_linear(train, moments(other, truth))  # nothing can be foretold there
    bold = fit_linear(train, train)
    assert np.abs(shy).sum() < 0.3 * np.abs(bold).sum()
    here = np.mean((linear(other, shy) - truth) ** 2)
    assert here < np.mean((linear(other, bold) - truth) ** 2)


@pytest.mark.parametrize("change", [0.0, float(np.finfo(np.float32).smallest_subnormal)])
def test_the_weights_are_finite_where_windows_are_flat_or_nearly_so(change):
    windows = np.zeros((9, 4))
    windows[0, 1] = change
    flat = moments(windows, np.full((9, 2), 7.0))
    weights = fit_linear(flat, moments(WINDOWS, WINDOWS[:, :2]))
    assert np.isfinite(weights).all()
    if not change:
        assert (weights == 0).all()


def test_windows_with_a_missing_truth_do_not_teach():
    truth = np.array([[1.0, np.nan], [4.0, 5.0]])
    for one, other in zip(moments(WINDOWS, truth), moments(WINDOWS[1:], truth[1:]), strict=True):
        np.testing.assert_array_equal(one, other)
