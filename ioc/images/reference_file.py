"""Reads the reference of a comparison, after a child process with limits of memory and time has read it.

`python -m ptychostream.ioc.images.reference_file FILE` is that child.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from ptychostream.errors import ScanFileError
from ptychostream.processes.bounded import Bounds, share_of_memory
from ptychostream.scans.read_apart import read_apart
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Reconstruction

_MODULE = "ptychostream.ioc.images.reference_file"
_SHARE = 0.25
_TIME_S = 60.0


def read_reference(path: str, bounds: Bounds | None = None) -> Reconstruction:
    """Read a reconstruction file as `read_reconstruction` does.

    Raises
    ------
    ScanFileError
        As `read_reconstruction`; or the child crashed, needed more memory or time than it may, or could not start.
    """
    bounds = bounds or Bounds(share_of_memory(_SHARE), _TIME_S)
    read_apart(_MODULE, path, (), bounds, "copy the file again, or make it again")
    return read_reconstruction(path)


if __name__ == "__main__":
    with suppress(ScanFileError):  # the caller reads it again, and says what is wrong
        read_reconstruction(sys.argv[1])
