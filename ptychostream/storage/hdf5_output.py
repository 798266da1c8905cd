"""Write HDF5 files so that a full disk raises an error and does not kill the process.

After a failed write the HDF5 library keeps the file half open, and crashes in the next close, at the latest at exit
(SIGSEGV, seen with h5py 3.16). Here HDF5 is not told of the failure: the first error is kept, later writes do nothing,
and the error is raised after HDF5 has closed the file.
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
    """A file for `h5py.File` that keeps the first error of a write instead of raising it.

    It has the lock that HDF5 sets on files it writes, so that other programs see that it is being written.

    Raises
    ------
    OSError
        The file cannot be created, or another process has locked it.
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
        """Raise the first error of a write, if there was one."""
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
        """Seek. The end is that of the data that HDF5 has written, even if a write failed."""
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
    """A new HDF5 file to write to. Raises OSError at the end of the block if a write failed."""
    with GuardedFile(path) as guarded:
        try:
            with h5py.File(guarded, "w") as file:
                yield file
        except (OSError, RuntimeError):  # follows from the failed write
            guarded.check()
            raise
        guarded.check()


def _open_or_create(path: str, _flags: int) -> int:
    """Open without truncating, because another process may write the file."""
    return os.open(Path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
