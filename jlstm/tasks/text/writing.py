"""What a language model writes after a prompt."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jlstm.checks import wrong
from jlstm.tasks.job import Say
from jlstm.tasks.running import runner
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import LanguageModel
from jlstm.tasks.text.preparing import load_vocabulary
from jlstm.tasks.text.sampling import sample as sample_tokens
from jlstm.tasks.text.tokens import NEWLINE, UNKNOWN, Decoder, encode, shown, unknown_tokens
from jlstm.tasks.text.training import model_config


def sample(
    config: TextConfig,
    folder: Path,
    params: LanguageModel,
    prompt: str,
    length: int = 500,
    temperature: float = 1.0,
    *,
    count: int = 1,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    say: Say = print,
) -> Iterator[tuple[int, str]]:
    """What the model writes after a prompt, to be set right behind it, in pieces as it is written.

    Words that it does not know are read as ``<unk>``, which it never writes.

    Args:
        config: of the run.
        folder: of the run.
        params: the model.
        prompt: what to go on from; where it is empty, a new line, or, where the model knows none,
            the first token of its vocabulary.
        length: how many tokens to write.
        temperature: as for ``sample`` of ``sampling.py``, and so the next three.
        count: how many samples to write. Each is the same whatever the count, and begins the same
            whatever the length.
        top_k: how many tokens are drawn from.
        top_p: how much probability is drawn from.
        seed: the same one gives the same text.
        say: is told how the prompt is read, where that is worth knowing.

    Returns:
        The number of a sample, from 0, and the text that it goes on with: all pieces of sample 0,
        then all of sample 1, and so on.

    Raises:
        TypeError, ValueError: an argument of another type or range; a character that the model does
            not know.
    """
    vocabulary = load_vocabulary(folder)
    unknown = unknown_tokens(vocabulary, prompt)
    if unknown and vocabulary.kind == "char":
        raise wrong("prompt", f"expected characters of the training text, got {shown(unknown)}")
    if unknown:
        say(f"The model does not know {shown(unknown)}, and reads {UNKNOWN} instead.")
    tokens = encode(vocabulary, prompt)
    if not tokens.size:  # nothing, or for words nothing but white space
        if not unknown_tokens(vocabulary, NEWLINE):
            tokens = encode(vocabulary, NEWLINE)
        else:
            first = next(n for n in range(len(vocabulary)) if n != vocabulary.unknown)
            tokens = np.array([first], tokens.dtype)
            say(
                "There is no prompt, and the model knows no new line: it goes on from its first "
                "token."
            )
    if vocabulary.unknown is not None:
        bias = np.array(params.readout_bias)
        bias[vocabulary.unknown] = -np.inf
        params = params._replace(readout_bias=jnp.asarray(bias))
    drawn = sample_tokens(
        model_config(config, len(vocabulary)),
        jax.device_put(params, jax.devices()[0]),
        jax.random.key(seed),
        tokens,
        length,
        temperature,
        count=count,
        top_k=top_k,
        top_p=top_p,
        run=runner(config.implementation),
    )

    def texts() -> Iterator[tuple[int, str]]:
        for number, pieces in groupby(drawn, key=itemgetter(0)):
            decoder = Decoder(vocabulary, after=prompt)
            for _, piece in pieces:
                yield number, decoder(piece)
            yield number, decoder.end()

    return texts()
