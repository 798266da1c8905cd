"""The edge's refined result as the reconstruction of a scan: checked against the scan, and put on its object grid.

A refined picture began from the network that it will teach. So it is taken only where the frames alone determine it:
converged, of all frames, with the scan's own positions and geometry, with enough overlap, and with an R factor on the
scan's own patterns that a reconstruction would have to have, too (docs/decisions/0026-labels-from-the-edge.md). Where
the edge corrected the positions, those that it was given must be the scan's, and the corrected ones are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from ptychostream.config import Settings
from ptychostream.errors import ReconstructionError
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.overlap import overlap
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.reconstruct.residuals import frame_residuals
from ptychostream.reconstruct.soundness import SoundnessLimits, explained, noise_r_factor, unsound
from ptychostream.refine.pull import shared_of
from ptychostream.refine.status import ENGINE, reach_px
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan

MARGIN = 4
"""Object pixels around the outermost patch, which the labels' interpolation reads."""
_CLOCKS_S = 60.0
"""So far apart the clocks of detector, edge and disk may be."""


class RefinedLimits(Settings):
    """When the edge's refined result is taken as the reconstruction of a scan.

    Attributes
    ----------
    shared
        Smallest part of the illumination that a second frame shares (see `ptychostream.refine.pull.Pull`). Below it,
        much of the network's own error stays in the refined picture (docs/explanation/refinement.md).
    frames
        Smallest part of the scan's frames that the result was made of.
    position_px
        Largest distance of a refined frame's position, as it was given, from that of the scan's file, in object pixels.
    r_ratio
        Largest ratio of the R factor on the scan's own patterns to the R factor that the edge wrote.
    """

    shared: float = Field(0.5, ge=0, le=1)
    frames: float = Field(0.98, gt=0, le=1)
    position_px: float = Field(1.0, gt=0)
    r_ratio: float = Field(1.5, gt=1)


class RefusedError(ReconstructionError):
    """The refined result is not taken; `what` says why."""


def take_refined(
    scan: Scan,
    path: str | Path,
    limits: RefinedLimits,
    soundness: SoundnessLimits,
    scan_file: str | Path = "",
    read: Callable[[], Patterns] | None = None,
) -> Reconstruction:
    """The refined result at `path` as a reconstruction of `scan`, with the R factor of each frame.

    Parameters
    ----------
    scan_file
        The scan's file. Where the scan has no times of its frames, the result must not be older than this file.
    read
        Gives the scan's patterns, all of each frame. None: they are read from the scan. Called once, and not where what
        the files say is reason enough to refuse.

    Raises
    ------
    RefusedError
        It is not taken.
    ScanFileError
        A file cannot be read.
    ReconstructionError
        The scan cannot be reconstructed by any means.
    """
    made = read_reconstruction(path)
    where = str(path)
    _check_kind(made, where)
    if scan.scan_id and made.scan_id != scan.scan_id:
        raise _refused(f"it is of scan {made.scan_id!r}, not {scan.scan_id!r}", where)
    _check_geometry(scan, made, where)
    _check_age(scan, made.provenance, Path(path), scan_file, where)
    _check_corrected(made, where)
    frames = _frames(scan, made, limits, where)
    patterns = Patterns.read(scan) if read is None else read()
    measured = np.intersect1d(frames, patterns.frames)
    if len(measured) < limits.frames * len(patterns.frames):
        share = f"{len(measured)} of {len(patterns.frames)} frames"
        raise _refused(f"it was made of {share}, less than {limits.frames:.0%}", where)
    made = _on_scan_grid(made, scan, measured)
    shared = _shared(made)
    if shared < limits.shared:
        share = f"{shared:.0%} of the illumination, less than {limits.shared:.0%}"
        raise _refused(f"frames share {share}: the network's own error would stay in it", where)
    made.provenance.update(
        overlap=overlap(made),
        shared=shared,
        noise_r_factor=noise_r_factor(patterns.mean),
        empty_r_factor=patterns.empty_r_factor,
        explained=explained(made.r_factor, patterns.empty_r_factor),
    )
    if reason := unsound(made, soundness):
        raise _refused(reason, where)
    _check_on_patterns(made, patterns, measured, limits, where)
    made.provenance["pixels"] = patterns.survey.report()
    return made


def _refused(what: str, where: str) -> RefusedError:
    return RefusedError(what, where=where, remedy="the scan is reconstructed here instead")


def _check_kind(made: Reconstruction, where: str) -> None:
    told = made.provenance
    if made.engine != ENGINE:
        raise _refused(f"it was made by {made.engine or 'an unknown engine'}, not by the edge's refinement", where)
    if told.get("converged") is not True:
        raise _refused(f"it had not converged after {_number(told, 'passes'):.0f} passes", where)
    whole = told.get("passes_of_all")
    if not isinstance(whole, int) or not 1 <= whole <= len(made.errors):
        raise _refused("it does not say how many passes used all of its frames", where)
    made.errors = made.errors[-whole:]  # an R factor before the last frame came is that of another set of frames


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _check_geometry(scan: Scan, made: Reconstruction, where: str) -> None:
    size = scan.counts.shape[-1]
    there = tuple(scan.counts.shape[1:])
    if made.probe.shape[1:] != there:
        raise _refused(f"its probe has {made.probe.shape[1:]} pixels, the scan's frames {there}", where)
    pixel_m = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, size, scan.radiation)
    if not math.isclose(made.pixel_m, pixel_m, rel_tol=1e-3):
        raise _refused(
            f"its pixel is {made.pixel_m:.6g} m, the scan's {pixel_m:.6g} m: another energy, distance or detector",
            where,
        )


def _check_age(scan: Scan, told: Mapping[str, Any], path: Path, scan_file: str | Path, where: str) -> None:
    """Refuse a result from before the scan, such as of an earlier scan of the same name."""
    if scan.times is not None and len(scan.times) and np.isfinite(scan.times).all() and scan.times[-1] > 0:
        taken, saved = float(scan.times.max()), _number(told, "saved_s")
    elif scan_file and Path(scan_file).exists():
        taken, saved = Path(scan_file).stat().st_mtime, path.stat().st_mtime
    else:
        return
    if not saved >= taken - _CLOCKS_S:
        raise _refused(f"it is {taken - saved:.0f} s older than the scan", where)


def _frames(scan: Scan, made: Reconstruction, limits: RefinedLimits, where: str) -> NDArray[np.int64]:
    """Indices of the scan's frames that the result was made of, found by their positions."""
    known = np.flatnonzero(np.isfinite(scan.positions_m).all(axis=1))
    given = _given(made)
    if not len(given) or not len(known) or not np.isfinite(given).all():
        raise _refused("it or the scan has no positions", where)
    far_px = float(np.max(cKDTree(scan.positions_m[known]).query(given)[0])) / made.pixel_m
    if far_px > limits.position_px:
        raise _refused(f"a position is {far_px:.1f} pixels away from every position of the scan", where)
    near_px = cKDTree(given).query(scan.positions_m[known])[0] / made.pixel_m
    return known[near_px <= limits.position_px].astype(np.int64)


def _given(made: Reconstruction) -> NDArray[np.float64]:
    """[N, 2] the positions that the edge was given."""
    return made.positions_m if made.given_m is None else made.given_m


def _check_corrected(made: Reconstruction, where: str) -> None:
    """Refuse corrected positions that no correction of the edge can have made."""
    if made.given_m is None:
        return
    moved_px = np.abs(made.positions_m - made.given_m).max(initial=0) / made.pixel_m
    bound_px = reach_px(made.probe.shape[-1])
    if not moved_px <= bound_px + 1e-3:
        raise _refused(f"a position was moved by {moved_px:.1f} pixels, further than {bound_px}", where)


def _shared(made: Reconstruction) -> float:
    """The part of the illumination that a second frame shares: of positions and probe, not of what the file says."""
    intensity = (np.abs(made.probe) ** 2).sum(axis=0)
    if not (np.isfinite(intensity).all() and intensity.max() > 0):
        return 0.0
    grid = ObjectGrid.around(made.positions_m, made.pixel_m, len(intensity), MARGIN)
    return shared_of(grid.accumulate((intensity / intensity.max()).astype(np.float32)))


def _on_scan_grid(made: Reconstruction, scan: Scan, frames: NDArray[np.int64]) -> Reconstruction:
    """The result on pixels that contain every patch of the scan, with its mean value where nothing was measured."""
    positions = np.asarray(scan.positions_m, np.float64)
    known, placed = positions[np.isfinite(positions).all(axis=1)], positions[frames]
    if made.given_m is not None:
        placed = made.positions_m[cKDTree(made.given_m).query(placed)[1]]
    grid = ObjectGrid.around(np.concatenate([known, placed]), made.pixel_m, made.probe.shape[-1], MARGIN)
    left, top = (math.floor(start / made.pixel_m) for start in grid.origin_m)
    old = made.phase_image().box
    box = old.union(PixelBox(top, left, top + grid.shape[0] + 1, left + grid.shape[1] + 1))
    part = box.slices(old)
    seen = made.coverage > 0
    mean = complex((made.object[seen] * made.coverage[seen]).sum(dtype=np.complex128) / made.coverage[seen].sum())
    object_ = np.full(box.shape, mean, np.complex64)
    object_[part] = np.where(seen, made.object, np.complex64(mean))
    coverage = np.zeros(box.shape, np.float32)
    coverage[part] = made.coverage
    return replace(
        made,
        object=object_,
        coverage=coverage,
        origin_m=(box.left * made.pixel_m, box.top * made.pixel_m),
        positions_m=placed,
        given_m=None if made.given_m is None else positions[frames],
        frames=frames,
        provenance=dict(made.provenance),
    )


def _check_on_patterns(
    made: Reconstruction, patterns: Patterns, frames: NDArray[np.int64], limits: RefinedLimits, where: str
) -> None:
    """Compare the result with the scan's own patterns, and note the R factor of each frame."""
    rows = np.searchsorted(patterns.frames, frames)
    amplitudes = patterns.amplitudes[rows]
    corners = np.rint((made.positions_m - np.asarray(made.origin_m)) / made.pixel_m)[:, ::-1].astype(np.int64)
    corners -= made.probe.shape[-1] // 2
    made.residuals = frame_residuals(amplitudes, corners, made.object, made.probe)
    power = np.square(np.maximum(amplitudes, 0), dtype=np.float64).sum(axis=(1, 2))
    own = float((made.residuals * power).sum() / power.sum())
    made.provenance["own_r_factor"] = own
    if not own <= limits.r_ratio * made.r_factor:
        raise _refused(f"R is {own:.3g} on the scan's own patterns, {made.r_factor:.3g} at the edge", where)
