"""What a run knows of the task that it trains for.

A kind of task (a text, a table, labelled sequences) is a folder of this folder: ``config.py`` has
the dataclass of its options, and ``job.py`` is a ``Task``. From ``prepare`` on nothing is needed
but what is in the folder of the run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from jaxtyping import PRNGKeyArray

from jlstm.checks import wrong
from jlstm.tasks.config import Training

C = TypeVar("C", bound=Training, contravariant=True)
Say = Callable[[str], None]


class Task(Protocol[C]):
    """All that the life of a run needs of a kind of task.

    ``folder`` is the folder of the run, ``params`` are those of the model, and whatever is given or
    read that is not what it should be raises ValueError or OSError, in one line.
    """

    @property
    def FILES(self) -> Sequence[str]:
        """What ``prepare`` writes, as paths in the folder."""

    @property
    def ABOUT(self) -> Sequence[str]:
        """Those of the files that ``template``, ``predict`` and ``sample`` read."""

    def prepare(self, config: C, files: Sequence[Path], folder: Path) -> None:
        """Check the user's files, and write what is needed of them into ``folder``."""

    def build(self, config: C, folder: Path) -> "Job":
        """The training run on what was written."""

    def template(self, config: C, folder: Path) -> Any:
        """The shapes and dtypes of the parameters, as ``jax.eval_shape`` gives them."""

    def ready(self, config: C, folder: Path, params: Any) -> Any:
        """The best parameters as they are used, with what is learnt of them after the training."""

    def evaluate(
        self, config: C, folder: Path, params: Any, file: Path | None, name: str | None
    ) -> "Evaluation":
        """The parameters judged on what was kept back, or on a file; its pictures get ``name``."""

    def evaluate_dynamic(
        self, config: C, folder: Path, params: Any, file: Path | None, name: str | None
    ) -> "Evaluation":
        """The same, and beside it what they reach when they go on learning as they are judged."""

    def predict(self, config: C, folder: Path, params: Any, file: Path, out: Path) -> Sequence[str]:
        """Write what the model foretells from a file into ``out``; what there is to say of it."""

    def check_saving(self, config: C) -> None:
        """Raise unless ``save_forecasts`` can write those of a model of this configuration."""

    def save_forecasts(
        self, models: Sequence[tuple[C, Path, Any]], file: Path | None, out: Path
    ) -> Sequence[str]:
        """Write the forecasts of all that ``evaluate`` judges into ``out``; what to say of it.

        Of each model there are configuration, folder and parameters; one stands behind the other.
        """

    @property
    def RESPLIT(self) -> str:
        """The option of ``jlstm evaluate`` that asks for ``resplits``; empty where none does."""

    def resplits(
        self, config: C, folder: Path, count: int
    ) -> Sequence[tuple[str, Callable[[Path], Any]]]:
        """The data of the run split otherwise, so often: names, and what fills a run's folder.

        Each function writes what ``prepare`` does and returns the configuration of that run.
        """

    def pooled(
        self, config: C, folder: Path, results: Sequence["Evaluation"], once: "Evaluation"
    ) -> "Evaluation":
        """The judgements of those runs as one; ``once`` is that of the run itself."""

    @property
    def sample(self) -> Callable[..., Iterator[tuple[int, str]]]:
        """``(config, folder, params, prompt, *, say, **options)`` to the texts that follow.

        They come in pieces, each with the number of its sample, one sample after the other. What is
        wrong is raised by the call, before the first piece is asked for.
        """


def no_forecast(*_: Any, **__: Any) -> NoReturn:
    """``predict`` of a kind whose models foretell no files."""
    raise wrong("run", "expected a model of a table or of sequences; see jlstm sample")


def no_dynamic(*_: Any, **__: Any) -> NoReturn:
    """``evaluate_dynamic`` of a kind whose models do not learn as they are judged."""
    raise wrong("dynamic", "expected a language model, got another one")


def no_saved_forecasts(*_: Any, **__: Any) -> NoReturn:
    """``save_forecasts`` and ``check_saving`` of a kind whose models do not forecast."""
    raise wrong("save_forecasts", "expected a model of a table, got another one")


def no_resplits(*_: Any, **__: Any) -> NoReturn:
    """``resplits`` and ``pooled`` of a kind that is trained on one split of its data."""
    raise wrong("run", "expected a model of a table or of sequences, to be trained several times")


def no_text(*_: Any, **__: Any) -> NoReturn:
    """``sample`` of a kind whose models do not write."""
    raise wrong("run", "expected a language model; see jlstm predict")


def as_trained(config: Training, folder: Path, params: Any) -> Any:
    """``ready`` of a kind that learns nothing after the training."""
    return params


@dataclass(frozen=True)
class Job:
    """A training run as pure functions; nothing here has begun."""

    init: Callable[[PRNGKeyArray], Any]
    """Fresh parameters."""
    template: Any
    """Their shapes and dtypes, as ``jax.eval_shape`` gives them."""
    loss: Callable[[Any, Any, Any], tuple[Any, Any]]
    """``(params, carry, batch) -> (loss, carry)``, for ``make_train_step``."""
    batch: Callable[[int], Any]
    """The batch of step n, from 0: a pure function, so that a run resumed goes on exactly."""
    steps: int
    """The length of the run, as configured."""
    epoch: int
    """Steps in which the training data is gone through once."""
    validate: Callable[[Any], float]
    """Parameters to the loss on the validation data, the score that is to fall."""
    score: str
    """What that is, for people: ``"nats per character"``."""
    unit: str
    """What a step goes through, in the plural: ``"characters"``."""
    per_step: Callable[[Any], float]
    """How many of them a batch has."""
    carry: Callable[[Any], Any] = lambda params: None
    """The first carry, from the parameters; its leaves have the batch axis first."""
    devices: int = 1
    """Over how many the batch is cut."""
    about: Sequence[str] = ()
    """Sentences to print before the training: the arithmetic from the data to the steps."""


@dataclass(frozen=True)
class Evaluation:
    """What a trained model turned out to be worth."""

    results: Mapping[str, Any]
    """Everything measured, as JSON has it."""
    tables: Sequence["Table"]
    """The same for people."""
    verdict: str
    """A sentence that says whether the model beats the baselines."""
    notes: Sequence[str] = ()
    """Other sentences worth reading."""
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """The measures of the whole, of the model and of each baseline; None where one has no value."""
    sums: Any = None
    """What the results were made of, for the ``pooled`` of the task; it is not written."""
    details: Sequence["Table"] = ()
    """Tables that are too long for a terminal."""
    pictures: Sequence["Picture"] = ()
    """Those that were drawn."""


@dataclass(frozen=True)
class Table:
    """A table to print: numbers as text already."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Sequence[int] = field(default=())
    """Rows to stress."""


@dataclass(frozen=True)
class Picture:
    """A picture in the folder of the run."""

    path: str
    """In that folder: ``"plots/forecast.png"``."""
    about: str
    """What it shows, in a sentence."""


def show_ratio(ratio: float) -> str:
    """A number in three digits, without an exponent: 0.0012, 1.5, 12,300."""
    return f"{Decimal(f'{ratio:.3g}'):,f}"


FEWEST_STEPS = 500
"""Of a run, unless the user says otherwise: a small file needs more epochs than a large one."""


def count_steps(config: Training, epoch: int, usual: float) -> int:
    """The length of a run: as asked for, or ``usual`` epochs of so many steps, but not too few."""
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, round(config.epochs * epoch))
    return max(FEWEST_STEPS, round(usual * epoch))
