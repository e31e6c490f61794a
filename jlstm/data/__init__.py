"""Data as NumPy arrays: texts cut into batches, and the simple models that a network must beat."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
