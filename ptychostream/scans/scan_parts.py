"""The common part of all scan file layouts: the values of the file, the user's options, and the checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import FewerPositionsError, MorePositionsError, ScanFileError
from ptychostream.positions.positions import AxisConfig
from ptychostream.positions.route_file import read_route
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_counts import LazyCounts
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES

GEOMETRY = ("energy_ev", "distance_m", "detector_pixel_m")


@dataclass(frozen=True)
class ScanOptions:
    """Values that a scan file does not have, or that replace those of the file.

    Attributes
    ----------
    x_name, y_name
        NDAttributes with the positions (NDFileHDF5 layout).
    route
        A route file (see `ptychostream.positions.route_file`). Its positions replace those of the scan file.
    axes
        Converts the stored positions to canvas axes, and gives their unit if the file does not. None: they are (x, y),
        in metres if the file gives no unit.
    energy_ev, distance_m, detector_pixel_m
        Replace the values of the file.
    corner
        Whether the zero frequency is at pixel [0, 0] and not at the centre. None: as the file says.
    swmr
        Whether to read a file that a SWMR writer still writes.
    """

    x_name: str = "PositionX"
    y_name: str = "PositionY"
    route: Path | None = None
    axes: AxisConfig | None = None
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    corner: bool | None = None
    swmr: bool = False


@dataclass
class ScanParts:
    """The values that the reader of a layout found, not checked yet.

    `raw_positions` [N, 2] are the stored values, None if a route file gives them. `unit_m` is their unit in metres,
    None if the file does not say.
    """

    scan_id: str
    counts: Any
    raw_positions: NDArray[np.float64] | None
    unit_m: float | None = None
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    radiation: str = "photon"
    bad_pixels: NDArray[np.bool_] | None = None
    probe: NDArray[np.complex64] | None = None
    frame_ids: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    corner: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


def build_scan(parts: ScanParts, options: ScanOptions, where: str) -> Scan:
    """Make a Scan from `parts` and the `options` that replace parts, and check it.

    Raises
    ------
    ScanFileError
        Counts have wrong dimensions or a wrong type, the numbers of frames and positions differ, positions are not
        finite, the geometry is missing or impossible, or mask or probe have another shape.
    """
    corner = parts.corner if options.corner is None else options.corner
    counts = _check_counts(parts.counts, where, corner)
    positions = _positions(parts, options, len(counts), where)
    geometry = {name: _geometry(parts, options, name, where) for name in GEOMETRY}
    bad_pixels = parts.bad_pixels
    if bad_pixels is not None:
        if bad_pixels.shape != counts.shape[1:]:
            raise _mismatch("the bad-pixel mask", bad_pixels.shape, counts.shape[1:], where)
        if corner:
            bad_pixels = np.fft.fftshift(bad_pixels)
    probe = parts.probe
    if probe is not None and (probe.ndim != 3 or probe.shape[1:] != counts.shape[1:]):
        raise _mismatch("the probe", probe.shape, ("modes", *counts.shape[1:]), where)
    for name in ("frame_ids", "times"):
        column = getattr(parts, name)
        if column is not None and column.shape != (len(counts),):
            raise _mismatch(name, column.shape, (len(counts),), where)
    return Scan(
        parts.scan_id,
        counts,
        positions,
        radiation=parts.radiation,
        bad_pixels=bad_pixels,
        probe=probe,
        frame_ids=parts.frame_ids,
        times=parts.times,
        metadata=parts.metadata,
        **geometry,
    )


def _check_counts(source: Any, where: str, corner: bool) -> LazyCounts:
    if len(source.shape) != 3 or 0 in source.shape[1:]:
        raise ScanFileError(
            f"the patterns have shape {tuple(source.shape)}, not (frames, height, width)",
            where=where,
            remedy="save one two-dimensional pattern per frame",
        )
    if source.dtype.kind not in "iuf":
        raise ScanFileError(
            f"the patterns are of type {source.dtype}", where=where, remedy="give integer detector counts"
        )
    if source.shape[0] == 0:
        raise ScanFileError("there are no frames", where=where, remedy="check that the scan was recorded to its end")
    if math.prod(source.shape[1:]) * source.dtype.itemsize > MAX_PART_BYTES:
        what = f"a pattern of {tuple(source.shape[1:])} {source.dtype} is larger than {MAX_PART_BYTES >> 20} MiB"
        raise ScanFileError(what, where=where, remedy="the file is damaged; copy it again")
    counts = LazyCounts(source, where, corner=corner)
    if source.dtype.kind == "f":
        counts[0]
    return counts


def _positions(parts: ScanParts, options: ScanOptions, frames: int, where: str) -> NDArray[np.float64]:
    raw, unit_m = parts.raw_positions, parts.unit_m
    if options.route is not None:
        raw, unit_m = _route_positions(options.route, parts.frame_ids), None
        where = f"{where} with {options.route}"
    if raw is None or raw.ndim != 2 or raw.shape[1] != 2:
        raise _mismatch("the array of positions", () if raw is None else raw.shape, (frames, 2), where)
    if len(raw) != frames:
        raise (MorePositionsError if len(raw) > frames else FewerPositionsError)(
            f"{frames} frames but {len(raw)} positions",
            where=where,
            remedy="which frame belongs to which position cannot be guessed: record the scan again, cut the file to "
            "the frames whose positions are known, or give a route file with frame ids (--route)",
        )
    if raw.dtype.kind not in "iuf":
        raise ScanFileError(f"positions of type {raw.dtype}", where=where, remedy="store them as numbers")
    raw = raw.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(raw).all(axis=1))
    if len(bad):
        raise ScanFileError(
            f"{len(bad)} of {frames} positions are unknown or not finite, the first that of frame {bad[0]}",
            where=where,
            remedy="repair those positions, cut those frames from the file, or give a route file (--route)",
        )
    if options.axes is None:
        return raw * (unit_m or 1.0)
    if unit_m is not None:
        raw *= unit_m / options.axes.unit_m
    return np.stack(options.axes.apply(raw[:, 0], raw[:, 1]), axis=1)


def _route_positions(path: Path, frame_ids: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """[N, 2] in the route's unit, in order, or by frame id if the route has ids. NaN for an id that it lacks."""
    route = read_route(path)
    pairs = np.stack([route.x, route.y], axis=1)
    if route.ids is None:
        return pairs
    if frame_ids is None:
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


def _geometry(parts: ScanParts, options: ScanOptions, name: str, where: str) -> float:
    value = getattr(options, name)
    if value is None:
        value = getattr(parts, name)
    flag = "--" + name.replace("_", "-")
    if value is None:
        raise ScanFileError(f"the file does not give {name}", where=where, remedy=f"give it with {flag}")
    if not (np.isfinite(value) and value > 0):
        raise ScanFileError(f"{name} is {value}", where=where, remedy=f"give the right value with {flag}")
    return float(value)


def _mismatch(what: str, shape: Any, wanted: Any, where: str) -> ScanFileError:
    return ScanFileError(
        f"{what} has shape {tuple(shape)}, not {tuple(wanted)}", where=where, remedy="correct the file"
    )
