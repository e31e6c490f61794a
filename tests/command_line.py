"""The command line, run in the process of the tests."""

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple

import pytest

from jlstm.cli.main import main


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments):
    """Run the command line: its status, and what it printed."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return Ended(ended.value.code, out.getvalue(), err.getvalue())


def said(*arguments):
    """What it prints where nothing is wrong."""
    ended = command(*arguments)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def mistake(*arguments):
    """The line in which it ends."""
    ended = command(*arguments)
    assert ended.status == 2
    assert ended.err.startswith("jlstm: ")
    assert ended.err.count("\n") == 1
    return ended.err
