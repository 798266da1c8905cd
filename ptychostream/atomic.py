"""Files that appear whole or not at all: a temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychostream.errors import ScanFileError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends well.

    The temporary file does not exist yet; the block creates it. It keeps `path`'s suffix, so that writers which
    choose a format by suffix work. On any exception it is removed and `path` stays as it was. Missing folders are
    created. Concurrent writers of one path are safe: the last to finish wins.

    Raises
    ------
    OSError
        As the file system gives it (full disk, no permission …).
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        yield temporary
        publish(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically. Raises OSError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def cannot_be_written(path: str | os.PathLike[str], error: OSError) -> ScanFileError:
    """What to raise when a result could not be written to `path`."""
    return ScanFileError(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        remedy="check the folder's permissions and the disk's free space",
    )


def temporary_beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that no other writer uses."""
    return path.with_name(f".{secrets.token_hex(6)}.tmp.{path.name}")


def publish(temporary: Path, final: Path) -> None:
    """Bring `temporary` to the disk and give it its `final` name. Both lie in one folder."""
    _fsync(temporary)
    temporary.replace(final)
    if os.name == "posix":
        _fsync(final.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
