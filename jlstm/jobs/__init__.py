"""From a user's file to a trained model: what is asked for, prepared, trained, judged and kept."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
