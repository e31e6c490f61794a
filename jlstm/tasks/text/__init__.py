"""Language models: texts as tokens, the model, the baselines, the job and its report."""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
