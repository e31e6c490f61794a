"""The forecaster: its equations by hand, and what must not change a forecast."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import Stack
from jlstm.tasks.running import runner_over_devices
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.model import (
    Forecaster,
    ForecasterConfig,
    forecast,
    forecaster_loss,
    init_forecaster,
    target_count,
)

CONFIG = ForecasterConfig(
    lookback=7,
    horizon=3,
    quantiles=(0.1, 0.25, 0.5, 0.9),
    series=4,
    past=2,
    known=1,
    about=2,
    embedding=3,
    stack=Stack(sizes=5, output_dropout=0.5),
    width=6,
    patch=3,
)
BATCH = 8


@pytest.fixture(scope="module")
def params():
    """None of the weights that begin at 0 is."""
    fresh = init_forecaster(jax.random.key(0), CONFIG, dtype=jnp.float64)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        leaf + 0.5 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(2)
    c = CONFIG
    return WindowBatch(
        values=generator.normal(size=(c.lookback, BATCH)) + 3,
        series=generator.integers(0, c.series, BATCH).astype(np.int32),
        past=generator.normal(size=(c.lookback, BATCH, c.past)),
        known=generator.normal(size=(c.lookback + c.horizon, BATCH, c.known)),
        about=generator.normal(size=(BATCH, c.about)),
        targets=generator.normal(size=(c.horizon, BATCH)) + 3,
    )


quantiles_of = jax.jit(lambda params, batch: forecast(CONFIG, params, batch))
loss_of = jax.jit(lambda params, batch: forecaster_loss(CONFIG, params, None, batch)[0])


def by_hand(params: Forecaster, batch: WindowBatch) -> np.ndarray:
    """The equations of the module for one window after the other, [horizon, batch, quantile]."""
    c, p = CONFIG, jax.tree.map(np.asarray, params)
    weights = p.lstm[0].forward
    out = np.empty((c.horizon, BATCH, len(c.quantiles)))
    for n in range(BATCH):
        x, k = batch.values[:, n], batch.known[:, n]
        u = x - x[-1]
        e = np.concatenate([p.embedding[batch.series[n]], batch.about[n]])
        h, cell = np.zeros(5), np.zeros(5)
        for start in (1, 4):  # the oldest of 7 steps is in no patch of 3
            steps = [[u[t], *batch.past[t, n], *k[t]] for t in range(start, start + 3)]
            z = np.concatenate([np.ravel(steps), e])
            z = np.einsum("d,dgh->gh", z, weights.w_ih) + np.einsum("k,kgh->gh", h, weights.w_hh)
            z = z + weights.b
            i, f, o = (1 / (1 + np.exp(-z[gate])) for gate in (0, 1, 3))
            cell = f * cell + i * np.tanh(z[2])
            h = o * np.tanh(cell)
        m = np.concatenate([h, e, np.ravel(k[7:])]) @ p.hidden + p.hidden_bias
        y = np.einsum("w,whq->hq", np.maximum(m, 0), p.readout) + p.readout_bias
        median = x[-1] + y[:, 2] + u @ p.linear.window + p.linear.bias
        median = median + (k[7:] - k[6]) @ p.linear.effect
        widths = np.log1p(np.exp(y))
        out[:, n, 2] = median
        out[:, n, 3] = median + widths[:, 3]
        out[:, n, 1] = median - widths[:, 1]
        out[:, n, 0] = median - widths[:, 1] - widths[:, 0]
    return out


def test_the_equations(params, batch):
    np.testing.assert_allclose(quantiles_of(params, batch), by_hand(params, batch), rtol=1e-12)


def test_quantiles_never_cross(params, batch):
    wild = jax.tree.map(lambda a: 30 * a, params)
    assert (np.diff(quantiles_of(wild, batch), axis=-1) >= 0).all()


def test_fresh_parameters_foretell_the_last_value(batch):
    for linear in (True, False):
        config = replace(CONFIG, linear=linear)
        fresh = init_forecaster(jax.random.key(3), config)
        assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
        found = forecast(config, fresh, batch)
        assert found.dtype == jnp.float32
        last = np.broadcast_to(batch.values[-1].astype(np.float32), (3, BATCH))
        np.testing.assert_array_equal(found[..., config.median], last)


def test_a_shifted_window_is_foretold_alike(params, batch):
    shifted = batch._replace(values=batch.values + 100.0)
    np.testing.assert_allclose(
        quantiles_of(params, shifted), quantiles_of(params, batch) + 100.0, rtol=1e-11
    )


def test_what_comes_changes_no_forecast(params, batch):
    other = batch._replace(targets=batch.targets + 1)
    np.testing.assert_array_equal(quantiles_of(params, batch), quantiles_of(params, other))


@pytest.mark.parametrize("name", ["values", "past", "known", "about"])
def test_what_is_known_does(params, batch, name):
    values = np.array(getattr(batch, name))
    changed = batch._replace(
        **{name: values + np.linspace(1, 2, values.size).reshape(values.shape)}
    )
    assert (
        (np.abs(quantiles_of(params, batch) - quantiles_of(params, changed)) > 1e-6).any(-1).all()
    )


def test_windows_do_not_know_of_each_other(params, batch):
    part = jax.tree.map(
        lambda a: a[:, :3] if a.ndim > 1 else a[:3], batch._replace(about=None, targets=None)
    )
    part = part._replace(about=batch.about[:3])
    np.testing.assert_allclose(
        forecast(CONFIG, params, part), quantiles_of(params, batch)[:, :3], rtol=1e-12
    )


def test_the_loss_by_hand(params, batch):
    d = batch.targets[..., None] - by_hand(params, batch)
    q = np.array(CONFIG.quantiles)
    expected = 2 * np.mean(np.where(d > 0, q * d, (q - 1) * d))
    assert loss_of(params, batch) == pytest.approx(expected, rel=1e-12)


def test_the_median_alone_gives_the_mean_absolute_error(batch):
    config = replace(CONFIG, quantiles=(0.5,))
    fresh = init_forecaster(jax.random.key(3), config, dtype=jnp.float64)
    expected = np.abs(batch.targets - batch.values[-1]).mean()
    assert forecaster_loss(config, fresh, None, batch)[0] == pytest.approx(expected, rel=1e-12)


def test_missing_targets_do_not_count(params, batch):
    targets = batch.targets.copy()
    targets[0, :] = targets[1, 4] = np.nan
    d = targets[..., None] - by_hand(params, batch)
    q = np.array(CONFIG.quantiles)
    expected = 2 * np.nanmean(np.where(d > 0, q * d, (q - 1) * d))
    some = batch._replace(targets=targets)
    assert target_count(some) == np.isfinite(targets).sum() < target_count(batch) == 3 * BATCH
    assert loss_of(params, some) == pytest.approx(expected, rel=1e-12)
    gradient = jax.grad(loss_of)(params, some)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.abs(gradient.lstm[0].forward.w_hh).max() > 0
    nothing = batch._replace(targets=np.full_like(targets, np.nan))
    assert loss_of(params, nothing) == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(jax.grad(loss_of)(params, nothing)))


def test_devices_change_nothing(params, batch):
    noisy = batch._replace(key=jax.random.key(5))
    cut, count = runner_over_devices(None, BATCH)
    assert count == len(jax.devices())
    loss = jax.jit(partial(forecaster_loss, CONFIG, run=cut))(params, None, noisy)[0]
    assert loss == pytest.approx(float(loss_of(params, noisy)), rel=1e-12)


def test_dropout_needs_a_key(params, batch):
    noisy = batch._replace(key=jax.random.key(5))
    assert (quantiles_of(params, noisy) != quantiles_of(params, batch)).any()
    np.testing.assert_array_equal(quantiles_of(params, noisy), quantiles_of(params, noisy))


def test_one_series_needs_no_embedding(batch):
    config = replace(CONFIG, series=1, past=0, known=0, about=0, linear=False)
    fresh = init_forecaster(jax.random.key(0), config)
    assert fresh.embedding is None
    assert fresh.linear is None
    bare = WindowBatch(
        batch.values,
        np.zeros(BATCH, np.int32),
        np.zeros((7, BATCH, 0)),
        np.zeros((10, BATCH, 0)),
        np.zeros((BATCH, 0)),
    )
    assert forecast(config, fresh, bare).shape == (3, BATCH, 4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantiles": (0.1, 0.9)}, ValueError, "quantiles: expected rising .* got 0.1, 0.9"),
        ({"quantiles": (0.9, 0.5)}, ValueError, "quantiles: expected rising"),
        ({"quantiles": (0.0, 0.5)}, ValueError, "quantiles: expected rising"),
        ({"quantiles": (0.5, 0.5)}, ValueError, "quantiles: expected rising"),
        ({"quantiles": [0.5]}, TypeError, "quantiles: expected a tuple, got list"),
        ({"patch": 8}, ValueError, "patch: expected at most the 7 steps of the window, got 8"),
        ({"horizon": 0}, ValueError, "horizon: expected at least 1, got 0"),
        ({"past": -1}, ValueError, "past: expected at least 0"),
        ({"linear": 1}, TypeError, "linear: expected True or False"),
        ({"stack": 5}, TypeError, "stack: expected a Stack, got int"),
    ],
)
def test_a_wrong_configuration_says_why(options, error, message):
    with pytest.raises(error, match=message):
        replace(CONFIG, **options)


def test_a_wrong_batch_says_why(params, batch):
    for name, wrong, message in (
        ("values", batch.values[1:], r"batch.values: expected shape \[7, batch\], got \[6, 8\]"),
        ("known", batch.known[1:], r"batch.known: expected shape \[10, 8, 1\]"),
        ("past", batch.past[..., :1], r"batch.past: expected shape \[7, 8, 2\]"),
        ("targets", batch.targets[1:], r"batch.targets: expected shape \[3, 8\]"),
        ("targets", None, "batch.targets: expected an array, got None"),
    ):
        with pytest.raises(ValueError, match=message):
            forecaster_loss(CONFIG, params, None, batch._replace(**{name: wrong}))
    with pytest.raises(TypeError, match=r"batch.series: expected integers, got float64"):
        forecast(CONFIG, params, batch._replace(series=np.zeros(BATCH)))
    with pytest.raises(TypeError, match="params: expected Forecaster, got tuple"):
        forecast(CONFIG, tuple(params), batch)
    with pytest.raises(TypeError, match="batch: expected WindowBatch, got tuple"):
        forecast(CONFIG, params, tuple(batch))


def test_fresh_parameters_can_be_a_linear_fit(batch):
    window = np.random.default_rng(1).normal(size=(CONFIG.lookback, CONFIG.horizon))
    fresh = init_forecaster(jax.random.key(0), CONFIG, window=window)
    found = forecast(CONFIG, fresh, batch)[..., CONFIG.quantiles.index(0.5)]
    values = np.asarray(batch.values, np.float64)
    expected = window.T @ (values - values[-1]) + values[-1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^window: expected shape"):
        init_forecaster(jax.random.key(0), CONFIG, window=window.T)
