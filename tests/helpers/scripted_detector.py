"""A detector in a process of its own: `python scripted_detector.py CHANNEL`, told what to send on stdin.

Each line is JSON: {"scan": "s1", "count": 10, "first": 1, "value": 2, "size": 16, "step_px": 4, "columns": 5,
"codec": "", "dtype": "uint16", "rate": 500, "attributes": {}, "clock_s": 0}, or "file": a frame as
.npy in the place of value and size; "begin": number of the first frame within its scan; "dimension": what both
dimensions say besides; it answers `sent` when all are out.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import pvaccess as pva

from ptychostream.sim.replay.ntndarray import build


def send(server: Any, channel: str, order: dict[str, Any]) -> None:
    size, columns, step_m = order.get("size", 16), order.get("columns", 5), order.get("step_px", 4) * 10e-9
    if "file" in order:
        counts = np.load(order["file"])
        counts = counts.astype(order.get("dtype", counts.dtype))
    else:
        counts = np.full((size, size), order.get("value", 1), order.get("dtype", "uint16"))
    begin = order.get("begin", 0)
    for index in range(begin, begin + order["count"]):
        attributes = {
            "PositionX": (index % columns) * step_m,
            "PositionY": (index // columns) * step_m,
            "ScanID": order["scan"],
            **order.get("attributes", {}),
        }
        if not order["scan"]:
            del attributes["ScanID"]
        number = order.get("first", 1) + index
        when = time.time() + order.get("clock_s", 0.0)
        update = build(counts, number, when, attributes, order.get("codec", ""))
        if "dimension" in order:
            update["dimension"] = [{**one, **order["dimension"]} for one in update["dimension"]]
        server.update(channel, update)
        time.sleep(1 / order.get("rate", 500))


def main() -> None:
    channel = sys.argv[1]
    server = pva.PvaServer(channel, pva.NtNdArray())
    print("serving", flush=True)
    for line in sys.stdin:
        send(server, channel, json.loads(line))
        print("sent", flush=True)


if __name__ == "__main__":
    main()
