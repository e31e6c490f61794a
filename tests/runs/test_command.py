"""The command that a configuration stands for: pasted, it asks for the same."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from jlstm.cli.main import build_app
from jlstm.runs.command import command_line
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig


def parsed(command):
    name, *words = shlex.split(command)
    assert name == "jlstm"
    _, bound, _ = build_app().parse_args(words, exit_on_error=False, print_error=False)
    files = bound.arguments.get("files") or (bound.arguments["file"],)
    return bound.arguments.get("config", TextConfig()), files


@pytest.mark.parametrize(
    "config",
    [
        TextConfig(),
        TextConfig(learning_rate=0.1 + 0.2, tied=True, embedding=8, hidden=8, tokens="byte"),
        TextConfig(weight_decay=1e-05, epochs=0.5, optimizer="sgd"),
        TableConfig(time="when", target="load", horizon=4),
        TableConfig(
            time="the hour", target=('load, "net"', "wind speed", "it's"), horizon=4, patch=2,
            quantiles=(0.05, 0.5, 0.95), calendar=False, linear=False, separator=";",
            time_format="%d/%m/%Y %H:%M", decimal=",",
        ),
        TableConfig(time="when", target="-load", horizon=4, until="2020-01-01", separator="tab"),
        TableConfig(time="when", target="$(load)", horizon=4, past=("a", "b c")),
        SequencesConfig(id="who, where", time="t", label="a b", bidirectional=False),
    ],
)  # fmt: skip
def test_pasted_it_asks_for_the_same(config):
    files = (Path("/a folder/it's.csv"),)
    command = command_line(replace(config, out=Path("elsewhere"), name="run"), files)
    assert "\n" not in command
    assert parsed(command) == (config, files)


def test_what_is_as_usual_is_not_said():
    config = TableConfig(time="when", target="load", horizon=4, hidden=32)
    assert command_line(config, [Path("load.csv")]) == (
        "jlstm train table load.csv --time when --target load --horizon 4 --hidden 32"
    )
