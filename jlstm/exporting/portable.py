"""A trained model as something to carry elsewhere: a function of named arrays, with all around it.

Whatever the kind of job, a model takes arrays by name and gives arrays by name. The axes ``time``
and ``batch`` are of any size where a shape has their names::

    text        tokens [time, batch], state          logits [time, batch, vocabulary], state
    table       values, series, past, known, about   quantiles [horizon, batch, quantiles]
    sequences   xs [time, batch, columns], lengths   scores [batch, ·], of tags [time, batch, ·]

Inputs of no features (a table without ``past``, say) are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jlstm.layers import LayerParams, Stack
from jlstm.records import plain
from jlstm.runs.use import Trained
from jlstm.streaming import init_state, pack, unpack
from jlstm.tasks.running import runner
from jlstm.tasks.sequences import preparing as sequences
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.model import label_scores
from jlstm.tasks.sequences.training import model_config as labeller_config
from jlstm.tasks.table import preparing as table
from jlstm.tasks.table.batch import WindowBatch
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import ForecasterConfig, forecast
from jlstm.tasks.table.training import model_config
from jlstm.tasks.table.windows import cut, find_windows, make_panel
from jlstm.tasks.text import preparing as text
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import logits
from jlstm.tasks.text.training import model_config as language_model_config

EXAMPLES = 3
"""Windows or sequences in the example; tokens are more."""
TOKENS = 32


READING = {
    "byte": "a token is a byte, and its number is its value",
    "char": "a token is a character, lines end in a newline alone, and a token's number is its "
    "place in the list",
    "word": "a token is what stands between white space (after 1000 characters another one begins) "
    "or a line's end, a newline; its number is its place in the list, for others that of <unk>",
}
"""How a text becomes tokens, see ``jlstm.tasks.text.tokens``."""


class Input(NamedTuple):
    """What an input is."""

    shape: tuple[int | str, ...]
    dtype: Any


class Portable(NamedTuple):
    """A trained model and what is to be known to use it."""

    kind: str
    stack: Stack
    layers: Sequence[LayerParams]
    """The weights of the stack."""
    params: Any
    """All weights, those of the stack among them; NumPy arrays."""
    run: Callable[..., dict[str, Array]]
    """``(params, **inputs)`` to the outputs; without the native kernel, and without noise."""
    inputs: Mapping[str, Input]
    example: Mapping[str, np.ndarray]
    """Inputs, in the units of the user's file."""
    scaled: Mapping[str, np.ndarray]
    """The same as the model takes them."""
    output: str
    """The name of what it is all for."""
    sizes: Mapping[str, Any]
    """What code that computes the model has to know beside the weights."""
    about: Mapping[str, Any]
    """Scales, vocabulary, columns: as JSON has it."""


def portable(trained: Trained) -> Portable:
    """What a run has learnt.

    Raises:
        OSError, ValueError: the data of the run is not as it was written.
    """
    trained = trained._replace(params=jax.tree.map(np.asarray, trained.params))
    match trained.config:
        case TextConfig():
            return _text(trained, trained.config)
        case TableConfig():
            return _table(trained, trained.config)
        case SequencesConfig():
            return _sequences(trained, trained.config)
    raise AssertionError(type(trained.config))


def _text(trained: Trained, config: TextConfig) -> Portable:
    data, params = text.load(trained.folder), trained.params
    model = language_model_config(config, len(data.vocabulary))
    layers = model.stack.without_noise()

    def run(params: Any, tokens: Array, state: Array) -> dict[str, Array]:
        carry = unpack(layers, params.lstm, state)
        carry, scores = logits(model, params, carry, tokens, run=runner("xla"))
        return {"logits": scores, "state": pack(carry)}

    state = np.asarray(init_state(layers, params.lstm, 1))
    tokens = np.asarray(data.tokens["test"][:TOKENS], np.int32)[:, None]
    example = {"tokens": tokens, "state": state}
    return Portable(
        kind="text",
        stack=layers,
        layers=params.lstm,
        params=params,
        run=run,
        inputs={
            "tokens": Input(("time", "batch"), tokens.dtype),
            "state": Input(("batch", state.shape[1]), state.dtype),
        },
        example=example,
        scaled=example,
        output="logits",
        sizes={
            "vocabulary": len(data.vocabulary),
            "embedding": config.embedding,
            "hidden": layers.cells[-1].size,
            "layers": len(layers.cells),
            "tied": config.tied,
            "zoneout": config.zoneout,
        },
        about={
            "vocabulary": {
                "kind": data.vocabulary.kind,
                "tokens": data.vocabulary.tokens,
                "reading": READING[data.vocabulary.kind],
            }
        },
    )


def _table(trained: Trained, config: TableConfig) -> Portable:
    _, schema, series = table.load(trained.folder)
    panel, model = make_panel(series, schema), model_config(config, schema)
    places = find_windows(series, panel, "test").evenly(EXAMPLES)
    windows = cut(panel, places)._replace(targets=None, key=None)
    scaled = {
        name: np.asarray(value)
        for name, value in windows._asdict().items()
        if value is not None and value.shape[-1]
    }
    scale = _scale_of_table(schema, model)

    def run(params: Any, **inputs: Array) -> dict[str, Array]:
        batch = inputs["values"].shape[1]
        nothing = {
            "past": jnp.zeros((model.lookback, batch, 0)),
            "known": jnp.zeros((model.lookback + model.horizon, batch, 0)),
            "about": jnp.zeros((batch, 0)),
        }
        window = WindowBatch(**(nothing | inputs))
        return {"quantiles": forecast(model, params, window, run=runner("xla"))}

    def unscaled(name: str, values: np.ndarray) -> np.ndarray:
        if name not in scale:
            return values
        mean, std = (np.array(scale[name][of], float)[windows.series] for of in ("mean", "std"))
        raw: np.ndarray = values * std + mean
        return raw

    roles = schema.roles
    shapes: dict[str, tuple[int | str, ...]] = {
        "values": (model.lookback, "batch"),
        "series": ("batch",),
        "past": (model.lookback, "batch", model.past),
        "known": (model.lookback + model.horizon, "batch", model.known),
        "about": ("batch", model.about),
    }
    cycles = [f"{part} of the {cycle}" for cycle in schema.cycles for part in ("sine", "cosine")]
    observed = ["1 where the target is known, else 0"] if schema.missing != "error" else []
    return Portable(
        kind="table",
        stack=model.stack.without_noise(),
        layers=trained.params.lstm,
        params=trained.params,
        run=run,
        inputs={name: Input(shapes[name], value.dtype) for name, value in scaled.items()},
        example={name: unscaled(name, value) for name, value in scaled.items()},
        scaled=scaled,
        output="quantiles",
        sizes={
            "lookback": model.lookback,
            "horizon": model.horizon,
            "quantiles": len(model.quantiles),
            "median": model.median,
            "patch": model.patch,
            "series": model.series,
            "embedding": model.embedding,
            "past": model.past,
            "known": model.known,
            "about": model.about,
            "hidden": config.hidden,
            "layers": config.layers,
            "width": model.width,
            "linear": model.linear,
            "calibrated": trained.params.calibration is not None,
        },
        about={
            "quantiles": model.quantiles,
            "step": str(schema.step),
            "columns": {
                "values": "the target of the series",
                "past": [*roles.past, *observed],
                "known": roles.known,
                "about": [*schema.static_names, *cycles],
            },
            "calendar": "the sine and cosine of 2π · the part of the day, week (from Monday) and "
            "year of 365.2425 days that has gone by at the first step to foretell, by local time",
            "series": [
                {"name": name, "target": target, "about": schema.static[n].tolist()}
                for n, name in enumerate(schema.names)
                for target in roles.target
            ],
            "scale": scale,
        },
    )


def _scale_of_table(schema: Any, model: ForecasterConfig) -> dict[str, Any]:
    """Mean and standard deviation for each number of a series, as ``windows.cut`` numbers them."""
    targets, past = len(schema.roles.target), len(schema.roles.past)
    scale = {}
    for of, values, beside in (("mean", schema.mean, 0.0), ("std", schema.std, 1.0)):
        rows = np.repeat(values, targets, axis=0)
        flags = np.full((len(rows), model.past - past), beside)
        parts = {
            "past": np.concatenate([rows[:, targets : targets + past], flags], axis=1),
            "known": rows[:, targets + past :],
            "values": values[:, :targets].reshape(-1),  # last: ``use_it.py`` needs it to the end
        }
        scale[of] = {name: plain(part) for name, part in parts.items() if part.shape[-1]}
    return {name: {of: scale[of][name] for of in ("mean", "std")} for name in scale["mean"]}


def _sequences(trained: Trained, config: SequencesConfig) -> Portable:
    prepared = sequences.load(config, trained.folder)
    schema, data = prepared.schema, prepared.data
    model = labeller_config(config, schema)

    def run(params: Any, xs: Array, lengths: Array) -> dict[str, Array]:
        return {"scores": label_scores(model, params, xs, lengths, run=runner("xla"))}

    chosen = prepared.part("test")[:EXAMPLES]
    if not len(chosen):
        chosen = np.arange(min(EXAMPLES, len(data.lengths)))
    lengths = data.lengths[chosen].astype(np.int32)
    xs = np.zeros((lengths.max(), len(chosen), schema.width), np.float32)
    for n, sequence in enumerate(chosen):
        a, b = data.offsets[sequence : sequence + 2]
        xs[: b - a, n] = data.values[a:b]

    columns: list[tuple[str, float, float]] = []
    for feature in schema.features:
        if feature.categories is None:
            columns.append((feature.name, feature.mean, feature.scale))
            if feature.masked:
                columns.append((f"{feature.name} is missing", 0.0, 1.0))
        else:
            columns += [(f"{feature.name} is {name}", 0.0, 1.0) for name in feature.categories]
    names, mean, scale = (list(part) for part in zip(*columns, strict=True))
    about: dict[str, Any] = {
        "task": config.task,
        "columns": names,
        "scale": {"mean": mean, "std": scale},
    }
    if config.task == "regress":
        about["label"] = {"name": config.label, "mean": schema.mean, "std": schema.scale}
    else:
        about |= {"labels": schema.labels}
    return Portable(
        kind="sequences",
        stack=model.stack.without_noise(),
        layers=trained.params.lstm,
        params=trained.params,
        run=run,
        inputs={
            "xs": Input(("time", "batch", schema.width), xs.dtype),
            "lengths": Input(("batch",), lengths.dtype),
        },
        example={"xs": xs * np.array(scale) + np.array(mean), "lengths": lengths},
        scaled={"xs": xs, "lengths": lengths},
        output="scores",
        sizes={
            "columns": schema.width,
            "hidden": config.hidden,
            "layers": config.layers,
            "bidirectional": config.bidirectional,
            "pooled": model.pooled,
            "outputs": trained.params.readout.shape[1],
        },
        about=about,
    )
