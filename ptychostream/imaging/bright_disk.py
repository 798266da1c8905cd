"""The bright disk of a pattern: the image of the lens's aperture, from the mean of some patterns.

Its radius is the convergence semi-angle, so that it says the angle of a pixel where the semi-angle is known; its centre
is the zero frequency.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.errors import GeometryError

_LEAST_RADIUS = 2.0
_FILLED = 0.6
"""A disk fills this part of the smallest circle around it at least."""


class BrightDisk(NamedTuple):
    """Centre (row, column) and radius in pixels."""

    row: float
    column: float
    radius: float


def bright_disk(mean: NDArray[np.floating], where: str = "patterns") -> BrightDisk:
    """The disk in a mean pattern [H, W], its zero frequency inside, not at the corner.

    The disk is what is brighter than half of its own mean, Σ I² / Σ I of the pattern smoothed by a pixel.

    Raises
    ------
    GeometryError
        The pattern has no compact bright disk of at least two pixels' radius that ends before its edge.
    """
    smooth = ndimage.gaussian_filter(np.maximum(np.asarray(mean, np.float64), 0), 1.0)
    total = float(smooth.sum())
    if total <= 0:
        raise _no_disk("the patterns are dark", where)
    inside = smooth > 0.5 * float(np.square(smooth).sum()) / total
    labels, number = ndimage.label(inside)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])) if number else inside
    if largest[[0, -1]].any() or largest[:, [0, -1]].any():
        raise _no_disk("what is bright in the mean pattern reaches its edge", where)
    rows, columns = np.nonzero(largest)
    row, column = float(rows.mean()), float(columns.mean())
    radius = math.sqrt(len(rows) / math.pi)
    farthest = float(np.hypot(rows - row, columns - column).max()) + 0.5
    if radius < _LEAST_RADIUS or radius**2 < _FILLED * farthest**2:
        raise _no_disk(f"the brightest {len(rows)} pixels of the mean pattern are no disk", where)
    return BrightDisk(row, column, radius)


def _no_disk(what: str, where: str) -> GeometryError:
    return GeometryError(what, where=where, remedy="give the angle of a pixel (--mrad-per-pixel) or --object-pixel-m")
