"""The job of labelled sequences: from a table in long format to a model of classes or numbers."""

from jlstm.tasks.job import as_trained as ready
from jlstm.tasks.job import no_dynamic as evaluate_dynamic
from jlstm.tasks.job import no_saved_forecasts as check_saving
from jlstm.tasks.job import no_saved_forecasts as save_forecasts
from jlstm.tasks.job import no_text as sample
from jlstm.tasks.sequences.folds import pooled, resplits
from jlstm.tasks.sequences.predictions import predict
from jlstm.tasks.sequences.preparing import ABOUT, FILES, prepare
from jlstm.tasks.sequences.results import evaluate
from jlstm.tasks.sequences.training import build, template

__all__ = [
    "ABOUT", "FILES", "RESPLIT", "build", "check_saving", "evaluate", "evaluate_dynamic",
    "pooled", "predict", "prepare", "ready", "resplits", "sample", "save_forecasts", "template",
]  # fmt: skip

RESPLIT = "folds"
