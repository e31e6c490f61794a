"""What runs the stack of a model: ``jlstm.stack``, or the same over several devices."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from jaxtyping import Array

from jlstm.devices import spread
from jlstm.layers import Stack, stack
from jlstm.tasks.config import Implementation

Run = Callable[..., tuple[Any, Array]]
"""``jlstm.stack``, or what takes the same: ``(config, params, carry, xs, *, lengths, key)``, to
``(carry, hs)``."""


def check_stack(name: str, stack: Any) -> None:
    """Raise TypeError unless it is a Stack."""
    if not isinstance(stack, Stack):
        raise TypeError(f"{name}: expected a Stack, got {type(stack).__name__}")


@cache
def runner(implementation: Implementation | None) -> Run:
    """``jlstm.stack`` by this implementation; each time the same, so that it compiles once."""
    return partial(stack, implementation=implementation)


def runner_over_devices(implementation: Implementation | None, batch: int) -> tuple[Run, int]:
    """The same with a batch of this size cut over the devices, and over how many."""

    def run(config: Stack, params: Any, carry: Any, xs: Array, **options: Any) -> tuple[Any, Array]:
        layer, _ = spread(partial(runner(implementation), config), batch)
        return layer(params, carry, xs, **options)

    return run, spread(stack, batch)[1]
