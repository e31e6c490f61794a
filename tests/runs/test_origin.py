"""Runs that begin with what another one has learnt: made longer, or trained on another file."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import labelled, nothing, result, table, text

from jlstm.records import read_json_lines
from jlstm.runs import run as jobs
from jlstm.runs.folder import read_config, summaries
from jlstm.runs.kinds import task_of
from jlstm.runs.origin import inherited, lengthen, like
from jlstm.runs.state import restore
from jlstm.runs.use import load_best
from jlstm.train import make_optimizer, make_train_step

MAKERS = {"table": table, "text": text, "sequences": labelled}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The function from a kind to a finished run, and its file; each is trained once."""

    @cache
    def trained(kind):
        path = tmp_path_factory.mktemp(kind) / "file.csv"
        config = replace(MAKERS[kind](path), name="old")
        return jobs.train(config, path, say=nothing).folder, path

    return trained


def everything(folder):
    """All that is in a folder, with the times at which it was changed."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def stopped_on_the_way(folder, *steps):
    """Train to the end, stopped after so many steps of each part of the way."""
    for count in steps:
        asked = iter([False] * (count - 1) + [True])
        outcome = jobs.resume(folder, say=nothing, interrupted=lambda a=asked: next(a))
        assert not outcome.finished
    assert jobs.resume(folder, say=nothing).finished


# Made longer.


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_longer_run_is_the_same_however_often_it_is_made_and_stopped(old, kind):
    folder, _ = old(kind)
    before = everything(folder)
    one, other = (lengthen(folder, steps=41, name=f"longer-{n}", say=nothing) for n in (1, 2))
    assert (one.parent, other.parent) == (folder.parent, folder.parent)
    assert jobs.resume(one, say=nothing).step == 41
    stopped_on_the_way(other, 1, 6)
    assert result(one, 41) == result(other, 41)
    assert everything(folder) == before


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", ["text", "table", "sequences"])  # a text's memory goes on, too
def test_state_and_data_go_on_and_the_rate_begins_again(old, kind):
    folder, _ = old(kind)
    longer = lengthen(folder, steps=31, say=nothing)
    jobs.resume(longer, say=nothing)

    config = read_config(folder)
    job = task_of(config).build(config, folder)
    state, _ = restore(folder, config, job, nothing)
    optimizer = make_optimizer(
        1.0, 31, begin=24, warmup=config.warmup and 5, weight_decay=config.weight_decay
    )
    step = make_train_step(job.loss, optimizer)
    losses = []
    for n in range(24, 31):
        state, metrics = step(state, job.batch(n))
        losses.append(float(metrics["loss"]))

    config = read_config(longer)
    found, _ = restore(longer, config, task_of(config).build(config, longer), nothing)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    records = read_json_lines(longer / "metrics.jsonl")
    assert [r["loss"] for r in records[24:]] == losses
    assert records[:24] == read_json_lines(folder / "metrics.jsonl")  # the course is one


def test_the_best_parameters_are_still_those_of_the_run_before(old):
    folder, _ = old("table")
    longer = lengthen(folder, steps=30, learning_rate=100.0, say=nothing)  # which does no good
    said = []
    outcome = jobs.resume(longer, say=said.append)
    assert outcome.best.step <= 24
    for name in ("best.safetensors", "best.json"):
        assert (longer / name).read_bytes() == (folder / name).read_bytes()
    assert f"Going on where {folder} ended, after step 24." in said
    assert f"Nothing was better than what {folder} had learnt, and that is kept." in said


def test_a_run_that_ended_for_want_of_better_parameters_gets_its_patience_back(tmp_path):
    path = tmp_path / "file.csv"
    config = replace(table(path), patience=1, steps=60, learning_rate=30.0, name="old")
    ended = jobs.train(config, path, say=nothing)
    assert ended.step < 60
    longer = lengthen(ended.folder, steps=60, learning_rate=1e-3, say=nothing)
    assert jobs.resume(longer, say=nothing).step > ended.step


def test_the_length_can_be_told_in_epochs(old):
    folder, _ = old("sequences")  # 6 steps an epoch
    longer = lengthen(folder, epochs=5, say=nothing)
    assert read_config(longer).epochs == 5
    assert jobs.resume(longer, say=nothing).step == 30
    with pytest.raises(ValueError, match=r"^epochs: expected more than the 4 of .*, got 4$"):
        lengthen(folder, epochs=4, say=nothing)


def test_a_longer_run_needs_nothing_of_the_one_before_and_can_be_made_longer(old, tmp_path):
    folder = shutil.copytree(old("text")[0], tmp_path / "old")
    one = lengthen(folder, steps=27, name="one", say=nothing)
    shutil.rmtree(folder)
    one = one.rename(tmp_path / "moved")
    assert summaries(tmp_path)[0].step == 24
    assert jobs.resume(one, say=nothing).step == 27
    two = lengthen(one, steps=29, name="two", say=nothing)
    assert jobs.resume(two, say=nothing).step == 29
    assert [r["step"] for r in read_json_lines(two / "metrics.jsonl")] == list(range(1, 30))


def test_without_a_good_checkpoint_it_begins_where_the_run_before_ended(old):
    folder, _ = old("table")
    whole, damaged = (lengthen(folder, steps=33, say=nothing) for _ in range(2))
    jobs.resume(whole, say=nothing)
    jobs.resume(damaged, say=nothing, interrupted=iter([False] * 6 + [True]).__next__)
    for record in (damaged / "checkpoints").glob("*.json"):
        record.unlink()
    said = []
    assert jobs.resume(damaged, say=said.append).finished
    assert "There is no good checkpoint: starting from the beginning." in said
    assert result(damaged, 33) == result(whole, 33)


def harm(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_what_cannot_be_made_longer_is_named_and_leaves_nothing(old, tmp_path):
    folder = shutil.copytree(old("table")[0], tmp_path / "old")

    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            lengthen(folder, say=nothing, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["old"]

    refused("^steps: expected more than the 24 of .*old, got 24$", steps=24)
    refused("^steps, epochs: expected the length of the longer run, got none$")
    refused("^epochs, steps: expected one of them, got 2.0 and 30$", steps=30, epochs=2.0)
    with pytest.raises(FileExistsError, match="name: there is a run"):
        lengthen(folder, steps=30, name="old", say=nothing)
    with pytest.raises(OSError, match=r"expected the folder of a run, but .* is not there"):
        lengthen(tmp_path / "nowhere", steps=30, say=nothing)
    harm(folder / "checkpoints" / "24" / "state" / "manifest.ocdbt")
    refused("checkpoints: expected the checkpoint of step 24, the last, as it was", steps=30)
    (folder / "result.json").unlink()
    refused("^run: expected one that has finished, got .*old; see jlstm resume", steps=30)


def test_a_damaged_beginning_is_noticed(old, tmp_path):
    longer = lengthen(old("table")[0], steps=30, say=nothing)
    harm(longer / "start" / "24" / "state" / "manifest.ocdbt")
    with pytest.raises(ValueError, match="start: expected what the run begins with, got none"):
        jobs.resume(longer, say=nothing)


# On another file.


def another(kind, path, tmp_path):
    """A file of the same form, which differs."""
    lines = path.read_text().splitlines(keepends=True)
    own = tmp_path / "another.csv"
    fewer = [line.replace("wall", "ball") for line in lines[40:200]]  # without a w
    kept = {"text": fewer, "table": [lines[0], *lines[150:500]]}
    own.write_text("".join(kept.get(kind) or [lines[0], *lines[1:250]]))
    return own


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_training_on_another_file_begins_with_the_best_parameters(old, kind, tmp_path):
    folder, path = old(kind)
    before = everything(folder)
    file = another(kind, path, tmp_path)
    runs = [
        jobs.start(like(folder, steps=13, out=tmp_path, name=name, seed=3), file, say=nothing)
        for name in ("one", "two")
    ]
    # Before anything is trained: the parameters, and what they take a text or a table for.
    learnt, begun = load_best(folder, say=nothing), load_best(runs[0], say=nothing)
    jax.tree.map(np.testing.assert_array_equal, begun.params, learnt.params)
    assert begun.step == 0
    assert same_scales(kind, folder, runs[0])
    file.unlink()
    moved = folder.rename(folder.parent / "away")  # it is not needed any more
    try:
        assert jobs.resume(runs[0], say=nothing).step == 13
        stopped_on_the_way(runs[1], 2, 5)
    finally:
        moved.rename(folder)
    assert result(runs[0], 13) == result(runs[1], 13)
    assert everything(folder) == before
    assert [r["step"] for r in read_json_lines(runs[0] / "metrics.jsonl")] == list(range(1, 14))


def same_scales(kind, one, two):
    if kind == "text":
        files = [folder / "data" / "vocabulary.json" for folder in (one, two)]
        return files[0].read_bytes() == files[1].read_bytes()
    name, parts = {
        "table": ("table.json", ("mean", "std", "naive", "season", "cycles", "lookback", "names")),
        "sequences": ("sequences.json", ("features", "labels", "mean", "scale")),
    }[kind]
    known = [json.loads((folder / "data" / name).read_text()) for folder in (one, two)]
    known = [k.get("schema", k) for k in known]
    return all(known[0][part] == known[1][part] for part in parts)


def test_it_is_told_what_the_model_was_worth_before_and_that_it_got_no_better(old, tmp_path):
    folder, path = old("table")
    said = []
    config = like(folder, steps=6, learning_rate=100.0, out=tmp_path, name="run")
    run = jobs.start(config, another("table", path, tmp_path), say=said.append)
    loss = load_best(run, say=nothing).loss
    assert said[0] == (
        f"The model of {folder}: {loss:.4g} quantile loss, in standard deviations, on the new data "
        "for validation."
    )
    outcome = jobs.resume(run, say=said.append)
    assert (outcome.best.step, outcome.best.loss) == (0, loss)
    assert f"Nothing was better than what {folder} had learnt, and that is kept." in said
    jax.tree.map(
        np.testing.assert_array_equal,
        load_best(run, say=nothing).params,
        load_best(folder, say=nothing).params,
    )


def test_what_is_not_asked_for_is_as_it_was_but_for_length_and_place(old):
    folder, _ = old("sequences")
    config = like(folder, batch=4)
    theirs = read_config(folder)
    assert (config.batch, theirs.batch) == (4, 8)
    assert config.from_ == folder
    assert (config.steps, config.name, config.out) == (None, None, Path("runs"))
    assert (config.hidden, config.id, config.learning_rate) == (6, "walk", 1.0)
    assert {*inherited(theirs)}.isdisjoint({"from_", "epochs", "steps", "out", "name", "split"})


@pytest.mark.parametrize(
    ("kind", "option", "value", "said"),
    [
        ("text", "hidden", 9, "hidden: expected 8, with which the model of .*old was made, got 9"),
        ("text", "tokens", "byte", "tokens: expected char, .* got byte"),
        ("table", "horizon", 5, "horizon: expected 4, .* got 5"),
        ("table", "target", "wind", "target: expected load, .* got wind"),
        ("table", "past", "wind,rain", "past: expected nothing, .* got wind,rain"),
        ("table", "season", 7, "season: expected nothing, .* got 7"),
        ("sequences", "label", "who", "label: expected label, .* got who"),
        ("sequences", "bidirectional", False, "bidirectional: expected True, .* got False"),
    ],
)
def test_what_is_part_of_the_model_cannot_be_changed(old, kind, option, value, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        like(old(kind)[0], **{option: value})


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("text", lambda t: t.replace("beer", "Bière"), "files: expected chars of the vocab.*'è'"),
        ("table", lambda t: t.replace("hour,load", "hour,wind"), "target: .*got 'load'"),
        ("table", lambda t: t[:300], "training: expected at least 20 rows"),
        ("sequences", lambda t: t.replace("x,label", "y,label"), "features: .*got 'x'"),
        ("sequences", lambda t: t.replace(",a\n", ",c\n"), "the model knows .a, b., got 'c'"),
        ("sequences", lambda t: t.replace("walk,t", "walk,when"), "got 't'"),
    ],
)  # fmt: skip
def test_a_file_that_the_model_does_not_fit_is_named(old, kind, change, said, tmp_path):
    folder, path = old(kind)
    file = another(kind, path, tmp_path)
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=said):
        jobs.start(like(folder, steps=6, out=tmp_path / "runs"), file, say=nothing)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_kind_and_one_that_has_learnt_nothing_are_refused(old, tmp_path):
    folder, path = old("text")
    config = replace(read_config(old("table")[0]), from_=folder, name="other")
    with pytest.raises(ValueError, match=r"from_: expected a run of jlstm train table, got .*text"):
        jobs.start(config, path, say=nothing)
    begun = jobs.start(replace(text(tmp_path / "f"), name="begun"), tmp_path / "f", say=nothing)
    with pytest.raises(ValueError, match=r"run: expected a trained model in .*begun, but nothing"):
        jobs.start(like(begun, out=tmp_path / "runs"), path, say=nothing)
    with pytest.raises(OSError, match=r"expected the folder of a run, but .* is not there"):
        like(tmp_path / "nowhere")
