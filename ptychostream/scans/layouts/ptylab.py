"""Read the HDF5 files of PtyLab: `ptychogram` [N, H, W], `encoder` [N, 2] metres (y, x), `wavelength`, `dxd`, `zo` (m).

An encoder that is stored as [2, N] loses its mean in PtyLab, which moves the whole scan only. `orientation` turns the
patterns as PtyLab's `setOrientation` does; a file that asks for it is refused.
"""

from __future__ import annotations

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import state_number
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.matlab import is_matlab
from ptychostream.scans.scan_hdf5 import checked_dataset, number, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("ptychogram",)


def matches(file: h5py.File) -> bool:
    """Whether it has a ptychogram."""
    return isinstance(file.get(DATA[0]), h5py.Dataset)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    for name, what in (("zled", "Fourier ptychography"), ("magnification", "Fourier ptychography")):
        if name in file and "zo" not in file:
            raise ScanFileError(
                f"it is of {what} (it has {name})", where=where, remedy="only far-field ptychography can be read"
            )
    if number(file.get("orientation")):
        raise ScanFileError(
            f"its patterns are to be turned (orientation {number(file['orientation']):.0f})",
            where=where,
            remedy="turn the patterns and store orientation 0, or give --data ptychogram and the positions",
        )
    source = checked_dataset(file[DATA[0]], where)
    said = Description(where)
    positions = (
        None if options.route is not None else _encoder(file, source.shape[0] if source.ndim else 0, said, where)
    )
    for quantity, name in (("distance", "zo"), ("wavelength", "wavelength")):
        state_number(said, quantity, file.get(name), "m", where=where)
    for axis in "xy":
        state_number(said, f"detector_pixel_{axis}", file.get("dxd"), "m", where=where)
    counts = chosen_frames(
        source,
        where,
        name="/ptychogram",
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=is_matlab(source) or options.transpose,
    )
    return ScanParts(counts=counts, raw_positions=positions, said=said, obeys=BOTH)


def _encoder(file: h5py.File, frames: int, said: Description, where: str) -> NDArray[np.float64]:
    if not isinstance(file.get("encoder"), h5py.Dataset):
        raise ScanFileError("it has no encoder", where=where, remedy="give a route file (--route)")
    encoder = whole(file["encoder"], where, "iuf").astype(np.float64)
    if encoder.ndim != 2 or 2 not in encoder.shape:
        what = f"/encoder has shape {encoder.shape}, not (frames, 2)"
        raise ScanFileError(what, where=where, remedy="correct the file, or give a route file (--route)")
    if encoder.shape == (2, frames) and frames != 2:
        encoder = encoder.T
    for axis in "xy":
        said.state(f"position_unit_{axis}", 1.0, "/encoder", "metres, as PtyLab prescribes")
    return encoder[:, ::-1]  # stored as (y, x)
