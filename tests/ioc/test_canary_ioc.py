"""The canary on a real IOC: a model is pushed in mid-stream, compared with the live one, and refused or taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv
from ioc_helpers import Detector, wait_for
from tiny_model import write_tiny

from ptychostream.hpc_agent.edge.push import Pushed, PushRefusedError, PushSettings, push

pytestmark = pytest.mark.server

P = "cn:"
CHANNEL = "cn:det"
SIZE = 16


class Rig:
    """An IOC with a model and a detector."""

    def __init__(self, env: EpicsEnv, detector: Detector, folder: Path) -> None:
        self.env, self.detector, self.folder = env, detector, folder
        pattern = np.random.default_rng(1).integers(0, 40, (SIZE, SIZE)).astype(np.uint16)
        np.save(folder / "pattern.npy", pattern)
        self.pattern = pattern.astype(float)

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def scan(self, name: str) -> None:
        received = self.get("FramesReceived_RBV")
        self.detector.send(scan=name, count=20, file=str(self.folder / "pattern.npy"), rate=50)
        wait_for(self.env, P + "FramesReceived_RBV", received + 20)
        self.env.caput(P + "EndScan", 1)

    def push(self, name: str, gain: float) -> Pushed:
        write_tiny(self.folder / f"{name}.onnx", gain=gain, name=name)
        return push(PushSettings(prefix=P, timeout_s=30), self.folder / f"{name}.onnx", self.env.epics)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "models").mkdir()
    write_tiny(folder / "models" / "live.onnx", gain=0.01, name="live")
    arguments = ["--prefix", P, "--input-pv", CHANNEL, "--model", "live.onnx", "--models-dir", str(folder / "models")]
    arguments += ["--engine", "ONNXRuntime", "--threads", "1", "--engine-cache", str(folder / "cache"), "--batch", "2"]
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector, env.start_ioc(*arguments, wait="ready") as ioc:
        yield Rig(env, detector, folder)
        assert ioc.stop() == 0, ioc.output
        assert "Traceback" not in ioc.output


def test_a_pushed_model_is_compared_and_refused_beyond_the_limit(rig: Rig) -> None:
    rig.env.caput(P + "CanaryLimit", 0.05)
    assert rig.get("CanaryLimit_RBV") == pytest.approx(0.05)
    rig.push("blind", 0.02)  # no frame has come yet: nothing can be compared
    assert rig.get("CanaryFrames_RBV") == 0
    rig.scan("one")
    live = rig.get("ModelSHA_RBV")
    with pytest.raises(PushRefusedError, match=r"CanaryLimit is 0\.05 rad"):
        rig.push("far", 0.04)
    assert rig.get("ModelSHA_RBV") == live
    assert rig.get("CanaryDifference_RBV") == pytest.approx(0.02 * rig.pattern.std(), rel=1e-3)
    assert "CanaryLimit" in rig.get("ModelMessage_RBV")
    near = rig.push("near", 0.021)
    assert rig.get("ModelSHA_RBV") == near.sha256
    assert rig.get("CanaryDifference_RBV") == pytest.approx(0.001 * rig.pattern.std(), rel=1e-2)
    assert rig.get("CanaryFrames_RBV") > 0
    assert rig.get("PreviousSHA_RBV") == live
    rig.scan("two")
    assert rig.get("Accounting_RBV") == 0


def test_each_scan_has_its_own_automatic_dose(rig: Rig) -> None:
    rig.env.caput(P + "DoseMode", 1)
    for scan, value in (("weak", 1), ("strong", 20)):
        received = rig.get("FramesReceived_RBV")
        rig.detector.send(scan=scan, count=20, value=value)
        wait_for(rig.env, P + "FramesReceived_RBV", received + 20)
        rig.env.caput(P + "EndScan", 1)
        scale = 1000 / (value * SIZE * SIZE)  # the models were trained at 1000 counts
        assert rig.get("DoseScale_RBV") == pytest.approx(scale)
        phase = rig.env.pvget(P + "Patch")
        told = {attribute.name: attribute.value for attribute in phase.attribute}
        assert told["DoseScale"] == pytest.approx(scale)
    rig.env.caput(P + "DoseMode", 0)
    assert rig.get("DoseScale_RBV") == 1.0
