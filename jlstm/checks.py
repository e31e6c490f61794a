"""Is this what was asked for? Checks that need no JAX, for options of every kind."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def check_size(name: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``: XLA counts in 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most}, got {value}")


def check_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raise unless ``value`` is a finite Python number, ``least`` ≤ value < ``below``.

    And ``above`` < value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__} {value!r}")
    if not (-math.inf < value < math.inf and least <= value < below and above < value):
        above_said = f" above {above:g}" + " and" * (below < math.inf) if above > -math.inf else ""
        least_said = f" of at least {least:g}" if least > -math.inf else ""
        below_said = f" below {below:g}" if below < math.inf else ""
        raise ValueError(
            f"{name}: expected a finite number{least_said}{above_said}{below_said}, got {value}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is a Python bool."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__} {value!r}")


def check_function(name: str, value: Any) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {type(value).__name__} {value!r}")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        wanted = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name}: expected one of {wanted}, got {value!r}")
