"""What every training can be asked for, and how a table is written in its file.

Each kind of task adds its own in its ``config.py``: one frozen dataclass, used from Python and made
into the options of the command line, whose help the sentences below the fields are. Nothing here or
there imports JAX, so that ``--help`` answers at once.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from jlstm.checks import check_choice, check_flag, check_number, check_size, check_text, wrong
from jlstm.tasks.times import check_time_format

NotFinite = Literal["stop", "skip"]
Implementation = Literal["xla"]
Optimizer = Literal["adam", "sgd"]
Target = Literal["onnx", "stablehlo", "safetensors", "torch"]
"""What a trained model can be exported to."""

MOST_LAYERS = 100
"""Each layer is compiled by itself: more would take hours before the first step."""


class Range(NamedTuple):
    """Numbers that `jlstm tune` may try."""

    low: float
    high: float
    log: bool = False
    """Whether 1 to 10 is as far as 10 to 100."""


Space = Mapping[str, Range | tuple[Any, ...]]
"""What `jlstm tune` may try of which option: numbers in a range, or one of several values."""


def key_of(name: str) -> str:
    """An option as it is typed, or written in a file: ``learning-rate``, ``from``."""
    return name.strip("_").replace("_", "-")


def flag(name: str) -> str:
    """An option as it is typed: ``--learning-rate``."""
    return f"--{key_of(name)}"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train, whatever the kind of job.

    Raises:
        TypeError, ValueError: an option of another type or out of range.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    """Options that a training shares with the one that it goes on from: what the model is, and what
    it reads."""
    of_one_run: ClassVar[tuple[str, ...]] = (
        "from_", "epochs", "steps", "warmup", "validate_every", "out", "name", "until", "split",
    )  # fmt: skip
    """Options that a training never takes over from the one that it goes on from."""
    space: ClassVar[Space] = {}
    """What is searched for the lowest validation loss: no option that changes what this loss is, or
    what it is measured on."""

    epochs: float | None = None
    """Times that the training data is gone through; by default 15 for texts, 5 for tables and 80
    for sequences, or more where that is fewer than 500 steps."""
    steps: int | None = None
    """Steps of training, instead of epochs."""
    learning_rate: float = 3e-3
    """The highest; it rises from 0 and falls to 0 along a cosine (for sgd, to a hundredth)."""
    optimizer: Optimizer = "adam"
    """Adam with decoupled weight decay, or plain stochastic gradient descent."""
    warmup: int | None = None
    """Steps on which the learning rate rises; by default a tenth of the run, at most 100."""
    clip: float = 1.0
    """The length to which a longer gradient is shortened."""
    weight_decay: float = 0.01
    """Part of each weight taken off per step, times the learning rate."""
    patience: int = 10
    """Validations without a better one after which training ends; 0: never."""
    validate_every: int | None = None
    """Steps from one validation to the next; by default an epoch, or a tenth of a shorter run."""
    not_finite: NotFinite = "stop"
    """What to do where a loss or gradient is NaN or infinite: end the run, or skip the step."""
    seed: int = 0
    """Of everything random."""
    from_: Path | None = None
    """A run whose best parameters are trained on, with its vocabulary, or columns and scales; what
    is not asked for is as it was there, but for the length and the place of the training."""
    out: Path = Path("runs")
    """The folder in which the folder of this run is made."""
    name: str | None = None
    """Of the run's folder; by default the kind of job and the time."""
    tensorboard: bool = False
    """Whether to write the metrics for TensorBoard, too."""
    implementation: Implementation | None = None
    """What computes the LSTM; by default the fastest on the machine."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "clip"):
            value = getattr(self, name)
            if name == "epochs" and value is None:
                continue
            check_number(name, value, above=0)
        if self.epochs is not None and self.steps is not None:
            raise wrong(
                "epochs, steps", f"expected one of them, got {self.epochs} and {self.steps}"
            )
        for name in ("steps", "validate_every"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        if self.warmup is not None:
            check_size("warmup", self.warmup, 0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_size("patience", self.patience, 0)
        check_size("seed", self.seed, 0)
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("not_finite", self.not_finite, get_args(NotFinite))
        check_flag("tensorboard", self.tensorboard)
        if self.implementation is not None:
            check_choice("implementation", self.implementation, get_args(Implementation))
        for name in ("out", "from_"):
            path = getattr(self, name)
            if path is None and name == "from_":
                continue
            if not isinstance(path, str | os.PathLike):
                raise wrong(name, f"expected a path, got {type(path).__name__} {path!r}", TypeError)
            object.__setattr__(self, name, Path(path))
        if self.name is not None:
            check_text("name", self.name)
            hidden = self.name.startswith(".") or not self.name  # also . and ..
            if hidden or Path(self.name).name != self.name or not self.name.isprintable():
                raise wrong(
                    "name",
                    "expected the name of a folder in one line, without / and with no dot "
                    f"first, got {self.name!r}",
                )


@dataclass(frozen=True, kw_only=True)
class TableFile(Training):
    """How the table is written in its file, where that is not as usual.

    Raises:
        TypeError, ValueError: an option of another type or out of range.
    """

    separator: str | None = None
    """The character between the cells of a .csv; tab for a tab. By default a comma, a semicolon or
    a tab, whichever is found in the header."""
    decimal: Literal[".", ","] = "."
    """What stands before the decimals of a number."""
    encoding: str = "utf-8"
    """Of a .csv, such as cp1252, latin-1 or utf-16."""
    time_format: str | None = None
    """How times are written: a pattern such as %d/%m/%Y %H:%M (as of strptime), or what numbers
    count: seconds, milliseconds, microseconds or nanoseconds since 1970, or steps. By default
    2016-07-01 13:45 and the like, or 01.07.2016."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator is not None:
            check_text("separator", self.separator)
            named = {"tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)
            if len(named) != 1 or named.isalnum() or named in '"\r\n':
                raise wrong(
                    "separator",
                    "expected one character that is no letter, digit or quote, or tab, "
                    f"got {named!r}",
                )
            object.__setattr__(self, "separator", named)
        check_choice("decimal", self.decimal, (".", ","))
        try:
            "a".encode(self.encoding)
        except (LookupError, TypeError, ValueError):
            raise wrong(
                "encoding",
                f"expected the name of one, such as utf-8, cp1252 or utf-16, got {self.encoding!r}",
            ) from None
        if self.time_format is not None:
            check_time_format("time_format", self.time_format)


Columns = str | tuple[str, ...]
"""Names of columns: in one string, separated by commas, or one by one."""


def column_names(name: str, value: Any) -> tuple[str, ...]:
    """The names one by one; in a string, one with a comma in it stands in double quotes.

    Raises:
        TypeError: not names of columns.
        ValueError: one is empty, or there twice.
    """
    names = value or ()
    if isinstance(names, str):
        names = next(csv.reader([names], skipinitialspace=True))
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise wrong(name, f"expected names of columns, got {value!r}", TypeError)
    names = tuple(n.strip() for n in names)
    for n in names:
        if not n or names.count(n) > 1:
            raise wrong(name, f"expected names of different columns, got {value!r}")
    return names
