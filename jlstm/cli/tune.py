"""`jlstm tune`: a search for the options with the lowest validation loss."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from jlstm.cli.options import ConfigFile, Count, File, Positive, Texts, given
from jlstm.cli.screen import new_console, show_evaluation, show_files, show_tables
from jlstm.files import quoted
from jlstm.tasks.config import Training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection

    from jlstm.runs.search import Outcome
    from jlstm.runs.trials import Trial

Trials = Annotated[Count, Parameter(help="Trainings to try, at most; the first has the defaults.")]
Minutes = Annotated[
    Positive | None, Parameter(help="How long the search may take; by default as it takes.")
]
Typed = Annotated[tuple[str, ...], Parameter(show=False)]
"""The options that were typed, which are not searched: ``note_typed`` fills it in."""


def text(
    *files: Texts,
    trials: Trials = 30,
    minutes: Minutes = None,
    typed: Typed = (),
    config: Annotated[TextConfig, Parameter(name="*")] = TextConfig(),
    config_file: ConfigFile = None,
) -> None:
    """Search for better options of a language model, by validation loss.

    Takes what `jlstm train text` takes; options that are given stay as they are. Ctrl-C saves;
    `jlstm resume` goes on.
    """
    if not files:
        raise ValueError("FILES: expected a text file or a folder of them, got none")
    _search(config, files, trials, minutes, typed)


def table(
    file: File,
    *,
    trials: Trials = 30,
    minutes: Minutes = None,
    typed: Typed = (),
    config: Annotated[TableConfig, Parameter(name="*")],
    config_file: ConfigFile = None,
) -> None:
    """Search for better options of a forecaster, by validation loss.

    Takes what `jlstm train table` takes; options that are given stay as they are. Ctrl-C saves;
    `jlstm resume` goes on.
    """
    _search(config, (file,), trials, minutes, typed)


def sequences(
    file: File,
    *,
    trials: Trials = 30,
    minutes: Minutes = None,
    typed: Typed = (),
    config: Annotated[SequencesConfig, Parameter(name="*")],
    config_file: ConfigFile = None,
) -> None:
    """Search for better options of a labeller of sequences, by validation loss.

    Takes what `jlstm train sequences` takes; options that are given stay as they are. Ctrl-C saves;
    `jlstm resume` goes on.
    """
    _search(config, (file,), trials, minutes, typed)


def note_typed(arguments: "ArgumentCollection") -> None:
    """Fill in ``typed``: what was said, but for what only a run that is gone on from has said."""
    from cyclopts import Token

    run = str(given(arguments, "--from"))
    (typed,) = [argument for argument in arguments if "--typed" in argument.names]
    names = [
        argument.field_info.name
        for argument in arguments
        if any(token.source != run for token in argument.tokens)
    ]
    for n, name in enumerate(names):
        typed.append(Token(value=name, source="typed", index=n))


def _search(
    config: Training,
    files: tuple[Path, ...],
    trials: int,
    minutes: float | None,
    typed: tuple[str, ...],
) -> None:
    from jlstm.runs.search import start
    from jlstm.train.interrupt import terminable

    with terminable():
        folder = start(
            config, *files, fixed=typed, trials=trials, minutes=minutes, say=new_console().print
        )
    go_on(folder)


def go_on(folder: Path, trials: int | None = None, minutes: float | None = None) -> None:
    """Search on in this folder, a line for each trial; then show what was found.

    Args:
        folder: of the search.
        trials: how many there are to be in all; None for as many as before.
        minutes: how long it may take in all; None for as long as before.
    """
    from jlstm.runs import search
    from jlstm.train import interrupt_flag

    console = new_console()
    search.extend(folder, trials=trials, minutes=minutes)
    asked = search.read_search(folder)

    def watch(trial: "Trial", best: "Trial | None") -> None:
        loss = "–" if trial.loss is None else f"{trial.loss:.4f}"
        so_far = "" if best is None else f" (best {best.loss:.4f}, trial {best.number})"
        why = f": {trial.why}" if trial.why else ""
        console.print(
            f"Trial {trial.number}, {trial.number + 1} of {asked.trials}: {loss}{so_far}, "
            f"{trial.status}{why}, {trial.seconds:,.0f} s; {_options(trial.options)}"
        )

    with interrupt_flag() as interrupted:
        found = search.resume(folder, say=console.print, watch=watch, interrupted=interrupted)
    if not found.finished:
        ended = f"{len(found.trials)} trial{'s' * (len(found.trials) != 1)}"
        console.print(
            f"Stopped after {ended}; all of it is saved. To go on:\n  jlstm resume {quoted(folder)}"
        )
        raise KeyboardInterrupt
    if found.winner is None:
        raise ValueError(_nothing_found(folder, found))
    _show(found, console)
    if len(found.trials) < asked.trials:
        console.print(
            f"\nThe {asked.minutes:g} minutes are over after {len(found.trials)} of "
            f"{asked.trials} trials. For more:\n  jlstm resume {quoted(folder)} --minutes …"
        )


def _nothing_found(folder: Path, found: "Outcome") -> str:
    if not found.trials:
        return (
            "--minutes: expected enough for a trial, but none has finished; to go on: jlstm resume "
            f"{folder} --minutes …"
        )
    return f"search: expected a trial that finishes, got none; the last one: {found.trials[-1].why}"


def _show(found: "Outcome", console: Any) -> None:
    """The best trials, the winner on the test part, and how to train it again."""
    from jlstm.runs.trials import ranking

    show_tables([ranking(found.trials, found.score)], console)
    if found.evaluation is not None:
        show_evaluation(found.evaluation, console)
    winner = found.winner.name if found.winner else ""
    left = (
        (winner, "the winner, a run like any other"),
        ("trials.csv", "all trials"),
        ("plots/trials.png", "the same as a picture"),
    )
    show_files(found.folder, left, console)
    console.print(f"\nTo train the winner again:\n  {found.command}")


def _options(options: Any) -> str:
    from jlstm.runs.trials import show_option

    return " ".join(f"{name}={show_option(value)}" for name, value in options.items())
