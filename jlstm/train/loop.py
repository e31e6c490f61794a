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


class Progress(NamedTuple):
    """What is known about a run at one of its steps."""

    step: int
    loss: float
    """The mean over the steps since the last report."""
    grad_norm: float
    """The same for the length of the gradient, before clipping."""
    validation_loss: float | None
    """None where it was not found at this step."""
    best: Best | None
    """None until the first validation whose loss is finite."""
    state: TrainState
    """Good only until the loop goes on: the next step takes over its memory."""


def fit(
    step: TrainStep,
    state: TrainState,
    batches: Iterable[Any],
    *,
    report_every: int = 50,
    validate: Callable[[Any], float] | None = None,
    validate_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train on the batches, one step each, and report as it goes.

    The loop is the caller's::

        for progress in fit(step, state, batches):
            print(progress.step, progress.loss)
        params = progress.state.params

    The device is waited for only where there is something to report. The last step is always
    reported, and validated if ``validate`` is given, also when it is the last because of ``stop``.

    Args:
        step: from ``make_train_step``.
        state: where to begin; it is donated.
        batches: all of the run, in order.
        report_every: steps from one report to the next.
        validate: parameters to validation loss; the parameters with the lowest are kept. One that
            is not finite does not end the run, and is never the best.
        validate_every: steps from one validation to the next; None for the last step only.
        stop: asked after every step; True ends the run in good order. See ``interrupt_flag``.

    Yields:
        ``Progress`` at every report and every validation.

    Raises:
        TypeError, ValueError: an argument of another type or range.
        FloatingPointError: the loss is not finite any more.
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
    return _fit(step, state, iter(batches), report_every, validate, validate_every, stop)


def _fit(
    step: TrainStep,
    state: TrainState,
    batches: Iterator[Any],
    report_every: int,
    validate: Callable[[Any], float] | None,
    validate_every: int | None,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    count = int(state.step)
    best: Best | None = None
    recent: list[Metrics] = []
    nothing = object()
    batch = next(batches, nothing)
    while batch is not nothing:
        state, metrics = step(state, batch)
        count += 1
        recent.append(metrics)
        batch = nothing if stop() else next(batches, nothing)
        last = batch is nothing

        due = validate_every is not None and count % validate_every == 0
        if not (last or due or count % report_every == 0):
            continue
        loss, grad_norm = _means(recent, count)
        recent = []
        validation_loss = None
        if validate is not None and (last or due):
            validation_loss = validate(state.params)
            # NaN is less than nothing, and nothing is less than it.
            if math.isfinite(validation_loss) and (best is None or validation_loss < best.loss):
                # A copy: the state's own arrays are given away to the next step.
                best = Best(validation_loss, count, jax.tree.map(jnp.copy, state.params))
        yield Progress(count, loss, grad_norm, validation_loss, best, state)


def _means(recent: list[Metrics], count: int) -> tuple[float, float]:
    """The mean loss and gradient length of the last steps; raise where the loss is not finite."""
    known: list[Any] = jax.device_get(recent)
    loss = math.fsum(m["loss"] for m in known) / len(known)
    if not math.isfinite(loss):
        first = count - len(known) + 1
        raise FloatingPointError(
            f"loss: expected a finite number, got {loss} between step {first} and step {count}; "
            "a lower learning rate may help"
        )
    return loss, math.fsum(m["grad_norm"] for m in known) / len(known)
