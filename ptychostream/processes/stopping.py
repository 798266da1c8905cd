"""SIGINT and SIGTERM as an event or as KeyboardInterrupt, so that a process finishes its work and cleans up.

A shell starts a command in the background (`command &` in a script) with SIGINT ignored, and Python then leaves it
ignored. Here both signals are always handled.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

_TELL_S = 0.5


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, unless a handler is installed already. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _restored() as before:
        for number, handler in before.items():
            if not callable(handler):  # ignored, or the system's default
                signal.signal(number, signal.default_int_handler)
        yield


@contextmanager
def stop_on_signals(also: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, before it calls `also`; a second one acts as before the block."""
    stop = threading.Event()

    def act() -> None:
        stop.set()
        if also is not None:
            also()

    with _restored() as before:

        def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
            # in a thread of its own: the main thread may hold the event's lock at this very moment
            threading.Thread(target=act, daemon=True).start()
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, handle)
        yield stop


def end_within(limit_s: float, unfinished: Callable[[], str]) -> None:
    """End the process with status 1 if it has not ended by itself in time. The orderly end may wait for ever.

    Parameters
    ----------
    limit_s
        Seconds from now.
    unfinished
        What is left undone then, in words, for the log. It runs in a thread of its own.
    """

    def tell() -> None:
        log.error("not ended within %.0f s, and ended by force: %s", limit_s, unfinished())
        logging.shutdown()

    def force() -> None:
        telling = threading.Thread(target=tell, daemon=True)
        telling.start()
        telling.join(_TELL_S)  # what is asked may be what hangs
        os._exit(1)

    timer = threading.Timer(limit_s, force)
    timer.daemon = True
    timer.start()


@contextmanager
def _restored() -> Iterator[dict[int, Any]]:
    """The handlers as they are, put back at the end."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
