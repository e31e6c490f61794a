"""Models: an LSTM, what leads into it, what is read from it, and the loss that trains them."""

from jlstm.models.language import (
    LanguageModel,
    TokenBatch,
    init_language_model,
    language_model_loss,
    logits,
    sample,
    token_count,
)

__all__ = [
    "LanguageModel",
    "TokenBatch",
    "init_language_model",
    "language_model_loss",
    "logits",
    "sample",
    "token_count",
]
