"""Scans of an electron microscope, whose file says the step of each axis: rows and columns of the scan and the pattern.

The axes are told apart by their names and by what their units measure, never by their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError, UnitError
from ptychostream.imaging.geometry import wavelength_m
from ptychostream.scans.layouts.choosing import BOTH
from ptychostream.scans.layouts.raster import raster_positions
from ptychostream.scans.layouts.stacks import AxisFrames
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description
from ptychostream.statements.units import Dimension, factor, is_unit

_SCAN_ROWS = frozenset({"y", "scan_y", "sy", "ry", "r_y"})
_SCAN_COLUMNS = frozenset({"x", "scan_x", "sx", "rx", "r_x"})
_PATTERN_ROWS = frozenset({"ky", "qy", "dy", "q_y", "k_y", "detector_y", "height"})
_PATTERN_COLUMNS = frozenset({"kx", "qx", "dx", "q_x", "k_x", "detector_x", "width"})
_SCAN, _PATTERN = _SCAN_ROWS | _SCAN_COLUMNS, _PATTERN_ROWS | _PATTERN_COLUMNS
_ROWS, _COLUMNS = _SCAN_ROWS | _PATTERN_ROWS, _SCAN_COLUMNS | _PATTERN_COLUMNS


@dataclass(frozen=True)
class Axis:
    """One axis of an array of patterns.

    Attributes
    ----------
    name
        As the file calls it. Empty if it does not.
    size
        Number of elements.
    step
        From one element to the next, in `unit`. 0: not known.
    unit
        As it is written.
    scan
        Whether it belongs to the scan (True) or to the pattern (False). None: the file does not say.
    where
        The place in the file.
    row
        Whether it counts rows (True) or columns (False). None: its name tells.
    """

    name: str
    size: int
    step: float
    unit: str
    scan: bool | None
    where: str
    row: bool | None = None

    def of_scan(self) -> bool | None:
        """`scan`, or what its name and unit tell."""
        if self.scan is not None:
            return self.scan
        name = self.name.strip().lower()
        by_name = True if name in _SCAN else False if name in _PATTERN else None
        by_unit = self._by_unit()
        if by_name is not None and by_unit is not None and by_name != by_unit:
            return None
        return by_unit if by_name is None else by_name

    def of_rows(self) -> bool | None:
        """`row`, or what its name tells."""
        if self.row is not None:
            return self.row
        name = self.name.strip().lower()
        return True if name in _ROWS else False if name in _COLUMNS else None

    def measure(self, *dimensions: Dimension) -> tuple[float, Dimension] | None:
        """The step in SI and what it measures. None if it is not known. Raises UnitError for another unit."""
        unit = self.unit.strip().lower()
        if not self.step or not math.isfinite(self.step) or not is_unit(self.unit) or unit in _NO_STEP:
            return None
        for dimension in dimensions:
            try:
                return abs(self.step) * factor(self.unit, dimension, self.where), dimension
            except UnitError:
                if dimension == dimensions[-1]:
                    raise
        return None

    def _by_unit(self) -> bool | None:
        for dimension, scan in (("length", True), ("inverse length", False), ("angle", False)):
            try:
                factor(self.unit, dimension, self.where)  # type: ignore[arg-type]
            except UnitError:
                continue
            return scan
        return None


_NO_STEP = frozenset({"px", "pixel", "pixels", "1", "index", "<undefined>"})


def stem_parts(
    source: Any,
    axes: list[Axis],
    options: ScanOptions,
    said: Description,
    where: str,
    *,
    name: str,
    metadata: dict[str, Any] | None = None,
) -> ScanParts:
    """The patterns and the places of a scan whose axes are known.

    Parameters
    ----------
    source
        An array of any order of axes, read by slices.
    axes
        One for each axis of `source`.
    said
        What the file says besides; energy and radiation must be in it already.

    Raises
    ------
    ScanFileError
        An axis cannot be told apart, or its step is not known and the user does not give it.
    """
    axes = _sorted_out(source, axes, options, name, where)
    rows, columns = (_one(axes, scan=False, row=row, name=name, where=where) for row in (True, False))
    if options.transpose:
        rows, columns = columns, rows
    pick = dict(options.pick)
    for axis, index in pick.items():
        if axis in (rows, columns) or not 0 <= axis < len(axes) or not 0 <= index < axes[axis].size:
            sizes = ", ".join(f"{k} (of {axes[k].size})" for k in range(len(axes)) if k not in (rows, columns))
            raise ScanFileError(
                f"--pick {axis}={index}: {name} of shape {tuple(source.shape)} has no such element beside the patterns",
                where=where,
                remedy=f"choose from axis {sizes}",
            )
    left = [index for index in range(len(axes)) if index not in (rows, columns)]
    chosen = {index: pick.get(index, 0) for index in left if axes[index].size == 1 or index in pick}
    counts = AxisFrames(source, chosen, (rows, columns))
    outer = [index for index in range(len(axes)) if index not in chosen and index not in (rows, columns)]
    _state_object_pixel(said, axes[rows], axes[columns], options.energy_ev)
    positions = None if options.route is not None else _positions(axes, outer, options, said, name, where)
    return ScanParts(counts=counts, raw_positions=positions, said=said, metadata=metadata or {}, obeys=BOTH)


def turned(degrees: float, name: str, options: ScanOptions, where: str) -> None:
    """Raise ScanFileError if the file says that the scan is turned, and the user neither gives an angle nor a route.

    Programs do not agree about the sign and about what is turned against what.
    """
    if degrees and options.scan_rotation_deg is None and options.route is None:
        raise ScanFileError(
            f"it says that scan and pattern are turned by {degrees:g} degrees ({name})",
            where=where,
            remedy="give --scan-rotation-deg, the angle from the pattern's x axis to the scan's (0 to ignore it)",
        )


def _sorted_out(source: Any, axes: list[Axis], options: ScanOptions, name: str, where: str) -> list[Axis]:
    """Check that every axis that is not chosen from is known."""
    for index, axis in enumerate(axes):
        if index in dict(options.pick) or axis.size == 1:
            continue
        if axis.of_scan() is None or axis.of_rows() is None:
            named = ", ".join(repr(one.name) for one in axes)
            raise ScanFileError(
                f"{name} {tuple(source.shape)} has axes {named}, and nothing says what {index} is",
                where=where,
                remedy=f"give --data {name} with --scan-shape ROWS COLUMNS and --scan-step-m Y X: the array is then "
                "taken as (scan rows, scan columns, height, width)",
            )
    return axes


def _one(axes: list[Axis], *, scan: bool, row: bool, name: str, where: str) -> int:
    found = [index for index, axis in enumerate(axes) if axis.of_scan() is scan and axis.of_rows() is row]
    if len(found) != 1:
        what = f"{'scan' if scan else 'pattern'}'s {'rows' if row else 'columns'}"
        raise ScanFileError(
            f"{name}: {len(found)} axes are the {what}",
            where=where,
            remedy=f"give --data {name} with --scan-shape and --scan-step-m",
        )
    return found[0]


def _positions(
    axes: list[Axis], outer: list[int], options: ScanOptions, said: Description, name: str, where: str
) -> NDArray[np.float64]:
    """[N, 2] (x, y) in metres, in the order in which the frames are stored."""
    by_row = {axes[index].of_rows(): index for index in outer}
    if len(by_row) != len(outer) or len(outer) > 2:
        raise ScanFileError(
            f"{name}: {len(outer)} axes are the scan's", where=where, remedy="choose from the others with --pick"
        )
    row, column = by_row.get(True), by_row.get(False)
    shape = (1 if row is None else axes[row].size, 1 if column is None else axes[column].size)
    if options.scan_shape is not None and options.scan_shape != shape:
        raise ScanFileError(
            f"the scan is given as {options.scan_shape[0]} rows of {options.scan_shape[1]}, and the file says "
            f"{shape[0]} of {shape[1]}",
            where=where,
            remedy="leave out --scan-shape, or correct it",
        )
    steps = options.scan_step_m or (_step(axes, row, where), _step(axes, column, where))
    for axis in "xy":
        if options.scan_step_m is not None:
            said.give(f"position_unit_{axis}", 1.0, "--scan-step-m")
        else:
            said.state(f"position_unit_{axis}", 1.0, where, "metres, computed from the steps of the axes")
    points = raster_positions(shape, steps, options.scan_rotation_deg or 0.0)
    if row is not None and column is not None and row > column:  # stored with the rows of the scan as the faster axis
        points = points.reshape(*shape, 2).transpose(1, 0, 2).reshape(-1, 2)
    return points


def _step(axes: list[Axis], index: int | None, where: str) -> float:
    if index is None:
        return 0.0
    measured = axes[index].measure("length")
    if measured is None:
        axis = axes[index]
        raise NoPositionsError(
            f"no step of the scan: axis {axis.name or index} ({axis.where}) says {axis.step:g} {axis.unit!r}",
            where=where,
            remedy="give --scan-step-m Y X, or a route file (--route)",
        )
    return measured[0]


def _state_object_pixel(said: Description, rows: Axis, columns: Axis, given_ev: float | None) -> None:
    """The pixel of the object from the step of the pattern: 1 / (width · step), or wavelength / (width · angle).

    Both axes state it, so that a detector whose pixels are not square is refused.
    """
    for axis in (columns, rows):
        measured = axis.measure("inverse length", "angle")
        if measured is None:
            continue
        step, dimension = measured
        written = f"{axis.step:g} {axis.unit} a pixel of the pattern"
        if dimension == "inverse length":
            said.state("object_pixel", 1 / (columns.size * step), axis.where, written)
        elif energy := given_ev or said.number("energy"):
            wavelength = wavelength_m(energy, str(said.value("radiation") or "electron"))
            said.state("object_pixel", wavelength / (columns.size * step), axis.where, written)
