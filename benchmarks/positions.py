"""`ptychostream bench positions`: what it costs to find the positions of frames.

Figures

- `join_us`: microseconds a frame in the join, by source, with `samples` samples in memory, where `together` frames come
  at once. `after`: the frames come when the samples are there; `before`: the frames wait, and blocks of samples place
  them. `one_by_one_us`: the same where each frame comes alone.
- `rss_mb`: memory of a process before, and after 1 and 4 times `samples` samples of a stream that holds `samples`.
- `cores`: processor time of a pipeline without an engine over wall time, with positions from the frames' attributes
  and from a simulated PandABox in another process, in turns. `panda_more_cores`: the difference of the means.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.measured import Measured, say
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.loopback import free_ports, loopback_environment

MOST_US = 2.0
MOST_CORES = 0.1
START_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench positions`."""
    parser.add_argument("--samples", type=int, default=1_000_000, metavar="N", help="in memory (default %(default)s)")
    parser.add_argument("--frames", type=int, default=20_000, metavar="N", help="placed (default %(default)s)")
    parser.add_argument("--fps", type=float, default=2000.0, help="frames per second (default %(default)g)")
    parser.add_argument("--sample-rate", type=float, default=100_000.0, metavar="HZ", help="default %(default)g")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each turn (default %(default)g)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="of each source (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a target is missed."""
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-") as folder:
        report = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    slowest = max(one for places in report["join_us"].values() for one in places.values())
    return 0 if slowest <= MOST_US and report["panda_more_cores"] <= MOST_CORES else 1


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure in child processes, whose logs are written to `folder`."""
    ports = free_ports(2)
    environment = loopback_environment([ports[0]], ports[1])
    say(f"join with {arguments.samples} samples")
    words = [str(arguments.samples), str(arguments.frames)]
    with Measured("ptychostream.benchmarks.positions_join", words, folder / "join.log", environment) as join:
        report = join.hear("join_us", 600.0)
    used: dict[str, list[float]] = {"attributes": [], "panda": []}
    placed: dict[str, int] = {}
    for _ in range(arguments.turns):
        for source in used:
            say(f"{arguments.fps:g} frames/s by {source}, {arguments.seconds:g} s")
            words = [source, str(arguments.fps), str(arguments.sample_rate), str(arguments.seconds)]
            path = folder / f"{source}.log"
            with Measured("ptychostream.benchmarks.positions_pipeline", words, path, environment) as child:
                heard = child.hear("cores", START_S + arguments.seconds)
            used[source].append(heard["cores"])
            placed[source] = heard["placed"]
    means = {source: statistics.mean(values) for source, values in used.items()}
    return {
        **report,
        "fps": arguments.fps,
        "sample_rate_hz": arguments.sample_rate,
        "cores": used,
        "placed_of_frames": placed,
        "panda_more_cores": means["panda"] - means["attributes"],
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()},
    }


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in report.items():
        table.add_row(name, json.dumps(value) if isinstance(value, dict) else str(value))
    Console().print(table)
