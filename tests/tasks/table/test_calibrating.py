"""Calibrated intervals: what they cover of windows not seen, and what must stay as it was."""

from functools import partial

import jax
import numpy as np
import pytest

from jlstm.tasks.table import calibrating
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.calibrating import ENOUGH, Sample, calibrate
from jlstm.tasks.table.model import ForecasterConfig, forecast, init_forecaster

QUANTILES = (0.1, 0.3, 0.5, 0.9)
MODEL = ForecasterConfig(lookback=6, horizon=2, quantiles=QUANTILES, series=2)
NORMAL = np.array([-1.2816, -0.5244, 0.0, 1.2816])
"""The quantiles of the normal distribution."""


def sample(count, seed=0, *, wide=1.0, spread=1.0, series=2):
    """Truths as normal as the forecasts say they are, but ``spread`` times as far apart."""
    generator = np.random.default_rng(seed)
    which = np.arange(count) % series
    rough = generator.uniform(0.5, 2.0, count)
    truth = spread * generator.normal(size=(count, 2)) * (1.0, 3.0)
    quantiles = np.broadcast_to(wide * NORMAL * np.array([1.0, 3.0])[:, None], (count, 2, 4))
    return Sample(truth, quantiles, which, rough)


def below(found, other):
    """How often truths of other windows lie below each quantile, step by step."""
    return (other.truth[..., None] <= calibrating.apply(MODEL, other, found)).mean(axis=0)


@pytest.mark.parametrize("wide", [0.4, 1.0, 2.5])
def test_quantiles_hold_as_often_as_they_say(wide):
    own, other = sample(4000, wide=wide), sample(20_000, 1, wide=wide)
    found = calibrate(MODEL, own, np.array([2000.0, 2000.0]))
    np.testing.assert_allclose(below(found, other), [QUANTILES] * 2, atol=0.02)
    np.testing.assert_allclose(np.asarray(found.spread)[..., [0, 1, 3]], 1 / wide, rtol=0.15)
    assert float(found.power) == 0  # how rough a window is says nothing here


def test_each_target_has_its_own_where_there_are_enough_windows():
    own = sample(4000)
    own.truth[own.series == 1] *= 3
    many = np.asarray(calibrate(MODEL, own, np.full(2, 2000.0)).spread)
    np.testing.assert_allclose(many[1] / many[0], [[3, 3, 1, 3]] * 2, rtol=0.15)
    few = np.asarray(calibrate(MODEL, own, np.full(2, ENOUGH - 1.0)).spread)
    np.testing.assert_array_equal(few[0], few[1])
    assert (few[0, 0] != few[0, 1]).any()
    own.truth[ENOUGH - 1 :] = np.nan  # of each step there are now too few truths
    fewer = np.asarray(calibrate(MODEL, own, np.full(2, 2000.0)).spread)
    np.testing.assert_array_equal(fewer, np.broadcast_to(fewer[0, 0], fewer.shape))


def test_few_windows_make_careful_intervals():
    own = sample(4000)
    spread = [np.asarray(calibrate(MODEL, own, np.full(2, n)).spread) for n in (40.0, 2000.0)]
    assert (spread[0][..., [0, 3]] > spread[1][..., [0, 3]]).all()
    # 0.9·41/40 of the normal distribution, above, where 0.9 is 1.28.
    drawn = (1.423 / 1.2816) ** (40 / (40 + ENOUGH))
    np.testing.assert_allclose(spread[0][..., 3], drawn, rtol=0.05)


def test_few_windows_are_drawn_towards_what_the_model_says():
    scores, series = np.full((80, 2), 8.0), np.arange(80) % 2
    for n in (ENOUGH, 3.0 * ENOUGH, 1e6):
        found = calibrating._factors(scores, series, np.full(2, n), 0.9)
        np.testing.assert_allclose(found, np.full((2, 2), 8 ** (n / (n + ENOUGH))))


def test_it_has_to_help_on_the_other_half():
    order, apart = np.arange(400), np.full(2, 100.0)
    proves = partial(calibrating.proves_itself, MODEL, apart=apart)
    assert proves(sample(400, wide=2.5), order=order)
    assert proves(sample(400, wide=0.4), order=order)
    other = sample(400)
    other.truth[:200] *= 0.3  # what one half says of the other is wrong
    other.truth[200:] *= 3
    assert not proves(other, order=order)
    mixed = np.arange(400).reshape(2, 200).T.ravel()  # in time the halves are mixed: all alike
    assert proves(other, order=mixed)
    uneven = sample(400)  # the earlier half is a help for the later one, which is none for it
    uneven.truth[:200] *= 0.9
    uneven.truth[200:] *= 0.3
    assert not proves(uneven, order=order)
    assert not proves(uneven, order=order[::-1])
    unknown = sample(400, wide=2.5)
    unknown.truth[:200] = np.nan
    assert not proves(unknown, order=order)


def test_a_rougher_window_gets_the_wider_interval_where_errors_say_so():
    own = sample(4000)
    own.truth[:] *= own.roughness[:, None]
    found = calibrate(MODEL, own, np.array([2000.0, 2000.0]))
    assert float(found.power) == 1
    np.testing.assert_allclose(found.usual, np.exp(np.log(own.roughness).mean()), rtol=0.1)


def test_truths_that_nobody_knows_do_not_count():
    own = sample(4000)
    holes = own._replace(truth=own.truth.copy())
    holes.truth[::3] = np.nan
    whole = own._replace(**{n: a[np.arange(4000) % 3 > 0] for n, a in own._asdict().items()})
    one, two = (calibrate(MODEL, s, np.array([2000.0, 2000.0])) for s in (holes, whole))
    np.testing.assert_allclose(one.spread, two.spread, rtol=1e-6)


def test_the_median_stays_and_nothing_crosses():
    params = init_forecaster(jax.random.key(0), MODEL)
    generator = np.random.default_rng(0)
    params = params._replace(readout=generator.normal(size=params.readout.shape).astype(np.float32))
    own = sample(400)
    own.truth[:] += 2  # the median is off: some factors below it want to be negative
    found = calibrate(MODEL, own, np.array([200.0, 200.0]))
    batch = WindowBatch(
        values=generator.normal(size=(6, 50)),
        series=np.arange(50) % 2,
        past=np.zeros((6, 50, 0)),
        known=np.zeros((8, 50, 0)),
        about=np.zeros((50, 0)),
    )
    before, after = (
        np.asarray(forecast(MODEL, params._replace(calibration=c), batch)) for c in (None, found)
    )
    np.testing.assert_array_equal(before[..., 2], after[..., 2])
    assert (np.diff(after, axis=-1) > 0).all()
    assert (before[..., [0, 1, 3]] != after[..., [0, 1, 3]]).all()


def test_what_is_kept_is_of_these_parameters_and_whole(tmp_path, monkeypatch):
    from jlstm.tasks.table.config import TableConfig

    config = TableConfig(time="t", target="x", horizon=2, quantiles=QUANTILES)
    params = init_forecaster(jax.random.key(0), MODEL)
    found = [calibrate(MODEL, sample(400), np.full(2, 200.0))]
    monkeypatch.setattr(calibrating, "find", lambda *_: found[0])
    first = calibrating.ready(config, tmp_path, params)
    path = tmp_path / calibrating.FILE
    written = path.read_bytes()
    found[0] = None  # from now on only what is kept could be one
    again = calibrating.ready(config, tmp_path, params).calibration
    for one, two in zip(first.calibration, again, strict=True):
        np.testing.assert_array_equal(one, two)
    off = TableConfig(time="t", target="x", horizon=2, quantiles=QUANTILES, calibrate=False)
    assert calibrating.ready(off, tmp_path, params).calibration is None
    for damaged in (written[:-1] + bytes([written[-1] ^ 1]), written[:40], b""):
        path.write_bytes(damaged)
        assert calibrating.ready(config, tmp_path, params).calibration is None
    path.write_bytes(written)
    other = params._replace(hidden_bias=params.hidden_bias + 1)
    assert calibrating.ready(config, tmp_path, other).calibration is None
    # That there is none is kept, too: it asks for no data another time.
    monkeypatch.delattr(calibrating, "find")
    assert calibrating.ready(config, tmp_path, other).calibration is None


def test_intervals_that_have_fallen_together_stay_numbers():
    found = calibrate(MODEL, sample(400, wide=1e-40), np.array([200.0, 200.0]))
    most = calibrating.MOST ** (200 / (200 + ENOUGH))
    assert np.asarray(found.spread).max() == pytest.approx(most)
