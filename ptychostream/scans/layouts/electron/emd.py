"""Read 4D-STEM arrays in EMD files: those of py4DSTEM, and those of Prismatic, ncempy and RosettaSciIO.

Beside the array stand `dim0`, `dim1` … or `dim1`, `dim2` …, each with `name` and `units`. Which axis is which is read
from the names and the units, never from the order. In a DataCube of py4DSTEM (Rx, Ry, Qx, Qy) x counts rows; in all
others x counts columns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.axes import Axis, stem_parts, turned
from ptychostream.scans.scan_hdf5 import checked_dataset, number, text, whole
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

DATA = ("datacube_root/datacube/data",)
_PY4DSTEM = {"rx": (True, True), "ry": (True, False), "qx": (False, True), "qy": (False, False)}
"""py4DSTEM's name of an axis: whether it is the scan's, and whether it counts rows."""
_DEEPEST = 6


def matches(file: h5py.File) -> bool:
    """Whether a group of the file is an EMD array of four axes."""
    return bool(_arrays(file))


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    found = _arrays(file)
    if options.data is not None:
        found = [array for array in found if str(array.name).strip("/") == options.data.strip("/")]
    if len(found) != 1:
        names = ", ".join(sorted(f"{array.name} {array.shape}" for array in found))
        raise ScanFileError(
            f"EMD with {len(found)} arrays of four axes", where=where, remedy=f"name one with --data: {names}"
        )
    source = checked_dataset(found[0], where)
    group = source.parent
    cube = text(group.attrs.get("python_class")) == "DataCube"
    axes = [_axis(group, index, source, cube=cube, where=where) for index in range(source.ndim)]
    said = Description(where)
    said.state("radiation", "electron", str(group.name), "EMD, of an electron microscope")
    if cube:
        _check_calibration(group, options, where)
    return stem_parts(source, axes, options, said, where, name=str(source.name))


def _arrays(file: h5py.File) -> list[h5py.Dataset]:
    """The arrays of four axes that stand beside their dims."""
    found: list[h5py.Dataset] = []
    waiting: list[tuple[Any, int]] = [(file, 0)]
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            child = group.get(name) if isinstance(link, h5py.HardLink) else None
            if isinstance(child, h5py.Group) and depth < _DEEPEST:
                waiting.append((child, depth + 1))
            elif isinstance(child, h5py.Dataset) and child.ndim >= 4 and _dims(group, child.ndim) is not None:
                found.append(child)
    return found


def _dims(group: h5py.Group, axes: int) -> list[h5py.Dataset] | None:
    for first in (0, 1):
        dims = [group.get(f"dim{first + index}") for index in range(axes)]
        if all(isinstance(dim, h5py.Dataset) for dim in dims):
            return dims
    return None


def _axis(group: h5py.Group, index: int, source: Any, *, cube: bool, where: str) -> Axis:
    dims = _dims(group, source.ndim)
    assert dims is not None
    dim = dims[index]
    values = whole(dim, where).ravel() if dim.dtype.kind in "iuf" else np.empty(0)
    axis = Axis(
        name=_plain(dim.attrs.get("name")),
        size=source.shape[index],
        step=_step(values, source.shape[index], str(dim.name), where),
        unit=_plain(dim.attrs.get("units")).replace("n_m", "nm").replace("A_ngstrom", "A"),
        scan=None,
        where=str(dim.name),
    )
    known = _PY4DSTEM.get(axis.name.lower().replace("_", "")) if cube else None
    return axis if known is None else replace(axis, scan=known[0], row=known[1])


def _plain(value: Any) -> str:
    found = text(value).strip()
    return found[1:-1] if found[:1] == "[" and found[-1:] == "]" else found


def _step(values: Any, size: int, name: str, where: str) -> float:
    """emdfile writes the first two values or all of them. 0 if there is no step. Raises ScanFileError if it changes."""
    if len(values) < 2:
        return 0.0
    steps = np.diff(values.astype(np.float64))
    if len(values) == size and not np.allclose(steps, steps[0], rtol=1e-3, atol=1e-6 * abs(steps).max()):
        raise ScanFileError(
            f"the steps of {name} are unequal, {steps.min():g} to {steps.max():g}",
            where=where,
            remedy="give a route file (--route) with --data and --scan-shape",
        )
    return float(steps[0])


def _check_calibration(group: h5py.Group, options: ScanOptions, where: str) -> None:
    """py4DSTEM's calibration may say that the scan is turned against the detector. Its sign is not taken on trust."""
    root = group.parent
    calibration = root.get("metadatabundle/calibration")
    if not isinstance(calibration, h5py.Group) or options.route is not None:
        return
    flip = calibration.get("QR_flip")
    if isinstance(flip, h5py.Dataset) and flip.size == 1 and bool(flip[()]) and not options.transpose:
        raise ScanFileError(
            "its calibration says that the pattern is flipped against the scan (QR_flip)",
            where=where,
            remedy="give --transpose, which exchanges rows and columns of the pattern, or a route file (--route)",
        )
    turned(number(calibration.get("QR_rotation_degrees")) or 0.0, "QR_rotation_degrees", options, where)
    turned(math.degrees(number(calibration.get("QR_rotation")) or 0.0), "QR_rotation", options, where)
