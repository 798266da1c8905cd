"""`ptychostream inspect`: what a file or a live channel says of itself, what is assumed, and what contradicts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ptychostream.cli import finite
from ptychostream.cli.parts import orientation
from ptychostream.cli.parts.scan_arguments import add_scan_arguments
from ptychostream.errors import ConfigError
from ptychostream.statements.units import EnergyUnit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ptychostream.doctor.channel import ChannelInspection, StreamFigures
    from ptychostream.model.contract import ModelContract
    from ptychostream.scans.inspection import Inspection, ReconstructionFigures, ResidualFigures, ScanFigures
    from ptychostream.statements.description import Contradiction, Description, Statement

_PVA = "pva://"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="FILE|PV",
        help="scan file of any layout that is read, reconstruction, or PVA channel of images",
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="compare with this model's contract")
    parser.add_argument("--json", action="store_true", help="print everything as JSON; the rest goes to stderr")
    orientation.add_argument(parser)
    _add_channel_arguments(parser)
    add_scan_arguments(parser)


def _add_channel_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("channel", "for a PV")
    group.add_argument("--frames", type=int, default=20, metavar="N", help="frames to look at (default %(default)s)")
    group.add_argument(
        "--seconds", type=finite, default=3.0, metavar="S", help="wait so long for them (default %(default)g)"
    )
    group.add_argument(
        "--scan-attribute", default="ScanID", metavar="NAME", help="attribute that names the scan (default %(default)s)"
    )
    group.add_argument("--select-attribute", default="", metavar="NAME", help="attribute of the wanted frames")
    group.add_argument("--select-value", default="", metavar="VALUE", help="its value in the wanted frames")
    group.add_argument("--energy-attribute", default="", metavar="NAME", help="attribute that gives the energy")
    group.add_argument(
        "--bit-depth-attribute",
        default="BitDepth",
        metavar="NAME",
        help="attribute that gives the detector's bit depth (default %(default)s)",
    )
    group.add_argument("--energy-unit", choices=get_args(EnergyUnit), default="eV", help="unit of that attribute")


def run(arguments: argparse.Namespace) -> int:
    contract = None
    if arguments.model:
        from ptychostream.model.model_file import load_model

        contract = load_model(arguments.model).contract
    if is_channel(arguments.source):
        _refuse_given(arguments, add_scan_arguments, "is about files")
        _refuse_given(arguments, orientation.add_argument, "is about files")
        return _channel(arguments, contract)
    _refuse_given(arguments, _add_channel_arguments, "is about PVs")
    return _file(arguments, contract)


def is_channel(source: str) -> bool:
    """Whether `source` names a PV: a name with pva:// before it; or no file, and no path or file name by its form."""
    if source.startswith(_PVA):
        return True
    path = Path(source)
    return not path.exists() and path.name == source and not path.suffix


def _refuse_given(arguments: argparse.Namespace, add: Callable[[argparse.ArgumentParser], None], why: str) -> None:
    """Raise ConfigError for an option of the group that `add` adds: it would have no effect."""
    plain = argparse.ArgumentParser()
    add(plain)
    for action in plain._actions:
        if action.dest != "help" and getattr(arguments, action.dest) != action.default:
            option = action.option_strings[0]
            raise ConfigError(f"{option} {why}", where=arguments.source, remedy=f"leave {option} out")


def _file(arguments: argparse.Namespace, contract: ModelContract | None) -> int:
    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.scans.inspection import inspect_scan

    found = inspect_scan(Path(arguments.source), scan_options(arguments))
    if contract is not None:
        from ptychostream.quality.contract_check import with_contract

        found = with_contract(found, contract, str(arguments.model))
    figures = [] if found.scan is None else _scan_figures(found.scan)
    if found.reconstruction is not None:
        figures = _reconstruction_figures(found.reconstruction)
    if arguments.orientation is None or not found.sound:
        return _print(arguments, found, found.file, figures)
    from rich.console import Console

    if not arguments.json:
        _print(arguments, found, found.file, figures)
    console = Console(stderr=arguments.json, highlight=False, soft_wrap=True)
    tried = orientation.find(arguments.source, scan_options(arguments), arguments.orientation, console)
    if arguments.json:
        print(json.dumps(found.as_json() | {"orientation": tried}, indent=2))
    return 0


def _channel(arguments: argparse.Namespace, contract: ModelContract | None) -> int:
    import logging

    from ptychostream.doctor.channel import inspect_channel
    from ptychostream.frames.frame_settings import FrameSettings

    logging.getLogger("ptychostream").setLevel(logging.ERROR)  # what is found says it
    settings = FrameSettings(
        select_attribute=arguments.select_attribute,
        select_value=arguments.select_value,
        energy_attribute=arguments.energy_attribute,
        energy_unit=arguments.energy_unit,
        bit_depth_attribute=arguments.bit_depth_attribute,
    )
    found = inspect_channel(
        arguments.source.removeprefix(_PVA),
        settings,
        arguments.scan_attribute,
        contract,
        frames=arguments.frames,
        seconds=arguments.seconds,
    )
    return _print(arguments, found, found.channel, [] if found.stream is None else _stream_figures(found.stream))


def _print(
    arguments: argparse.Namespace, found: Inspection | ChannelInspection, title: str, figures: Sequence[str]
) -> int:
    from rich.console import Console

    if arguments.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _say(Console(highlight=False, soft_wrap=True), found, title, figures)
    return 0 if found.sound else 2


def _say(console: Console, found: Inspection | ChannelInspection, title: str, figures: Sequence[str]) -> None:
    if len(found.said):
        console.print(_table(found.said, found.contradictions, title))
    for line in figures:
        console.print(line, markup=False)
    for contradiction in found.contradictions:
        console.print(f"contradicts: {contradiction} ({contradiction.remedy})", markup=False)
    if found.error is not None:
        console.print(f"refused: {found.error}", markup=False)
    elif found.sound and len(found.said):
        console.print("nothing contradicts")


def _table(said: Description, contradictions: Sequence[Contradiction], title: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ptychostream.statements.quantities import QUANTITIES

    wrong = {id(statement) for one in contradictions for statement in one.statements}
    table = Table(title=title, title_justify="left")
    for column in ("what", "value", "", "where", "written there"):
        table.add_column(column, overflow="fold")
    for statement in said:
        style = "red" if id(statement) in wrong else "dim" if statement.origin == "assumed" else ""
        cells = (
            QUANTITIES[statement.quantity].text,
            _value(statement),
            {"stated": "found"}.get(statement.origin, statement.origin),
            statement.where,
            statement.written,
        )
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _value(statement: Statement) -> str:
    from ptychostream.statements.quantities import QUANTITIES

    value = f"{statement.value:.6g}" if isinstance(statement.value, float) else str(statement.value)
    return f"{value} {QUANTITIES[statement.quantity].unit}".strip()


def _scan_figures(scan: ScanFigures) -> list[str]:
    from ptychostream.statements.radiation import beam_in_words
    from ptychostream.statements.units import length_in_words

    width, height = (length_in_words(extent) for extent in scan.extent_m)
    beam = beam_in_words(scan.energy_ev, scan.radiation)
    lines = [
        f"scan {scan.scan_id}: {scan.frames} frames of {scan.height}×{scan.width} {scan.pixel_type}",
        f"{beam}, wavelength {length_in_words(scan.wavelength_m)}, object pixel {length_in_words(scan.object_pixel_m)}",
        f"positions over {width} × {height}",
    ]
    if scan.first_id is not None:
        lines.append(f"frame ids {scan.first_id} to {scan.last_id}")
    share = "no mask" if scan.bad_share is None else f"mask leaves out {scan.bad_share:.2%} of the pixels"
    lines.append(share + (f", probe of {scan.probe_modes} modes" if scan.probe_modes else ""))
    return lines


def _reconstruction_figures(made: ReconstructionFigures) -> list[str]:
    from ptychostream.statements.units import length_in_words

    lines = [
        f"reconstruction of scan {made.scan_id or 'without a name'} by {made.engine}: R {made.r_factor:.4f} after "
        f"{made.iterations} iterations with {made.frames} frames",
        f"object of {made.height}×{made.width} pixels of {length_in_words(made.pixel_m)}, probe of {made.probe_modes} "
        f"mode{'s' if made.probe_modes > 1 else ''}",
    ]
    if made.residuals is None:
        return [*lines, "the file does not say how well each frame is explained"]
    return lines + _residual_lines(made.residuals)


def _residual_lines(found: ResidualFigures) -> list[str]:
    from ptychostream.scans.scan import BADLY_EXPLAINED

    if found.median is None or found.largest is None:
        return ["no frame's own R factor is known"]
    lines = [f"R of single frames: median {found.median:.4f}, largest {found.largest:.4f}"]
    if not found.bad:
        return [*lines, f"no frame has an R above {BADLY_EXPLAINED:g} times the median"]
    lines.append(f"doubtful: {found.bad} of {found.known} frames have an R above {BADLY_EXPLAINED:g} times the median:")
    return lines + [
        f"  frame {one.frame}, x {1e6 * one.x_m:.3f} µm, y {1e6 * one.y_m:.3f} µm: {one.times_median:.1f} times"
        for one in found.worst
    ]


def _stream_figures(stream: StreamFigures) -> list[str]:
    shape = f"{stream.height}×{stream.width} {stream.pixel_type}"
    codec = f", compressed as {stream.codec}" if stream.codec else ""
    if stream.held:
        return [f"no frame came; the server holds an image of {shape}{codec}, uniqueId {stream.first_id}"]
    rate = f" at {stream.rate_hz:.4g}/s" if stream.rate_hz is not None else ""
    lines = [f"{stream.frames} frames of {shape}{codec}{rate}"]
    lines.append(f"frame ids {stream.first_id} to {stream.last_id}, {stream.missed or 'none'} missing")
    if stream.scans:
        lines.append(f"scans: {', '.join(stream.scans)}")
    if stream.unwanted:
        lines.append(f"{stream.unwanted} of them are not of the wanted kind")
    if stream.refused:
        lines.append(f"{stream.refused} updates are no frames")
    return lines
