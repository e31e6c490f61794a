"""Forecasts of the columns of a table: prepared, trained, judged by rolling origin, and used.

Every target of every series is a sample of its own, so that all of them train one model; a learned
embedding tells them apart. The model is judged on every window of the test part, one for each
origin, without being trained again on the way; and so, on the same windows, are the baselines of
``jlstm.tasks.table.measures``. Errors *in standard deviations* are divided by that of their target
in the training part.
"""

from jlstm.tasks.job import no_dynamic as evaluate_dynamic
from jlstm.tasks.job import no_text as sample
from jlstm.tasks.table.calibrating import ready
from jlstm.tasks.table.forecasts import predict
from jlstm.tasks.table.origins import pooled, resplits
from jlstm.tasks.table.preparing import ABOUT, FILES, prepare
from jlstm.tasks.table.results import evaluate
from jlstm.tasks.table.saving import check_saving, save_forecasts
from jlstm.tasks.table.training import build, template

__all__ = [
    "ABOUT", "FILES", "RESPLIT", "build", "check_saving", "evaluate", "evaluate_dynamic",
    "pooled", "predict", "prepare", "ready", "resplits", "sample", "save_forecasts", "template",
]  # fmt: skip

RESPLIT = "refit"
