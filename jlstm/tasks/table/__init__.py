"""Forecasts of the columns of a table: series, the model, measures, the job and its report."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
