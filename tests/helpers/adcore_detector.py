"""The simulated detector as ADCore streams, in a process of its own: `python adcore_detector.py CHANNEL`.

Each line on stdin is JSON: {"scan": "s1", "count": 10, "rate": 500, "stale": 2, "end": true}; it answers `sent` when
all frames are out. `end` false: the scan is cut off before its last frame, so that its end attribute never rises.
"""

from __future__ import annotations

import json
import sys
import threading
from itertools import islice

import numpy as np

from ptychostream.scans.scan import Scan
from ptychostream.sim.replay.detector import Detector, scan_arrays

STEP_M = 40e-9


def main() -> None:
    with Detector(sys.argv[1], adcore=True) as detector:
        print("serving", flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            count = order["count"]
            cut = 0 if order.get("end", True) else 1
            counts = np.full((count + cut, 16, 16), 1, np.uint16)
            places = np.arange(count + cut)[:, None] % 5 * [STEP_M, 0.0]
            scan = Scan(order["scan"], counts, places, 1e4, 1.0, 1e-4)
            arrays = scan_arrays(scan, scan_id=order["scan"], stale=order.get("stale", 0))
            detector.stream(islice(arrays, count), order.get("rate", 500), threading.Event())
            print("sent", flush=True)


if __name__ == "__main__":
    main()
