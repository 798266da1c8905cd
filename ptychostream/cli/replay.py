"""`ptychostream replay`: stream a scan file as a detector would."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ptychostream.cli import finite
from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    from ptychostream.sim.replay.detector import Streamed

_CHANNEL = "bl:Pva1:Image"

Serving = Callable[[str], None]
Pass = Callable[[str, int], None]
Sent = Callable[[int, float], None]
Stream = Callable[[threading.Event, Serving, Pass, Sent], "list[tuple[str, Streamed]]"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scan",
        type=Path,
        help="scan file: NeXus (NDFileHDF5), CXI, DECTRIS, npz and others; with --raw: recorded updates",
    )
    parser.add_argument(
        "--pv", help="PVA channel to serve (default bl:Pva1:Image; with --raw: the recorded one's name)"
    )
    parser.add_argument(
        "--raw", action="store_true", help="serve what `record --raw` wrote, bit for bit, at --rate or as it came"
    )
    parser.add_argument("--loop", type=int, default=1, metavar="N", help="passes over the file, each a scan of its own")
    parser.add_argument("--repeat", action="store_true", help="pass after pass until stopped")
    parser.add_argument("--scan-id", default="", metavar="ID", help="name of the scan (default: the file's own)")
    parser.add_argument("--dtype", default="", metavar="T", help="integer type to send (default: the file's)")
    add_stream_arguments(parser)
    add_scan_arguments(parser, unit_flag="--file-position-unit")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that streams."""
    parser.add_argument("--rate", type=finite, metavar="FPS", help="frames per second (default 100)")
    parser.add_argument("--codec", help="none, lz4, bslz4, lz4hdf5, blosc, zlib or jpeg (default none)")
    parser.add_argument(
        "--position-unit",
        choices=("m", "mm", "um", "nm"),
        help="of the attributes PositionX and PositionY (default m)",
    )
    parser.add_argument(
        "--positions",
        choices=("attributes", "stream", "both", "index", "panda"),
        help="how positions are sent (default attributes); panda: by a simulated PandABox",
    )
    stream = parser.add_argument_group("stream of positions")
    stream.add_argument("--position-pv", metavar="PV", help="its PVA channel (default as the frames', Positions)")
    stream.add_argument("--position-layout", choices=("table", "structure", "array"), help="default table")
    stream.add_argument("--position-rate", type=finite, metavar="HZ", help="samples a second (default 1000)")
    stream.add_argument("--position-bulk", type=int, metavar="N", help="samples in a block, at the least (default 20)")
    stream.add_argument("--clock-offset", type=finite, metavar="S", help="its clock less the detector's")
    stream.add_argument("--position-delay", type=finite, metavar="S", help="delay of every block")
    stream.add_argument("--position-jitter", type=finite, metavar="S", help="further delay, up to this")
    stream.add_argument("--position-dropout", type=finite, metavar="PART", help="part of the blocks never sent")
    stream.add_argument("--position-twice", type=finite, metavar="PART", help="part of the blocks sent twice")
    stream.add_argument(
        "--panda-ports", type=int, nargs=2, metavar="PORT", help="of a simulated PandABox (default 8888 8889)"
    )
    parser.add_argument(
        "--wait-for-client", action="store_true", default=None, help="send nothing before a client has subscribed"
    )
    parser.add_argument("--wait-for", metavar="PV", help="send nothing before this PV is 1, over PVA")
    parser.add_argument("--wait-timeout", type=finite, metavar="S", help="give up waiting after this many seconds")


def stream_values(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings from the arguments of `add_stream_arguments`, by key; None: not given."""
    return {
        "rate_hz": arguments.rate,
        "codec": "" if arguments.codec == "none" else arguments.codec,
        "position_unit": arguments.position_unit,
        "positions": arguments.positions,
        "position_stream.channel": arguments.position_pv,
        "position_stream.layout": arguments.position_layout,
        "position_stream.sample_hz": arguments.position_rate,
        "position_stream.bulk": arguments.position_bulk,
        "position_stream.clock_offset_s": arguments.clock_offset,
        "position_stream.delay_s": arguments.position_delay,
        "position_stream.jitter_s": arguments.position_jitter,
        "position_stream.dropout": arguments.position_dropout,
        "position_stream.twice": arguments.position_twice,
        "position_stream.panda_ports": arguments.panda_ports,
        "gate.wait_for": arguments.wait_for,
        "gate.wait_for_client": arguments.wait_for_client,
        "gate.timeout_s": arguments.wait_timeout,
    }


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.processes.stopping import stop_on_signals
    from ptychostream.sim.replay.show import StreamProgress

    say = Console(file=sys.stderr if arguments.json else sys.stdout, soft_wrap=True, highlight=False)
    stream = _raw_stream(arguments) if arguments.raw else _scan_stream(arguments)
    with stop_on_signals() as stop, StreamProgress() as progress:
        passes = stream(stop, lambda text: say.print(f"serving {text}"), progress.start, progress.sent)
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
        channel = passes[0][0] if arguments.raw and passes else arguments.pv or _CHANNEL
        print(json.dumps({"channel": channel, "sent": sum(s.frames for _, s in passes), "scans": scans}))
    return 130 if stop.is_set() and not arguments.repeat else 0


def _scan_stream(arguments: argparse.Namespace) -> Stream:
    """Streams a scan file as the arguments say."""
    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.config import load_settings
    from ptychostream.sim.replay.replay import Replay, replay

    values = {
        "channel": arguments.pv or _CHANNEL,
        "loops": 0 if arguments.repeat else arguments.loop,
        "scan_id": arguments.scan_id,
        "dtype": arguments.dtype,
        **stream_values(arguments),
    }
    return functools.partial(
        replay, arguments.scan, load_settings(Replay, None, values), options=scan_options(arguments)
    )


def _raw_stream(arguments: argparse.Namespace) -> Stream:
    """Streams recorded updates. Raises ConfigError for an argument that would change them."""
    from ptychostream.config import load_settings
    from ptychostream.errors import ConfigError
    from ptychostream.sim.replay.raw_replay import RawReplay, replay_raw

    for name in ("codec", "position_unit", "scan_id", "dtype"):
        if getattr(arguments, name):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                "recorded updates are served as they are", where=flag, remedy=f"leave out {flag} or --raw"
            )
    values = {
        "channel": arguments.pv,
        "loops": 0 if arguments.repeat else arguments.loop,
        **{key: value for key, value in stream_values(arguments).items() if key not in ("codec", "position_unit")},
    }
    return functools.partial(replay_raw, arguments.scan, load_settings(RawReplay, None, values))
