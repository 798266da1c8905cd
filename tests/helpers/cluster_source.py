"""A detector in a process of its own, `python cluster_source.py CHANNEL`: every frame follows from its id.

Each line on stdin is JSON, {"scan", "first", "count", "rate", "end", "size"}; it answers `sent` when all are out.
"""

from __future__ import annotations

import json
import sys
import time

import pvaccess as pva
from cluster_helpers import counts_of, place_of

from ptychostream.sim.replay.ntndarray import build


def main() -> None:
    channel = sys.argv[1]
    server = pva.PvaServer(channel, pva.NtNdArray())
    print("serving", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        last = order["first"] + order["count"] - 1
        due = time.monotonic()
        for number in range(order["first"], last + 1):
            x, y = place_of(number)
            end = int(order["end"] and number == last)
            attributes = {"PositionX": x, "PositionY": y, "ScanID": order["scan"], "ScanComplete": end}
            server.update(channel, build(counts_of(number, order["size"]), number, time.time(), attributes))
            due += 1 / order["rate"]
            time.sleep(max(0.0, due - time.monotonic()))
        print("sent", flush=True)


if __name__ == "__main__":
    main()
