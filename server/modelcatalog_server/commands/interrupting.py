"""Ctrl-C that ends what is waited for, and not whatever Python is just doing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupting(stop: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call ``stop``, which is to bring the block to its end; then it raises KeyboardInterrupt as usual.

    By itself Python raises it between any two steps, also between taking a lock and the block that gives it back. Where
    that is a lock of gRPC, one of its threads waits for it for ever, and the end of the connection for that thread.
    A second Ctrl-C does as Python does.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _is_main_thread():
        yield
        return
    interrupted = False
    reading, writing = os.pipe()

    def note(_number: int, _frame: object) -> None:
        nonlocal interrupted
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = True
        os.write(writing, b".")

    def wait() -> None:
        with os.fdopen(reading, "rb", buffering=0) as told:
            if told.read(1):
                stop()

    threading.Thread(target=wait, name="interrupting", daemon=True).start()
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(writing)
    if interrupted:
        raise KeyboardInterrupt


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
