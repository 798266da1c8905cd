"""A scan file opened in a child before this process does: damage that libhdf5 does not expect ends the child alone.

`python -m ptychostream.scans.scan_probe FILE` opens and reads it as the readers do; its exit status
says how that ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ptychostream.errors import ScanFileError
from ptychostream.processes.program import child_command
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan

DEADLINE_S = 120.0
_MODULE = "ptychostream.scans.scan_probe"
_ANY = ScanOptions(energy_ev=1.0, distance_m=1.0, detector_pixel_m=1.0)


@contextmanager
def open_probed(
    path: str | os.PathLike[str], options: ScanOptions | None = None, deadline_s: float = DEADLINE_S
) -> Iterator[Scan]:
    """As `open_scan`, for files from anywhere: half a second later.

    Raises
    ------
    ScanFileError
        Also where HDF5 crashes on the file, or does not come back from it within `deadline_s`.
    KeyboardInterrupt
        Also where the child was interrupted.
    """
    probe(path, deadline_s)
    with open_scan(path, options) as scan:
        yield scan


def probe(path: str | os.PathLike[str], deadline_s: float = DEADLINE_S) -> None:
    """Raises ScanFileError where a process that opens `path` and reads some frames does not come to its end."""
    command = child_command(_MODULE, [os.fspath(path)])  # in this session: Ctrl-C reaches it too
    try:
        ended = subprocess.run(command, capture_output=True, timeout=deadline_s, check=False, stdin=subprocess.DEVNULL)
        if ended.returncode == -signal.SIGINT:  # the file is not to blame
            raise KeyboardInterrupt
        what = f"crashes HDF5 ({signal.Signals(-ended.returncode).name})" if ended.returncode < 0 else ""
    except subprocess.TimeoutExpired:
        what = f"is not read within {deadline_s:.0f} s"
    if what:
        remedy = "it is damaged where HDF5 does not expect it, or its disk does not answer; copy it again"
        raise ScanFileError(what, where=os.fspath(path), remedy=remedy)


def main(path: str) -> None:
    """Read its parts, and frames at its ends and in its middle; what the readers say of it is for who opens it."""
    with suppress(ScanFileError), open_scan(path, _ANY) as scan:
        for index in (0, len(scan) // 2, -1):
            scan.counts[index]


if __name__ == "__main__":
    main(sys.argv[1])
