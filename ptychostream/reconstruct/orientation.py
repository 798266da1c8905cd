"""How the scan lies on the detector: the orientation of the positions with which frames foretell each other best.

A scanner may be mounted mirrored or turned against the detector, and nothing in a file says so. A wrong orientation
gives a smooth picture, which is wrong. Here every orientation reconstructs one half of some frames and is judged on the
other half, by the part of their variation that it explains.

A turn by 180° cannot be told from the patterns: the positions -r with the object O*(-r) and the probe P*(-r) give the
same patterns as r, O and P. One of the two has the phase of the other sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.positions.positions import AxisConfig
from ptychostream.reconstruct import probe
from ptychostream.reconstruct.engines import CreateEngine, epie_engine
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.patterns import BAD, Patterns
from ptychostream.reconstruct.prepare import half_of, middle
from ptychostream.scans.scan import Scan

CLEAR = 0.2
"""Smallest lead of the best orientation over the next, as a part of what the best one explains, that decides."""
ALIKE_DEG = 30.0
"""Orientations of the same hand that are less apart are no rivals."""
FINEST_DEG = 1.0
"""Angle down to which the best one is searched."""


@dataclass(frozen=True)
class Orientation:
    """The beamline's x is reversed or not, and the positions are then turned from x towards y."""

    mirrored: bool
    angle_deg: float

    @property
    def axes(self) -> AxisConfig:
        return AxisConfig(sign_x=-1 if self.mirrored else 1, rotation_deg=self.angle_deg)

    @property
    def options(self) -> str:
        """The options of the command line that give it, or the one turned by 180°; empty: none is needed."""
        if self.angle_deg == 90:
            return "--swap-xy" if self.mirrored else "--swap-xy --flip-x"
        turned = [f"--position-rotation {self.angle_deg:g}"] if self.angle_deg else []
        return " ".join(["--flip-x"] * self.mirrored + turned)


@dataclass(frozen=True)
class Tried:
    """An orientation and what came of it.

    Attributes
    ----------
    r_factor
        R factor of the frames that were not reconstructed.
    explained
        1 - R / R₀: the part of their variation that the reconstruction foretells. R₀ is that of the mean pattern.
    """

    orientation: Orientation
    r_factor: float
    explained: float


def search_orientation(
    scan: Scan,
    step_deg: float = 90.0,
    options: ReconstructOptions | None = None,
    *,
    on_tried: Callable[[Tried], None] | None = None,
    create_engine: CreateEngine = epie_engine,
) -> list[Tried]:
    """Try all orientations that the patterns can tell apart, the best first: angles in [0, 180) for each hand.

    Parameters
    ----------
    scan
        With its positions as the beamline gave them, in metres.
    step_deg
        Angle between two that are tried. Below 90, the neighbourhood of the best one is tried down to `FINEST_DEG`.
    options
        See `ReconstructOptions`. Without a probe in the scan, the defocus is searched for each orientation.
    on_tried
        Called after each.

    Raises
    ------
    ReconstructionError
        The scan cannot be reconstructed.
    ScanFileError
        Its frames cannot be read.
    """
    options = options or ReconstructOptions()
    patterns = Patterns.read(scan)
    options = options.for_dose(patterns.counts_a_pixel)
    size = patterns.mean.shape[0]
    pixel = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, size, scan.radiation)
    positions = np.asarray(scan.positions_m, np.float64)[patterns.frames]
    near = middle(ObjectGrid.around(positions, pixel, size, options.margin))
    amplitudes, (x, y) = patterns.amplitudes[near], positions[near].T
    unexplained = _of_the_mean(amplitudes)
    found: list[Tried] = []

    def attempt(mirrored: bool, angle_deg: float) -> None:
        orientation = Orientation(mirrored, angle_deg % 180)
        places = np.stack(orientation.axes.apply(x, y), axis=1)
        grid = ObjectGrid.around(places, pixel, size, options.margin)
        trial = half_of(amplitudes, grid, patterns.power, options, create_engine)
        r_factor = trial(_probe(scan, patterns, trial))
        made = Tried(orientation, r_factor, 1 - r_factor / unexplained)
        found.append(made)
        found.sort(key=lambda tried: tried.r_factor)
        if on_tried is not None:
            on_tried(made)

    for mirrored in (False, True):
        for angle in np.arange(0, 180, step_deg):
            attempt(mirrored, float(angle))
    while FINEST_DEG < step_deg < 90:
        step_deg /= 2
        best = found[0].orientation
        for side in (-1, 1):
            attempt(best.mirrored, best.angle_deg + side * step_deg)
    return found


def verdict(tried: Sequence[Tried]) -> Orientation | None:
    """The orientation that is clearly the best of `search_orientation`; None: the frames do not tell."""
    best = tried[0]
    rest = [one.explained for one in tried if not _beside(one.orientation, best.orientation)]
    if best.explained <= 0 or (rest and best.explained - max(rest) < CLEAR * best.explained):
        return None
    return best.orientation


def _beside(one: Orientation, other: Orientation) -> bool:
    """Whether they are alike, so that both may explain much."""
    apart = abs(one.angle_deg - other.angle_deg) % 180
    return one.mirrored == other.mirrored and min(apart, 180 - apart) <= ALIKE_DEG


def _probe(scan: Scan, patterns: Patterns, trial: Callable[[NDArray[np.complex64]], float]) -> NDArray[np.complex64]:
    if scan.probe is not None:
        return scan.probe
    return probe.from_pattern(patterns.mean, probe.search_curvature(patterns.mean, trial))


def _of_the_mean(amplitudes: NDArray[np.float32]) -> float:
    """R factor of the second of each two frames, foretold by the mean pattern of the first ones."""
    counted = amplitudes != BAD
    seen, unseen = amplitudes[::2], amplitudes[1::2]
    mean = np.sqrt(np.where(counted[::2], seen.astype(np.float64) ** 2, 0).mean(axis=0))
    misfit = np.where(counted[1::2], unseen - mean, 0)
    return float((misfit**2).sum() / np.where(counted[1::2], unseen.astype(np.float64) ** 2, 0).sum())
