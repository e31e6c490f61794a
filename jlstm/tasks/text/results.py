"""What a trained language model is worth, beside models that only count."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from jlstm.tasks.job import Evaluation
from jlstm.tasks.running import runner
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.dynamic import TIME, evaluate_learning
from jlstm.tasks.text.model import LanguageModel
from jlstm.tasks.text.ngram import fit_ngram, ngram_bits, uniform_bits, unigram_bits
from jlstm.tasks.text.preparing import NAMES, Data, load
from jlstm.tasks.text.report import LEARNING, report
from jlstm.tasks.text.tokens import TRAINING, Part, write_tokens
from jlstm.tasks.text.training import make_judge, model_config
from jlstm.tasks.text.windows import Tokens

ORDER = 5
"""Tokens of context of the best baseline."""
COUNTED = 10_000_000
"""Tokens that the best baseline may be counted on: more takes minutes, and gigabytes."""


def evaluate(
    config: TextConfig,
    folder: Path,
    params: LanguageModel,
    file: str | Path | None = None,
    name: str | None = None,
    *,
    dynamic: bool = False,
) -> Evaluation:
    """The model on the part for the test, or on another text, beside models that only count.

    Args:
        config: of the run.
        folder: of the run.
        params: the model.
        file: another text, or a folder of them; None for the part for the test.
        name: of pictures, of which there are none.
        dynamic: whether to judge it once more, as it goes on learning: see ``dynamic.py``.

    Raises:
        OSError: a file is missing.
        ValueError: the text is shorter than two tokens, or has characters that the vocabulary has
            not, and no token for what is unknown.
    """
    data = load(folder)
    if file is None:
        part = data.parts["test"]
        return _evaluate(config, data, params, data.tokens["test"], part, "the test part", dynamic)
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "tokens.npy"
        corpus = write_tokens([file], path, kind=config.tokens, vocabulary=data.vocabulary)
        text = np.load(path, mmap_mode="r", allow_pickle=False)
        if len(text) < 2:
            raise ValueError(f"{file}: expected at least two {NAMES[config.tokens]}s, got one")
        judged = _evaluate(config, data, params, text, corpus.parts[TRAINING], str(file), dynamic)
    own = {known["sha256"]: known["name"] for known in data.files}
    seen = [own[digest] for _, _, digest in corpus.files if digest in own]
    if not seen:
        return judged
    note = (
        f"The run was trained on this text: {', '.join(seen)}. The model knows it, and looks "
        "better than it is; what it is worth is told by the test part."
    )
    return replace(judged, notes=[note, *judged.notes])


evaluate_dynamic = partial(evaluate, dynamic=True)


def _evaluate(
    config: TextConfig,
    data: Data,
    params: LanguageModel,
    text: Tokens,
    part: Part,
    name: str,
    dynamic: bool,
) -> Evaluation:
    model = model_config(config, len(data.vocabulary))
    bits = {"LSTM": make_judge(config, model, text)(params) / math.log(2)}
    baselines, notes = _baselines(data, text)
    if dynamic:
        run = runner(config.implementation)
        found = evaluate_learning(model, params, data.tokens["validation"], text, run=run)
        bits[LEARNING] = found.nats / math.log(2)
        rate = f"at the rate {found.rate:g}, chosen on the validation part"
        if not found.rate:
            rate = "at the rate 0, that is not at all: on the validation part it does not help"
        notes.append(
            f"{LEARNING}: after each {TIME} {NAMES[config.tokens]}s, and once they are judged, the "
            f"model learns from them, {rate}."
        )
    return report(config.tokens, bits | baselines, part, name, notes)


def _baselines(data: Data, text: Tokens) -> tuple[dict[str, float], list[str]]:
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
