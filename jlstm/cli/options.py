"""What the commands' options take: the folder of a run, and kinds of numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import UNSET, Parameter, Token, convert
from cyclopts.validators import Number

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection


def path_of(name: str) -> Callable[[Any, Sequence[Token]], Any]:
    """A converter: the path that was typed; Python would take nothing for this folder."""

    def typed(kind: Any, tokens: Sequence[Token]) -> Any:
        if not all(token.value for token in tokens):
            by_name = tokens[0].keyword is not None  # then cyclopts puts the option in front
            raise ValueError(f"{'' if by_name else f'{name}: '}expected a path, got nothing")
        return convert(kind, tokens)

    return typed


Run = Annotated[Path, Parameter(help="The folder of the run.", converter=path_of("RUN"))]
Texts = Annotated[
    Path, Parameter(help="Text files, or folders of them.", converter=path_of("FILES"))
]
File = Annotated[
    Path, Parameter(help="A .csv (or .csv.gz) or .parquet file.", converter=path_of("FILE"))
]

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="Options, and the files, from a .toml file; what is typed comes first. Each run's "
        "folder has one.",
        converter=path_of("--config"),
    ),
]


def whole_number(_: type, tokens: Sequence[Token]) -> int:
    """The int that was typed; left to itself, cyclopts would round 1.5 to 2."""
    typed = tokens[0].value
    try:
        return int(typed)
    except ValueError:
        raise ValueError(f"expected a whole number, got {typed}") from None


def as_typed(kind: Any, tokens: Sequence[Token]) -> Any:
    """What was typed, for options that have only a type, such as the fields of a dataclass.

    What comes from a file or from another run is a value of Python already: see ``fill``.
    """
    if tokens[0].implicit_value is not UNSET:
        return tokens[0].implicit_value
    if kind is int or int in get_args(kind):
        return whole_number(kind, tokens)
    if get_args(kind) == (float, ...):
        typed = ",".join(token.value for token in tokens)
        try:
            return tuple(float(part) for part in typed.split(","))
        except ValueError:
            raise ValueError(f"expected numbers with commas between them, got {typed!r}") from None
    return convert(kind, tokens)


def fill(arguments: "ArgumentCollection", values: Mapping[str, Any], source: str) -> None:
    """Give options these values, by the names of their fields, where nothing else did."""
    for argument in arguments:
        if len(argument.keys) == 1 and not argument.tokens and argument.keys[0] in values:
            value = values[argument.keys[0]]
            argument.append(Token(source=source, implicit_value=value))


def given(arguments: "ArgumentCollection", flag: str) -> Path | None:
    """The path that an option has, typed or filled in; None where it has none."""
    (tokens, *_) = [argument.tokens for argument in arguments if flag in argument.names]
    if not tokens:
        return None
    value = tokens[0].implicit_value
    if value is UNSET and not tokens[0].value:  # Python would take this folder
        raise ValueError(f"{flag}: expected a path, got nothing")
    return Path(tokens[0].value if value is UNSET else value)


def finite(*, zero: bool) -> Callable[[type, float | None], None]:
    """A validator: the number, if there is one, is above 0, or 0 where allowed, and finite."""
    wanted = "of at least 0" if zero else "above 0"

    def validate(_: type, value: float | None) -> None:
        if value is None:  # where an option may be left out, its default comes here, too
            return
        if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
            raise ValueError(f"Expected a finite number {wanted}.")

    return validate


MOST = 2**31 - 1
"""XLA counts in 32 bits."""

Count = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=1, lte=MOST))]
CountOrZero = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=0, lte=MOST))]
Seed = Annotated[int, Parameter(converter=whole_number, validator=Number(gte=0, lt=2**63))]
Positive = Annotated[float, Parameter(validator=finite(zero=False))]
PositiveOrZero = Annotated[float, Parameter(validator=finite(zero=True))]
Fraction = Annotated[float, Parameter(validator=Number(gte=0, lt=1))]
