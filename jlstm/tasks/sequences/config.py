"""What a training on labelled sequences can be asked for."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jlstm.checks import check_choice, check_flag, check_number, check_size, wrong
from jlstm.tasks.config import MOST_LAYERS, Columns, Range, Space, TableFile, column_names


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
    space: ClassVar[Space] = {
        "learning_rate": Range(3e-4, 2e-2, log=True),
        "hidden": (32, 64, 128, 256),
        "layers": (1, 2),
        "bidirectional": (True, False),
        "input_dropout": Range(0.0, 0.4),
        "dropout": Range(0.0, 0.7),
        "weight_decay": Range(1e-4, 0.3, log=True),
    }

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
                raise wrong(
                    name,
                    f"expected the name of a column, got {type(value).__name__} {value!r}",
                    TypeError,
                )
            if not value or value in used:
                got = "nothing" if not value else f"{value!r}, which has another use"
                raise wrong(name, f"expected the name of a column of its own, got {got}")
            used.append(value)
        for name in ("features", "categories"):
            columns = column_names(name, getattr(self, name))
            object.__setattr__(self, name, columns)
            # Who it is, what is to be found out, and chance; the time may tell something.
            for column in ({*used} - {self.time}) & {*columns}:
                raise wrong(
                    name, f"expected columns to learn from, got {column!r}, which has another use"
                )
        check_choice("task", self.task, ("classify", "regress", "tag"))
        check_choice("missing", self.missing, ("error", "mask"))
        check_choice("class_weights", self.class_weights, ("none", "balanced"))
        if self.task == "regress" and self.class_weights != "none":
            raise wrong(
                "class_weights",
                f"expected 'none' for the task 'regress', got {self.class_weights!r}",
            )
        check_number("validation", self.validation, above=0, below=1)
        check_number("test", self.test, least=0, below=1)
        if self.validation + self.test >= 1:
            raise wrong(
                "validation, test",
                f"expected to leave something to train on, got {self.validation} + {self.test}",
            )
        for name in ("buckets", "batch"):
            check_size(name, getattr(self, name))
        check_size("hidden", self.hidden, most=2**30 - 1)  # both directions go into the next layer
        check_size("layers", self.layers, most=MOST_LAYERS)
        check_flag("bidirectional", self.bidirectional)
        for name in ("input_dropout", "dropout", "smoothing"):
            check_number(name, getattr(self, name), least=0, below=1)
