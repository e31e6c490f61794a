"""Is this what was asked for? Checks that need no JAX, for options of every kind."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def wrong(names: str, said: str, kind: type[Exception] = ValueError) -> Exception:
    """The error that options are not what they should be: ``"steps, epochs: expected …, got …"``.

    ``options_of`` tells which, so that the command line can name them as they are typed.
    """
    error = kind(f"{names}: {said}")
    vars(error)["options"] = tuple(names.split(", "))
    return error


def options_of(error: BaseException) -> tuple[str, ...]:
    """The options that an error is about; none where ``wrong`` did not make it."""
    names: tuple[str, ...] = vars(error).get("options", ())
    return names


def renamed(error: BaseException, name: Callable[[str], str]) -> str:
    """What an error says, with its options called what ``name`` makes of their names."""
    names = options_of(error)
    return ", ".join(map(name, names)) + str(error).removeprefix(", ".join(names))


def check_size(name: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> None:
    """Raise unless ``value`` is an integer from ``least`` to ``most``: XLA counts in 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise wrong(name, f"expected an int, got {type(value).__name__} {value!r}", TypeError)
    if value < least:
        raise wrong(name, f"expected at least {least}, got {value}")
    if value > most:
        raise wrong(name, f"expected at most {most}, got {value}")


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
        raise wrong(name, f"expected a number, got {type(value).__name__} {value!r}", TypeError)
    if not (-math.inf < value < math.inf and least <= value < below and above < value):
        above_said = f" above {above:g}" if above > -math.inf else ""
        least_said = f" of at least {least:g}" if least > -math.inf else ""
        below_said = f" below {below:g}" if below < math.inf else ""
        if below_said and (above_said or least_said):
            below_said = f" and{below_said}"
        raise wrong(
            name, f"expected a finite number{least_said}{above_said}{below_said}, got {value}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is a Python bool."""
    if not isinstance(value, bool | np.bool_):
        raise wrong(
            name, f"expected True or False, got {type(value).__name__} {value!r}", TypeError
        )


def check_text(name: str, value: Any) -> None:
    """Raise unless ``value`` is a str."""
    if not isinstance(value, str):
        raise wrong(name, f"expected a string, got {type(value).__name__} {value!r}", TypeError)


def check_function(name: str, value: Any) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise wrong(name, f"expected a function, got {type(value).__name__} {value!r}", TypeError)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        wanted = ", ".join(repr(c) for c in choices)
        raise wrong(name, f"expected one of {wanted}, got {value!r}")
