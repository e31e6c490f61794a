"""What a model is worth: measures and baselines, in NumPy."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
