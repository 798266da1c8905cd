"""The picture that the edge drew of a scan while it ran, as the edge saved it."""

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

    The edge gives a canvas the scan's name, and a number where that was taken (see `save_phase_image`); whose it is,
    the file says itself.
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
    """`find_canvas`, as soon as there is one, within `wait_s` and until `stop`: the edge saves it a while after the
    scan, when its last frames have come."""
    deadline = time.monotonic() + wait_s
    while (found := find_canvas(folder, scan_id)) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or stop.wait(min(_LOOK_S, left_s)):
            return None
    return found
