"""The training run on a text: its model, its batches, and the arithmetic behind its steps."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jlstm.devices import place
from jlstm.equations import PLAIN
from jlstm.layers import Stack, init_stack_carry
from jlstm.tasks.job import Job, count_steps, show_ratio
from jlstm.tasks.running import runner_over_devices
from jlstm.tasks.text.batch import TokenBatch
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import (
    LanguageModel,
    LanguageModelConfig,
    init_language_model,
    language_model_loss,
    token_count,
)
from jlstm.tasks.text.preparing import NAMES, Data, load
from jlstm.tasks.text.tokens import UNKNOWN
from jlstm.tasks.text.windows import (
    RESTART,
    Tokens,
    evaluation_windows,
    training_window,
    windows_per_pass,
)
from jlstm.train import make_evaluate
from jlstm.variants import Variant

EPOCHS = 15
"""Of a training, where none are asked for."""
CONTEXT = 256
"""Tokens that each stream of an evaluation reads before those that count."""
READ = 1 << 24
"""Scores that an evaluation computes at once: 64 MB of them."""
NOISE = 0x6E6F6973
"""Parts the keys of what is random in training from those of the parameters."""


def make_stack(config: TextConfig) -> Stack:
    """The layers that a configuration asks for."""
    gates = PLAIN
    if config.recurrent_dropout or config.zoneout:
        gates = Variant(recurrent_dropout=config.recurrent_dropout, zoneout_c=config.zoneout)
    last = config.embedding if config.tied else config.hidden
    return Stack(
        sizes=(*[config.hidden] * (config.layers - 1), last),
        gates=gates,
        input_dropout=config.input_dropout,
        dropout=config.dropout,
        output_dropout=config.output_dropout,
    )


def model_config(config: TextConfig, size: int) -> LanguageModelConfig:
    """The model of so many tokens that a configuration asks for."""
    return LanguageModelConfig(
        vocabulary=size,
        embedding=config.embedding,
        stack=make_stack(config),
        tied=config.tied,
        embedding_dropout=config.embedding_dropout,
        weight_dropout=config.weight_dropout,
    )


def template(config: TextConfig, folder: Path) -> LanguageModel:
    """The shapes and dtypes of the parameters, as ``jax.eval_shape`` gives them.

    Raises:
        OSError, ValueError: the folder is not what ``prepare`` left.
    """
    path = folder / "data/text.json"
    try:
        size = json.loads(path.read_text("utf-8"))["vocabulary"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what jlstm wrote there, got: {error}") from None
    return _template(model_config(config, size))


def _template(model: LanguageModelConfig) -> LanguageModel:
    shapes: LanguageModel = jax.eval_shape(
        lambda key: init_language_model(key, model), jax.random.key(0)
    )
    return shapes


def build(config: TextConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote."""
    data = load(folder)
    model = model_config(config, len(data.vocabulary))
    run, devices = runner_over_devices(config.implementation, config.streams)
    training = data.tokens["training"]
    cut: dict[str, Any] = {"streams": config.streams, "time": config.time}
    noise = jax.random.fold_in(jax.random.key(config.seed), NOISE)

    def batch(n: int) -> TokenBatch:
        window = training_window(training, n, **cut, seed=config.seed)
        return window._replace(key=jax.random.fold_in(noise, n))

    epoch = windows_per_pass(len(training), **cut)
    steps = count_steps(config, epoch, EPOCHS)
    template = _template(model)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template))
    unit = NAMES[config.tokens]
    return Job(
        init=lambda key: init_language_model(key, model),
        template=template,
        loss=partial(language_model_loss, model, run=run),
        batch=batch,
        steps=steps,
        epoch=epoch,
        validate=make_judge(config, model, data.tokens["validation"]),
        score=f"nats per {unit}",
        unit=f"{unit}s",
        per_step=token_count,
        carry=lambda params: init_stack_carry(model.stack, params.lstm, config.streams),
        devices=devices,
        about=_about(config, data, epoch, steps, parameters, devices),
    )


def _about(
    config: TextConfig, data: Data, epoch: int, steps: int, parameters: int, devices: int
) -> Sequence[str]:
    """The arithmetic from the files to the steps."""
    unit, size, parts = NAMES[config.tokens], len(data.vocabulary), data.parts
    count, read = len(data.files), sum(file["bytes"] for file in data.files)
    widths = [size, config.embedding, *(cell.size for cell in make_stack(config).cells), size]
    lines = [
        f"Text: {count} file{'s' * (count > 1)}, {read:,} bytes: the first "
        f"{parts['validation'].tokens:,} {unit}s to validate on, the next "
        f"{parts['training'].tokens:,} to train on, the last {parts['test'].tokens:,} to test on.",
        f"Vocabulary: {size:,} {unit}s.",
        f"Windows: {config.streams} streams × {config.time} {unit}s; {epoch:,} of them go through "
        f"the training text once, {steps:,} steps {show_ratio(steps / epoch)} times. What a stream "
        f"remembers is forgotten every {RESTART:,} {unit}s on average.",
        f"Model: {' → '.join(map(str, widths))}{', tied' * config.tied}, {parameters:,} "
        f"parameters, on {devices} device{'s' * (devices > 1)}.",
    ]
    if data.vocabulary.unknown is not None:
        shares = ", ".join(f"{part.unknown / part.tokens:.2%} {p}" for p, part in parts.items())
        lines[1] = f"Vocabulary: {size:,} {unit}s, {UNKNOWN} among them. Unknown: {shares}."
    return lines


def make_judge(
    config: TextConfig, model: LanguageModelConfig, text: Tokens
) -> Callable[[Any], float]:
    """Parameters to the mean nats per token of a text, every token but the first counted once.

    How it is cut follows from the text alone, so that no choice made for training has an influence.
    """
    streams = 2 ** min(6, max(1, len(text) // 1024).bit_length() - 1)  # few in a short text
    time = min(256, max(1, READ // (streams * model.vocabulary)))
    run, count = runner_over_devices(config.implementation, streams)
    devices = jax.devices()[:count]
    mean = make_evaluate(partial(language_model_loss, model, run=run), token_count)

    def judge(params: LanguageModel) -> float:
        params = place(params, devices=devices)
        carry = place(init_stack_carry(model.stack, params.lstm, streams), 0, devices)
        windows = evaluation_windows(text, streams=streams, time=time, context=CONTEXT)
        return mean(params, carry, windows)

    return judge
