"""What a language model writes after a prompt."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jlstm.tasks.job import Say
from jlstm.tasks.running import runner
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import LanguageModel
from jlstm.tasks.text.model import sample as sample_tokens
from jlstm.tasks.text.preparing import load_vocabulary
from jlstm.tasks.text.tokens import NEWLINE, UNKNOWN, decode, encode, shown, unknown_tokens
from jlstm.tasks.text.training import model_config


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
