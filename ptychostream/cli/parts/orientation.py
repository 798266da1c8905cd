"""`ptychostream inspect --orientation`: how a file's positions lie on the detector."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.errors import ConfigError
from ptychostream.scans.scan_probe import open_probed

if TYPE_CHECKING:
    from rich.console import Console

    from ptychostream.reconstruct.orientation import Tried
    from ptychostream.scans.scan_parts import ScanOptions

_SHOWN = 5


def find(path: str, options: ScanOptions, step_deg: float, console: Console) -> dict[str, Any]:
    """Search the orientation of the positions in `path`, print what was found, and return it for JSON.

    Raises
    ------
    ConfigError
        The options turn the positions already, or the step is no angle up to 90°.
    ReconstructionError, ScanFileError
        The scan cannot be read or reconstructed.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from ptychostream.reconstruct.orientation import search_orientation, verdict

    if not 1 <= step_deg <= 90:
        raise ConfigError(f"{step_deg:g}°", where="--orientation", remedy="give a step from 1 to 90 degrees")
    axes = options.axes
    if axes is not None and (axes.swap_xy or axes.sign_x < 0 or axes.sign_y < 0 or axes.rotation_deg):
        remedy = "leave --swap-xy, --flip-x, --flip-y and --position-rotation out"
        raise ConfigError("the positions are turned already", where="--orientation", remedy=remedy)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with open_probed(Path(path), options) as scan, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading patterns", total=None)

        def on_tried(tried: Tried) -> None:
            progress.update(task, description=f"{_name(tried)}: explains {tried.explained:.1%}")

        tried = search_orientation(scan, step_deg, on_tried=on_tried)
    for one in tried[:_SHOWN]:
        line = f"{_name(one)}: explains {one.explained:.1%}, R {one.r_factor:.4f} of frames not used"
        console.print(line, markup=False)
    chosen = verdict(tried)
    if chosen is None:
        finer = "; try a finer step, such as --orientation 10" if step_deg > 10 else ""
        said = f"the frames do not tell how the positions lie{finer}; check energy, distance and the positions' unit"
    elif chosen.options:
        said = f"the positions do not lie as given: use {chosen.options}, or what is turned by 180° from there"
    else:
        said = "the positions lie as given, or turned by 180°, which patterns do not tell"
    console.print(said, markup=False)
    return {
        "tried": [{**asdict(one.orientation), "r_factor": one.r_factor, "explained": one.explained} for one in tried],
        "options": None if chosen is None else chosen.options,
    }


def _name(tried: Tried) -> str:
    hand = "x reversed, " if tried.orientation.mirrored else ""
    return f"{hand}turned by {tried.orientation.angle_deg:g}°"


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--orientation`."""
    parser.add_argument(
        "--orientation",
        type=float,
        nargs="?",
        const=90.0,
        metavar="STEP",
        help="try how the positions lie on the detector: mirrored or not, at angles STEP degrees apart (default 90)",
    )
