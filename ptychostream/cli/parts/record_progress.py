"""The state of a recording on the terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from ptychostream.recording.record_scans import Counts


class RecordProgress:
    """One line on stderr; nothing where stderr is no terminal."""

    def __init__(self, channel: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(f"waiting for {channel}", total=None)
        self._scan = ""
        self._before = (time.monotonic(), 0)

    def scan(self, scan: str) -> None:
        """A scan begins."""
        self._scan = scan

    def update(self, counts: Counts, taken: int) -> None:
        """`taken` frames are recorded so far."""
        then, before = self._before
        now = time.monotonic()
        rate = (taken - before) / max(now - then, 1e-3)
        self._before = (now, taken)
        if taken:
            lost = f", {counts.lost} lost" if counts.lost else ""
            text = f"{self._scan or 'recording'}: {taken} frames, {rate:.0f} a second{lost}"
            self._progress.update(self._task, description=text)

    def __enter__(self) -> RecordProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
