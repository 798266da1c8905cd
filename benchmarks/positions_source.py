"""A simulated PandABox that captures at a steady rate.

`python -m ptychostream.benchmarks.positions_source SAMPLES_PER_S` prints its two ports, and begins a capture of S
seconds for each line S of its standard input.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from ptychostream.sim.panda.box import SimulatedPanda

_BLOCK_S = 0.02


def main(sample_hz: float) -> None:
    """Serve until the standard input ends."""
    with SimulatedPanda() as box:
        for name in ("INENC1.VAL", "INENC2.VAL"):
            box.capture(name, "um")
        print(json.dumps([box.control_port, box.data_port]), flush=True)
        for line in sys.stdin:
            box.arm()
            begin, sent, total = time.monotonic(), 0, round(float(line) * sample_hz)
            while sent < total:
                due = min(round((time.monotonic() - begin) * sample_hz), total)
                if due > sent:
                    x = np.asarray(np.arange(sent, due) * 1e-5, np.float64)
                    box.rows({"INENC1.VAL": x, "INENC2.VAL": -x})
                sent = due
                time.sleep(_BLOCK_S)
            box.end()


if __name__ == "__main__":
    main(float(sys.argv[1]))
