"""Write files atomically: a temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ptychostream.errors import DiskFullError, ScanFileError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers that say that the disk, or the user's share of it, is full."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`. It is renamed to `path` if the block ends without an exception.

    The block creates the temporary file. Its suffix is that of `path`, for writers that choose a format by suffix.
    After an exception it is removed, and `path` is unchanged. Missing folders are created. If several writers write the
    same path, the last one to finish wins.

    Raises
    ------
    OSError
        An error of the file system (full disk, no permission …).
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    try:
        yield temporary
        publish(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass
class NewFile:
    """A file that is written to `temporary` and renamed to `path` at the end."""

    temporary: Path
    path: Path


@contextmanager
def atomic_new_file(path: str | os.PathLike[str]) -> Iterator[NewFile]:
    """Like `atomic_path`, but no file is replaced: if `path` exists, `<stem>_2`, `<stem>_3` … are tried.

    The name is taken in one step when the block ends, so that two writers never get the same name.

    Raises
    ------
    OSError
        An error of the file system.
    """
    wanted = Path(path)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    file = NewFile(temporary_beside(wanted), wanted)
    try:
        yield file
        _fsync(file.temporary)
        for number in count(2):
            try:
                _name_new(file.temporary, file.path)
                break
            except FileExistsError:
                file.path = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
    finally:
        file.temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _fsync(wanted.parent)


def _name_new(temporary: Path, final: Path) -> None:
    """Rename the file. Raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: create an empty file to reserve the name
        os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        temporary.replace(final)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Like `atomic_path`, for a folder: an empty folder beside `path` that is renamed to `path` with its files.

    Raises
    ------
    FileExistsError
        `path` exists. It is unchanged.
    OSError
        An error of the file system.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(final)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _fsync(file)
        try:
            publish(temporary, final)
        except OSError as error:
            if final.exists():
                raise FileExistsError(error.errno, "it exists already", str(final)) from error
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically. Raises OSError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def check_can_be_written(*paths: str | os.PathLike[str] | None) -> None:
    """Check before long work that its results can be written, and create their folders. Raises ScanFileError.

    None stands for a result that is not wanted.
    """
    for path in paths:
        if path is not None:
            _check_can_be_written(Path(path))


def _check_can_be_written(final: Path) -> None:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        trial = temporary_beside(final)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise cannot_be_written(final, error) from error
    if final.is_dir():
        raise ScanFileError("is a folder", where=str(final), remedy="name a file in it")


def cannot_be_written(path: str | os.PathLike[str], error: OSError) -> ScanFileError:
    """The error to raise if a result could not be written to `path`."""
    kind = DiskFullError if error.errno in FULL else ScanFileError
    return kind(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        remedy="check the folder's permissions and the disk's free space",
    )


TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp\..+")
"""Names that `temporary_beside` makes."""


def temporary_beside(path: Path) -> Path:
    """A hidden, unique name in the folder of `path`."""
    return path.with_name(f".{secrets.token_hex(6)}.tmp.{path.name}")


def publish(temporary: Path, final: Path) -> None:
    """Write `temporary` to the disk and rename it to `final`, in the same folder."""
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
