"""Ctrl-C as a question that a loop can ask, instead of an exception that can strike anywhere.

So is SIGTERM, by which a scheduler of jobs or a system that shuts down asks a process to end.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM interrupts as Ctrl-C does, so that what is half done is taken away.

    Only the main thread is told of signals; in another nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C makes the function given return True, and that is all.

    A second one interrupts as usual: whoever presses it twice does not want to wait::

        with interrupt_flag() as interrupted:
            for progress in fit(step, state, batches, stop=interrupted):
                ...

    An exception in the middle of a training step would leave a state whose memory is given away
    already. Only the main thread is told about Ctrl-C; in another the function returns False. What
    is said of Ctrl-C goes for SIGTERM, too.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A process started in the background of a script ignores SIGINT; here it is to be heeded.
    usual = dict(before)
    if not callable(before[signal.SIGINT]):
        usual[signal.SIGINT] = signal.default_int_handler

    def first(signum: int, frame: object) -> None:
        pressed.set()
        for number, handler in usual.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, first)
    try:
        yield pressed.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, usual[number] if handler is None else handler)
