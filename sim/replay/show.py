"""Show the progress of a stream in the terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_EVERY_S = 0.1


class StreamProgress:
    """One bar per scan on stderr, if it is a terminal. It is fast enough for rates of kilohertz."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None
        self._shown = 0.0

    def start(self, what: str, total: int) -> None:
        """Start a new bar with `total` steps."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total)
        self._shown = 0.0

    def sent(self, frame: int, time_s: float) -> None:
        """Count frame number `frame`, sent at POSIX time `time_s`."""
        if time_s - self._shown >= _EVERY_S:
            self._shown = time_s
            self._update(frame + 1)

    def done(self, steps: int, total: int) -> None:
        """Set the bar to `steps` of `total`."""
        now = time.time()
        if steps == total or now - self._shown >= _EVERY_S:
            self._shown = now
            self._update(steps)

    def _update(self, completed: int) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=completed)

    def __enter__(self) -> StreamProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()
