"""A file that is only ever added to: every write reaches the system at once, and the disk soon after."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

_MOST_PARTS = 512  # that the system takes in one call; Linux has 1,024


class AddedFile:
    """Adds bytes at a file's end.

    What was added outlives this process; a thread brings it to the disk meanwhile, which may take its time without
    anybody waiting.

    Parameters
    ----------
    path
        What is behind `end` is cut off.
    sync_s
        Between two times that what came is brought to the disk.

    Raises
    ------
    OSError
        From everything but `close` with what the thread met, too.
    """

    def __init__(self, path: Path, end: int, sync_s: float) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._error: OSError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sync, args=(sync_s,), name=f"sync {path.name}", daemon=True)
        try:
            os.ftruncate(self._descriptor, end)
            self._thread.start()
        except BaseException:
            os.close(self._descriptor)
            raise

    def add(self, parts: Sequence[bytes | memoryview]) -> None:
        """Add `parts` in order."""
        if self._error is not None:
            raise self._error
        for start in range(0, len(parts), _MOST_PARTS):
            some = parts[start : start + _MOST_PARTS]
            rest = sum(map(len, some)) - os.writev(self._descriptor, some)
            if rest:  # the system took less: the disk may be full
                left = memoryview(b"".join(some))[-rest:]
                while left:
                    left = left[os.write(self._descriptor, left) :]

    def _sync(self, sync_s: float) -> None:
        while not self._stop.wait(sync_s):
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                self._error = error
                return

    def close(self) -> None:
        """Bring all to the disk."""
        self._stop.set()
        self._thread.join()
        try:
            if self._error is None:
                os.fdatasync(self._descriptor)
        finally:
            os.close(self._descriptor)
        if self._error is not None:
            raise self._error
