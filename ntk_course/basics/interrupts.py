"""Work that Ctrl-C does not cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off an interrupt until what is inside is done; outside the main thread, where none arrives, do nothing.

    Example:
        >>> done = []
        >>> with undisturbed():
        ...     done += ["the first half", "the second half"]
        >>> len(done)
        2
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *args: arrived.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived and callable(before):
            before(*arrived[0])
