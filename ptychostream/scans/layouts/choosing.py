"""Which axes of an array of patterns are the scan, and which one has to be chosen from. Nothing is chosen silently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.stacks import AxisFrames

BOTH = frozenset({"pick", "transpose"})
"""What a reader follows that takes its patterns from `chosen_frames`."""


def chosen_frames(
    source: Any,
    where: str,
    *,
    name: str,
    pick: Mapping[int, int],
    raster: tuple[int, int] | None,
    places: int | None,
    transpose: bool = False,
    axes: tuple[str, ...] = (),
) -> Any:
    """The patterns of `source` as [N, H, W].

    Parameters
    ----------
    source
        An array [..., H, W], read by slices.
    name
        What the file calls it.
    pick
        The index to take of an axis, by axis.
    raster
        (rows, columns) of the scan, if the user gives it.
    places
        The number of positions that are known, or None.
    transpose
        Whether the last axis is the rows of the pattern, and the one before it the columns.
    axes
        Names of all axes, if the file has them.

    Raises
    ------
    ScanFileError
        Axes are left of which nothing says what they are; an axis or index does not exist; or the shape of the scan is
        another than the user gives.
    """
    shape = tuple(source.shape)
    if len(shape) < 3:
        raise ScanFileError(
            f"{name} has shape {shape}, not (frames, height, width)",
            where=where,
            remedy="name the patterns with --data",
        )
    _check_pick(pick, shape, name, where)
    outer = [axis for axis in range(len(shape) - 2) if axis not in pick and shape[axis] != 1]
    sizes = tuple(shape[axis] for axis in outer)
    _check_raster(sizes, raster, places, name, shape, where, axes)
    chosen = dict(pick) | {axis: 0 for axis in range(len(shape) - 2) if shape[axis] == 1 and axis not in pick}
    if len(shape) == 3 and not pick and not transpose:
        return source
    if len(shape) == 3 and not pick:
        chosen = {}
    pattern = (len(shape) - 1, len(shape) - 2) if transpose else None
    return AxisFrames(source, chosen, pattern)


def _check_pick(pick: Mapping[int, int], shape: tuple[int, ...], name: str, where: str) -> None:
    for axis, index in pick.items():
        if not 0 <= axis < len(shape) - 2:
            raise ScanFileError(
                f"{name} of shape {shape} has no axis {axis} to choose from",
                where=where,
                remedy=f"give --pick with an axis from 0 to {len(shape) - 3}; the last two are the pattern's",
            )
        if not 0 <= index < shape[axis]:
            raise ScanFileError(
                f"axis {axis} of {name} has {shape[axis]} elements, so there is no element {index}",
                where=where,
                remedy=f"give --pick {axis}=K with K from 0 to {shape[axis] - 1}",
            )


def _check_raster(
    sizes: tuple[int, ...],
    raster: tuple[int, int] | None,
    places: int | None,
    name: str,
    shape: tuple[int, ...],
    where: str,
    axes: tuple[str, ...],
) -> None:
    """Raise if what is left of the axes is not certainly the scan."""
    frames = math.prod(sizes)
    if raster is not None:
        fits = sizes == raster if len(sizes) > 1 else frames == math.prod(raster)
        if not fits and sizes != tuple(size for size in raster if size != 1):
            raise ScanFileError(
                f"the scan is given as {raster[0]} rows of {raster[1]}, but {name} has shape {shape}"
                + (f" (axes {', '.join(axes)})" if axes else ""),
                where=where,
                remedy="give --scan-shape with the rows and columns that the file has, and --pick for an axis that is "
                "no part of the scan",
            )
        return
    if len(sizes) > 1 and places != frames:
        known = f"{places} positions" if places is not None else "no positions"
        choices = ", ".join(f"--pick {axis}=K (of {shape[axis]})" for axis in range(len(shape) - 2) if shape[axis] > 1)
        raise ScanFileError(
            f"{name} has shape {shape} and there are {known}, so nothing says which axes are the scan",
            where=where,
            remedy=f"if they are a raster, give --scan-shape ROWS COLUMNS; if one is a threshold or a repetition, "
            f"choose from it: {choices}",
        )
