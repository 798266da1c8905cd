"""The detector of `bench kills`: scans without end, each pattern follows from scan and frame.

`python -m ptychostream.benchmarks.kills.detector CHANNEL`. A line of JSON is printed when a scan is out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import count

import pvaccess as pva

from ptychostream.benchmarks.kills.scans import FRAMES, PAUSE_S, RATE_HZ, counts_of, place_of
from ptychostream.processes.stopping import stop_on_signals
from ptychostream.sim.replay.detector import Detector
from ptychostream.sim.replay.ntndarray import build


def frames_of(scan: int) -> Iterator[pva.PvObject]:
    """The NTNDArrays of a scan."""
    for frame in range(FRAMES):
        x, y = place_of(frame)
        attributes: dict[str, float | int | str] = {
            "PositionX": x,
            "PositionY": y,
            "ScanID": f"k{scan}",
            "Frame": frame,
            "ScanComplete": int(frame == FRAMES - 1),
        }
        yield build(counts_of(scan, frame), 0, 0.0, attributes)


def main(channel: str) -> None:
    """Send until SIGTERM."""
    with Detector(channel, adcore=True) as detector, stop_on_signals() as stop:
        for scan in count(1):
            detector.stream(frames_of(scan), RATE_HZ, stop)
            print(json.dumps({"scan": scan, "at": time.time()}), flush=True)
            if stop.wait(PAUSE_S):
                break


if __name__ == "__main__":
    main(sys.argv[1])
