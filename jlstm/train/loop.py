"""The loop over batches: it yields what happens, and leaves showing and saving to the caller."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlstm.checks import check_function, check_size
from jlstm.train.state import TrainState
from jlstm.train.step import Metrics, TrainStep


class Best(NamedTuple):
    """The parameters with the lowest validation loss so far."""

    loss: float
    step: int
    params: Any


class Book(NamedTuple):
    """What the loop knows beside the state: with both, it goes on as if it had not been stopped."""

    best: Best | None = None
    """None until the first validation whose loss is finite."""
    stale: int = 0
    """Validations since the best one."""
    losses: tuple[float, ...] = ()
    """Of the steps since the last report."""
    grad_norms: tuple[float, ...] = ()
    """The lengths of the gradients of these steps, before clipping."""


class Progress(NamedTuple):
    """What is known about a run at one of its steps."""

    step: int
    loss: float
    """The mean over the steps since the last report; NaN where all of them were skipped."""
    grad_norm: float
    """The same for the length of the gradient, before clipping."""
    skipped: tuple[int, ...]
    """The steps since the last report whose loss or gradient was not finite; in no mean."""
    validation_loss: float | None
    """None where it was not found at this step."""
    state: TrainState
    """Good only until the loop goes on: the next step takes over its memory."""
    book: Book
    """What to go on with from this step."""
    reported: bool
    """False where ``stop`` ended the loop between two reports: the next one will tell of it."""

    @property
    def best(self) -> Best | None:
        """The parameters with the lowest validation loss so far."""
        return self.book.best


def fit(
    step: TrainStep,
    state: TrainState,
    batches: Iterable[Any],
    *,
    report_every: int = 50,
    validate: Callable[[Any], float] | None = None,
    validate_every: int | None = None,
    patience: int = 0,
    skip_not_finite: bool = False,
    stop: Callable[[], bool] = lambda: False,
    book: Book | None = None,
) -> Iterator[Progress]:
    """Train on the batches, one step each, and report as it goes.

    The loop is the caller's::

        for progress in fit(step, state, batches):
            print(progress.step, progress.loss)
        params = progress.state.params

    The device is waited for only where there is something to report. The last step is always
    reported, and validated if ``validate`` is given.

    Args:
        step: from ``make_train_step``.
        state: where to begin; it is donated.
        batches: all of the run, in order, from this state on.
        report_every: steps from one report to the next.
        validate: parameters to validation loss; the parameters with the lowest are kept. One that
            is not finite does not end the run, and is never the best.
        validate_every: steps from one validation to the next; None for the last step only.
        patience: validations in a row without a better one that end the run; 0 for never.
        skip_not_finite: whether losses and gradients that are not finite are only counted (for a
            ``step`` that skips them), and do not end the run.
        stop: asked after every step; True ends the loop at once, without a validation, so that it
            can go on later from the state and the book. See ``interrupt_flag``.
        book: from the ``Progress`` of the run that is to go on; None at the beginning.

    Yields:
        ``Progress`` at every report and every validation, and where ``stop`` ended the loop.

    Raises:
        TypeError, ValueError: an argument of another type or range.
        FloatingPointError: a loss or gradient is not finite, and not to be skipped.
    """
    check_function("step", step)
    if not isinstance(state, TrainState):
        raise TypeError(f"state: expected TrainState, got {type(state).__name__}")
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: expected an iterable, got {type(batches).__name__} {batches!r}")
    check_function("stop", stop)
    if validate is not None:
        check_function("validate", validate)
    check_size("report_every", report_every)
    if validate_every is not None:
        check_size("validate_every", validate_every)
    check_size("patience", patience, 0)
    due = validate_every or 0
    return _fit(
        step, state, iter(batches), report_every, validate, due, patience, skip_not_finite, stop,
        Book() if book is None else book,
    )  # fmt: skip


def _fit(
    step: TrainStep,
    state: TrainState,
    batches: Iterator[Any],
    report_every: int,
    validate: Callable[[Any], float] | None,
    validate_every: int,
    patience: int,
    skip_not_finite: bool,
    stop: Callable[[], bool],
    book: Book,
) -> Iterator[Progress]:
    if 0 < patience <= book.stale:  # it had ended already
        return
    count = int(state.step)
    recent: list[Metrics] = []
    nothing = object()
    batch = next(batches, nothing)
    while batch is not nothing:
        state, metrics = step(state, batch)
        count += 1
        recent.append(metrics)
        # While the device computes, the next batch is made.
        stopped = stop()
        batch = nothing if stopped else next(batches, nothing)
        last = batch is nothing and not stopped

        due = bool(validate_every) and count % validate_every == 0
        reported = last or due or count % report_every == 0
        if not (reported or stopped):
            continue
        known: list[Any] = jax.device_get(recent)
        recent = []
        book = book._replace(
            losses=(*book.losses, *(float(m["loss"]) for m in known)),
            grad_norms=(*book.grad_norms, *(float(m["grad_norm"]) for m in known)),
        )
        loss, grad_norm, skipped = _means(book, count, skip_not_finite)
        validation_loss = None
        if reported:
            book = book._replace(losses=(), grad_norms=())
            if validate is not None and (last or due):
                validation_loss = validate(state.params)
                book = _judge(book, validation_loss, count, state.params)
        yield Progress(count, loss, grad_norm, skipped, validation_loss, state, book, reported)
        if validation_loss is not None and 0 < patience <= book.stale:
            return


def _judge(book: Book, loss: float, step: int, params: Any) -> Book:
    """The book after a validation."""
    # NaN is less than nothing, and nothing is less than it.
    if math.isfinite(loss) and (book.best is None or loss < book.best.loss):
        # A copy: the state's own arrays are given away to the next step.
        return book._replace(best=Best(loss, step, jax.tree.map(jnp.copy, params)), stale=0)
    return book._replace(stale=book.stale + 1)


def _means(book: Book, count: int, skip_not_finite: bool) -> tuple[float, float, tuple[int, ...]]:
    """The mean loss and gradient length of the last steps, and the steps that are in neither."""
    pairs = list(zip(book.losses, book.grad_norms, strict=True))
    good = [pair for pair in pairs if all(map(math.isfinite, pair))]
    first = count - len(pairs) + 1
    bad = tuple(n for n, pair in enumerate(pairs, first) if not all(map(math.isfinite, pair)))
    if bad and not skip_not_finite:
        loss, norm = pairs[bad[0] - first]
        name, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
        raise FloatingPointError(
            f"{name}: expected a finite number, got {value} at step {bad[0]}; "
            "a lower learning rate may help, or to skip such steps"
        )
    if not good:
        return math.nan, math.nan, bad
    losses, norms = zip(*good, strict=True)
    return math.fsum(losses) / len(good), math.fsum(norms) / len(good), bad
