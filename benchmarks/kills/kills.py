"""`ptychostream bench kills`: recorder, IOC, agent, training and cluster, killed with SIGKILL at random moments.

After each death (or at the end of a series) everything that the program had reported as done is looked at:

- recorder: every finished file has all frames of its scan, with their counts and places; a partial file that is older
  than a commit can be finished by `record --recover`, and what it then has is right.
- ioc: every canvas that it saved has all frames of its accounting; the setpoints that it saved are in force again.
- agent: no scan is lost, none is done twice; what was said of a scan stays; the edge has the newest model.
- trainer: an epoch that was told is not trained again; a model that was finished is in the store and whole.
- cluster: consumers and collector by turns; every canvas that was named is whole, and all processes come back.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import platform
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from ptychostream.benchmarks.kills.place import Outcome, Place
from ptychostream.benchmarks.measured import say
from ptychostream.processes.hardware import cores, cpu_name

TARGETS = ("recorder", "ioc", "agent", "trainer", "cluster")
_LONGEST = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench kills`."""
    parser.add_argument("--kills", type=int, default=40, metavar="N", help="kills of each (default %(default)s)")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=TARGETS, help="programs (default: all)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="decides the moments (default %(default)s)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep files and logs there")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Kill, look and print. Returns 1 if something was lost."""
    logging.getLogger("ptychostream").setLevel(logging.ERROR)
    rows: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="ptychostream-kills-") as scratch:
        for name in arguments.only:
            folder = (arguments.folder or Path(scratch)) / name
            folder.mkdir(parents=True)
            began = time.monotonic()
            target = importlib.import_module(f"ptychostream.benchmarks.kills.{name}")
            rows[name] = target.run(Place(folder, arguments.seed), arguments.kills)
            rows[name].seconds = time.monotonic() - began
            say(f"{name}: {rows[name]}"[:_LONGEST])
    if arguments.json:
        where = {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()}
        told = {name: asdict(row) for name, row in rows.items()}
        print(json.dumps({"where": where, "date": time.strftime("%Y-%m-%d"), "rows": told}, indent=1))
    else:
        print(table(rows))
    return int(any(row.lost for row in rows.values()))


def table(rows: dict[str, Outcome]) -> str:
    """A table in Markdown, and what was lost."""
    lines = ["| program | kills | reported as done | lost | seconds |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {row.kills} | {row.done} | {len(row.lost)} | {row.seconds:.0f} |")
    lines += [f"lost by {name}: {what}" for name, row in rows.items() for what in row.lost]
    return "\n".join(lines)
