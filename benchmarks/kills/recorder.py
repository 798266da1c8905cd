"""`ptychostream record` killed while it records: each finished file is whole, each partial one can be finished."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ptychostream.benchmarks.kills.place import CHANNEL, START_S, Outcome, Place
from ptychostream.benchmarks.kills.scans import FRAMES, counts_of, place_of
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_recording import recover

_COMMIT_S = 1.0
_SLACK_S = 2.0
"""A file that is younger than a commit and this may hold nothing yet."""


def run(place: Place, kills: int) -> Outcome:
    """Kill a recording so often."""
    outcome = Outcome()
    with place.detector():
        for number in range(kills):
            folder = place.folder / f"recorded-{number}"
            folder.mkdir()
            began: dict[str, float] = {}

            def look(folder: Path = folder, began: dict[str, float] = began) -> None:
                for path in folder.glob("*.partial"):
                    began.setdefault(path.name, time.monotonic())

            recorder = place.victim("ptychostream", ["record", CHANNEL, str(folder / "{scan}.h5")])
            with recorder:
                place.wait(lambda folder=folder: any(folder.iterdir()), recorder, START_S, "a file")
                place.live_and_die(recorder, 0.0, 4.0, look)
            died = time.monotonic()
            outcome.kills += 1
            _check(folder, {name: died - since for name, since in began.items()}, outcome)
    return outcome


def _check(folder: Path, ages_s: dict[str, float], outcome: Outcome) -> None:
    """Each file of a recording that was killed; `ages_s` of the partial ones, by name."""
    finished = sorted(folder.glob("*.h5"), key=lambda path: int(path.stem[1:]))
    for at, path in enumerate(finished):
        outcome.check(str(path), lambda path=path, at=at: _whole(path, all_of_it=at > 0))
    for path in folder.glob("*.partial"):
        if ages_s.get(path.name, 0.0) > _COMMIT_S + _SLACK_S:
            outcome.check(str(path), lambda path=path: _whole(recover(path)[0], all_of_it=False))


def _whole(path: Path, *, all_of_it: bool) -> bool:
    """Whether each frame has its counts and its place; `all_of_it`: none of the scan is missing."""
    scan_number = int(path.name.partition(".")[0][1:])
    with open_scan(path, geometry=False) as scan:
        if len(scan) == 0 or (all_of_it and len(scan) != FRAMES):
            return False
        assert scan.frame_ids is not None
        last = int(scan.frame_ids[-1])
        first = last - len(scan) + 1
        if not np.array_equal(scan.frame_ids, np.arange(first, last + 1)):
            return False
        begins = (first - 1) % FRAMES  # ids go on from scan to scan, from 1
        for row, frame in enumerate(range(begins, begins + len(scan))):
            if not np.array_equal(scan.counts[row], counts_of(scan_number, frame)):
                return False
            if not np.allclose(scan.positions_m[row], place_of(frame), atol=1e-12):
                return False
    return True
