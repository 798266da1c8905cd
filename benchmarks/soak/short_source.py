"""The detector of `bench short-scans` in a separate process.

`python -m ptychostream.benchmarks.soak.short_source SETTINGS READY_PV`, with the settings as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import pvaccess as pva

from ptychostream.benchmarks.soak.short_scan import CHANNEL, PIXEL_M, START_S, ShortScans
from ptychostream.processes.stopping import stop_on_signals
from ptychostream.sim.replay.connections import drain
from ptychostream.sim.replay.detector import Detector
from ptychostream.sim.replay.gate import wait_for_pv
from ptychostream.sim.replay.ntndarray import build

_DISTINCT = 64


def arrays(wanted: ShortScans) -> Iterator[pva.PvObject]:
    """The NTNDArrays of all scans."""
    patterns = np.random.default_rng(0).poisson(8.0, (_DISTINCT, wanted.side, wanted.side)).astype(np.uint16)
    for scan in range(wanted.scans):
        for frame in range(wanted.frames):
            attributes: dict[str, float | int | str] = {
                "PositionX": frame % 4 * 8 * PIXEL_M,
                "PositionY": frame // 4 * 8 * PIXEL_M,
                "ScanID": f"s{scan}",
                "ScanComplete": int(frame == wanted.frames - 1),
            }
            yield build(patterns[(scan + frame) % _DISTINCT], 0, 0.0, attributes)


def main(wanted: ShortScans, ready_pv: str) -> None:
    """Send all scans once the PV is 1."""
    with Detector(CHANNEL, adcore=True) as detector, stop_on_signals() as stop:
        print(json.dumps({"ready": time.time()}), flush=True)
        wait_for_pv(ready_pv, stop, START_S)
        first = time.time()
        detector.stream(arrays(wanted), wanted.rate_hz * wanted.frames, stop)
        print(json.dumps({"sent": wanted.scans * wanted.frames, "first": first, "last": time.time()}), flush=True)
        drain(stop)


if __name__ == "__main__":
    main(ShortScans.model_validate_json(sys.argv[1]), sys.argv[2])
