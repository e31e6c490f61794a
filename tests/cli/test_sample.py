"""`jlstm sample`: what it prints, when, and writes; how it ends; mistakes."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper

import pytest
from command_line import command, mistake, said

from jlstm.cli.sample import laid_out, printable
from jlstm.runs import use

TEXT = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(200))
TINY = "--embedding 3 --streams 2 --time 4 --hidden 4 --steps 4"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a model of characters and one of words."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "beer.txt").write_text(TEXT)
    for name, options in (
        ("text", f"text {folder}/beer.txt {TINY}"),
        ("words", f"text {folder}/beer.txt --tokens word {TINY}"),
    ):
        said("train", *options.split(), "--out", folder, "--name", name)
    return folder


def sample(folder, *options):
    return said("sample", folder, "--length", "40", *options)


def test_a_model_writes_after_the_prompt(runs):
    text = sample(runs / "text", "--prompt", "9 bottles")
    assert text.startswith("9 bottles")
    assert len(text) == len("9 bottles") + 40 + 1
    assert set(text) <= set(TEXT)


def test_the_same_seed_writes_the_same_text(runs):
    one, two, other = (sample(runs / "text", "--seed", seed) for seed in (3, 3, 4))
    assert one == two != other


def test_prompt_and_options_reach_the_model(monkeypatch, runs):
    asked = []

    def remember(config, folder, params, prompt, *, say, **options):
        asked.append((prompt, options))
        return iter(())

    monkeypatch.setattr("jlstm.tasks.text.job.sample", remember)
    sample(runs / "text", "--prompt", "9 bot", "--top-k", "3", "--top-p", "0.5", "--seed", "7")
    sample(runs / "text", "--temperature", "0.25", "--top-p", "1", "--top-k", "0")
    sample(runs / "text", "--prompt", "", "--count", "3")
    sample(runs / "text", "--prompt", "--- a line")
    sample(runs / "text", "--prompt=-x")
    defaults = {
        "length": 40,
        "count": 1,
        "temperature": 0.8,
        "top_k": None,
        "top_p": None,
        "seed": 0,
    }
    assert asked == [
        ("9 bot", defaults | {"top_k": 3, "top_p": 0.5, "seed": 7}),
        ("", defaults | {"temperature": 0.25}),
        ("", defaults | {"count": 3}),
        ("--- a line", defaults),
        ("-x", defaults),
    ]


def test_what_leaves_only_the_likeliest_writes_it(runs):
    likeliest = sample(runs / "text", "--temperature", "0")
    assert sample(runs / "text", "--top-k", "1") == likeliest
    assert sample(runs / "text", "--top-p", "1e-9") == likeliest
    assert sample(runs / "text", "--top-k", "0") == sample(runs / "text", "--top-p", "1")
    assert sample(runs / "text", "--top-k", "0") != likeliest


def test_words_that_the_model_does_not_know_are_named(runs):
    ended = command("sample", runs / "words", "--prompt", "bottles of wine", "--length", "40")
    assert ended.err == "The model does not know 'wine', and reads <unk> instead.\n"
    assert ended.out.startswith("bottles of wine ")
    assert "<unk>" not in ended.out
    assert command("sample", runs / "words", "--prompt", "bottles of beer").err == ""


@pytest.mark.parametrize(
    ("kind", "options", "wrong"),
    [
        ("text", ("--prompt", "Ω beer!"), "--prompt: expected characters of the training text"),
        ("text", ("--top-k", "-1"), "\"-1\" for --top-k"),
        ("text", ("--top-k", "1.5"), "--top-k"),
        ("text", ("--top-p", "0"), "--top-p: expected a number above 0 and up to 1, got 0"),
        ("text", ("--top-p", "1.5"), "--top-p: expected a number above 0 and up to 1, got 1.5"),
        ("text", ("--top-p", "nan"), "--top-p: expected a finite number"),
        ("text", ("--temperature", "-1"), "\"-1.0\" for --temperature"),
        ("text", ("--temperature", "nan"), "for --temperature"),
        ("text", ("--length", "0"), "\"0\" for --length"),
        ("text", ("--count", "0"), "\"0\" for --count"),
        ("text", ("--prompt", "a", "--prompt-file", "b"), "--prompt, --prompt-file: expected one"),
        ("text", ("--prompt-file", "no"), "--prompt-file: expected a file, got no: No such file"),
        ("text", ("--prompt-file", ""), "--prompt-file: expected a path, got nothing"),
        ("text", ("--out", "a.csv"), "--out: expected a name that ends in .txt or .jsonl, got"),
        ("text", ("--out", "no/a.txt"), "--out: there is no directory"),
        ("text", ("--seed", "-1"), "\"-1\" for --seed"),
        ("nowhere", (), "is not there"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_named(runs, kind, options, wrong):
    assert wrong in mistake("sample", runs / kind, *options)


def test_tabs_stay_tabs(monkeypatch, runs):
    written = [(0, "if:\n\tx "), (0, "[b] :beer:")]
    monkeypatch.setattr("jlstm.runs.use.write", lambda run, prompt, **options: iter(written))
    assert said("sample", runs / "text", "--prompt", "\t") == "\tif:\n\tx [b] :beer:\n"


def test_a_terminal_is_not_told_what_to_do_by_a_text():
    assert printable("a\x1b[2Jb\r\x07c\ud800 \n\tΩ") == "a�[2Jb��c� \n\tΩ"


# Several, and in files.


def test_several_texts_stand_under_their_numbers(runs):
    out = said("sample", runs / "text", "--prompt", "9 bottles", "--length", "40", "--count", "3")
    texts = use.samples(runs / "text", "9 bottles", 3, length=40, temperature=0.8)
    assert len(set(texts)) == 3
    assert out == "\n\n".join(
        f"--- {n} of 3 ---\n9 bottles{text}" for n, text in enumerate(texts, 1)
    ) + "\n"  # fmt: skip
    # The first one is what stands there alone.
    assert sample(runs / "text", "--prompt", "9 bottles") == f"9 bottles{texts[0]}\n"
    assert use.sample(runs / "text", "9 bottles", length=40, temperature=0.8) == texts[0]


def test_texts_in_a_file(runs, tmp_path):
    asked = ("sample", runs / "text", "--prompt", "9", "--length", "40", "--count", "2")
    shown = said(*asked)
    for name in ("a.txt", "a.jsonl"):
        ended = command(*asked, "--out", tmp_path / name)
        assert (ended.status, ended.out) == (0, "")
        assert ended.err == f"Written: {tmp_path / name}\n"
    assert (tmp_path / "a.txt").read_text() == shown
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    texts = use.samples(runs / "text", "9", 2, length=40, temperature=0.8)
    assert rows == [{"sample": n, "prompt": "9", "text": t} for n, t in enumerate(texts, 1)]


def test_a_file_is_there_as_a_whole_or_not_at_all(runs, tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        yield 0, "some"
        raise KeyboardInterrupt

    monkeypatch.setattr(use, "write", stopped)
    (tmp_path / "a.txt").write_text("before")
    ended = command("sample", runs / "text", "--out", tmp_path / "a.txt")
    assert ended == (130, "", "jlstm: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


# Prompts.


def test_a_prompt_comes_from_a_file_or_a_pipe(runs, tmp_path, monkeypatch):
    (tmp_path / "prompt.txt").write_bytes(b"9 bottles\r\nof")
    told = sample(runs / "text", "--prompt-file", tmp_path / "prompt.txt")
    assert told == sample(runs / "text", "--prompt", "9 bottles\r\nof")
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"9 bottles\r\nof")))
    assert sample(runs / "text", "--prompt-file", "-") == told


def test_bytes_that_are_no_text_go_from_a_prompt_into_the_files(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(use, "write", lambda run, prompt, **options: iter([(0, prompt + "é")]))
    (tmp_path / "prompt").write_bytes(b"a\xff")
    asked = ("sample", runs / "text", "--prompt-file", tmp_path / "prompt")
    assert said(*asked) == "a�a�é\n"
    for name in ("a.txt", "a.jsonl"):
        assert command(*asked, "--out", tmp_path / name).status == 0
    assert (tmp_path / "a.txt").read_bytes() == b"a\xffa\xff\xc3\xa9\n"
    row = json.loads((tmp_path / "a.jsonl").read_text("utf-8"))
    assert row == {"sample": 1, "prompt": "a\udcff", "text": "a\udcffé"}


# As it is written.


def test_a_piece_is_shown_before_the_next_is_asked_for(runs, monkeypatch):
    seen = []

    def write(run, prompt, **options):
        for text in ("some ", "more ", "text"):
            yield 0, text
            seen.append(sys.stdout.getvalue())

    monkeypatch.setattr(use, "write", write)
    said("sample", runs / "text", "--prompt", "Here: ")
    assert seen == ["Here: some ", "Here: some more ", "Here: some more text"]


def test_an_interrupt_leaves_a_whole_line(runs, monkeypatch):
    def write(run, prompt, **options):
        yield 0, "some"
        raise KeyboardInterrupt

    monkeypatch.setattr(use, "write", write)
    ended = command("sample", runs / "text", "--prompt", "Here: ")
    assert ended == (130, "Here: some\n", "jlstm: interrupted\n")


def test_the_text_is_laid_out_in_the_pieces_that_it_came_in():
    pieces = [(0, "a"), (0, "b"), (1, "c")]
    assert [*laid_out("P", pieces[:2], 1)] == ["P", "a", "b", "\n"]
    assert "".join(laid_out("P", pieces, 2)) == "--- 1 of 2 ---\nPab\n\n--- 2 of 2 ---\nPc\n"


# What a shell starts in the background ignores Ctrl-C, and hands that on to all that it starts.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jlstm.cli.main import main
main()
"""


@contextmanager
def process(*arguments):
    """The command as a person runs it; ended in two minutes at the latest."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        too_late = threading.Timer(120, running.kill)
        too_late.start()
        try:
            yield running
        finally:
            too_late.cancel()
            running.kill()


def test_who_stops_reading_is_told_nothing(runs):
    with process("sample", runs / "text", "--length", "1000000000") as writing:
        assert len(writing.stdout.read(20)) == 20
        writing.stdout.close()
        assert writing.stderr.read() == b""
        assert writing.wait() == 141


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_text_that_goes_on_for_ever_is_interrupted(runs):
    with process("sample", runs / "text", "--length", "2147483647") as writing:
        assert len(writing.stdout.read(20)) == 20
        writing.send_signal(signal.SIGINT)
        assert writing.stdout.read().endswith(b"\n")
        assert writing.stderr.read() == b"jlstm: interrupted\n"
        assert writing.wait() == 130
