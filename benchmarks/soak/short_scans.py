"""`ptychostream bench short-scans`: thousands of scans of a few frames, one after the other, each saved to a file.

detector ──► ioc (engine None, saves every scan by itself)

Figures

- `saved`, `lost`: what the IOC counts. `whole`: files whose canvas has all frames of its scan.
- `missed`: frames that did not reach the IOC; `dropped`: by cause.
- `behind_s`: time from the last frame to the last file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.measured import Measured
from ptychostream.benchmarks.soak.short_scan import CHANNEL, PIXEL_M, START_S, ShortScans
from ptychostream.demo.live import CAUSES
from ptychostream.demo.pvs import Pvs
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.scans.phase_file import read_provenance

_PREFIX, _SOURCE = "short:", "ptychostream.benchmarks.soak.short_source"
_QUIET_S, _POLL_S = 15.0, 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench short-scans`."""
    parser.add_argument("--scans", type=int, default=2000, metavar="N", help="scans (default %(default)s)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="frames of a scan (default %(default)s)")
    parser.add_argument("--rate", type=float, default=40.0, metavar="HZ", help="scans a second (default %(default)g)")
    parser.add_argument("--side", type=int, default=64, metavar="N", help="side of a frame (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a scan was not saved whole."""
    wanted = ShortScans(scans=arguments.scans, frames=arguments.frames, rate_hz=arguments.rate, side=arguments.side)
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        report = measure(Path(folder), wanted)
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(f"{key}: {report[key]}" for key in report))
    return int(report["whole"] != wanted.scans)


def measure(folder: Path, wanted: ShortScans) -> dict[str, Any]:
    """Send the scans, wait until no more is saved, and look at the files."""
    ca, port = free_ports(2)
    environment = loopback_environment([ca], port)
    canvases = folder / "canvases"
    canvases.mkdir()
    words = ["ioc", "--prefix", _PREFIX, "--input-pv", CHANNEL, "--engine", "None", "--dose-scale", "0.01"]
    words += ["--frame-shape", f"{wanted.side}x{wanted.side}", "--pixel-size", str(PIXEL_M)]
    words += ["--save-directory", str(canvases), "--save-automatic", "yes"]
    with (
        Measured("ptychostream", words, folder / "ioc.log", environment) as ioc,
        closing(Pvs(_PREFIX, environment)) as pvs,
        Measured(
            _SOURCE, [wanted.model_dump_json(), f"{_PREFIX}Ready_RBV"], folder / "det.log", environment
        ) as detector,
    ):
        sent = detector.hear("sent", START_S + 2 * wanted.scans / wanted.rate_hz, ioc)
        saved, last_s = _settled(pvs, ioc, wanted.scans)
        names = ("CanvasesLost_RBV", "FramesReceived_RBV", "FramesMissed_RBV", "AccountingError_RBV")
        lost, received, missed, error = (int(value) for value in pvs.get(*names))
        dropped = {cause: int(pvs.get(f"Dropped{cause}_RBV")[0]) for cause in CAUSES}
        ioc.sample()
    files = sorted(canvases.glob("*.h5"))
    return {
        "scans": wanted.scans,
        "frames_of_a_scan": wanted.frames,
        "scans_per_s": round(wanted.scans / (sent["last"] - sent["first"]), 2),
        "saved": saved,
        "lost": lost,
        "whole": len({scan for path in files if (scan := _whole(path, wanted.frames))}),
        "files": len(files),
        "received": received,
        "missed": missed,
        "dropped": {cause: number for cause, number in dropped.items() if number},
        "accounting_error": error,
        "behind_s": round(max(0.0, last_s - sent["last"]), 1),
        "processor": cpu_name(),
        "cores": cores(),
    }


def _settled(pvs: Pvs, ioc: Measured, scans: int) -> tuple[int, float]:
    """How many canvases are saved when no more come, and when the last one was, POSIX time."""
    before, moved = -1, time.time()
    while True:
        now = int(pvs.get("CanvasesSaved_RBV")[0])
        if now != before:
            before, moved = now, time.time()
        if now >= scans or time.time() - moved > _QUIET_S:
            return now, moved
        if not ioc.running():
            raise ioc.failure()
        time.sleep(_POLL_S)


def _whole(path: Path, frames: int) -> str:
    """The scan of a file whose canvas has all its frames, else ""."""
    told = read_provenance(path)
    return str(told["scan"]) if told["frames"]["on_canvas"] == frames else ""
