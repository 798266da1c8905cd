"""Read MRC stacks through mrcfile (BSD-3-Clause): one pattern a section. The scan is given by its shape and step.

mrcfile reads mode 0 as signed bytes, as MRC2014 prescribes, and files of either byte order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.scan_given import given_scan
from ptychostream.scans.layouts.extras import needed
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

MAGIC, MAGIC_AT = b"MAP", 208


@contextmanager
def open_parts(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    mrcfile = needed("mrcfile", "MRC", path)
    try:
        opened = mrcfile.mmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise ScanFileError(
            f"mrcfile cannot read it: {error}",
            where=path,
            remedy="save it in mode 1 (16 bit) or 6 (16 bit unsigned), or as HDF5",
        ) from error
    with opened as file:
        source: Any = file.data
        if source is None or source.dtype.kind not in "iuf":
            raise ScanFileError(
                f"it holds {getattr(source, 'dtype', 'nothing')}, no counts", where=path, remedy="give detector counts"
            )
        said = Description(path)
        said.state("pixel_type", str(source.dtype), "header, MODE")
        said.assume("radiation", "electron", "MRC, a format of electron microscopes")
        yield given_scan(source, options, said, path)
