"""The IOC with positions by index: each scan takes the places of its own arm, or none, and says what is not covered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, free_port, wait_until
from ioc_helpers import Detector, wait_for
from p4p import Type, Value
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychostream.sim.panda.box import SimulatedPanda

pytestmark = pytest.mark.server

P = "pi:"
IMAGES, POSITIONS = "det:Pva1:Image", "panda:Index"
INDEXED = Type([("index", "l"), ("x", "ad"), ("y", "ad")])
PIXEL_M = 10e-9
WORDS = (
    "--prefix",
    P,
    "--input-pv",
    IMAGES,
    "--engine",
    "None",
    "--frame-shape",
    "16x16",
    "--pixel-size",
    str(PIXEL_M),
)


class Rig:
    def __init__(self, env: EpicsEnv, detector: Detector, pv: SharedPV) -> None:
        self.env, self.detector, self.pv = env, detector, pv

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def wait(self, name: str, value: Any) -> None:
        wait_for(self.env, P + name, value)

    def send(self, first: int, count: int, x0_m: float, step_m: float = PIXEL_M) -> None:
        x = x0_m + step_m * np.arange(first, first + count)
        self.pv.post(Value(INDEXED, {"index": first, "x": x, "y": np.zeros(count)}))


@pytest.fixture
def rig() -> Iterator[Rig]:
    with EpicsEnv() as env, Detector(env, IMAGES) as detector:
        pv = SharedPV(initial=Value(INDEXED))
        ports = {name: str(free_port()) for name in ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT")}
        words = (*WORDS, "--position-source", "index", "--position-index-pv", POSITIONS)
        with (
            Server(providers=[{POSITIONS: pv}], conf={**env.epics, **ports}, useenv=False),
            env.start_ioc(*words, prefix=P, wait="ready") as ioc,
        ):
            wait_for(env, P + "PositionConnected_RBV", 2, timeout=30)
            yield Rig(env, detector, pv)
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output


def test_each_scan_takes_its_own_arm(rig: Rig) -> None:
    """The detector counts from 1 and goes on; the index begins anew at every arm. The frames come first, then not."""
    rig.detector.send(scan="s1", count=30, first=1, rate=500)
    rig.wait("FramesWaiting_RBV", 30)
    for first in (0, 10, 20):
        rig.send(first, 10, 0.0)
    rig.wait("FramesStitched_RBV", 30)
    rig.env.caput(P + "EndScan", 1)
    assert rig.get("CanvasSizeX_RBV") == 29 + 16
    rig.send(0, 20, 5e-6, 2 * PIXEL_M)
    rig.wait("PositionArm_RBV", 2)
    rig.detector.send(scan="s2", count=20, first=31, rate=500)
    rig.wait("FramesStitched_RBV", 50)
    rig.env.caput(P + "EndScan", 1)
    assert rig.get("CanvasSizeX_RBV") == 2 * 19 + 16
    assert (rig.get("PositionRestarts_RBV"), rig.get("PositionNextIndex_RBV")) == (0, 20)
    assert rig.env.pvget(P + "PositionRestarts_RBV").alarm.severity == 0, "an arm for each scan is no fault"
    rig.wait("PositionCoverage_RBV", 100.0)
    # a repeat with another place is a fault; and an arm that never comes places nothing
    rig.send(15, 5, 9e-6)
    rig.wait("PositionSamplesConflict_RBV", 5)
    assert rig.env.pvget(P + "PositionSamplesConflict_RBV").alarm.severity == 2
    rig.detector.send(scan="s3", count=20, first=51, rate=500)
    rig.wait("FramesReceived_RBV", 70)
    assert "no arm of the position source has begun for it" in rig.get("PositionMessage_RBV")
    rig.env.caput(P + "EndScan", 1, timeout=30)
    assert (rig.get("DroppedNoPosition_RBV"), rig.get("FramesStitched_RBV")) == (20, 50)
    rig.wait("PositionCoverage_RBV", 0.0)
    assert rig.env.pvget(P + "PositionCoverage_RBV").alarm.severity == 1
    rig.pv.post(Value(INDEXED, {"index": 0, "x": [1.0, 2.0], "y": [1.0]}))
    rig.wait("PositionUpdatesBad_RBV", 1)


def test_an_index_beyond_32_bits_is_shown_as_it_is(rig: Rig) -> None:
    """A box at 1 MHz is there after 36 minutes."""
    rig.send(3_000_000_000, 5, 0.0, 0.0)
    rig.wait("PositionNextIndex_RBV", 3_000_000_005)
    assert rig.get("PositionSamples_RBV") == 5


def test_a_panda_is_read_directly(tmp_path: Path) -> None:
    """Two samples a frame, an arm for each scan; then the box is gone, and comes back."""
    with EpicsEnv() as env, Detector(env, IMAGES) as detector, SimulatedPanda() as box:
        config = tmp_path / "ioc.toml"
        config.write_text(
            f"""
            [positions]
            source = "panda"
            [positions.panda]
            host = "127.0.0.1"
            control_port = {box.control_port}
            data_port = {box.data_port}
            [positions.index]
            samples_per_frame = 2
            """,
            encoding="utf-8",
        )
        for name in ("INENC1.VAL", "INENC2.VAL"):
            box.capture(name, "um")
        with env.start_ioc("--config", str(config), *WORDS, prefix=P, wait="ready") as ioc:
            rig = Rig(env, detector, SharedPV())
            wait_for(env, P + "PositionConnected_RBV", 2, timeout=30)
            for scan, step_um in ((1, 0.01), (2, 0.02)):
                box.arm()
                detector.send(scan=f"s{scan}", count=30, first=30 * scan, rate=500)
                x = step_um * (np.arange(60) // 2) + 7.0 * scan
                for part in np.split(x, 4):
                    box.rows({"INENC1.VAL": part, "INENC2.VAL": np.zeros(len(part))})
                rig.wait("FramesStitched_RBV", 30 * scan)
                box.end()
                env.caput(P + "EndScan", 1)
                assert rig.get("CanvasSizeX_RBV") == scan * 29 + 16
            wait_until(lambda: rig.get("PandACapture_RBV").endswith("Ok after 60 rows"), 20, "the end")
            assert (rig.get("PositionArm_RBV"), rig.get("PandAFaults_RBV")) == (2, 0)
            box.arm()
            rig.wait("PositionArm_RBV", 3)
            box.drop()
            rig.wait("PandAFaults_RBV", 1)
            assert env.pvget(P + "PandAFaults_RBV").alarm.severity == 2
            assert "was closed by the box" in rig.get("PositionMessage_RBV")
            rig.wait("PositionConnected_RBV", 2)
            box.end("Data overrun")
            rig.wait("PandAFaults_RBV", 2)
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output


def test_an_arm_that_begins_anew_within_a_scan_is_told(rig: Rig) -> None:
    rig.detector.send(scan="s1", count=20, first=1, rate=500)
    rig.send(0, 20, 0.0)
    rig.wait("FramesStitched_RBV", 20)
    rig.send(0, 10, 5e-6)  # the index begins anew
    rig.wait("PositionArm_RBV", 2)
    rig.detector.send(scan="s1", count=10, first=21, rate=500)
    rig.wait("DroppedNoPosition_RBV", 10)
    rig.wait("PositionRestarts_RBV", 1)
    assert rig.env.pvget(P + "PositionRestarts_RBV").alarm.severity == 1
    assert "the index began anew after 20 samples" in rig.get("PositionMessage_RBV")
    assert rig.get("FramesStitched_RBV") == 20


@pytest.mark.parametrize("kind", ["index", "panda"])
def test_the_simulated_beamline_sends_what_the_ioc_reads(kind: str, tmp_path: Path) -> None:
    """Two scans: every frame of both has its place."""
    with EpicsEnv() as env:
        control, data = free_port(), free_port()
        ports = env.server_env()
        words = ("--prefix", P, "--input-pv", "bl:Pva1:Image", "--engine", "None", "--frame-shape", "64x64")
        words += ("--pixel-size", "20e-9", "--position-source", kind, "--position-unit", "um")
        words += ("--position-index-pv", "bl:Pva1:Positions", "--panda-host", "127.0.0.1")
        config = tmp_path / "ioc.toml"
        config.write_text(f"[positions.panda]\ncontrol_port = {control}\ndata_port = {data}\n", encoding="utf-8")
        words += ("--config", str(config))
        beamline = (sys.executable, "-m", "ptychostream", "beamline", "--ca-port", ports["EPICS_CAS_SERVER_PORT"])
        beamline += ("--positions", kind, "--position-unit", "um", "--scan", "raster", "--frames", "60", "--rate", "60")
        beamline += ("--panda-ports", str(control), str(data), "--scans", "2", "--position-bulk", "7")
        with env.start_ioc(*words) as ioc, env.start(*beamline, env=ports) as source:
            wait_for(env, P + "PositionConnected_RBV", 2, timeout=40)
            wait_for(env, P + "Ready_RBV", 1, timeout=40)
            for scan in (1, 2):
                env.caput("bl:Start", 1, wait=False)
                wait_for(env, P + "FramesStitched_RBV", 60 * scan, timeout=60)
                if scan == 1:
                    wait_for(env, "bl:Busy_RBV", 0, timeout=30)
            assert source.wait(60) == 0, source.output
            assert env.caget(P + "DroppedNoPosition_RBV") == 0
            assert (env.caget(P + "PositionArm_RBV"), env.caget(P + "PositionRestarts_RBV")) == (2, 0)
            assert env.caget(P + "PositionCoverage_RBV") == 100.0
            assert ioc.stop() == 0, ioc.output
