"""`ptychostream record --positions panda` as a process, beside a detector and a simulated PandABox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from test_record import GEOMETRY, TIMEOUT_S, Detector, detector, recording, summary

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_files import open_scan
from ptychostream.sim.panda.box import SimulatedPanda

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

FRAMES, PER_FRAME = 20, 2


class Rig:
    def __init__(self, recorder: Process, source: Detector, box: SimulatedPanda) -> None:
        self.recorder, self.source, self.box = recorder, source, box

    def heard(self, text: str) -> None:
        wait_until(lambda: text in self.recorder.output, TIMEOUT_S, lambda: f"{text}:\n{self.recorder.output}")

    def rows(self, scan: int, first: int, count: int) -> None:
        """Samples of a capture: x in mm, y in µm."""
        number = np.arange(first, first + count)
        self.box.rows({"INENC1.VAL": scan + 1e-4 * number, "INENC2.VAL": -1e3 * scan - 0.1 * number})

    def frames(self, scan: str, count: int = FRAMES) -> None:
        """A scan; its last frame ends it."""
        self.source.send(scan, count - 1, attributes={"ScanComplete": 0})
        self.source.send(scan, 1, first=count, attributes={"ScanComplete": 1})


@contextmanager
def rig(template: Path, *words: str) -> Iterator[Rig]:
    with EpicsEnv() as env, SimulatedPanda() as box:
        for name, unit in (("INENC1.VAL", "mm"), ("INENC2.VAL", "um")):
            box.capture(name, unit)
        ports = ("--panda-ports", str(box.control_port), str(box.data_port))
        words = ("--positions", "panda", "--panda-host", "127.0.0.1", *ports, *words)
        with recording(env, template, *words) as recorder, detector(env, recorder) as source:
            made = Rig(recorder, source, box)
            made.heard("PandABox 127.0.0.1: connected")
            yield made


def expected(scan: int, frames: int) -> np.ndarray:
    """[n, 2] m: the mean of each frame's samples, x and y each by its own unit."""
    middle = PER_FRAME * np.arange(frames) + (PER_FRAME - 1) / 2
    return np.stack([1e-3 * (scan + 1e-4 * middle), -1e-6 * (1e3 * scan + 0.1 * middle)], axis=1)


def stored(path: Path) -> np.ndarray:
    """[n, 2] m as the file holds them."""
    with h5py.File(path) as file:
        group = file["entry/instrument/NDAttributes"]
        return np.stack([group["PositionX"][:], group["PositionY"][:]], axis=1)


def test_each_scan_takes_the_places_of_its_own_arm(tmp_path: Path) -> None:
    """Rows that come with the frames, and rows that come before them; the index begins anew at every arm."""
    with rig(tmp_path / "{scan}.h5", "--samples-per-frame", str(PER_FRAME), "--scans", "2") as made:
        made.box.arm()
        made.rows(1, 0, 15)
        made.frames("one")
        made.rows(1, 15, 25)
        made.box.end()
        wait_until((tmp_path / "one.h5").exists, TIMEOUT_S, lambda: made.recorder.output)  # all its frames have come
        made.box.arm()
        made.rows(2, 0, 40)
        made.frames("two")
        made.box.end()
        assert made.recorder.wait(TIMEOUT_S) == 0, made.recorder.output
        told = summary(made.recorder)
    assert (told["written"], told["without_position"], told["lost"]) == (2 * FRAMES, 0, 0)
    for number, name in enumerate(("one", "two"), start=1):
        with open_scan(tmp_path / f"{name}.h5", GEOMETRY) as scan:
            np.testing.assert_allclose(scan.positions_m, expected(number, FRAMES), rtol=1e-12)


def test_an_overrun_is_told_and_its_frames_have_no_place(tmp_path: Path) -> None:
    words = ("--samples-per-frame", str(PER_FRAME), "--scans", "1", "--position-wait", "1")
    with rig(tmp_path / "scan.h5", *words) as made:
        made.box.arm()
        made.rows(1, 0, 24)
        made.frames("one")
        made.box.end("Data overrun")
        made.heard("the capture ended by 'Data overrun'")
        made.recorder.wait(TIMEOUT_S)
        told = summary(made.recorder)
    assert (told["written"], told["without_position"]) == (FRAMES, FRAMES - 12)
    places = stored(tmp_path / "scan.h5")
    np.testing.assert_allclose(places[:12], expected(1, 12), rtol=1e-12)
    assert np.isnan(places[12:]).all()
    with pytest.raises(ScanFileError, match="8 of 20 positions are unknown"), open_scan(tmp_path / "scan.h5", GEOMETRY):
        pass


def test_a_lost_data_connection_keeps_the_index(tmp_path: Path) -> None:
    """Rows that were sent while nobody listened have no frame's place; those after them have their own."""
    words = ("--samples-per-frame", str(PER_FRAME), "--scans", "1", "--position-wait", "1")
    with rig(tmp_path / "scan.h5", *words) as made:
        made.box.arm()
        made.rows(1, 0, 20)
        made.source.send("one", 10, attributes={"ScanComplete": 0})
        made.box.drop(control=False)
        made.heard("the data connection was closed by the box")
        made.rows(1, 20, 10)
        wait_until(lambda: made.recorder.output.count("PandABox 127.0.0.1: connected") == 2, TIMEOUT_S, "again")
        made.rows(1, 30, 10)
        made.source.send("one", 9, begin=10, attributes={"ScanComplete": 0})
        made.source.send("one", 1, begin=19, attributes={"ScanComplete": 1})
        made.box.end()
        made.recorder.wait(TIMEOUT_S)
        told = summary(made.recorder)
    assert (told["written"], told["without_position"]) == (FRAMES, 5)
    places, told_by_nobody = stored(tmp_path / "scan.h5"), slice(10, 15)
    assert np.isnan(places[told_by_nobody]).all()
    heard = np.delete(np.arange(FRAMES), told_by_nobody)
    np.testing.assert_allclose(places[heard], expected(1, FRAMES)[heard], rtol=1e-12)
