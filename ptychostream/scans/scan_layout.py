"""Write areaDetector's NDFileHDF5 layout: the first content of a scan file, and its growing datasets.

`/entry/data/data` is a hard link to `/entry/instrument/detector/data` [N, H, W]; `/entry/instrument/NDAttributes/`
has `NDArrayUniqueId`, `NDArrayEpicsTSSec` and `NDArrayEpicsTSnSec` (since 1990, like ADCore), `NDArrayTimeStamp` (since
1970, as its `epoch` attribute says), `PositionX` and `PositionY` (metres, canvas axes);
`/entry/instrument/beam/incident_energy` (eV), `/entry/instrument/detector/` `distance`, `x_pixel_size`, `y_pixel_size`
(m) and `pixel_mask` (0 = good), `/entry/instrument/source/probe`. `/entry/ptychostream/` has values that NeXus does not
define.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychostream.statements.description import Description

POSITION_NAMES = ("PositionX", "PositionY")
BINNED = "binned"
"""Attribute of our pixel sizes: whether they are those of a frame's pixel, binning included."""
DIMENSION = {"offset": "NDArrayDimOffset", "binning": "NDArrayDimBinning", "reverse": "NDArrayDimReverse"}
"""areaDetector's attributes of the data set, x first, by what they say."""
DETECTOR_FIELDS = {"bit_depth": "bit_depth_readout", "saturation": "saturation_value"}
"""Fields of NXdetector, by quantity."""
STATEMENTS = "statements"
"""Data set of `/entry/ptychostream` with the table of all statements (JSON)."""
KEPT_APART = ("threshold",)
"""Quantities that stand in this table only."""
EPICS_EPOCH = 631_152_000
"""1990-01-01 in POSIX seconds, the epoch of ADCore's time stamps."""

CODECS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "none": dict,
    "lz4": hdf5plugin.LZ4,
    "bslz4": lambda: hdf5plugin.Bitshuffle(cname="lz4"),
    "blosc": lambda: hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.SHUFFLE),
    "zlib": lambda: {"compression": "gzip", "compression_opts": 1},
}
"""The HDF5 filters for frames."""

_COLUMNS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("NDArrayUniqueId", "i8", {"NDAttrDescription": "The unique ID of the NDArray"}),
    ("NDArrayTimeStamp", "f8", {"units": "s", "epoch": "POSIX"}),
    ("NDArrayEpicsTSSec", "u4", {"units": "s", "epoch": "EPICS"}),
    ("NDArrayEpicsTSnSec", "u4", {"units": "ns"}),
    (POSITION_NAMES[0], "f8", {"units": "m"}),
    (POSITION_NAMES[1], "f8", {"units": "m"}),
)
_NEXUS_RADIATION = {"photon": "x-ray", "electron": "electron"}
_OWN = "entry/ptychostream"


def write_layout(file: h5py.File, scan_id: str, radiation: str = "photon") -> None:
    """Create the groups of a scan file without data."""
    file.attrs["default"] = "entry"
    file.attrs["creator"] = "ptychostream"
    entry = _group(file, "entry", "NXentry")
    entry.attrs["default"] = "data"
    entry.create_dataset("entry_identifier", data=scan_id)
    entry.create_dataset("title", data=scan_id)
    entry.create_dataset("definition", data="NXptycho")
    _group(entry, "data", "NXdata").attrs["signal"] = "data"
    instrument = _group(entry, "instrument", "NXinstrument")
    _group(instrument, "detector", "NXdetector")
    _group(instrument, "beam", "NXbeam")
    _group(instrument, "source", "NXsource").create_dataset("probe", data=_NEXUS_RADIATION[radiation])
    _group(entry, "ptychostream", "NXcollection")


def write_geometry(
    file: h5py.File,
    energy_ev: float | None,
    distance_m: float | None,
    detector_pixel_m: float | None,
    *,
    binned: bool = False,
) -> None:
    """Write the known parts of the geometry. None is left out. `binned`: the pixel is a frame's, not the sensor's."""
    detector, beam = file["entry/instrument/detector"], file["entry/instrument/beam"]
    for parent, name, value, unit in (
        (detector, "distance", distance_m, "m"),
        (detector, "x_pixel_size", detector_pixel_m, "m"),
        (detector, "y_pixel_size", detector_pixel_m, "m"),
        (beam, "incident_energy", energy_ev, "eV"),
    ):
        if value is not None:
            made = parent.create_dataset(name, data=float(value))
            made.attrs["units"] = unit
            if binned and name.endswith("pixel_size"):
                made.attrs[BINNED] = True


def write_statements(file: h5py.File, said: Description) -> None:
    """Write what a source says of its frames: where areaDetector or NeXus have a place for it, and as one table.

    The data set of the frames must be there.
    """
    data, detector, own = file["entry/instrument/detector/data"], file["entry/instrument/detector"], own_group(file)
    for name, attribute in DIMENSION.items():
        values = [said.value(f"{name}_{axis}") for axis in "xy"]
        if None not in values:
            data.attrs[attribute] = np.array(values, np.int32)
    for quantity, name in DETECTOR_FIELDS.items():
        if said.value(quantity) is not None:
            detector.create_dataset(name, data=said.value(quantity))
    rows = [
        {"quantity": one.quantity, "value": one.value, "where": one.where, "written": one.written, "origin": one.origin}
        for one in said
    ]
    if rows:
        own.create_dataset(STATEMENTS, data=json.dumps(rows))


def create_frames(file: h5py.File, shape: tuple[int, int], dtype: np.dtype[Any], codec: str) -> h5py.Dataset:
    """Create the growing dataset of the frames, with one chunk for each frame."""
    data = file["entry/instrument/detector"].create_dataset(
        "data", shape=(0, *shape), maxshape=(None, *shape), chunks=(1, *shape), dtype=dtype, **CODECS[codec]()
    )
    data.attrs["signal"] = 1
    data.attrs["interpretation"] = "image"
    file["entry/data/data"] = data
    return data


def create_columns(file: h5py.File, further: tuple[str, ...] = ()) -> h5py.Group:
    """Create the growing NDAttributes that every scan has, and `further` ones (float64)."""
    attributes = _group(file["entry/instrument"], "NDAttributes", "NXcollection")
    own = tuple((name, "f8", dict[str, str]()) for name in further)
    for name, dtype, marks in _COLUMNS + own:
        column = attributes.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(1024,), dtype=dtype)
        column.attrs.update(marks)
    return attributes


def stamps(ids: NDArray[np.int64], times: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Values of the columns that follow from frame ids and POSIX times (s)."""
    seconds = np.floor(times)
    return {
        "NDArrayUniqueId": ids,
        "NDArrayTimeStamp": times,
        "NDArrayEpicsTSSec": np.clip(seconds - EPICS_EPOCH, 0, 2**32 - 1),
        "NDArrayEpicsTSnSec": np.clip((times - seconds) * 1e9, 0, 999_999_999),
    }


def extend(dataset: h5py.Dataset, values: NDArray[Any]) -> None:
    """Append `values`."""
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def own_group(file: h5py.File) -> h5py.Group:
    """The group for values that NeXus does not define."""
    return file[_OWN]


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group
