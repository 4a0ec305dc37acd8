"""Hearing of a stop as soon as the server does, whichever process it runs in."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable
from types import FrameType

GRACE = 0.2
"""Seconds between our knowing of a stop and the server's: it cuts sockets off at once, and
they are owed a word of farewell."""


def on_stop_signal(begin: Callable[[], None]) -> None:
    """Have ``begin`` called in the running loop when SIGINT or SIGTERM arrives.

    uvicorn tells an application of its end only after the last connection has closed, which
    is too late for ending streams properly. Its own handlers, which are in place by now,
    are called a moment later. Outside the main thread there are no signals to hear.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        previous = signal.getsignal(number)

        def handler(number: int, frame: FrameType | None, previous: object = previous) -> None:
            loop.call_soon_threadsafe(begin)
            if callable(previous):
                loop.call_soon_threadsafe(loop.call_later, GRACE, previous, number, frame)

        signal.signal(number, handler)


def stop_with_parent() -> None:
    """Have a worker stop as on SIGTERM when the process that started it has died.

    Left alone it would go on serving old code on the port, and nobody could start anew.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent.sentinel, gone)
