"""A text as bytes, split in time order and cut into parallel streams of windows.

Truncated back-propagation through time reads a text in windows and passes the carry on from one to
the next. So that many windows can be read at once, the text is cut into ``streams`` long pieces
that lie side by side::

    text      a b c d e f g h i j k l m        two streams, windows of 3 steps
    stream 0  a b c | d e f       targets      b c d | e f g
    stream 1  g h i | j k l                    h i j | k l m
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from jlstm.checks import check_number, check_size
from jlstm.models import TokenBatch

Text = UInt8[np.ndarray, " bytes"]


def pydoc_text() -> bytes:
    """The English text that comes with Python itself: the help topics of the language reference.

    About 465,000 characters; the exact text depends on the version of Python.

    Raises:
        OSError: this Python was packaged without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise OSError(
            "text: expected pydoc_data.topics, a part of Python's standard library, but this "
            "Python was packaged without it"
        ) from None
    return "\n\n".join(topics.values()).encode()


def split_text(text: bytes, validation: float = 0.1) -> tuple[Text, Text]:
    """The text's beginning for training, its end for validation.

    In time order, never shuffled: neighbouring bytes belong to one sentence, and a model that had
    seen half of it would look better than it is.

    Args:
        text: the whole text.
        validation: the part of it to hold out.

    Raises:
        TypeError: ``text`` is not bytes, or ``validation`` no number.
        ValueError: ``validation`` is not between 0 and 1, or a part has fewer than two bytes.
    """
    if not isinstance(text, bytes | bytearray | memoryview):
        raise TypeError(f"text: expected bytes, got {type(text).__name__}")
    check_number("validation", validation)
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected a number between 0 and 1, got {validation}")
    array = np.frombuffer(text, np.uint8)
    held_out = round(len(array) * validation)
    train, rest = array[: len(array) - held_out], array[len(array) - held_out :]
    if min(len(train), len(rest)) < 2:
        raise ValueError(
            f"text: expected at least two bytes to train on and two to validate on, got "
            f"{len(array)} bytes, of which {len(rest)} are for validation"
        )
    return train, rest


def training_windows(
    text: Text, *, streams: int, time: int, steps: int, seed: int = 0
) -> Iterator[TokenBatch]:
    """``steps`` windows of a text, over and over from the start, for training.

    Every pass starts at another byte, drawn with ``seed``, so that the windows' borders fall
    elsewhere each time. At its start the batch is marked ``fresh``. What is left at the end of a
    stream, less than one window, waits for another pass.

    Args:
        text: the bytes to train on.
        streams: pieces of the text that are read side by side: the batch.
        time: steps of a window.
        steps: how many windows.
        seed: of the starts of the passes.

    Yields:
        Batches of int32 ``[time, streams]``, all alike in shapes and dtypes.

    Raises:
        ValueError: the text is too short for one window of each stream.
    """
    check_size("streams", streams)
    check_size("time", time)
    check_size("steps", steps, 0)
    check_size("seed", seed, 0)
    if len(text) - 1 < streams * time:
        raise ValueError(
            f"text: expected at least {streams * time + 1} bytes to train on ({streams} streams × "
            f"{time} steps, and the last target), got {len(text)}"
        )
    return _training_windows(text, streams, time, steps, np.random.default_rng(seed))


def _training_windows(
    text: Text, streams: int, time: int, steps: int, generator: np.random.Generator
) -> Iterator[TokenBatch]:
    done = 0
    while True:
        # An offset below one window's length costs at most the last window of the pass.
        room = len(text) - 1 - streams * time
        offset = int(generator.integers(min(time, room + 1)))
        length = (len(text) - 1 - offset) // streams
        inputs = text[offset : offset + streams * length].reshape(streams, length).T
        targets = text[offset + 1 : offset + 1 + streams * length].reshape(streams, length).T
        for start in range(0, length - time + 1, time):
            if done == steps:
                return
            yield TokenBatch(
                inputs[start : start + time].astype(np.int32),
                targets[start : start + time].astype(np.int32),
                fresh=np.full(streams, start == 0),
            )
            done += 1


def evaluation_windows(text: Text, *, streams: int = 1, time: int = 512) -> Iterator[TokenBatch]:
    """Windows in which every byte of a text but the first is a target exactly once.

    With one stream each byte is foretold from all before it, and ``time`` has no influence on the
    result. With more streams reading is faster, but each begins without memory in the middle of
    the text, which costs a little. Where the streams do not come out even the rest is padding, of
    weight 0, so that all batches have the same shape.

    Args:
        text: the bytes to evaluate on.
        streams: pieces that are read side by side.
        time: steps of a window.

    Yields:
        Batches of ``[time, streams]``; the first is marked ``fresh``.

    Raises:
        ValueError: the text has fewer bytes than ``streams`` + 1.
    """
    check_size("streams", streams)
    check_size("time", time)
    count = len(text) - 1
    if count < streams:
        raise ValueError(
            f"text: expected at least {streams + 1} bytes for {streams} streams, got {len(text)}"
        )
    return _evaluation_windows(text, streams, time)


def _evaluation_windows(text: Text, streams: int, time: int) -> Iterator[TokenBatch]:
    count = len(text) - 1
    length = -(-count // streams)
    windows = -(-length // time)
    # Stream s reads the bytes from borders[s]; streams differ in length by at most one byte.
    borders = [round(s * count / streams) for s in range(streams + 1)]
    inputs = np.zeros((windows * time, streams), np.int32)
    targets = np.zeros_like(inputs)
    weights = np.zeros(inputs.shape, np.float32)
    for s in range(streams):
        n = borders[s + 1] - borders[s]
        inputs[:n, s] = text[borders[s] : borders[s + 1]]
        targets[:n, s] = text[borders[s] + 1 : borders[s + 1] + 1]
        weights[:n, s] = 1
    for start in range(0, windows * time, time):
        window = slice(start, start + time)
        yield TokenBatch(
            inputs[window], targets[window], weights[window], np.full(streams, start == 0)
        )
