"""`jlstm demo`: each kind of model trained on real data that somebody else's package brings."""

import csv
import time as clock
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from jlstm.cli.options import Count, PositiveOrZero, Seed
from jlstm.cli.sample import printable
from jlstm.cli.screen import new_console
from jlstm.cli.train import go_on
from jlstm.extras import require
from jlstm.tasks.config import Training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["text", "table", "sequences"]


def demo(
    kind: Annotated[
        Kind,
        Parameter(
            help="text: Python's help on its own language. table: the weather in Seattle, four "
            "years, day by day. sequences: handwritten digits, row by row."
        ),
    ] = "text",
    *,
    steps: Annotated[Count | None, Parameter(help="Steps of training, to make it shorter.")] = None,
    seed: Annotated[Seed, Parameter(help="Of everything random.")] = 0,
    out: Annotated[Path, Parameter(help="Where the folder of this run is made.")] = Path("runs"),
    compare_seconds: Annotated[
        PositiveOrZero,
        Parameter(
            help="After the text, how long to time the hand-derived rules against autodiff; 0: not."
        ),
    ] = 5.0,
) -> None:
    """Train a model on real data, judge it beside baselines, and show what it learnt.

    It is what `jlstm train` does, on data that is at hand, with the options that are printed.
    """
    require("matplotlib", "plots")  # before the work, not after it
    began, console = clock.perf_counter(), new_console()
    common: dict[str, Any] = {
        "seed": seed,
        "out": out,
        "name": clock.strftime(f"demo-{kind}-%Y%m%d-%H%M%S"),
    }
    if steps is not None:
        common["steps"] = steps
    prepare = {"text": python_text, "table": seattle_weather, "sequences": digits}[kind]
    with TemporaryDirectory() as folder:
        config, file = prepare(Path(folder), common)
        run = go_on(config, file)
    if isinstance(config, TextConfig):
        show_sample(run, seed, console)
        if compare_seconds:
            compare_rules(config, run, compare_seconds, console)
    minutes, seconds = divmod(round(clock.perf_counter() - began), 60)
    console.print(f"\n{minutes} min {seconds} s. All of it is in {run}.")


def python_text(folder: Path, common: dict[str, Any]) -> tuple[Training, Path]:
    """The help topics of Python's language reference, which come with Python itself."""
    from jlstm.tasks.text.windows import pydoc_text

    file = folder / "pydoc-topics.txt"
    file.write_bytes(pydoc_text())
    # Found by measuring on two cores, for what is learnt in a minute or two: many short windows, a
    # high learning rate, and no dropout, as the text is gone through six times.
    options = {
        "tokens": "byte", "layers": 1, "hidden": 320, "streams": 16, "time": 32, "steps": 4500,
        "learning_rate": 0.018, "weight_decay": 0.1, "output_dropout": 0.0,
    }  # fmt: skip
    return TextConfig(**{**options, **common}), file


def seattle_weather(folder: Path, common: dict[str, Any]) -> tuple[Training, Path]:
    """The weather in Seattle as it was measured, every day of 2012 to 2015, from vega_datasets."""
    frame = require("vega_datasets", "demo").data.seattle_weather()
    frame["date"] = frame["date"].dt.strftime("%Y-%m-%d")
    rows = frame.itertuples(index=False)
    file = write_rows(folder / "seattle-weather.csv", tuple(frame.columns), rows)
    # The highest temperatures of a week, from all that was measured before.
    past = "temp_min,precipitation,wind"
    options = {"time": "date", "target": "temp_max", "past": past, "horizon": 7}
    return TableConfig(**{**options, **common}), file


def digits(folder: Path, common: dict[str, Any]) -> tuple[Training, Path]:
    """Handwritten digits, as scikit-learn has them: each a sequence of eight rows of pixels."""
    images, labels = require("sklearn.datasets", "demo").load_digits(return_X_y=True)
    header = ("image", "row", *(f"pixel{n}" for n in range(8)), "digit")
    rows = (
        (image, row, *pixels, label)
        for image, (rows, label) in enumerate(zip(images.reshape(-1, 8, 8), labels, strict=True))
        for row, pixels in enumerate(rows)
    )
    file = write_rows(folder / "digits.csv", header, rows)
    return SequencesConfig(**{"id": "image", "time": "row", "label": "digit", **common}), file


def write_rows(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A CSV file, made."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return file


def show_sample(run: Path, seed: int, console: "Console") -> None:
    """Let the model write; print it and keep it."""
    from jlstm.files import replacing
    from jlstm.runs.use import sample

    prompt = "The standard type hierarchy\n"
    written = sample(run, prompt, length=600, temperature=0.7, seed=seed, say=console.print)
    text = printable(prompt + written)
    print(f"\nWritten by the model, at temperature 0.7:\n\n{text}\n", file=console.file)
    with replacing(run / "sample.txt") as beside:
        beside.write_text(text, "utf-8")


def compare_rules(config: TextConfig, run: Path, seconds: float, console: "Console") -> None:
    """Measure the hand-derived rules against autodiff at the size that was trained."""
    from jlstm.cli.compare import show
    from jlstm.comparison import compare
    from jlstm.records import write_json

    console.print("The LSTM of this model, differentiated by hand and by autodiff:")
    comparison = compare(
        time=config.time,
        batch=config.streams,
        input_size=config.embedding,
        hidden_size=config.hidden,
        seconds=seconds,
        seed=config.seed,
    )
    show(comparison, console)
    write_json(run / "comparison.json", comparison.to_dict())
