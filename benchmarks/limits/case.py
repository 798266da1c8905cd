"""`python -m ptychostream.benchmarks.limits.case KIND FOLDER`: one kind of input, measured in this process."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

from ptychostream.benchmarks.limits.cases import CASES
from ptychostream.processes.bounded import status_bytes


def main(kind: str, folder: str) -> None:
    logging.disable(logging.CRITICAL)
    _, prepare = CASES[kind]
    act = prepare(Path(folder))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before, start = status_bytes("VmRSS"), time.monotonic()
    said = act()
    seconds = time.monotonic() - start
    peak = max(0, status_bytes("VmHWM") - before)
    found = {"seconds": seconds, "peak_mib": peak / (1 << 20), "said": said}
    print(json.dumps(found), flush=True)
    os._exit(0)  # servers and pipelines run on


if __name__ == "__main__":
    main(*sys.argv[1:])
