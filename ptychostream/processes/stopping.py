"""SIGINT and SIGTERM as an event, so that a process finishes what it does and cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(also: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, before it calls `also`; a second one acts as it did before."""
    stop = threading.Event()

    def act() -> None:
        stop.set()
        if also is not None:
            also()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        # in a thread of its own: the main thread may hold the event's lock at this very moment
        threading.Thread(target=act, daemon=True).start()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
