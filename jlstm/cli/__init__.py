"""The command line: parse, wire, print. One file per command, each imported when it is run."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
