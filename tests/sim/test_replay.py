"""Replay and the simulated beamline as processes, seen by independent clients."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from folders import HELPERS
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychostream.cli.main import main
from ptychostream.errors import ConfigError, StreamError
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.sim.beamline import next_scan_number
from ptychostream.sim.replay.detector import convert
from ptychostream.sim.replay.replay import Replay, check_codec, scan_ids

pytestmark = pytest.mark.server

CHANNEL = "t:Image"
GATE = "t:gate"
FRAMES = 120
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def scan() -> Scan:
    random = np.random.default_rng(1)
    counts = random.poisson(3, (FRAMES, 24, 32)).astype(np.uint16)
    counts[:, 3, 5] = 65535
    return Scan("s247", counts, random.normal(0, 1e-6, (FRAMES, 2)), 10e3, 0.9, 75e-6)


@pytest.fixture(scope="module")
def scan_file(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    write_scan(path, scan)
    return path


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as environment:
        yield environment


@contextmanager
def gate(env: EpicsEnv) -> Iterator[Callable[[], None]]:
    """A PV that a stream waits for; the yielded function opens it."""
    pv = SharedPV(nt=NTScalar("i"), initial=0)
    with Server(providers=[{GATE: pv}], conf=env.epics, useenv=False):
        yield lambda: pv.post(1)


@contextmanager
def recording(env: EpicsEnv, path: Path, count: int) -> Iterator[Process]:
    script = HELPERS / "stream_recorder.py"
    with env.start(sys.executable, str(script), CHANNEL, str(path), str(count)) as recorder:
        yield recorder


def replaying(env: EpicsEnv, path: Path, *arguments: str) -> Process:
    words = (sys.executable, "-m", "ptychostream", "replay", str(path), "--pv", CHANNEL, *arguments)
    return env.start(*words, env=env.server_env())


def subscribed(recorder: Process) -> bool:
    assert recorder.popen.poll() is None, recorder.output
    return "subscribed" in recorder.output


def record(env: EpicsEnv, source: Path, target: Path, count: int, *arguments: str) -> tuple[Any, dict[str, Any]]:
    """Replay `source` to a recorder that is subscribed before the first frame; the record and replay's summary."""
    with (
        gate(env) as open_gate,
        recording(env, target, count) as recorder,
        replaying(env, source, "--wait-for", GATE, "--json", *arguments) as replay,
    ):
        wait_until(lambda: subscribed(recorder), TIMEOUT_S, lambda: "the recorder: " + replay.output)
        open_gate()
        assert replay.wait(TIMEOUT_S) == 0, replay.output
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        return np.load(target), json.loads(replay.output.splitlines()[-1])


# ---------------------------------------------------------------- replay


@pytest.mark.parametrize("codec", ["none", "bslz4"])
def test_a_pvapy_client_gets_every_frame_in_order(
    env: EpicsEnv, scan: Scan, scan_file: Path, tmp_path: Path, codec: str
) -> None:
    got, summary = record(
        env, scan_file, tmp_path / "got.npz", FRAMES, "--rate", "300", "--codec", codec, "--position-unit", "nm"
    )
    np.testing.assert_array_equal(got["ids"], np.arange(FRAMES))
    np.testing.assert_array_equal(got["counts"], scan.counts)
    assert got["counts"].dtype == np.uint16
    np.testing.assert_allclose(got["positions"] * 1e-9, scan.positions_m, rtol=1e-9)
    np.testing.assert_array_equal(got["complete"], [0] * (FRAMES - 1) + [1])
    assert set(got["scan_ids"]) == {"s247"}
    assert set(got["codecs"]) == {"" if codec == "none" else codec}
    assert summary["sent"] == FRAMES
    assert summary["scans"][0]["scan_id"] == "s247"
    # stamped as they leave, on schedule: never early
    times = got["times"] - got["times"][0]
    assert (np.diff(times) > 0).all()
    assert times[-1] > (FRAMES - 1) / 300 * 0.98 - 0.2
    assert (got["late"] > -0.01).all()


def test_passes_are_scans_of_their_own_in_another_type(
    env: EpicsEnv, scan: Scan, scan_file: Path, tmp_path: Path
) -> None:
    got, summary = record(
        env,
        scan_file,
        tmp_path / "got.npz",
        2 * FRAMES,
        *("--rate", "20000", "--loop", "2", "--scan-id", "x", "--dtype", "uint32"),
    )
    np.testing.assert_array_equal(got["ids"], [*range(FRAMES)] * 2)
    np.testing.assert_array_equal(got["scan_ids"], ["x-1"] * FRAMES + ["x-2"] * FRAMES)
    assert np.flatnonzero(got["complete"]).tolist() == [FRAMES - 1, 2 * FRAMES - 1]
    assert got["counts"].dtype == np.uint32
    assert (got["counts"][:, 3, 5] == 2**32 - 1).all()  # dead stays marked
    good = np.ones((24, 32), bool)
    good[3, 5] = False
    np.testing.assert_array_equal(got["counts"][:FRAMES, good], scan.counts[:, good])
    assert [one["sent"] for one in summary["scans"]] == [FRAMES, FRAMES]


def test_a_client_that_is_slow_gets_every_frame_before_replay_ends(env: EpicsEnv, tmp_path: Path) -> None:
    counts = np.random.default_rng(2).integers(0, 60_000, (200, 256, 256), np.uint16)  # more than sockets hold
    write_scan(tmp_path / "big.h5", Scan("big", counts, np.zeros((200, 2)), 10e3, 0.9, 75e-6), codec="none")
    with (
        gate(env) as open_gate,
        recording(env, tmp_path / "got.npz", 200) as recorder,
        replaying(env, tmp_path / "big.h5", "--wait-for", GATE, "--rate", "10000") as replay,
    ):
        wait_until(lambda: subscribed(recorder), TIMEOUT_S, lambda: replay.output)
        recorder.popen.send_signal(signal.SIGSTOP)
        open_gate()
        with pytest.raises(subprocess.TimeoutExpired):  # it has long sent all that it can
            replay.wait(4)
        recorder.popen.send_signal(signal.SIGCONT)
        assert replay.wait(TIMEOUT_S) == 0, replay.output
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
    np.testing.assert_array_equal(np.load(tmp_path / "got.npz")["counts"], counts)


def test_a_p4p_client_gets_every_frame(env: EpicsEnv, scan: Scan, scan_file: Path) -> None:
    updates: queue.Queue[Any] = queue.Queue()
    request = "record[queueSize=1000]field()"
    with gate(env) as open_gate, replaying(env, scan_file, "--rate", "200", "--wait-for", GATE) as replay:
        subscription = env.pva.monitor(CHANNEL, updates.put, request=request)
        empty = updates.get(timeout=TIMEOUT_S)
        assert len(empty.dimension) == 0
        open_gate()
        for index in range(FRAMES):
            value = updates.get(timeout=TIMEOUT_S)
            assert value.uniqueId == index
            columns, rows = (dimension.size for dimension in value.dimension)
            np.testing.assert_array_equal(np.reshape(value.value, (rows, columns)), scan.counts[index])
            attributes = {attribute.name: attribute.value for attribute in value.attribute}
            np.testing.assert_allclose([attributes["PositionX"], attributes["PositionY"]], scan.positions_m[index])
            assert attributes["ScanComplete"] == int(index == FRAMES - 1)
        assert replay.wait(TIMEOUT_S) == 0, replay.output
        subscription.close()
        assert f"serving {CHANNEL}: {FRAMES} frames of 24×32 uint16 raw, 200 frames/s, positions in m" in replay.output
        assert f"s247: {FRAMES} frames in" in replay.output


def test_nothing_is_sent_before_any_client_has_subscribed(env: EpicsEnv, scan_file: Path, tmp_path: Path) -> None:
    with replaying(env, scan_file, "--rate", "100", "--wait-for-client") as replay:
        wait_until(lambda: "serving" in replay.output, TIMEOUT_S, lambda: replay.output)
        with pytest.raises(subprocess.TimeoutExpired):
            replay.wait(1.5)  # the whole scan would take 1.2 s
        with recording(env, tmp_path / "got.npz", FRAMES) as recorder:
            assert replay.wait(TIMEOUT_S) == 0, replay.output
            recorder.stop()
    assert np.load(tmp_path / "got.npz")["ids"].tolist() == list(range(FRAMES))


def test_waiting_has_an_end(env: EpicsEnv, scan_file: Path) -> None:
    with (
        replaying(env, scan_file, "--wait-for", "t:nobody", "--wait-timeout", "0.5") as for_pv,
        replaying(env, scan_file, "--wait-for-client", "--wait-timeout", "0.5", "--pv", "t:other") as for_client,
    ):
        assert for_pv.wait(TIMEOUT_S) == for_client.wait(TIMEOUT_S) == 2
        assert "t:nobody: not 1 within 0.5 s" in for_pv.output
        assert "no client subscribed within 0.5 s" in for_client.output


def test_a_stop_ends_a_replay_that_repeats(env: EpicsEnv, scan_file: Path) -> None:
    with replaying(env, scan_file, "--rate", "500", "--repeat", "--json") as replay:
        wait_until(lambda: "serving" in replay.output, TIMEOUT_S, lambda: replay.output)
        assert replay.stop(signal.SIGTERM) == 0, replay.output
        assert json.loads(replay.output.splitlines()[-1])["channel"] == CHANNEL


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("replay SCAN --codec zstd", "no codec 'zstd'"),
        ("replay SCAN --rate 0", "rate_hz = 0"),
        ("replay SCAN --dtype float32", "dtype"),
        ("replay FOREIGN", "neither HDF5 nor npz"),
        ("beamline --frames 0", "simulation.frames = 0"),
        ("beamline --codec zstd", "no codec 'zstd'"),
    ],
)
def test_wrong_input_is_named(
    scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    foreign = tmp_path / "scan.h5"
    foreign.write_bytes(b"nothing")
    words = [{"SCAN": str(scan_file), "FOREIGN": str(foreign)}.get(word, word) for word in command.split()]
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_codec_that_cannot_hold_the_counts_ends_the_replay(env: EpicsEnv, scan_file: Path) -> None:
    with replaying(env, scan_file, "--codec", "jpeg") as replay:
        assert replay.wait(TIMEOUT_S) == 2
        assert "jpeg" in replay.output
        assert "Traceback" not in replay.output


def test_counts_that_do_not_fit_are_not_cut() -> None:
    counts = np.array([[3, 300], [65535, 4]], np.uint16)
    with pytest.raises(StreamError, match="300 counts do not fit into uint8"):
        convert(counts, np.dtype(np.uint8))
    np.testing.assert_array_equal(convert(counts, np.dtype(np.int32)), [[3, 300], [2**31 - 1, 4]])
    with pytest.raises(StreamError, match="127 counts"):  # it would read as dead
        convert(np.array([[127, 255]], np.uint8), np.dtype(np.int8))


def test_names_of_passes_and_codecs() -> None:
    assert list(scan_ids("a", 1)) == ["a"]
    assert list(scan_ids("a", 3)) == ["a-1", "a-2", "a-3"]
    endless = scan_ids("a", 0)
    assert [next(endless), next(endless)] == ["a-1", "a-2"]
    with pytest.raises(ConfigError, match="bslz4"):
        check_codec("gzip")
    assert Replay().codec == ""


# ---------------------------------------------------------------- the beamline


@contextmanager
def beamline(env: EpicsEnv, *arguments: str) -> Iterator[Process]:
    words = (sys.executable, "-m", "ptychostream", "beamline", "--prefix", "t:", "--pv", CHANNEL, *arguments)
    with env.start(*words, env=env.server_env()) as process:
        wait_until(lambda: "serving" in process.output, TIMEOUT_S, lambda: process.output)
        yield process


def test_a_scan_on_command_streams_and_leaves_the_same_in_its_file(env: EpicsEnv, tmp_path: Path) -> None:
    arguments = [
        "--sample",
        "letters",
        "--frames",
        "60",
        "--rate",
        "300",
        "--dose",
        "1e5",
        "--dead",
        "2",
        "--step",
        "80",
    ]
    arguments += ["--codec", "bslz4", "--save", str(tmp_path / "data"), "--wait-for", GATE]
    with (
        gate(env) as open_gate,
        recording(env, tmp_path / "got.npz", 60) as recorder,
        beamline(env, *arguments) as process,
    ):
        assert env.caget("t:Complete_RBV") == env.caget("t:Busy_RBV") == 0
        assert env.caget("t:ImagePVAName_RBV") == CHANNEL
        assert (env.caget("t:Frames"), env.caget("t:Step")) == (60, 80)
        wait_until(lambda: subscribed(recorder), TIMEOUT_S, lambda: process.output)
        env.caput("t:Start", 1)
        wait_until(lambda: env.caget("t:State_RBV") == 2, TIMEOUT_S, "waiting for the gate")
        assert env.caget("t:Busy_RBV") == 1
        assert env.caget("t:Complete_RBV") == 0
        x_um = np.array(env.caget("t:PositionX_RBV"))[:60]
        open_gate()
        wait_until(lambda: env.caget("t:Complete_RBV") == 1, TIMEOUT_S, lambda: process.output)
        assert recorder.wait(TIMEOUT_S) == 0, recorder.output
        assert env.caget("t:Busy_RBV") == env.caget("t:State_RBV") == env.caget("t:Start") == 0
        assert env.caget("t:ScanID_RBV") == "letters_0001"
        assert env.caget("t:FramesSent_RBV") == 60
        file_name = env.caget("t:FullFileName_RBV.VAL$")
        assert env.pvget("t:FullFileName_RBV").value == file_name
        assert process.stop(signal.SIGTERM) == 0, process.output
    got = np.load(tmp_path / "got.npz")
    with open_scan(file_name) as scan:
        assert scan.scan_id == "letters_0001"
        np.testing.assert_array_equal(scan.counts[:], got["counts"])
        np.testing.assert_array_equal(scan.frame_ids, got["ids"])
        np.testing.assert_allclose(scan.times, got["times"], atol=1e-6)
        np.testing.assert_allclose(scan.positions_m, got["positions"])
        np.testing.assert_allclose(scan.positions_m[:, 0] * 1e6, x_um)
        assert scan.bad_pixels is not None
        assert scan.bad_pixels.sum() == 2
    truth = read_reconstruction(tmp_path / "data" / "letters_0001_truth.h5")
    np.testing.assert_allclose(truth.positions_m, scan.positions_m)
    with pytest.raises(TimeoutError):  # its IOC went with it
        env.caget("t:Busy_RBV", timeout=0.5)


def test_setpoints_change_the_next_scan_and_an_abort_ends_one(env: EpicsEnv, tmp_path: Path) -> None:
    with beamline(env, "--frames", "50", "--rate", "1000", "--save", str(tmp_path)) as process:
        env.caput("t:Frames", 20)
        env.caput("t:Start", 1)
        wait_until(lambda: env.caget("t:Complete_RBV") == 1, TIMEOUT_S, lambda: process.output)
        assert env.caget("t:FramesSent_RBV") == 20
        env.caput("t:FrameRate", 2)
        env.caput("t:Start", 1)
        wait_until(lambda: env.caget("t:State_RBV") == 3, TIMEOUT_S, lambda: process.output)
        env.caput("t:Abort", 1)
        wait_until(lambda: env.caget("t:Busy_RBV") == 0, TIMEOUT_S, lambda: process.output)
        assert env.caget("t:State_RBV") == 5
        assert env.caget("t:Complete_RBV") == env.caget("t:Abort") == 0
        sent = env.caget("t:FramesSent_RBV")
        assert sent < 20
        assert f"{sent} of 20 frames" in env.caget("t:Message_RBV.VAL$")
        env.caput("t:FrameRate", 1000)
        env.caput("t:Start", 1)
        wait_until(lambda: env.caget("t:Complete_RBV") == 1, TIMEOUT_S, lambda: process.output)
        assert env.caget("t:ScanNumber_RBV") == 3
        env.caput("t:Frames", 90_000)
        env.caput("t:Step", 10_000)
        env.caput("t:Start", 1)
        wait_until(lambda: env.caget("t:State_RBV") == 6 and env.caget("t:Busy_RBV") == 0, TIMEOUT_S, "the refusal")
        assert process.popen.poll() is None
    names = {path.name for path in tmp_path.glob("*.h5")}
    assert {"shapes_0001.h5", "shapes_0003.h5"} <= names


def test_autostart_takes_its_scans_and_ends(env: EpicsEnv, tmp_path: Path) -> None:
    words = ["--autostart", "--scans", "2", "--frames", "10", "--rate", "500", "--save", str(tmp_path), "--json"]
    with beamline(env, *words) as process:
        assert process.wait(TIMEOUT_S) == 0, process.output
        assert json.loads(process.output.splitlines()[-1])["complete"] == 2
    with open_scan(tmp_path / "shapes_0001.h5") as first, open_scan(tmp_path / "shapes_0002.h5") as second:
        assert not np.array_equal(first.counts[:], second.counts[:])
    objects = [read_reconstruction(tmp_path / f"shapes_000{number}_truth.h5").object for number in (1, 2)]
    assert np.abs(objects[0] - objects[1]).mean() > 0.1
    assert next_scan_number(tmp_path) == 3
