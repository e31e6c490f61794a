"""The training run on labelled sequences, and the arithmetic behind its steps."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jlstm.layers import Stack
from jlstm.tasks.frame import counted
from jlstm.tasks.job import Job, count_steps
from jlstm.tasks.running import runner_over_devices
from jlstm.tasks.sequences.batch import SequenceBatch
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import (
    PARTS,
    Chosen,
    bucket_lengths,
    cut_batches,
    pad,
    padded_share,
)
from jlstm.tasks.sequences.model import (
    Labeller,
    LabellerConfig,
    init_labeller,
    label_count,
    labeller_loss,
)
from jlstm.tasks.sequences.preparing import Prepared, Schema, load, load_schema, places_of_targets
from jlstm.train import make_evaluate

EPOCHS = 80
"""Of a training, where none are asked for."""
COMPILING = 200_000
"""Steps of sequences that are trained on in the time in which a program is compiled, about."""
FEW = 100
"""Sequences of validation below which chance has a large part in what is best."""


def make_stack(config: SequencesConfig) -> Stack:
    """The layers as configured."""
    return Stack(
        sizes=(config.hidden,) * config.layers,
        bidirectional=config.bidirectional,
        input_dropout=config.input_dropout,
        dropout=config.dropout,
    )


def batch_size(config: SequencesConfig, sequences: int) -> int:
    """Places in a batch: as configured, but no more than there are sequences."""
    return min(config.batch, max(1, sequences))


def model_config(config: SequencesConfig, schema: Schema) -> LabellerConfig:
    """The model for such a table."""
    return LabellerConfig(
        inputs=schema.width,
        outputs=max(1, len(schema.labels)),
        stack=make_stack(config),
        pooled=config.task != "tag",
        dropout=config.dropout,
        smoothing=config.smoothing,
    )


def template(config: SequencesConfig, folder: Path) -> Labeller:
    """The shapes and dtypes of the parameters, as ``jax.eval_shape`` gives them."""
    return _template(model_config(config, load_schema(folder)))


def _template(model: LabellerConfig) -> Labeller:
    shapes: Labeller = jax.eval_shape(lambda key: init_labeller(key, model), jax.random.key(0))
    return shapes


def build(config: SequencesConfig, folder: Path) -> Job:
    """The training run on what ``prepare`` wrote.

    Raises:
        OSError, ValueError: the folder is not what ``prepare`` left.
    """
    prepared = load(config, folder)
    schema, data, _ = prepared
    train, validation = prepared.part("train"), prepared.part("validation")
    lengths, size = data.lengths, batch_size(config, len(train))
    full = -(-len(train) // size)
    turns = count_steps(config, full, EPOCHS) / full
    bounds = bucket_lengths(lengths[train], max(1, config.buckets - 1), size, COMPILING / turns)
    model = model_config(config, schema)
    run, devices = runner_over_devices(config.implementation, size)
    loss = partial(labeller_loss, model, run=run)

    @lru_cache(maxsize=2)
    def batches_of(epoch: int) -> list[Chosen]:
        return cut_batches(lengths, train, bounds, size, seed=(config.seed, epoch))

    epoch = len(batches_of(0))
    steps = count_steps(config, epoch, EPOCHS)
    key = jax.random.key(config.seed)

    def make(n: int) -> SequenceBatch:
        chosen = batches_of(n // epoch)[n % epoch]
        return pad(data, chosen, size, jax.random.fold_in(key, n))

    judge = make_evaluate(loss, label_count)
    held_out = cut_batches(lengths, validation, [int(lengths[validation].max())], size)

    def validate(params: Any) -> float:
        return judge(params, None, (pad(data, chosen, size) for chosen in held_out))

    score = "squared error, scaled"
    if schema.labels:
        score = "nats per step" if config.task == "tag" else "nats per sequence"
        score += ", smoothed" if config.smoothing else ""
        score += ", classes balanced" if config.class_weights == "balanced" else ""
    return Job(
        init=lambda key: init_labeller(key, model),
        template=_template(model),
        loss=loss,
        batch=make,
        steps=steps,
        epoch=epoch,
        validate=validate,
        score=score,
        unit="sequences",
        per_step=lambda batch: float((batch.lengths > 0).sum()),
        devices=devices,
        about=_about(config, prepared, bounds, batches_of(0), held_out, steps),
    )


def _about(
    config: SequencesConfig,
    prepared: Prepared,
    bounds: Sequence[int],
    batches: Sequence[Chosen],
    held_out: Sequence[Chosen],
    steps: int,
) -> list[str]:
    """The arithmetic from the table to the steps."""
    schema, data, _ = prepared
    sizes = {name: len(prepared.part(name)) for name in PARTS}
    train, validation = prepared.part("train"), prepared.part("validation")
    lengths = data.lengths[train]
    size = batch_size(config, len(train))
    share = padded_share(data.lengths, batches, size)
    features = ", ".join(f.name for f in schema.features[:8])
    about = [
        f"{counted(schema.rows, 'row')} of {schema.file} are {len(prepared.parts):,} sequences: "
        + ", ".join(f"{size:,} for {name}" for name, size in sizes.items())
        + ("." if config.split is None else f", as the column {config.split!r} says."),
        f"{counted(len(schema.features), 'feature')} ({features}"
        f"{', …' if len(schema.features) > 8 else ''}), {counted(schema.width, 'number')} at each "
        "step.",
        (
            f"All sequences for training have length {bounds[0]:,}; "
            if lengths.min() == lengths.max()
            else f"{_spans(lengths, bounds)}: {share:.1%} of the steps are padding; "
        )
        + f"{_compilations(batches)} to compile for training, {_compilations(held_out)} for "
        "validation.",
        f"{counted(len(train), 'sequence')} in batches of up to {size:,} are "
        f"{counted(len(batches), 'step')} an epoch, {counted(steps, 'step')} in all.",
        *schema.notes,
    ]
    if schema.labels:
        true = data.targets[places_of_targets(config, data, train)]
        counts = np.bincount(true, minlength=len(schema.labels))
        about.append(
            f"{len(schema.labels)} classes; of {len(true):,} labels in the training part, "
            f"{counts.max():,} are {schema.labels[int(counts.argmax())]!r}."
        )
    if len(validation) < FEW:
        about.append(
            f"The validation part has {counted(len(validation), 'sequence')} only: the best "
            "parameters are those with the least loss, the earliest where two are equal, and some "
            "of it is luck."
        )
    return about


def _spans(lengths: Int[np.ndarray, " n"], bounds: Sequence[int]) -> str:
    padded = ", ".join(f"{bound:,}" for bound in bounds)
    return f"Lengths from {lengths.min():,} to {lengths.max():,} are padded to {padded}"


def _compilations(batches: Sequence[Chosen]) -> str:
    return counted(len({chosen.time for chosen in batches}), "program")
