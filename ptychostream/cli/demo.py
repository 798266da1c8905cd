"""`ptychostream demo`: the live path on a real scan, then the learning loop."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/demo"), metavar="DIR", help="results (default %(default)s)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="the simulated learning loop alone, under three minutes")
    which.add_argument("--loop", action="store_true", help="the learning loop until stopped (Ctrl-C), then its report")
    parser.add_argument(
        "--web", action="store_true", help="let the loop go on until stopped (Ctrl-C), for the page in the browser"
    )
    parser.add_argument("--offline", action="store_true", help="do not fetch the real scan: simulate one")
    parser.add_argument("--json", action="store_true", help="print the report as JSON; the rest goes to stderr")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.demo.report import as_json
    from ptychostream.demo.run import Demo
    from ptychostream.processes.stopping import stop_on_signals

    console = Console(stderr=arguments.json, highlight=False)
    how = (arguments.quick, arguments.offline, arguments.loop, arguments.web)
    demo = Demo(arguments.output, *how, console, stopping=stop_on_signals)
    report = demo.run()
    frames = report.frames
    console.print(
        f"\n[bold]{frames['stitched']} of {frames['received']} frames stitched live[/bold] by {report.engine}"
    )
    if report.ssim_heldout is not None:
        console.print(
            f"on what the network never saw: r = {report.pearson_heldout:.3f}, SSIM = {report.ssim_heldout:.3f} "
            f"({report.ssim_heldout_1px:.3f} at one pixel's resolution)"
        )
    loop = report.loop
    lost = sum(scan["lost"] for scan in loop["scans"])
    seconds = ", ".join(f"{value:.0f}" for value in loop["push_seconds"])
    console.print(
        f"the loop: {len(loop['scans'])} scans, {len(loop['model_versions'])} models, live {seconds or '-'} s after "
        f"their scans; {loop['corpus_pairs']} pairs; {lost} frames lost. {report.seconds:.0f} s in all."
    )
    for path in sorted(arguments.output.glob("*.png")) + [
        arguments.output / f"report.{kind}" for kind in ("html", "json")
    ]:
        console.print(f"  {path}")
    if arguments.json:
        print(as_json(report))
    return 0
