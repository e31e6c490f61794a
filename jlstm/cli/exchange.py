"""`jlstm export` and `import`: a trained model for elsewhere, and what comes from there."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jlstm.cli.options import Run
from jlstm.cli.screen import new_console
from jlstm.tasks.config import Target


def export(
    run: Run,
    *,
    to: Annotated[Target, Parameter(help="What the other side reads.")],
    out: Annotated[
        Path | None,
        Parameter(help="The folder to make; by default here, named after the run and the target."),
    ] = None,
) -> None:
    """Write a trained model for use without jlstm, with all that is needed, into one folder.

    Beside the model are its scales, vocabulary and columns as JSON, an example, and a script that
    runs the model on it.
    """
    from jlstm.exporting import export

    console = new_console()
    out = Path(f"{run.resolve().name}-{to}") if out is None else out
    export(run, to, out, say=console.print)
    console.print(f"Written: {out}. To try it: python {out / 'use_it.py'}")


def look(file: Annotated[Path, Parameter(help="The file.")]) -> None:
    """Say which LSTMs there are in a file of weights, and how to load them.

    Files of jlstm, PyTorch (.safetensors, .pt), Keras (.weights.h5), ONNX and StableHLO.
    """
    from jlstm.interop.looking import look

    console = new_console()
    for found in look(file):
        console.print(f"{found.what}\n")
        for line in found.code:
            console.print(f"    {line}")
        console.print()
