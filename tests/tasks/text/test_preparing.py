"""From files to the folder of a run: what is written, and what is refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from text_runs import SMALL, prepared, some_text

from jlstm.tasks.text.preparing import FILES, load, prepare
from jlstm.tasks.text.tokens import PARTS


@pytest.mark.parametrize("kind", ["byte", "char", "word"])
def test_what_is_prepared(tmp_path, kind):
    content = some_text(150)
    config = replace(SMALL, tokens=kind, time=4)
    folder = prepared(tmp_path, config, content)
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.*")} == set(FILES)
    about = json.loads((folder / "data/text.json").read_text())
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert [file["sha256"] for file in about["files"]] == [digest]
    data = load(folder)
    # The parts follow each other, with nothing between them and nothing twice.
    whole = np.concatenate([data.tokens[name] for name in PARTS])
    np.testing.assert_array_equal(whole, np.load(folder / "data/tokens.npy"))
    joined = content.replace("\n", " \n ").split(" ")[:-1] if kind == "word" else list(content)
    tokens = (
        [chr(n) for n in whole] if kind == "byte" else [data.vocabulary.tokens[n] for n in whole]
    )
    assert tokens == joined
    assert data.parts["test"].tokens == pytest.approx(0.2 * len(joined), rel=0.05)
    assert data.parts["validation"].tokens == pytest.approx(0.1 * len(joined), rel=0.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"files: expected a text, got nothing to read in .*book.txt"),
        ("ab", "at least two characters in each part, got 0 in that for validation"),
        (
            "a single line" * 5,
            r"at least 65 characters to train on \(4 streams × 16 steps.*, got 46;",
        ),
        (b"not \xff UTF-8" * 50, r"book.txt: expected UTF-8, .* byte 4; --tokens byte"),
    ],
)
def test_what_cannot_be_prepared(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, SMALL, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"expected a file or a folder, got .*missing.txt"):
        prepare(SMALL, [tmp_path / "missing.txt"], tmp_path)


def test_damage_is_noticed(tmp_path):
    folder = prepared(tmp_path)
    np.save(folder / "data/tokens.npy", np.load(folder / "data/tokens.npy")[:-1])
    with pytest.raises(ValueError, match=r"tokens.npy: expected \d+ tokens, got shape"):
        load(folder)
    np.save(folder / "data/tokens.npy", np.array([{"code": "run"}]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):  # nothing is unpickled
        load(folder)
