"""The detector of the soak in a separate process. It sends scans of simulated patterns when the journal allows it.

`python -m ptychostream.benchmarks.soak.soak_source SETTINGS`, with the settings as JSON. The journal tells
when a scan must end. Its ids begin at 0. The journal has the number of sent frames, also after SIGTERM or SIGKILL.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.benchmarks.soak.soak_journal import Journal, Mark, Place
from ptychostream.benchmarks.soak.soak_model import MARK_COUNTS
from ptychostream.benchmarks.stream_source import STEP_M, patterns
from ptychostream.config import Settings
from ptychostream.processes.stopping import stop_on_signals
from ptychostream.sim.replay.detector import Detector
from ptychostream.sim.replay.ntndarray import build
from ptychostream.sim.scans import trajectory

POINTS = 400
"""The number of positions of a scan. A longer scan repeats them."""
DISTINCT_FRAMES = 64
_AWAY_M = {Place.SCAN: 0.0, Place.BESIDE: 60e-6, Place.RUNAWAY: 0.1}
POLL_S = 0.02


class SoakSource(Settings):
    """Settings of the detector. `first` is the number of the first scan, `journal` the path of the journal."""

    channel: str
    rate_hz: float = Field(gt=0)
    side: int
    journal: Path
    first: int = Field(ge=1)


def scan_name(scan: int) -> str:
    """The ScanID of a scan."""
    return f"soak-{scan}"


def frames_of(
    scan: int, counts: NDArray[np.integer], marked: NDArray[np.integer], positions_m: NDArray[np.float64], book: Journal
) -> Iterator[pva.PvObject]:
    """NTNDArrays of one scan until the journal ends it. They are marked and displaced as the journal says."""
    for index in count():
        mark, place, last = book.mark, book.place, book.ending >= scan
        if mark is Mark.NEXT:
            book.mark = Mark.NONE
        x, y = positions_m[index % len(positions_m)] + _AWAY_M[place]
        attributes: dict[str, float | int | str] = {
            "PositionX": float(x),
            "PositionY": float(y),
            "ScanID": scan_name(scan),
            "ScanComplete": int(last),
        }
        frames = counts if mark is Mark.NONE else marked
        book.note_sent(scan, index + 1)
        yield build(frames[index % len(frames)], index, 0.0, attributes)
        if last:
            return


def main(source: SoakSource) -> None:
    """Send scans without end."""
    book = Journal(source.journal)
    counts = patterns((source.side, source.side), "uint16", DISTINCT_FRAMES)
    counts[:, 0, 0] = 0
    marked = counts.copy()
    marked[:, 0, 0] = MARK_COUNTS + np.arange(len(marked))  # a value that never changes would be that of a bad pixel
    positions_m = trajectory("spiral", POINTS, STEP_M).positions_m
    with Detector(source.channel, lambda: time.time_ns() + book.clock_ns) as detector, stop_on_signals() as stop:
        print(json.dumps({"ready": time.time()}), flush=True)
        for scan in count(source.first):
            if not _allowed(book, scan, stop):
                break
            arrays = frames_of(scan, counts, marked, positions_m, book)
            detector.stream(arrays, source.rate_hz, stop)
            book.ended = scan


def _allowed(book: Journal, scan: int, stop: threading.Event) -> bool:
    while book.allowed < scan:
        if stop.wait(POLL_S):
            return False
    return not stop.is_set()


if __name__ == "__main__":
    main(SoakSource.model_validate_json(sys.argv[1]))
