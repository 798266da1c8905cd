"""Which reader opens a file that is neither HDF5 nor npz: those of electron microscopes, and plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from ptychostream.scans.layouts.electron import mrc, npy, rosetta
from ptychostream.scans.scan_parts import ScanOptions, ScanParts


def opener(path: Path, start: bytes) -> Callable[[str, ScanOptions], AbstractContextManager[ScanParts]] | None:
    """The reader for `path`, whose first bytes are `start`. None if there is none."""
    if start[mrc.MAGIC_AT : mrc.MAGIC_AT + len(mrc.MAGIC)] == mrc.MAGIC:
        return mrc.open_parts
    if start.startswith(npy.MAGIC):
        return npy.open_parts
    return rosetta.OPENERS.get(path.suffix.lower())
