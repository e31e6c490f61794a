"""How a run shows itself: lines, a bar, tables as wide as they are."""

import re
import time
from io import StringIO

import pytest
from rich.console import Console
from rich.live import Live

from jlstm.cli.screen import (
    facts,
    new_console,
    show_evaluation,
    show_files,
    show_table,
    watching,
)
from jlstm.tasks.job import Evaluation, Table

RECORD = {
    "step": 5, "steps": 1000, "loss": 2.25, "validation_loss": 3.5, "per_second": 7012.3,
    "unit": "words", "score": "nats per word",
}  # fmt: skip
VALIDATED = "loss 2.2500, validation 3.5000 nats per word, 7,012 words/s"


def paper(**options):
    return Console(file=StringIO(), width=100, highlight=False, soft_wrap=True, **options)


def written(console):
    """What is on the paper, its colours and movements taken away."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())


def test_without_a_terminal_there_is_a_line_for_each_validation():
    console = paper()
    with watching(console) as watch:
        for step in range(1, 21):
            watch({**RECORD, "step": step, "validation_loss": 3.5 if step % 10 == 0 else None})
    assert console.file.getvalue() == (f"step 10/1,000: {VALIDATED}\nstep 20/1,000: {VALIDATED}\n")


def test_a_terminal_gets_a_bar_that_remembers_the_last_validation():
    console = paper(force_terminal=True)
    with watching(console) as watch:
        watch(RECORD)
        watch({**RECORD, "step": 1000, "loss": 1.5, "validation_loss": None})
    last = written(console).splitlines()[-1].rstrip()
    assert last.endswith(" 0:00:00 left 1,000/1,000 loss 1.5000, validation 3.5000, 7,012 words/s")
    assert len(last) < 80


def test_a_narrow_terminal_gets_a_second_line_and_all_that_is_to_be_said():
    console = Console(file=StringIO(), force_terminal=True, width=50, soft_wrap=True)
    with watching(console) as watch:
        watch({**RECORD, "unit": "characters"})
    assert "…" not in written(console).partition("left 5/1,000")[2]
    assert "characters/s" in written(console)


def test_before_the_first_record_the_bar_says_what_it_waits_for():
    console = paper(force_terminal=True)
    with watching(console):
        pass
    assert "compiling …" in written(console)
    last = console.file.getvalue().rpartition("\x1b[2K")[2]  # after the line was cleared
    assert "compiling …" not in last


@pytest.mark.parametrize("terminal", [False, True])
def test_a_loss_that_nobody_knows_is_a_dash(terminal):
    console = paper(force_terminal=terminal)
    with watching(console) as watch:
        watch({**RECORD, "loss": None})
    assert "loss –, validation 3.5000" in written(console)
    assert facts({**RECORD, "loss": None}, None) == "loss –, 7,012 words/s"


def test_the_bar_is_drawn_at_most_four_times_a_second(monkeypatch):
    drawn = []
    refresh = Live.refresh

    def count(self):
        drawn.append(time.perf_counter())
        refresh(self)

    monkeypatch.setattr(Live, "refresh", count)
    began = time.perf_counter()
    with watching(paper(force_terminal=True)) as watch:
        for step in range(2000):
            watch({**RECORD, "step": step})
        while time.perf_counter() < began + 0.6:
            watch(RECORD)
    # And at the beginning, when the task is added, and at the end.
    assert 1 < len(drawn) <= 4 * (time.perf_counter() - began) + 4


def test_text_is_printed_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    odd = ":beer: [bold]12[/bold] " + "long " * 30
    new_console().print(odd)
    assert capsys.readouterr().out == odd + "\n"


def test_a_table_is_as_wide_as_it_is():
    console = Console(file=StringIO(), width=20, soft_wrap=True)
    rows = [("a name of some length", "0.000123", "1"), ("b", "12", "–")]
    show_table(("", "error", "a long heading"), rows, console, right=(1, 2))
    assert console.file.getvalue().splitlines() == [
        "                          error  a long heading",
        "a name of some length  0.000123               1",
        "b                            12               –",
    ]


def test_a_table_counts_the_columns_that_a_letter_takes():
    console = paper()
    show_table(("日本", "n"), [("a", "1"), ("日本語", "22")], console, right=(1,))
    assert console.file.getvalue().splitlines() == ["日本     n", "a        1", "日本語  22"]


JUDGED = Evaluation(
    {},
    [
        Table("One", ("", "accuracy"), [("LSTM", "90.00%"), ("majority", "9.00%")], best=[0]),
        Table("Two", ("step", "error"), [("1", "0.5")]),
    ],
    "The model wins.",
    ["By luck."],
)


def test_a_judgement_is_tables_then_sentences():
    console = paper()
    show_evaluation(JUDGED, console)
    assert console.file.getvalue() == (
        "\nOne\n          accuracy\nLSTM        90.00%\nmajority     9.00%\n"
        "\nTwo\nstep  error\n1       0.5\n\nThe model wins.\nBy luck.\n"
    )


def test_the_best_row_is_stressed_on_a_terminal():
    console = paper(force_terminal=True, color_system="standard")
    show_evaluation(JUDGED, console)
    stressed = [line for line in console.file.getvalue().splitlines() if "\x1b[1;32m" in line]
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in stressed] == ["LSTM        90.00%"]


def test_only_files_that_are_there_are_named(tmp_path):
    (tmp_path / "one.json").touch()
    (tmp_path / "folder").mkdir()
    console = paper()
    files = (("one.json", "numbers"), ("two.json", "more"), ("folder", "pictures"))
    show_files(tmp_path, files, console)
    assert console.file.getvalue().splitlines() == [
        "",
        f"In {tmp_path}:",
        "  one.json          numbers",
        "  folder            pictures",
    ]
