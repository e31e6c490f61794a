"""`jlstm train`, `jlstm resume`: models trained on the user's file, and gone on with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, Token

from jlstm.cli.options import ConfigFile, Count, File, Positive, Run, Texts, fill, given
from jlstm.cli.screen import new_console, show_evaluation, show_files, show_tables, watching
from jlstm.files import quoted
from jlstm.tasks.config import Training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import ArgumentCollection
    from rich.console import Console

    from jlstm.runs.run import Outcome

Seeds = Annotated[
    Count,
    Parameter(
        help="How many runs to train, with the seeds --seed, one more, and so on; what is measured "
        "is then told as mean ± standard deviation."
    ),
]

LEFT = (
    ("report.html", "all of it as a page to read"),
    ("best.safetensors", "the parameters with the lowest validation loss"),
    ("evaluation", "the model and the baselines, on data that was kept back"),
    ("plots", "pictures"),
    ("metrics.jsonl", "the course of the training"),
    ("config.toml", "what was asked for"),
)


def text(
    *files: Texts,
    seeds: Seeds = 1,
    config: Annotated[TextConfig, Parameter(name="*")] = TextConfig(),
    config_file: ConfigFile = None,
) -> None:
    """Train a language model on texts.

    The end of the text is kept for the evaluation, its beginning chooses the best parameters, and
    what lies between is trained on. Ctrl-C saves; `jlstm resume` goes on exactly where it stopped.
    """
    if not files:
        raise ValueError("FILES: expected a text file or a folder of them, got none")
    go_on(config, *files, seeds=seeds)


def table(
    file: File,
    *,
    seeds: Seeds = 1,
    config: Annotated[TableConfig, Parameter(name="*")],
    config_file: ConfigFile = None,
) -> None:
    """Train a model that forecasts columns of a table.

    The table has a row for each time, or for each time of each series. Its beginning is trained on,
    its end kept for the evaluation, where the model is held against forecasts that need no
    training. Ctrl-C saves; `jlstm resume` goes on exactly where it stopped.
    """
    go_on(config, file, seeds=seeds)


def sequences(
    file: File,
    *,
    seeds: Seeds = 1,
    config: Annotated[SequencesConfig, Parameter(name="*")],
    config_file: ConfigFile = None,
) -> None:
    """Train a model that labels sequences.

    The table has a row for each step of each sequence. A part of the sequences is kept for the
    evaluation. Ctrl-C saves; `jlstm resume` goes on exactly where it stopped.
    """
    go_on(config, file, seeds=seeds)


def resume(
    run: Run,
    *,
    steps: Annotated[
        Count | None,
        Parameter(
            help="The new length of a run that has finished, the steps made so far included; it "
            "goes on in a new folder, and its learning rate rises and falls once more."
        ),
    ] = None,
    epochs: Annotated[Positive | None, Parameter(help="The same in epochs.")] = None,
    learning_rate: Annotated[
        Positive | None,
        Parameter(help="With a new length, the highest from now on; by default as before."),
    ] = None,
    name: Annotated[
        str | None,
        Parameter(help="Of the longer run's folder, beside RUN; by default one with the time."),
    ] = None,
    trials: Annotated[
        Count | None, Parameter(help="Of a search, the new number, those made so far included.")
    ] = None,
    minutes: Annotated[
        Positive | None,
        Parameter(help="Of a search, how long it may take, in all."),
    ] = None,
) -> None:
    """Go on with a training or a search that was stopped; or make one longer that has finished.

    Of several runs with a seed each, those that have not finished are gone on with.
    """
    from jlstm.cli import tune
    from jlstm.runs import run as jobs
    from jlstm.runs.folder import SEARCH, SEEDS
    from jlstm.runs.origin import lengthen
    from jlstm.train import interrupt_flag
    from jlstm.train.interrupt import terminable

    longer = {steps, epochs, learning_rate, name} != {None}
    if (run / SEARCH).is_file() and not longer:
        tune.go_on(run, trials, minutes)
        return
    if {trials, minutes} != {None}:
        raise ValueError(f"--trials, --minutes: expected the folder of a search, got {run}")
    if (run / SEEDS).is_file() and not longer:
        _resume_seeds(run)
        return
    console = new_console()
    if longer:
        with terminable():
            run = lengthen(
                run,
                steps=steps,
                epochs=epochs,
                learning_rate=learning_rate,
                name=name,
                say=console.print,
            )
    with interrupt_flag() as interrupted, watching(console) as watch:
        outcome = jobs.resume(run, say=console.print, watch=watch, interrupted=interrupted)
    _tell(outcome, console)


def go_on(config: Training, *files: Path, seeds: int = 1) -> Path:
    """Start a run, or one for each seed, train it to the end, show what it is worth; its folder."""
    from jlstm.runs import run
    from jlstm.runs import seeds as several
    from jlstm.train.interrupt import terminable

    say = new_console().print
    with terminable():
        if seeds == 1:
            folder = run.start(config, *files, say=say)
        else:
            folder = several.start(config, *files, count=seeds, say=say)
    resume(folder)
    return folder


def from_file(app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """The options and files of the file after ``--config``, for what was not typed.

    Raises:
        OSError, ValueError: there is no such file, or it is not what it should be.
    """
    path = given(arguments, "--config")
    if path is None:
        return
    from jlstm.runs.toml import read_toml

    typed = {argument.keys[-1] for argument in arguments if argument.keys and argument.tokens}
    if typed & {"epochs", "steps"}:  # one in place of the other
        typed |= {"epochs", "steps"}
    files, options = read_toml(path, commands[-1], typed)
    fill(arguments, options, str(path))
    (place,) = [a for a in arguments if a.field_info.name in ("file", "files")]
    if place.tokens:
        return
    if place.field_info.name == "file" and len(files) > 1:
        raise ValueError(f"{path}: files: expected one file, got {len(files)}")
    for n, file in enumerate(files):
        place.append(Token(value=str(file), source=str(path), index=n))


def _resume_seeds(folder: Path) -> None:
    """Train what has not finished of a run for each seed; then show how they compare."""
    from jlstm.runs import seeds
    from jlstm.train import interrupt_flag

    console = new_console()
    with interrupt_flag() as interrupted, watching(console) as watch:
        outcome = seeds.resume(folder, say=console.print, watch=watch, interrupted=interrupted)
    if not outcome.finished:
        console.print(f"Stopped; all of it is saved. To go on:\n  jlstm resume {quoted(folder)}")
        raise KeyboardInterrupt
    show_tables(outcome.tables, console)
    best = outcome.best.name if outcome.best else ""
    left = (
        (best, "the run with the lowest validation loss; its report.html tells of all seeds"),
        ("seeds.json", "mean and spread of each measure"),
        ("seeds.csv", "the same as a table"),
    )
    show_files(folder, left, console)


def taken_over(app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """The options of the run after ``--from``, for what was not typed, and is not in a file.

    Raises:
        OSError, ValueError: there is no such run, or it is one of another kind.
    """
    run = given(arguments, "--from")
    if run is None:
        return
    from jlstm.runs.folder import best_run, read_config
    from jlstm.runs.origin import check_kind, inherited

    config = read_config(best_run(run), "from_")
    check_kind(run, config, commands[-1])
    options = {name: value for name, value in inherited(config).items() if value is not None}
    fill(arguments, options, str(run))


def _tell(outcome: "Outcome", console: "Console") -> None:
    if outcome.evaluation is None:
        console.print(
            f"Stopped after step {outcome.step:,}; all of it is saved. To go on:\n"
            f"  jlstm resume {quoted(outcome.folder)}"
        )
        raise KeyboardInterrupt
    show_evaluation(outcome.evaluation, console)
    show_files(outcome.folder, LEFT, console)
