"""Open a scan file in a child process first: a damaged file that crashes libhdf5 then ends only the child.

`python -m ptychostream.scans.scan_probe FILE [OPTIONS]` opens and reads the file like the readers do. OPTIONS are those
of `ScanOptions` that say which parts are read, as JSON. The exit status tells whether that succeeded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ptychostream.errors import ScanFileError
from ptychostream.positions.positions import AxisConfig
from ptychostream.processes.bounded import Bounds, share_of_memory
from ptychostream.scans.read_apart import read_apart
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan

DEADLINE_S = 120.0
_SHARE = 0.5
"""Share of the machine's memory that the child may take."""
_MODULE = "ptychostream.scans.scan_probe"
_ANY = ScanOptions(axes=AxisConfig(unit="m"), energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4, binning=1)
"""Values in place of all that a file may contradict itself in, so that its frames are read here whatever it says."""
_FREE = ScanOptions(axes=AxisConfig(unit="m"), energy_ev=1e4, binning=1)
"""For a file that gives the pixel of the object, which the values above contradict."""
_WHICH = ("data", "x_name", "y_name", "pick", "scan_shape", "scan_step_m", "scan_rotation_deg", "transpose", "swmr")
"""The options that say which parts are read."""


@contextmanager
def open_probed(
    path: str | os.PathLike[str],
    options: ScanOptions | None = None,
    deadline_s: float = DEADLINE_S,
    *,
    geometry: bool = True,
) -> Iterator[Scan]:
    """Like `open_scan`, for files from elsewhere. It takes half a second longer.

    Raises
    ------
    ScanFileError
        As `open_scan` raises it. Also if HDF5 crashes on the file or does not return within `deadline_s`.
    KeyboardInterrupt
        The child was interrupted.
    """
    probe(path, deadline_s, options)
    with open_scan(path, options, geometry=geometry) as scan:
        yield scan


def probe(path: str | os.PathLike[str], deadline_s: float = DEADLINE_S, options: ScanOptions | None = None) -> None:
    """Open `path` and read some frames in a child process. Raises ScanFileError if the child crashes or hangs."""
    which = json.dumps({name: getattr(options or _ANY, name) for name in _WHICH})
    remedy = "it is damaged in a way that HDF5 does not detect, or its disk does not answer; copy it again"
    read_apart(_MODULE, os.fspath(path), [which], Bounds(share_of_memory(_SHARE), deadline_s), remedy)


def main(path: str, which: str = "{}") -> None:
    """Read the parts of the file, and its first, middle and last frames. The errors of the readers are ignored here."""
    for options in (_ANY, _FREE):
        with suppress(ScanFileError), open_scan(path, replace(options, **json.loads(which)), geometry=False) as scan:
            for index in (0, len(scan) // 2, -1):
                scan.counts[index]
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
