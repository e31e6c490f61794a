"""The kinds of numbers that the commands' options take."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token
from cyclopts.validators import Number


def whole_number(_: type, tokens: Sequence[Token]) -> int:
    """The int that was typed; left to itself, cyclopts would round 1.5 to 2."""
    typed = tokens[0].value
    try:
        return int(typed)
    except ValueError:
        raise ValueError(f"expected a whole number, got {typed}") from None


INFINITY = float("inf")

Count = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=1))]
CountOrZero = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=0))]
Positive = Annotated[float, Parameter(validator=Number(gt=0, lt=INFINITY))]
PositiveOrZero = Annotated[float, Parameter(validator=Number(gte=0, lt=INFINITY))]
Fraction = Annotated[float, Parameter(validator=Number(gte=0, lt=1))]
