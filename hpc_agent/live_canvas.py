"""The picture that the edge drew of a scan while it ran, as the edge saved it."""

from __future__ import annotations

import glob
from pathlib import Path

from ptychostream.errors import ScanFileError
from ptychostream.phase_file import file_stem, read_provenance


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
