"""Dynamic evaluation: a language model that goes on learning from the text it is judged on.

The text is read once, in order, in windows of T tokens. What a window costs is counted first; then
its gradient changes the parameters, for the windows that follow::

    L_n = the mean of −log p over window n, with θ_n
    θ_{n+1} = θ_n − η·g/max(1, ‖g‖),      g = ∂L_n/∂θ

So each token is foretold from what stands before it alone: by the memory, as always, and by
parameters that have learnt from it (Mikolov et al. 2010; Krause et al. 2018). The model of the run
stays as it is. It takes a training step for each T tokens, one after the other, and is an option
for that reason.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import optax

from jlstm.layers import init_stack_carry
from jlstm.tasks.running import Run
from jlstm.tasks.text.batch import TokenBatch
from jlstm.tasks.text.model import (
    LanguageModel,
    LanguageModelConfig,
    language_model_loss,
    token_count,
)
from jlstm.tasks.text.windows import Tokens, evaluation_windows
from jlstm.train import init_train_state, make_train_step
from jlstm.train.step import LossFn

TIME = 32
"""T: tokens from one change of the parameters to the next."""
RATES = (0.0, 0.02, 0.05, 0.1, 0.2)
"""η, one of which is chosen by the part of the text for validation; 0: nothing is learnt."""
CHOSEN_ON = 20_000
"""Tokens of that part, its first, at most."""


class Learning(NamedTuple):
    """What a model reaches that goes on learning."""

    nats: float
    """The mean of −log p over the text, every token but the first counted once."""
    rate: float
    """η."""


def evaluate_learning(
    config: LanguageModelConfig,
    params: LanguageModel,
    validation: Tokens,
    text: Tokens,
    *,
    run: Run,
) -> Learning:
    """The model on a text, learning from it as it goes on.

    Args:
        config: what the model is made of.
        params: its parameters, at which it begins.
        validation: what the rate is chosen on: the one with the least loss.
        text: what it is judged on, at least two tokens.
        run: what runs the stack.
    """
    loss = partial(language_model_loss, config, run=run)
    carry = init_stack_carry(config.stack, params.lstm, 1)

    def judge(text: Tokens, rate: float) -> float:
        windows = evaluation_windows(text, time=TIME)
        return learning_loss(loss, params, carry, windows, rate)

    rate = min(RATES, key=partial(judge, validation[:CHOSEN_ON]))
    return Learning(judge(text, rate), rate)


def learning_loss(
    loss: LossFn, params: Any, carry: Any, windows: Iterable[TokenBatch], rate: float
) -> float:
    """The mean loss over windows, each judged by parameters that have learnt from those before.

    Args:
        loss: ``(params, carry, window) -> (mean loss, carry)``.
        params: those that the first window is judged by.
        carry: the first.
        windows: in the order of the text; ``token_count`` says what their means are taken over.
        rate: η.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))
    step = make_train_step(loss, optimizer)
    state = init_train_state(params, optimizer, carry)
    losses, counts = [], []
    for window in windows:
        state, metrics = step(state, window)
        losses.append(metrics["loss"])  # of the parameters before this step
        counts.append(token_count(window))
    return math.fsum(n * float(x) for n, x in zip(counts, losses, strict=True)) / math.fsum(counts)
