"""The common part of all scan file layouts: the values of the file, the user's options, and the checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import GeometryError, ScanFileError
from ptychostream.frames.measured_pixels import mask_fault
from ptychostream.frames.survey import MASK_REMEDY
from ptychostream.imaging.bright_disk import bright_disk
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.positions.positions import AxisConfig
from ptychostream.scans import scan_geometry, scan_positions
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_counts import LazyCounts
from ptychostream.scans.scan_ids import whole_ids
from ptychostream.statements.description import Description
from ptychostream.statements.radiation import Radiation
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES
from ptychostream.storage.hdf5_virtual import VirtualFrames

_DISK_FRAMES = 32
"""Frames of which the bright disk is found, over the whole scan."""
GEOMETRY = ("energy_ev", "distance_m", "detector_pixel_m")


@dataclass(frozen=True)
class ScanOptions:
    """Values that a scan file does not have, or that replace those of the file.

    Attributes
    ----------
    data
        Path of the patterns in an HDF5 file. None: where the layout has them.
    x_name, y_name
        Names or paths of the two columns of positions in the file; `PATH:K` is column K of a table.
    pick
        (axis, index) pairs: the element that is taken of an axis of the patterns, such as a threshold.
    scan_shape
        (rows, columns) of a raster. With `scan_step_m` it gives the positions.
    scan_step_m
        (y, x) metres from one row to the next, and from one column to the next.
    scan_rotation_deg
        Angle from the pattern's x axis to the raster's x axis, positive from +x towards +y. None: 0.
    transpose
        Whether rows and columns of every pattern are exchanged in the file.
    route_columns
        Names of the route file's columns: x, y and perhaps the frame ids.
    first_id
        Id of the frame that belongs to the first row of a route without ids. None: the lowest id of the file.
    route
        A route file (see `ptychostream.positions.route_file`). Its positions replace those of the scan file.
    axes
        Converts the stored positions to canvas axes. Its unit, if it is set, replaces that of the file. None: they are
        (x, y), in metres if the file gives no unit.
    energy_ev, distance_m, detector_pixel_m
        Replace the values of the file. The pixel is that of a frame, binning included. For electrons the energy is the
        accelerating voltage, V.
    radiation
        "photon" or "electron". Replaces the file's.
    object_pixel_m, pattern_pixel_rad, semi_angle_rad
        The geometry in another form, of which one is enough: the pixel of the object; the angle of a pixel of the
        pattern; the convergence semi-angle, which is the radius of the patterns' bright disk. It replaces distance and
        detector pixel.
    binning
        Sensor pixels along each side of a frame's pixel. Replaces the file's.
    corner
        Whether the zero frequency is at pixel [0, 0] and not at the centre. None: as the file says.
    swmr
        Whether to read a file that a SWMR writer still writes.
    saturation
        Count at which a pixel is saturated. None: as the file says, or the type's maximum.
    mask_sense
        What a non-zero pixel of the file's mask means: "bad" or "good". None: bad.
    """

    data: str | None = None
    x_name: str = "PositionX"
    y_name: str = "PositionY"
    pick: tuple[tuple[int, int], ...] = ()
    scan_shape: tuple[int, int] | None = None
    scan_step_m: tuple[float, float] | None = None
    scan_rotation_deg: float | None = None
    transpose: bool = False
    route: Path | None = None
    route_columns: tuple[str, ...] | None = None
    first_id: int | None = None
    axes: AxisConfig | None = None
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    radiation: Radiation | None = None
    object_pixel_m: float | None = None
    pattern_pixel_rad: float | None = None
    semi_angle_rad: float | None = None
    binning: int | None = None
    corner: bool | None = None
    swmr: bool = False
    saturation: int | None = None
    mask_sense: Literal["bad", "good"] | None = None

    def __post_init__(self) -> None:
        """Values that came as JSON become what the readers expect."""
        object.__setattr__(self, "pick", tuple((int(axis), int(index)) for axis, index in self.pick))
        for name in ("scan_shape", "scan_step_m", "route_columns"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))

    def give(self, said: Description) -> None:
        """Add what these options give to what the file says."""
        said.give("radiation", self.radiation, "--radiation")
        said.give("energy", self.energy_ev, "--energy-ev")
        said.give("object_pixel", self.object_pixel_m, "--object-pixel-m")
        said.give("first_id", self.first_id, "--first-id")
        said.give("distance", self.distance_m, "--distance-m")
        said.give("saturation", self.saturation, "--saturation")
        said.give("mask_sense", self.mask_sense, "--mask-sense")
        for axis in "xy":
            said.give(f"detector_pixel_{axis}", self.detector_pixel_m, "--detector-pixel-m")
            said.give(f"binning_{axis}", self.binning, "--binning")
            if self.axes is not None and "unit" in self.axes.model_fields_set:
                said.give(f"position_unit_{axis}", self.axes.unit_m, "--position-unit")
        if self.corner is not None:
            said.give("zero_frequency", "corner" if self.corner else "centre", "--corner")


@dataclass
class ScanParts:
    """What the reader of a layout found, not checked yet.

    Attributes
    ----------
    counts
        [N, H, W] counts, an array or one that is read by slices.
    raw_positions
        [N, 2] stored values of (x, y) in the units that `said` states. None if a route file gives the positions.
    said
        All that the file says of itself: a reader only adds statements.
    bad_pixels, probe, frame_ids, times, metadata
        See `ptychostream.scans.scan.Scan`.
    obeys
        Those of the options `pick` and `transpose` that the reader follows. `counts` has followed them already.
    """

    counts: Any
    raw_positions: NDArray[Any] | None
    said: Description
    bad_pixels: NDArray[np.bool_] | None = None
    probe: NDArray[np.complex64] | None = None
    frame_ids: NDArray[Any] | None = None
    times: NDArray[np.float64] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    obeys: frozenset[str] = frozenset()


def build_scan(parts: ScanParts, options: ScanOptions, where: str, *, geometry: bool = True) -> Scan:
    """Make a Scan from `parts` and the `options` that replace parts, and check it.

    Parameters
    ----------
    geometry
        Whether energy, distance and pixel are needed. Without it what is not said is NaN, and the size of the scan is
        not checked.

    Raises
    ------
    ScanFileError
        Counts have wrong dimensions or a wrong type, the numbers of frames and positions differ, positions are not
        finite, statements contradict each other, the geometry is missing or impossible, or mask or probe have another
        shape.
    """
    said = parts.said
    options.give(said)
    _assume(said)
    for quantity, axis in (("frame_height", -2), ("frame_width", -1)):
        if len(parts.counts.shape) > 1 and not said.about(quantity):
            said.state(quantity, int(parts.counts.shape[axis]), f"the shape of {_name(parts.counts)}")
    scan_geometry.give_angle(said, options.pattern_pixel_rad, "--mrad-per-pixel")
    corner = said.value("zero_frequency") == "corner"
    counts = _check_counts(parts.counts, where, corner)
    if options.semi_angle_rad is not None and geometry:
        scan_geometry.give_angle(said, _angle_of_a_pixel(counts, options.semi_angle_rad, where), "--semi-angle-mrad")
    scan_geometry.complete(said)
    scan_geometry.check(said)
    frame_ids = None if parts.frame_ids is None else whole_ids(parts.frame_ids, where)
    for name, column in (("frame_ids", frame_ids), ("times", parts.times)):
        if column is not None and column.shape != (len(counts),):
            raise _mismatch(name, column.shape, (len(counts),), where)
    positions = scan_positions.positions_m(
        parts.raw_positions,
        said,
        options.route,
        options.axes,
        frame_ids,
        len(counts),
        where,
        route_columns=options.route_columns,
    )
    bad_pixels = parts.bad_pixels
    if bad_pixels is not None:
        if bad_pixels.shape != counts.shape[1:]:
            raise _mismatch("the bad-pixel mask", bad_pixels.shape, counts.shape[1:], where)
        if said.value("mask_sense") == "good":
            bad_pixels = ~bad_pixels
        if fault := mask_fault(bad_pixels):
            raise ScanFileError(fault, where=where, remedy=MASK_REMEDY)
        if corner:
            bad_pixels = np.fft.fftshift(bad_pixels)
    probe = parts.probe
    if probe is not None and (probe.ndim != 3 or probe.shape[1:] != counts.shape[1:]):
        raise _mismatch("the probe", probe.shape, ("modes", *counts.shape[1:]), where)
    radiation = scan_geometry.radiation_of(said)
    known = scan_geometry.energy_of(said), said.number("distance"), scan_geometry.pixel_of(said)
    energy_ev, distance_m, detector_pixel_m = (
        scan_geometry.needed(value, name, where) if geometry else math.nan if value is None else value
        for value, name in zip(known, GEOMETRY, strict=True)
    )
    if geometry:
        width = counts.shape[2]
        pixel_m = object_pixel_m(energy_ev, distance_m, detector_pixel_m, width, radiation)
        scan_geometry.check_extent(positions, said, pixel_m, width)
    return Scan(
        str(said.value("scan_id") or ""),
        counts,
        positions,
        energy_ev=energy_ev,
        distance_m=distance_m,
        detector_pixel_m=detector_pixel_m,
        radiation=radiation,
        bad_pixels=bad_pixels,
        probe=probe,
        frame_ids=frame_ids,
        times=parts.times,
        metadata=parts.metadata,
        said=said,
    )


def _name(counts: Any) -> str:
    return str(counts.name) if isinstance(counts, h5py.Dataset) else "the patterns"


def _angle_of_a_pixel(counts: LazyCounts, semi_angle_rad: float, where: str) -> float:
    """Radians of a pixel of the pattern, by the radius of the bright disk."""
    chosen = np.unique(np.linspace(0, len(counts) - 1, _DISK_FRAMES).astype(int))
    mean = np.mean([np.asarray(counts[int(index)], np.float64) for index in chosen], axis=0)
    try:
        return semi_angle_rad / bright_disk(mean, where).radius
    except GeometryError as error:
        raise ScanFileError(error.what, where=where, remedy=error.remedy) from error


def _assume(said: Description) -> None:
    """Add what is used where neither the file nor the user says anything."""
    if not said.about("position_unit_x") and not said.about("position_unit_y"):
        for axis in "xy":
            said.assume(f"position_unit_{axis}", 1.0, "nobody gives a unit of the positions; metres")
    for quantity, value in (("radiation", "photon"), ("zero_frequency", "centre")):
        if not said.about(quantity):
            said.assume(quantity, value, f"nobody says otherwise; {value}")


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
    if isinstance(source, h5py.Dataset) and source.is_virtual:
        source = VirtualFrames(source, where)
    counts = LazyCounts(source, where, corner=corner)
    if source.dtype.kind == "f":
        counts.check_first()
    return counts


def _mismatch(what: str, shape: Any, wanted: Any, where: str) -> ScanFileError:
    return ScanFileError(
        f"{what} has shape {tuple(shape)}, not {tuple(wanted)}", where=where, remedy="correct the file"
    )
