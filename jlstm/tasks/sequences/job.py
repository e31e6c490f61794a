"""The job of labelled sequences: from a table in long format to a model of classes or numbers."""

from jlstm.tasks.sequences.predictions import predict
from jlstm.tasks.sequences.preparing import FILES, prepare
from jlstm.tasks.sequences.results import evaluate
from jlstm.tasks.sequences.training import build

__all__ = ["FILES", "build", "evaluate", "predict", "prepare"]
