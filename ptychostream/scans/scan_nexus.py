"""Read the layout of areaDetector's NDFileHDF5, with the additions of `ptychostream.scans.scan_layout`."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.scan_hdf5 import checked_dataset, group, in_unit, text, unit_of, whole
from ptychostream.scans.scan_layout import EPICS_EPOCH
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES

DATA = ("entry/data/data", "entry/instrument/detector/data")
ATTRIBUTES = ("entry/instrument/NDAttributes", "entry/instrument/detector/NDAttributes")
POSITIONS = "entry/positions"
_MAX_COLUMNS_BYTES = 4 * MAX_PART_BYTES
_STAMPS = ("NDArrayUniqueId", "NDArrayTimeStamp", "NDArrayEpicsTSSec", "NDArrayEpicsTSnSec")


def matches(file: h5py.File) -> bool:
    """Whether this file has patterns at the place that NDFileHDF5 uses."""
    return any(isinstance(file.get(path), h5py.Dataset) for path in DATA)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    path = next(path for path in DATA if isinstance(file.get(path), h5py.Dataset))
    counts = checked_dataset(file[path], where)
    columns = _columns(file, where)
    positions, unit_m = _positions(file, columns, options, where)
    detector = group(file, "entry/instrument/detector")
    beam = group(file, "entry/instrument/beam")
    mask = detector.get("pixel_mask")
    own = group(file, "entry/ptychostream")
    return ScanParts(
        scan_id=text(file.get("entry/entry_identifier")),
        counts=counts,
        raw_positions=positions,
        unit_m=unit_m,
        energy_ev=in_unit(beam.get("incident_energy"), "eV", where),
        distance_m=in_unit(detector.get("distance"), "m", where),
        detector_pixel_m=in_unit(detector.get("x_pixel_size"), "m", where),
        radiation="electron" if text(file.get("entry/instrument/source/probe")) == "electron" else "photon",
        bad_pixels=None if mask is None else whole(mask, where, "biuf") != 0,
        probe=whole(own["probe"], where, "iufc").astype(np.complex64) if "probe" in own else None,
        frame_ids=columns["NDArrayUniqueId"].astype(np.int64) if "NDArrayUniqueId" in columns else None,
        times=_times(file, columns),
        metadata=_metadata(own, columns, options, where),
    )


def _columns(file: h5py.File, where: str) -> dict[str, NDArray[Any]]:
    """All NDAttributes with one value per frame."""
    columns: dict[str, NDArray[Any]] = {}
    held = 0
    for path in ATTRIBUTES:
        for key, dataset in group(file, path).items():
            name = str(key)  # a name that is no text comes as bytes
            if isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 and name not in columns:
                held += dataset.nbytes
                if held > _MAX_COLUMNS_BYTES:
                    what = f"NDAttributes announce more than {_MAX_COLUMNS_BYTES >> 20} MiB"
                    raise ScanFileError(what, where=where, remedy="the file is damaged; copy it again")
                columns[name] = whole(dataset, where)
    return columns


def _positions(
    file: h5py.File, columns: dict[str, NDArray[Any]], options: ScanOptions, where: str
) -> tuple[NDArray[np.float64] | None, float | None]:
    if options.route is not None:
        return None, None
    names = (options.x_name, options.y_name)
    if all(name in columns for name in names):
        x, y = (columns[name] for name in names)
        if len(x) != len(y):
            raise ScanFileError(
                f"{names[0]} has {len(x)} values but {names[1]} {len(y)}", where=where, remedy="record the scan again"
            )
        dataset = next(file[path][names[0]] for path in ATTRIBUTES if names[0] in group(file, path))
        return np.stack([x, y], axis=1).astype(np.float64), unit_of(dataset, where)
    dataset = file.get(POSITIONS)
    if isinstance(dataset, h5py.Dataset):
        return whole(dataset, where, "iuf").astype(np.float64), unit_of(dataset, where)
    known = ", ".join(sorted(columns)) or "none"
    raise NoPositionsError(
        f"no positions: neither NDAttributes {names[0]} and {names[1]} nor /{POSITIONS}",
        where=where,
        remedy=f"name the two attributes with --x-name and --y-name (the file has: {known}), or give a route file "
        "(--route)",
    )


def _times(file: h5py.File, columns: dict[str, NDArray[Any]]) -> NDArray[np.float64] | None:
    """Times in POSIX seconds. ADCore counts from 1990 unless the `epoch` attribute says otherwise. All zeros: None."""
    stamps = columns.get("NDArrayTimeStamp")
    if stamps is None:
        return None
    times = stamps.astype(np.float64)
    if not times.any():
        return None
    dataset = next(file[path]["NDArrayTimeStamp"] for path in ATTRIBUTES if "NDArrayTimeStamp" in group(file, path))
    return times if text(dataset.attrs.get("epoch")) == "POSIX" else times + EPICS_EPOCH


def _metadata(own: Any, columns: dict[str, NDArray[Any]], options: ScanOptions, where: str) -> dict[str, Any]:
    """The metadata that our writer stored, and every NDAttribute that is not part of `Scan`."""
    metadata: dict[str, Any] = {}
    if "metadata" in own:
        try:
            metadata = dict(json.loads(text(own["metadata"])))
        except (ValueError, TypeError, RecursionError) as error:
            raise ScanFileError(
                f"/entry/ptychostream/metadata: {error}", where=where, remedy="copy the file again"
            ) from error
    metadata.update({str(name): whole(own[name], where) for name in own if name not in ("metadata", "probe")})
    told = {options.x_name, options.y_name, *_STAMPS}
    attributes = {name: values for name, values in columns.items() if name not in told}
    if attributes:
        metadata["attributes"] = attributes
    return metadata
