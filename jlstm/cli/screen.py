"""How a training run shows itself: a progress bar on a terminal, lines where there is none."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:  # importing these imports JAX, for which `--help` need not wait
    from jlstm.tasks.job import Evaluation
    from jlstm.tasks.job import Table as Judged

Record = Mapping[str, Any]


def new_console(*, stderr: bool = False) -> Console:
    """Where results go: text as it is, long lines wrapped by whoever reads them."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Record], None]]:
    """A function that shows the records of ``jlstm.runs.run``."""
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
        BarColumn(bar_width=8),
        TimeRemainingColumn(),
        TextColumn("left"),
        # What is too long for the terminal goes on in a second line; it is short, so as not to be.
        TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=False)),
    )
    valid: float | None = None
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, facts="compiling …")

        def watch(record: Record) -> None:
            nonlocal valid
            step, steps = record["step"], record["steps"]
            valid = valid if record["validation_loss"] is None else record["validation_loss"]
            said = facts({**record, "score": ""}, valid)
            bar.update(task, total=steps, completed=step, facts=f"{step:,}/{steps:,} {said}")

        yield watch
        if bar.tasks[0].total is None:  # there was nothing to train any more
            bar.remove_task(task)


def facts(record: Record, valid: float | None) -> str:
    """Loss, validation and speed, in words."""
    validation = "" if valid is None else f", validation {valid:.4f} {record['score']}".rstrip()
    loss = "–" if record["loss"] is None else f"{record['loss']:.4f}"
    return f"loss {loss}{validation}, {record['per_second']:,.0f} {record['unit']}/s"


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    right: Container[int] = (),
    best: Container[int] = (),
    fold: Iterable[int] = (),
) -> None:
    """Print a table as wide as it is: cut off to fit the terminal, a number would be another one.

    Args:
        columns: their names.
        rows: the cells.
        console: where to.
        right: the columns that are set flush right.
        best: the rows to stress.
        fold: columns of words, which a terminal may break into lines.
    """
    folded = set(fold) if console.is_terminal else set()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for n, column in enumerate(columns):
        side: Any = "right" if n in right else "left"
        table.add_column(Text(column), justify=side, no_wrap=n not in folded, overflow="fold")
    for n, row in enumerate(rows):
        table.add_row(*map(Text, row), style="bold green" if n in best else "")
    if not folded:
        wide = console.options.update(max_width=100_000)
        table.width = Measurement.get(console, wide, table).maximum
    console.print(table, crop=False)


def show_tables(tables: "Sequence[Judged]", console: Console) -> None:
    """Print tables, each below its title."""
    for table in tables:
        console.print(f"\n{table.title}")
        numbers = range(1, len(table.columns))
        show_table(table.columns, table.rows, console, right=numbers, best=table.best)


def show_evaluation(judged: "Evaluation", console: Console) -> None:
    """Print the tables and what they say."""
    show_tables(judged.tables, console)
    console.print()
    for sentence in (judged.verdict, *judged.notes):
        console.print(sentence)


def show_files(folder: Path, files: Sequence[tuple[str, str]], console: Console) -> None:
    """Name what a run left, and what it is."""
    console.print(f"\nIn {folder}:")
    for name, what in files:
        if (folder / name).exists():
            console.print(f"  {name:<18}{what}")
