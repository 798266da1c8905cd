"""The loop as a step of the demonstration: run it, draw its figures, make its report."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ptychostream.demo.loop import Loop, LoopOutcome
from ptychostream.demo.loop_figure import images_figure, loop_figure
from ptychostream.demo.loop_place import Place
from ptychostream.demo.loop_plan import LoopPlan
from ptychostream.demo.page import page, page_line
from ptychostream.demo.report import FIGURE, IMAGES, TIME_LINE, Report, versions
from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.quality import figures
from ptychostream.quality.quality import compare
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Reconstruction

MOST_IMAGES = 9
"""Number of scans in the figure of live images."""


def show_loop(
    plan: LoopPlan, prefix: str, folder: Path, console: Console, stop: threading.Event, page_port: int
) -> tuple[LoopOutcome, float]:
    """Run the loop in `folder`/loop and draw its figures to `folder`. Returns the outcome and the seconds it took."""
    began = time.monotonic()
    ports = free_ports(3)
    place = Place(prefix, loopback_environment(ports[:2], ports[2]), ports[1], folder / "loop")
    log = folder / "logs" / "web-loop.log"
    with page(prefix, place.environment, log, page_port) as address:
        console.print(f"  the loop in a browser:\n{page_line(address, log)}", style="cyan", soft_wrap=True)
        outcome = Loop(plan, place, console, stop).run()
    figures.save_figure(loop_figure(outcome.record), folder / TIME_LINE)
    rows = [
        (f"{scan.scan}\nby {scan.version}", outcome.images[scan.scan], reconstruction_of(outcome, scan.scan))
        for scan in outcome.record.scans
        if scan.scan in outcome.images
    ]
    (folder / IMAGES).unlink(missing_ok=True)
    if rows:
        shown = [(name, live, made.phase_image() if made else None) for name, live, made in rows[-MOST_IMAGES:]]
        figures.save_figure(images_figure(shown), folder / IMAGES, dpi=110)
    return outcome, time.monotonic() - began


def reconstruction_of(outcome: LoopOutcome, scan: str) -> Reconstruction | None:
    """The agent's reconstruction of a scan, or None."""
    found = outcome.journal.scan(scan)
    result = found.result("reconstruct") if found is not None else None
    return read_reconstruction(result["reconstruction"]) if result and result.get("reconstruction") else None


def loop_report(plan: LoopPlan, outcome: LoopOutcome, folder: Path, seconds: float) -> Report:
    """The report of the loop alone. Its figures are those of the last judged scan.

    The figure of that scan, live image beside ePIE, is drawn to `folder`.
    """
    record, edge = outcome.record, outcome.edge
    counts = edge["counts"]
    report = Report(
        dataset=f"simulated-{plan.size}",
        frames={
            "sent": sum(scan.sent for scan in record.scans),
            "received": counts["FramesReceived_RBV"],
            "stitched": counts["FramesStitched_RBV"],
            "pending": counts["FramesPending_RBV"],
            "missed": counts["FramesMissed_RBV"],
            "dropped": {cause.value: counts[f"Dropped{cause.value}_RBV"] for cause in DropCause},
        },
        rate_hz=edge["rate_hz"],
        latency_ms=edge["latency_ms"],
        engine=edge["engine"],
        model_version=edge["model_version"],
        training_frames=record.corpus_pairs,
        simulated_ratio=0.0,
        steps_s={"loop": seconds},
        machine={"cores": os.cpu_count()},
        versions=versions(),
        loop=record.to_json(),
    )
    (folder / FIGURE).unlink(missing_ok=True)
    seen = [judged.scan for judged in record.judged if judged.scan in outcome.images]
    made = reconstruction_of(outcome, seen[-1]) if seen else None
    if made is None:
        return report
    live: PhaseImage = outcome.images[seen[-1]]
    quality = compare(live, made.phase_image())
    figures.save_figure(figures.comparison_figure(made.phase_image(), live), folder / FIGURE)
    return replace(
        report,
        r_factor=made.r_factor,
        pearson_heldout=quality.pearson,
        ssim_heldout=quality.ssim,
        ssim_heldout_1px=quality.ssim_1px,
        heldout_frames=next(scan.stitched for scan in record.scans if scan.scan == seen[-1]),
    )
