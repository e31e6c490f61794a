"""How a training run shows itself: a progress bar on a terminal, lines where there is none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable

if TYPE_CHECKING:  # importing these imports JAX, for which `--help` need not wait
    from jlstm.jobs.job import Evaluation

Record = Mapping[str, Any]


def new_console() -> Console:
    """Where results go: numbers as they are, long lines wrapped by whoever reads them."""
    return Console(highlight=False, markup=False, soft_wrap=True)


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Record], None]]:
    """A function that shows the records of ``jlstm.jobs.run``."""
    show = _bar if console.is_terminal else _lines
    with show(console) as watch:
        yield watch


@contextmanager
def _lines(console: Console) -> Iterator[Callable[[Record], None]]:
    """A line for each validation: now and then is enough."""

    def watch(record: Record) -> None:
        if record["validation_loss"] is not None:
            done = f"step {record['step']:,}/{record['steps']:,}"
            console.print(f"{done}: {facts(record, record['validation_loss'])}")

    yield watch


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[Record], None]]:
    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    valid: float | None = None
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, facts="compiling …")

        def watch(record: Record) -> None:
            nonlocal valid
            valid = valid if record["validation_loss"] is None else record["validation_loss"]
            bar.update(
                task,
                total=record["steps"],
                completed=record["step"],
                facts=facts(record, valid),
            )

        yield watch


def facts(record: Record, valid: float | None) -> str:
    """Loss, validation and speed, in words."""
    validation = "" if valid is None else f", validation {valid:.4f} {record['score']}"
    loss = "–" if record["loss"] is None else f"{record['loss']:.4f}"
    return f"loss {loss}{validation}, {record['per_second']:,.0f} {record['unit']}/s"


def show_evaluation(judged: "Evaluation", console: Console) -> None:
    """Print the tables and what they say."""
    for table in judged.tables:
        rich = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for n, column in enumerate(table.columns):
            rich.add_column(column, justify="right" if n else "left", no_wrap=True)
        for n, row in enumerate(table.rows):
            rich.add_row(*row, style="bold green" if n in table.best else "")
        console.print(f"\n{table.title}")
        console.print(rich)
    console.print()
    for sentence in (judged.verdict, *judged.notes):
        console.print(sentence)


def show_files(folder: Path, files: Sequence[tuple[str, str]], console: Console) -> None:
    """Name what a run left, and what it is."""
    console.print(f"\nIn {folder}:")
    for name, what in files:
        if (folder / name).exists():
            console.print(f"  {name:<18}{what}")
