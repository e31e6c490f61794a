"""The command `jlstm`: its commands by name, and how it ends when something goes wrong."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from jlstm.extras import MissingExtraError, require

if TYPE_CHECKING:
    from cyclopts import App, UnknownOptionError
    from cyclopts.argument import ArgumentCollection


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, those of the process if None, and exit.

    The exit status is 0, or 2 after a user's mistake and 130 after an interrupt, either told in
    one line on stderr. More than the machine has, memory or a device, counts as a mistake. Where
    whoever reads the output has gone (``| head``) it is 141, as after SIGPIPE, and nothing is said.
    Any other exception is a fault of the program and keeps its traceback.
    """
    try:
        app = build_app()
    except MissingExtraError as error:
        sys.exit(_complain(error))
    run(app, arguments)


def run(app: "App", arguments: Sequence[str] | None, name: str = "jlstm") -> None:
    """Run a command line of cyclopts and exit; ``name`` stands before what goes wrong."""
    from cyclopts import CycloptsError, UnknownOptionError, UnusedCliTokensError

    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python writes out what is left when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or [])
        sys.exit(_complain(f"unexpected argument: {unused} (every option goes by its name)", name))
    except UnknownOptionError as error:
        sys.exit(_complain(_unknown(error), name))
    except (CycloptsError, ValueError, TypeError, OSError, MissingExtraError) as error:
        sys.exit(_complain(error, name))
    except (OverflowError, FloatingPointError, MemoryError) as error:
        sys.exit(_complain(error if str(error) else "out of memory", name))
    except (RuntimeError, AssertionError) as error:
        if not _comes_from_the_machine(error):
            raise
        sys.exit(_complain(error if str(error) else "JAX found no device; see JAX_PLATFORMS", name))
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def build_app() -> "App":
    """The command line with nothing but names and one-line descriptions loaded.

    Raises:
        MissingExtraError: a package of the extra ``cli`` is not installed.
    """
    for package in ("rich", "cyclopts"):
        require(package, "cli")
    from cyclopts import App, Parameter

    from jlstm.cli.options import as_typed

    app = App(
        name="jlstm",
        help="The LSTM for JAX, with a hand-derived backward pass.",
        version=_version,
        version_format="plaintext",
        suppress_keyboard_interrupt=False,  # main has its own word for it
    )
    for name, what in (
        ("train", "Train a model on a file of yours."),
        ("tune", "Train many, and find better options by validation."),
    ):
        group = App(
            name=name,
            help=what,
            default_parameter=Parameter(converter=as_typed, negative_iterable=()),
            config=(_from_file, _taken_over),  # what comes first has more to say
        )
        for kind, model in (
            ("text", "A language model, on texts."),
            ("table", "Forecasts, on a table with a row for each time."),
            ("sequences", "Labels, on a table with a row for each step of each sequence."),
        ):
            group.command(f"jlstm.cli.{name}:{kind}", name=kind, help=model)
        app.command(group)
    for home, name, what in (
        (
            "train:resume",
            "resume",
            "Go on with a training that was stopped, or make a finished one longer.",
        ),
        ("use:evaluate", "evaluate", "Judge a trained model beside baselines."),
        ("use:predict", "predict", "Write forecasts, or labels."),
        ("sample:sample", "sample", "Let a language model write."),
        ("use:report", "report", "Write the page of a run, report.html, anew."),
        ("use:runs", "runs", "List the runs and how each stands."),
        ("exchange:export", "export", "Write a trained model for use without jlstm."),
        ("exchange:look", "import", "Say what a file of weights could become, and how."),
        ("demo:demo", "demo", "Train a model on real data that is at hand, and judge it."),
        ("compare:compare", "compare", "Measure the hand-derived rules against autodiff."),
    ):
        app.command(f"jlstm.cli.{home}", name=name, help=what)
    return app


def _from_file(app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """What a file says of the options, once there are arguments to parse."""
    from jlstm.cli.train import from_file

    from_file(app, commands, arguments)


def _taken_over(app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """What a run that is gone on from says of the options, once there are arguments to parse."""
    from jlstm.cli.train import taken_over

    taken_over(app, commands, arguments)
    if "tune" in commands:
        from jlstm.cli.tune import note_typed

        note_typed(arguments)


def _version() -> str:
    """The version, and whether the native kernel is in use."""
    from jlstm.kernels import native

    return f"jlstm {metadata.version('jlstm')}\nnative kernel: {native.status()}"


def _comes_from_the_machine(error: Exception) -> bool:
    """Whether it was JAX's runtime that failed, for want of memory, say, or that has no device."""
    jax = sys.modules.get("jax")
    if jax is None:  # nothing imported it: `--help` need not wait for it
        return False
    if isinstance(error, jax.errors.JaxRuntimeError):
        return True
    try:
        jax.devices()  # only looks where there is one, and fails as before where there is none
    except (RuntimeError, AssertionError):
        return True
    return False


def _unknown(error: "UnknownOptionError") -> str:
    """That there is no such option, and which one it could be, if there is one much like it."""
    typed = (error.token.keyword or error.token.value).partition("=")[0]
    names = [name for argument in error.argument_collection for name in argument.names]
    near = difflib.get_close_matches(typed, names, 1, 0.75)
    return f"Unknown option: {typed}." + (f" Did you mean {near[0]}?" if near else "")


def _complain(error: Exception | str, name: str = "jlstm") -> int:
    """Say in one line what was wrong; the exit status for it."""
    from jlstm.checks import options_of, renamed  # with NumPy, which `--help` need not wait for

    said = str(error)
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str | bytes):
        said = f"{os.fsdecode(error.filename)}: {error.strerror}"  # without Python's numbers
    if isinstance(error, Exception) and options_of(error):
        said = renamed(error, typed_as)
    print(f"{name}:", " ".join(said.split()), file=sys.stderr)
    return 2


def typed_as(name: str) -> str:
    """An option as it is typed: ``--learning-rate``, or ``FILE`` for what goes by its place."""
    if name in ("run", "file", "files", "folder"):
        return name.upper()
    from jlstm.tasks.config import flag

    return flag(name)
