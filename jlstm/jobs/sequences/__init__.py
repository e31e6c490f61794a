"""The job of labelled sequences: from a table in long format to a model of classes or numbers."""

from jlstm.jobs.sequences.predictions import predict
from jlstm.jobs.sequences.preparing import FILES, prepare
from jlstm.jobs.sequences.results import evaluate
from jlstm.jobs.sequences.training import build

__all__ = ["FILES", "build", "evaluate", "predict", "prepare"]
