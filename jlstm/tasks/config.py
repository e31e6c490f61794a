"""All that the training program can be asked for, on one page.

One frozen dataclass for each kind of job, used from Python and made into the options of the command
line, whose help the sentences below the fields are. Nothing here imports JAX, so that ``--help``
answers at once.
"""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from jlstm.checks import check_choice, check_flag, check_number, check_size
from jlstm.tasks.frame import check_time_format

NotFinite = Literal["stop", "skip"]
Implementation = Literal["xla"]
Optimizer = Literal["adam", "sgd"]
Target = Literal["onnx", "stablehlo", "safetensors", "torch"]
"""What a trained model can be exported to."""

MOST_LAYERS = 100
"""Each layer is compiled by itself: more would take hours before the first step."""


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
            raise ValueError(
                f"epochs, steps: expected one of them, got {self.epochs} and {self.steps}"
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
        object.__setattr__(self, "out", Path(self.out))
        if self.from_ is not None:
            object.__setattr__(self, "from_", Path(self.from_))
        if self.name is not None:
            hidden = self.name.startswith(".") or not self.name  # also . and ..
            if hidden or Path(self.name).name != self.name or not self.name.isprintable():
                raise ValueError(
                    "name: expected the name of a folder in one line, without / and with no dot "
                    f"first, got {self.name!r}"
                )


@dataclass(frozen=True, kw_only=True)
class TextConfig(Training):
    """A language model, trained on texts.

    Raises:
        TypeError, ValueError: an option of another type or out of range.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "tokens", "vocabulary", "embedding", "hidden", "layers", "tied",
    )  # fmt: skip

    learning_rate: float = 4e-3
    """The highest; it rises from 0 and falls to 0 along a cosine (for sgd, to a hundredth)."""
    tokens: Literal["byte", "char", "word"] = "char"
    """What is predicted: bytes, characters of UTF-8, or words (a line's end is one, too)."""
    vocabulary: int = 20_000
    """At most so many different tokens are told apart, the most frequent ones; others are one."""
    validation: float = 0.05
    """Part of the text, its beginning, that chooses the best parameters."""
    test: float = 0.1
    """Part of the text, its end, looked at only by the final evaluation."""
    streams: int = 32
    """Pieces of the text that are read side by side: the batch."""
    time: int = 128
    """Tokens through which a gradient goes back in time; what is remembered goes on further."""
    embedding: int = 64
    """Features that stand for a token."""
    hidden: int = 512
    """Units of each layer."""
    layers: int = 2
    """Layers of the LSTM."""
    tied: bool = False
    """Whether the embedding is also the readout; the last layer then has as many units."""
    embedding_dropout: float = 0.0
    """Part of the tokens whose embedding is left out, wherever they occur in a window."""
    input_dropout: float = 0.0
    """Part of the embedded features left out."""
    dropout: float = 0.2
    """Part of the features left out between layers."""
    output_dropout: float = 0.4
    """Part of the last layer's features left out."""
    weight_dropout: float = 0.0
    """Part of the recurrent weights left out."""
    recurrent_dropout: float = 0.0
    """Part of what enters the cells' memory that is left out, at each step."""
    zoneout: float = 0.0
    """Part of the cells' memory that stays as it was, at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("tokens", self.tokens, ("byte", "char", "word"))
        for name in ("streams", "time", "embedding", "hidden"):
            check_size(name, getattr(self, name))
        check_size("layers", self.layers, most=MOST_LAYERS)
        check_size("vocabulary", self.vocabulary, 2)
        for name in ("validation", "test"):
            check_number(name, getattr(self, name), above=0, below=1)
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation, test: expected to leave something to train on, got "
                f"{self.validation} + {self.test}"
            )
        check_flag("tied", self.tied)
        for field in fields(self):
            if "dropout" in field.name or field.name == "zoneout":
                check_number(field.name, getattr(self, field.name), least=0, below=1)


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
            named: Any = {"tab": "\t", "\\t": "\t"}.get(self.separator, self.separator)
            single = isinstance(named, str) and len(named) == 1
            if not single or named.isalnum() or named in '"\r\n':
                raise ValueError(
                    "separator: expected one character that is no letter, digit or quote, or tab, "
                    f"got {named!r}"
                )
            object.__setattr__(self, "separator", named)
        check_choice("decimal", self.decimal, (".", ","))
        try:
            "a".encode(self.encoding)
        except (LookupError, TypeError, ValueError):
            raise ValueError(
                "encoding: expected the name of one, such as utf-8, cp1252 or utf-16, got "
                f"{self.encoding!r}"
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
        raise TypeError(f"{name}: expected names of columns, got {value!r}")
    names = tuple(n.strip() for n in names)
    for n in names:
        if not n or names.count(n) > 1:
            raise ValueError(f"{name}: expected names of different columns, got {value!r}")
    return names


@dataclass(frozen=True, kw_only=True)
class TableConfig(TableFile):
    """Forecasts of the columns of a table with a row for each time.

    Raises:
        TypeError, ValueError: an option of another type or out of range.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "time", "target", "horizon", "lookback", "past", "known_future", "static", "group",
        "season", "missing", "calendar", "quantiles", "hidden", "layers", "patch", "linear",
    )  # fmt: skip

    time: str
    """The column with the times."""
    target: Columns
    """The columns to forecast, separated by commas."""
    horizon: int
    """Steps to forecast."""
    lookback: int | None = None
    """Steps to forecast from; by default four horizons, or two seasons where that is more (and a
    season has at most 200 steps)."""
    past: Columns = ()
    """Columns known up to now that help to forecast."""
    known_future: Columns = ()
    """Columns known over the horizon, too, such as holidays or prices."""
    static: Columns = ()
    """Columns that say something of a whole series; each group has one value."""
    group: Columns = ()
    """The columns that tell series apart, where the table has several, one below the other."""
    season: int | None = None
    """Steps after which the series resembles itself; by default found from the times: a day of
    hours, a week of days, a year of months …; 1: none."""
    validation: str = "0.1"
    """Part of the time that chooses the best parameters, or the date it begins at."""
    test: str = "0.2"
    """Part of the time, its end, looked at only by the final evaluation, or the date it begins."""
    until: str | None = None
    """The date before which the table is used."""
    missing: Literal["error", "fill", "interpolate"] = "error"
    """What to do with missing values: end, saying where they are; repeat the last value before;
    or draw a line between the neighbours (within the past only, for what is forecast from)."""
    calendar: bool = True
    """Whether the model is told the time of the day, week and year; each where the training part
    has two of them."""
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    """Which quantiles to forecast, separated by commas; the median is the point forecast and always
    among them."""
    hidden: int = 64
    """Units of each layer."""
    layers: int = 1
    """Layers of the LSTM."""
    dropout: float = 0.2
    """Part of the features left out after each layer."""
    patch: int | None = None
    """Steps that the LSTM reads at once, at most all that there are to forecast from; by default a
    twelfth of these, at most 8."""
    linear: bool = True
    """Whether a linear map from the window to the forecast stands beside the LSTM."""
    batch: int = 256
    """Windows of a training step; of several targets, each has windows of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target", "past", "known_future", "static", "group"):
            object.__setattr__(self, name, column_names(name, getattr(self, name)))
        if not self.target:
            raise ValueError("target: expected at least one column, got none")
        roles = {"time": column_names("time", self.time)}
        if len(roles["time"]) != 1:
            raise ValueError(f"time: expected the name of one column, got {self.time!r}")
        object.__setattr__(self, "time", *roles["time"])
        for name in ("target", "past", "known_future", "static", "group"):
            for column in getattr(self, name):
                for other, columns in roles.items():
                    if column in columns:
                        raise ValueError(
                            f"{name}: expected other columns than those of {other}, got {column!r}"
                        )
            roles[name] = getattr(self, name)
        for name in ("horizon", "hidden", "batch"):
            check_size(name, getattr(self, name))
        check_size("layers", self.layers, most=MOST_LAYERS)
        for name in ("lookback", "season", "patch"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        if self.patch is not None and self.lookback is not None and self.patch > self.lookback:
            raise ValueError(
                f"patch: expected at most the {self.lookback} steps of lookback, got {self.patch}"
            )
        for name in ("validation", "test"):  # a number is as good as its name
            object.__setattr__(self, name, str(getattr(self, name)))
        check_choice("missing", self.missing, ("error", "fill", "interpolate"))
        check_flag("calendar", self.calendar)
        check_flag("linear", self.linear)
        check_number("dropout", self.dropout, least=0, below=1)
        object.__setattr__(self, "quantiles", _quantiles(self.quantiles))
        written = ("target", *(f"q{q:g}" for q in self.quantiles))
        for column in roles["time"] + roles["group"]:
            if column in written:
                raise ValueError(
                    "time, group: expected other names than those of what is written of forecasts, "
                    f"{', '.join(written)}, got {column}"
                )


def _quantiles(value: Any) -> tuple[float, ...]:
    """Rising, with the median."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"quantiles: expected numbers, got {value!r}")
    for q in value:
        check_number("quantiles", q, above=0, below=1)
    return tuple(sorted({float(q) for q in value} | {0.5}))


@dataclass(frozen=True, kw_only=True)
class SequencesConfig(TableFile):
    """A model of labelled sequences, from a table in long format: a row for each step of each.

    Raises:
        TypeError, ValueError: an option of another type or out of range, or a column with two uses.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "id", "time", "label", "task", "features", "categories", "hidden", "layers",
        "bidirectional",
    )  # fmt: skip

    patience: int = 40
    """Validations without a better one after which training ends; 0: never."""
    id: str
    """The column that says which sequence a row belongs to."""
    time: str
    """The column that orders the rows of a sequence: numbers or times."""
    label: str
    """The column with the label."""
    task: Literal["classify", "regress", "tag"] = "classify"
    """One class for each sequence, one number for each sequence, or one class for each step."""
    features: Columns = ()
    """The columns to learn from, separated by commas; by default all others. Text is taken as a
    category."""
    categories: Columns = ()
    """Those of them whose numbers are names, too."""
    missing: Literal["error", "mask"] = "error"
    """What to do with missing values: end, saying where they are; or take the mean, and tell the
    model where."""
    split: str | None = None
    """A column that says train, validation or test for each sequence, in place of chance; where it
    never says validation, a part of train is taken."""
    validation: float = 0.1
    """Part of the sequences that chooses the best parameters."""
    test: float = 0.2
    """Part of the sequences looked at only by the final evaluation; may be 0."""
    class_weights: Literal["none", "balanced"] = "none"
    """Whether errors of rare classes count more, as much as all others together."""
    buckets: int = 4
    """Lengths to which sequences are padded, at most, one of them in validation: each is a program
    to compile, and there are fewer where compiling takes longer than they save."""
    hidden: int = 128
    """Units of each layer and direction."""
    layers: int = 1
    """Layers of the LSTM."""
    bidirectional: bool = True
    """Whether each layer also reads from the end to the start."""
    input_dropout: float = 0.1
    """Part of the features left out on their way in, the same ones in a whole sequence."""
    dropout: float = 0.5
    """Part of the features left out after each layer."""
    smoothing: float = 0.1
    """Part of the probability that is shared out among all classes, for a model less sure, which
    errs less where examples are few; 0 for probabilities to be taken at their word."""
    batch: int = 32
    """Sequences of a training step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        used: list[str] = []
        for name in ("id", "time", "label", "split"):
            value = getattr(self, name)
            if value is None and name == "split":
                continue
            if not isinstance(value, str):
                raise TypeError(
                    f"{name}: expected the name of a column, got {type(value).__name__} {value!r}"
                )
            if not value or value in used:
                got = "nothing" if not value else f"{value!r}, which has another use"
                raise ValueError(f"{name}: expected the name of a column of its own, got {got}")
            used.append(value)
        for name in ("features", "categories"):
            columns = column_names(name, getattr(self, name))
            object.__setattr__(self, name, columns)
            # Who it is, what is to be found out, and chance; the time may tell something.
            for column in ({*used} - {self.time}) & {*columns}:
                raise ValueError(
                    f"{name}: expected columns to learn from, got {column!r}, which has another use"
                )
        check_choice("task", self.task, ("classify", "regress", "tag"))
        check_choice("missing", self.missing, ("error", "mask"))
        check_choice("class_weights", self.class_weights, ("none", "balanced"))
        if self.task == "regress" and self.class_weights != "none":
            raise ValueError(
                f"class_weights: expected 'none' for the task 'regress', got {self.class_weights!r}"
            )
        check_number("validation", self.validation, above=0, below=1)
        check_number("test", self.test, least=0, below=1)
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation, test: expected to leave something to train on, got "
                f"{self.validation} + {self.test}"
            )
        for name in ("buckets", "batch"):
            check_size(name, getattr(self, name))
        check_size("hidden", self.hidden, most=2**30 - 1)  # both directions go into the next layer
        check_size("layers", self.layers, most=MOST_LAYERS)
        check_flag("bidirectional", self.bidirectional)
        for name in ("input_dropout", "dropout", "smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)
