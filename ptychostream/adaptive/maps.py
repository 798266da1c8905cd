"""What is known of each place of a scan: how often it was seen, and how well its patches agree.

The IOC serves the stitched phase φ = Σwp / Σw of patches p and its weight W = Σw. Two images of one scan, before and
after more frames were added, tell what the added frames alone say:

    φ_new = (W₂φ₂ − W₁φ₁) / (W₂ − W₁)

If the error of a patch has the variance σ²/w at a pixel of weight w, then φ_new − φ₁ has the variance σ²(1/W₁ +
1/W_new), with W_new = W₂ − W₁. So each pixel that both have seen gives an estimate of σ². It is large where the patches
contradict each other: this is the consistency map of the picture with itself. An error that all patches have alike is
not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.imaging.phase_image import PhaseImage

CELLS_PER_BEAM = 8
"""Cells of the maps along the beam's diameter."""

_SEEN = 0.25
"""A pixel is used for the consistency where both images have seen at least so many patches."""

_MEAN = 0.04
"""Weight of the mean over the whole picture in each cell's estimate; 1 is the best evidence that a cell has."""


@dataclass(frozen=True)
class Maps:
    """What is known, on a grid of square cells. Cell [j, i] has its centre at `first_m` + (i, j) · `cell_m`, metres.

    Attributes
    ----------
    weight
        [H, W] how many patches have seen each cell, in patches at the beam's centre.
    variance
        [H, W] σ² of one patch, rad².
    prior
        Variance of the phase of a cell that no patch has seen, rad².
    """

    first_m: tuple[float, float]
    cell_m: float
    weight: NDArray[np.float64]
    variance: NDArray[np.float64]
    prior: float

    @property
    def uncertainty(self) -> NDArray[np.float64]:
        """[H, W] variance of the stitched phase, rad²."""
        return 1 / (1 / self.prior + self.weight / self.variance)


def footprint(beam_m: float, cell_m: float) -> NDArray[np.float64]:
    """[K, K] weight of a patch around its position, 1 at the centre: a disc of the beam's diameter with a soft edge."""
    half = int(np.ceil(0.6 * beam_m / cell_m))
    axis = np.arange(-half, half + 1) * cell_m
    distance = np.hypot(axis[:, None], axis[None, :])
    return np.clip((0.6 * beam_m - distance) / (0.2 * beam_m), 0, 1)


def unseen(points_m: NDArray[np.float64], beam_m: float) -> Maps:
    """The maps before the first frame, for a scan of the points [N, 2] (x, y), metres, with a beam of this diameter."""
    cell_m = beam_m / CELLS_PER_BEAM
    first = points_m.min(axis=0) - 0.5 * beam_m
    columns, rows = (np.ceil((points_m.max(axis=0) + 0.5 * beam_m - first) / cell_m) + 1).astype(int)
    known = np.ones((rows, columns))
    return Maps((float(first[0]), float(first[1])), cell_m, 0 * known, known, 1.0)


def look(images: Sequence[PhaseImage], points_m: NDArray[np.float64], beam_m: float, frames: int) -> Maps:
    """The maps of a scan from its images.

    Parameters
    ----------
    images
        Images of the scan in order, each with more frames than the one before. The weights are the newest one's.
    points_m
        [N, 2] (x, y) of every point that the scan could measure, metres. They span the maps.
    beam_m
        Diameter of the beam, metres.
    frames
        Number of frames in the newest image.
    """
    grid = unseen(points_m, beam_m)
    sums = [_sums(image, grid) for image in images]
    newest = sums[-1]
    # Weights have the unit of the model's patch weight; the footprint and the number of frames give that of one patch.
    unit = newest[0].sum() / (max(frames, 1) * footprint(beam_m, grid.cell_m).sum()) or 1.0
    seen, phases = newest[0] > 0, np.divide(newest[1], newest[0], where=newest[0] > 0, out=np.zeros_like(newest[1]))
    prior = float(phases[seen].var()) if seen.sum() > 1 else 0.0
    prior = prior or 1.0
    variance = _variance(images, grid, unit)
    if variance is None:
        variance = np.full_like(newest[0], prior)
    return Maps(grid.first_m, grid.cell_m, newest[0] / unit, variance, prior)


def _cells(image: PhaseImage, grid: Maps) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Row and column of the cell of every row and column of an image, and [H, W] which pixels lie on the grid."""
    found, inside = [], []
    for axis, pixels, cells in zip((1, 0), image.phase.shape, grid.weight.shape, strict=True):
        at_m = image.origin_m[axis] + image.pixel_m * np.arange(pixels)
        found.append(np.rint((at_m - grid.first_m[axis]) / grid.cell_m).astype(int))
        inside.append((found[-1] >= 0) & (found[-1] < cells))
    return found[0], found[1], inside[0][:, None] & inside[1][None, :]


def _binned(values: NDArray[np.float64], image: PhaseImage, grid: Maps) -> NDArray[np.float64]:
    """[H, W] sums of an image's pixel values in the cells."""
    rows, columns, inside = _cells(image, grid)
    flat = (rows[:, None] * grid.weight.shape[1] + columns[None, :])[inside]
    sums: NDArray[np.float64] = np.bincount(flat, values[inside], grid.weight.size).astype(np.float64)
    return sums.reshape(grid.weight.shape)


def _sums(image: PhaseImage, grid: Maps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean weight, and mean weighted phase, of each cell; pixels that were not measured count as 0."""
    weight = image.weight.astype(np.float64)
    pixels = np.maximum(_binned(np.ones_like(weight), image, grid), 1)
    moment = np.where(weight > 0, weight * np.nan_to_num(image.phase), 0.0)
    return _binned(weight, image, grid) / pixels, _binned(moment, image, grid) / pixels


def _variance(images: Sequence[PhaseImage], grid: Maps, unit: float) -> NDArray[np.float64] | None:
    """[H, W] σ² of one patch from all pairs of successive images; None: no pixel was seen by both of a pair."""
    squares, evidence = np.zeros_like(grid.weight), np.zeros_like(grid.weight)
    for before, after in pairwise(images):
        old_phase, old = _on(before, after)
        weight = after.weight.astype(np.float64)
        new = weight - old
        use = (old > _SEEN * unit) & (new > _SEEN * unit)
        if not use.any():
            continue
        phase = np.nan_to_num(after.phase).astype(np.float64)
        said = (weight * phase - old * old_phase)[use] / new[use]
        found, count = np.zeros_like(weight), use.astype(np.float64)
        found[use] = (said - old_phase[use]) ** 2 / (unit / old[use] + unit / new[use])
        squares += _binned(found, after, grid)
        evidence += _binned(count, after, grid)
    if not evidence.any():
        return None
    mean, of_mean = float(squares.sum() / evidence.sum()), _MEAN * float(evidence.max())
    near = CELLS_PER_BEAM / 4
    blurred, known = (ndimage.gaussian_filter(values, near, mode="constant") for values in (squares, evidence))
    return np.maximum((blurred + of_mean * mean) / (known + of_mean), 1e-3 * mean or 1e-12)


def _on(before: PhaseImage, after: PhaseImage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Phase and weight of an image on the pixels of a later one of the same grid; 0 where it has none."""
    phase, weight = np.zeros(after.phase.shape), np.zeros(after.phase.shape)
    shared = before.box.intersection(after.box)
    if shared is not None:
        here, there = before.box.slices(shared), after.box.slices(shared)
        weight[there] = before.weight[here]
        phase[there] = np.where(before.weight[here] > 0, np.nan_to_num(before.phase[here]), 0.0)
    return phase, weight
