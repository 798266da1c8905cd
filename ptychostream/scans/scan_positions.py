"""Positions of a scan file in metres and canvas axes, from the stored columns or from a route file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import FewerPositionsError, MorePositionsError, ScanFileError
from ptychostream.positions.positions import AxisConfig
from ptychostream.positions.route_file import Route, read_route
from ptychostream.scans.scan_ids import continued
from ptychostream.statements.description import Description
from ptychostream.statements.units import factor, is_unit


def positions_m(
    raw: NDArray[Any] | None,
    said: Description,
    route: Path | None,
    axes: AxisConfig | None,
    frame_ids: NDArray[np.int64] | None,
    frames: int,
    where: str,
    *,
    route_columns: tuple[str, ...] | None = None,
) -> NDArray[np.float64]:
    """[N, 2] positions in metres and canvas axes.

    Parameters
    ----------
    raw
        [N, 2] stored values of (x, y), in the units that `said` states. Not used with a route.
    route
        A route file. Its unit is that of `axes` if it is set there, else the one that its data sets state.
    route_columns
        The names of its columns x, y and perhaps id, if they are called otherwise.
    axes
        Swap and signs. None: the stored axes are the canvas's.

    Raises
    ------
    ScanFileError
        The number of positions is not that of the frames, or a position is no finite number.
    """
    if route is not None:
        first = said.value("first_id")
        where = f"{where} with {route}"
        read = read_route(route, route_columns)
        raw = _route_positions(read, route, frame_ids, None if first is None else int(first), where)
        units = _route_units(read, axes, str(route))
    else:
        units = [said.number(f"position_unit_{axis}") or 1.0 for axis in "xy"]
    if raw is None or raw.ndim != 2 or raw.shape[1] != 2:
        what = f"the array of positions has shape {() if raw is None else raw.shape}, not {(frames, 2)}"
        raise ScanFileError(what, where=where, remedy="correct the file")
    if len(raw) != frames:
        raise (MorePositionsError if len(raw) > frames else FewerPositionsError)(
            f"{frames} frames but {len(raw)} positions",
            where=where,
            remedy="which frame belongs to which position cannot be guessed: record the scan again, cut the file to "
            "the frames whose positions are known, or give a route file with frame ids (--route)",
        )
    if raw.dtype.kind not in "iuf":
        raise ScanFileError(f"positions of type {raw.dtype}", where=where, remedy="store them as numbers")
    positions = raw.astype(np.float64) * units
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ScanFileError(
            f"{len(bad)} of {frames} positions are unknown or not finite, the first that of frame {bad[0]}",
            where=where,
            remedy="repair those positions, cut those frames from the file, or give a route file (--route)",
        )
    if axes is None:
        return positions
    in_metres = axes.model_copy(update={"unit": "m"})
    return np.stack(in_metres.apply(positions[:, 0], positions[:, 1]), axis=1)


def _route_units(route: Route, axes: AxisConfig | None, where: str) -> list[float]:
    """Metres in a unit of x and of y: what the user gives, else what the file says, else metres.

    Raises ScanFileError: only one of x and y has a unit, or an unknown one.
    """
    if axes is not None and "unit" in axes.model_fields_set:
        return [axes.unit_m] * 2
    stated = [is_unit(unit) for unit in route.units]
    if any(stated) and not all(stated):
        known, silent = ("x", "y") if stated[0] else ("y", "x")
        what = f"{known} of the route has a unit, and {silent} has none"
        raise ScanFileError(what, where=where, remedy="give both `units`, or --position-unit")
    if not all(stated):
        return [1.0, 1.0]
    return [factor(unit, "length", f"{where}: {name}") for name, unit in zip("xy", route.units, strict=True)]


def _route_positions(
    route: Route, path: Path, frame_ids: NDArray[np.int64] | None, first: int | None, where: str
) -> NDArray[np.float64]:
    """[N, 2] in the route's unit: by frame id if the file has ids, else in order. NaN for an id that it lacks."""
    pairs = np.stack([route.x, route.y], axis=1)
    if route.ids is None and (frame_ids is None or len(set(frame_ids.tolist())) == 1 < len(frame_ids)):
        return pairs  # ids that are all equal were never set
    if route.ids is None and frame_ids is not None:
        return _by_id(pairs, frame_ids, first, where)
    if frame_ids is None or route.ids is None:
        raise ScanFileError(
            "the route has frame ids, but the scan file has none",
            where=str(path),
            remedy="give a route without ids, one position per frame in order",
        )
    rows = {int(frame): row for row, frame in enumerate(route.ids)}
    positions = np.full((len(frame_ids), 2), np.nan)
    for index, frame in enumerate(frame_ids):
        row = rows.get(int(frame))
        if row is not None:
            positions[index] = pairs[row]
    return positions


def _by_id(
    pairs: NDArray[np.float64], frame_ids: NDArray[np.int64], first: int | None, where: str
) -> NDArray[np.float64]:
    """[N, 2] of the frames whose ids count the rows of a route from `first`, or from the lowest id.

    Raises
    ------
    ScanFileError
        An id occurs twice, or the route has more rows than the ids span, and which frames are missing is not known.
    """
    frame_ids = continued(frame_ids)
    ids, times = np.unique(frame_ids, return_counts=True)
    if times.max(initial=1) > 1:
        what = f"frame id {ids[np.argmax(times)]} occurs {times.max()} times"
        raise ScanFileError(what, where=where, remedy="cut the file to one scan: its ids say which position is whose")
    span = int(ids[-1] - ids[0]) + 1
    if first is None and len(pairs) > span:
        raise MorePositionsError(
            f"the route has {len(pairs)} positions, and the ids of the {len(frame_ids)} frames go from {ids[0]} to "
            f"{ids[-1]}",
            where=where,
            remedy="say which id belongs to the route's first row (--first-id)",
        )
    if len(pairs) < span and first is None:
        what = f"the ids of {len(frame_ids)} frames go from {ids[0]} to {ids[-1]}, but there are {len(pairs)} positions"
        raise FewerPositionsError(what, where=where, remedy="give the whole route, or cut the file to its frames")
    rows = frame_ids - (int(ids[0]) if first is None else first)
    known = (rows >= 0) & (rows < len(pairs))
    return np.where(known[:, None], pairs[np.where(known, rows, 0)], np.nan)
