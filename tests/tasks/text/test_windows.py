"""Texts cut into windows: every byte where it belongs, none twice."""

import numpy as np
import pytest

from jlstm.tasks.text.windows import (
    evaluation_windows,
    pydoc_text,
    training_window,
    windows_per_pass,
)


def numbered(n):
    """A "text" whose bytes tell their own place (up to 256)."""
    return np.arange(n, dtype=np.uint8)


def training_windows(text, steps, **options):
    return [training_window(text, n, **options) for n in range(steps)]


def test_the_example_of_the_docstring():
    text = np.frombuffer(b"abcdefghijklm", np.uint8)
    first, second = evaluation_windows(text, streams=2, time=3)
    assert first.inputs.astype(np.uint8).T.tobytes() == b"abcghi"
    assert first.targets.astype(np.uint8).T.tobytes() == b"bcdhij"
    assert second.inputs.astype(np.uint8).T.tobytes() == b"defjkl"
    assert second.targets.astype(np.uint8).T.tobytes() == b"efgklm"


@pytest.mark.parametrize(("length", "streams", "time"), [(200, 3, 7), (23, 2, 11), (22, 3, 7)])
def test_training_windows(length, streams, time):
    text = numbered(length)
    batches = training_windows(text, 40, streams=streams, time=time, seed=1)
    assert len(batches) == 40
    per_pass = windows_per_pass(length, streams=streams, time=time)
    before = None
    offsets = set()
    for n, batch in enumerate(batches):
        assert batch.inputs.shape == batch.targets.shape == (time, streams)
        assert batch.inputs.dtype == batch.targets.dtype == np.int32
        assert (batch.targets == batch.inputs + 1).all()
        assert (np.diff(batch.inputs, axis=0) == 1).all()
        if n % per_pass == 0:
            assert batch.fresh.all()
            offsets.add(int(batch.inputs[0, 0]))
            assert batch.inputs[0, 0] < time
        else:  # each stream goes on where it stopped: what the carry stands for
            assert (batch.inputs[0] == before.targets[-1]).all()
        before = batch
    # Passes begin at different bytes where there is room for that.
    assert (len(offsets) > 1) == (length - 1 > streams * time)


def test_a_pass_reads_no_byte_twice():
    text = numbered(200)
    seen = []
    for batch in training_windows(
        text, windows_per_pass(200, streams=3, time=7), streams=3, time=7
    ):
        seen.extend(batch.targets.ravel())
    assert len(seen) == len(set(seen))
    # All but an offset and a rest, each shorter than a window.
    assert len(seen) > 200 - 1 - 2 * 3 * 7


@pytest.mark.parametrize(
    ("length", "streams", "time"), [(200, 3, 7), (23, 2, 11), (22, 3, 7), (90, 1, 8), (254, 7, 5)]
)
def test_every_pass_has_as_many_windows(length, streams, time):
    text = numbered(length)
    count = windows_per_pass(length, streams=streams, time=time)
    # Of all tokens but a target are left out at most an offset, and less than a window a stream.
    assert length - 1 - count * streams * time <= time - 1 + streams * time - 1
    offsets = set()
    for n in range(20 * count):
        batch = training_window(text, n, streams=streams, time=time)
        if n % count == 0:
            assert batch.fresh.all()
            begins = batch.inputs[0]
            offsets.add(int(begins[0]))
            assert len(set(np.diff(begins).tolist())) <= 1
        else:
            assert (batch.inputs[0] == begins + n % count * time).all()
    assert offsets <= set(range(time))
    room = min(time, length - streams * time)
    assert len(offsets) >= room / 2  # of 20 draws


@pytest.mark.parametrize(("time", "least", "most"), [(4, 0.001, 0.004), (128, 0.055, 0.07)])
def test_now_and_then_a_stream_begins_anew(time, least, most):
    text, cut = np.zeros(160 * time * 64, np.uint8), {"streams": 64, "time": time}
    per_pass = windows_per_pass(len(text), **cut)
    fresh = [training_window(text, n, **cut).fresh for n in range(2 * per_pass)]
    first, second = np.array(fresh[1:per_pass]), np.array(fresh[per_pass + 1 :])
    assert least < first.mean() < most  # 2048 tokens of a stream, on average
    assert first.any(axis=0).sum() > 3  # each of them by itself
    assert (first != second).any()
    other = [training_window(text, n, **cut, seed=1).fresh for n in range(1, per_pass)]
    assert (np.array(other) != first).any()


def test_a_window_is_a_pure_function_of_its_number():
    text = numbered(200)
    options = {"streams": 3, "time": 7, "seed": 5}
    in_order = training_windows(text, 30, **options)
    for n in (29, 3, 3, 11, 0):
        again = training_window(text, n, **options)
        np.testing.assert_array_equal(again.inputs, in_order[n].inputs)
        np.testing.assert_array_equal(again.targets, in_order[n].targets)
        np.testing.assert_array_equal(again.fresh, in_order[n].fresh)


def test_only_the_window_is_read_from_disk(tmp_path):
    tokens = np.arange(60_000, dtype=np.uint16)
    np.save(tmp_path / "tokens.npy", tokens)
    on_disk = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    for n in (0, 50):
        ours = training_window(on_disk, n, streams=4, time=9)
        theirs = training_window(tokens, n, streams=4, time=9)
        assert type(ours.inputs) is np.ndarray
        assert ours.inputs.dtype == np.int32
        np.testing.assert_array_equal(ours.targets, theirs.targets)
    windows = evaluation_windows(on_disk[5:500], streams=3, context=20)
    assert type(next(windows).inputs) is np.ndarray

    class Watched(np.ndarray):
        def __getitem__(self, places):
            read.append(np.size(places))
            return super().__getitem__(places)

    read: list[int] = []
    training_window(tokens.view(Watched), 50, streams=4, time=9)
    assert sum(read) == 4 * 10


def test_the_seed_decides():
    def starts(seed):
        windows = training_windows(numbered(250), 60, streams=2, time=9, seed=seed)
        return [int(batch.inputs[0, 0]) for batch in windows]

    assert starts(0) == starts(0)
    assert starts(0) != starts(1)


@pytest.mark.parametrize("streams", [1, 2, 3, 7, 49])
@pytest.mark.parametrize("time", [1, 5, 64])
def test_evaluation_windows_ask_for_every_byte_once(streams, time):
    text = numbered(50)
    asked = []
    for n, batch in enumerate(evaluation_windows(text, streams=streams, time=time)):
        assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (time, streams)
        assert batch.fresh.all() == (n == 0)
        counts = batch.weights == 1
        assert (batch.weights[~counts] == 0).all()
        assert (batch.targets[counts] == batch.inputs[counts] + 1).all()
        asked.extend(batch.targets[counts])
    assert sorted(asked) == list(range(1, 50))


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
@pytest.mark.parametrize("context", [1, 4, 11, 100])
@pytest.mark.parametrize("time", [5, 64])
def test_streams_read_what_comes_before_them(streams, context, time):
    text = numbered(50)
    batches = list(evaluation_windows(text, streams=streams, time=time, context=context))
    inputs, targets, weights = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("inputs", "targets", "weights")
    )
    assert sorted(targets[weights == 1]) == list(range(1, 50))
    assert (batches[0].fresh.all(), any(b.fresh.any() for b in batches[1:])) == (True, False)
    for s in range(streams):
        (counted,) = np.nonzero(weights[:, s])
        before = inputs[: counted[0], s]
        border = inputs[counted[0], s]
        # The tokens just before, in order: as many as asked for, or as there are.
        assert before.tolist() == list(range(max(0, border - context), border))
        assert (np.diff(counted) == 1).all()


def test_what_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r"at least 22 bytes .* \(3 streams × 7 steps.* got 21"):
        training_window(numbered(21), 0, streams=3, time=7)
    with pytest.raises(ValueError, match="at least 5 tokens for 4 streams, got 4"):
        evaluation_windows(numbered(4), streams=4)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="streams: expected at least 1, got 0"):
        training_window(numbered(50), 0, streams=0, time=1)
    with pytest.raises(TypeError, match="time: expected an int, got float"):
        evaluation_windows(numbered(50), time=2.0)
    with pytest.raises(ValueError, match="context: expected at least 0, got -1"):
        evaluation_windows(numbered(50), context=-1)
    with pytest.raises(ValueError, match=r"at least 22 words .* got 21; fewer streams or steps"):
        windows_per_pass(21, streams=3, time=7, unit="words")


def test_the_demo_text_is_english():
    text = pydoc_text()
    assert 300_000 < len(text) < 1_000_000
    assert b"The following" in text
    assert text == pydoc_text()


def test_the_demo_text_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(OSError, match=r"expected pydoc_data.topics"):
        pydoc_text()
