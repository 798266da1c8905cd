"""Child processes whose processor time is followed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.demo.processes import Child, DemoError

POLL_S = 0.05
_TICKS_HZ = os.sysconf("SC_CLK_TCK")


def say(text: str) -> None:
    """Tell people what goes on; standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


class Measured(Child):
    """A child that prints lines of JSON, and the processor time it has used so far."""

    def __init__(self, module: str, arguments: list[str], log_path: Path, environment: Mapping[str, str]) -> None:
        super().__init__(module, arguments, log_path, environment)
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        """Note the processor time used by now, all threads; nothing where the process is gone."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return
        self._samples.append((time.time(), (int(fields[11]) + int(fields[12])) / _TICKS_HZ))

    def cores(self, first_s: float, last_s: float) -> float:
        """Mean cores used between two POSIX times, from the samples."""
        if last_s <= first_s or not self._samples:
            return 0.0
        times, used = zip(*self._samples, strict=True)
        start, end = np.interp([first_s, last_s], times, used)
        return float((end - start) / (last_s - first_s))

    def said(self) -> list[dict[str, Any]]:
        """The lines of JSON printed so far."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def hear(self, key: str, timeout_s: float, needs: Child | None = None) -> dict[str, Any]:
        """Wait for a line of JSON that has `key`.

        Raises DemoError when this child, or the one it `needs`, ends first, and when it takes too long.
        """
        return self.hear_where(lambda line: key in line, timeout_s, needs)

    def hear_where(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, needs: Child | None = None
    ) -> dict[str, Any]:
        """As `hear`, for the first line that is `wanted`."""
        deadline = time.monotonic() + timeout_s
        while True:
            running = self.running()
            line = next(filter(wanted, self.said()), None)
            if line is not None:
                return line
            if needs is not None and not needs.running():
                raise needs.failure()
            if not running or time.monotonic() > deadline:
                raise DemoError(
                    f"{self.name} {'is silent' if running else 'ended'}: {self.failure()}",
                    where=str(self.log_path),
                    remedy="see that log",
                )
            self.sample()
            time.sleep(POLL_S)
