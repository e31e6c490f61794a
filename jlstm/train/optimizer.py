"""The optimisers that suit most recurrent networks."""

from typing import Literal

import jax.numpy as jnp
import optax

from jlstm.checks import check_choice, check_number, check_size


def make_optimizer(
    learning_rate: float,
    steps: int,
    *,
    begin: int = 0,
    warmup: int | None = None,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    kind: Literal["adam", "sgd"] = "adam",
) -> optax.GradientTransformation:
    """Adam or plain descent, with clipped gradients and a rate that rises and then falls.

    The rate rises from 0 in a line, then falls: for Adam to 0 along a cosine, for plain descent by
    the same factor at every step, to a hundredth at the end.

    A gradient g longer than ``clip`` is shortened to g·clip/‖g‖ (Pascanu et al. 2013): now and then
    the gradient of a recurrent network is huge, and one such step can undo many.

    A run that is made longer warms up once more, from its last step on (Loshchilov & Hutter 2017):
    with S its length so far and N the new one, its step n has the rate of step n − S of a run of
    N − S steps. What else the optimiser keeps goes on.

    Args:
        learning_rate: the highest, after the warm-up.
        steps: the length of the run.
        begin: the step at which the rate begins to rise: 0, or the length so far of a run that is
            made longer.
        warmup: steps on which the rate rises in a line; None for a tenth of those from ``begin``
            on, at most 100.
        clip: the length, over all parameters, above which a gradient is shortened.
        weight_decay: the part of each weight that is taken off per step, times the rate
            (Loshchilov & Hutter 2019).
        kind: ``"adam"``, or ``"sgd"``, stochastic gradient descent.

    Raises:
        TypeError: a count that is no integer, or another argument that is no number.
        ValueError: a number out of range.
    """
    check_size("steps", steps)
    check_size("begin", begin, 0)
    if begin >= steps:
        raise ValueError(f"begin: expected a step before the last, {steps}, got {begin}")
    span = steps - begin
    if warmup is None:
        warmup = min(100, span // 10)
    check_size("warmup", warmup, 0)
    if warmup > span:
        raise ValueError(f"warmup: expected at most the {span} steps of the run, got {warmup}")
    for name, value in (("learning_rate", learning_rate), ("clip", clip)):
        check_number(name, value, least=0)
        if value == 0:
            raise ValueError(f"{name}: expected a finite number above 0, got 0")
    check_number("weight_decay", weight_decay, least=0)
    check_choice("kind", kind, ("adam", "sgd"))
    if kind == "sgd":
        rise = optax.linear_schedule(0.0, learning_rate, warmup)
        fall = optax.exponential_decay(learning_rate, max(1, span - warmup), 0.01)
        rate = _from(begin, optax.join_schedules([rise, fall], [warmup]))
        descent = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate))
        return optax.chain(optax.clip_by_global_norm(clip), descent)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=learning_rate, warmup_steps=warmup, decay_steps=span
    )
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(_from(begin, schedule), weight_decay=weight_decay),
    )


def _from(begin: int, schedule: optax.Schedule) -> optax.Schedule:
    """The schedule, so many steps later."""
    # Steps that were skipped are not counted by the optimiser: then it begins a little later.
    return lambda count: schedule(jnp.maximum(count - begin, 0))
