"""The loop: what it reports, what it keeps, how it ends."""

import os
import signal
import threading
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jlstm.train import fit, init_train_state, interrupt_flag, make_train_step

OPTIMIZER = optax.sgd(1.0)


def loss_fn(params, carry, batch):
    """The gradient is the batch: w walks where the batches send it."""
    return jnp.sum(params["w"] * batch), carry + 1


STEP = make_train_step(loss_fn, OPTIMIZER)


def start(w=0.0):
    return init_train_state({"w": jnp.asarray([w])}, OPTIMIZER, jnp.asarray(0.0))


def walk(*moves):
    return [np.array([-m], np.float64) for m in moves]


def test_reports():
    reports = list(fit(STEP, start(), walk(1, 1, 1, 1, 1, 1, 1), report_every=3))
    assert [r.step for r in reports] == [3, 6, 7]
    # The loss at each step is −w, and w is 0, 1, 2, …: means over the steps since the last report.
    assert [r.loss for r in reports] == [-1, -4, -6]
    assert [r.grad_norm for r in reports] == [1, 1, 1]
    assert [r.validation_loss for r in reports] == [None] * 3
    assert reports[-1].best is None
    assert reports[-1].state.params["w"] == 7
    assert reports[-1].state.carry == 7


def test_the_best_parameters_are_kept():
    seen = []

    def validate(params):
        seen.append(float(params["w"][0]))
        return abs(seen[-1] - 3)

    moves = walk(1, 1, 1, 1, 1, -1, 0)  # w: 1 2 3 4 5 4 4
    reports = list(fit(STEP, start(), moves, report_every=2, validate=validate, validate_every=3))
    assert [(r.step, r.validation_loss) for r in reports] == [
        (2, None), (3, 0), (4, None), (6, 1), (7, 1)
    ]  # fmt: skip
    assert seen == [3, 4, 4]
    best = reports[-1].best
    assert (best.step, best.loss) == (3, 0)
    assert best.params["w"] == 3  # alive, though the state of step 3 has long been given away
    assert reports[-1].state.params["w"] == 4


def test_the_first_of_equals_is_the_best():
    reports = list(fit(STEP, start(), walk(1, 1), validate=lambda p: 5.0, validate_every=1))
    assert reports[-1].best.step == 1


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_a_validation_that_is_no_number_is_never_the_best(bad):
    def reports(*losses):
        given = iter(losses)
        moves = walk(*[1] * len(losses))
        run = fit(STEP, start(), moves, validate=lambda p: next(given), validate_every=1)
        return [(r.best and (r.best.step, r.best.loss, float(r.best.params["w"][0]))) for r in run]

    assert reports(bad, 3.0, bad, 2.0) == [None, (2, 3, 2), (2, 3, 2), (4, 2, 4)]
    assert reports(bad, bad) == [None, None]


def test_without_batches_there_is_nothing_to_report():
    assert list(fit(STEP, start(), [], validate=lambda p: 0.0)) == []


def test_it_goes_on_from_a_state():
    *_, first = fit(STEP, start(), walk(1, 1, 1))
    reports = list(fit(STEP, first.state, walk(1, 1), report_every=4))
    assert [r.step for r in reports] == [4, 5]
    assert reports[-1].state.params["w"] == 5


def test_parameters_that_are_no_numbers_can_be_skipped():
    # Of a finite gradient, descent at an absurd rate makes infinite parameters.
    step = make_train_step(loss_fn, optax.sgd(1e308), skip_not_finite=True)
    moves = walk(10, 1e-308, 10)
    reports = list(fit(step, start(), moves, report_every=1, skip_not_finite=True))
    assert [r.skipped for r in reports] == [(1,), (), (3,)]
    assert np.isfinite(reports[-1].state.params["w"])


def test_stop_ends_the_run_in_good_order():
    steps = 0

    def stop():
        nonlocal steps
        steps += 1
        return steps == 4

    batches = iter(walk(*[1] * 100))
    reports = list(fit(STEP, start(), batches, report_every=3, validate=lambda p: 1.0, stop=stop))
    assert [(r.step, r.validation_loss) for r in reports] == [(3, None), (4, None)]
    assert [r.reported for r in reports] == [True, False]
    assert len(list(batches)) == 96


@pytest.mark.parametrize("stops", [(1,), (2,), (3,), (5,), (1, 2, 3, 4, 5, 6)])
def test_what_was_stopped_goes_on_as_if_it_had_not_been(stops):
    moves = walk(1, 2, -1, 0.3, 0.1, 0.7, 1)
    options = {
        "report_every": 3,
        "validate": lambda params: abs(float(params["w"][0]) - 2.2),
        "validate_every": 2,
    }

    def facts(progress):
        best = progress.best and (progress.best.loss, progress.best.step, progress.book.stale)
        return (*progress[:5], best)

    whole = [facts(p) for p in fit(STEP, start(), moves, **options)]
    pieces, state, book = [], start(), None
    for stop in (*stops, None):
        left = moves[int(state.step) :]
        asked = iter([n == stop for n in range(int(state.step) + 1, 100)])
        run = fit(STEP, state, left, **options, stop=partial(next, asked), book=book)
        for progress in run:
            state, book = progress.state, progress.book
            if progress.reported:
                pieces.append(facts(progress))
    assert pieces == whole


def test_patience_ends_the_run():
    losses = iter([5.0, 4.0, 4.5, np.nan, 3.0, 6.0, 6.0, 6.0])
    options = {"validate": lambda params: next(losses), "validate_every": 1}
    reports = list(fit(STEP, start(), walk(*[1] * 50), **options, patience=3))
    assert reports[-1].step == 8
    assert reports[-1].best.step == 5
    assert [r.book.stale for r in reports] == [0, 0, 1, 2, 0, 1, 2, 3]
    # What has ended so has nothing more to train on.
    assert not list(fit(STEP, start(), walk(1), **options, patience=3, book=reports[-1].book))


@pytest.mark.parametrize("move", [np.nan, np.inf])
def test_a_loss_that_is_no_number_ends_the_run(move):
    with pytest.raises(FloatingPointError, match=r"loss: .* got (nan|-?inf) at step 3; a lower"):
        list(fit(STEP, start(1.0), walk(1, 1, move, 1), report_every=2))


def test_a_gradient_that_is_no_number_ends_the_run():
    step = make_train_step(lambda params, carry, batch: (jnp.sqrt(params["w"][0]), None), OPTIMIZER)
    state = init_train_state({"w": jnp.asarray([0.0])}, OPTIMIZER)  # √ is infinitely steep at 0
    with pytest.raises(FloatingPointError, match="gradient: expected a finite number, got inf at"):
        list(fit(step, state, [0, 0]))


def test_steps_that_are_no_numbers_can_be_skipped():
    step = make_train_step(loss_fn, OPTIMIZER, skip_not_finite=True)
    options = {"skip_not_finite": True}
    reports = list(fit(step, start(1.0), walk(1, np.nan, np.inf, 1, 1), report_every=4, **options))
    assert [r.skipped for r in reports] == [(2, 3), ()]
    assert reports[0].loss == (-1 - 2) / 2  # w is 1, then 2
    assert reports[-1].state.params["w"] == 4
    assert reports[-1].state.carry == 3  # what a skipped step remembers is forgotten
    assert reports[-1].step == 5
    single = list(fit(step, start(1.0), walk(1, np.nan, 1), report_every=1, **options))
    assert [r.skipped for r in single] == [(), (2,), ()]
    assert np.isnan(single[1].loss)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="report_every: expected at least 1, got 0"):
        fit(STEP, start(), [], report_every=0)
    with pytest.raises(TypeError, match="validate_every: expected an int, got float"):
        fit(STEP, start(), [], validate_every=1.5)
    with pytest.raises(TypeError, match="batches: expected an iterable, got int 5"):
        fit(STEP, start(), batches=5)
    with pytest.raises(TypeError, match="state: expected TrainState, got dict"):
        fit(STEP, {}, [])
    for name in ("step", "validate", "stop"):
        with pytest.raises(TypeError, match=f"{name}: expected a function, got int 3"):
            fit(**{"step": STEP, "state": start(), "batches": []} | {name: 3})


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_once_asks_twice_insists():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_flag() as interrupted:
        assert not interrupted()
        press()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_runs_in_the_background_can_be_interrupted():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt_flag() as interrupted:
            press()
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                press()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_ctrl_c_nothing_changes():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_flag() as interrupted:
        pass
    assert not interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_a_run():
    def batches():
        for n in range(1000):
            if n == 5:
                press()
            yield np.array([-1.0])

    with interrupt_flag() as interrupted:
        *_, last = fit(STEP, start(), batches(), validate=lambda p: 0.5, stop=interrupted)
    # Batch 5 is fetched while step 5 is under way; after step 6 the loop asks.
    assert last.step == last.state.params["w"] == 6
    assert last.best is None  # nothing was validated: the run can go on as if never stopped
    assert not last.reported


def test_other_threads_are_left_alone():
    found = []

    def body():
        with interrupt_flag() as interrupted:
            found.append(interrupted())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGINT) is before
