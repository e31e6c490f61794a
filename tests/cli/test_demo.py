"""`jlstm demo`, small: what it writes, what it says, how it ends."""

import json
import math
import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import jlstm.train
from jlstm import init_carry
from jlstm.cli.demo import FILES, DemoConfig, demo, judge, make_folder, repeated, shown
from jlstm.data.ngram import fit_ngram, ngram_bits
from jlstm.data.text import evaluation_windows, pydoc_text, split_text
from jlstm.devices import count_cores
from jlstm.models import init_language_model, language_model_loss, token_count
from jlstm.train import load_params, make_evaluate

SMALL = ("--hidden", "8", "--embedding", "4", "--streams", "2", "--time", "8", "--sample", "20")


def command(*arguments):
    return [sys.executable, "-m", "jlstm", "demo", *SMALL, *arguments]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        command("--steps", "6", "--compare-seconds", "0.1", "--out", str(out)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = out.iterdir()
    return folder, done


def test_it_writes_all_that_it_names(run):
    folder, done = run
    assert re.fullmatch(r"demo-\d{8}-\d{6}", folder.name)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert all(path.stat().st_size for path in folder.iterdir())
    for name in FILES:
        assert name in done.stdout
    assert str(folder) in done.stdout.replace("\n", "")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((folder / "config.json").read_text())
    assert (config["steps"], config["hidden"], config["seed"]) == (6, 8, 0)


def test_it_trains_on_all_cores(run):
    _, done = run
    cores = count_cores()
    assert f"on {math.gcd(cores, 2)} of {cores} devices." in done.stdout  # two streams


def test_its_records_agree(run):
    folder, _ = run
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    found = [r["validation_bits_per_byte"] for r in records]
    bits = evaluation["bits_per_byte"]
    assert bits["LSTM"] == min(b for b in found if b is not None)
    assert evaluation["best_step"] == records[found.index(bits["LSTM"])]["step"]
    assert not evaluation["interrupted"]
    # Knowing nothing costs 8 bits, and the first loss is that of knowing nothing.
    assert records[0]["bits_per_byte"] == pytest.approx(8, abs=1e-4)
    assert bits["uniform"] == 8
    assert bits["uniform"] > bits["unigram"] > bits["order-5 Kneser–Ney"]
    assert "loses" in evaluation["verdict"]
    for record in records:
        # Both numbers are rounded, the one to 1, the other to a millisecond.
        read = record["step"] * 2 * 8  # streams · time
        assert record["bytes_per_second"] == pytest.approx(
            read / record["seconds"], rel=0.01, abs=0.51
        )
    times = [0, *(record["seconds"] for record in records), evaluation["seconds"]]
    assert times == sorted(times)


def test_its_baselines_are_those_of_the_training_text(run):
    folder, _ = run
    training, validation = split_text(pydoc_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["training_bytes"] == len(training)
    assert evaluation["validation_bytes"] == len(validation)
    for name, order in (("unigram", 0), ("order-5 Kneser–Ney", 5)):
        expected = ngram_bits(fit_ngram(training, order), validation)
        assert evaluation["bits_per_byte"][name] == pytest.approx(expected, rel=1e-12)


def test_its_best_parameters_can_be_read_and_judged_again(run):
    folder, _ = run
    template = init_language_model(jax.random.key(9), 256, embedding_size=4, hidden_size=8)
    params = load_params(folder / "best.safetensors", template)
    _, validation = split_text(pydoc_text())
    evaluate = make_evaluate(language_model_loss, token_count)
    loss = evaluate(params, init_carry(1, 8), evaluation_windows(validation, time=4000))
    expected = json.loads((folder / "evaluation.json").read_text())["bits_per_byte"]["LSTM"]
    # float32 sums of 46,000 numbers in another order.
    assert loss / np.log(2) == pytest.approx(expected, rel=1e-5)


def demo_with(monkeypatch, out, losses, **options):
    """The demo in this process, its validations replaced by these losses.

    Returns its folder, the parameters that were validated, and its records.
    """
    seen = []

    def make_evaluate(loss_fn, count):
        def evaluate(params, carry, batches):
            seen.append(jax.tree.map(np.array, params))
            return losses[len(seen) - 1]

        return evaluate

    monkeypatch.setattr(jlstm.train, "make_evaluate", make_evaluate)
    small = {"hidden": 8, "embedding": 4, "streams": 2, "time": 8, "sample": 5}
    rest = {"compare_seconds": 0.0, "steps": len(losses), "out": out}
    demo(config=DemoConfig(**small | rest | options))
    (folder,) = out.iterdir()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder, seen, [json.loads(line) for line in lines]


def test_the_best_parameters_are_kept_when_later_ones_are_worse(monkeypatch, tmp_path):
    losses = [5.0, np.log(4), 3.0, 2.0]
    folder, seen, _ = demo_with(monkeypatch, tmp_path, losses)
    template = init_language_model(jax.random.key(9), 256, embedding_size=4, hidden_size=8)
    saved = jax.tree.leaves(load_params(folder / "best.safetensors", template))
    for ours, best in zip(saved, jax.tree.leaves(seen[1]), strict=True):
        np.testing.assert_array_equal(ours, best)
    last = jax.tree.leaves(seen[-1])
    assert all(np.any(a != b) for a, b in zip(saved, last, strict=True))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert (evaluation["best_step"], evaluation["steps"]) == (2, 4)
    assert evaluation["bits_per_byte"]["LSTM"] == pytest.approx(2)


def test_dropout_reaches_the_training(monkeypatch, tmp_path):
    def course(name, dropout):
        losses = [5.0, 4.0, 3.0, 2.0]
        _, seen, records = demo_with(monkeypatch, tmp_path / name, losses, dropout=dropout)
        return [r["bits_per_byte"] for r in records], jax.tree.leaves(seen[-1])

    for out in "abcd":
        (tmp_path / out).mkdir()
    without, _ = course("a", 0.0)
    some, params = course("b", 0.3)
    again, same = course("c", 0.3)
    more, _ = course("d", 0.6)
    assert some == again
    assert all(np.array_equal(a, b) for a, b in zip(params, same, strict=True))
    # The readout is zero at first, so the first loss knows nothing of what was dropped.
    assert without[0] == some[0] == more[0]
    assert len({without[-1], some[-1], more[-1]}) == 3


def test_without_a_finite_validation_there_is_no_result(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="expected a finite validation loss, got none"):
        demo_with(monkeypatch, tmp_path, [np.nan, np.nan])


def test_its_output_shows_data_model_baselines_and_comparison(run):
    _, done = run
    assert done.stderr == ""
    for word in ("to train on", "to validate on", "parameters", "bytes/s", "s left", "unigram",
                 "uniform", "Kneser–Ney", "The LSTM loses", "written by the model", "autodiff",
                 "vjp gates", "chosen by this validation text"):  # fmt: skip
        assert word in done.stdout, word
    assert "\x1b" not in done.stdout  # no terminal, no colours


def test_ctrl_c(tmp_path):
    process = subprocess.Popen(
        command("--steps", "1000000", "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:  # the last line before the training
            seen += line
            if line.startswith("Model:"):
                break
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in seen + stdout + stderr
    assert stderr.strip() == "jlstm: interrupted"
    assert "Interrupted after" in stdout
    (folder,) = tmp_path.iterdir()
    # What was reached is kept and judged; only the comparison at the end is left out.
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"comparison.json"}
    assert json.loads((folder / "evaluation.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time", "900000"], r"text: expected at least 1800001 bytes to train on .*got \d+"),
        (["--learning-rate", "1e30", "--steps", "40"], r"loss: expected a finite number, got"),
        (["--hidden", "0"], r"\"0\" for --hidden"),
        (["--steps", "many"], r"steps.*many"),
        (["--time", "100000000"], r"text: expected at least 200000001 bytes to train on"),
        (["--seed", str(2**63)], r"seed"),
        (["--hidden", str(2**31)], r"hidden"),
        (["--sample", str(2**31)], r"sample"),
        (["--out", __file__], r"--out: expected a folder to write in, got .*test_demo.py"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, arguments, message):
    options = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | {"--out": str(tmp_path)}
    options |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    words = [word for option in options.items() for word in option]
    done = subprocess.run(
        [sys.executable, "-m", "jlstm", "demo", *words], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    if "finite" not in message:  # found before anything was done
        assert done.stdout == ""
        assert not list(tmp_path.iterdir())
    assert "Traceback" not in done.stderr


def test_two_runs_in_one_second_have_two_folders(tmp_path):
    folders = {make_folder(tmp_path / "runs") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)


def test_the_verdict_is_honest():
    assert judge({"LSTM": 1.5, "a": 2.0, "b": 3.0}) == (
        "The LSTM wins: 25.0% fewer bits than the best baseline, a."
    )
    assert judge({"LSTM": 2.5, "a": 3.0, "b": 2.0}) == "The LSTM loses: b needs 20.0% fewer bits."


def test_repeated_lines_are_counted_by_their_bytes():
    train = np.frombuffer(b"one\nthree\n", np.uint8)
    validation = np.frombuffer(b"three\n\nfours\n", np.uint8)
    assert repeated(train, validation) == 0.5


def test_a_terminal_gets_a_bar():
    from io import StringIO

    from rich.console import Console

    record = {"step": 5, "seconds": 1.0, "bits_per_byte": 2.0, "validation_bits_per_byte": 3.0,
              "bytes_per_second": 7000}  # fmt: skip
    file = StringIO()
    with shown(10, Console(file=file, force_terminal=True, width=120)) as show:
        show(record)
        show({**record, "step": 10, "validation_bits_per_byte": None})
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()).splitlines()[-1]
    assert "10/10" in last
    assert "loss 2.000 valid. 3.000 bits/byte 7 kB/s" in last
