"""Positions of a raster scan that are given by its shape and step only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptychostream.scans.scan_parts import ScanOptions
from ptychostream.statements.description import Description


def raster_positions(
    shape: tuple[int, int], step_m: tuple[float, float], rotation_deg: float = 0.0
) -> NDArray[np.float64]:
    """[rows · columns, 2] positions (x, y) in metres, x the faster, centred on (0, 0).

    Parameters
    ----------
    shape
        (rows, columns) of the scan.
    step_m
        (y, x) from one row to the next, and from one column to the next.
    rotation_deg
        Angle from the pattern's x axis to the scan's x axis, positive from +x towards +y.
    """
    rows, columns = shape
    y = (np.arange(rows) - (rows - 1) / 2) * step_m[0]
    x = (np.arange(columns) - (columns - 1) / 2) * step_m[1]
    points = np.stack([np.tile(x, rows), np.repeat(y, columns)], axis=1)
    cosine, sine = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    if rotation_deg % 90 == 0:
        cosine, sine = round(cosine), round(sine)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def given_raster(options: ScanOptions, said: Description) -> NDArray[np.float64] | None:
    """The positions of the raster that the user gives, or None if shape or step is not given."""
    if options.scan_shape is None or options.scan_step_m is None:
        return None
    for axis in "xy":
        said.give(f"position_unit_{axis}", 1.0, "--scan-step-m")
    return raster_positions(options.scan_shape, options.scan_step_m, options.scan_rotation_deg or 0.0)
