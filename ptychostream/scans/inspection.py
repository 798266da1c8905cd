"""What a scan file says of itself, what is assumed, what contradicts, and whether it can be used. No counts are read.

Of a reconstruction file: what it holds, and which frames it explains badly.
`inspect_scan` opens the file by the same functions as `open_scan`, so it refuses what every other command refuses.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.scans import scan_geometry
from ptychostream.scans.reconstruction_file import is_reconstruction, read_reconstruction
from ptychostream.scans.scan import BADLY_EXPLAINED, Reconstruction, Scan
from ptychostream.scans.scan_files import ScanOptions, open_parts
from ptychostream.scans.scan_parts import build_scan
from ptychostream.statements.as_json import contradiction_json, error_json, statement_json
from ptychostream.statements.description import Contradiction, Description
from ptychostream.statements.quantities import QUANTITIES

_MOST_LISTED = 10


@dataclass(frozen=True)
class ScanFigures:
    """The size of a scan.

    Attributes
    ----------
    frames, height, width, pixel_type
        Of the counts.
    first_id, last_id
        Frame numbers, None if the file has none.
    first_time_s, last_time_s
        POSIX seconds, None if not known.
    extent_m
        (x, y) between the outermost positions, metres.
    object_pixel_m, wavelength_m
        Size of an object pixel, and the wavelength.
    energy_ev, radiation
        "photon" or "electron", and the photon energy, or the accelerating voltage in V.
    bad_share
        Part of the pixels that the mask leaves out, 0 to 1; None without a mask.
    probe_modes
        Number of probe modes in the file.
    """

    scan_id: str
    frames: int
    height: int
    width: int
    pixel_type: str
    first_id: int | None
    last_id: int | None
    first_time_s: float | None
    last_time_s: float | None
    extent_m: tuple[float, float]
    object_pixel_m: float
    wavelength_m: float
    energy_ev: float
    radiation: str
    bad_share: float | None
    probe_modes: int


@dataclass(frozen=True)
class FrameResidual:
    """A frame: its number in the scan, its position in metres, and its R factor as a multiple of the median."""

    frame: int
    x_m: float
    y_m: float
    times_median: float


@dataclass(frozen=True)
class ResidualFigures:
    """The R factors of the frames with the final object and probe.

    Attributes
    ----------
    known
        Frames whose R factor is known.
    median, largest
        Of these; None where none is known.
    bad
        Frames above `BADLY_EXPLAINED` medians: a wrong position, a beam that moved, a frame of another moment.
    worst
        The worst of them, at most ten, the worst first.
    """

    known: int
    median: float | None
    largest: float | None
    bad: int
    worst: tuple[FrameResidual, ...]

    @classmethod
    def of(cls, made: Reconstruction) -> ResidualFigures | None:
        """The figures; None where the file holds no R factors of frames.

        Where the file does not say which frames of the scan it used, they are counted from 0.
        """
        if made.residuals is None:
            return None
        known = np.flatnonzero(np.isfinite(made.residuals))
        if not len(known):
            return cls(0, None, None, 0, ())
        values = made.residuals[known].astype(np.float64)
        median = float(np.median(values))
        relative = values / max(median, 1e-30)
        bad = np.flatnonzero(relative > BADLY_EXPLAINED)
        numbers = np.arange(len(made.residuals)) if made.frames is None else made.frames
        worst = tuple(
            FrameResidual(
                frame=int(numbers[known[one]]),
                x_m=float(made.positions_m[known[one], 0]),
                y_m=float(made.positions_m[known[one], 1]),
                times_median=float(relative[one]),
            )
            for one in bad[np.argsort(-relative[bad], kind="stable")][:_MOST_LISTED]
        )
        return cls(len(known), median, float(values.max()), len(bad), worst)


@dataclass(frozen=True)
class ReconstructionFigures:
    """What a reconstruction file holds.

    Attributes
    ----------
    scan_id, engine
        The scan, and what reconstructed it.
    frames, iterations
        Used frames, and iterations.
    r_factor
        After the last iteration.
    height, width, pixel_m, probe_modes
        Of the object, in pixels and metres, and of the probe.
    residuals
        How well the frames are explained; None where the file does not hold it.
    """

    scan_id: str
    engine: str
    frames: int
    iterations: int
    r_factor: float
    height: int
    width: int
    pixel_m: float
    probe_modes: int
    residuals: ResidualFigures | None


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect_scan`.

    Attributes
    ----------
    file
        The file.
    said
        All statements, also those that were given or assumed.
    contradictions
        Statements that cannot be true together.
    error
        Why the file cannot be used, if a contradiction is not the reason.
    scan
        None if it cannot be used.
    reconstruction
        Where the file is one; `said` is then empty, and `scan` None.
    opened
        The scan itself, whose counts can no longer be read.
    """

    file: str
    said: Description
    contradictions: list[Contradiction]
    error: ScanFileError | None
    scan: ScanFigures | None
    reconstruction: ReconstructionFigures | None = None
    opened: Scan | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing contradicts and the file can be used."""
        return not self.contradictions and self.error is None

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return {
            "file": self.file,
            "sound": self.sound,
            "scan": None if self.scan is None else asdict(self.scan),
            "reconstruction": None if self.reconstruction is None else asdict(self.reconstruction),
            "statements": [statement_json(statement) for statement in self.said],
            "contradictions": [contradiction_json(found) for found in self.contradictions],
            "error": error_json(self.error),
        }


def inspect_scan(path: str | os.PathLike[str], options: ScanOptions | None = None) -> Inspection:
    """Read all that a scan file says, without its counts. A file that cannot be opened gives `error`.

    A reconstruction is told as such. No command takes it for a scan.
    """
    options, where = options or ScanOptions(), os.fspath(path)
    if is_reconstruction(path):
        return _reconstruction(path, where)
    said = Description(where)
    try:
        with open_parts(path, options) as parts:
            said = parts.said
            scan = build_scan(parts, options, where)
            scan.scan_id = scan.scan_id or Path(path).stem
            return Inspection(where, said, [], None, _figures(scan), opened=scan)
    except ScanFileError as error:
        found = scan_geometry.contradictions(said)
        refused_for = {contradiction.error(said.source).what for contradiction in found}
        return Inspection(where, said, found, None if error.what in refused_for else error, None)


def _reconstruction(path: str | os.PathLike[str], where: str) -> Inspection:
    try:
        made = read_reconstruction(path)
    except ScanFileError as error:
        return Inspection(where, Description(where), [], error, None)
    height, width = made.object.shape
    figures = ReconstructionFigures(
        scan_id=made.scan_id,
        engine=made.engine,
        frames=len(made.positions_m),
        iterations=len(made.errors),
        r_factor=made.r_factor,
        height=height,
        width=width,
        pixel_m=made.pixel_m,
        probe_modes=len(made.probe),
        residuals=ResidualFigures.of(made),
    )
    return Inspection(where, Description(where), [], None, None, figures)


def taken(scan: Scan) -> list[str]:
    """By which rule the positions were read, and what was assumed, for the summary of a command."""
    rules = [f"positions: {one}" for one in scan.said.about("position_sense")]
    assumed = {
        f"assumed: {QUANTITIES[one.quantity].text} {one.value} {QUANTITIES[one.quantity].unit} ({one.where})"
        for one in scan.said
        if one.origin == "assumed"
    }
    return rules + sorted(assumed)


def _figures(scan: Scan) -> ScanFigures:
    frames, height, width = scan.counts.shape
    extent = np.ptp(scan.positions_m, axis=0)
    ids, times = scan.frame_ids, scan.times
    return ScanFigures(
        scan_id=scan.scan_id,
        frames=frames,
        height=height,
        width=width,
        pixel_type=str(scan.counts.dtype),
        first_id=None if ids is None else int(ids[0]),
        last_id=None if ids is None else int(ids[-1]),
        first_time_s=None if times is None else float(times[0]),
        last_time_s=None if times is None else float(times[-1]),
        extent_m=(float(extent[0]), float(extent[1])),
        object_pixel_m=object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, width, scan.radiation),
        wavelength_m=wavelength_m(scan.energy_ev, scan.radiation),
        energy_ev=scan.energy_ev,
        radiation=scan.radiation,
        bad_share=None if scan.bad_pixels is None else float(scan.bad_pixels.mean()),
        probe_modes=0 if scan.probe is None else len(scan.probe),
    )
