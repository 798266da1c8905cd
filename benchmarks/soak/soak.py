"""`ptychostream bench soak`: run the stream under faults for a given time.

A detector sends scans through a network to an IOC with a real engine. Two clients monitor the stitched image, one
monitors records, and one writes setpoints. A fault from a seeded schedule occurs in the middle of each scan. The soak
checks the conservation law and the IOC's memory, descriptors and threads all the time. For each fault it measures the
time until the stream has recovered. For each scan it checks that every sent frame was received or counted as missed.

The exit status is 1 if a check failed. Ctrl-C ends it early, with a report until then.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.measured import say
from ptychostream.benchmarks.soak.soak_clock import compiler
from ptychostream.benchmarks.soak.soak_faults import FAULTS, fault
from ptychostream.benchmarks.soak.soak_report import as_text, summarise, write_report
from ptychostream.benchmarks.soak.soak_rounds import InterruptedRound, Round, play, steady
from ptychostream.benchmarks.soak.soak_schedule import RESTARTS, schedule
from ptychostream.benchmarks.soak.soak_stage import Stage
from ptychostream.benchmarks.soak.soak_watch import Watch
from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.processes.hardware import cores, cpu_name
from ptychostream.processes.stopping import stop_on_signals

LAST_ROUND_S = 20.0
"""Time that is reserved for the last round."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench soak`."""
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M", help="duration (default %(default)g)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the schedule (default %(default)s)")
    parser.add_argument("--fps", type=float, default=200.0, metavar="R", help="frames per second (default %(default)g)")
    parser.add_argument("--side", type=int, default=64, metavar="N", help="pixels of a frame's side (default 64)")
    parser.add_argument("--out", type=Path, default=Path("results/soak"), metavar="FOLDER", help="folder of the report")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the soak and report. Returns 1 if a check failed."""
    if not arguments.minutes > 0 or not arguments.fps > 0 or arguments.side < 16:
        raise ConfigError(
            f"--minutes {arguments.minutes:g} --fps {arguments.fps:g} --side {arguments.side}",
            where="bench soak",
            remedy="give positive minutes and frames per second, and frames of 16 pixels or more",
        )
    report = soak(arguments.minutes, arguments.seed, arguments.fps, arguments.side, arguments.out)
    print(json.dumps(report, indent=2) if arguments.json else as_text(report))
    return 1 if report["violations"] else 0


def soak(minutes: float, seed: int, rate_hz: float, side: int, out: Path) -> dict[str, Any]:
    """Run the soak. It updates report.json, report.md and figure.png in `out` after every round.

    The logs of all processes are kept if a check failed.
    """
    faults = [one for one in FAULTS if one.name != "IOC clock stepped" or compiler() is not None]
    choose, rounds = random.Random(seed), list[Round]()
    facts = {
        "seed": seed,
        "minutes": minutes,
        "rate_hz": rate_hz,
        "frame": [side, side],
        "left_out": [one.name for one in FAULTS if one not in faults],
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"processor": cpu_name(), "cores": cores(), "python": platform.python_version()},
    }
    logs = Path(tempfile.mkdtemp(prefix="ptychostream-soak-"))
    say(f"logs in {logs}")
    failure = ""
    with stop_on_signals() as stop, Stage(logs, rate_hz, side, seed) as stage:
        steady(stage)
        with Watch(stage) as watch:

            def state() -> dict[str, Any]:
                clients = {"monitor": stage.monitor.latest(), "writer": stage.writer.latest()}
                clients["image"] = stage.image_client.latest()
                report = {**facts, **summarise(rounds, watch.samples, watch.violations, clients)}
                if failure:
                    report["violations"].append(failure)
                return report

            deadline = time.monotonic() + 60 * minutes - LAST_ROUND_S
            plan = schedule(faults, seed)
            try:
                while not stop.is_set() and time.monotonic() < deadline:
                    rounds.append(play(stage, next(plan), choose, stop=stop, say=say))
                    _tell(rounds[-1])
                    write_report(out, state(), rounds, watch.samples)
                if not stop.is_set():
                    rounds.append(play(stage, fault(RESTARTS), choose, stop=stop, say=say))
                    _tell(rounds[-1])
            except InterruptedRound:
                say("stopped: the report is about the part until now")
            except (PtychostreamError, TimeoutError) as error:
                if not stop.is_set():  # Ctrl-C reaches the children too
                    failure = f"the soak ended early: {error}"
            report = state()
        write_report(out, report, rounds, watch.samples)
    if not report["violations"]:
        shutil.rmtree(logs, ignore_errors=True)
    return report


def _tell(one: Round) -> None:
    recovery = "" if one.recovery_s is None else f", back after {one.recovery_s:.2f} s"
    held = "held" if not one.violations else "; ".join(one.violations)
    say(f"  {one.fault or 'in peace'}{recovery}: {one.sent} sent, {one.stitched} stitched, {held}")
