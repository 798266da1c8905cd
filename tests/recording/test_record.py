"""`ptychostream record` as a process, fed by a detector in another; and the sorting of frames into scans."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from folders import HELPERS
from p4p import Type, Value
from p4p.nt import NTScalar, NTTable
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychostream.cli.main import main
from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, DropCause, FrameError, ScanFileError
from ptychostream.frames.codecs import compress
from ptychostream.frames.intake import Intake
from ptychostream.positions.positions import AttributePositions
from ptychostream.pva.ntndarray import build
from ptychostream.pva.reading import RawPayload
from ptychostream.recording.record_metadata import MetadataSettings
from ptychostream.recording.record_scans import ScanRules, ScanSorter
from ptychostream.scans.file_names import FileNames
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_recording import ScanRecording, recover

pytestmark = pytest.mark.server

CHANNEL = "t:Image"
TIMEOUT_S = 60.0
GEOMETRY = ScanOptions(energy_ev=1e4, distance_m=1e-2, detector_pixel_m=1e-4)
SIZE = 16


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as environment:
        yield environment


@contextmanager
def recording(env: EpicsEnv, file: Path, *arguments: str) -> Iterator[Process]:
    words = (sys.executable, "-m", "ptychostream", "record", CHANNEL, str(file), "--json", *arguments)
    with env.start(*words) as process:
        yield process


class Detector:
    """`scripted_detector.py`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._orders = 0

    def send(self, scan: str, count: int, *, wait: bool = True, **order: Any) -> None:
        assert self._process.popen.stdin is not None
        line = json.dumps({"scan": scan, "count": count, **order}) + "\n"
        self._process.popen.stdin.write(line.encode())
        self._process.popen.stdin.flush()
        self._orders += 1
        if wait:
            wait_until(lambda: self._process.output.count("sent") >= self._orders, TIMEOUT_S, self._output)

    def _output(self) -> str:
        return self._process.output


@contextmanager
def detector(env: EpicsEnv, recorder: Process) -> Iterator[Detector]:
    """One that `recorder` has subscribed to."""
    script = HELPERS / "scripted_detector.py"
    with env.start(sys.executable, str(script), CHANNEL, env=env.server_env()) as process:
        wait_until(lambda: f"{CHANNEL} connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        yield Detector(process)
        if process.popen.stdin:
            process.popen.stdin.close()
        process.wait(TIMEOUT_S)


def summary(process: Process) -> dict[str, Any]:
    found: dict[str, Any] = json.loads([line for line in process.output.splitlines() if line.startswith("{")][-1])
    return found


def check_scan(path: Path, count: int, value: int) -> None:
    with open_scan(path, GEOMETRY) as scan:
        assert len(scan) == count
        assert (scan.counts[:] == value).all()
        assert scan.counts.dtype == np.uint16
        step = 4 * 10e-9
        np.testing.assert_allclose(scan.positions_m[:, 0], np.arange(count) % 5 * step)
        np.testing.assert_allclose(scan.positions_m[:, 1], np.arange(count) // 5 * step)
        assert scan.frame_ids is not None
        np.testing.assert_array_equal(np.diff(scan.frame_ids), 1)


@pytest.mark.server
@pytest.mark.parametrize("codec", ["", "bslz4"])
def test_scans_go_to_files_of_their_own(env: EpicsEnv, tmp_path: Path, codec: str) -> None:
    words = ("--scans", "3", "--energy-ev", "9000", "--distance-m", "0.2", "--detector-pixel-m", "55e-6")
    with recording(env, tmp_path / "{scan}.h5", *words) as recorder, detector(env, recorder) as source:
        source.send("one", 30, value=1, codec=codec)
        source.send("t/wo", 20, value=2, codec=codec)
        source.send("one", 10, value=3, codec=codec, attributes={"ScanComplete": 0})
        source.send("one", 1, value=3, codec=codec, first=11, attributes={"ScanComplete": 1})
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["one-2.h5", "one.h5", "t_wo.h5"]
    check_scan(tmp_path / "one.h5", 30, 1)
    check_scan(tmp_path / "t_wo.h5", 20, 2)
    with open_scan(tmp_path / "one-2.h5") as scan:
        assert (len(scan), scan.scan_id, scan.energy_ev, scan.distance_m) == (11, "one", 9e3, 0.2)


@pytest.mark.server
def test_frames_that_are_asked_for_and_the_summary(env: EpicsEnv, tmp_path: Path) -> None:
    with recording(env, tmp_path / "a.h5", "--frames", "25") as recorder, detector(env, recorder) as source:
        source.send("s", 40, value=5)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        told = summary(recorder)
    assert told["written"] == 25
    assert told["lost"] == told["missed"] == told["unwritten"] == told["without_position"] == 0
    assert told["received"] == 25 + told["beyond"]
    assert told["files"][0] | {"bytes": 0} == {
        "path": str(tmp_path / "a.h5"), "scan_id": "s", "frames": 25, "missed": 0, "without_position": 0, "bytes": 0,
        "finished": True,
    }  # fmt: skip
    check_scan(tmp_path / "a.h5", 25, 5)


@pytest.mark.server
def test_what_is_killed_stays_readable_and_is_recovered(env: EpicsEnv, tmp_path: Path) -> None:
    partial = tmp_path / "s.h5.partial"
    words = ("--codec", "none")  # so that the file's size tells
    with recording(env, tmp_path / "{scan}.h5", *words) as recorder, detector(env, recorder) as source:
        source.send("s", 1000, value=7, rate=300, wait=False)
        wait_until(lambda: partial.exists() and partial.stat().st_size > 200_000, TIMEOUT_S, lambda: recorder.output)
        recorder.popen.send_signal(signal.SIGKILL)
        assert recorder.wait(TIMEOUT_S) == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("*.h5")] == []
    with open_scan(partial, GEOMETRY) as scan:
        frames = len(scan)
    assert 0 < frames < 1000
    assert main(["record", "--recover", str(partial)]) == 0
    check_scan(tmp_path / "s.h5", frames, 7)
    assert main(["record", "--recover", str(partial)]) == 2


@pytest.mark.server
def test_a_stop_leaves_a_finished_file(env: EpicsEnv, tmp_path: Path) -> None:
    with recording(env, tmp_path / "{scan}.h5") as recorder, detector(env, recorder) as source:
        source.send("s", 50, value=7)
        assert recorder.stop(signal.SIGINT) == 0, recorder.output
    check_scan(tmp_path / "s.h5", 50, 7)


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from ptychostream.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.server
def test_a_full_disk_ends_the_recording_and_everything_is_counted(env: EpicsEnv, tmp_path: Path) -> None:
    words = [sys.executable, "-c", FULL_DISK, "record", CHANNEL, str(tmp_path / "{scan}.h5")]
    words += ["--json", "--codec", "none"]
    with env.start(*words) as recorder, detector(env, recorder) as source:
        source.send("s", 1000, value=7, rate=250, wait=False)
        assert recorder.wait(TIMEOUT_S) == 2, recorder.output
        output, told = recorder.output, summary(recorder)
    assert "cannot be written after" in output
    assert "Traceback" not in output
    assert told["received"] == told["written"] + told["unwritten"] + sum(told["dropped"].values())
    assert told["unwritten"] > 0
    assert told["error"] is not None
    assert not told["files"][0]["finished"]
    with open_scan(tmp_path / "s.h5.partial", GEOMETRY) as scan:
        assert len(scan) == told["written"] == told["files"][0]["frames"] > 0
        assert (scan.counts[len(scan) - 1] == 7).all()


@pytest.mark.server
def test_energy_and_more_from_pvs(env: EpicsEnv, tmp_path: Path) -> None:
    pvs = {
        "t:Energy": SharedPV(nt=NTScalar("d"), initial=8.8),
        "t:Sample": SharedPV(nt=NTScalar("s"), initial="gold"),
    }
    words = ("--frames", "5", "--energy-pv", "t:Energy", "--energy-unit", "keV", "--pv", "sample=t:Sample")
    words += ("--pv", "absent=t:Absent", "--attribute", "Ring")
    conf = {**env.epics, "EPICS_PVAS_SERVER_PORT": "0"}
    with (
        Server(providers=[pvs], conf=conf, useenv=False),
        recording(env, tmp_path / "a.h5", *words) as recorder,
        detector(env, recorder) as source,
    ):
        source.send("s", 5, value=1, attributes={"Ring": 101.5})
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        assert "t:Absent was not read" in recorder.output
    with open_scan(tmp_path / "a.h5", ScanOptions(distance_m=1e-2, detector_pixel_m=1e-4)) as scan:
        assert scan.energy_ev == pytest.approx(8800)
        assert scan.metadata["sample"] == "gold"
        assert "absent" not in scan.metadata
        np.testing.assert_array_equal(scan.metadata["attributes"]["Ring"], 101.5)


@pytest.mark.server
def test_electrons_are_recorded_as_electrons(env: EpicsEnv, tmp_path: Path) -> None:
    words = ("--frames", "5", "--kv", "300", "--mrad-per-pixel", "0.07")
    with recording(env, tmp_path / "a.h5", *words) as recorder, detector(env, recorder) as source:
        source.send("s", 5, value=1)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    with open_scan(tmp_path / "a.h5") as scan:
        assert (scan.radiation, scan.energy_ev) == ("electron", 300e3)
        assert scan.detector_pixel_m / scan.distance_m == pytest.approx(0.07e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"radiation": "electron", "energy_ev": 300.0}, "300 V electrons"),
        ({"energy_ev": 300e3}, "300 keV photons"),
        ({"radiation": "photon", "energy_unit": "kV"}, "radiation says photon"),
        ({"pattern_pixel_rad": 1e-5, "distance_m": 1.0}, "leave out distance_m"),
    ],
)
def test_a_beam_that_cannot_be_meant_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_settings(MetadataSettings, None, values)


def test_the_unit_of_an_accelerating_voltage_says_electrons() -> None:
    assert MetadataSettings(energy_unit="kV", energy_pv="x").beam == "electron"
    assert MetadataSettings(energy_unit="keV", energy_pv="x").beam == "photon"


@pytest.mark.server
def test_metadata_over_channel_access(env: EpicsEnv, tmp_path: Path) -> None:
    database = tmp_path / "beamline.db"
    database.write_text(
        'record(ai, "ca:Energy") { field(VAL, "8.8") field(PINI, "YES") }\n'
        'record(stringin, "ca:Sample") { field(VAL, "gold") }\n'
        'record(bi, "ca:Shutter") { field(ZNAM, "Shut") field(ONAM, "Open") field(VAL, "1") }\n'
        'record(waveform, "ca:Axes") { field(FTVL, "DOUBLE") field(NELM, "3") }\n',
        encoding="ascii",
    )
    with env.start(sys.executable, "-m", "pvxslibs.ioc", "-d", str(database), env=env.server_env()):
        wait_until(lambda: env.caget("ca:Energy"), TIMEOUT_S, "the beamline's records")
        env.caput("ca:Axes", [1.0, 2.0])
        pvs = {"Sample": "ca://ca:Sample", "Shutter": "ca://ca:Shutter", "Axes": "ca://ca:Axes", "Absent": "ca://ca:No"}
        both = {"Over PVA": "ca:Sample", "Over PVA, an enumeration": "ca:Shutter"}
        settings = MetadataSettings(energy_pv="ca://ca:Energy", energy_unit="keV", pvs={**pvs, **both}, timeout_s=5)
        with env.active():
            geometry, metadata = settings.read()
    assert geometry["energy_ev"] == pytest.approx(8800)
    assert metadata == {
        "Sample": "gold", "Shutter": "Open", "Axes": [1.0, 2.0], "Over PVA": "gold", "Over PVA, an enumeration": "Open",
    }  # fmt: skip
    assert {type(value) for value in metadata.values()} == {str, list}  # aioca's own types do not leave the module


def test_a_text_attribute_ends_a_scan(env: EpicsEnv, tmp_path: Path) -> None:
    with recording(env, tmp_path / "a.h5", "--scans", "1") as recorder, detector(env, recorder) as source:
        source.send("s", 3, value=1, attributes={"ScanComplete": "false"})
        source.send("s", 1, value=1, first=4, attributes={"ScanComplete": "true"})
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    with open_scan(tmp_path / "a.h5", GEOMETRY) as scan:
        assert len(scan) == 4


@pytest.mark.server
def test_waveforms_that_come_after_the_frames(env: EpicsEnv, tmp_path: Path) -> None:
    x, y = (SharedPV(nt=NTScalar("ad"), initial=[]) for _ in "xy")
    words = ("--scans", "2", "--positions", "waveform", "--x", "t:X", "--y", "t:Y", "--position-unit", "um")
    words += ("--first-id", "1", "--position-wait", "30")
    with (
        Server(providers=[{"t:X": x, "t:Y": y}], conf=env.epics, useenv=False),
        recording(env, tmp_path / "{scan}.h5", *words) as recorder,
        detector(env, recorder) as source,
    ):
        end = {"ScanComplete": 1}
        source.send("a", 3, value=1)
        source.send("a", 1, value=1, first=4, attributes=end)
        wait_until(lambda: (tmp_path / "a.h5.partial").exists(), TIMEOUT_S, lambda: recorder.output)
        x.post([1.0, 2.0])
        y.post([5.0, 6.0])
        x.post([1.0, 2.0, 3.0, 4.0])
        y.post([5.0, 6.0, 7.0, 8.0])
        wait_until(lambda: (tmp_path / "a.h5").exists(), TIMEOUT_S, lambda: recorder.output)
        source.send("b", 1, value=1)  # whose positions must not be those of a
        source.send("b", 1, value=1, first=2, attributes=end)
        y.post([0.5, 0.6])
        x.post([0.1, 0.2])
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    with open_scan(tmp_path / "a.h5", GEOMETRY) as scan:
        np.testing.assert_allclose(scan.positions_m * 1e6, [[1, 5], [2, 6], [3, 7], [4, 8]])
    with open_scan(tmp_path / "b.h5", GEOMETRY) as scan:
        np.testing.assert_allclose(scan.positions_m * 1e6, [[0.1, 0.5], [0.2, 0.6]])


@pytest.mark.server
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("t:nobody {}/a.h5 --timeout 0.3", "no frame within 0.3 s"),
        ("t:nobody", "CHANNEL and FILE"),
        ("t:nobody a{{x}}.h5", "not a file name"),
        (f"t:nobody {__file__}", "exists already"),
        ("t:nobody a.h5 --codec jpeg", "codec"),
        ("t:nobody a.h5 --frames 0", "frames = 0"),
        ("t:nobody a.h5 --pv nothing", "not NAME=PV"),
        ("t:nobody a.h5 --positions waveform", "--x and --y"),
        ("t:nobody a.h5 --positions route", "--route"),
        ("t:nobody a.h5 --positions stream", "--position-pv"),
        ("--recover {}/none.h5.partial", "not a partial recording"),
    ],
)
def test_wrong_input_is_named(
    env: EpicsEnv, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    with env.active():
        assert main(["record", *words.format(tmp_path).split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.server
def test_positions_from_a_stream_of_samples(env: EpicsEnv, tmp_path: Path) -> None:
    began = time.time() - 5
    samples = NTTable([("time", "d"), ("x", "d"), ("y", "d")])
    grid = np.arange(0, 120, 0.01)
    table = {"time": began + grid, "x": grid, "y": -2 * grid}
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    pv = SharedPV(initial=samples.wrap(rows))
    words = ("--frames", "20", "--positions", "stream", "--position-pv", "t:Samples", "--position-unit", "um")
    with (
        Server(providers=[{"t:Samples": pv}], conf=env.epics, useenv=False),
        recording(env, tmp_path / "a.h5", *words) as recorder,
        detector(env, recorder) as source,
    ):
        wait_until(lambda: "t:Samples connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        source.send("s", 20, value=1, rate=100)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    with open_scan(tmp_path / "a.h5", GEOMETRY) as scan:
        assert scan.times is not None
        np.testing.assert_allclose(scan.positions_m[:, 0], (scan.times - began) * 1e-6, atol=1e-11)
        np.testing.assert_allclose(scan.positions_m[:, 1], -2 * scan.positions_m[:, 0], atol=1e-11)


@pytest.mark.server
def test_positions_by_index(env: EpicsEnv, tmp_path: Path) -> None:
    kind = Type([("index", "l"), ("x", "ad"), ("y", "ad")])
    pv = SharedPV(initial=Value(kind, {"index": 0, "x": [], "y": []}))
    words = ("--frames", "40", "--positions", "index", "--position-pv", "t:Index", "--position-unit", "um")
    with (
        Server(providers=[{"t:Index": pv}], conf=env.epics, useenv=False),
        recording(env, tmp_path / "a.h5", *words, "--samples-per-frame", "2") as recorder,
        detector(env, recorder) as source,
    ):
        wait_until(lambda: "t:Index connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        source.send("s", 40, value=1, rate=100, first=11)
        for first in range(0, 80, 20):
            at = np.arange(first, first + 20)
            pv.post(Value(kind, {"index": first, "x": at + 0.0, "y": -2.0 * at}))
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        assert summary(recorder)["without_position"] == 0
    with open_scan(tmp_path / "a.h5", geometry=False) as scan:
        np.testing.assert_allclose(scan.positions_m[:, 0], (2 * np.arange(40) + 0.5) * 1e-6, atol=1e-12)
        np.testing.assert_allclose(scan.positions_m[:, 1], -2 * scan.positions_m[:, 0], atol=1e-12)


@pytest.mark.server
def test_one_kind_of_frame_is_recorded(env: EpicsEnv, tmp_path: Path) -> None:
    words = ("--seconds", "8", "--select-attribute", "Threshold", "--select-value", "1")
    with recording(env, tmp_path / "a.h5", *words) as recorder, detector(env, recorder) as source:
        for number in range(6):
            source.send("s", 1, value=1 + number % 2, first=1 + number, attributes={"Threshold": 1 + number % 2})
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        told = summary(recorder)
    assert (told["written"], told["dropped"], told["lost"]) == (3, {"Unselected": 3}, 0)
    with open_scan(tmp_path / "a.h5", geometry=False) as scan:
        assert (scan.counts[:] == 1).all()


@pytest.mark.server
def test_frames_that_are_not_wanted_do_not_decide_the_file(env: EpicsEnv, tmp_path: Path) -> None:
    """The unwanted kind comes first, and has another shape and type."""
    words = ("--seconds", "8", "--select-attribute", "Threshold", "--select-value", "1")
    with recording(env, tmp_path / "a.h5", *words) as recorder, detector(env, recorder) as source:
        for number in range(6):
            kind = 2 - number % 2
            shape = {"size": 8, "dtype": "uint8"} if kind == 2 else {}
            source.send("s", 1, value=kind, first=1 + number, attributes={"Threshold": kind}, **shape)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        told = summary(recorder)
    assert (told["written"], told["dropped"], told["lost"]) == (3, {"Unselected": 3}, 0)
    with open_scan(tmp_path / "a.h5", geometry=False) as scan:
        assert (scan.counts[:] == 1).all() and scan.counts.dtype == np.uint16


def test_the_benchmark_reads_back_what_was_sent() -> None:
    words = [sys.executable, "-m", "ptychostream", "bench", "record", "--json", "--fps", "100", "--seconds", "1"]
    done = subprocess.run([*words, "--shape", "64x48", "--codec", "lz4"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["sent"] == report["received"] == report["written"] == 100
    assert report["lost"] == report["missed"] == 0
    assert report["bytes"] > 0
    assert report["cpu_cores"]["record"] > 0


# ---------------------------------------------------------------- sorting, without processes


class Sorted:
    """A `ScanSorter` and what has come of it; a frame's time is its number unless told."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        values: dict[str, Any] = {
            "intake": Intake("ScanID", "End"), "columns": (), "linger_s": 0.5, "position_wait_s": 2.0, "frames": None,
            "scans": None, **rules,
        }  # fmt: skip
        self.begun: list[ScanRecording] = []
        self.files: list[Path] = []
        positions = AttributePositions("X", "Y")
        names = FileNames(str(folder / "{scan}.h5"))
        self.sorter = ScanSorter(names, ScanRules(**values), positions, self.begun.append, self._end)
        self.received = 0

    def _end(self, scan: ScanRecording, *_: int) -> None:
        self.files.append(scan.finish({}))

    def take(
        self, scan: str, *ids: int, at: float = 0.0, end: bool = False, shape: int = 4, x: float = 0.0,
        fault: DropCause | None = None,
    ) -> None:  # fmt: skip
        counts = np.full((shape, shape), 1, np.uint16)
        chunk = compress(counts, "zlib")
        for one in ids:
            self.received += 1
            attributes = {"X": x, "Y": 0.0, "End": int(end and one == ids[-1])}
            frame = RawPayload(one, 1e9 + (at or one), counts.ravel(), "", counts.shape, counts.dtype, attributes)
            self.sorter.take(scan, frame, chunk, "zlib", 1e9, float(self.received), fault)
        self.sorter.flush()

    def frames(self) -> list[tuple[str, list[int]]]:
        self.sorter.finish()
        counts = self.sorter.counts
        assert self.received == counts.written + sum(counts.dropped.values()) + counts.beyond + counts.unwritten
        found = []
        for path in self.files:
            with open_scan(path, geometry=False) as scan:
                assert scan.frame_ids is not None
                found.append((path.stem, scan.frame_ids.tolist()))
        return found


def test_late_frames_go_to_their_own_scan_while_it_lingers(tmp_path: Path) -> None:
    run = Sorted(tmp_path)
    run.take("a", 1, 2, 4)
    run.take("b", 1, at=10)
    run.take("a", 3)  # late, in time
    run.sorter.tick(run.received + 0.4)
    run.sorter.tick(run.received + 1.0)
    run.take("a", 0)  # too late
    run.take("a", 1, 2, at=20)  # repeated under its name
    run.take("a", 2, at=20)
    assert run.frames() == [("a", [1, 2, 4, 3]), ("b", [1]), ("a-2", [1, 2])]
    assert run.sorter.counts.dropped == Counter({DropCause.LATE: 1, DropCause.DUPLICATE: 1})


def test_an_end_mark_that_overtakes_waits_for_the_others(tmp_path: Path) -> None:
    run = Sorted(tmp_path)
    run.take("a", 1, 4, end=True)
    run.sorter.tick(run.received + 0.1)
    run.take("a", 2, 3)
    run.sorter.tick(run.received + 0.1)
    assert run.files == []
    run.sorter.tick(run.received + 0.6)
    assert run.files != []
    assert run.frames() == [("a", [1, 4, 2, 3])]
    assert run.sorter.counts.missed == 0


def test_the_same_name_anew_is_another_file(tmp_path: Path) -> None:
    run = Sorted(tmp_path)
    run.take("", 1, 2, end=True)
    run.take("", 1, 2, at=30, end=False)
    assert [name for name, _ in run.frames()] == ["unnamed", "unnamed-2"]


def test_limits(tmp_path: Path) -> None:
    run = Sorted(tmp_path, frames=3)
    run.take("a", 1, 2)
    assert not run.sorter.complete
    run.take("a", 3, 4)
    assert run.sorter.complete
    assert run.frames() == [("a", [1, 2, 3])]
    assert run.sorter.counts.beyond == 1
    run = Sorted(tmp_path / "scans", scans=1)
    run.take("a", 1, 2)
    run.take("b", 1, at=9)
    run.sorter.tick(run.received + 1)
    assert run.sorter.complete
    assert run.frames() == [("a", [1, 2])]


def test_frames_that_do_not_fit_and_positions_that_are_none(tmp_path: Path) -> None:
    run = Sorted(tmp_path)
    run.take("a", 1, 2)
    run.take("a", 3, shape=5)
    run.take("a", 5, x=math.nan)
    run.received += 1
    run.sorter.refuse(FrameError(DropCause.CODEC, "bad"))
    run.sorter.finish()
    counts = run.sorter.counts
    assert counts.dropped == Counter({DropCause.SHAPE: 1, DropCause.CODEC: 1})
    assert (counts.written, counts.missed, counts.without_position, counts.lost) == (3, 1, 1, 3)
    with pytest.raises(ScanFileError, match="1 of 3 positions"), open_scan(run.files[0], GEOMETRY):
        pass


def test_a_failing_disk_is_counted(tmp_path: Path) -> None:
    run = Sorted(tmp_path)
    run.take("a", 1, 2)
    run.sorter.tick(0.0, commit=True)
    run.take("a", 3)
    files = run.sorter.abandon()
    counts = run.sorter.counts
    assert (counts.written, counts.unwritten) == (2, 1)
    assert [(one.path.name, one.frames, one.finished) for one in files] == [("a.h5.partial", 2, False)]
    assert recover(files[0].path)[1] == 2


def test_frames_with_a_fault_are_counted_and_not_written_and_their_end_counts(tmp_path: Path) -> None:
    sorted_ = Sorted(tmp_path)
    sorted_.take("a", 1, 2)
    sorted_.take("a", 3, fault=DropCause.CONTRADICTION)
    sorted_.take("a", 4)
    sorted_.take("a", 5, end=True, fault=DropCause.UNSELECTED)
    sorted_.sorter.tick(100.0)
    assert len(sorted_.files) == 1, "the scan is over"
    assert sorted_.frames() == [("a", [1, 2, 4])]
    counts = sorted_.sorter.counts
    assert (counts.missed, counts.dropped[DropCause.CONTRADICTION], counts.lost) == (0, 1, 1)


@pytest.mark.server
def test_frames_of_another_region_within_a_scan_are_not_recorded(env: EpicsEnv, tmp_path: Path) -> None:
    image = SharedPV(initial=build(np.ones((8, 8), np.uint16), 0, 1.0, {"ScanID": "old"}, descriptor="", units=""))
    with (
        Server(providers=[{CHANNEL: image}], conf=env.epics, useenv=False),
        recording(env, tmp_path / "a.h5", "--seconds", "6", "--positions", "none") as recorder,
    ):
        wait_until(lambda: f"{CHANNEL} connected" in recorder.output, TIMEOUT_S, lambda: recorder.output)
        for number in range(1, 9):
            one = build(np.ones((8, 8), np.uint16), number, time.time(), {"ScanID": "s"}, descriptor="", units="")
            offset = 4 if number in (4, 5) else 0
            one["dimension"] = [{**part.todict(), "offset": offset} for part in one["dimension"]]
            image.post(one)
            time.sleep(0.02)
        recorder.wait(TIMEOUT_S)
        told = summary(recorder)
        assert "dimension[0].offset says 4 px, but dimension[0].offset says 0 px" in recorder.output
    assert (told["written"], told["dropped"], told["missed"]) == (6, {"Contradiction": 2}, 0)
