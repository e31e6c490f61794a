"""The page of a run: all of it is there, nothing is loaded, and no name becomes a tag."""

import html
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from small_runs import labelled, nothing, table, text

from jlstm.cli.main import build_app
from jlstm.extras import MissingExtraError
from jlstm.runs.folder import read_config, read_json, write_config
from jlstm.runs.origin import lengthen, like
from jlstm.runs.report import write_report
from jlstm.runs.run import start, train
from jlstm.runs.use import evaluate

EVIL = '<script>alert("1")</script>'
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """A page taken apart, by a reader who insists that what is opened is closed."""

    def __init__(self, source):
        super().__init__()
        self.source, self.tags, self.open, self.said = source, [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"th", "td"}:  # cells are apart
            self.said.append(" ")

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.said.append(data)

    @property
    def text(self):
        return " ".join("".join(self.said).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder):
    return Page((folder / "report.html").read_text("utf-8"))


def regressed(path):
    config = labelled(path)
    rows = path.read_text().replace(",a\n", ",1.5\n").replace(",b\n", ",2.5\n")
    path.write_text(rows)
    return replace(config, task="regress")


MAKE = {"text": text, "table": table, "labelled": labelled, "regressed": regressed}
KINDS = tuple(MAKE)


class Runs(dict):
    """A run of each kind, trained when it is asked for: its folder, and what it is worth."""

    def __init__(self, place):
        self.place = place

    def __missing__(self, kind):
        file = self.place.mktemp(kind) / "in.csv"
        config = MAKE[kind](file)
        outcome = train(replace(config, name="run"), file, say=nothing)
        self[kind] = (outcome.folder, outcome.evaluation)
        return self[kind]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory)


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the folder of a run, to be damaged."""

    def copied(kind):
        return shutil.copytree(runs[kind][0], tmp_path / "run")

    return copied


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_leaves_a_page_with_all_of_it(runs, kind):
    folder, judged = runs[kind]
    page = page_of(folder)
    for table_ in (*judged.tables, *judged.details):
        for row in ([table_.title], table_.columns, *table_.rows):
            assert all(" ".join(cell.split()) in page.text for cell in row)
    for sentence in (judged.verdict, *judged.notes, *read_json(folder / "about.json")):
        assert " ".join(sentence.split()) in page.text
    for option in read_json(folder / "config.json")["options"]:
        assert f"--{option.strip('_').replace('_', '-')}" in page.text
    for name, version in read_json(folder / "environment.json")["versions"].items():
        assert f"{name} {version or 'not installed'}" in page.text
    pictures = {"text": 1, "table": 2, "labelled": 2, "regressed": 2}  # one is that of the training
    assert len(page.all("img")) == pictures[kind]
    assert ("What the model writes" in page.text) == (kind == "text")


def test_the_verdict_comes_first(runs):
    folder, judged = runs["table"]
    page = page_of(folder)
    assert page.text.index(judged.verdict) < page.text.index("Evaluation")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_from_anywhere(runs, kind):
    page = page_of(runs[kind][0])
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on") or name == "srcset"]
    (style,) = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert not re.search(r"url\(|@import|http", style)
    assert "default-src 'none'" in page.source


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_read_by_all(runs, kind):
    page = page_of(runs[kind][0])
    assert page.all("html")[0]["lang"] == "en"
    assert "title" in {tag for tag, _ in page.tags}
    assert all(attributes["scope"] in {"row", "col"} for attributes in page.all("th"))
    assert all(attributes["alt"] for attributes in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    anchors = {attributes["href"][1:] for attributes in page.all("a")}
    assert anchors == {attributes["id"] for attributes in page.all("section")}


def test_no_name_becomes_a_tag(tmp_path):
    file = tmp_path / "in.csv"
    config = labelled(file)
    file.write_text(
        file.read_text()
        .replace("walk,t,x,label", f'walk,t,"{EVIL.replace(chr(34), chr(34) * 2)}",<b>$\\foo$')
        .replace(",a\n", f',"{EVIL.replace(chr(34), chr(34) * 2)} $\\frac$"\n')
    )
    config = replace(config, label="<b>$\\foo$", name="<i>&amp;")
    folder = train(config, file, say=nothing).folder
    page = page_of(folder)
    assert not page.all("script")
    assert not page.all("b")
    assert not page.all("i")
    assert EVIL in page.text
    assert "<i>&amp;" in page.text


def test_what_a_page_may_not_have_in_it_is_left_out(copy):
    folder = copy("text")
    path = folder / "evaluation/test.json"
    said = json.loads(path.read_text())
    said["for_people"]["sample"] = "a\x00b\x1bc\ud800d\te\nf"
    path.write_text(json.dumps(said))
    assert "a�b�c�d\te\nf" in write_report(folder).read_text("utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_run_gives_the_same_page(runs, copy, kind):
    folder = copy(kind)
    before = (folder / "report.html").read_bytes()
    moved = before.replace(str(runs[kind][0]).encode(), str(folder).encode())
    again = write_report(folder).read_bytes()
    assert without_log(again) == without_log(moved)


@pytest.mark.slow
def test_the_same_training_gives_the_same_page_but_for_the_seconds(runs, tmp_path):
    file = tmp_path / "in.csv"
    config = table(file)
    folder = train(replace(config, name="run"), file, say=nothing).folder
    pages = []
    for one in (runs["table"][0], folder):
        page = without_log((one / "report.html").read_bytes()).decode()
        page = page.replace(str(one.parent), "")
        pages.append(re.sub(r"<dd>[\d,]+ s</dd>", "", page))
    assert pages[0] == pages[1]


def without_log(page):
    """What was said of the seconds, and after the page was written, stands in the log."""
    return page.partition(b'<section id="log">')[0]


def test_a_judgement_of_a_file_is_in_the_page(copy, tmp_path):
    folder = copy("table")
    rows = "".join(f"2021-01-{1 + n // 24:02} {n % 24:02}:00,{n % 7}\n" for n in range(72))
    (tmp_path / "later.csv").write_text("hour,load\n" + rows)
    judged = evaluate(folder, tmp_path / "later.csv", say=nothing)
    page = page_of(folder)
    assert f"On the file {tmp_path / 'later.csv'}" in page.text
    assert judged.verdict in page.text
    assert len(page.all("img")) == 3


@pytest.mark.parametrize("harm", ["missing", "cut off", "no picture"])
def test_a_picture_that_is_not_there_is_told_of(copy, harm):
    folder = copy("table")
    path = folder / "plots/forecast.png"
    whole = path.read_bytes()
    path.unlink() if harm == "missing" else path.write_bytes(
        whole[:200] if harm == "cut off" else b"<svg onload=x>"
    )
    write_report(folder)
    page = page_of(folder)
    assert "The picture plots/forecast.png is not there, or damaged." in page.text
    assert len(page.all("img")) == 1


@pytest.mark.parametrize(
    "name",
    ["config.json", "result.json", "best.json", "metrics.jsonl", "timing.jsonl", "environment.json",
     "evaluation/test.json"],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["[]\n", '{"a": 1}\n', '{"a": 1}\n{"a"\n', "{\n"])
def test_a_damaged_file_is_named_in_a_line_and_the_page_stays(copy, name, damage):
    folder = copy("table")
    before = (folder / "report.html").read_bytes()
    if name.endswith("jsonl"):  # a last line that was cut off counts as not written
        damage += "[]\n{}\n"
    if name == "environment.json" and damage == '{"a": 1}\n':  # it may say what it likes
        damage = "[1]\n"
    (folder / name).write_text(damage)
    with pytest.raises(ValueError, match=re.escape(str(folder / name))) as raised:
        write_report(folder)
    assert "\n" not in str(raised.value)
    assert (folder / "report.html").read_bytes() == before


def test_a_run_of_before_has_a_page_too(copy):
    folder = copy("table")
    path = folder / "evaluation/test.json"
    said = json.loads(path.read_text())
    del said["for_people"]
    path.write_text(json.dumps(said))
    for name in ("about.json", "environment.json", "log.txt"):
        (folder / name).unlink()
    write_report(folder)
    page = page_of(folder)
    assert said["verdict"] in page.text
    assert "jlstm evaluate writes them" in page.text


def test_a_training_that_has_not_ended_has_a_page(tmp_path):
    file = tmp_path / "in.csv"
    folder = start(replace(table(file), name="run"), file, say=nothing)
    write_report(folder)
    page = page_of(folder)
    assert "is not known yet" in page.text
    assert "The training has not ended" in page.text


def test_a_page_is_there_whole_or_not_at_all(copy, monkeypatch):
    folder = copy("table")
    before = (folder / "report.html").read_bytes()

    def half(path, page, encoding):
        path.write_bytes(page[:100].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not [*folder.glob(".*.part")]


def test_without_jinja_no_training_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    config = table(tmp_path / "in.csv")
    with pytest.raises(MissingExtraError, match=r"pip install 'jlstm\[train\]'"):
        start(config, tmp_path / "in.csv", say=nothing)


# The command lines.


def asked(folder):
    """What the first command of a page asks for, as the command line reads it."""
    line = re.search(r"<pre>(jlstm .*?)</pre>", (folder / "report.html").read_text("utf-8"))[1]
    program, *arguments = shlex.split(html.unescape(line))
    assert program == "jlstm"
    command, bound, _ = build_app().parse_args(arguments, exit_on_error=False, print_error=False)
    return command, bound


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_asks_for_the_same(runs, kind):
    folder, _ = runs[kind]
    _, bound = asked(folder)
    assert replace(bound.arguments["config"], name="run") == read_config(folder)


def commands(folder):
    """All commands of a page."""
    page = html.unescape((folder / "report.html").read_text("utf-8"))
    return re.findall(r"<pre>jlstm (.*?)</pre>", page)


@pytest.mark.parametrize("kind", ["text", "table", "labelled"])
def test_every_command_can_be_typed(runs, kind):
    folder, _ = runs[kind]
    for line in commands(folder):
        arguments = shlex.split(line)
        bound = build_app().parse_args(arguments, exit_on_error=False, print_error=False)[1]
        if arguments[0] == "resume":
            assert bound.arguments["steps"] > read_config(folder).steps
        if "--config" in arguments:
            assert replace(bound.arguments["config"], name="run") == read_config(folder)
    assert sum("--config" in line for line in commands(folder)) == 1


def test_what_was_stopped_is_gone_on_with(tmp_path):
    file = tmp_path / "in.csv"
    folder = start(replace(table(file), name="run"), file, say=nothing)
    write_report(folder)
    assert f"resume {folder}" in commands(folder)


ODD = {
    "target": ("a, b", 'c "d"', "-e"), "quantiles": (0.05, 0.5, 0.95), "calendar": False,
    "separator": "\t", "tensorboard": True, "past": "-x y", "time_format": "%d/%m/%Y",
}  # fmt: skip


def test_odd_values_are_typed_as_they_are_read(tmp_path):
    config = replace(table(tmp_path / "in.csv"), **ODD, name="run")
    write_config(tmp_path, config, [tmp_path / "in.csv"])
    write_report(tmp_path)
    _, bound = asked(tmp_path)
    assert replace(bound.arguments["config"], name="run") == config


def test_a_longer_run_and_one_of_another_file_say_how_they_came_about(runs, tmp_path):
    folder, _ = runs["table"]
    longer = lengthen(folder, steps=30, name=f"longer-{tmp_path.name}", say=nothing)
    write_report(longer)
    command, bound = asked(longer)
    assert command.__name__ == "resume"
    assert bound.arguments["run"] == folder
    assert bound.arguments["steps"] == 30
    other = replace(like(folder, steps=3, hidden=6), name="other", out=tmp_path)
    file = folder.parent / "in.csv"
    tuned = start(other, file, say=nothing)
    write_report(tuned)
    _, bound = asked(tuned)
    assert replace(bound.arguments["config"], name="other") == other
