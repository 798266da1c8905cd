"""`ptychostream demo`: the whole live path on a real scan, before your eyes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "fetch, reconstruct, train and watch a real scan being stitched live"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/demo"), metavar="DIR", help="results (default %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="simulated 64×64 frames, under two minutes")
    parser.add_argument("--offline", action="store_true", help="do not fetch the real scan: simulate one")
    parser.add_argument("--json", action="store_true", help="print the report as JSON; the rest goes to stderr")


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from rich.console import Console

    from ptychostream.demo.run import Demo

    console = Console(stderr=arguments.json, highlight=False)
    report = Demo(arguments.output, arguments.quick, arguments.offline, console).run()
    frames = report.frames
    console.print(
        f"\n[bold]{frames['stitched']} of {frames['received']} frames stitched live[/bold] by {report.engine}; "
        f"on the area the network never saw: r = {report.pearson_heldout:.3f}, SSIM = {report.ssim_heldout:.3f} "
        f"({report.ssim_heldout_1px:.3f} at one pixel's resolution). {report.seconds:.0f} s in all."
    )
    for name in ("figure.png", "report.html", "report.json"):
        console.print(f"  {arguments.output / name}")
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    return 0
