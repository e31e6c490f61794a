"""Models: an LSTM, what leads into it, what is read from it, and the loss that trains them."""

from jlstm.models.forecaster import (
    Forecaster,
    ForecasterConfig,
    WindowBatch,
    forecast,
    forecaster_loss,
    init_forecaster,
)
from jlstm.models.labeller import (
    Labeller,
    SequenceBatch,
    init_labeller,
    label_count,
    label_scores,
    labeller_loss,
)
from jlstm.models.language import (
    LanguageModel,
    TokenBatch,
    init_language_model,
    language_model_loss,
    likeliest,
    logits,
    sample,
    token_count,
)

__all__ = [
    "Forecaster",
    "ForecasterConfig",
    "Labeller",
    "LanguageModel",
    "SequenceBatch",
    "TokenBatch",
    "WindowBatch",
    "forecast",
    "forecaster_loss",
    "init_forecaster",
    "init_labeller",
    "init_language_model",
    "label_count",
    "label_scores",
    "labeller_loss",
    "language_model_loss",
    "likeliest",
    "logits",
    "sample",
    "token_count",
]
