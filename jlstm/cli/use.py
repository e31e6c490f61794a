"""`jlstm evaluate`, `report`, `predict` and `runs`: what a trained model is for."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jlstm.cli.compare import check_output
from jlstm.cli.options import Count, Run, path_of
from jlstm.cli.screen import new_console, show_evaluation, show_table, watching
from jlstm.files import quoted


def evaluate(
    run: Run,
    file: Annotated[
        Path | None,
        Parameter(
            help="Other data of the same form; by default the part kept back.",
            converter=path_of("FILE"),
        ),
    ] = None,
    *,
    save_forecasts: Annotated[
        Path | None,
        Parameter(
            help="A .parquet file to write every window's forecast into, of a table.",
            converter=path_of("--save-forecasts"),
        ),
    ] = None,
    dynamic: Annotated[
        bool,
        Parameter(
            help="Of a language model: judge it also as it goes on learning from each piece of the "
            "text that it has been judged on, which takes longer.",
            negative="",
        ),
    ] = False,
    refit: Annotated[
        Count | None,
        Parameter(
            help="Of a table: cut the test part into so many stretches, and train the model anew "
            "for each, on all before it."
        ),
    ] = None,
    folds: Annotated[
        Count | None,
        Parameter(
            help="Of sequences: cut them into so many parts, and train the model anew for each, on "
            "the others."
        ),
    ] = None,
) -> None:
    """Judge a trained model beside baselines that need no training.

    With --refit or --folds, so is one that is trained again on other parts of the run's data. Those
    runs are kept in the folder evaluation of the run; Ctrl-C saves, and the same command goes on.
    """
    from jlstm.runs import use

    if save_forecasts is not None:
        for given, other, kind in (
            (dynamic, "--dynamic", "text"),
            (folds is not None, "--folds", "sequences"),
        ):
            if given:
                raise ValueError(
                    f"--save-forecasts, {other}: expected one of them: the first is for models of "
                    f"jlstm train table, the other of jlstm train {kind}"
                )
        check_output("--save-forecasts", save_forecasts, ".parquet")
    console = new_console()
    asked = {"refit": refit, "folds": folds}
    chosen = [(option, count) for option, count in asked.items() if count is not None]
    if not chosen:
        judged = use.evaluate(
            run, file, forecasts=save_forecasts, dynamic=dynamic, say=console.print
        )
        show_evaluation(judged, console)
        return
    beside = ["FILE"] * (file is not None) + ["--dynamic"] * dynamic
    if len(chosen) > 1 or beside:
        options = [f"--{option}" for option, _ in chosen] + beside
        raise ValueError(f"{', '.join(options)}: expected one of them")
    from jlstm.runs.backtest import backtest
    from jlstm.train import interrupt_flag

    ((option, count),) = chosen
    with interrupt_flag() as interrupted, watching(console) as watch:
        found = backtest(
            run,
            count,
            option,
            forecasts=save_forecasts,
            say=console.print,
            watch=watch,
            interrupted=interrupted,
        )
    if found is None:
        again = f"jlstm evaluate {quoted(run)} --{option} {count}"
        if save_forecasts is not None:
            again += f" --save-forecasts {quoted(save_forecasts)}"
        console.print(f"Stopped; all of it is saved. To go on:\n  {again}")
        raise KeyboardInterrupt
    show_evaluation(found, console)


def report(run: Run) -> None:
    """Write the page of a run, report.html, from what its folder holds.

    A training that ends writes it, and so does `jlstm evaluate`. Nothing is computed for it.
    """
    from jlstm.runs.report import write_report

    new_console().print(f"Written: {write_report(run)}")


def predict(
    run: Run,
    file: Annotated[
        Path,
        Parameter(help="A table in the form of the one trained on.", converter=path_of("FILE")),
    ],
    *,
    out: Annotated[Path, Parameter(help="The .csv or .parquet file to write.")] = Path(
        "predictions.csv"
    ),
) -> None:
    """Write forecasts of what follows a table, or labels of its sequences."""
    from jlstm.runs import use

    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out: expected a name that ends in .csv or .parquet, got {out}")
    check_output("--out", out, out.suffix)
    console = new_console()
    use.predict(run, file, out, say=console.print)
    console.print(f"Written: {out}")


def runs(
    folder: Annotated[
        Path, Parameter(help="Where the runs are, or one of them.", converter=path_of("FOLDER"))
    ] = Path("runs"),
) -> None:
    """List the runs: how each stands, its best validation loss, what was asked for."""
    from jlstm.runs.command import typed
    from jlstm.runs.folder import summaries
    from jlstm.tasks.config import key_of

    console = new_console()
    found = summaries(folder)
    if not found:
        console.print(f"There are no runs in {folder}.")
        return
    rows = []
    for one in found:
        best = "–" if one.best_loss is None else f"{one.best_loss:.4f} {one.score}".rstrip()
        options = (f"{key_of(name)}={typed(value)}" for name, value in one.changed.items())
        rows.append((one.folder.name, one.status, f"{one.step:,}", best, " ".join(options)))
    columns = ("run", "status", "step", "best validation", "asked for")
    show_table(columns, rows, console, right=[2], fold=[3, 4])
    for one in found:
        if one.damage:
            console.print(f"{one.folder.name} is damaged: {one.damage}")
