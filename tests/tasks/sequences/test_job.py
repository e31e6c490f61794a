"""The job of labelled sequences: from a user's table to a judged model, and what may be wrong."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np
import polars as pl
import pytest

from jlstm.devices import place
from jlstm.plots import plot_confusion
from jlstm.tasks.sequences import training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.job import FILES, build, evaluate, predict, prepare
from jlstm.tasks.sequences.labels import class_weights
from jlstm.tasks.sequences.preparing import load, places_of_targets
from jlstm.train import init_train_state, make_optimizer, make_train_step

CONFIG = SequencesConfig(
    id="id", time="t", label="label", hidden=6, batch=8, buckets=2, epochs=2, learning_rate=1e-2
)
LENGTHS = (2, 3, 5, 6, 9)


def make_table(task="classify", count=60, seed=0):
    """Sequences in which something comes before something else, or after it."""
    draw = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        length = LENGTHS[n % len(LENGTHS)]
        x = draw.normal(size=length)
        kind = draw.choice(["red", "green", "blue"], length)
        for t in range(length):
            up = x[-1] > x[0] if task == "classify" else t and x[t] > x[t - 1]
            label = f"{x.sum():.4f}" if task == "regress" else ("up" if up else "down")
            rows.append((f"s{n}", str(t), f"{x[t]:.4f}", str(kind[t]), label))
    return pl.DataFrame(rows, schema=["id", "t", "x", "kind", "label"], orient="row")


def written(frame, path):
    frame.write_csv(path)
    return path


def prepared(tmp_path, frame=None, config=CONFIG, name="run"):
    folder = tmp_path / name
    folder.mkdir()
    frame = make_table(config.task) if frame is None else frame
    prepare(config, [written(frame, tmp_path / "in.csv")], folder)
    return folder


def trained(config, folder, steps=None):
    job = build(config, folder)
    optimizer = make_optimizer(config.learning_rate, steps or job.steps)
    step = make_train_step(job.loss, optimizer)
    state = init_train_state(job.init(jax.random.key(0)), optimizer)
    state = place(state) if job.devices > 1 else state
    for n in range(steps or job.steps):
        state, metrics = step(state, job.batch(n))
    assert np.isfinite(metrics["loss"])
    return job, step, jax.device_get(state.params)


def test_what_was_prepared_is_all_that_is_needed_later(tmp_path):
    folder = prepared(tmp_path)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(FILES)
    (tmp_path / "in.csv").unlink()
    moved = folder.rename(tmp_path / "elsewhere")
    job = build(CONFIG, moved)
    assert job.score == "nats per sequence, smoothed"
    known = json.loads((moved / "data" / "sequences.json").read_text("utf-8"))
    assert known["labels"] == ["down", "up"]
    assert [feature["name"] for feature in known["features"]] == ["x", "kind"]
    assert any("60 sequences: 42 for train, 6 for validation, 12 for test" in s for s in job.about)
    assert job.steps == 2 * job.epoch


@pytest.mark.slow
def test_each_bucket_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "COMPILING", 0)
    config = replace(CONFIG, epochs=3, buckets=4)
    folder = prepared(tmp_path)
    job, step, params = trained(config, folder)
    times = {job.batch(n).xs.shape[0] for n in range(job.steps)}
    assert len(times) == step._cache_size() == 3
    assert any("3 programs to compile for training, 1 " in sentence for sentence in job.about)
    assert job.validate(params) == job.validate(params)


def test_no_more_programs_are_compiled_than_pay(tmp_path):
    folder = prepared(tmp_path)
    for epochs, said in ((2, "padded to 9"), (10_000, "padded to 5, 6, 9")):
        job = build(replace(CONFIG, epochs=epochs, buckets=4), folder)
        assert any(f"Lengths from 2 to 9 are {said}: " in sentence for sentence in job.about)


def test_where_all_have_one_length_there_is_no_padding(tmp_path):
    frame = make_table().filter(pl.col("t") < "2")
    job = build(CONFIG, prepared(tmp_path, frame))
    said = "All sequences for training have length 2; 1 program to compile for training, 1 program "
    assert any(sentence.startswith(said) for sentence in job.about)
    assert not any("padding" in sentence for sentence in job.about)


@pytest.mark.parametrize(("label", "told"), [("1.5", True), ("1.0", False), ("nan?", False)])
def test_numbers_that_are_taken_for_classes_are_told_of(tmp_path, label, told):
    frame = make_table().with_columns(pl.col("label").replace({"up": label, "down": "2"}))
    job = build(CONFIG, prepared(tmp_path, frame))
    assert any("--task regress" in sentence for sentence in job.about) == told


def test_an_epoch_goes_through_the_training_part_and_nothing_else(tmp_path):
    folder = prepared(tmp_path)
    job = build(CONFIG, folder)
    known = load(CONFIG, folder)
    train = known.part("train")
    orders = []
    for epoch in range(2):
        batches = [job.batch(epoch * job.epoch + n) for n in range(job.epoch)]
        assert sum(map(job.per_step, batches)) == len(train)
        got = np.concatenate([b.xs[np.arange(b.xs.shape[0])[:, None] < b.lengths] for b in batches])
        rows = places_of_targets(replace(CONFIG, task="tag"), known.data, train)
        expected = known.data.values[rows]
        np.testing.assert_array_equal(np.sort(got, axis=0), np.sort(expected, axis=0))
        orders.append(got)
    assert np.any(orders[0] != orders[1])  # another order each time
    # Any batch can be had again, without those before it.
    fresh = build(CONFIG, folder)
    jax.tree.map(np.testing.assert_array_equal, data_of(fresh.batch(5)), data_of(job.batch(5)))
    other = build(replace(CONFIG, seed=1), folder)
    assert any(not np.array_equal(other.batch(n).xs, job.batch(n).xs) for n in range(job.epoch))


def data_of(batch):
    return (*batch[:4], jax.random.key_data(batch.key))


def test_the_scale_is_that_of_the_training_part(tmp_path):
    frame = make_table().with_columns(
        part=pl.Series(["test" if id in ("s0", "s7") else "train" for id in make_table()["id"]])
    )
    far = frame.with_columns(
        x=pl.when(pl.col("part") == "test").then(pl.lit("1000")).otherwise(pl.col("x"))
    )
    far = far.sample(fraction=1, shuffle=True, seed=2)  # the rows of a sequence anywhere
    config = replace(CONFIG, split="part")
    known = load(config, prepared(tmp_path, far, config))
    feature = known.schema.features[0]
    rows = places_of_targets(replace(config, task="tag"), known.data, known.part("train"))
    x = known.data.values[rows, 0].astype(np.float64)
    assert (x.mean(), x.std()) == pytest.approx((0, 1), abs=1e-6)
    assert abs(feature.mean) < 1
    assert (len(known.part("test")), len(known.part("validation"))) == (2, 6)


def test_a_column_says_what_is_for_the_test(tmp_path):
    parts = {f"s{n}": ["train", "Validation", "test"][min(n % 4, 2)] for n in range(60)}
    frame = make_table().with_columns(part=pl.col("id").replace_strict(parts))
    config = replace(CONFIG, split="part")
    known = load(config, prepared(tmp_path, frame, config))
    assert [len(known.part(name)) for name in ("train", "validation", "test")] == [15, 15, 30]
    assert [f.name for f in known.schema.features] == ["x", "kind"]


@pytest.mark.grid(2)
@pytest.mark.parametrize("task", ["classify", "regress", "tag"])
def test_the_validation_does_not_depend_on_the_size_of_a_batch(tmp_path, task):
    config = replace(CONFIG, task=task, class_weights="none" if task == "regress" else "balanced")
    folder = prepared(tmp_path, config=config)
    params = build(config, folder).init(jax.random.key(3))
    draw = jax.random.normal(jax.random.key(4), params.readout.shape, params.readout.dtype)
    params = params._replace(readout=draw)
    other = replace(config, batch=3, buckets=1)
    loss = build(config, folder).validate(params)
    assert loss > 0.1
    assert build(other, folder).validate(params) == pytest.approx(loss, rel=1e-5)  # float32
    results, others = (evaluate(c, folder, params).results for c in (config, other))
    assert results["measures"]["LSTM"] == pytest.approx(others["measures"]["LSTM"], rel=1e-5)


def test_a_model_learns_what_the_baselines_do_not_see(tmp_path):
    config = replace(CONFIG, task="tag", epochs=40, hidden=12, dropout=0.1, input_dropout=0.0)
    folder = prepared(tmp_path, make_table("tag", 120), config)
    *_, params = trained(config, folder)
    judged = evaluate(config, folder, params)
    measures = judged.results["measures"]
    assert measures["LSTM"]["accuracy"] > measures["nearest neighbour"]["accuracy"] + 0.05
    assert measures["nearest neighbour"]["accuracy"] > measures["majority"]["accuracy"]
    assert judged.verdict.startswith("The model beats the baselines")
    assert np.sum(judged.results["confusion"]) == judged.results["steps"]
    assert (folder / "plots" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert len(judged.tables) == 2


def test_a_model_of_numbers_is_judged_in_their_units(tmp_path):
    config = replace(CONFIG, task="regress", epochs=30, dropout=0.0, input_dropout=0.0)
    folder = prepared(tmp_path, config=config)
    job, _, params = trained(config, folder)
    assert job.score == "squared error, scaled"
    measures = evaluate(config, folder, params).results["measures"]
    frame = make_table("regress")
    known = load(config, folder)
    true = frame.unique("id", maintain_order=True)["label"].cast(pl.Float64).to_numpy()
    test, train = known.part("test"), known.part("train")
    assert measures["mean"]["mae"] == pytest.approx(
        np.abs(true[test] - true[train].mean()).mean(), rel=1e-5
    )
    assert measures["LSTM"]["rmse"] < measures["mean"]["rmse"]
    predict(config, folder, params, tmp_path / "in.csv", tmp_path / "out.csv")
    got = pl.read_csv(tmp_path / "out.csv")["predicted"].to_numpy()
    assert 1 < known.schema.scale < 10
    np.testing.assert_array_equal(got, np.round(got, 3))
    assert np.abs(got - true)[test].mean() == pytest.approx(measures["LSTM"]["mae"], abs=0.0005)


def test_a_model_that_loses_is_said_to(tmp_path):
    folder = prepared(tmp_path)
    params = build(CONFIG, folder).init(jax.random.key(0))
    biased = params._replace(readout_bias=params.readout_bias.at[1].set(1))
    fresh = [evaluate(CONFIG, folder, p) for p in (params, biased)]  # always one class, and other
    accuracies = [judged.results["measures"]["LSTM"]["accuracy"] for judged in fresh]
    assert sum(accuracies) == pytest.approx(1)
    for judged in fresh:
        assert judged.verdict.startswith(("The model is WORSE than a baseline", "The model is no "))


def test_rare_classes_count_more_if_asked_to(tmp_path):
    np.testing.assert_allclose(
        class_weights(np.array([0, 0, 0, 2]), 3), [4 / 6, 1, 4 / 2], rtol=1e-6
    )
    frame = make_table().with_columns(
        label=pl.when(pl.col("id").is_in([f"s{n}" for n in range(12)]))
        .then(pl.lit("rare"))
        .otherwise(pl.lit("often"))
    )
    config = replace(CONFIG, class_weights="balanced")
    known = load(config, prepared(tmp_path, frame, config))
    train = known.part("train")
    by_class = [known.data.weights[train][known.data.targets[train] == k].sum() for k in (0, 1)]
    assert by_class == pytest.approx([len(train) / 2] * 2)


def test_labels_come_with_their_probabilities(tmp_path):
    folder = prepared(tmp_path)
    *_, params = trained(CONFIG, folder, steps=2)
    frame = make_table(seed=5).drop("label").reverse()
    notes = predict(
        CONFIG, folder, params, written(frame, tmp_path / "new.csv"), tmp_path / "out.csv"
    )
    assert not notes
    got = pl.read_csv(tmp_path / "out.csv")
    assert got.columns == ["id", "predicted", "p_down", "p_up"]
    assert got["id"].to_list() == frame["id"].unique(maintain_order=True).to_list()
    p = got.select("p_down", "p_up").to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(p, p.astype(np.float32).astype(str).astype(np.float64))
    said = np.where(p[:, 1] > p[:, 0], "up", "down")
    assert got["predicted"].to_list() == said.tolist()
    # The order of the rows has no influence, nor has the company that a sequence is in.
    alone = frame.filter(pl.col("id") == "s7")
    predict(CONFIG, folder, params, written(alone, tmp_path / "new.csv"), tmp_path / "a.parquet")
    one = pl.read_parquet(tmp_path / "a.parquet")
    assert one["p_up"][0] == pytest.approx(got.filter(pl.col("id") == "s7")["p_up"][0], rel=1e-5)


def test_tags_come_in_the_order_of_the_file(tmp_path):
    config = replace(CONFIG, task="tag")
    folder = prepared(tmp_path, config=config)
    *_, params = trained(config, folder, steps=4)
    frame = make_table("tag", count=7, seed=5)
    mixed = frame.sample(fraction=1, shuffle=True, seed=1)
    outs = []
    for n, one in enumerate((frame, mixed)):
        out = tmp_path / f"{n}.parquet"
        predict(config, folder, params, written(one, tmp_path / "new.csv"), out)
        outs.append(pl.read_parquet(out))
    assert outs[1].select("id", "t").equals(mixed.select("id", "t"))
    assert outs[0]["p_up"].n_unique() > 5
    joined = outs[0].join(outs[1], on=["id", "t"])
    np.testing.assert_allclose(joined["p_up"], joined["p_up_right"], rtol=1e-5)


def test_an_unknown_category_is_said_and_an_unknown_label_is_an_error(tmp_path):
    folder = prepared(tmp_path)
    params = build(CONFIG, folder).init(jax.random.key(0))
    frame = make_table(count=3)
    odd = frame.with_columns(kind=pl.lit("pink"))
    notes = predict(
        CONFIG, folder, params, written(odd, tmp_path / "odd.csv"), tmp_path / "out.csv"
    )
    assert len(notes) == 1
    assert "'pink', row 2" in notes[0]
    judged = evaluate(CONFIG, folder, params, written(odd, tmp_path / "odd.csv"))
    assert judged.results["sequences"] == 3
    assert notes[0] in judged.notes
    assert (folder / "plots" / "confusion-odd.png").exists()
    wrong = frame.with_columns(label=pl.lit("sideways"))
    with pytest.raises(
        ValueError,
        match=r"column 'label', row 2: expected a label that the model knows \(down, up\), got 's",
    ):
        evaluate(CONFIG, folder, params, written(wrong, tmp_path / "wrong.csv"))


def test_the_file_of_the_training_is_told(tmp_path):
    folder = prepared(tmp_path)
    params = build(CONFIG, folder).init(jax.random.key(0))
    said = evaluate(CONFIG, folder, params, tmp_path / "in.csv").notes[0]
    assert said.startswith("This is the very file that the run was trained on: 42 of 60 sequences")
    other = written(make_table(seed=1), tmp_path / "other.csv")
    notes = evaluate(CONFIG, folder, params, other).notes
    assert not any("very file" in note for note in notes)


def test_without_a_test_part_the_validation_part_is_judged(tmp_path):
    config = replace(CONFIG, test=0.0)
    folder = prepared(tmp_path, config=config)
    judged = evaluate(config, folder, build(config, folder).init(jax.random.key(0)))
    assert judged.results["part"] == "validation"
    assert any("no test part" in note for note in judged.notes)


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    params = build(CONFIG, folder).init(jax.random.key(0))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    judged = evaluate(CONFIG, folder, params)
    assert any("matplotlib is not installed" in note for note in judged.notes)


def test_the_picture_shows_each_count_once(tmp_path, monkeypatch):
    figures = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    confusion = np.array([[7, 3], [0, 5]])
    plot_confusion(confusion, ["down", "up"], tmp_path / "a.png", title="On paper")
    axes = figures[0].axes[0]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0, 0): "7", (1, 0): "3", (0, 1): "", (1, 1): "5"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.7, 0.3], [0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["down", "up"]
    assert (axes.get_ylabel(), axes.get_title()) == ("true", "On paper")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.png"]


GOOD = "id,t,x,label\n" + "".join(f"s{n},0,{n},{'ab'[n % 2]}\n" for n in range(8))


@pytest.mark.parametrize("change", ["crlf", "bom", "semicolon", "parquet"])
def test_files_as_people_have_them(tmp_path, change):
    path = tmp_path / "in.csv"
    if change == "parquet":
        path = tmp_path / "in.parquet"
        pl.read_csv(GOOD.encode()).write_parquet(path)
    else:
        text = GOOD.replace(",", ";") if change == "semicolon" else GOOD
        text = text.replace("\n", "\r\n") if change == "crlf" else text
        path.write_bytes((b"\xef\xbb\xbf" if change == "bom" else b"") + text.encode())
    (tmp_path / "run").mkdir()
    prepare(CONFIG, [path], tmp_path / "run")
    known = load(CONFIG, tmp_path / "run")
    assert known.schema.labels == ("a", "b")
    np.testing.assert_array_equal(known.data.lengths, np.ones(8))


def test_a_table_of_sequences_may_be_written_in_other_ways(tmp_path):
    rows = [(f"{n // 2},5", f"0{1 + n % 2}/02/2016", f"{n},25", f"3.{n % 2}") for n in range(16)]
    rows = [(*row, f"{n // 4},5") for n, row in enumerate(rows)]
    text = "\n".join("|".join(row) for row in [("id", "t", "x y", "version", "label"), *rows])
    (tmp_path / "in.csv").write_text(text, "utf-16")
    options = {"separator": "|", "encoding": "utf-16", "time_format": "%d/%m/%Y", "decimal": ","}
    config = replace(CONFIG, task="regress", **options)
    (tmp_path / "run").mkdir()
    with pytest.raises(
        ValueError, match=r"column 'version', row 2: .* as --decimal says, got '3\.0"
    ):
        prepare(config, [tmp_path / "in.csv"], tmp_path / "run")
    config = replace(config, categories="version")
    prepare(config, [tmp_path / "in.csv"], tmp_path / "run")
    schema, data, parts = load(config, tmp_path / "run")
    numbers = data.values[:, 0] * schema.features[0].scale + schema.features[0].mean
    np.testing.assert_allclose(numbers, np.arange(16) + 0.25, rtol=1e-5)
    assert schema.features[1].categories == ("3.0", "3.1")
    labels = data.targets * schema.scale + schema.mean
    np.testing.assert_allclose(labels, np.arange(8) // 2 + 0.5, rtol=1e-5)
    params = build(config, tmp_path / "run").init(jax.random.key(0))
    predict(config, tmp_path / "run", params, tmp_path / "in.csv", tmp_path / "out.csv")
    assert pl.read_csv(tmp_path / "out.csv")["id"].to_list() == [f"{n},5" for n in range(8)]
    assert len(parts) == 8


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("", {}, "expected a table, got an empty file"),
        ("id,t,x,label\n", {}, "expected rows below the header, got none"),
        (b"id,t,x,label\ns,0,\xff,a\n", {}, "expected text in UTF-8, got byte 0xff at offset 17"),
        ("id,t,x,label\ns,0,1,a\n", {}, "label: expected at least two classes|sequences: expected"),
        (GOOD, {"label": "lable"}, "label: expected a column of the table .*is it 'label'"),
        (GOOD, {"features": "y"}, "features: expected a column of the table"),
        (GOOD.replace("s3,0,3", "s3,0,three"), {}, "column 'x', row 5: expected a number, got 'th"),
        (GOOD.replace("s3,0,3", "s3,0,"), {}, "row 5: expected a value, got none; --missing mask"),
        (GOOD.replace("s3,0,3,b", "s3,0,3,"), {}, "row 5: expected a label, got an empty cell"),
        (GOOD.replace("s3,0,3,b", "s3,0,3,NaN"), {}, "'label', row 5: .* got 'NaN', which stands"),
        (GOOD.replace("s3,0,3,b", "s3,0,3,null"), {"task": "tag"}, "row 5: .* got 'null', which s"),
        (GOOD.replace("s0,0,0", "s0,0,-1e300").replace("s1,0,1", "s1,0,1e300"), {"task": "regress",
         "label": "x", "features": "label"}, "column 'x': expected values whose standard devia"),
        (GOOD.replace("s3,0,3", "s3,0,1e300"), {"task": "regress", "label": "x", "features":
         "label"}, "column 'x', row 5: expected a number of the size of those in the training"),
        (GOOD + "s3,1,3,a\n", {}, "row 10: expected one value in all rows of sequence 's3', got "),
        (GOOD + "s3,0,3,b\n", {}, "row 10: expected each time once in sequence 's3', got 0 as in"),
        (GOOD.replace(",b", ",a"), {}, "label: expected at least two classes, got only 'a'"),
        (GOOD, {"task": "regress"}, "column 'label', row 2: expected a number, got 'a'"),
        (GOOD, {"label": "x", "features": "label"}, "8 different labels; of numbers: --task "),
        (GOOD, {"split": "label"}, "split: expected the name of a column of its own"),
        (GOOD, {"split": "x"}, "row 2: expected train, validation or test, got '0'"),
        (GOOD, {"features": "t"}, "expected a column with more than one value in the training"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_in_a_line(tmp_path, content, options, said):
    path = tmp_path / "in.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match=said) as caught:
        prepare(replace(CONFIG, **options), [path], tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "run").iterdir()]


def test_what_is_wrong_with_the_arguments_is_said(tmp_path):
    with pytest.raises(ValueError, match="files: expected one table, got 2"):
        prepare(CONFIG, [Path("a.csv"), Path("b.csv")], tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a file, got a path where there is none"):
        prepare(CONFIG, [tmp_path / "a.csv"], tmp_path)
    with pytest.raises(ValueError, match=r"out: expected a \.csv or \.parquet file, got x\.json"):
        predict(CONFIG, tmp_path, None, Path("a.csv"), Path("x.json"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "guess"}, "task: expected one of 'classify', 'regress', 'tag', got 'guess'"),
        ({"time": "id"}, "time: expected the name of a column of its own, got 'id'"),
        ({"label": ""}, "label: expected the name of a column of its own, got nothing"),
        ({"features": "x,label"}, "features: expected columns to learn from, got 'label'"),
        ({"validation": 0.0}, "validation: expected a finite number above 0 and below 1, got 0"),
        ({"validation": 0.5, "test": 0.5}, "expected to leave something to train on"),
        ({"dropout": 1.0}, "dropout: expected a finite number of at least 0 and below 1, got 1.0"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"missing": "fill"}, "missing: expected one of 'error', 'mask', got 'fill'"),
        (
            {"task": "regress", "class_weights": "balanced"},
            "class_weights: expected 'none' for the",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **options)


def test_columns_may_be_listed_in_one_string():
    assert replace(CONFIG, features="x, kind").features == ("x", "kind")
    assert replace(CONFIG, features=["x"]).features == ("x",)
    with pytest.raises(TypeError, match="id: expected the name of a column, got int 3"):
        replace(CONFIG, id=3)
