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

from ptychostream.errors import ScanFileError
from ptychostream.scans.hdf5_statements import differing, state_number
from ptychostream.scans.scan_hdf5 import text
from ptychostream.scans.scan_layout import BINNED, DIMENSION
from ptychostream.statements.description import Description
from ptychostream.statements.driver_names import region_name
from ptychostream.statements.units import is_unit

_FLAGS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
"""Choices of an EPICS record whose text comes as the attribute."""


def state_region(said: Description, data: Any, columns: Mapping[str, NDArray[Any]], place: str, where: str) -> None:
    """Add what the data set's attributes and the NDAttributes `columns`, found at `place`, say of the region.

    `data` may be something other than a data set, which then says nothing.

    Raises
    ------
    ScanFileError
        One of them is there, and is neither a number nor a text that says that it was never set.
    """
    attributes = data.attrs if isinstance(data, h5py.Dataset) else {}
    for quantity, name in DIMENSION.items():
        values = np.asarray(attributes.get(name, ()))
        if not values.size:
            continue
        if values.ndim != 1 or values.dtype.kind not in "biuf" or len(values) < 2:
            what = f"{data.name}@{name} is {values.tolist()!r}, where a number for each dimension is expected, x first"
            raise ScanFileError(what, where=where, remedy="write two numbers, or take the attribute out of the file")
        for axis, value in zip("xy", values.tolist(), strict=False):
            _state(said, quantity, axis, value, f"{data.name}@{name}")
    for name, column in columns.items():
        found = region_name(name)
        if found is not None and len(column):
            values = _numbers(column, found[0], f"{place}/{name}", where)
            for index in differing(values, 0.0) if len(values) else ():
                _state(said, *found, values[index].item(), f"{place}/{name}[{index}]")


def _numbers(column: NDArray[Any], quantity: str, name: str, where: str) -> NDArray[np.float64]:
    """[N] numbers, also where they are stored as texts; empty where the texts say that nothing is known."""
    if column.dtype.kind in "biuf":
        return column.astype(np.float64)
    words = [text(value).strip() for value in column.tolist()]
    if not any(map(is_unit, words)):
        return np.empty(0)
    numbers = [_number(word, quantity) for word in words]
    if None in numbers:
        wrong = numbers.index(None)
        what = f"{name} is the text {words[wrong]!r} for frame {wrong}, where a number is expected"
        raise ScanFileError(what, where=where, remedy="store numbers there, or take the attribute out of the file")
    return np.array(numbers, np.float64)


def _number(word: str, quantity: str) -> float | None:
    if quantity == "reverse" and word.lower() in _FLAGS:
        return float(_FLAGS[word.lower()])
    try:
        return float(word)
    except ValueError:
        return None


def state_pixel(said: Description, detector: Mapping[str, Any], where: str) -> None:
    """Add the detector's `x_pixel_size` and `y_pixel_size`: the sensor's if a binning is said beside them, or else the
    frame's. Raises ScanFileError.
    """
    binned = bool(said.about("binning_x") or said.about("binning_y"))
    doubtful = False
    for name, part in detector.items():
        found = region_name(str(name))
        if found is not None and isinstance(part, h5py.Dataset) and part.size == 1 and part.dtype.kind in "biuf":
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
