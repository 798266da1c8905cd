"""Finds the canvas of a scan that the edge saved."""

from __future__ import annotations

import glob
import threading
import time
from pathlib import Path

from ptychostream.errors import ScanFileError
from ptychostream.scans.phase_file import file_stem, read_provenance

_LOOK_S = 0.1


def find_canvas(folder: Path, scan_id: str) -> Path | None:
    """The latest canvas of a scan in the folder where the edge saves them (`SaveDirectory`); None: there is none.

    The edge names a canvas after its scan, with a number if that name exists (see `save_phase_image`). The file itself
    says which scan it belongs to.
    """
    stem = file_stem(scan_id)
    named = [folder / f"{stem}.h5", *folder.glob(f"{glob.escape(stem)}_*.h5")]
    for path in sorted(filter(Path.is_file, named), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            if read_provenance(path).get("scan") == scan_id:
                return path
        except ScanFileError:
            continue
    return None


def await_canvas(folder: Path, scan_id: str, wait_s: float, stop: threading.Event) -> Path | None:
    """`find_canvas`, repeated until there is one, for at most `wait_s` and until `stop`: the edge saves a canvas some
    time after the scan, when the last frames have arrived."""
    deadline = time.monotonic() + wait_s
    while (found := find_canvas(folder, scan_id)) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or stop.wait(min(_LOOK_S, left_s)):
            return None
    return found
