"""The Channel Access clients of the soak, in separate processes.

`python -m ptychostream.benchmarks.soak.soak_client monitor PREFIX` monitors records like a screen.
`… write PREFIX SEED` writes setpoints with completion and reads them back. Both print a line of JSON every second,
until SIGTERM.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter

import pvaccess as pva

from ptychostream.processes.stopping import stop_on_signals

WATCHED = (
    "Accounting_RBV",
    "AccountingError_RBV",
    "FramesReceived_RBV",
    "FramesStitched_RBV",
    "FramesPending_RBV",
    "FramesMissed_RBV",
    "ArrayRate_RBV",
    "LatencyP99_RBV",
    "HEARTBEAT",
)
LAW = ("Accounting_RBV", "AccountingError_RBV")
PERIOD_S = 1.0
WRITE_EVERY_S = 0.25
PUT_TIMEOUT_S = 2.0


def monitor(prefix: str, stop: threading.Event) -> None:
    """Count the updates of every record, and those that violate the conservation law."""
    updates: Counter[str] = Counter()
    violations = 0

    def changed(name: str, value: float) -> None:
        nonlocal violations
        updates[name] += 1
        violations += name in LAW and value != 0

    def watcher(name: str) -> object:
        return lambda update: changed(name, float(_number(update)))

    channels = {name: pva.Channel(prefix + name, pva.CA) for name in WATCHED}
    kept = {name: watcher(name) for name in WATCHED}  # pvaccess itself keeps no reference
    for name, channel in channels.items():
        channel.subscribe("soak", kept[name])
        channel.startMonitor("field(value)")
    while not stop.wait(PERIOD_S):
        _say(updates=updates.total(), violations=violations, heartbeats=updates["HEARTBEAT"])
    for channel in channels.values():
        channel.stopMonitor()


def write(prefix: str, seed: int, stop: threading.Event) -> None:
    """Write setpoints, wait for completion, and check the readback. Failures are counted."""
    choose = random.Random(seed)
    setpoints = {
        "PhaseRate": lambda: choose.choice((2.0, 5.0, 8.0)),
        "MaxLatency": lambda: choose.choice((20.0, 50.0, 80.0)),
        "DoseScale": lambda: choose.choice((0.5, 1.0, 2.0)),
    }
    channels = {
        name: (pva.Channel(prefix + name, pva.CA), pva.Channel(f"{prefix}{name}_RBV", pva.CA)) for name in setpoints
    }
    for pair in channels.values():
        for channel in pair:
            channel.setTimeout(PUT_TIMEOUT_S)
    done = failed = wrong = 0
    said = time.monotonic()
    while not stop.wait(WRITE_EVERY_S):
        name = choose.choice(list(setpoints))
        value = setpoints[name]()
        setpoint, readback = channels[name]
        try:
            setpoint.putDouble(value, "record[process=true,block=true]field(value)")
            found = float(_number(readback.get("field(value)")))
            done += 1
            wrong += found != value
        except pva.PvaException:  # the IOC does not run
            failed += 1
        if time.monotonic() - said >= PERIOD_S:
            said = time.monotonic()
            _say(puts=done, failed=failed, wrong=wrong)


def _number(update: pva.PvObject) -> float:
    value = update["value"]
    return value["index"] if isinstance(value, dict) else value


def _say(**words: object) -> None:
    print(json.dumps({"time": time.time(), **words}), flush=True)


if __name__ == "__main__":
    with stop_on_signals() as _stop:
        if sys.argv[1] == "monitor":
            monitor(sys.argv[2], _stop)
        else:
            write(sys.argv[2], int(sys.argv[3]), _stop)
