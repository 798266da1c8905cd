"""A detector that streams as ADCore does: IOC and recorder take the whole scan, and no other image."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import Detector, wait_for

from ptychostream.scans.phase_file import read_provenance
from ptychostream.scans.scan_files import open_scan

pytestmark = pytest.mark.server

P = "ad:"
CHANNEL = f"{P}Pva1:Image"
TIMEOUT_S = 60.0


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


@pytest.fixture
def detector(env: EpicsEnv) -> Iterator[Detector]:
    with Detector(env, CHANNEL, "adcore_detector.py") as made:
        yield made


def test_the_ioc_takes_no_held_image_and_ends_each_scan_once(env: EpicsEnv, detector: Detector, tmp_path: Path) -> None:
    detector.send(scan="before", count=30)
    folder = tmp_path / "saved"
    config = tmp_path / "ioc.toml"
    config.write_text(
        f'prefix = "{P}"\n[input]\npv = "{CHANNEL}"\n[engine]\nname = "None"\nframe_shape = [16, 16]\n'
        f'[save]\ndirectory = "{folder}"\nautomatic = true\ndelay_s = 0.1\n',
        encoding="utf-8",
    )
    with env.start_ioc("--config", str(config), prefix=P, wait="ready") as ioc:
        wait_for(env, f"{P}HeldImages_RBV", 1)
        assert env.caget(f"{P}FramesReceived_RBV") == 0
        assert env.caget(f"{P}ScanActive_RBV") == 0
        detector.send(scan="one", count=120, stale=3)
        wait_for(env, f"{P}FramesStitched_RBV", 120)
        wait_for(env, f"{P}CanvasesSaved_RBV", 1)
        detector.send(scan="two", count=80, stale=80)  # nobody cleared the level: it is up in every frame
        detector.send(scan="three", count=60)
        wait_for(env, f"{P}FramesStitched_RBV", 260)
        detector.send(scan="three", count=50)  # the same id again
        wait_for(env, f"{P}FramesStitched_RBV", 310)
        wait_for(env, f"{P}CanvasesSaved_RBV", 4)
        assert env.caget(f"{P}Accounting_RBV") == env.caget(f"{P}FramesMissed_RBV") == 0
        assert env.caget(f"{P}PhaseCounter_RBV") < 60, "no image for every frame"
        assert env.caget(f"{P}HeldImages_RBV") == 1
        assert ioc.stop() == 0, ioc.output
        assert ioc.output.count("is over") == 4, ioc.output
    saved = {path.name: read_provenance(path)["frames"]["on_canvas"] for path in folder.iterdir()}
    assert saved == {"one.h5": 120, "two.h5": 80, "three.h5": 60, "three_2.h5": 50}


@pytest.mark.parametrize("words", [("--scans", "1"), ("--frames", "40")])
def test_a_recording_begins_with_the_scan_and_not_with_the_held_image(
    env: EpicsEnv, detector: Detector, tmp_path: Path, words: tuple[str, ...]
) -> None:
    detector.send(scan="before", count=30)
    command = (sys.executable, "-m", "ptychostream", "record", CHANNEL, str(tmp_path / "a.h5"), "--json", *words)
    with env.start(*command) as recorder:
        wait_until(lambda: f"{CHANNEL} connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        detector.send(scan="scan", count=40, stale=2, rate=200)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        told = json.loads([line for line in recorder.output.splitlines() if line.startswith("{")][-1])
    assert (told["received"], told["written"], told["held"], told["lost"]) == (40, 40, 1, 0)
    with open_scan(tmp_path / "a.h5", geometry=False) as scan:
        assert scan.frame_ids is not None
        np.testing.assert_array_equal(scan.frame_ids, np.arange(31, 71))
        assert scan.scan_id == "scan"


def test_scans_whose_end_attribute_stays_up_have_a_file_each(env: EpicsEnv, detector: Detector, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "ptychostream", "record", CHANNEL, str(tmp_path / "{scan}.h5"), "--scans", "3")
    with env.start(*command) as recorder:
        wait_until(lambda: f"{CHANNEL} connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        detector.send(scan="a", count=50)
        detector.send(scan="b", count=60, stale=15)
        detector.send(scan="c", count=70, stale=70)
        detector.send(scan="d", count=5)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    found = {}
    for path in sorted(tmp_path.iterdir()):
        with open_scan(path, geometry=False) as scan:
            found[path.name] = len(scan)
    assert found == {"a.h5": 50, "b.h5": 60, "c.h5": 70}
