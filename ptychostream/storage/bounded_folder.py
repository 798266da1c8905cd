"""Keeps the files of a folder below a size: those that were not used for longest are removed."""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def keep_used(folder: Path, pattern: str, most_bytes: int) -> list[Path]:
    """Remove the files of `folder` that match `pattern` and were not read or written for longest.

    The one that was used last stays, whatever its size. A file that cannot be removed is passed over with a warning.

    Returns
    -------
    list of Path
        The removed files.
    """
    found: list[tuple[float, Path, int]] = []
    for path in folder.glob(pattern):
        try:
            status = path.stat()
        except OSError:
            continue  # it was removed meanwhile
        found.append((max(status.st_atime, status.st_mtime), path, status.st_size))
    removed, total = [], 0
    for number, (_, path, size) in enumerate(sorted(found, reverse=True)):
        total += size
        if number and total > most_bytes:
            try:
                path.unlink()
            except OSError as error:
                _log.warning("%s is not removed: %s", path, error)
            else:
                removed.append(path)
    if removed:
        _log.info("%d files of %s that were not used for longest are removed", len(removed), folder)
    return removed
