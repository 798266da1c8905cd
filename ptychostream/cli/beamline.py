"""`ptychostream beamline`: the simulated beamline."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ptychostream.cli import finite
from ptychostream.cli.replay import add_stream_arguments, stream_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="TOML", help="settings; the flags below override them")
    parser.add_argument("--prefix", help="of the scan records (default bl:)")
    parser.add_argument("--pv", help="the detector's PVA channel (default <prefix>Pva1:Image)")
    parser.add_argument("--ca-port", type=int, metavar="PORT", help="Channel Access port of the scan records")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write an HDF5 file per scan, and the truth beside it")
    parser.add_argument("--autostart", action="store_true", default=None, help="take scans without waiting for Start")
    parser.add_argument("--scans", type=int, metavar="N", help="end after N scans (default: when stopped)")
    parser.add_argument("--sample", help="shapes, letters, siemens or raised (default shapes)")
    parser.add_argument("--sample-seed", type=int, metavar="N", help="which of these samples the first scan sees")
    parser.add_argument("--scan", dest="trajectory", help="spiral, fermat, raster or fly (default spiral)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames in a scan (default 963)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="height and width of a frame (default 64)")
    parser.add_argument("--step", type=finite, metavar="NM", help="step of the scan in nm (default 50)")
    parser.add_argument("--position-error", type=finite, metavar="NM", help="rms error of the positions in nm")
    parser.add_argument("--dose", type=finite, metavar="PHOTONS", help="photons per frame (default 1e6)")
    parser.add_argument("--dead", type=int, metavar="N", help="dead pixels")
    parser.add_argument("--hot", type=int, metavar="N", help="hot pixels")
    parser.add_argument("--seed", type=int, metavar="N", help="of the noise, position errors and bad pixels")
    parser.add_argument(
        "--no-adcore", dest="adcore", action="store_false", default=None,
        help="frame ids from 0 in every scan, and ScanComplete in the last frame alone; not as areaDetector does",
    )  # fmt: skip
    add_stream_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.config import load_settings
    from ptychostream.processes.stopping import stop_on_signals
    from ptychostream.sim.beamline import Beamline, BeamlineSettings
    from ptychostream.sim.replay.show import StreamProgress

    values = {
        "prefix": arguments.prefix,
        "channel": arguments.pv,
        "ca_port": arguments.ca_port,
        "adcore": arguments.adcore,
        "save": arguments.save,
        "autostart": arguments.autostart,
        "scans": arguments.scans,
        "simulation.sample": arguments.sample,
        "simulation.sample_seed": arguments.sample_seed,
        "simulation.trajectory": arguments.trajectory,
        "simulation.frames": arguments.frames,
        "simulation.size": arguments.size,
        "simulation.step_m": None if arguments.step is None else arguments.step * 1e-9,
        "simulation.position_error_m": None if arguments.position_error is None else arguments.position_error * 1e-9,
        "simulation.dose": arguments.dose,
        "simulation.dead_pixels": arguments.dead,
        "simulation.hot_pixels": arguments.hot,
        "simulation.seed": arguments.seed,
        **stream_values(arguments),
    }
    settings = load_settings(BeamlineSettings, arguments.config, values)
    say = Console(file=sys.stderr if arguments.json else sys.stdout, soft_wrap=True, highlight=False)
    with StreamProgress() as progress:
        beamline = Beamline(settings, on_stage=progress.start, on_step=progress.done)
        with stop_on_signals(beamline.stop):
            complete = beamline.run(on_serving=lambda text: say.print(f"serving {text}"))
    say.print(f"{complete} scans complete")
    if arguments.json:
        print(json.dumps({"prefix": settings.prefix, "channel": settings.image_channel, "complete": complete}))
    return 0
