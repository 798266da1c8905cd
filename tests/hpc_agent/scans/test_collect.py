"""A completed scan becomes a file that is whole: real files, real writers, every fault by its name."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from scan_samples import FRAMES, PATIENT, QUICK, SIZE, a_file, a_scan

from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, collect, file_of, local_name
from ptychostream.hpc_agent.scans.scan_checks import (
    CheckSettings,
    CollectError,
    FrameStatistics,
    ScanFault,
    judge,
    measure,
)
from ptychostream.hpc_agent.scans.stream_recorder import StreamRecorderSettings, stream_recorder
from ptychostream.scans.inspection import inspect_scan
from ptychostream.scans.scan_files import ScanOptions, open_scan

TIMEOUT_S = 60.0


def fault(path: Path, settings: CollectSettings = QUICK, **event: Any) -> tuple[ScanFault, str]:
    with pytest.raises(CollectError) as caught:
        collect(ScanEvent(**{"scan_id": "s1", "file": str(path), **event}), settings)
    assert caught.value.remedy
    return caught.value.fault, str(caught.value)


@pytest.mark.slow
def test_a_whole_scan_is_collected(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = collect(ScanEvent("s1", str(path), energy_ev=1.005e4, frames=FRAMES), QUICK)
    assert (found.path, found.scan_id) == (path, "s1")
    assert found.statistics.frames == FRAMES
    assert found.statistics.mean_counts == pytest.approx(5 * SIZE * SIZE, rel=0.1)
    with open_scan(found.path, found.options) as scan:
        assert scan.energy_ev == 1.005e4


@pytest.mark.slow
def test_what_contradicts_itself_is_never_learnt_from(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    kind, text = fault(path, energy_ev=12_400.0)
    assert kind is ScanFault.CONTRADICTION
    assert "the energy PV says 12400 eV, but /entry/instrument/beam/incident_energy says 10000 eV" in text
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector/y_pixel_size"][()] *= 2
    kind, text = fault(path)
    assert kind is ScanFault.CONTRADICTION
    assert "y_pixel_size" in text
    assert not inspect_scan(path).sound


@pytest.mark.slow
def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.h5")[0] is ScanFault.MISSING
    assert fault(tmp_path, file="")[0] is ScanFault.MISSING


@pytest.mark.slow
def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    os.truncate(path, path.stat().st_size // 2)
    kind, text = fault(path)
    assert kind is ScanFault.TRUNCATED
    assert "cut short" in text


@pytest.mark.slow
def test_fewer_frames_than_were_taken(tmp_path: Path) -> None:
    kind, text = fault(a_file(tmp_path), frames=FRAMES + 3)
    assert kind is ScanFault.TRUNCATED
    assert "12 of 15 frames" in text


@pytest.mark.slow
def test_another_scan(tmp_path: Path) -> None:
    kind, text = fault(a_file(tmp_path, scan_id="s7"))
    assert kind is ScanFault.WRONG_SCAN
    assert "'s7'" in text
    path = tmp_path / "scan.h5"
    with h5py.File(path, "r+") as file:  # as areaDetector, whose files name no scan
        del file["entry/entry_identifier"]
    assert collect(ScanEvent("s1", str(path)), QUICK).scan_id == "s1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "kind"),
    [(None, ScanFault.NO_POSITIONS), (FRAMES + 2, ScanFault.MORE_POSITIONS), (3, ScanFault.FEWER_POSITIONS)],
)
def test_positions_that_do_not_fit(tmp_path: Path, frames: int | None, kind: ScanFault) -> None:
    path = a_file(tmp_path)
    with h5py.File(path, "r+") as file:
        attributes = file["entry/instrument/NDAttributes"]
        for name in ("PositionX", "PositionY"):
            if frames is None:
                del attributes[name]
            else:
                attributes[name].resize(frames, axis=0)
    assert fault(path)[0] is kind


@pytest.mark.slow
def test_dark_and_saturated_frames(tmp_path: Path) -> None:
    counts = a_scan().counts
    counts[2:5] = 0
    kind, text = fault(a_file(tmp_path, counts=counts))
    assert kind is ScanFault.DARK
    assert "3 of 12 frames have no counts" in text
    counts = a_scan().counts
    counts[:, 0, 0] = 65535  # dead
    assert collect(ScanEvent("s1", str(a_file(tmp_path, counts=counts))), QUICK).statistics.dead_pixels == 1
    counts[3:5, 8:10, 8] = 65535
    kind, text = fault(a_file(tmp_path, counts=counts))
    assert kind is ScanFault.SATURATED
    assert "2 of 12 frames are saturated" in text


@pytest.mark.slow
def test_what_is_no_scan_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    path.write_text("not HDF5")
    assert fault(path)[0] is ScanFault.UNREADABLE
    with h5py.File(path, "w") as file:
        file["other"] = 1
    assert fault(path)[0] is ScanFault.UNREADABLE
    path.write_bytes(b"")
    assert fault(path)[0] is ScanFault.UNCLOSED


# ---------------------------------------------------------------- files that grow

WRITER = """
import sys, time
import h5py, numpy as np
path, swmr, lock = sys.argv[1], sys.argv[2] == "swmr", sys.argv[3] == "lock"
with h5py.File(path, "w", libver="latest" if swmr else None, locking=lock) as file:
    data = file.create_dataset("entry/data/data", (0, 16, 16), "u2", maxshape=(None, 16, 16), chunks=(1, 16, 16))
    file["entry/entry_identifier"] = "s1"
    columns = [file.create_dataset(f"entry/instrument/NDAttributes/Position{axis}", (0,), "f8", maxshape=(None,),
               chunks=(64,)) for axis in "XY"]
    if swmr:
        file.swmr_mode = True
    for line in sys.stdin:
        if line.strip() == "close":
            break
        for _ in range(int(line)):
            frame = len(data)
            data.resize(frame + 1, axis=0)
            data[frame] = frame + 1
            for column in columns:
                column.resize(frame + 1, axis=0)
                column[frame] = frame * 1e-8
        file.flush()
        print("written", len(data), flush=True)
print("closed", flush=True)
"""
OPTIONS = ScanOptions(energy_ev=1e4, distance_m=1.0, detector_pixel_m=1e-4)
WRITERS = [("plain", "lock"), ("swmr", "lock"), ("plain", "no lock"), ("swmr", "no lock")]


@contextmanager
def writer(path: Path, *how: str) -> Iterator[Any]:
    """A process that writes as it is told; the function it yields tells it, and waits for the answer."""
    words = [sys.executable, "-c", WRITER, str(path), *how]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def tell(order: str) -> str:
            process.stdin.write(order + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        tell.process = process  # type: ignore[attr-defined]
        try:
            yield tell
        finally:
            process.kill()


@pytest.mark.server
@pytest.mark.parametrize("how", WRITERS)
def test_a_growing_file_is_waited_for(tmp_path: Path, how: tuple[str, str]) -> None:
    path = tmp_path / "scan.h5"
    quiet_s = 0.3 if how[1] == "lock" else 3.0  # without a lock nothing else tells
    settings = PATIENT.model_copy(update={"scan": OPTIONS, "quiet_s": quiet_s})
    found: list[Any] = []
    with writer(path, *how) as tell:
        tell("5")
        thread = threading.Thread(target=lambda: found.append(collect(ScanEvent("s1", str(path)), settings)))
        thread.start()
        for _ in range(15):
            tell("2")
            thread.join(0.1)
        assert thread.is_alive()
        tell("close")
        thread.join(TIMEOUT_S)
    assert found[0].statistics.frames == 35


@pytest.mark.server
@pytest.mark.parametrize("how", WRITERS)
def test_a_file_that_grows_still_at_the_deadline(tmp_path: Path, how: tuple[str, str]) -> None:
    path = tmp_path / "scan.h5"
    settings = QUICK.model_copy(update={"scan": OPTIONS, "timeout_s": 4.0, "quiet_s": 3.0})
    stop = threading.Event()
    with writer(path, *how) as tell:
        tell("5")

        def grow() -> None:
            while not stop.wait(0.1):
                tell("4")

        thread = threading.Thread(target=grow)
        thread.start()
        try:
            assert fault(path, settings)[0] is ScanFault.GROWING
        finally:
            stop.set()
            thread.join(TIMEOUT_S)


@pytest.mark.server
def test_a_file_whose_writer_died(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with writer(path, "swmr", "lock") as tell:
        tell("5")
        tell.process.kill()
        tell.process.wait()
    kind, text = fault(path)
    assert kind is ScanFault.UNCLOSED
    assert "h5clear" in text


@pytest.mark.slow
def test_a_file_that_appears_later_under_its_name(tmp_path: Path) -> None:
    made, path = a_file(tmp_path), tmp_path / "later.h5"
    threading.Timer(0.3, lambda: made.rename(path)).start()
    assert collect(ScanEvent("s1", str(path)), PATIENT).path == path


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CollectError) as caught:
        collect(ScanEvent("s1", str(tmp_path / "none.h5")), PATIENT, stop)
    assert caught.value.fault is ScanFault.MISSING


# ---------------------------------------------------------------- pure parts


def test_names_of_another_computer() -> None:
    mapping = {"D:/data": "/mnt/det", "D:/data/old/": "/mnt/old", "/beamline": "/gpfs"}
    assert local_name(r"D:\data\a\s1.h5", mapping) == "/mnt/det/a/s1.h5"
    assert local_name(r"D:\data\old\s1.h5", mapping) == "/mnt/old/s1.h5"
    assert local_name(r"D:\database\s1.h5", mapping) == r"D:\database\s1.h5"
    assert local_name("/beamline/s1.h5", mapping) == "/gpfs/s1.h5"
    assert local_name("/else/s1.h5", mapping) == "/else/s1.h5"


def test_statistics_do_not_depend_on_the_pieces() -> None:
    random = np.random.default_rng(0)
    counts = random.choice(np.array([0, 1, 255], np.uint8), (20, 6, 7), p=[0.6, 0.3, 0.1])
    counts[4] = 0
    counts[:, 2, 2] = 255
    counts[4, 2, 2] = 255
    bad = np.zeros((6, 7), bool)
    bad[0] = True
    whole = measure([counts], CheckSettings(), bad)
    assert whole == measure(np.array_split(counts, 7), CheckSettings(), bad)
    assert (whole.frames, whole.dark, whole.dead_pixels) == (20, 1, 8)
    good = counts.astype(int)[:, ~bad]
    assert whole.mean_counts == pytest.approx(np.where(good == 255, 0, good).sum(axis=1).mean())
    assert measure([], CheckSettings()) == FrameStatistics(0, 0, 0, 0, 0.0)
    judge(FrameStatistics(100, 5, 5, 0, 1.0), CheckSettings(), "")
    with pytest.raises(CollectError):
        judge(FrameStatistics(100, 6, 5, 0, 1.0), CheckSettings(), "")


def test_a_fault_survives_another_process() -> None:
    error = CollectError(ScanFault.DARK, "dark", where="a.h5", remedy="light")
    again = pickle.loads(pickle.dumps(error))
    assert (again.fault, str(again)) == (ScanFault.DARK, str(error))


# ---------------------------------------------------------------- without a shared disk


@pytest.mark.server
def test_a_stream_is_recorded_by_a_child_and_collected(tmp_path: Path) -> None:
    scan_file = a_file(tmp_path)
    template = str(tmp_path / "recordings" / "{scan}.h5")
    arguments = ("--energy-ev", "1e4", "--distance-m", "1", "--detector-pixel-m", "1e-4")
    recorder_settings = StreamRecorderSettings(
        channel="t:Image", template=template, arguments=arguments, log=tmp_path / "log"
    )
    settings = PATIENT.model_copy(update={"recordings": template})
    with EpicsEnv() as env, stream_recorder(recorder_settings, env.env) as recorder:
        words = (sys.executable, "-m", "ptychostream", "replay", str(scan_file), "--pv", "t:Image", "--rate", "100")
        with env.start(*words, "--wait-for-client", env=env.server_env()) as replay:
            found = collect(ScanEvent("s1", frames=FRAMES), settings)
            assert replay.wait(TIMEOUT_S) == 0, replay.output
        assert recorder.check()
        with open_scan(found.path) as scan, open_scan(scan_file) as sent:
            np.testing.assert_array_equal(scan.counts[:], sent.counts[:])
            np.testing.assert_allclose(scan.positions_m, sent.positions_m)
        assert recorder.program is not None
        recorder.program.kill()
        wait_until(lambda: recorder.check() and recorder.restarts == 1, TIMEOUT_S, "the recording again")
    assert recorder.program is None
    assert file_of(ScanEvent("s1"), settings).name == "s1.h5"
