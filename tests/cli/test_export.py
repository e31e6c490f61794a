"""`jlstm export` and `import`: models that run without jlstm, and files that it can take in."""

import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from command_line import command

import jlstm
from jlstm.interop.onnx import to_onnx
from jlstm.interop.stablehlo import to_stablehlo
from jlstm.interop.torch import to_torch, write_state
from jlstm.runs.kinds import task_of
from jlstm.runs.run import start
from jlstm.runs.state import save_best
from jlstm.runs.use import load
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.sequences.predictions import find_scores
from jlstm.tasks.sequences.preparing import load as load_sequences
from jlstm.tasks.table.calibrating import keep
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.table.model import Calibration, forecast
from jlstm.tasks.table.preparing import load as load_table
from jlstm.tasks.table.training import model_config
from jlstm.tasks.table.windows import cut, find_windows, make_panel
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.model import logits
from jlstm.tasks.text.training import model_config as language_model_config
from jlstm.train import Best

ROUNDING = 2e-6
"""A dozen roundings of float32: sums of at most some dozens of terms, in another order."""

WALL = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(60))
HOURS = [f"2020-01-{1 + n // 24:02d} {n % 24:02d}:00" for n in range(120)]
LOADS = [
    f"{hour},{who},{1000 * k + math.sin(n / 4) + n % 3:.3f},{20 + 9 * k + n % 4},"
    f"{3 + 5 * k + n % 5},{k}"
    for k, who in enumerate("ab")
    for n, hour in enumerate(HOURS)
]
STEPS = [
    f"{s},{t},{50 + (3 * t + s % 2) % 5},{('red', 'blue')[(s + t) % 2]},{'ab'[s % 2]},{s % 3}"
    for s in range(30)
    for t in range(2 + s % 5)
]
FILES = {
    "beer.txt": WALL,
    "load.csv": "\n".join(["when,who,load,heat,price,size", *LOADS, ""]),
    "kinds.csv": "\n".join(["id,step,x,colour,kind,y", *STEPS, ""]),
}
TINY = {"hidden": 4, "streams": 2, "time": 4, "embedding": 3}
HOURLY = {"time": "when", "group": "who", "horizon": 4, "hidden": 4, "season": 1}
LABELLED = {"id": "id", "time": "step", "hidden": 4}
CONFIGS = {
    "text": TextConfig(**TINY),
    "tied": TextConfig(**TINY | {"hidden": 3}, tokens="word", tied=True),
    "narrowing": TextConfig(**TINY, tied=True),
    "zoneout": TextConfig(**TINY, tokens="byte", zoneout=0.2, recurrent_dropout=0.1),
    "table": TableConfig(
        **HOURLY, target="load", lookback=9, patch=2, past="heat", known_future="price",
        static="size", missing="fill", quantiles=(0.1, 0.2, 0.5, 0.9),
    ),
    "bare": TableConfig(
        **HOURLY, target=("heat", "load"), past="price", lookback=6, patch=3, layers=2,
        linear=False,
        calendar=False, quantiles=(0.5, 0.6, 0.9),
    ),
    "sequences": SequencesConfig(**LABELLED, label="kind", features=("x", "colour")),
    "tag": SequencesConfig(
        **LABELLED, label="kind", features="x", task="tag", bidirectional=False, layers=2
    ),
    "regress": SequencesConfig(**LABELLED, label="y", features="x", task="regress"),
}  # fmt: skip
OF = {TextConfig: "beer.txt", TableConfig: "load.csv", SequencesConfig: "kinds.csv"}
TARGETS = ("onnx", "stablehlo", "safetensors", "torch")
NEEDS = {"onnx": "onnxruntime", "stablehlo": "flatbuffers", "torch": "torch"}
REFUSED = {("zoneout", "onnx"), ("zoneout", "torch"), ("narrowing", "torch")}
CASES = [(name, to) for name in CONFIGS for to in TARGETS if (name, to) not in REFUSED]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs whose weights are all random, as a long training would leave them."""
    folder, files = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("files")
    for name, content in FILES.items():
        (files / name).write_text(content)
    for seed, (name, config) in enumerate(CONFIGS.items()):
        options = {**vars(config), "out": folder, "name": name}
        config = type(config)(**options)
        run = start(config, files / OF[type(config)], say=lambda said: None)
        job, draw = task_of(config).build(config, run), np.random.default_rng(seed)
        params = jax.tree.map(
            lambda a, draw=draw: (0.5 * draw.standard_normal(a.shape)).astype(a.dtype), job.template
        )
        save_best(run, Best(1.0, 1, params), job)
        if isinstance(config, TableConfig):
            keep(run, params, calibration_of(params, draw))
    return folder


def calibration_of(params, draw):
    """One that changes each distance between quantiles, the series differently."""
    series, (_, *steps) = len(params.embedding), params.readout.shape
    arrays = draw.uniform(0.3, 3, (series, *steps)), draw.uniform(0.1, 1, series), np.array(0.75)
    return Calibration(*(array.astype(np.float32) for array in arrays))


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    """Exports of the runs, each made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def export(name, to):
        if to in NEEDS:
            pytest.importorskip(NEEDS[to])
        if (name, to) not in made:
            out = folder / f"{name}-{to}"
            ended = command("export", runs / name, "--to", to, "--out", out)
            assert (ended.status, ended.err) == (0, "")
            assert f"python {out}/use_it.py" in ended.out.replace("\n", " ")
            made[name, to] = out
        return made[name, to]

    return export


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def used(folder, elsewhere):
    """What the script prints, and the output of the model, in a process without jlstm."""
    blocker = elsewhere / "blocker"
    blocker.mkdir(exist_ok=True)
    (blocker / "jlstm.py").write_text("raise ImportError('jlstm is not here')")
    code = (
        "import runpy, sys, numpy\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "known = runpy.run_path(sys.argv[1] + '/use_it.py', run_name='__main__')\n"
        "numpy.savez(sys.argv[2], found=known['found'])\n"
        "try: import jlstm\n"
        "except ImportError: print('without jlstm')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, folder, elsewhere / "outputs.npz"],
        cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(blocker)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    *printed, last = ran.stdout.splitlines()
    assert last == "without jlstm"
    return printed, arrays(elsewhere / "outputs.npz")["found"]


def ours(run, example):
    """What jlstm computes of the same example, by the functions that judge and predict."""
    trained = load(run, say=lambda said: None)
    config, params = trained.config, trained.params
    if isinstance(config, TextConfig):
        model = language_model_config(config, len(params.embedding))
        return logits(model, params, None, example["tokens"])[1]
    if isinstance(config, TableConfig):
        _, schema, series = load_table(run)
        panel = make_panel(series, schema)
        batch = cut(panel, find_windows(series, panel, "test").evenly(3))
        return forecast(model_config(config, schema), params, batch)
    prepared = load_sequences(config, run)
    chosen = prepared.part("test")[:3]
    scores = find_scores(config, prepared.schema, params, prepared.data, chosen)
    if config.task != "tag":
        return scores
    steps = np.split(scores, np.cumsum(example["lengths"])[:-1])
    full = np.tile(np.asarray(params.readout_bias), (len(example["xs"]), 3, 1))
    for n, own in enumerate(steps):
        full[: len(own), n] = own
    return full


def assert_close(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < ROUNDING * max(1, np.abs(expected).max())


@pytest.mark.grid(3)
@pytest.mark.parametrize(("name", "to"), CASES, ids=map("-".join, CASES))
def test_the_script_computes_without_jlstm_what_jlstm_does(runs, exports, tmp_path, name, to):
    folder = exports(name, to)
    printed, output = used(folder, tmp_path)
    about = json.loads((folder / "model.json").read_text())
    expected = ours(runs / name, arrays(folder / "example.npz"))
    assert np.ptp(expected) > 0.1
    assert_close(output, expected)
    assert_close(arrays(folder / "expected.npz")[about["output"]], expected)
    said, _, number = printed[-1].rpartition(" ")
    assert said == "Differs from jlstm by"
    assert float(number) < ROUNDING * max(1, np.abs(expected).max())
    if about["model"] == "table":  # what is printed is in the units of the file
        number = arrays(folder / "example.npz")["series"][0]
        mean, std = (about["scale"]["values"][of][number] for of in ("mean", "std"))
        rows = " ".join(printed[1:-1]).replace("[", " ").replace("]", " ").split()
        np.testing.assert_allclose(np.array(rows, float), (output[:, 0] * std + mean).ravel(), 1e-4)
    lines = (folder / "use_it.py").read_text().splitlines()
    code = lines[max(n for n, line in enumerate(lines) if re.match("import|from", line)) + 1 :]
    assert sum(map(bool, code)) <= 10
    assert max(map(len, lines)) <= 100


def test_what_is_exported_of_a_table_is_calibrated(runs):
    trained = load(runs / "table", say=lambda said: None)
    _, schema, series = load_table(runs / "table")
    panel = make_panel(series, schema)
    batch = cut(panel, find_windows(series, panel, "test").evenly(3))
    config = model_config(trained.config, schema)
    with_it, without = (
        np.asarray(forecast(config, trained.params._replace(calibration=c), batch))
        for c in (trained.params.calibration, None)
    )
    apart = np.abs(with_it - without).max(axis=(0, 1))
    assert (apart[[0, 1, 3]] > 0.1).all()
    assert apart[2] == 0


@pytest.mark.parametrize("name", ["table", "bare"])
def test_windows_of_a_table_are_in_its_units(exports, name):
    folder = exports(name, "safetensors")
    about = json.loads((folder / "model.json").read_text())
    example = arrays(folder / "example.npz")
    rows = [line.split(",") for line in LOADS]
    for window, number in enumerate(example["series"]):
        of = about["series"][number]
        own = np.array([row[2:] for row in rows if row[1] == of["name"]], float)
        table = dict(zip(("load", "heat", "price"), own.T[:3], strict=True))
        given = [(of["target"], example["values"][:, window])]
        given += [
            (column, example[part][:, window, n])
            for part in ("past", "known")
            for n, column in enumerate(about["columns"][part])
            if column in table
        ]
        assert len(given) == {"table": 3, "bare": 2}[name]
        assert any(
            # To a rounding of float32, in which the windows were scaled.
            all(np.allclose(table[of][n : n + len(v)], v, atol=2e-3, rtol=0) for of, v in given)
            for n in range(len(own) - HOURLY["horizon"] - len(given[0][1]) + 1)
        )


def test_the_columns_of_a_table_are_named_in_their_order(exports):
    about = json.loads((exports("table", "safetensors") / "model.json").read_text())
    assert about["columns"]["past"] == ["heat", "1 where the target is known, else 0"]
    assert about["columns"]["known"] == ["price"]
    assert about["columns"]["about"][0] == "size"
    assert about["quantiles"] == [0.1, 0.2, 0.5, 0.9]


def test_the_columns_of_sequences_are_named_in_their_order(exports):
    folder = exports("sequences", "safetensors")
    about = json.loads((folder / "model.json").read_text())
    assert about["columns"] == ["x", "colour is blue", "colour is red"]
    assert about["labels"] == ["a", "b"]
    example = arrays(folder / "example.npz")
    first = example["xs"][: example["lengths"][0], 0]
    assert set(np.round(first[:, 0])) <= {50, 51, 52, 53, 54}
    assert set(np.round(first[:, 1:], 6).ravel()) <= {0, 1}


@pytest.mark.parametrize(
    ("name", "kind"), [("text", "char"), ("tied", "word"), ("zoneout", "byte")]
)
def test_the_vocabulary_reads_the_example(exports, name, kind):
    folder = exports(name, "safetensors")
    about = json.loads((folder / "model.json").read_text())
    tokens = arrays(folder / "example.npz")["tokens"][:, 0]
    assert about["vocabulary"]["kind"] == kind
    known = about["vocabulary"]["tokens"]
    assert {"byte": "a byte", "char": "a character", "word": "white space"}[kind] in about[
        "vocabulary"
    ]["reading"]
    if kind == "byte":
        assert bytes(tokens.tolist()).decode() in WALL
    else:
        read = [known[n] for n in tokens]
        assert ("" if kind == "char" else " ").join(read[1:6]) in WALL


@pytest.mark.parametrize("name", ["text", "tied"])
def test_a_text_model_in_onnx_can_be_stepped(runs, exports, name):
    folder = exports(name, "onnx")
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(folder / "model.onnx"))
    tokens = arrays(folder / "example.npz")["tokens"]
    tokens = np.concatenate([tokens, tokens[::-1]], axis=1)  # two streams
    names = [out.name for out in session.get_outputs()]
    state, scores = {}, []
    for t in range(len(tokens)):
        given = {"tokens": tokens[t : t + 1], **state}
        step = dict(zip(names, session.run(names, given), strict=True))
        scores.append(step.pop("logits"))
        state = {name.removesuffix("_last"): value for name, value in step.items()}
    assert {*state} == {"h_0", "c_0", "h_1", "c_1"}
    assert_close(np.concatenate(scores), ours(runs / name, {"tokens": tokens}))


def test_a_text_model_in_stablehlo_and_numpy_can_be_stepped(runs, exports):
    pytest.importorskip("flatbuffers")
    from jlstm.interop.stablehlo import from_stablehlo

    folder = exports("zoneout", "stablehlo")
    example = arrays(folder / "example.npz")
    program = from_stablehlo(folder / "model.stablehlo")
    tokens, state = example["tokens"], example["state"]
    first = program.call(tokens=tokens[:10], state=state)
    rest = program.call(tokens=tokens[10:], state=first["state"])
    whole = np.concatenate([first["logits"], rest["logits"]])
    expected = ours(runs / "zoneout", example)
    assert_close(whole, expected)

    folder = exports("zoneout", "safetensors")
    known = {}
    exec((folder / "model.py").read_text(), known)
    from safetensors.numpy import load_file

    weights = load_file(folder / "stack.safetensors") | load_file(folder / "around.safetensors")
    sizes = json.loads((folder / "model.json").read_text())["sizes"]
    first = known["text"](weights, sizes, tokens[:10], state)
    rest = known["text"](weights, sizes, tokens[10:], first["state"])
    assert_close(np.concatenate([first["logits"], rest["logits"]]), expected)


def test_a_model_in_onnx_is_hardly_larger_than_its_weights(tmp_path):
    """Of a size at which the nodes do not count."""
    pytest.importorskip("onnx")
    config = TextConfig(
        **TINY | {"hidden": 96, "embedding": 64, "out": tmp_path, "name": "large", "layers": 1}
    )
    file = tmp_path / "beer.txt"
    file.write_text(WALL)
    run = start(config, file, say=lambda said: None)
    job = task_of(config).build(config, run)
    save_best(run, Best(1.0, 1, job.init(jax.random.key(0))), job)
    command("export", run, "--to", "onnx", "--out", tmp_path / "out")
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(job.template))
    assert size < (tmp_path / "out" / "model.onnx").stat().st_size < 1.2 * size


# Mistakes.


def mistake(*arguments):
    """The line in which it ends."""
    ended = command(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err.startswith("jlstm: ")
    assert ended.err.count("\n") == 1
    return ended.err


@pytest.mark.parametrize(
    ("run", "options", "wrong"),
    [
        ("nowhere", "--to onnx --out new", "expected the folder of a run"),
        ("text", "--to onnx --out there", "--out: expected the name of a new folder"),
        ("text", "--to onnx --out no/new", "--out: expected a folder to make new in"),
        ("text", "--to tflite --out new", "tflite"),
        ("text", "--out new", "--to"),
        ("zoneout", "--to onnx --out new", "zoneout_c: expected what ONNX's LSTM can represent"),
        ("zoneout", "--to torch --out new", "zoneout_c: expected what torch.nn.LSTM can represent"),
        ("narrowing", "--to torch --out new", "one size for all layers"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_named_and_leaves_nothing(
    runs, tmp_path, monkeypatch, run, options, wrong
):
    monkeypatch.chdir(tmp_path)
    if "onnx" in wrong.lower():
        pytest.importorskip("onnx")
    (tmp_path / "there").mkdir()
    assert wrong in mistake("export", runs / run, *options.split())
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_without_a_name_the_folder_is_named_after_the_run(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = command("export", runs / "text", "--to", "safetensors")
    assert (ended.status, ended.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["text-safetensors"]
    assert "python text-safetensors/use_it.py" in ended.out
    assert "expected the name of a new folder" in mistake(
        "export", runs / "text", "--to", "safetensors"
    )


def test_an_export_that_fails_leaves_nothing(runs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("jlstm.exporting.folder.script", full)
    assert "no space left" in mistake(
        "export", runs / "text", "--to", "safetensors", "--out", tmp_path / "new"
    )
    assert [*tmp_path.iterdir()] == []


# Import.


PLAIN = jlstm.Stack(sizes=(4, 2), bidirectional=True)
INPUT = 3


@pytest.fixture(scope="module")
def weights():
    params = jlstm.init_stack(jax.random.key(1), INPUT, PLAIN)
    return jax.tree.map(np.asarray, params)


def found(path):
    """What it says of a file: the first line and the code."""
    ended = command("import", path)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def loaded(said, **given):
    """What the three lines make of it, for each LSTM that was found."""
    results, lines = [], [line.strip() for line in said.splitlines() if line.startswith("    ")]
    for n in range(0, len(lines), 3):
        assert lines[n] == "import jlstm"
        known = dict(given)
        exec("\n".join(lines[n : n + 3]), known)
        results.append(SimpleNamespace(**known))
    return results


def assert_the_same(one, params, xs):
    _, hs = jlstm.stack(PLAIN, params, None, xs)
    assert one.config == PLAIN
    assert_close(one.hs, hs)


@pytest.fixture
def xs():
    return np.random.default_rng(2).standard_normal((5, 2, INPUT)).astype(np.float32)


def test_a_file_of_ours_says_what_it_is(tmp_path, weights, xs):
    jlstm.save(tmp_path / "a.safetensors", PLAIN, weights)
    said = found(tmp_path / "a.safetensors")
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    assert said.startswith(f"jlstm: 3 inputs to 4 outputs, {count:,} parameters of float32.\n")
    assert "Stack(sizes=(4, 2), bidirectional=True)" in said
    (one,) = loaded(said, xs=xs)
    assert_the_same(one, weights, xs)


def test_a_state_dict_may_have_several(tmp_path, weights, xs):
    path = tmp_path / "torch.safetensors"
    write_state(path, to_torch(jlstm.Stack(sizes=4), other(4), prefix="a.b."))
    (one,) = loaded(found(path), xs=xs)
    assert one.config == jlstm.Stack(sizes=4)
    both = to_torch(jlstm.Stack(sizes=4), other(4), prefix="encoder.")
    both |= to_torch(jlstm.Stack(sizes=6), other(6), prefix="decoder.")
    write_state(path, both)
    said = found(path)
    assert 'PyTorch, "encoder.": 3 inputs to 4 outputs' in said
    sizes = sorted(one.config.sizes for one in loaded(said, xs=xs))
    assert sizes == [(4,), (6,)]


def other(size):
    params = jlstm.init_stack(jax.random.key(size), INPUT, jlstm.Stack(sizes=size))
    return jax.tree.map(np.asarray, params)


def test_nodes_of_onnx_become_one_stack(tmp_path, weights, xs):
    pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(PLAIN, weights).SerializeToString())
    said = found(path)
    assert "ONNX, 2 layers one upon the other: 3 inputs to 4 outputs" in said
    (one,) = loaded(said, xs=xs)
    assert_the_same(one, weights, xs)


# Keras's variables become NumPy's arrays in the way of before NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_weights_of_keras(tmp_path, keras, xs):
    layers = [keras.layers.LSTM(4, return_sequences=True), keras.layers.LSTM(2)]
    model = keras.Sequential([keras.Input((None, INPUT)), *layers])
    model.save_weights(tmp_path / "k.weights.h5")
    said = found(tmp_path / "k.weights.h5")
    assert "Keras, 2 layers one upon the other: 3 inputs to 2 outputs" in said
    (one,) = loaded(said, xs=xs)
    assert one.config == jlstm.Stack(sizes=(4, 2))
    theirs = np.asarray(model(xs.swapaxes(0, 1)))
    assert_close(np.asarray(one.hs[-1]), theirs)


def test_a_program_says_how_it_is_called(tmp_path, weights, xs):
    pytest.importorskip("flatbuffers")
    path = tmp_path / "p.stablehlo"
    path.write_bytes(to_stablehlo(PLAIN, weights))
    said = found(path)
    assert "for cpu, cuda, tpu" in said
    assert f"xs float32[t, b, {INPUT}] to hs float32[t, b, 4]" in said
    (one,) = loaded(said, xs=xs)
    _, hs = jlstm.stack(PLAIN, weights, None, xs)
    assert_close(np.asarray(one.outputs["hs"]), hs)


def test_what_was_exported_can_be_taken_in(exports):
    for name, to, file in (
        ("text", "onnx", "model.onnx"),
        ("text", "safetensors", "stack.safetensors"),
    ):
        (one,) = loaded(found(exports(name, to) / file), xs=np.zeros((2, 1, 3), np.float32))
        assert one.config.sizes == (4, 4)


@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.onnx", "a.h5", "a.stablehlo", "a.txt", "no.onnx"]
)
def test_a_file_that_is_no_such_file_is_refused(tmp_path, name):
    if not name.startswith("no"):
        (tmp_path / name).write_bytes(b"\x08nothing of the kind" * 9)
    if name.endswith("stablehlo"):
        pytest.importorskip("flatbuffers")
    mistake("import", tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("end", ["safetensors", "pt", "h5", "onnx", "stablehlo"])
def test_what_has_no_end_is_not_waited_for(tmp_path, end):
    os.mkfifo(tmp_path / f"pipe.{end}")
    (tmp_path / f"folder.{end}").mkdir()
    (tmp_path / f"zeros.{end}").symlink_to("/dev/zero")
    for path in [*tmp_path.iterdir()]:
        assert "expected a file, got a folder, a pipe or a device" in mistake("import", path)


def test_what_was_cut_short_is_refused(tmp_path, weights):
    pytest.importorskip("onnx")
    jlstm.save(tmp_path / "a.safetensors", PLAIN, weights)
    (tmp_path / "m.onnx").write_bytes(to_onnx(PLAIN, weights).SerializeToString())
    for path in [*tmp_path.iterdir()]:
        path.write_bytes(path.read_bytes()[:-100])
        mistake("import", path)


def test_damaged_files_end_in_a_line(tmp_path, weights):
    """Whatever bytes are changed: either it is noticed, or there is a stack to speak of."""
    pytest.importorskip("onnx")
    jlstm.save(tmp_path / "a.safetensors", PLAIN, weights)
    write_state(tmp_path / "t.safetensors", to_torch(jlstm.Stack(sizes=4), other(4)))
    (tmp_path / "m.onnx").write_bytes(to_onnx(PLAIN, weights).SerializeToString())
    draw = np.random.default_rng(3)
    for path in [*tmp_path.iterdir()]:
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for n in range(40):
            harmed = whole.copy()
            first = 600 if n % 2 else len(whole)  # the header has more to say
            harmed[draw.integers(0, first, 3)] = draw.integers(0, 256, 3)
            path.write_bytes(harmed.tobytes())
            ended = command("import", path)
            assert ended.status in (0, 2)
            assert ended.err.count("\n") == (ended.status == 2)


def test_the_weights_of_a_run_are_told_from_a_model(runs):
    assert "jlstm export RUN" in mistake("import", runs / "text" / "best.safetensors")
