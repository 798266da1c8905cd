"""Command-line arguments for values that a scan file does not contain, shared by all commands that open one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptychostream.scans.scan_files import ScanOptions


def add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `scan_options` turns into `ScanOptions`."""
    group = parser.add_argument_group("scan file", "what the file does not say, or says otherwise")
    group.add_argument("--x-name", default="PositionX", metavar="NAME", help="NDAttribute of the x positions")
    group.add_argument("--y-name", default="PositionY", metavar="NAME", help="NDAttribute of the y positions")
    group.add_argument("--route", type=Path, metavar="FILE", help="CSV or HDF5 file of the positions")
    group.add_argument(
        "--position-unit",
        choices=("m", "mm", "um", "nm"),
        help="of the positions, in place of the file's (default: as the file says, or m)",
    )
    group.add_argument("--swap-xy", action="store_true", help="the file's x is the canvas's y")
    group.add_argument("--flip-x", action="store_true", help="turn the x axis round (after the swap)")
    group.add_argument("--flip-y", action="store_true", help="turn the y axis round (after the swap)")
    group.add_argument("--energy-ev", type=float, metavar="EV", help="photon energy")
    group.add_argument("--distance-m", type=float, metavar="M", help="sample to detector")
    group.add_argument("--detector-pixel-m", type=float, metavar="M", help="pixel of a frame, binning included")
    group.add_argument("--binning", type=int, metavar="N", help="sensor pixels along a side of a frame's pixel")
    group.add_argument(
        "--corner", action=argparse.BooleanOptionalAction, help="the zero frequency lies at the patterns' corner"
    )


def scan_options(arguments: argparse.Namespace) -> ScanOptions:
    """`ScanOptions` from parsed arguments."""
    from ptychostream.positions.positions import AxisConfig
    from ptychostream.scans.scan_files import ScanOptions

    axes = None
    if arguments.position_unit or arguments.swap_xy or arguments.flip_x or arguments.flip_y:
        axes = AxisConfig(
            unit=arguments.position_unit or "m",
            swap_xy=arguments.swap_xy,
            sign_x=-1 if arguments.flip_x else 1,
            sign_y=-1 if arguments.flip_y else 1,
        )
    return ScanOptions(
        x_name=arguments.x_name,
        y_name=arguments.y_name,
        route=arguments.route,
        axes=axes,
        energy_ev=arguments.energy_ev,
        distance_m=arguments.distance_m,
        detector_pixel_m=arguments.detector_pixel_m,
        binning=arguments.binning,
        corner=arguments.corner,
    )
