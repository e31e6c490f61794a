"""The README's examples run as they stand, one after the other, and its picture is true."""

import re
from pathlib import Path

import pytest
from pasted import blocks, run_as_pasted

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_examples_run_as_pasted(tmp_path):
    examples = blocks(README, "python")
    assert len(examples) >= 2
    printed = run_as_pasted(examples, tmp_path)
    # What the comments promise: the shape, then a finite loss.
    shape, loss = printed
    assert shape == "(64, 64)"
    assert 0 < float(loss) < 10


def test_the_first_example_has_fifteen_lines():
    lines = [line for line in blocks(README, "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_both_commands_are_there(command):
    assert any(command in block for block in blocks(README, "sh"))
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:", (README.parent / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_the_architecture_table_names_every_file():
    text = README.read_text("utf-8")
    package = README.parent / "jlstm"
    inside = {p for p in package.iterdir() if p.name[0] not in "_." and p.name != "py.typed"}
    missing = [p.name for p in inside if p.stem not in text]
    assert not missing
