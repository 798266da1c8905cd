"""Child processes whose processor time is measured."""

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
    """Print a message for people to stderr. Standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


class Processor:
    """Processor time of a process, noted from time to time.

    Parameters
    ----------
    pid
        The process.
    family
        Whether the processes that it has started count too. What one of them used is lost when it ends.
    """

    def __init__(self, pid: int, family: bool = False) -> None:
        self._pid = pid
        self._family = family
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        """Note the processor time of all threads until now. Does nothing if the process has ended."""
        read = {self._pid: _used(self._pid)} if not self._family else _used_by_all()
        if read.get(self._pid) is None:
            return
        ours, before = {self._pid}, 0
        while before < (before := len(ours)):
            ours |= {pid for pid, found in read.items() if found is not None and found[0] in ours}
        self._samples.append((time.time(), sum(found[1] for pid in ours if (found := read[pid]) is not None)))

    def cores(self, first_s: float, last_s: float) -> float:
        """The mean number of used cores between two POSIX times, from the samples."""
        if last_s <= first_s or not self._samples:
            return 0.0
        times, used = zip(*self._samples, strict=True)
        start, end = np.interp([first_s, last_s], times, used)
        return float((end - start) / (last_s - first_s))


def _used(pid: int) -> tuple[int, float] | None:
    """The parent of a process, and its processor time in s; None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS_HZ


def _used_by_all() -> dict[int, tuple[int, float] | None]:
    return {int(path.name): _used(int(path.name)) for path in Path("/proc").glob("[0-9]*")}


class Measured(Child):
    """A child that prints lines of JSON, and its processor time."""

    def __init__(self, module: str, arguments: list[str], log_path: Path, environment: Mapping[str, str]) -> None:
        super().__init__(module, arguments, log_path, environment)
        self._processor = Processor(self._process.pid)

    def sample(self) -> None:
        """Note the processor time of all threads until now. Does nothing if the process has ended."""
        self._processor.sample()

    def cores(self, first_s: float, last_s: float) -> float:
        """The mean number of used cores between two POSIX times, from the samples."""
        return self._processor.cores(first_s, last_s)

    def resident_mib(self) -> float:
        """The resident memory now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def said(self) -> list[dict[str, Any]]:
        """The printed lines of JSON so far."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def hear(self, key: str, timeout_s: float, needs: Child | None = None) -> dict[str, Any]:
        """Wait for a line of JSON that has `key`.

        Raises DemoError if this child, or the one that it `needs`, ends first, or after the time limit.
        """
        return self.hear_where(lambda line: key in line, timeout_s, needs)

    def hear_where(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, needs: Child | None = None
    ) -> dict[str, Any]:
        """Like `hear`, for the first line that `wanted` accepts."""
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
