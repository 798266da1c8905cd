"""`ptychostream replay`: stream a scan file as a detector would."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "stream a scan file as a detector would"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="scan file: NeXus (NDFileHDF5), CXI or npz")
    parser.add_argument("--pv", default="bl:Pva1:Image", help="PVA channel to serve (default %(default)s)")
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="passes over the file, each a scan of its own")
    parser.add_argument("--repeat", action="store_true", help="pass after pass until stopped")
    parser.add_argument("--scan-id", default="", metavar="ID", help="name of the scan (default: the file's own)")
    parser.add_argument("--dtype", default="", metavar="T", help="integer type to send (default: the file's)")
    add_stream_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command that streams takes."""
    parser.add_argument("--rate", type=float, metavar="FPS", help="frames per second (default 100)")
    parser.add_argument("--codec", help="none, lz4, bslz4, lz4hdf5, blosc, zlib or jpeg (default none)")
    parser.add_argument(
        "--position-unit",
        choices=("m", "mm", "um", "nm"),
        help="of the attributes PositionX and PositionY (default m)",
    )
    parser.add_argument(
        "--wait-for-client", action="store_true", default=None, help="send nothing before a client has subscribed"
    )
    parser.add_argument("--wait-for", metavar="PV", help="send nothing before this PV is 1, over PVA")
    parser.add_argument("--wait-timeout", type=float, metavar="S", help="give up waiting after this many seconds")


def stream_values(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings that `add_stream_arguments` asked for, by key; None where not given."""
    return {
        "rate_hz": arguments.rate,
        "codec": "" if arguments.codec == "none" else arguments.codec,
        "position_unit": arguments.position_unit,
        "gate.wait_for": arguments.wait_for,
        "gate.wait_for_client": arguments.wait_for_client,
        "gate.timeout_s": arguments.wait_timeout,
    }


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.cli.stopping import stop_on_signals
    from ptychostream.config import load_settings
    from ptychostream.sim.replay import Replay, replay
    from ptychostream.sim.show import StreamProgress

    settings = load_settings(
        Replay,
        None,
        {
            "channel": arguments.pv,
            "loops": 0 if arguments.repeat else arguments.loop,
            "scan_id": arguments.scan_id,
            "dtype": arguments.dtype,
            **stream_values(arguments),
        },
    )
    say = Console(file=sys.stderr if arguments.json else sys.stdout, soft_wrap=True, highlight=False)
    with stop_on_signals() as stop, StreamProgress() as progress:
        passes = replay(
            arguments.scan,
            settings,
            stop,
            on_serving=lambda text: say.print(f"serving {text}"),
            on_scan=progress.start,
            on_sent=progress.sent,
        )
    for scan_id, streamed in passes:
        say.print(f"{scan_id}: {streamed.frames} frames in {streamed.seconds:.2f} s, {streamed.rate_hz:.1f} frames/s")
    if arguments.json:
        scans = [
            {
                "scan_id": scan_id,
                "sent": streamed.frames,
                "seconds": streamed.seconds,
                "rate_hz": streamed.rate_hz,
                "slipped_s": streamed.slipped_s,
            }
            for scan_id, streamed in passes
        ]
        print(json.dumps({"channel": arguments.pv, "sent": sum(s.frames for _, s in passes), "scans": scans}))
    return 130 if stop.is_set() and not arguments.repeat else 0
