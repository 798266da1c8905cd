"""How much the illuminations of a scan overlap. Without overlap an object is not determined, however small R is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.scans.scan import Reconstruction

LITTLE = 0.5
"""Below this a reconstruction is said to have little overlap."""
COMPARABLE = 0.8
"""From this overlap on, two reconstructions of separate frames with one probe agree no better than each with the truth.

Simulated scans: at 0.87 and more the correlation of two halves is that which each has with the truth to 0.02; at 0.70
it is 0.08 too good (docs/explanation/refinement.md).
"""
_MOST_POSITIONS = 400


def overlap(reconstruction: Reconstruction) -> float:
    """The part of a frame's illumination that other frames share, 0 to 1; the median over the frames.

    With the intensity I of the probe at a frame's position, and the sum S of the intensities at all other positions,
    it is Σ min(I, S) / Σ I. Patches that do not touch give 0. A scan with steps of half the diameter of a round beam
    gives about 1. The linear overlap 1 − step/diameter that Bunk et al. (Ultramicroscopy 108, 481, 2008) recommend to
    be about 0.6 needs a diameter, which a structured probe does not have.
    """
    intensity = (np.abs(reconstruction.probe) ** 2).sum(axis=0).astype(np.float32)
    power = float(intensity.sum(dtype=np.float64))
    if not power > 0 or len(reconstruction.positions_m) < 2:
        return 0.0
    grid = ObjectGrid.around(reconstruction.positions_m, reconstruction.pixel_m, len(intensity), 1)
    return share_of(grid.accumulate(intensity), grid.corners, intensity)


def share_of(total: NDArray[np.float32], corners: NDArray[np.int64], intensity: NDArray[np.float32]) -> float:
    """The same for patches at `corners` [N, 2] (row, column); `total` [H, W] is the sum of their intensities [n, n]."""
    power = float(intensity.sum(dtype=np.float64))
    chosen = np.unique(np.linspace(0, len(corners) - 1, min(len(corners), _MOST_POSITIONS)).astype(np.intp))
    shares = [_shared(total, corners[index], intensity) / power for index in chosen]
    return float(np.clip(np.median(shares), 0.0, 1.0))


def _shared(total: NDArray[np.float32], corner: NDArray[np.int64], intensity: NDArray[np.float32]) -> float:
    row, column = (int(start) for start in corner)
    height, width = intensity.shape
    others = total[row : row + height, column : column + width] - intensity
    return float(np.minimum(others.clip(0), intensity).sum(dtype=np.float64))


def in_words(share: float) -> str:
    """What an overlap means, for people; empty where it is enough."""
    if share >= LITTLE:
        return ""
    text = f"the illuminations overlap by {share:.0%} only"
    return f"{text}: {_NEAR_FIELD}" if share < LITTLE / 2 else f"{text}; scan with smaller steps"


_NEAR_FIELD = (
    "the patches hardly touch, so the object is not determined. Smaller steps help; if the steps are right, energy, "
    "distance or pixel are not, or the data are near-field (Fresnel) data, which far-field propagation does not "
    "explain: reconstruct --propagator fresnel"
)
