"""`jlstm evaluate`, `predict` and `runs`: what a trained model is for."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jlstm.cli.compare import check_output
from jlstm.cli.options import Run, path_of
from jlstm.cli.screen import new_console, show_evaluation, show_table


def evaluate(
    run: Run,
    file: Annotated[
        Path | None,
        Parameter(
            help="Other data of the same form; by default the part kept back.",
            converter=path_of("FILE"),
        ),
    ] = None,
) -> None:
    """Judge a trained model beside baselines that need no training."""
    from jlstm.runs import use

    console = new_console()
    show_evaluation(use.evaluate(run, file, say=console.print), console)


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
    from jlstm.runs.folder import summaries

    console = new_console()
    found = summaries(folder)
    if not found:
        console.print(f"There are no runs in {folder}.")
        return
    rows = []
    for one in found:
        best = "–" if one.best_loss is None else f"{one.best_loss:.4f} {one.score}".rstrip()
        options = (
            f"{name.strip('_')}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in one.changed.items()
        )
        rows.append((one.folder.name, one.status, f"{one.step:,}", best, " ".join(options)))
    columns = ("run", "status", "step", "best validation", "asked for")
    show_table(columns, rows, console, right=[2], fold=[3, 4])
    for one in found:
        if one.damage:
            console.print(f"{one.folder.name} is damaged: {one.damage}")
