"""`bench kills` sees what is lost, and kills a real recording; `bench short-scans` counts whole files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptychostream.benchmarks.kills import recorder
from ptychostream.benchmarks.kills.place import Outcome, Place
from ptychostream.benchmarks.kills.scans import FRAMES, SIDE, counts_of, place_of
from ptychostream.cli.main import main
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

pytestmark = [pytest.mark.slow, pytest.mark.server]


def a_scan(number: int, frames: int = FRAMES) -> Scan:
    counts = np.stack([counts_of(number, frame) for frame in range(frames)])
    places = np.array([place_of(frame) for frame in range(frames)])
    ids = np.arange(frames) + 1 + FRAMES * number
    return Scan(f"k{number}", counts, places, 1e4, 1.0, 1e-4, frame_ids=ids)


@pytest.mark.parametrize("fault", ["", "a frame too few", "another count", "another place", "damaged"])
def test_a_recording_that_is_not_whole_is_seen(fault: str, tmp_path: Path) -> None:
    write_scan(tmp_path / "k1.h5", a_scan(1))
    scan = a_scan(2, FRAMES - (fault == "a frame too few"))
    if fault == "another count":
        scan.counts[7, 3, SIDE - 1] += 1
    elif fault == "another place":
        scan.positions_m[9] += 1e-9
    path = tmp_path / "k2.h5"
    write_scan(path, scan)
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:5000])
    outcome = Outcome()
    recorder._check(tmp_path, {}, outcome)
    assert outcome.done == 2
    assert len(outcome.lost) == bool(fault)
    assert all(str(path) in what for what in outcome.lost)


@pytest.mark.timeout(200)
def test_a_recording_is_killed_and_loses_nothing(tmp_path: Path) -> None:
    outcome = recorder.run(Place(tmp_path, seed=2), kills=2)
    assert (outcome.kills, outcome.lost) == (2, [])


@pytest.mark.timeout(200)
def test_short_scans_are_saved_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "short-scans", "--scans", "20", "--rate", "10", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["saved"], told["whole"], told["lost"], told["received"]) == (20, 20, 0, 160)
