"""Cross-validation: each sequence is judged once, by a model of others; nothing leaks."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.records import plain
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.folds import deal, pooled, relearn, resplits
from jlstm.tasks.sequences.labelled import PARTS
from jlstm.tasks.sequences.measures import accuracy, macro_f1, regression_scores
from jlstm.tasks.sequences.preparing import load, prepare
from jlstm.tasks.sequences.report import MODEL, Errors, judge_classes, judge_numbers

CONFIG = SequencesConfig(id="id", time="t", label="label", missing="mask")


def make_table(task="classify", count=24, seed=0):
    """Sequences of 2 to 4 steps: numbers with gaps, a category, what is constant, three classes."""
    draw = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        kind = ("a", "a", "b", "c")[n % 4]
        for t in range(2 + n % 3):
            x = "" if draw.random() < 0.2 else f"{draw.normal(n, 3):.3f}"
            label = {"classify": kind, "regress": f"{n * 1.5:.2f}", "tag": kind + "yz"[t % 2]}[task]
            color = "rgb"[int(draw.integers(3))] if n else "first"
            rows.append((f"s{n}", t, x, f"{draw.normal():.3f}", color, n // 23, label))
    names = ["id", "t", "x", "y", "color", "late", "label"]
    return pl.DataFrame(rows, schema=names, orient="row")


def prepared(folder, config=CONFIG, frame=None):
    folder.mkdir()
    frame = make_table(config.task) if frame is None else frame
    frame.write_csv(folder / "in.csv")
    prepare(config, [folder / "in.csv"], folder)
    return folder


def cut(config, folder, count, to):
    """What each fold's folder has."""
    found = []
    for name, fill in resplits(config, folder, count):
        own = fill(to / name)
        assert own == config
        found.append(load(own, to / name))
    return found


# The folds.


@given(
    classes=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    count=st.integers(2, 12),
    seed=st.integers(0, 9),
)
def test_folds_differ_by_one_at_most_in_size_and_in_each_class(classes, count, seed):
    classes = np.asarray(classes)
    folds = deal(classes, len(classes), count, seed)
    assert ((folds >= 0) & (folds < count)).all()
    for members in (classes >= 0, *(classes == c for c in range(4))):
        sizes = np.bincount(folds[members], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, deal(classes, len(classes), count, seed))


def test_another_seed_deals_otherwise_and_order_tells_nothing():
    assert (deal(None, 50, 5, 0) != deal(None, 50, 5, 1)).any()
    assert (np.diff(deal(None, 50, 5, 0)) % 5 != 1).any()


@pytest.mark.parametrize("task", ["classify", "regress", "tag"])
def test_each_sequence_is_in_one_test_part_and_none_is_lost(tmp_path, task):
    config = replace(CONFIG, task=task)
    parts = [p.parts for p in cut(config, prepared(tmp_path / "run", config), 5, tmp_path)]
    tested = np.sum([part == PARTS.index("test") for part in parts], axis=0)
    np.testing.assert_array_equal(tested, np.ones(24))
    for part in parts:
        assert set(part) == {0, 1, 2}


def test_classes_are_spread_over_the_folds(tmp_path):
    for one in cut(CONFIG, prepared(tmp_path / "run"), 3, tmp_path):
        for name in ("train", "test"):
            assert set(one.data.targets[one.part(name)]) == {0, 1, 2}
        assert np.bincount(one.data.targets[one.part("test")]).tolist() == [4, 2, 2]


def test_the_same_run_gives_the_same_folds(tmp_path):
    folder = prepared(tmp_path / "run")
    one, two = (cut(CONFIG, folder, 4, tmp_path / to) for to in ("one", "two"))
    other = cut(replace(CONFIG, seed=1), folder, 4, tmp_path / "other")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.parts, b.parts)
        np.testing.assert_array_equal(a.data.values, b.data.values)
    assert any((a.parts != b.parts).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("task", ["classify", "regress", "tag"])
@pytest.mark.parametrize("missing", ["mask", "error"])
def test_a_fold_is_what_would_have_been_made_of_the_file(tmp_path, task, missing):
    config = replace(CONFIG, task=task, missing=missing)
    frame = make_table(task)
    if missing == "error":
        frame = frame.drop("x")
    folder = prepared(tmp_path / "run", config, frame)
    features = load(config, folder).schema.features
    # What the training part of the run did not tell, a fold cannot know.
    assert "first" in {name for feature in features for name in feature.categories or ()}
    for n, one in enumerate(cut(config, folder, 4, tmp_path)):
        of = {f"s{n}": PARTS[part] for n, part in enumerate(one.parts)}
        said = frame.with_columns(pl.col("id").replace_strict(of).alias("part"))
        direct = replace(config, split="part", features=tuple(f.name for f in features))
        wanted = load(direct, prepared(tmp_path / f"direct-{n}", direct, said))
        assert [f.name for f in one.schema.features] == [f.name for f in wanted.schema.features]
        for got, want in zip(one.schema.features, wanted.schema.features, strict=True):
            assert (got.masked, got.categories) == (want.masked, want.categories)
            assert got.mean == pytest.approx(want.mean, abs=1e-4)
            assert got.scale == pytest.approx(want.scale, rel=1e-5)
        np.testing.assert_allclose(one.data.values, wanted.data.values, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.data.targets, wanted.data.targets, rtol=1e-4, atol=1e-5)
        assert one.schema.mean == pytest.approx(wanted.schema.mean, rel=1e-5)
        assert one.schema.scale == pytest.approx(wanted.schema.scale, rel=1e-5)


def test_scales_know_nothing_of_the_fold(tmp_path):
    frame = make_table()
    folder = prepared(tmp_path / "run", frame=frame)
    found = load(CONFIG, folder)
    parts = np.where(np.arange(24) < 4, 2, np.where(np.arange(24) < 8, 1, 0))
    schema, (values, *_) = relearn(CONFIG, found, parts)
    loud = found.data.values.copy()
    held_out = np.repeat(parts > 0, found.data.lengths)
    loud[held_out] = 77.0
    other, (changed, *_) = relearn(
        CONFIG, found._replace(data=found.data._replace(values=loud)), parts
    )
    assert other == schema
    np.testing.assert_array_equal(changed[~held_out], values[~held_out])


# What cannot be.


@pytest.mark.parametrize("count", [25, 24])
def test_more_folds_than_sequences_are_refused(tmp_path, count):
    folder = prepared(tmp_path / "run")
    if count == 24:  # each sequence a fold of its own
        assert len(resplits(CONFIG, folder, count)) == 24
        return
    with pytest.raises(ValueError, match="folds: expected at most the 24 sequences, got 25"):
        resplits(CONFIG, folder, count)


def test_two_folds_of_three_sequences_leave_too_little(tmp_path):
    config = replace(CONFIG, task="tag")
    folder = prepared(tmp_path / "run", config, make_table("tag", 3))
    with pytest.raises(ValueError, match="folds: expected more than 2 for 3 sequences, "):
        resplits(config, folder, 2)
    assert len(resplits(config, folder, 3)) == 3


def test_one_fold_is_none(tmp_path):
    with pytest.raises(ValueError, match="folds: expected at least 2, got 1"):
        resplits(CONFIG, prepared(tmp_path / "run"), 1)


def test_sequences_that_belong_together_are_not_torn_apart(tmp_path):
    config = replace(CONFIG, split="part")
    with pytest.raises(ValueError, match=r"folds: .* were split by chance"):
        resplits(config, tmp_path, 3)


def test_what_went_on_from_another_run_may_know_the_fold(tmp_path):
    config = replace(CONFIG, from_=tmp_path / "old")
    with pytest.raises(ValueError, match="folds: expected a run that began with nothing"):
        resplits(config, tmp_path, 3)


# Judged together.


def errors_of(confusions):
    """Errors in as many sequences as there are labels, the first ones of each."""
    count = int(confusions[MODEL].sum())
    wrong = {who: np.arange(count) < count - np.trace(c) for who, c in confusions.items()}
    return Errors(np.ones(count), {who: w.astype(float) for who, w in wrong.items()})


def evaluations(config, labels, draw, folds=3):
    """Of each fold: targets, and what each says of them."""
    found, seen = [], []
    for n in range(folds):
        if config.task == "regress":
            true = draw.normal(size=8 + n)
            says = {
                who: true + draw.normal(0, 0.1 + k, len(true))
                for k, who in enumerate((MODEL, "mean"))
            }
            judged = judge_numbers({"sequences": len(true), "steps": 30}, true, says, [])
            seen.append((true, says))
        else:
            says = {
                who: draw.integers(0, 9, (3, 3)) + 20 * (who == MODEL) * np.eye(3, dtype=int)
                for who in (MODEL, "majority", "nearest neighbour")
            }
            total = int(says[MODEL].sum())
            found_so_far = {"sequences": total, "steps": 99}
            judged = judge_classes(config, found_so_far, labels, says, errors_of(says), [])
            seen.append(says)
        found.append(judged)
    return found, seen


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_confusions_are_added_and_folds_compared(tmp_path, weights):
    config = replace(CONFIG, class_weights=weights)
    folder = prepared(tmp_path / "run", config)
    found, seen = evaluations(config, ("a", "b", "c"), np.random.default_rng(0))
    judged = pooled(config, folder, found, found[0])
    total = sum(says[MODEL] for says in seen)
    results = judged.results
    assert results["measures"][MODEL] == {"accuracy": accuracy(total), "macro_f1": macro_f1(total)}
    assert results["confusion"] == total.tolist()
    assert results["sequences"] == sum(e.results["sequences"] for e in found)
    each = [accuracy(says[MODEL]) for says in seen]
    over = results["over_folds"][MODEL]["accuracy"]
    assert over == {
        "mean": pytest.approx(np.mean(each)),
        "std": pytest.approx(np.std(each, ddof=1)),
    }
    assert len(results["folds"]) == 3
    assert "The model beats the baselines" in judged.verdict
    assert judged.verdict.endswith("It is better in 3 of 3 folds.")
    assert plain(results) == results
    assert (folder / "plots" / "confusion-folds.png").exists()
    row = judged.tables[-1].rows[0]
    assert row[:2] == (MODEL, f"{np.mean(each):.2%} ± {np.std(each, ddof=1):.2%}")
    assert judged.tables[-1].best == [0]


def test_numbers_are_judged_as_one(tmp_path):
    config = replace(CONFIG, task="regress")
    folder = prepared(tmp_path / "run", config)
    found, seen = evaluations(config, (), np.random.default_rng(0))
    judged = pooled(config, folder, found, found[0])
    true = np.concatenate([t for t, _ in seen])
    said = np.concatenate([says[MODEL] for _, says in seen])
    assert judged.results["measures"][MODEL] == regression_scores(true, said)
    assert judged.results["over_folds"][MODEL].keys() == {"mae", "rmse", "r2"}
    assert judged.verdict.endswith("It is better in 3 of 3 folds.")


def test_a_worse_model_is_said_to_be_so(tmp_path):
    folder = prepared(tmp_path / "run")
    good, bad = np.eye(3, dtype=int) * 5, np.ones((3, 3), int)
    says = {MODEL: bad, "majority": good, "nearest neighbour": bad}
    known = {"sequences": 9, "steps": 9}
    one = judge_classes(CONFIG, known, ("a", "b", "c"), says, errors_of(says), [])
    judged = pooled(CONFIG, folder, [one, one], one)
    assert "WORSE" in judged.verdict
    assert judged.verdict.endswith("It is better in 0 of 2 folds.")
    assert judged.tables[-1].best == [1]
