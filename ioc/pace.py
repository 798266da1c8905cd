"""When the readbacks are brought up to date: in equal periods, and soon after somebody asks for it."""

from __future__ import annotations

import threading
import time

_SPACING_S = 0.05
"""Least time from one update to the next that was asked for: a hundred changes a second cost twenty updates."""


class UpdatePace:
    """Paces the main loop. One thread waits; any thread asks.

    Parameters
    ----------
    rate_hz
        Updates a second that nobody asked for.

    Attributes
    ----------
    regular
        Whether the update that is made now is due without anybody's asking.
    """

    def __init__(self, rate_hz: float) -> None:
        self._period_s = 1.0 / rate_hz
        self._asked = threading.Event()
        self._stopped = threading.Event()
        self.regular = False
        self._last_s = time.monotonic()
        self._next_s = self._last_s + self._period_s

    def ask(self) -> None:
        """Bring the readbacks up to date soon. Returns at once."""
        self._asked.set()

    def stop(self) -> None:
        """End the waiting."""
        self._stopped.set()
        self._asked.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def wait(self) -> bool:
        """Wait for the next update; False: there is none, the end has come."""
        if self._asked.wait(self._next_s - time.monotonic()):
            self._stopped.wait(self._last_s + _SPACING_S - time.monotonic())
        self._asked.clear()
        self.regular = time.monotonic() >= self._next_s
        return not self._stopped.is_set()

    def done(self) -> None:
        """The update is over: time counts from now."""
        self._last_s = time.monotonic()
        if self.regular:
            self._next_s = self._last_s + self._period_s
