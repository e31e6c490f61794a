"""The optimisers that suit most recurrent networks."""

from typing import Literal

import optax

from jlstm.checks import check_choice, check_number, check_size


def make_optimizer(
    learning_rate: float,
    steps: int,
    *,
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

    Args:
        learning_rate: the highest, after the warm-up.
        steps: the length of the run.
        warmup: steps on which the rate rises in a line; None for a tenth of the run, at most 100.
        clip: the length, over all parameters, above which a gradient is shortened.
        weight_decay: the part of each weight that is taken off per step, times the rate
            (Loshchilov & Hutter 2019).
        kind: ``"adam"``, or ``"sgd"``, stochastic gradient descent.

    Raises:
        TypeError: a count that is no integer, or another argument that is no number.
        ValueError: a number out of range.
    """
    check_size("steps", steps)
    if warmup is None:
        warmup = min(100, steps // 10)
    check_size("warmup", warmup, 0)
    if warmup > steps:
        raise ValueError(f"warmup: expected at most the {steps} steps of the run, got {warmup}")
    for name, value in (("learning_rate", learning_rate), ("clip", clip)):
        check_number(name, value, least=0)
        if value == 0:
            raise ValueError(f"{name}: expected a finite number above 0, got 0")
    check_number("weight_decay", weight_decay, least=0)
    check_choice("kind", kind, ("adam", "sgd"))
    if kind == "sgd":
        rise = optax.linear_schedule(0.0, learning_rate, warmup)
        fall = optax.exponential_decay(learning_rate, max(1, steps - warmup), 0.01)
        schedule = optax.join_schedules([rise, fall], [warmup])
        descent = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule))
        return optax.chain(optax.clip_by_global_norm(clip), descent)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=learning_rate, warmup_steps=warmup, decay_steps=steps
    )
    return optax.chain(
        optax.clip_by_global_norm(clip), optax.adamw(schedule, weight_decay=weight_decay)
    )
