"""Read any HDF5 file of which the user, or the file's only array of patterns, says where the patterns are.

`--data PATH` names the array; without it, it must be the only one with three axes or more, or one of the places that
programs agree on (`DATA`). Positions are two columns by path or by name (`--x-name`, `--y-name`), wherever they are: an
XML layout of NDFileHDF5 may place attributes as data sets.
"""

from __future__ import annotations

from contextlib import suppress

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import state_number
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.columns import column, data_sets, read_places
from ptychostream.scans.layouts.links import broken, broken_links, missing_link
from ptychostream.scans.layouts.matlab import is_matlab
from ptychostream.scans.scan_hdf5 import checked_dataset, text, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("exchange/data", "entry/data", "data")
_GEOMETRY = (
    ("energy", "entry/instrument/beam/incident_energy", "eV"),
    ("energy", "measurement/instrument/monochromator/energy", ""),
    ("distance", "entry/instrument/detector/distance", "m"),
    ("distance", "measurement/instrument/detector/distance", ""),
    ("detector_pixel_x", "entry/instrument/detector/x_pixel_size", "m"),
    ("detector_pixel_y", "entry/instrument/detector/y_pixel_size", "m"),
    ("detector_pixel_x", "measurement/instrument/detector/pixel_size_x", ""),
    ("detector_pixel_y", "measurement/instrument/detector/pixel_size_y", ""),
)
_MASK = "entry/instrument/detector/pixel_mask"


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the array that is named or the only one. The counts stay on disk. Raises ScanFileError."""
    source = checked_dataset(_patterns(file, options, where), where)
    said = Description(where)
    for quantity, path, unit in _GEOMETRY:
        dataset = file.get(path)
        if isinstance(dataset, h5py.Dataset) and (unit or text(dataset.attrs.get("units"))):
            state_number(said, quantity, dataset, unit, where=where)
    positions = read_places(file, options, said, where)
    counts = chosen_frames(
        source,
        where,
        name=str(source.name),
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=is_matlab(source) or options.transpose,
    )
    mask = file.get(_MASK)
    return ScanParts(
        obeys=BOTH,
        counts=counts,
        raw_positions=positions,
        said=said,
        bad_pixels=whole(mask, where, "biuf") != 0 if isinstance(mask, h5py.Dataset) else None,
        frame_ids=_ids(file, len(counts), where),
    )


def _patterns(file: h5py.File, options: ScanOptions, where: str) -> h5py.Dataset:
    if options.data is not None:
        return _named(file, options.data, where)
    for path in DATA:
        if isinstance(found := file.get(path), h5py.Dataset) and found.ndim >= 3:
            return found
    candidates = [found for found in data_sets(file) if found.ndim >= 3 and found.dtype.kind in "iuf" and found.size]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        listed = ", ".join(sorted(f"{found.name} {found.shape}" for found in candidates)[:12])
        raise ScanFileError(
            f"HDF5 of an unknown layout with {len(candidates)} arrays that may be patterns",
            where=where,
            remedy=f"name the patterns with --data: {listed}",
        )
    for parent, name, target in broken_links(file):
        raise missing_link(parent, name, target, where)
    top = ", ".join(map(str, file)) or "nothing"
    raise ScanFileError(
        "HDF5 of an unknown layout: it has no array of patterns (frames, height, width)",
        where=where,
        remedy="name the patterns with --data, or write the file as areaDetector's NDFileHDF5 or as CXI does; "
        f"at its top this file has: {top}",
    )


def _named(file: h5py.File, path: str, where: str) -> h5py.Dataset:
    found = None
    with suppress(OSError, RuntimeError, KeyError):
        found = file.get(path)
    if isinstance(found, h5py.Dataset):
        return found
    parent_path, _, name = path.strip("/").rpartition("/")
    parent = file.get(parent_path) if parent_path else file
    if isinstance(parent, h5py.Group) and name in parent and (target := broken(parent, name)):
        raise missing_link(parent, name, target, where)
    arrays = sorted(f"{found.name} {found.shape}" for found in data_sets(file) if found.ndim >= 3)[:12]
    raise ScanFileError(
        f"{path} is a group" if isinstance(found, h5py.Group) else f"there is no {path}",
        where=where,
        remedy=f"give --data the path of the patterns; arrays of the file: {', '.join(arrays) or 'none'}",
    )


def _ids(file: h5py.File, frames: int, where: str) -> NDArray[np.int64] | None:
    found = column(file, "NDArrayUniqueId", where)
    return found[1].astype(np.int64) if found is not None and len(found[1]) == frames else None
