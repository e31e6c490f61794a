"""Language models: texts of any size, read token by token.

The files become one array of tokens on disk, cut in time order into a part to train on, one to
validate on and one to test on (``data/tokens.py``). A training step reads one window of every
stream and goes on with the carry of the one before; a pass begins with the first carry of the
layers. With V the vocabulary, the model is::

    tokens ─► embedding [V, embedding] ─► stack of LSTMs ─► readout [·, V] ─► softmax

and the score is the mean of −log p of the next token. So that models of different tokens can be
compared it is also given per character and per byte: Σ −log₂ p over all tokens, divided by how many
characters or bytes these tokens are.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jlstm.devices import place
from jlstm.equations import PLAIN
from jlstm.layers import Stack, init_stack_carry
from jlstm.records import write_json
from jlstm.tasks.job import Evaluation, Job, Say, Table, count_steps, show_ratio
from jlstm.tasks.job import no_forecast as predict
from jlstm.tasks.running import runner, runner_over_devices
from jlstm.tasks.text.batch import TokenBatch
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import (
    LanguageModel,
    LanguageModelConfig,
    init_language_model,
    language_model_loss,
    token_count,
)
from jlstm.tasks.text.model import sample as sample_tokens
from jlstm.tasks.text.ngram import fit_ngram, ngram_bits, uniform_bits, unigram_bits
from jlstm.tasks.text.tokens import (
    NEWLINE,
    PARTS,
    TRAINING,
    UNKNOWN,
    Part,
    Vocabulary,
    decode,
    encode,
    shown,
    unknown_tokens,
    write_tokens,
)
from jlstm.tasks.text.windows import Tokens, evaluation_windows, training_window, windows_per_pass
from jlstm.train import make_evaluate
from jlstm.variants import Variant

ABOUT = ("data/text.json", "data/vocabulary.json")
"""The files read, their hashes, and the parts of the text; and the tokens that there are."""
FILES = (*ABOUT, "data/tokens.npy")
"""What ``prepare`` writes: that, and the text as numbers."""

__all__ = ["ABOUT", "FILES", "build", "evaluate", "predict", "prepare", "sample", "template"]

NAMES = {"byte": "byte", "char": "character", "word": "word"}

EPOCHS = 15
"""Of a training, where none are asked for."""
CONTEXT = 256
"""Tokens that each stream of an evaluation reads before those that count."""
READ = 1 << 24
"""Scores that an evaluation computes at once: 64 MB of them."""
ORDER = 5
"""Tokens of context of the best baseline."""
COUNTED = 10_000_000
"""Tokens that the best baseline may be counted on: more takes minutes, and gigabytes."""
NOISE = 0x6E6F6973
"""Parts the keys of what is random in training from those of the parameters."""


# The files, and what is written of them.


class Data(NamedTuple):
    """What ``prepare`` has left in a folder."""

    vocabulary: Vocabulary
    parts: Mapping[str, Part]
    tokens: Mapping[str, Tokens]
    """Of each part; on disk until they are read."""
    files: Sequence[Mapping[str, Any]]


def prepare(config: TextConfig, files: Sequence[str | Path], folder: Path) -> None:
    """Check the files and write them into ``folder`` as tokens.

    Raises:
        OSError: a file cannot be read, or the folder not be written.
        ValueError: there is no text in the files, or too little; they are not UTF-8; they have
            characters that the run to go on from does not know.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    vocabulary = config.vocabulary if config.from_ is None else load(config.from_).vocabulary
    corpus = write_tokens(
        files,
        folder / "data/tokens.npy",
        kind=config.tokens,
        vocabulary=vocabulary,
        validation=config.validation,
        test=config.test,
    )
    parts = dict(zip(PARTS, corpus.parts, strict=True))
    unit = NAMES[config.tokens]
    for name, part in parts.items():
        if part.tokens < 2:
            raise ValueError(
                f"files: expected at least two {unit}s in each part, got {part.tokens} in that for "
                f"{name}"
            )
    known = set(corpus.vocabulary.tokens) - {UNKNOWN}
    if config.tokens != "byte" and len(known) < 2:
        raise ValueError(
            f"files: expected at least two different {unit}s to train on, got {len(known)}"
        )
    trained_on = parts["training"].tokens
    windows_per_pass(trained_on, streams=config.streams, time=config.time, unit=f"{unit}s")
    (folder / "data/vocabulary.json").write_text(corpus.vocabulary.to_json(), "utf-8")
    write_json(
        folder / "data/text.json",
        {
            "tokens": config.tokens,
            "vocabulary": len(corpus.vocabulary),
            "parts": {name: part._asdict() for name, part in parts.items()},
            "files": [
                {"name": name, "bytes": size, "sha256": digest}
                for name, size, digest in corpus.files
            ],
        },
    )


def load(folder: Path) -> Data:
    """What ``prepare`` wrote.

    Raises:
        OSError: a file is missing.
        ValueError: a file holds something else.
    """
    vocabulary = load_vocabulary(folder)
    try:
        about = json.loads((folder / "data/text.json").read_text("utf-8"))
        array = np.load(folder / "data/tokens.npy", mmap_mode="r", allow_pickle=False)
        parts, tokens, start = {}, {}, 0
        for name in PARTS:
            parts[name] = part = Part(**about["parts"][name])
            tokens[name] = array[start : start + part.tokens]
            start += part.tokens
        if array.shape != (start,):
            raise ValueError(f"tokens.npy: expected {start} tokens, got shape {list(array.shape)}")
        return Data(vocabulary, parts, tokens, about["files"])
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{folder}/data: expected what jlstm wrote there, got: {error}") from None


def load_vocabulary(folder: Path) -> Vocabulary:
    """The tokens that ``prepare`` found.

    Raises:
        OSError, ValueError: the file is missing, or holds something else.
    """
    try:
        return Vocabulary.from_json((folder / "data/vocabulary.json").read_text("utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}/data: expected what jlstm wrote there, got: {error}") from None


# Training.


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
        validate=_make_judge(config, model, data.tokens["validation"]),
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
        f"the training text once, {steps:,} steps {show_ratio(steps / epoch)} times.",
        f"Model: {' → '.join(map(str, widths))}{', tied' * config.tied}, {parameters:,} "
        f"parameters, on {devices} device{'s' * (devices > 1)}.",
    ]
    if data.vocabulary.unknown is not None:
        shares = ", ".join(f"{part.unknown / part.tokens:.2%} {p}" for p, part in parts.items())
        lines[1] = f"Vocabulary: {size:,} {unit}s, {UNKNOWN} among them. Unknown: {shares}."
    return lines


# Judging.


def _make_judge(
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


def evaluate(
    config: TextConfig,
    folder: Path,
    params: LanguageModel,
    file: str | Path | None = None,
    name: str | None = None,
) -> Evaluation:
    """The model on the part for the test, or on another text, beside models that only count.

    Args:
        config: of the run.
        folder: of the run.
        params: the model.
        file: another text, or a folder of them; None for the part for the test.
        name: of pictures, of which there are none.

    Raises:
        OSError: a file is missing.
        ValueError: the text is shorter than two tokens, or has characters that the vocabulary has
            not, and no token for what is unknown.
    """
    data = load(folder)
    if file is None:
        part = data.parts["test"]
        return _evaluate(config, data, params, data.tokens["test"], part, "the test part")
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "tokens.npy"
        corpus = write_tokens([file], path, kind=config.tokens, vocabulary=data.vocabulary)
        text = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(text) < 2:
            raise ValueError(f"{file}: expected at least two {NAMES[config.tokens]}s, got one")
        return _evaluate(config, data, params, text, corpus.parts[TRAINING], str(file))


def _evaluate(
    config: TextConfig, data: Data, params: LanguageModel, text: Tokens, part: Part, name: str
) -> Evaluation:
    unit = NAMES[config.tokens]
    model = model_config(config, len(data.vocabulary))
    bits = {"LSTM": _make_judge(config, model, text)(params) / math.log(2)}
    baselines, notes = _baselines(config, data, text)
    bits |= baselines

    targets = part.tokens - 1
    per = {
        f"nats_per_{unit}": math.log(2),
        "bits_per_character": targets / max(1, part.characters),
        "bits_per_byte": targets / max(1, part.bytes),
    }
    measured = {who: {what: n * b for what, n in per.items()} for who, b in bits.items()}
    if config.tokens == "word":
        for who, b in bits.items():
            measured[who]["perplexity"] = 2**b
        notes.append("White space between words costs nothing here: it is not foretold.")
    if part.unknown > part.tokens // 100:
        notes.append(
            f"{part.unknown / part.tokens:.1%} of the {unit}s of {name} are not in the vocabulary; "
            f"they count as one, {UNKNOWN}, which is easier to foretell than they are."
        )
    verdict = _verdict(bits)
    columns = list(measured["LSTM"])
    order = sorted(bits, key=lambda who: -bits[who])
    table = Table(
        title=f"{name}, {targets:,} {unit}s",
        columns=("", *(column.replace("_", " ") for column in columns)),
        rows=[(who, *(_short(measured[who][column]) for column in columns)) for who in order],
        best=(order.index("LSTM"),),
    )
    results = {"text": name, **part._asdict(), "models": measured, "verdict": verdict}
    scores = {
        who: {what.replace("_", " "): value for what, value in found.items()}
        for who, found in measured.items()
    }
    return Evaluation(results, (table,), verdict, notes, scores)


def _baselines(config: TextConfig, data: Data, text: Tokens) -> tuple[dict[str, float], list[str]]:
    """Bits per token of what needs no network, and what there is to say of it."""
    training, size = data.tokens["training"], len(data.vocabulary)
    bits = {"uniform": uniform_bits(size), "unigram": unigram_bits(training, text, size)}
    name = f"order-{ORDER} Kneser–Ney"
    longest = max(len(training), len(text))
    if size > 256:
        return bits, [f"{name} is left out: it is for at most 256 different tokens."]
    if longest > COUNTED:
        return bits, [f"{name} is left out: it is for at most {COUNTED:,} tokens."]
    if len(training) <= ORDER:
        return bits, [f"{name} is left out: there are only {len(training)} tokens to count."]
    model = fit_ngram(np.asarray(training), ORDER)
    return bits | {name: ngram_bits(model, np.asarray(text), size)}, []


def _short(number: float) -> str:
    return f"{number:.3f}" if number < 100 else f"{number:,.0f}"


def _verdict(bits: Mapping[str, float]) -> str:
    """Who won, in a sentence."""
    others = {who: value for who, value in bits.items() if who != "LSTM"}
    who = min(others, key=lambda who: others[who])
    ours, theirs = bits["LSTM"], others[who]
    if not (ours and theirs):  # of a text that says nothing, nothing is left to compare
        return f"The LSTM needs {ours:.3g} bits per token, the baseline {who} {theirs:.3g}."
    if ours < theirs:
        return f"The LSTM wins: {1 - ours / theirs:.1%} fewer bits than the best baseline, {who}."
    return f"The LSTM loses: the baseline {who} needs {1 - theirs / ours:.1%} fewer bits."


# Writing.


def sample(
    config: TextConfig,
    folder: Path,
    params: LanguageModel,
    prompt: str,
    length: int,
    temperature: float = 1.0,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    say: Say = print,
) -> str:
    """What the model writes after a prompt, to be set right behind it.

    Words that it does not know are read as ``<unk>``, which it never writes.

    Args:
        config: of the run.
        folder: of the run.
        params: the model.
        prompt: what to go on from; where it is empty, a new line.
        length: how many tokens to write.
        temperature: as for ``sample`` of ``model.py``, and so the next two.
        top_k: how many tokens are drawn from.
        top_p: how much probability is drawn from.
        seed: the same one gives the same text.
        say: is told how the prompt is read, where that is worth knowing.

    Raises:
        TypeError, ValueError: an argument of another type or range; a character that the model does
            not know.
    """
    vocabulary = load_vocabulary(folder)
    unknown = unknown_tokens(vocabulary, prompt)
    if unknown and vocabulary.kind == "char":
        raise ValueError(f"prompt: expected characters of the training text, got {shown(unknown)}")
    if unknown:
        say(f"The model does not know {shown(unknown)}, and reads {UNKNOWN} instead.")
    tokens = encode(vocabulary, prompt)
    if not tokens.size:  # nothing, or for words nothing but white space
        if unknown_tokens(vocabulary, NEWLINE):
            raise ValueError("prompt: expected some text, got none, and the model knows no newline")
        tokens = encode(vocabulary, NEWLINE)
    if vocabulary.unknown is not None:
        bias = jnp.asarray(params.readout_bias).at[vocabulary.unknown].set(-jnp.inf)
        params = params._replace(readout_bias=bias)
    drawn = sample_tokens(
        model_config(config, len(vocabulary)),
        jax.device_put(params, jax.devices()[0]),
        jax.random.key(seed),
        tokens,
        length,
        temperature,
        top_k=top_k,
        top_p=top_p,
        run=runner(config.implementation),
    )
    text = decode(vocabulary, np.asarray(drawn))
    apart = vocabulary.kind == "word" and prompt and not prompt[-1].isspace()
    return f" {text}" if apart and text and text[0] != NEWLINE else text
