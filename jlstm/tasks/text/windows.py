"""A text as tokens, split in time order and cut into parallel streams of windows.

Truncated back-propagation through time reads a text in windows and passes the carry on from one to
the next. So that many windows can be read at once, the text is cut into ``streams`` long pieces
that lie side by side::

    text      a b c d e f g h i j k l m        two streams, windows of 3 steps
    stream 0  a b c | d e f       targets      b c d | e f g
    stream 1  g h i | j k l                    h i j | k l m

A text is an array of integers, which may be a file on disk (``numpy.memmap``): only what a window
holds is read.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from jlstm.checks import check_size
from jlstm.tasks.text.batch import TokenBatch

Tokens = Integer[np.ndarray, " tokens"]
RESTART = 2048
"""Tokens after which a stream of a training begins anew, without memory: so many on average."""


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


def windows_per_pass(length: int, *, streams: int, time: int, unit: str = "bytes") -> int:
    """How many windows go through a text once, whatever token the pass begins at.

    Args:
        length: tokens of the text.
        streams: pieces of it that are read side by side: the batch.
        time: steps of a window.
        unit: what the tokens are, for the message.

    Raises:
        ValueError: the text is too short for one window of each stream.
    """
    check_size("streams", streams)
    check_size("time", time)
    if length - 1 < streams * time:
        raise ValueError(
            f"text: expected at least {streams * time + 1} {unit} to train on ({streams} streams × "
            f"{time} steps, and the last target), got {length}; fewer streams or steps may do"
        )
    return (length - _offsets(length, streams, time)) // streams // time


def _offsets(length: int, streams: int, time: int) -> int:
    """At how many tokens a pass may begin: those of a window, or fewer in a text that is short."""
    return min(time, length - streams * time)


def training_window(text: Tokens, n: int, *, streams: int, time: int, seed: int = 0) -> TokenBatch:
    """Window n of a text that is read over and over, a pure function of its arguments.

    With P windows in a pass (``windows_per_pass``), this is window n mod P of pass ⌊n/P⌋. Every
    pass begins at another token, the first ones at most being left out, drawn with (seed, pass): so
    the windows' borders fall elsewhere each time. What is left at the end of a stream, less than
    one window, waits for another pass.

    At the start of a pass all streams are marked ``fresh``, and at each later window each of them
    with the probability time/``RESTART``, drawn with (seed, pass, window). A model that went
    through all of its text without a break would rely on what it has in memory by then, such as a
    number that has been growing for ten thousand steps; without it, at the beginning of another
    text or after a prompt, it may be lost.

    Args:
        text: the tokens to train on.
        n: the number of the window, from 0.
        streams: pieces of the text that are read side by side: the batch.
        time: steps of a window.
        seed: of the starts of the passes.

    Returns:
        int32 ``[time, streams]``, all windows alike in shapes and dtypes.

    Raises:
        ValueError: the text is too short for one window of each stream.
    """
    number, window = divmod(n, windows_per_pass(len(text), streams=streams, time=time))
    draw = np.random.default_rng((seed, number))
    offset = int(draw.integers(_offsets(len(text), streams, time)))
    # All streams are of the same length, and the windows leave less than one of them over.
    starts = offset + window * time + (len(text) - 1 - offset) // streams * np.arange(streams)
    tokens = _take(text, np.arange(time + 1)[:, None] + starts)
    anew = np.random.default_rng((seed, number, window)).random(streams) < time / RESTART
    return TokenBatch(tokens[:-1], tokens[1:], fresh=anew | (window == 0))


def _take(text: Tokens, places: Integer[np.ndarray, "*shape"]) -> Integer[np.ndarray, "*shape"]:
    return np.asarray(text[places]).astype(np.int32)


def evaluation_windows(
    text: Tokens, *, streams: int = 1, time: int = 512, context: int = 0
) -> Iterator[TokenBatch]:
    """Windows in which every token of a text but the first is a target exactly once.

    With one stream each token is foretold from all before it, and ``time`` has no influence on the
    result. With more streams reading is faster, but each begins without memory in the middle of
    the text. So that this costs next to nothing, each first reads the ``context`` tokens before its
    own, where there are as many, with weight 0. Where the streams do not come out even the rest has
    weight 0, too, so that all batches have the same shape.

    Args:
        text: the tokens to evaluate on.
        streams: pieces that are read side by side.
        time: steps of a window.
        context: tokens that a stream reads before those that count.

    Yields:
        Batches of ``[time, streams]``; the first is marked ``fresh``.

    Raises:
        ValueError: the text has fewer tokens than ``streams`` + 1.
    """
    check_size("streams", streams)
    check_size("time", time)
    check_size("context", context, 0)
    count = len(text) - 1
    if count < streams:
        raise ValueError(
            f"text: expected at least {streams + 1} tokens for {streams} streams, got {len(text)}"
        )
    # Stream s is asked for what follows the tokens from borders[s] to borders[s + 1].
    borders = np.array([round(s * count / streams) for s in range(streams + 1)])
    begins = np.maximum(borders[:-1] - context, 0)
    return _evaluation_windows(text, borders, begins, time)


def _evaluation_windows(
    text: Tokens,
    borders: Integer[np.ndarray, " streams+1"],
    begins: Integer[np.ndarray, " streams"],
    time: int,
) -> Iterator[TokenBatch]:
    for start in range(0, int(np.max(borders[1:] - begins)), time):
        places = np.arange(start, start + time)[:, None] + begins
        counts = (borders[:-1] <= places) & (places < borders[1:])
        places = np.minimum(places, len(text) - 2)
        fresh = np.full(len(begins), start == 0)
        yield TokenBatch(
            _take(text, places), _take(text, places + 1), counts.astype(np.float32), fresh
        )
