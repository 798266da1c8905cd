"""Overload, decimation, latencies and the diagnosis as records of an IOC in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from epics_env import EpicsEnv, Process, wait_until
from ioc_helpers import Detector, wait_for

from ptychostream.errors import DropCause
from ptychostream.plugins.stage_times import Stage

pytestmark = pytest.mark.server

P, CHANNEL = "over:", "over:det:Image"
CONFIGURATION = """
[pipeline]
when_full = "drop_oldest"
backlog_batches = 2

[pipeline.decimation]
mode = "Manual"
factor = 9
"""


class Rig:
    """The IOC and its detector."""

    def __init__(self, env: EpicsEnv, ioc: Process, detector: Detector) -> None:
        self.env, self.ioc, self.detector = env, ioc, detector

    def get(self, name: str) -> float:
        return float(self.env.caget(P + name))

    def put(self, name: str, value: object) -> None:
        self.env.caput(P + name, value)

    def dropped(self) -> dict[DropCause, int]:
        return {cause: int(self.get(f"Dropped{cause.value}_RBV")) for cause in DropCause}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    configuration = tmp_path_factory.mktemp("ioc") / "ioc.toml"
    configuration.write_text(CONFIGURATION)
    words = ["--config", str(configuration), "--prefix", P, "--input-pv", CHANNEL, "--engine", "None"]
    words += ["--frame-shape", "16x16", "--phase-rate", "20"]
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector, env.start_ioc(*words, wait="ready") as ioc:
        yield Rig(env, ioc, detector)
        assert ioc.stop() == 0, ioc.output
        assert "Traceback" not in ioc.output


def test_the_configuration_is_what_the_records_start_with(rig: Rig) -> None:
    assert rig.get("DropPolicy") == rig.get("DropPolicy_RBV") == 1
    assert rig.get("Decimation") == rig.get("Decimation_RBV") == 1
    assert rig.get("DecimationFactor") == rig.get("DecimationFactor_RBV") == 9


def test_every_nth_pattern_is_inferred_and_the_rest_counted(rig: Rig) -> None:
    before = rig.dropped()[DropCause.DECIMATED]
    rig.detector.send(scan="thin", count=400, columns=20, value=3)
    wait_for(rig.env, f"{P}FramesReceived_RBV", 400)
    rig.put("EndScan", 1)
    stitched, left_out = rig.get("FramesStitched_RBV"), rig.dropped()[DropCause.DECIMATED] - before
    assert stitched + left_out == 400
    assert 0.7 * 400 / 9 < stitched < 1.4 * 400 / 9
    assert rig.get("Accounting_RBV") == 0


@pytest.mark.parametrize(("name", "value"), [("DropPolicy", 0), ("Decimation", 0), ("DecimationFactor", 4)])
def test_a_setpoint_is_read_back(rig: Rig, name: str, value: int) -> None:
    before = rig.get(name)
    assert before != value
    if name == "DecimationFactor":
        rig.put("Decimation", 1)
    rig.put(name, value)
    assert rig.get(f"{name}_RBV") == value
    rig.put(name, before)
    assert rig.get(f"{name}_RBV") == before


def test_changing_the_mode_keeps_the_factor_and_off_infers_all(rig: Rig) -> None:
    rig.put("DecimationFactor", 5)
    rig.put("Decimation", 0)
    assert rig.get("DecimationFactor_RBV") == 1
    stitched, left_out = rig.get("FramesStitched_RBV"), rig.dropped()[DropCause.DECIMATED]
    received = rig.get("FramesReceived_RBV")
    rig.detector.send(scan="all", count=40, columns=8, value=3)
    wait_for(rig.env, f"{P}FramesReceived_RBV", received + 40)
    rig.put("EndScan", 1)
    assert rig.get("FramesStitched_RBV") - stitched == 40
    assert rig.dropped()[DropCause.DECIMATED] == left_out
    rig.put("Decimation", 1)
    assert rig.get("DecimationFactor_RBV") == 5
    rig.put("Decimation", 0)


def test_latency_is_told_to_the_canvas_and_to_the_clients_and_by_stage(rig: Rig) -> None:
    received = rig.get("FramesReceived_RBV")
    rig.detector.send(scan="timed", count=40, columns=8, value=3)
    wait_for(rig.env, f"{P}FramesReceived_RBV", received + 40)
    rig.put("EndScan", 1)  # the image is served when it completes
    assert 0 < rig.get("LatencyP50_RBV") <= rig.get("LatencyP99_RBV") < 60_000
    wait_until(lambda: rig.get("LatencyServedP50_RBV") > 0, 10, "a served latency")
    assert rig.get("LatencyServedP50_RBV") >= rig.get("LatencyP50_RBV")
    for stage in Stage:
        assert 0 < rig.get(f"{stage.value}Time_RBV") <= rig.get(f"{stage.value}TimeP99_RBV"), stage
    assert rig.get("ClockErrors_RBV") == 0


def test_silence_in_a_scan_is_named_once(rig: Rig) -> None:
    """A scan that begins and stops."""
    rig.detector.send(scan="cut", count=8, columns=4, value=3)

    def told() -> bool:
        return "no frame has come" in rig.env.caget(f"{P}StatusMessage_RBV")

    wait_until(told, 30, "the diagnosis")
    assert CHANNEL in rig.env.caget(f"{P}StatusMessage_RBV")
    lines = [line for line in rig.ioc.output.splitlines() if "frames stop at the stream" in line]
    assert len(lines) >= 1
    before = len(lines)
    value = rig.get("ArrayCounter_RBV")
    wait_until(lambda: rig.get("ArrayRate_RBV") == 0, 10, "the rate to fall")
    assert rig.get("ArrayCounter_RBV") == value
    assert sum("frames stop at the stream" in line for line in rig.ioc.output.splitlines()) == before
    rig.put("EndScan", 1)
    wait_until(lambda: rig.env.caget(f"{P}StatusMessage_RBV") == "running", 10, "the all-clear")
