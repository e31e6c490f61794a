"""Language models: texts of any size, read token by token.

The files become one array of tokens on disk, cut in time order into a part to train on, one to
validate on and one to test on (``tokens.py``). A training step reads one window of every
stream and goes on with the carry of the one before; a pass begins with the first carry of the
layers, and so does, now and then, a stream within it. With V the vocabulary, the model is::

    tokens ─► embedding [V, embedding] ─► stack of LSTMs ─► readout [·, V] ─► softmax

and the score is the mean of −log p of the next token. So that models of different tokens can be
compared it is also given per character and per byte: Σ −log₂ p over all tokens, divided by how many
characters or bytes these tokens are.
"""

from jlstm.tasks.job import as_trained as ready
from jlstm.tasks.job import no_forecast as predict
from jlstm.tasks.job import no_resplits as pooled
from jlstm.tasks.job import no_resplits as resplits
from jlstm.tasks.job import no_saved_forecasts as check_saving
from jlstm.tasks.job import no_saved_forecasts as save_forecasts
from jlstm.tasks.text.preparing import ABOUT, FILES, prepare
from jlstm.tasks.text.results import evaluate, evaluate_dynamic
from jlstm.tasks.text.training import build, template
from jlstm.tasks.text.writing import sample

__all__ = [
    "ABOUT", "FILES", "RESPLIT", "build", "check_saving", "evaluate", "evaluate_dynamic",
    "pooled", "predict", "prepare", "ready", "resplits", "sample", "save_forecasts", "template",
]  # fmt: skip

RESPLIT = ""
