"""From the user's text to the tokens in the folder of a run, and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jlstm.checks import wrong
from jlstm.records import write_json
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.tokens import PARTS, UNKNOWN, Part, Vocabulary, write_tokens
from jlstm.tasks.text.windows import Tokens, windows_per_pass

ABOUT = ("data/text.json", "data/vocabulary.json")
"""The files read, their hashes, and the parts of the text; and the tokens that there are."""
FILES = (*ABOUT, "data/tokens.npy")
"""What ``prepare`` writes: that, and the text as numbers."""

NAMES = {"byte": "byte", "char": "character", "word": "word"}
"""What a token is called."""


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
            raise wrong(
                "files",
                f"expected at least two {unit}s in each part, got {part.tokens} in that for {name}",
            )
    known = set(corpus.vocabulary.tokens) - {UNKNOWN}
    if config.tokens != "byte" and len(known) < 2:
        raise wrong(
            "files", f"expected at least two different {unit}s to train on, got {len(known)}"
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
