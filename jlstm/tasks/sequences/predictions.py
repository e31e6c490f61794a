"""What the model says of sequences: its scores, and a file of labels made of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from jlstm.extras import require
from jlstm.tasks.frame import check_ending, rounded, write_table
from jlstm.tasks.running import runner_over_devices
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.labelled import (
    Sequences,
    bucket_lengths,
    cut_batches,
    encode,
    group_rows,
    pad,
    places,
)
from jlstm.tasks.sequences.model import label_scores
from jlstm.tasks.sequences.preparing import Schema, load_schema, places_of_targets, read
from jlstm.tasks.sequences.training import COMPILING, batch_size, model_config


def find_scores(
    config: SequencesConfig,
    schema: Schema,
    params: Any,
    data: Sequences,
    chosen: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, "items outputs"]:
    """The scores of the chosen sequences, or of their steps, in their order, float64."""
    size = batch_size(config, len(chosen))
    layers, _ = runner_over_devices(config.implementation, size)
    run = jax.jit(partial(label_scores, model_config(config, schema), run=layers))
    params = jax.tree.map(jnp.asarray, params)
    lengths = data.lengths
    bounds = bucket_lengths(lengths[chosen], config.buckets, size, COMPILING)
    found: np.ndarray = np.empty((len(data.targets), params.readout.shape[1]))
    for one in cut_batches(lengths, chosen, bounds, size):
        batch = pad(data, one, size)
        given = np.asarray(run(params, batch.xs, batch.lengths), np.float64)
        if data.by_step:
            at, valid = places(data, one, size)
            found[at[valid]] = given[valid]
        else:
            found[one.sequences] = given[: len(one.sequences)]
    scores: np.ndarray = found[places_of_targets(config, data, chosen)]
    return scores


def predict(
    config: SequencesConfig, folder: Path, params: Any, file: Path, out: Path
) -> Sequence[str]:
    """Label the sequences of a file; the column with the labels need not be there.

    A row for each sequence, in the order in which they first occur, or, for tags, for each step, in
    the order of the file: the id (and the time), ``predicted``, and for classes their probabilities
    in columns named ``p_<class>``. Numbers have the decimals that the standard deviation of the
    training part has in four digits, see ``rounded``.

    Args:
        config: of the run.
        folder: of the run.
        params: of the model.
        file: a table of the form that the model was trained on.
        out: a .csv or .parquet file, there as a whole or not at all.

    Returns:
        What to say of it.

    Raises:
        ValueError: the file is no table of this form, or ``out`` ends in something else.
        OSError: a file cannot be read or written.
    """
    pl = require("polars", "train")
    check_ending(out)
    schema = load_schema(folder)
    frame = read(config, file)
    groups = group_rows(frame, config.id, config.time, config.time_format)
    values, notes = encode(frame, groups.rows, schema.features, config.missing)
    by_step = config.task == "tag"
    nothing = np.zeros(len(values) if by_step else len(groups.ids), np.float32)
    data = Sequences(values, groups.offsets, nothing, nothing, by_step)
    scores = find_scores(config, schema, params, data, np.arange(len(groups.ids)))
    columns: dict[str, Any] = {config.id: groups.ids}
    if by_step:
        columns = {name: frame[name] for name in (config.id, config.time)}
        scores[groups.rows] = scores.copy()
    if config.task == "regress":
        values = scores[:, 0] * schema.scale + schema.mean
        columns["predicted"] = rounded(values, np.full_like(values, schema.scale))
    else:
        columns["predicted"] = [schema.labels[n] for n in scores.argmax(axis=1)]
        chances = _softmax(scores)
        columns |= {f"p_{label}": chances[:, n] for n, label in enumerate(schema.labels)}
    write_table(pl.DataFrame(columns), out)
    return notes


def _softmax(scores: Float[np.ndarray, "n classes"]) -> Float32[np.ndarray, "n classes"]:
    """Probabilities in float32: with no more digits than a model has that computes in it."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return chances.astype(np.float32)
