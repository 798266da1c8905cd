"""The IOC with positions that come as a stream: a stage that the test moves, and the simulated beamline."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, free_port, wait_until
from ioc_helpers import Detector, wait_for
from p4p import Type, Value
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import canvas_part

pytestmark = pytest.mark.server

P = "ps:"
IMAGES, POSITIONS = "det:Pva1:Image", "panda:Positions"
OFFSET_S = 0.2
WAIT_S = 1.5
SPEED_M_S = 1e-6
SAMPLES = Type([("time", "ad"), ("x", "ad"), ("y", "ad")])


class Stage:
    """A stage that moves along x at a steady speed, seen by a source whose clock is ahead."""

    def __init__(self, env: EpicsEnv) -> None:
        self._env = env
        self._sent = 0.0
        self.start()

    def start(self) -> None:
        self._pv = SharedPV(initial=Value(SAMPLES))
        ports = {name: str(free_port()) for name in ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT")}
        self._server = Server(providers=[{POSITIONS: self._pv}], conf={**self._env.epics, **ports}, useenv=False)

    def stop(self) -> None:
        self._server.stop()

    def send(self, begin: float, end: float, hole: tuple[float, float] = (0.0, 0.0), repeat: int = 1) -> int:
        """The samples between two times of the detector's clock that were not sent yet, but for a hole; how many."""
        times = np.arange(begin, end, 0.001)
        times = times[(times > self._sent) & ((times < hole[0]) | (times >= hole[1]))]
        for _ in range(repeat):
            self.post(times + OFFSET_S, SPEED_M_S * (times - begin), np.zeros(len(times)))
        self._sent = float(times[-1])
        return len(times)

    def post(self, times: Any, x: Any, y: Any) -> None:
        self._pv.post(Value(SAMPLES, {"time": times, "x": x, "y": y}))


class Rig:
    """The IOC, its detector and its stage; `changes` of the counters since `mark`."""

    def __init__(self, env: EpicsEnv, ioc: Process, detector: Detector, stage: Stage) -> None:
        self.env, self.ioc, self.detector, self.stage = env, ioc, detector, stage
        self._marks: dict[str, float] = {}
        self.number = 0

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def put(self, name: str, value: Any, **options: Any) -> None:
        self.env.caput(P + name, value, **options)

    def wait(self, name: str, value: Any) -> None:
        wait_for(self.env, P + name, value)

    def mark(self, *names: str) -> None:
        self._marks = {name: self.get(name) for name in names}

    def wait_change(self, name: str, change: float) -> None:
        self.wait(name, self._marks[name] + change)

    def change(self, name: str) -> float:
        return float(self.get(name) - self._marks[name])

    def expose(self, count: int, rate: float = 500, **order: Any) -> tuple[float, float]:
        """Frames of a new scan; returns when they began and ended, by the detector's clock."""
        self.number += 1
        begin, received = time.time(), self.get("FramesReceived_RBV")
        self.detector.send(scan=f"scan{self.number}", count=count, rate=rate, **order)
        end = time.time()
        self.wait("FramesReceived_RBV", received + count)
        return begin, end

    def law(self) -> None:
        names = ["FramesStitched", "FramesPending", *(f"Dropped{cause.value}" for cause in DropCause)]
        assert self.get("FramesReceived_RBV") == sum(self.get(f"{name}_RBV") for name in names)
        assert self.get("Accounting_RBV") == 0


COUNTERS = ("FramesStitched_RBV", "DroppedNoPosition_RBV", "PositionSamples_RBV", "PositionSamplesTwice_RBV",
            "PositionSamplesLate_RBV", "FramesSettling_RBV", "FramesOutside_RBV", "FramesMoving_RBV")  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("ioc")
    (folder / "ioc.toml").write_text(
        f"""
        prefix = "{P}"
        [input]
        pv = "{IMAGES}"
        [engine]
        name = "None"
        frame_shape = [16, 16]
        [pipeline]
        position_wait_s = {WAIT_S}
        [positions]
        source = "stream"
        [positions.stream]
        pv = "{POSITIONS}"
        clock_offset_s = {OFFSET_S}
        tolerance_s = 0.01
        """,
        encoding="utf-8",
    )
    with EpicsEnv() as env, Detector(env, IMAGES) as detector:
        stage = Stage(env)
        with env.start_ioc("--config", str(folder / "ioc.toml"), prefix=P, wait="ready") as ioc:
            wait_for(env, P + "PositionConnected_RBV", 2, timeout=30)
            yield Rig(env, ioc, detector, stage)
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output
        stage.stop()


@pytest.fixture
def rig(running: Rig) -> Iterator[Rig]:
    running.mark(*COUNTERS)
    yield running
    running.wait("FramesPending_RBV", 0)
    running.law()


def test_frames_wait_for_positions_that_come_long_after(rig: Rig) -> None:
    begin, end = rig.expose(20)
    assert (rig.get("FramesWaiting_RBV"), rig.get("FramesPending_RBV")) == (20, 20)
    samples = rig.stage.send(begin - 0.05, end + 0.05)
    rig.wait_change("FramesStitched_RBV", 20)
    assert rig.get("FramesWaiting_RBV") == 0
    assert rig.change("PositionSamples_RBV") == samples
    rig.put("EndScan", 1)  # the image is served
    width_m = rig.get("CanvasSizeX_RBV") * rig.get("PixelSize_RBV") * 1e-9
    moved_m = width_m - 16 * 10e-9  # 20 frames, at least 2 ms apart
    assert 19 * 0.002 * SPEED_M_S - 20e-9 < moved_m < (end - begin) * SPEED_M_S + 20e-9


def test_positions_that_come_before_their_frames_and_twice(rig: Rig) -> None:
    begin = time.time()
    samples = rig.stage.send(begin, begin + 2.0, repeat=2)
    rig.wait_change("PositionSamples_RBV", 2 * samples)
    assert rig.change("PositionSamplesTwice_RBV") == samples
    rig.expose(20)
    rig.wait_change("FramesStitched_RBV", 20)
    rig.put("EndScan", 1)
    wait_until(lambda: time.time() > begin + 2.0, 5, "the samples' end")


def test_positions_that_come_after_the_end_of_their_scan_and_the_next_ones_begin(rig: Rig) -> None:
    begin, end = rig.expose(10)
    rig.put("EndScan", 1, wait=False)
    rig.expose(1)
    assert rig.get("FramesWaiting_RBV") == 11
    rig.stage.send(begin, end + 0.001)
    rig.wait_change("FramesStitched_RBV", 10)
    assert rig.get("ScanID_RBV") == f"scan{rig.number}"
    rig.put("EndScan", 1)
    assert rig.change("DroppedNoPosition_RBV") == 1


def test_positions_that_never_come(rig: Rig) -> None:
    rig.expose(10)
    began = time.monotonic()
    rig.put("EndScan", 1)  # completes when the last frame is through
    assert time.monotonic() - began >= WAIT_S * 0.9
    assert rig.change("DroppedNoPosition_RBV") == 10
    assert rig.get("FramesPending_RBV") == 0


def test_a_stalled_stream_stalls_only_what_needs_it(rig: Rig) -> None:
    rig.expose(10)
    rig.put("PhaseRate", 10.0)  # the records answer
    assert rig.get("FramesWaiting_RBV") == 10
    rig.put("PositionSource", 0)  # what waited has attributes as well
    rig.wait_change("FramesStitched_RBV", 10)
    rig.wait("PositionConnected_RBV", 0)
    rig.expose(10)
    rig.wait_change("FramesStitched_RBV", 20)
    rig.put("PositionSource", 3)
    rig.wait("PositionConnected_RBV", 2)


def test_frames_in_a_hole_are_dropped_and_say_why(rig: Rig) -> None:
    begin, end = rig.expose(20)
    rig.stage.send(begin - 0.05, end + 0.05, hole=(begin - 0.04, end + 0.04))
    rig.wait_change("DroppedNoPosition_RBV", 20)
    assert "no position for" in rig.get("PositionMessage_RBV")
    rig.put("PositionTolerance", 1e3 * (end - begin + 1))
    begin, end = rig.expose(20)
    rig.stage.send(begin - 0.05, end + 0.05, hole=(begin - 0.04, end + 0.04))
    rig.wait_change("FramesStitched_RBV", 20)
    rig.put("PositionTolerance", 10.0)


def test_the_scans_start_is_left_out_while_the_stage_settles(rig: Rig) -> None:
    rig.put("SettleTime", 0.1)
    begin, end = rig.expose(30, rate=100)
    rig.stage.send(begin - 0.05, end + 0.05)
    rig.wait("FramesPending_RBV", 0)
    left_out = rig.change("FramesSettling_RBV")
    assert 1 <= left_out <= 10
    assert rig.change("DroppedNoPosition_RBV") == left_out
    assert rig.change("FramesStitched_RBV") == 30 - left_out
    rig.put("SettleTime", 0.0)


def test_a_runaway_axis_is_refused(rig: Rig) -> None:
    begin, end = rig.expose(10)
    rig.stage.send(begin - 0.05, end + 0.05)
    rig.wait_change("FramesStitched_RBV", 10)
    rig.put("EndScan", 1)
    before = rig.get("CanvasSizeX_RBV"), rig.get("CanvasSizeY_RBV")
    rig.put("FieldWidth", 4.0)
    rig.put("FieldHeight", 4.0)
    wait_until(lambda: time.time() > end + 0.05, 5, "the samples' end")
    begin = time.time()
    rig.detector.send(scan=f"scan{rig.number}", count=5, first=1000)
    times = np.arange(begin, time.time() + 0.01, 0.001)
    wait_until(lambda: time.time() > times[-1], 5, "the samples' time")
    rig.stage.post(times + OFFSET_S, np.full(len(times), 3e-6), np.full(len(times), -0.5))
    rig.wait_change("FramesOutside_RBV", 5)
    assert "outside the field" in rig.get("PositionMessage_RBV")
    rig.wait_change("DroppedNoPosition_RBV", 5)
    rig.put("EndScan", 1)
    assert (rig.get("CanvasSizeX_RBV"), rig.get("CanvasSizeY_RBV")) == before
    rig.put("FieldWidth", 0.0)
    rig.put("FieldHeight", 0.0)


def test_bad_updates_and_disordered_samples_are_counted(rig: Rig) -> None:
    rig.mark(*COUNTERS, "PositionUpdatesBad_RBV", "PositionSamplesBad_RBV")
    now = time.time() + OFFSET_S + 0.1  # after all that was sent
    rig.stage.post([now], [0.0, 1.0], [0.0])
    rig.stage.post([now, now + 0.001], [0.0, np.nan], [0.0, 0.0])
    rig.stage.post([now - 0.0005], [0.0], [0.0])
    rig.wait_change("PositionSamplesLate_RBV", 1)
    rig.wait_change("PositionSamplesBad_RBV", 1)
    rig.wait_change("PositionUpdatesBad_RBV", 1)
    assert "different length" in rig.get("PositionMessage_RBV")
    rig.put("ResetCounters", 1)
    names = ("PositionSamplesLate_RBV", "PositionSamplesBad_RBV", "PositionUpdatesBad_RBV", "PositionSamples_RBV")
    assert [rig.get(name) for name in names] == [0, 0, 0, 0]


def test_the_source_vanishes_and_returns(rig: Rig) -> None:
    rig.stage.stop()
    rig.wait("PositionConnected_RBV", 1)
    assert rig.env.pvget(P + "PositionConnected_RBV").alarm.severity == 2
    begin, end = rig.expose(10)
    rig.stage.start()
    wait_for(rig.env, P + "PositionConnected_RBV", 2, timeout=30)
    rig.stage.send(begin, end + 0.01)
    rig.wait_change("FramesStitched_RBV", 10)


def test_the_simulated_beamlines_stream_gives_the_picture_that_the_attributes_give() -> None:
    """One scan, two IOCs: one reads the attributes, the other a stream 0.2 s ahead, late and irregular."""
    with EpicsEnv() as env:
        common = ("--input-pv", "bl:Pva1:Image", "--engine", "None", "--frame-shape", "64x64", "--pixel-size", "20e-9")
        stream = ("--position-source", "stream", "--position-pv", "bl:Pva1:Positions", "--clock-offset-mode", "Auto")
        beamline = {
            "--positions": "both", "--clock-offset": "0.2", "--position-delay": "0.001", "--position-jitter": "0.02",
            "--position-twice": "0.2", "--position-layout": "array", "--position-unit": "um", "--scan": "fly",
            "--frames": "150", "--rate": "50", "--step": "50", "--scans": "1",
        }  # fmt: skip
        ports = env.server_env()
        words = [word for pair in beamline.items() for word in pair]
        with (
            env.start_ioc("--prefix", "a:", *common, "--position-unit", "um") as first,
            env.start_ioc("--prefix", "b:", *common, "--position-unit", "um", *stream) as second,
            env.start(
                sys.executable, "-m", "ptychostream", "beamline",
                "--ca-port", ports["EPICS_CAS_SERVER_PORT"], *words, env=ports,
            ) as source,
        ):  # fmt: skip
            for pv, value in (("a:Ready_RBV", 1), ("b:Ready_RBV", 1), ("b:PositionConnected_RBV", 2)):
                wait_for(env, pv, value, timeout=40)
            env.caput("bl:Start", 1, wait=False)
            assert source.wait(90) == 0, source.output
            pictures = []
            for prefix, ioc in (("a:", first), ("b:", second)):
                wait_for(env, f"{prefix}FramesStitched_RBV", 150)
                wait_for(env, f"{prefix}FramesPending_RBV", 0)
                assert env.caget(f"{prefix}DroppedNoPosition_RBV") == 0
                env.caput(f"{prefix}EndScan", 1)
                phase, weight = env.pvget(f"{prefix}Phase"), env.pvget(f"{prefix}Weight")
                told = {attribute.name: attribute.value for attribute in phase.attribute}
                columns, rows = (dimension.size for dimension in phase.dimension)
                part = canvas_part(told)
                for axis, pixels in zip("YX", part, strict=True):
                    told[f"Origin{axis}"] += pixels.start * told["PixelSize"]
                pictures.append((phase.value.reshape(rows, columns)[part], weight.value, told))
                assert ioc.popen.poll() is None
            assert env.caget("b:PositionSamplesTwice_RBV") > 0
            assert env.caget("b:ClockOffsetState_RBV") == 2
            offset_s = env.caget("b:ClockOffset_RBV")
            (by_attribute, weight, told), (by_stream, _, told_too) = pictures
            # 2.5 µm/s: a pixel of 20 nm is 8 ms. Two cores that are busy with other things delay either stream.
            assert offset_s == pytest.approx(0.2, abs=0.02)
            assert told["OriginY"] == pytest.approx(told_too["OriginY"], abs=1e-12)
            off = round((told_too["OriginX"] - told["OriginX"]) / 20e-9)
            assert abs(off) <= 3
            both = common_part(by_attribute, by_stream, off)
            assert np.corrcoef(*(part.ravel() for part in both))[0, 1] > 0.95
            assert second.stop(signal.SIGTERM) == 0, second.output
            assert first.stop(signal.SIGTERM) == 0, first.output


def common_part(first: np.ndarray, second: np.ndarray, off: int) -> tuple[np.ndarray, np.ndarray]:
    """The columns that both cover, `second` beginning `off` columns later."""
    begin, end = max(0, off), min(first.shape[1], second.shape[1] + off)
    rows = min(len(first), len(second))
    return first[:rows, begin:end], second[:rows, begin - off : end - off]
