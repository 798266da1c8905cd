"""Read a stack of patterns that numpy saved (.npy), in C or Fortran order. The scan is given by its shape and step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.scan_given import given_scan
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

MAGIC = b"\x93NUMPY"


@contextmanager
def open_parts(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    try:
        source = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ScanFileError(f"numpy cannot read it: {error}", where=path, remedy="copy it again") from error
    yield given_scan(source, options, Description(path), path)
