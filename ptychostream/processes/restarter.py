"""A program that is started again when it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptychostream.processes.log_file import rotate_log
from ptychostream.processes.program import Program, stop

_log = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_STABLE_S = 60.0


def back_off_s(deaths: int) -> float:
    """How long to wait before the next start, after so many deaths in a row."""
    return min(_FIRST_WAIT_S * 2.0 ** max(0, deaths - 1), _LONGEST_WAIT_S)


class Restarter:
    """Keeps one program running; `check` must be called often.

    Parameters
    ----------
    name
        Name of the program in messages.
    module, arguments, log, environment
        See `Program`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.program: Program | None = None
        """None while it waits for its next start."""
        self.restarts = 0
        """How often it was started again."""
        self.status: int | None = None
        """Exit status of the last run."""
        self._module, self._arguments, self._environment = module, arguments, environment
        self._deaths = 0  # in a row, without a stable time between
        self._started_s = 0.0
        self._due_s = 0.0

    def uptime_s(self) -> float:
        """How long it has run; 0 when it does not run."""
        return 0.0 if self.program is None else time.monotonic() - self._started_s

    def start(self) -> None:
        """Start it. Raises OSError."""
        self.program = Program(self._module, self._arguments, self.log, self._environment)
        self._started_s = time.monotonic()
        _log.info("%s: started, process %d", self.name, self.program.pid)

    def check(self) -> bool:
        """Start it again when it has ended and the wait is over; returns whether it runs. A long log is rotated."""
        rotate_log(self.log)
        if self.program is None:
            if time.monotonic() >= self._due_s:
                self.restarts += 1
                try:
                    self.start()
                except OSError as error:
                    self._wait(f"does not start: {error}")
        elif self.program.poll() is not None:
            self._deaths = 0 if self.uptime_s() > _STABLE_S else self._deaths
            self.status, self.program = self.program.returncode, None
            self._wait(f"ended with status {self.status}")
        return self.program is not None

    def _wait(self, why: str) -> None:
        self._deaths += 1
        wait_s = back_off_s(self._deaths)
        self._due_s = time.monotonic() + wait_s
        _log.error("%s: %s, starts again in %.0f s; see %s", self.name, why, wait_s, self.log)


def stop_all(restarters: Sequence[Restarter], patience_s: float) -> bool:
    """Stop the programs at the same time; returns whether all of them ended within `patience_s`. See `stop`."""
    running = [restarter for restarter in restarters if restarter.program is not None]
    in_time = stop(*(restarter.program for restarter in running if restarter.program), patience_s=patience_s)
    for restarter in running:
        assert restarter.program is not None
        restarter.status, restarter.program = restarter.program.returncode, None
    return in_time
