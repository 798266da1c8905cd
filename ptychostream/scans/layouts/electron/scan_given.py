"""Stacks of patterns whose file does not say the scan: its shape and its step are the user's, or a route's."""

from __future__ import annotations

import math
from typing import Any

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.layouts.stacks import AxisFrames
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description


def given_scan(source: Any, options: ScanOptions, said: Description, where: str) -> ScanParts:
    """Patterns [..., H, W], the scan of which `options` give.

    Raises
    ------
    ScanFileError
        Neither a raster nor a route is given, or the raster has another number of positions than there are patterns.
    """
    if len(source.shape) < 3:
        what = f"its array has shape {tuple(source.shape)}, not (patterns, height, width)"
        raise ScanFileError(what, where=where, remedy="give a stack of patterns")
    frames = math.prod(source.shape[:-2])
    axes, obeys = len(source.shape), frozenset({"transpose"})
    pattern = (axes - 1, axes - 2) if options.transpose else (axes - 2, axes - 1)
    counts = AxisFrames(source, {}, pattern) if axes > 3 or options.transpose else source
    if options.route is not None:
        return ScanParts(counts=counts, raw_positions=None, said=said, obeys=obeys)
    if options.scan_shape is None:
        raise NoPositionsError(
            f"{frames} patterns, and the file does not say the rows and columns of the scan",
            where=where,
            remedy="give --scan-shape ROWS COLUMNS and --scan-step-m Y X, or a route file (--route)",
        )
    if math.prod(options.scan_shape) != frames:
        raise ScanFileError(
            f"{options.scan_shape[0]} rows of {options.scan_shape[1]} are {math.prod(options.scan_shape)} positions, "
            f"and the file has {frames} patterns",
            where=where,
            remedy="correct --scan-shape (rows first); if patterns are missing, give a route file for those there are",
        )
    points = given_raster(options, said)
    if points is None:
        raise NoPositionsError(
            "the file does not say the step of the scan", where=where, remedy="give --scan-step-m Y X"
        )
    return ScanParts(counts=counts, raw_positions=points, said=said, obeys=obeys)
