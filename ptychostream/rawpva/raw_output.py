"""An append-only file. Every write reaches the operating system at once, and the disk soon after."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

_MOST_PARTS = 512  # parts per system call; Linux allows 1,024


class AddedFile:
    """Appends bytes to a file.

    Appended bytes survive the death of this process. A thread writes them to the disk, so that the caller does not wait
    for it.

    Parameters
    ----------
    path
        Path of the file. Bytes behind `end` are cut off.
    sync_s
        Time between two fsync calls, seconds.

    Raises
    ------
    OSError
        A write failed. All methods but `close` also raise the error of the thread.
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
        """Append `parts` in order."""
        if self._error is not None:
            raise self._error
        for start in range(0, len(parts), _MOST_PARTS):
            some = parts[start : start + _MOST_PARTS]
            rest = sum(map(len, some)) - os.writev(self._descriptor, some)
            if rest:  # the system wrote less: the disk may be full
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
        """Write everything to the disk and close the file."""
        self._stop.set()
        self._thread.join()
        try:
            if self._error is None:
                os.fdatasync(self._descriptor)
        finally:
            os.close(self._descriptor)
        if self._error is not None:
            raise self._error
