"""The life of a run: its folder, how it is trained and resumed, and how its model is used."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
