"""The examples that a newcomer starts with: their detector, their two clients, a real IOC between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from folders import ROOT
from numpy.typing import NDArray

EXAMPLES = ROOT / "examples"
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
P = "ex:"


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    """The example detector, streaming into an IOC without a model."""
    arguments = ("--prefix", P, "--input-pv", "ex:Pva1:Image", "--engine", "none", "--frame-shape", "64x64")
    with (
        EpicsEnv() as env,
        env.start(sys.executable, str(EXAMPLES / "detector.py"), "ex:Pva1:Image", env=env.server_env()),
        env.start_ioc(*arguments, timeout=120),
    ):
        wait_until(lambda: env.caget(f"{P}FramesStitched_RBV") > 300, 120, "300 frames stitched")
        yield env


def test_every_frame_of_the_example_detector_has_its_place(env: EpicsEnv) -> None:
    causes = ("Codec", "Type", "Shape", "Duplicate", "NoPosition", "Late", "NoModel", "Engine")
    dropped = {cause: env.caget(f"{P}Dropped{cause}_RBV") for cause in causes}
    assert dropped.pop("NoPosition") <= 1  # the channel's first value is no frame of a scan
    assert not any(dropped.values()), dropped
    assert int(env.caget(f"{P}ScanID_RBV")) >= 1
    assert env.caget(f"{P}Accounting_RBV") == 0


def read_phase(env: EpicsEnv, saved: Path) -> NDArray[np.float32]:
    """The phase that the example client has saved."""
    with env.start(sys.executable, str(EXAMPLES / "read_phase_p4p.py"), P, str(saved)) as client:
        assert client.wait(120) == 0, client.output
        assert "pixels" in client.output and "SSIM: no reconstruction" in client.output
    phase: NDArray[np.float32] = np.load(saved)
    return phase


def test_the_p4p_client_reads_and_saves_the_phase(env: EpicsEnv, tmp_path: Path) -> None:
    phase = read_phase(env, tmp_path / "phase.npy")
    if phase.shape[0] == 64:  # a scan had just begun, and its second row had not come
        phase = read_phase(env, tmp_path / "phase.npy")
    assert phase.ndim == 2 and phase.shape[1] > phase.shape[0] > 64
    assert phase.max() > 5


def test_the_caproto_client_reads_figures_and_follows_one(env: EpicsEnv) -> None:
    with env.start(sys.executable, str(EXAMPLES / "read_ssim_caproto.py"), P, "3") as client:
        assert client.wait(120) == 0, client.output
        lines = client.output.splitlines()
    assert any(line.startswith(f"{P}SSIM_RBV = ") for line in lines)
    stitched = [int(float(line.split()[1])) for line in lines if line.startswith("stitched")]
    assert len(stitched) > 1 and stitched[-1] > stitched[0]
