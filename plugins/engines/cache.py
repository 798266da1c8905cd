"""Store built engines on disk, so that the next start is fast. The user may delete the cache at any time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from ptychostream.storage.atomic import write_bytes_atomic

log = logging.getLogger(__name__)

MAGIC = b"ptychostream engine 1\n"


def default_cache() -> Path:
    """The user's cache folder of built engines (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptychostream" / "engines"


def cache_key(**parts: object) -> str:
    """A short hash of all values (JSON) that a built engine depends on, for its file name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached(folder: Path | None, prefix: str, key: str, build: Callable[[], bytes]) -> tuple[bytes, bool]:
    """Read the built engine from `folder`, or build it and store it there.

    A damaged file is replaced by a new one. If the folder cannot be written, there is a warning and no error.

    Returns
    -------
    tuple
        The engine's bytes, and whether they came from the cache.
    """
    if folder is None:
        return build(), False
    path = folder / f"{prefix}-{key}.engine"
    data = _read(path)
    if data is not None:
        return data, True
    data = build()
    try:
        write_bytes_atomic(path, MAGIC + hashlib.sha256(data).digest() + data)
    except OSError as error:
        log.warning("%s: the engine is not cached: %s (give a writable folder with room)", path, error)
    return data, False


def discard(folder: Path | None, prefix: str, key: str) -> None:
    """Delete an engine that the runtime refused to load."""
    if folder is not None:
        (folder / f"{prefix}-{key}.engine").unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: the cached engine cannot be read: %s; building it again", path, error)
        return None
    head = len(MAGIC) + hashlib.sha256().digest_size
    data = content[head:]
    if content[: len(MAGIC)] != MAGIC or content[len(MAGIC) : head] != hashlib.sha256(data).digest():
        log.warning("%s: the cached engine is damaged; building it again", path)
        return None
    return data
