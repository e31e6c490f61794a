"""LSTMs of other frameworks and formats, to ours and back: one file for each.

All are alike. ``from_<x>(…)`` takes plain arrays, named and laid out as the other side has them,
and gives ``(Stack, params)``: what the weights say, and what they do not say (activations) by an
argument ``gates``. ``to_<x>(stack, params)`` goes back. No framework is imported. Arrays are
NumPy's and keep their dtype; JAX takes them as they are.

Weights are moved, not training: what is drawn at random there (dropout) is not in them, and has to
be said again on the other side. What the other side cannot compute is refused with the reason.
"""

from types import ModuleType

from jlstm.extras import file_in


def __getattr__(name: str) -> ModuleType:
    return file_in(__name__, name)
