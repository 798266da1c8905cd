"""Bounds the log of a program that appends to it for months."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

_log = logging.getLogger(__name__)

LOG_BYTES = 10_000_000


def rotate_log(path: Path, limit: int = LOG_BYTES) -> bool:
    """Move the content of a log beyond `limit` bytes to `<name>.1`, whose old content is lost; returns whether it did.

    A program that appends to the file goes on with an empty one. What it writes during the copy may be lost.
    """
    old = path.with_name(f"{path.name}.1")
    partial = path.with_name(f".{path.name}.1")
    try:
        if path.stat().st_size <= limit:
            return False
        shutil.copyfile(path, partial)
        partial.replace(old)
        with path.open("r+b") as file:
            file.truncate(0)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            _log.warning("%s is not rotated: %s", path, error)
            partial.unlink(missing_ok=True)
        return False
    return True
