"""What a training of a forecaster can be asked for."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jlstm.checks import check_choice, check_flag, check_number, check_size, check_text, wrong
from jlstm.tasks.config import MOST_LAYERS, Columns, Range, Space, TableFile, column_names


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
    space: ClassVar[Space] = {
        "learning_rate": Range(3e-4, 2e-2, log=True),
        "hidden": (16, 32, 64, 128, 256),
        "layers": (1, 2),
        "dropout": Range(0.0, 0.6),
        "augment": (None, 0.0, 0.3, 0.8),
        "patch": (None, 1, 2, 4),
        "batch": (64, 128, 256, 512),
        "weight_decay": Range(1e-4, 0.3, log=True),
    }

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
    calibrate: bool = True
    """Whether the quantiles are fitted to the errors on the validation part once the model is
    trained, so that they hold as often as they say; the median stays."""
    hidden: int = 64
    """Units of each layer."""
    layers: int = 1
    """Layers of the LSTM."""
    dropout: float = 0.2
    """Part of the features left out after each layer."""
    augment: float | None = None
    """How much larger or smaller windows are made in training, with what follows them, by chance:
    the standard deviation of the factor's logarithm; by default 0.2, and 0.5 where there is only
    one series and target to learn from; 0, as they are, where other columns say what follows."""
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
            raise wrong("target", "expected at least one column, got none")
        roles = {"time": column_names("time", self.time)}
        if len(roles["time"]) != 1:
            raise wrong("time", f"expected the name of one column, got {self.time!r}")
        object.__setattr__(self, "time", *roles["time"])
        for name in ("target", "past", "known_future", "static", "group"):
            for column in getattr(self, name):
                for other, columns in roles.items():
                    if column in columns:
                        raise wrong(
                            name, f"expected other columns than those of {other}, got {column!r}"
                        )
            roles[name] = getattr(self, name)
        for name in ("horizon", "hidden", "batch"):
            check_size(name, getattr(self, name))
        check_size("layers", self.layers, most=MOST_LAYERS)
        for name in ("lookback", "season", "patch"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        if self.patch is not None and self.lookback is not None and self.patch > self.lookback:
            raise wrong(
                "patch", f"expected at most the {self.lookback} steps of lookback, got {self.patch}"
            )
        for name in ("validation", "test"):  # a number is as good as its name
            object.__setattr__(self, name, str(getattr(self, name)))
        if self.until is not None:
            check_text("until", self.until)
        check_choice("missing", self.missing, ("error", "fill", "interpolate"))
        check_flag("calendar", self.calendar)
        check_flag("linear", self.linear)
        check_flag("calibrate", self.calibrate)
        check_number("dropout", self.dropout, least=0, below=1)
        if self.augment is not None:
            check_number("augment", self.augment, least=0, below=5)
        object.__setattr__(self, "quantiles", _quantiles(self.quantiles))
        written = ("target", *(f"q{q:g}" for q in self.quantiles))
        for column in roles["time"] + roles["group"]:
            if column in written:
                raise wrong(
                    "time, group",
                    "expected other names than those of what is written of forecasts, "
                    f"{', '.join(written)}, got {column}",
                )


def _quantiles(value: Any) -> tuple[float, ...]:
    """Rising, with the median."""
    if not isinstance(value, list | tuple):
        raise wrong("quantiles", f"expected numbers, got {value!r}", TypeError)
    for q in value:
        check_number("quantiles", q, above=0, below=1)
    return tuple(sorted({float(q) for q in value} | {0.5}))
