"""HDF5 written so that a full disk is an error and not the end of the process.

When a write fails, the HDF5 library keeps the file half open and dies of it in the next close, at the latest at exit
(SIGSEGV, seen with h5py 3.16). Here HDF5 never sees the failure: the first one is kept, further writes are swallowed,
and the error is raised when HDF5 is done.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

if os.name == "posix":
    import fcntl


class GuardedFile(io.FileIO):
    """A file for `h5py.File` that keeps the first error of writing instead of raising it.

    It is locked as HDF5 locks what it writes, so that readers and other writers are told.

    Raises
    ------
    OSError
        When it cannot be made, or another process holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.error: OSError | None = None
        self._promised = 0
        super().__init__(path, "rb+", opener=_open_or_create)
        if os.name == "posix":
            try:
                fcntl.flock(self.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.close()
                raise
        super().truncate(0)

    def check(self) -> None:
        """Raise the first error of writing, if there was one."""
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        self._promised = max(self._promised, self.tell() + size)
        while self.error is None and view:
            try:
                view = view[super().write(view) or 0 :]
            except OSError as error:
                self.error = error
        return size

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """The end is where HDF5 believes it, whatever reached the disk."""
        place = super().seek(position, whence)
        return max(place, self._promised) if whence == os.SEEK_END else place

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return size or 0


@contextmanager
def hdf5_output(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new HDF5 file to write into. Raises OSError at the end of the block when a write failed."""
    with GuardedFile(path) as guarded:
        try:
            with h5py.File(guarded, "w") as file:
                yield file
        except (OSError, RuntimeError):  # HDF5 stumbling over what the disk did not take
            guarded.check()
            raise
        guarded.check()


def _open_or_create(path: str, _flags: int) -> int:
    """Without truncating: the file may be another writer's."""
    return os.open(Path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
