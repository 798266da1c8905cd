"""Command-line arguments for values that a scan file does not contain, shared by all commands that open one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ptychostream.cli.parts import finite, length_m
from ptychostream.errors import ConfigError
from ptychostream.statements.radiation import RADIATIONS, Radiation

_KV = "it is the accelerating voltage of electrons"

if TYPE_CHECKING:
    from ptychostream.scans.scan_files import ScanOptions


def add_beam_arguments(group: argparse._ArgumentGroup) -> None:
    """Energy and radiation, by the names that `beam_of` reads."""
    group.add_argument("--radiation", choices=RADIATIONS, help="default: as the file says, else photon")
    group.add_argument("--energy-ev", type=finite, metavar="EV", help="photon energy, or accelerating voltage in V")
    group.add_argument("--kv", type=finite, metavar="KV", help="accelerating voltage of electrons, kV")


def beam_of(arguments: argparse.Namespace) -> tuple[float | None, Radiation | None]:
    """Energy in eV and radiation from parsed arguments, None where not given.

    Raises
    ------
    ConfigError
        Two of the options contradict each other.
    """
    if arguments.kv is None:
        return arguments.energy_ev, arguments.radiation
    if arguments.energy_ev is not None or arguments.radiation == "photon":
        other = "--radiation photon" if arguments.energy_ev is None else "--energy-ev"
        raise ConfigError(f"--kv stands beside {other}", where="--kv", remedy=f"leave one out: {_KV}")
    return arguments.kv * 1e3, "electron"


def add_scan_arguments(
    parser: argparse.ArgumentParser, unit_flag: str = "--position-unit", pixel_flag: str = "--object-pixel-m"
) -> None:
    """The arguments that `scan_options` turns into `ScanOptions`.

    `unit_flag` and `pixel_flag` are the names of the options for the unit of the file's positions and for the pixel of
    the object, where another option has this name.
    """
    group = parser.add_argument_group("scan file", "what the file does not say, or says otherwise")
    group.add_argument("--data", metavar="PATH", help="data set of the patterns (HDF5)")
    group.add_argument(
        "--x-name",
        default="PositionX",
        metavar="NAME",
        help="name or path of the x positions; NAME:K is column K of a table (default %(default)s)",
    )
    group.add_argument(
        "--y-name", default="PositionY", metavar="NAME", help="the same of the y positions (default %(default)s)"
    )
    group.add_argument("--route", type=Path, metavar="FILE", help="CSV or HDF5 file of the positions")
    group.add_argument("--route-columns", metavar="X,Y[,ID]", help="names of the route file's columns (default x,y,id)")
    group.add_argument(
        "--first-id", type=int, metavar="N", help="id of the frame at the route's first row (default: the lowest id)"
    )
    group.add_argument(
        "--scan-shape",
        "--raster",
        nargs=2,
        type=int,
        metavar=("ROWS", "COLUMNS"),
        help="of a raster that the file does not say",
    )
    group.add_argument(
        "--scan-step-m", "--step", nargs=2, type=length_m, metavar=("Y", "X"), help="steps of a raster: 1e-8, 10nm"
    )
    group.add_argument(
        "--scan-rotation-deg",
        "--rotation",
        type=finite,
        metavar="DEG",
        help="from the pattern's x axis to the raster's, towards y",
    )
    group.add_argument(
        "--pick",
        action="append",
        default=[],
        metavar="AXIS=INDEX",
        help="element of an axis of the patterns that is no part of the scan, such as a threshold",
    )
    group.add_argument("--transpose", action="store_true", help="exchange rows and columns of every pattern")
    group.add_argument(
        unit_flag,
        dest="file_position_unit",
        choices=("m", "mm", "um", "nm"),
        help="of the positions, in place of the file's (default: as the file says, or m)",
    )
    group.add_argument("--swap-xy", action="store_true", help="the file's x is the canvas's y")
    group.add_argument("--flip-x", action="store_true", help="turn the x axis round (after the swap)")
    group.add_argument("--flip-y", action="store_true", help="turn the y axis round (after the swap)")
    group.add_argument(
        "--position-rotation",
        type=finite,
        default=0.0,
        metavar="DEG",
        help="turn the positions from x towards y (after the flips)",
    )
    group.add_argument("--saturation", type=int, metavar="N", help="count at which a pixel is saturated")
    group.add_argument(
        "--mask-sense", choices=("bad", "good"), help="what a non-zero pixel of the file's mask is (default bad)"
    )
    add_beam_arguments(group)
    group.add_argument(
        pixel_flag,
        dest="file_object_pixel_m",
        type=finite,
        metavar="M",
        help="pixel of the object, for the whole frame",
    )
    group.add_argument("--mrad-per-pixel", type=finite, metavar="MRAD", help="angle of a pixel of the pattern")
    group.add_argument(
        "--semi-angle-mrad", type=finite, metavar="MRAD", help="convergence semi-angle: the radius of the bright disk"
    )
    group.add_argument("--distance-m", type=finite, metavar="M", help="sample to detector")
    group.add_argument("--detector-pixel-m", type=finite, metavar="M", help="pixel of a frame, binning included")
    group.add_argument("--binning", type=int, metavar="N", help="sensor pixels along a side of a frame's pixel")
    group.add_argument(
        "--corner", action=argparse.BooleanOptionalAction, help="the zero frequency lies at the patterns' corner"
    )
    group.add_argument("--swmr", action="store_true", help="read a file that is still written (SWMR)")


def scan_options(arguments: argparse.Namespace) -> ScanOptions:
    """`ScanOptions` from parsed arguments."""
    from ptychostream.positions.positions import AxisConfig
    from ptychostream.scans.scan_files import ScanOptions

    energy_ev, radiation = beam_of(arguments)
    axes = None
    turned = arguments.swap_xy or arguments.flip_x or arguments.flip_y or arguments.position_rotation
    if arguments.file_position_unit or turned:
        given = {"unit": arguments.file_position_unit} if arguments.file_position_unit else {}
        axes = AxisConfig(
            **given,
            swap_xy=arguments.swap_xy,
            sign_x=-1 if arguments.flip_x else 1,
            sign_y=-1 if arguments.flip_y else 1,
            rotation_deg=arguments.position_rotation,
        )
    return ScanOptions(
        data=arguments.data,
        x_name=arguments.x_name,
        y_name=arguments.y_name,
        pick=tuple(_pick(text) for text in arguments.pick),
        scan_shape=tuple(arguments.scan_shape) if arguments.scan_shape else None,
        scan_step_m=tuple(arguments.scan_step_m) if arguments.scan_step_m else None,
        scan_rotation_deg=arguments.scan_rotation_deg,
        transpose=arguments.transpose,
        route=arguments.route,
        route_columns=_names(arguments.route_columns),
        first_id=arguments.first_id,
        axes=axes,
        energy_ev=energy_ev,
        radiation=radiation,
        object_pixel_m=arguments.file_object_pixel_m,
        pattern_pixel_rad=None if arguments.mrad_per_pixel is None else arguments.mrad_per_pixel * 1e-3,
        semi_angle_rad=None if arguments.semi_angle_mrad is None else arguments.semi_angle_mrad * 1e-3,
        distance_m=arguments.distance_m,
        detector_pixel_m=arguments.detector_pixel_m,
        binning=arguments.binning,
        corner=arguments.corner,
        saturation=arguments.saturation,
        mask_sense=arguments.mask_sense,
        swmr=arguments.swmr,
    )


def _pick(text: str) -> tuple[int, int]:
    axis, equals, index = text.partition("=")
    if not equals or not axis.strip().isdigit() or not index.strip().isdigit():
        raise ConfigError(f"{text!r} is no AXIS=INDEX", where="--pick", remedy="give two whole numbers, such as 1=0")
    return int(axis), int(index)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if len(names) not in (2, 3) or not all(names):
        what = f"{text!r} does not name two or three columns"
        raise ConfigError(what, where="--route-columns", remedy="give X,Y or X,Y,ID")
    return names
