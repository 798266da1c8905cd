"""`ptychostream inspect`: what a scan file says of itself, what is assumed, and what contradicts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ptychostream.scans.inspection import Inspection, ScanFigures
    from ptychostream.statements.description import Statement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="scan file of any layout that is read")
    parser.add_argument("--model", type=Path, metavar="FILE", help="compare the scan with this model's contract")
    parser.add_argument("--json", action="store_true", help="print everything as JSON; the rest goes to stderr")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.scans.inspection import inspect_scan

    options = scan_options(arguments)
    found = inspect_scan(arguments.scan, options)
    if arguments.model:
        from ptychostream.model.model_file import load_model
        from ptychostream.quality.contract_check import with_contract

        found = with_contract(found, load_model(arguments.model).contract, str(arguments.model))
    if arguments.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _say(Console(highlight=False, soft_wrap=True), found)
    return 0 if found.sound else 2


def _say(console: Console, found: Inspection) -> None:
    if len(found.said):
        console.print(_table(found))
    if found.scan is not None:
        console.print(_figures(found.scan), markup=False)
    for contradiction in found.contradictions:
        console.print(f"contradicts: {contradiction} ({contradiction.remedy})", markup=False)
    if found.error is not None:
        console.print(f"refused: {found.error}", markup=False)
    elif found.sound:
        console.print("nothing contradicts")


def _table(found: Inspection) -> Table:
    from rich.table import Table
    from rich.text import Text

    from ptychostream.statements.quantities import QUANTITIES

    wrong = {id(statement) for one in found.contradictions for statement in one.statements}
    table = Table(title=found.file, title_justify="left")
    for title in ("what", "value", "", "where", "written there"):
        table.add_column(title, overflow="fold")
    for statement in found.said:
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


def _figures(scan: ScanFigures) -> str:
    lines = [
        f"scan {scan.scan_id}: {scan.frames} frames of {scan.height}×{scan.width} {scan.pixel_type}",
        f"positions over {scan.extent_m[0] * 1e6:.4g} × {scan.extent_m[1] * 1e6:.4g} µm, "
        f"object pixel {scan.object_pixel_m * 1e9:.4g} nm",
    ]
    if scan.first_id is not None:
        lines.append(f"frame ids {scan.first_id} to {scan.last_id}")
    share = "no mask" if scan.bad_share is None else f"mask leaves out {scan.bad_share:.2%} of the pixels"
    lines.append(share + (f", probe of {scan.probe_modes} modes" if scan.probe_modes else ""))
    return "\n".join(lines)
