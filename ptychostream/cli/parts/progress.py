"""How far a command has come: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

EVERY_S = 10.0
"""Seconds between two lines where there is no terminal."""


class Told:
    """Progress of one task of `total` parts.

    Parameters
    ----------
    console
        Where it is shown.
    description
        What is done at first.
    total
        Number of parts; None: not known.
    every_s
        Seconds between two lines where `console` is no terminal.
    """

    def __init__(self, console: Console, description: str, total: int | None, every_s: float = EVERY_S) -> None:
        self._console, self._total, self._every_s = console, total, every_s
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(description, total=total)
        self._said = time.monotonic()

    def update(self, completed: int, description: str | None = None) -> None:
        """So many parts are done, and what is done now. The last part is always told."""
        self._bar.update(self._task, completed=completed, description=description)
        now = time.monotonic()
        if not self._console.is_terminal and (completed == self._total or now - self._said >= self._every_s):
            self._said = now
            parts = f"{completed}" if self._total is None else f"{completed} of {self._total}"
            text = self._bar.tasks[0].description
            self._console.print(f"{text}: {parts}", markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Told:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
