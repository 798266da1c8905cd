"""Files that appear whole or not at all: a temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
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


@dataclass
class NewFile:
    """A file that is being written: into `temporary`, and when it is done it is `path`."""

    temporary: Path
    path: Path


@contextmanager
def atomic_new_file(path: str | os.PathLike[str]) -> Iterator[NewFile]:
    """As `atomic_path`, but no file is ever replaced: where `path` exists, `<stem>_2`, `<stem>_3` … are tried.

    The name is taken when the block ends, in one step, so that two writers never get the same one.

    Raises
    ------
    OSError
        As the file system gives it.
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
    """Give the file a name that nobody has. Raises FileExistsError."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the name is taken by an empty file first
        os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        temporary.replace(final)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """As `atomic_path`, for a folder: an empty one beside `path` that becomes `path` with the files in it.

    Raises
    ------
    FileExistsError
        `path` is there already: it stays as it is.
    OSError
        As the file system gives it.
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
    """Before long work: whether its results can be written; their folders are made. Raises ScanFileError.

    None stands for a result that is not asked for.
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
