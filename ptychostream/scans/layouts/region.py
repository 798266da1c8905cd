"""What a file says of the region of the sensor that its frames show: offset, binning, reverse, and the pixel's size.

areaDetector writes the three as attributes of the data set (`NDArrayDimOffset`, `NDArrayDimBinning`,
`NDArrayDimReverse`, x first), and drivers as NDAttributes such as `BinX`. The size of a pixel that stands beside such a
binning is that of the sensor: areaDetector knows no other. So the frame's pixel is that many times larger. Where the
binning stands in the detector's group it is not said whether the size has it in it, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.scans.hdf5_statements import differing, state_number
from ptychostream.scans.scan_layout import BINNED, DIMENSION
from ptychostream.statements.description import Description
from ptychostream.statements.driver_names import region_name


def state_region(said: Description, data: Any, columns: Mapping[str, NDArray[Any]], place: str) -> None:
    """Add what the data set's attributes and the NDAttributes `columns`, found at `place`, say of the region.

    `data` may be something other than a data set, which then says nothing.
    """
    attributes = data.attrs if isinstance(data, h5py.Dataset) else {}
    for quantity, name in DIMENSION.items():
        values = np.atleast_1d(np.asarray(attributes.get(name, ())))
        if values.ndim == 1 and values.dtype.kind in "iuf" and len(values) >= 2:
            for axis, value in zip("xy", values.tolist(), strict=False):
                _state(said, quantity, axis, value, f"{data.name}@{name}")
    for name, column in columns.items():
        found = region_name(name)
        if found is not None and column.dtype.kind in "iuf" and len(column):
            values = column.astype(np.float64)
            for index in differing(values, 0.0):
                _state(said, *found, values[index].item(), f"{place}/{name}[{index}]")


def state_pixel(said: Description, detector: Mapping[str, Any], where: str) -> None:
    """Add the detector's `x_pixel_size` and `y_pixel_size`: the sensor's if a binning is said beside them, or else the
    frame's. Raises ScanFileError.
    """
    binned = bool(said.about("binning_x") or said.about("binning_y"))
    doubtful = False
    for name, part in detector.items():
        found = region_name(str(name))
        if found is not None and isinstance(part, h5py.Dataset) and part.size == 1 and part.dtype.kind in "iuf":
            _state(said, *found, np.asarray(part[()]).item(), str(part.name))
            doubtful = doubtful or (found[0] == "binning" and not binned)
    for axis in "xy":
        size = detector.get(f"{axis}_pixel_size")
        if doubtful or not binned or _is_binned(size):
            state_number(said, f"detector_pixel_{axis}", size, "m", where=where)
        if (doubtful or binned) and not _is_binned(size):
            state_number(said, f"sensor_pixel_{axis}", size, "m", where=where)


def _is_binned(size: Any) -> bool:
    return isinstance(size, h5py.Dataset) and bool(size.attrs.get(BINNED, False))


def _state(said: Description, quantity: str, axis: str, value: float, where: str) -> None:
    if quantity == "binning" and not value:
        return  # never set
    said.state(f"{quantity}_{axis}", bool(value) if quantity == "reverse" else value, where)
