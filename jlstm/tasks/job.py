"""What the driver needs to know of a training run.

A *kind* of job (a text, a table, labelled sequences) is a dataclass in ``config.py`` and one file
or folder of this folder, named after the kind, in which are:

    prepare(config, files, folder)           the user's files, checked and written into ``folder``
    build(config, folder) -> Job             what was written, made into a training run
    evaluate(config, folder, params, file)   the parameters judged on what was kept back, or on a
                                             file (None for none): an ``Evaluation``
    FILES                                    what ``prepare`` writes, and what is in it

``folder`` is the folder of the run: from there on nothing but what is in it is needed. The driver
(``run.py``) knows jobs, and nothing of their kinds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import PRNGKeyArray

from jlstm.tasks.config import Training


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


@dataclass(frozen=True)
class Table:
    """A table to print: numbers as text already."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: Sequence[int] = field(default=())
    """Rows to stress."""


FEWEST_STEPS = 500
"""Of a run, unless the user says otherwise: a small file needs more epochs than a large one."""


def count_steps(config: Training, epoch: int, usual: float) -> int:
    """The length of a run: as asked for, or ``usual`` epochs of so many steps, but not too few."""
    if config.steps is not None:
        return config.steps
    if config.epochs is not None:
        return max(1, round(config.epochs * epoch))
    return max(FEWEST_STEPS, round(usual * epoch))
