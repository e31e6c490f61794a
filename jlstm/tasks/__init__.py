"""The three kinds of task, each in a folder of its own, and beside them what they share."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
