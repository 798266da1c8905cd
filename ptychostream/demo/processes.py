"""Child processes of the demonstration. Each has a log file, and ends at the latest when the parent ends."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ptychostream.errors import PtychostreamError
from ptychostream.processes.program import Program, stop

STOP_TIMEOUT_S = 20.0

C = TypeVar("C", bound="Child")


class DemoError(PtychostreamError):
    """A step of the demonstration failed."""


class Child:
    """A process `python -m <module> …` with its output in `log_path`.

    As a context manager it sends SIGTERM at the end of the block, and SIGKILL if the process does not end.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = " ".join([module.rpartition(".")[2], *arguments[:1]])
        self.log_path = log_path
        log_path.write_bytes(b"")
        self._process = Program(module, arguments, log_path, environment)

    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the process. Raises DemoError if it fails or does not end in time."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DemoError(
                f"{self.name} did not end within {timeout_s:.0f} s", where=str(self.log_path), remedy="see that log"
            ) from error
        if status != 0:
            raise self.failure(status)

    def failure(self, status: int | None = None) -> DemoError:
        """An error with the end of the log."""
        tail = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        return DemoError(
            f"{self.name} ended with status {self._process.poll() if status is None else status}: " + " | ".join(tail),
            where=str(self.log_path),
            remedy="see that log",
        )

    def stop(self) -> int:
        """End the process in order. Returns its exit status."""
        stop(self._process, patience_s=STOP_TIMEOUT_S)
        return self._process.returncode

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
