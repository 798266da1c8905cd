"""`ptychostream bench limits`: kinds of broken or hostile input at each door: peak of memory, time, what was said.

Each kind runs in a process of its own, which loads the door's code, notes its memory, and gives the input. The peak
is that of this process above what it had before; what a child with limits takes is not counted. Every input is made
here and is harmless: it tests our own checks, and no weakness of other software.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

from ptychostream.benchmarks.limits.cases import CASES
from ptychostream.benchmarks.measured import say
from ptychostream.processes.hardware import cores, cpu_name

_CASE = "ptychostream.benchmarks.limits.case"
_LIMIT_S = 60.0
_LONGEST = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench limits`."""
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds whose name contains one of these texts")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Returns 1 if a kind was not refused as it ought to be."""
    names = [name for name in CASES if not arguments.only or any(text in name for text in arguments.only)]
    rows = []
    for name in names:
        say(name)
        rows.append(measure(name))
    if arguments.json:
        where = {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()}
        print(json.dumps({"where": where, "date": time.strftime("%Y-%m-%d"), "rows": rows}, indent=1))
    else:
        print(table(rows))
    return int(any(row["failed"] for row in rows))


def measure(name: str) -> dict[str, Any]:
    """One row: `kind`, `door`, `seconds`, `peak_mib`, `said`, and whether it `failed`."""
    door, _ = CASES[name]
    row: dict[str, Any] = {"kind": name, "door": door}
    with tempfile.TemporaryDirectory(prefix="ptychostream-limits-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-m", _CASE, name, folder], capture_output=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return {**row, "seconds": _LIMIT_S, "said": "not done in time", "failed": True}
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            return {**row, "said": f"status {done.returncode}: {lines[-1]}"[:_LONGEST], "failed": True}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found["said"] = found["said"].replace(folder, "…")[:_LONGEST]
    return {**row, **found, "failed": False}


def table(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown."""
    lines = ["| door | input | peak, MiB | time, s | what was said |", "|---|---|---|---|---|"]
    for row in rows:
        peak = f"{row['peak_mib']:.0f}" if "peak_mib" in row else "–"
        seconds = f"{row['seconds']:.2f}" if "seconds" in row else "–"
        told = str(row["said"]).replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row['door']} | {row['kind']} | {peak} | {seconds} | {told} |")
    return "\n".join(lines)
