"""The three kinds of task, by name."""

from typing import Any

from jlstm.tasks.config import Training
from jlstm.tasks.job import Task
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

KINDS: dict[str, type[Training]] = {
    "text": TextConfig,
    "table": TableConfig,
    "sequences": SequencesConfig,
}


def kind_of(config: Training) -> str:
    """The name of the kind.

    Raises:
        TypeError: no configuration of a kind.
    """
    for name, cls in KINDS.items():
        if type(config) is cls:
            return name
    wanted = ", ".join(cls.__name__ for cls in KINDS.values())
    raise TypeError(f"config: expected one of {wanted}, got {type(config).__name__}")


def task_of(config: Training) -> Task[Any]:
    """What there is to do for a run that was asked for so; only what is used is imported.

    Raises:
        TypeError: no configuration of a kind.
    """
    # Said of the modules, so that the type checker holds each to it.
    text: Task[TextConfig]
    table: Task[TableConfig]
    sequences: Task[SequencesConfig]
    match kind_of(config):
        case "text":
            from jlstm.tasks.text import job as text

            return text
        case "table":
            from jlstm.tasks.table import job as table

            return table
        case _:
            from jlstm.tasks.sequences import job as sequences

            return sequences
