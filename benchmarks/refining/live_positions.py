"""Measure corrected positions in an IOC: `python -m ptychostream.benchmarks.refining.live_positions SCAN MODEL`.

A scan file is replayed to an IOC, from its own positions, from those that its metadata calls nominal, or from its own
with noise. After the last frame the records of the refinement are read, and its positions are compared with the file's
own. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.demo.processes import Child
from ptychostream.demo.pvs import Pvs, until
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.processes.loopback import free_ports, loopback_environment
from ptychostream.quality.quality import compare
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan

PREFIX, CHANNEL = "bench:", "bench:det:Image"
START_S = 120.0
_FIGURES = {
    "r_factor": "Refine:RFactor_RBV",
    "passes": "Refine:Passes_RBV",
    "status": "Refine:Status_RBV",
    "position_status": "Refine:PositionStatus_RBV",
    "corrected_rms_nm": "Refine:PositionRms_RBV",
    "corrected_max_nm": "Refine:PositionMax_RBV",
    "at_bound": "Refine:AtBound_RBV",
}


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("model", type=Path, help="of this geometry, with a probe in its contract")
    parser.add_argument("--from", dest="start", choices=("own", "nominal", "noise"), default="nominal")
    parser.add_argument("--noise-px", type=float, default=3.5, help="along each axis, for noise")
    parser.add_argument("--correct", choices=("none", "global", "each", "both"), default="each")
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--budget", type=float, default=0.9)
    parser.add_argument("--at", type=float, nargs="+", default=[0.0, 2.0, 10.0, 30.0], help="s after the last frame")
    parser.add_argument("--reference", type=Path, help="reconstruction, for the SSIM of what is saved")
    given = parser.parse_args()
    with open_scan(given.scan) as scan, TemporaryDirectory() as folder:
        print(json.dumps(_measure(scan, given, Path(folder)), indent=1))


def _measure(scan: Scan, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    own = np.asarray(scan.positions_m)
    path = folder / "scan.h5"
    write_scan(path, replace(scan, positions_m=_start(scan, given), metadata={}))
    ca, pva = free_ports(2)
    environment = loopback_environment([ca], pva)
    words = ["ioc", "--prefix", PREFIX, "--input-pv", CHANNEL, "--model", str(given.model), "--refine", "yes"]
    words += ["--refine-positions", given.correct, "--save-directory", str(folder), "--save-automatic", "yes"]
    with ExitStack() as stack:
        ioc = stack.enter_context(Child("ptychostream", words, folder / "ioc.log", environment))
        pvs = Pvs(PREFIX, environment)
        stack.callback(pvs.close)
        until(lambda: pvs.value("Refine:Budget_RBV") is not None, ioc, START_S, "records")
        pvs.put("Refine:Budget", given.budget)
        replayed = ["replay", str(path), "--pv", CHANNEL, "--rate", str(given.rate), "--wait-for", f"{PREFIX}Ready_RBV"]
        detector = stack.enter_context(Child("ptychostream", replayed, folder / "replay.log", environment))
        until(lambda: pvs.value("FramesReceived_RBV") == len(scan), ioc, START_S + len(scan) / given.rate, "frames")
        ended = time.monotonic()
        series = []
        for at in given.at:
            time.sleep(max(0.0, ended + at - time.monotonic()))
            series.append({"after_s": round(time.monotonic() - ended, 2), **_figures(pvs, own)})
        detector.wait(30)
        until(lambda: pvs.value("Refine:Status_RBV") in (3, 4), ioc, START_S, "end of the refinement")
        done = {"after_s": round(time.monotonic() - ended, 2), **_figures(pvs, own)}
        stitched, message = pvs.get("FramesStitched_RBV", "Refine:PositionMessage_RBV")
        saved = folder / "refined"
        files = sorted(saved.glob("[!.]*.h5"))
        return {
            "from": given.start,
            "correct": given.correct,
            "rate_hz": given.rate,
            "budget": given.budget,
            "frames": len(scan),
            "stitched": int(stitched),
            "message": str.__str__(message),
            "series": series,
            "converged": done,
            **(_saved(files[-1], own, given.reference) if files else {}),
        }


def _start(scan: Scan, given: argparse.Namespace) -> NDArray[np.float64]:
    own = np.asarray(scan.positions_m)
    if given.start == "nominal":
        return np.asarray(scan.metadata["positions_nominal_m"], np.float64)
    if given.start == "noise":
        return own + np.random.default_rng(0).normal(0, given.noise_px * _pixel_m(scan), own.shape)
    return own


def _pixel_m(scan: Scan) -> float:
    size = scan.counts.shape[-1]
    return object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, size, scan.radiation)


def _figures(pvs: Pvs, own: NDArray[np.float64]) -> dict[str, Any]:
    values = pvs.get(*_FIGURES.values())
    x, y, pixel_nm = pvs.get("Refine:ResidualX_RBV", "Refine:ResidualY_RBV", "PixelSize_RBV")
    known_values = {name: float(value) for name, value in zip(_FIGURES, values, strict=True)}
    figures = {name: round(value, 5) if math.isfinite(value) else None for name, value in known_values.items()}
    places = 1e-6 * np.stack([x, y], axis=1)
    known = len(places) == len(own)
    return {**figures, "off_px": _off_px(places, own, 1e-9 * float(pixel_nm)) if known else None}


def _off_px(places: NDArray[np.float64], own: NDArray[np.float64], pixel_m: float) -> float:
    """Rms distance from the file's own positions, a common translation removed, pixels."""
    away = (places - own) / pixel_m
    away -= away.mean(axis=0)
    return round(math.sqrt(np.square(away).sum(axis=1).mean()), 3)


def _saved(path: Path, own: NDArray[np.float64], reference: Path | None) -> dict[str, Any]:
    made = read_reconstruction(path)
    told: dict[str, Any] = {"saved_r_factor": round(made.r_factor, 5)}
    if len(made.positions_m) == len(own):
        told["saved_off_px"] = _off_px(made.positions_m, own, made.pixel_m)
    if reference is not None:
        told["ssim"] = round(compare(made.phase_image(), read_reconstruction(reference).phase_image()).ssim, 4)
    return told


if __name__ == "__main__":
    main()
