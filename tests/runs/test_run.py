"""A run from beginning to end, and what may happen to it on the way."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import SMALL, TEXT, labelled, nothing, result, table, text

from jlstm.runs import run as jobs
from jlstm.runs.folder import read_config, summaries
from jlstm.runs.kinds import task_of
from jlstm.runs.state import restore
from jlstm.runs.use import evaluate, load
from jlstm.tasks.text.config import TextConfig


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "beer.txt"
    path.write_text(TEXT)
    return path


def config(out, **options):
    return TextConfig(**{**SMALL, "out": out, "name": "run", **options})


def trained(out, file, **options):
    return jobs.train(config(out, **options), file, say=nothing)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, file):
    """A run that nothing happened to."""
    return trained(tmp_path_factory.mktemp("runs"), file)


def test_a_checkpoint_is_read_without_fresh_parameters(whole):
    config = read_config(whole.folder)
    job = task_of(config).build(config, whole.folder)
    state, _ = restore(whole.folder, config, replace(job, init=None), nothing)
    assert int(state.step) == 60


def test_a_run_leaves_all_that_is_needed(whole):
    folder = whole.folder
    assert whole.finished
    assert whole.step == 60
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == list(range(1, 61))
    found = {r["step"]: r["validation_loss"] for r in records if r["validation_loss"] is not None}
    assert list(found) == list(range(6, 61, 6))
    assert whole.best.loss == min(found.values()) == found[whole.best.step]
    assert records[-1]["loss"] < records[0]["loss"]
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert [r["step"] for r in timing] == list(range(1, 61))
    assert all(0 <= r["waiting"] <= 1 and r["per_second"] > 0 for r in timing)
    ended = json.loads((folder / "result.json").read_text())
    assert ended["verdict"] == whole.evaluation.verdict
    assert (folder / "log.txt").read_text().count("\n") > 3
    known = json.loads((folder / "environment.json").read_text())
    assert known["versions"]["jax"] == jax.__version__
    assert known["backend"] == jax.default_backend()


def test_the_folder_can_be_moved_and_the_file_may_go(tmp_path, file):
    copy = tmp_path / "copy.txt"
    copy.write_text(file.read_text())
    outcome = trained(tmp_path, copy, steps=12)
    copy.unlink()
    moved = outcome.folder.rename(tmp_path / "elsewhere")
    assert evaluate(moved, say=nothing).results == outcome.evaluation.results
    assert jobs.resume(moved, say=nothing).finished


@pytest.mark.slow
def test_the_same_configuration_gives_the_same_run(tmp_path, file, whole):
    assert result(trained(tmp_path, file).folder) == result(whole.folder)
    other = trained(tmp_path, file, name="other", seed=1)
    assert result(other.folder) != result(whole.folder)


@pytest.mark.grid(3)
@pytest.mark.parametrize("steps", [(1,), (6, 7), (59,)])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path, file, whole, steps):
    folder = jobs.start(config(tmp_path), file, say=nothing)
    done = 0
    for step in steps:
        asked = iter([False] * (step - done - 1) + [True])
        outcome = jobs.resume(folder, say=nothing, interrupted=lambda a=asked: next(a, True))
        assert (outcome.step, outcome.finished, outcome.evaluation) == (step, False, None)
        done = step
    said = []
    outcome = jobs.resume(folder, say=said.append)
    assert outcome.finished
    assert f"Going on from the checkpoint of step {steps[-1]}." in said
    assert result(folder) == result(whole.folder)


@pytest.mark.grid(3)
@pytest.mark.parametrize("make", [table, text, labelled])
def test_it_is_so_for_every_kind_and_after_the_best_parameters(tmp_path, make):
    path = tmp_path / "file.csv"
    asked = make(path)
    whole = jobs.train(replace(asked, name="whole"), path, say=nothing)
    folder = jobs.start(replace(asked, name="stopped"), path, say=nothing)
    done = 0
    for step in (2, 21, 22):
        asks = iter([False] * (step - done - 1) + [True])
        outcome = jobs.resume(folder, say=nothing, interrupted=lambda a=asks: next(a))
        assert (outcome.step, outcome.finished) == (step, False)
        done = step
    assert outcome.best.step <= 20  # restored at step 21, and saved again two steps on
    assert jobs.resume(folder, say=nothing).finished
    assert result(folder, 24) == result(whole.folder, 24)


def test_a_run_stopped_before_its_first_report_is_saved(tmp_path, file):
    asked = {"steps": 450, "validate_every": 100}  # so many that not every step is reported
    whole = trained(tmp_path, file, name="whole", **asked)
    folder = jobs.start(config(tmp_path, **asked), file, say=nothing)
    outcome = jobs.resume(folder, say=nothing, interrupted=lambda: True)
    assert (outcome.step, outcome.finished) == (1, False)
    assert not (folder / "metrics.jsonl").exists()
    assert (folder / "checkpoints" / "1.json").exists()
    said = []
    assert jobs.resume(folder, say=said.append).finished
    assert "Going on from the checkpoint of step 1." in said
    assert result(folder, 450) == result(whole.folder, 450)


def test_a_finished_run_is_only_judged_again(whole):
    before = result(whole.folder)
    outcome = jobs.resume(whole.folder, say=nothing)
    assert outcome.finished
    assert outcome.evaluation.results == whole.evaluation.results
    assert result(whole.folder) == before


def command(*arguments):
    return [sys.executable, "-m", "jlstm", *map(str, arguments)]


def flags(out, **options):
    for name, value in {**SMALL, "out": out, "name": "run", **options}.items():
        yield f"--{name.replace('_', '-')}"
        yield str(value)


def kill_when(process, ready, limit=60.0):
    """SIGKILL at the moment that ``ready`` says; False where the process ended before."""
    began = time.monotonic()
    while process.poll() is None:
        if ready():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        assert time.monotonic() - began < limit
        time.sleep(0.0005)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("make", [text, table, labelled])
def test_stopped_by_any_signal_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path, make):
    path = tmp_path / "file.csv"
    asked = replace(make(path), steps=600, validate_every=30)
    folder, whole = (
        jobs.start(replace(asked, name=name), path, say=nothing) for name in ("run", "whole")
    )
    seed = random.randrange(2**32)
    print("seed", seed)  # shown where the test fails
    generator = random.Random(seed)
    size = 0

    def begun():
        return (folder / "log.txt").exists() and (folder / "log.txt").stat().st_size > size

    def reporting():
        known = folder / "metrics.jsonl"
        return begun() and known.exists() and known.stat().st_mtime > started

    moments = [
        (signal.SIGINT, begun), (signal.SIGKILL, begun), (signal.SIGTERM, reporting),
        (signal.SIGKILL, reporting), (signal.SIGTERM, begun), (signal.SIGINT, reporting),
    ]  # fmt: skip
    delivered = 0
    for number, ready in moments:
        started = time.time()
        process = subprocess.Popen(
            command("resume", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not ready():
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.8))
        process.send_signal(number)
        _, error = process.communicate(timeout=120)
        assert "Traceback" not in error
        if process.returncode == 0:
            break
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), error
        delivered += 1
        size = (folder / "log.txt").stat().st_size
    assert delivered >= 4
    for one in (folder, whole):
        done = subprocess.run(command("resume", one), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert result(folder, 600) == result(whole, 600)
    records = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
    found = [r["validation_loss"] for r in records if r["validation_loss"] is not None]
    assert any(later > earlier for earlier, later in pairwise(found))  # the best grew old


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_the_one_that_was_not(tmp_path, file):
    generator = random.Random(0)
    folder = tmp_path / "run"
    checkpoints = folder / "checkpoints"

    def in_the_middle_of_a_checkpoint():
        return any(checkpoints.glob("*-tmp*"))

    def before_its_record():
        written = [p.name for p in checkpoints.glob("*") if p.name.isdecimal()]
        return any(not (checkpoints / f"{name}.json").exists() for name in written)

    def after(seconds):
        due = []

        def ready():
            # From the first line that is written on: until then JAX is being imported.
            if not due and (folder / "timing.jsonl").exists():
                due.append(time.monotonic() + seconds)
            return bool(due) and time.monotonic() > due[0]

        return ready

    moments = [
        in_the_middle_of_a_checkpoint,
        after(generator.uniform(0, 0.3)),
        before_its_record,
        after(generator.uniform(0, 1)),
        in_the_middle_of_a_checkpoint,
    ]
    arguments = command("train", "text", file, *flags(tmp_path))
    killed = 0
    for moment in moments:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not kill_when(process, moment):
            break
        killed += 1
        arguments = command("resume", folder)
    assert killed >= 3
    for arguments in (
        command("resume", folder),
        # In a process of its own, too: the tests' has another precision.
        command("train", "text", file, *flags(tmp_path, name="whole")),
    ):
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert result(folder) == result(tmp_path / "whole")
    assert not list(checkpoints.glob("*-tmp*"))


def stopped(out, file, at, **options):
    folder = jobs.start(config(out, **options), file, say=nothing)
    asked = iter([False] * (at - 1) + [True])
    jobs.resume(folder, say=nothing, interrupted=lambda: next(asked, True))
    return folder


def harm(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_used(tmp_path, file, whole):
    folder = stopped(tmp_path, file, 33)
    harm(folder / "checkpoints" / "33" / "state" / "manifest.ocdbt")
    said = []
    assert jobs.resume(folder, say=said.append).finished
    assert any(s.startswith("Checkpoint 33 is not as it was written") for s in said)
    assert "Going on from the checkpoint of step 30." in said
    assert result(folder) == result(whole.folder)


def test_a_finished_run_is_never_trained_again(tmp_path, file, whole):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")  # to save room
    outcome = jobs.resume(folder, say=nothing)
    assert (outcome.step, outcome.best.step, outcome.finished) == (60, whole.best.step, True)
    assert outcome.evaluation.results == whole.evaluation.results
    for name in ("metrics.jsonl", "best.safetensors", "result.json"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.parametrize("name", ["data/tokens.npy", "data/vocabulary.json"])
def test_damaged_data_is_noticed(tmp_path, whole, name):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    harm(folder / name)
    for use in (evaluate, load, jobs.resume):
        with pytest.raises(ValueError, match=rf"{name}: expected the file that was written, but"):
            use(folder, say=nothing)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: .* the file is not there"):
        load(folder, say=nothing)


@pytest.mark.slow
def test_what_cannot_go_on_is_kept_aside(tmp_path, file, whole):
    folder = stopped(tmp_path, file, 13)
    best = (folder / "best.safetensors").read_bytes()
    shutil.rmtree(folder / "checkpoints")
    assert jobs.resume(folder, say=nothing).finished
    assert (folder / "before-best.safetensors").read_bytes() == best
    assert (folder / "before-metrics.jsonl").read_text().count("\n") == 13
    assert result(folder) == result(whole.folder)


def test_without_a_good_checkpoint_it_begins_again(tmp_path, file, whole):
    folder = stopped(tmp_path, file, 13)
    for record in (folder / "checkpoints").glob("*.json"):
        record.unlink()
    said = []
    assert jobs.resume(folder, say=said.append).finished
    assert "There is no good checkpoint: starting from the beginning." in said
    assert result(folder) == result(whole.folder)


def test_a_damaged_file_of_the_best_parameters_is_replaced(tmp_path, file):
    folder = stopped(tmp_path, file, 13)
    good = load(folder, say=nothing)
    harm(folder / "best.safetensors")
    said = []
    again = load(folder, say=said.append)
    assert "best.safetensors is not as it was written" in said[0]
    assert again.step == good.step
    for a, b in zip(*map(jax.tree.leaves, (again.params, good.params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_metrics_line_that_was_cut_off_is_taken_back(tmp_path, file, whole):
    folder = stopped(tmp_path, file, 20)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (folder / name).open("a") as metrics:
            metrics.write('{"step": 21, "lo')
    assert jobs.resume(folder, say=nothing).finished
    assert result(folder) == result(whole.folder)


FULL = """
import resource, sys
from pathlib import Path
from jlstm.runs import run
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # as if the disk were full
from jlstm.cli.main import main
main(["resume", sys.argv[1]])
"""


@pytest.mark.slow
def test_a_full_disk_ends_in_a_line_and_the_last_good_checkpoint_stays(tmp_path, file):
    # So large that a checkpoint does not fit, and the first one was written before.
    folder = stopped(tmp_path, file, 6, hidden=64)
    done = subprocess.run([sys.executable, "-c", FULL, folder], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr
    assert f"to go on from the last checkpoint: jlstm resume {folder}" in done.stderr
    assert "Ended: " in (folder / "log.txt").read_text()
    said = []
    assert jobs.resume(folder, say=said.append).finished
    assert "Going on from the checkpoint of step 6." in said


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused(tmp_path, file):
    folder = jobs.start(config(tmp_path, steps=100_000), file, say=nothing)
    first = subprocess.Popen(command("resume", folder), stdout=subprocess.DEVNULL)
    try:
        while not (folder / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(ValueError, match="is being trained by another process"):
            jobs.resume(folder, say=nothing)
        assert [one.status for one in summaries(tmp_path)] == ["training"]
        second = subprocess.run(command("resume", folder), capture_output=True, text=True)
        assert second.returncode == 2
        assert "another process" in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    assert [one.status for one in summaries(tmp_path)] == ["stopped"]


@pytest.mark.grid(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_being_asked_to_end_saves_and_says_how_to_go_on(tmp_path, file, number):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command("train", "text", file, *flags(tmp_path, steps=100_000)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "timing.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert f"jlstm resume {folder}" in out
    step = int(out.partition("Stopped after step ")[2].partition(";")[0].replace(",", ""))
    assert (folder / "checkpoints" / f"{step}.json").exists()
    assert "Traceback" not in error


def test_a_loss_that_is_no_number_ends_the_run_with_the_step(tmp_path, file):
    with pytest.raises(FloatingPointError, match=r"(loss|gradient): .* at step \d+; a lower"):
        trained(tmp_path, file, learning_rate=1e30, clip=1e30, warmup=0)
    folder = tmp_path / "run"
    best = folder / "best.json"
    assert not best.exists() or np.isfinite(json.loads(best.read_text())["loss"])


def test_a_run_goes_on_past_steps_that_are_no_numbers(tmp_path, file, monkeypatch):
    real = jobs.task_of

    class Poisoned:
        """The text jobs, with a batch of NaN now and then."""

        def __init__(self, module):
            self.module = module

        def __getattr__(self, name):
            return getattr(self.module, name)

        def build(self, config, folder):
            job = self.module.build(config, folder)

            def batch(n):
                return job.batch(n), np.float32(np.nan if n in (4, 5, 20) else 1)

            def loss(params, carry, batch):
                value, carry = job.loss(params, carry, batch[0])
                return value * batch[1], carry

            return replace(job, batch=batch, loss=loss, per_step=lambda b: job.per_step(b[0]))

    monkeypatch.setattr(jobs, "task_of", lambda config: Poisoned(real(config)))
    with pytest.raises(FloatingPointError, match="loss: expected a finite number, got nan at step"):
        trained(tmp_path, file, name="stop")
    said = []
    outcome = jobs.train(config(tmp_path, name="skip", not_finite="skip"), file, say=said.append)
    assert outcome.finished
    told = [f"Skipped step {n}: its loss or gradient was not finite." for n in (5, 6, 21)]
    assert [s for s in said if s in told] == told
    records = (tmp_path / "skip" / "metrics.jsonl").read_text()
    assert records.count('"skipped": 1') == 3
    assert "NaN" not in records


@pytest.mark.slow
def test_another_machine_is_told_of(tmp_path, file):
    folder = stopped(tmp_path, file, 7)
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch_devices": 16}))
    said = []
    assert jobs.resume(folder, say=said.append).finished
    assert [s for s in said if "started with other" in s] == [
        "The run was started with other devices (16; now 2): what follows is as it would have been "
        "up to rounding only."
    ]


def test_patience_ends_a_run(tmp_path, file):
    outcome = trained(tmp_path, file, steps=400, learning_rate=1e-30, patience=2)
    assert outcome.finished
    assert outcome.step == 18  # the first validation, and two in a row that are no better
    assert jobs.resume(outcome.folder, say=nothing).step == 18


def test_tensorboard_is_an_option(tmp_path, file):
    folder = trained(tmp_path, file, steps=12, tensorboard=True).folder
    (events,) = (folder / "tensorboard").iterdir()
    assert b"validation_loss" in events.read_bytes()


def test_runs_are_listed(tmp_path, file):
    trained(tmp_path, file, name="one", steps=12, seed=3)
    stopped(tmp_path, file, 7, name="two")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("{")
    (tmp_path / "nothing").mkdir()
    found = {one.folder.name: one for one in summaries(tmp_path)}
    assert {name: one.status for name, one in found.items()} == {
        "one": "finished",
        "two": "stopped",
        "odd": "damaged",
    }
    assert found["one"].changed["seed"] == 3
    assert found["one"].step == 12
    assert found["two"].step == 7
    assert found["two"].best_loss > 0
    with pytest.raises(FileNotFoundError, match="expected a folder with runs"):
        summaries(tmp_path / "nowhere")


def test_runs_tell_from_where_a_stopped_one_goes_on(tmp_path, file):
    folder = stopped(tmp_path, file, 7)

    def told():
        (one,) = summaries(tmp_path)
        return one.status, one.step

    assert told() == ("stopped", 7)
    harm(folder / "checkpoints" / "7" / "state" / "manifest.ocdbt")
    assert told() == ("stopped", 6)
    (folder / "checkpoints" / "6.json").write_text("{")
    assert told() == ("damaged", 7)
    for record in (folder / "checkpoints").glob("*.json"):  # as if killed in the first of them
        record.unlink()
    assert told() == ("stopped", 0)


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run: .* but .* is not there"):
        jobs.resume(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        jobs.resume(tmp_path)


def test_a_name_that_is_taken_is_refused(tmp_path, file):
    jobs.start(config(tmp_path), file, say=nothing)
    with pytest.raises(FileExistsError, match=r"there is a run .* already; see jlstm resume"):
        jobs.start(config(tmp_path), file, say=nothing)


@pytest.mark.parametrize("hidden", [50_000, 10**9, 2**30 - 1])
@pytest.mark.parametrize("make", [text, table, labelled])
def test_a_model_larger_than_the_memory_is_refused(tmp_path, make, hidden):
    path = tmp_path / "file.csv"
    asked = replace(make(path), hidden=hidden, layers=2)
    named = "hidden, layers, (streams|batch): expected a training that fits into"
    with pytest.raises(ValueError, match=rf"^{named} [\d.]+ GiB of memory, got [\d,]+ parameters"):
        jobs.start(asked, path, say=nothing)
    assert os.listdir(tmp_path) == ["file.csv"]


def test_the_memory_of_a_training_is_counted(tmp_path, file, monkeypatch):
    asked = config(tmp_path, weight_dropout=0.0, zoneout=0.0, hidden=300, streams=6, embedding=5)
    vocabulary = len({*TEXT})
    parameters = vocabulary * 5 + 4 * 300 * (5 + 300 + 1) + 301 * vocabulary
    # On both devices: themselves, their gradient, the best, Adam's two moments and its count.
    state = 2 * 4 * (5 * parameters + 1)
    # At every step the gates, c and h; not much more beside, in a model whose LSTM is all there is.
    least = 4 * 6 * 8 * 6 * 300
    for limit, fits in ((state + 4 * least, True), (state + least, False), (state - 1, False)):
        monkeypatch.setattr("jlstm.runs.state.memory_bytes", lambda limit=limit: limit)
        if fits:
            jobs.start(replace(asked, name="fits"), file, say=nothing)
            continue
        gigabytes = f"{4 * parameters / 2**30:,.1f} GiB for them"
        with pytest.raises(ValueError, match=f"got {parameters:,} parameters: {gigabytes}"):
            jobs.start(asked, file, say=nothing)


def test_a_batch_has_no_more_places_than_there_are_sequences(tmp_path):
    path = tmp_path / "file.csv"
    asked = replace(labelled(path), batch=2**31 - 1, steps=2, validate_every=1)
    assert jobs.train(asked, path, say=nothing).finished


def test_a_mistake_leaves_no_folder(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        jobs.start(config(tmp_path), Path("nowhere.txt"), say=nothing)
    assert not list(tmp_path.iterdir())
    assert "nowhere" not in os.listdir(".")
