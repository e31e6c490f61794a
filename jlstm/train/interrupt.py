"""Ctrl-C as a question that a loop can ask, instead of an exception that can strike anywhere."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_flag() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C makes the function given return True, and that is all.

    A second one interrupts as usual: whoever presses it twice does not want to wait::

        with interrupt_flag() as interrupted:
            for progress in fit(step, state, batches, stop=interrupted):
                ...

    An exception in the middle of a training step would leave a state whose memory is given away
    already. Only the main thread is told about Ctrl-C; in another the function returns False.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    # A process started in the background of a script ignores SIGINT; here it is to be heeded.
    before = signal.getsignal(signal.SIGINT)
    usual = before if callable(before) else signal.default_int_handler

    def first(signum: int, frame: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, first)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, usual if before is None else before)
