"""Log lines of one kind that clients can cause as often as they like: one in a while, with the number of the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_EVERY_S = 10.0


class RareLog:
    """Logs the first message at once, and then at most one in ten seconds. Any thread.

    Parameters
    ----------
    log
        Where the messages go, as warnings.
    clock
        Monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._left_out = 0

    def warn(self, text: str) -> None:
        """Log the text, or count it."""
        with self._lock:
            now = self._clock()
            if now < self._next_s:
                self._left_out += 1
                return
            self._next_s = now + _EVERY_S
            left_out, self._left_out = self._left_out, 0
        more = f"; {left_out} more since the last of these lines" if left_out else ""
        self._log.warning("%s%s", text, more)
