"""What a training of a language model can be asked for."""

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from jlstm.checks import check_choice, check_flag, check_number, check_size, wrong
from jlstm.tasks.config import MOST_LAYERS, Range, Space, Training


@dataclass(frozen=True, kw_only=True)
class TextConfig(Training):
    """A language model, trained on texts.

    Raises:
        TypeError, ValueError: an option of another type or out of range.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "tokens", "vocabulary", "embedding", "hidden", "layers", "tied",
    )  # fmt: skip
    space: ClassVar[Space] = {
        "learning_rate": Range(1e-3, 2e-2, log=True),
        "hidden": (128, 256, 512, 768),
        "layers": (1, 2, 3),
        "embedding": (32, 64, 128),
        "dropout": Range(0.0, 0.6),
        "output_dropout": Range(0.0, 0.6),
        "weight_dropout": Range(0.0, 0.5),
        "weight_decay": Range(1e-4, 0.3, log=True),
    }

    learning_rate: float = 4e-3
    """The highest; it rises from 0 and falls to 0 along a cosine (for sgd, to a hundredth)."""
    weight_decay: float = 0.1
    """Part of each weight taken off per step, times the learning rate."""
    tokens: Literal["byte", "char", "word"] = "char"
    """What is predicted: bytes, characters of UTF-8, or words (a line's end is one, too)."""
    vocabulary: int = 20_000
    """At most so many different tokens are told apart, the most frequent ones; others are one."""
    validation: float = 0.05
    """Part of the text, its beginning, that chooses the best parameters."""
    test: float = 0.1
    """Part of the text, its end, looked at only by the final evaluation."""
    streams: int = 32
    """Pieces of the text that are read side by side: the batch."""
    time: int = 128
    """Tokens through which a gradient goes back in time; what is remembered goes on further."""
    embedding: int = 64
    """Features that stand for a token."""
    hidden: int = 512
    """Units of each layer."""
    layers: int = 2
    """Layers of the LSTM."""
    tied: bool = False
    """Whether the embedding is also the readout; the last layer then has as many units."""
    embedding_dropout: float = 0.0
    """Part of the tokens whose embedding is left out, wherever they occur in a window."""
    input_dropout: float = 0.0
    """Part of the embedded features left out."""
    dropout: float = 0.2
    """Part of the features left out between layers."""
    output_dropout: float = 0.4
    """Part of the last layer's features left out."""
    weight_dropout: float = 0.0
    """Part of the recurrent weights left out."""
    recurrent_dropout: float = 0.0
    """Part of what enters the cells' memory that is left out, at each step."""
    zoneout: float = 0.0
    """Part of the cells' memory that stays as it was, at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("tokens", self.tokens, ("byte", "char", "word"))
        for name in ("streams", "time", "embedding", "hidden"):
            check_size(name, getattr(self, name))
        check_size("layers", self.layers, most=MOST_LAYERS)
        check_size("vocabulary", self.vocabulary, 2)
        if self.tokens == "byte" and self.vocabulary != TextConfig.vocabulary:
            raise wrong(
                "tokens, vocabulary",
                f"expected no size of the vocabulary for bytes, of which there are 256, got "
                f"{self.vocabulary}",
            )
        for name in ("validation", "test"):
            check_number(name, getattr(self, name), above=0, below=1)
        if self.validation + self.test >= 1:
            raise wrong(
                "validation, test",
                f"expected to leave something to train on, got {self.validation} + {self.test}",
            )
        check_flag("tied", self.tied)
        for field in fields(self):
            if "dropout" in field.name or field.name == "zoneout":
                check_number(field.name, getattr(self, field.name), least=0, below=1)
