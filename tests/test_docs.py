"""The pages of docs: their examples run as they stand, and what they lead to is there."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from pasted import blocks, run_as_pasted

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MIGRATION = [page for page in PAGES if page.stem.startswith("from_")]
# Other people's packages, without which a page cannot run.
OTHERS = {"equinox", "flax", "haiku", "keras", "onnx", "onnxruntime", "torch"}
# Keras's variables, on their way into NumPy's arrays, know only how NumPy 1 asked for them.
IGNORED = ["__array__ implementation"]

of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def packages(source: str) -> set[str]:
    """The packages that a source imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page in MIGRATION else [])
        for page in PAGES
    ],
)
def test_the_page_runs_as_pasted(page, tmp_path):
    examples = blocks(page, "python")
    assert examples
    wanted = OTHERS & packages("\n".join(examples))
    if any("interop.stablehlo" in example for example in examples):
        wanted.add("flatbuffers")  # which JAX writes programs with
    missing = [name for name in sorted(wanted) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    printed = run_as_pasted(examples, tmp_path, IGNORED)
    # What a comment behind a print promises.
    assert printed == re.findall(r"print\(.*\)  # (.*)$", "\n".join(examples), re.MULTILINE)


@of_each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@of_each_page
def test_the_readme_has_the_page_in_its_index(page):
    _, index = (ROOT / "README.md").read_text("utf-8").split("\n## Pages\n")
    assert f"](docs/{page.name})" in index.partition("\n## ")[0]


def test_the_migration_pages_are_alike():
    assert {page.stem for page in MIGRATION} == {
        f"from_{name}" for name in ("equinox", "flax", "haiku", "keras", "pytorch")
    }
    parts = ["Theirs", "Ours, with the same weights", "What differs", "Do the numbers agree?"]
    for page in MIGRATION:
        text = page.read_text("utf-8")
        headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
        replaced = ["Or keep the model, and replace the layer"] * ("jlstm.modules" in text)
        assert headings == [*parts, "The way back", *replaced], page.name
        # What differs, and the order in which it is said; Keras and Flax have more of it.
        rows = re.findall(r"^\| ([a-z][^|]*) \|", text, re.MULTILINE)
        assert [row for row in rows if row in DIFFERENCES] == list(DIFFERENCES), page.name


DIFFERENCES = (
    "axes",
    "weights",
    "bias",
    "carry",
    "lengths",
    "length 0",
    "padding",
    "resets inside a sequence",
    "dropout",
    "fresh weights",
    "fresh bias of f",
)


def test_ten_lines_are_about_ten():
    for page in MIGRATION:
        theirs, ours, *_ = blocks(page, "python")
        for block in (theirs, ours):
            lines = [line for line in block.splitlines() if line.strip()]
            assert len(lines) <= 18, page.name


# What the tables say that others do with padding, and with a sequence of no steps


XS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
LENGTHS = np.array([4, 2, 0])


def test_flax_goes_on_at_padding_and_takes_the_last_carry_of_all_at_length_0():
    nn = pytest.importorskip("flax.linen")
    layer = nn.RNN(nn.OptimizedLSTMCell(2), return_carry=True)
    variables = layer.init(jax.random.key(0), XS)
    (_, whole), every = layer.apply(variables, XS)
    (_, h), hs = layer.apply(variables, XS, seq_lengths=LENGTHS)
    np.testing.assert_array_equal(hs, every)
    np.testing.assert_array_equal(h[2], whole[2])
    np.testing.assert_array_equal(h[1], every[1, 1])


@pytest.mark.filterwarnings(f"ignore:{IGNORED[0]}:DeprecationWarning")
def test_keras_repeats_the_last_output(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    start = np.full((2, 3, 2), 0.5, "float32")
    given = {"mask": np.arange(4) < LENGTHS[:, None], "initial_state": [*start]}
    layer = keras.layers.LSTM(2, return_sequences=True, return_state=True)
    hs, h, c = map(np.asarray, layer(XS, **given))
    np.testing.assert_array_equal(hs[1, 2:], hs[1, [1, 1]])
    np.testing.assert_array_equal(hs[2], np.full((4, 2), 0.5))
    np.testing.assert_array_equal((h[2], c[2]), start[:, 2])
    both = keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True))
    assert not np.asarray(both(XS, mask=given["mask"]))[1, 2:].any()


def test_torch_refuses_length_0_and_gives_0_at_padding():
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    xs = torch.from_numpy(XS.swapaxes(0, 1).copy())
    with pytest.raises(RuntimeError, match="greater than 0"):
        pack_padded_sequence(xs, torch.from_numpy(LENGTHS))
    packed = pack_padded_sequence(xs[:, :2], torch.from_numpy(LENGTHS[:2]))
    hs, _ = pad_packed_sequence(torch.nn.LSTM(5, 2)(packed)[0])
    assert hs[1, 1].any()
    assert not hs[2:, 1].any()
