"""The error of the phase in a real IOC: off at the start, on by a put; image, median, alarm and file; any client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import attributes_of, replay_scan
from numpy.typing import NDArray
from refine_case import SIZE, case
from tiny_model import tiny_contract, tiny_graph

from ptychostream.imaging.phase_image import canvas_part
from ptychostream.imaging.sigma import PhaseSigma, phase_sigma
from ptychostream.model.contract import ModelContract, SigmaCalibration
from ptychostream.model.model_file import write_model
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.scans.phase_file import read_phase_image, read_phase_sigma, read_provenance
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.server

P, CHANNEL = "sg:", "sg:det:Image"
GAIN = 1e-5
FACTOR, FLOOR = 0.5, 0.08


def contract(calibrated: bool) -> ModelContract:
    given = SigmaCalibration(factor=FACTOR, floor_rad=FLOOR) if calibrated else None
    scan = case().scan
    more = {
        "object_pixel_m": case().truth.pixel_m,
        "mean_counts": float(np.mean([counts.sum() for counts in scan.counts])),
        "sigma": given,
    }
    return tiny_contract(SIZE, gain=GAIN, name="drawn").model_copy(update=more)


class Rig:
    """An IOC with a model whose patches differ, and a client of either protocol."""

    def __init__(self, env: EpicsEnv, folder: Path, calibrated: bool) -> None:
        self.env, self.folder, self.contract = env, folder, contract(calibrated)
        write_model(folder / "model.onnx", tiny_graph(SIZE, GAIN), self.contract)
        write_scan(folder / "scan.h5", case().scan)
        (folder / "saved").mkdir()
        words = ["--prefix", P, "--input-pv", CHANNEL, "--engine", "ONNXRuntime", "--threads", "1"]
        words += ["--model", str(folder / "model.onnx"), "--engine-cache", str(folder / "cache")]
        words += ["--save-directory", str(folder / "saved"), "--save-automatic", "yes"]
        self.ioc = env.start_ioc(*words)

    def replay(self, scan_id: str, frames: int) -> None:
        replay_scan(self.env, self.folder / "scan.h5", CHANNEL, P, scan_id)
        wait_until(lambda: self.get("FramesStitched_RBV") == frames, 30, "the scan stitched")

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def image(self, name: str) -> Any:
        return self.env.pvget(P + name)


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with EpicsEnv() as env:
        rig = Rig(env, tmp_path, request.param)
        with rig.ioc:
            yield rig


def pixels(value: Any) -> NDArray[np.float32]:
    columns, rows = (dimension.size for dimension in value.dimension)
    return np.asarray(value.value).reshape(rows, columns)


def offline(of: ModelContract) -> PhaseSigma:
    """The same scan by the same arithmetic, without an IOC."""
    canvas = stitch_scan(case().scan, of, lambda counts, _: counts * np.float32(GAIN), spread=True)
    spread = canvas.image().spread
    assert spread is not None
    return phase_sigma(spread, of.sigma.numbers if of.sigma else None)


@pytest.mark.parametrize("rig", [True], indirect=True)
def test_the_error_is_served_while_it_is_wanted_and_saved_with_the_canvas(rig: Rig) -> None:
    assert "PhaseSigma" in rig.image("Images").value
    rig.replay("off", 120)
    wait_until(lambda: rig.image("Phase").uniqueId > 0, 20, "the phase")
    assert (rig.get("SigmaEnable_RBV"), rig.image("PhaseSigma").uniqueId) == (0, 0)
    assert math.isnan(rig.get("SigmaMedian_RBV")) and rig.image("SigmaMedian_RBV")["alarm.severity"] == 3

    rig.env.caput(P + "SigmaEnable", 1)
    rig.replay("on", 240)
    wait_until(
        lambda: attributes_of(rig.image("PhaseSigma"))["FramesStitched"] == 120, 20, "the error of the whole scan"
    )
    phase, sigma = rig.image("Phase"), rig.image("PhaseSigma")
    wanted = offline(rig.contract)
    said, beside = attributes_of(sigma), attributes_of(phase)
    assert (said["SigmaKind"], said["SigmaFactor"], said["SigmaFloor"]) == ("calibrated", FACTOR, FLOOR)
    assert sigma.display.units == "rad" and sigma.uniqueId == phase.uniqueId
    alike = beside.keys() - {"FillValue"}
    assert {key: said[key] for key in alike} == {key: beside[key] for key in alike}
    shown = pixels(sigma)
    assert shown.shape == pixels(phase).shape
    known = np.isfinite(wanted.values)
    np.testing.assert_allclose(shown[canvas_part(said)][known], wanted.values[known], rtol=1e-4)
    outside = np.ones(shown.shape, bool)
    outside[canvas_part(said)][known] = False
    assert set(shown[outside].tolist()) == {said["FillValue"]}
    assert said["SigmaMedian"] == pytest.approx(wanted.median, rel=1e-5)
    assert np.median(shown[canvas_part(said)][known]) > FLOOR

    wait_until(lambda: rig.get("SigmaMedian_RBV") == pytest.approx(wanted.median, rel=1e-5), 10, "the median")
    wait_until(lambda: (rig.get("SigmaCalibrated_RBV"), rig.get("SigmaStatus_RBV")) == (1, 0), 10, "calibrated, within")
    assert rig.image("SigmaMedian_RBV").display.units == "rad"
    assert rig.image("SigmaStatus_RBV")["alarm.severity"] == 0
    rig.env.caput(P + "SigmaLimit", wanted.median / 2)
    assert (rig.get("SigmaStatus_RBV"), rig.image("SigmaStatus_RBV")["alarm.severity"]) == (1, 1)
    rig.env.caput(P + "EndScan", 1)
    files = rig.folder / "saved"
    wait_until(lambda: list(files.glob("on*.h5")), 20, "the file")
    (saved,) = files.glob("on*.h5")
    kept = read_phase_sigma(saved)
    assert kept is not None
    np.testing.assert_allclose(kept.values, wanted.values, rtol=1e-4)
    assert read_phase_image(saved).phase.shape == kept.values.shape
    assert read_provenance(saved)["sigma"] == {"kind": "calibrated", "factor": FACTOR, "floor_rad": FLOOR}

    rig.env.caput(P + "SigmaEnable", 0)
    rig.replay("without", 360)
    wait_until(lambda: attributes_of(rig.image("PhaseSigma"))["SigmaKind"] == "off", 10, "no error")
    assert not pixels(rig.image("PhaseSigma")).any()
    wait_until(lambda: math.isnan(rig.get("SigmaMedian_RBV")), 10, "no median")
    wait_until(lambda: rig.get("SigmaStatus_RBV") == 2, 10, "an unknown error")
    assert rig.ioc.stop() == 0


@pytest.mark.parametrize("rig", [False], indirect=True)
def test_a_model_without_a_calibration_gives_the_spread_and_says_so(rig: Rig) -> None:
    rig.env.caput(P + "SigmaEnable", 1)
    rig.replay("s", 120)
    wait_until(lambda: attributes_of(rig.image("PhaseSigma"))["FramesStitched"] == 120, 20, "the spread")
    said = attributes_of(rig.image("PhaseSigma"))
    wanted = offline(rig.contract)
    assert said["SigmaKind"] == "spread, not calibrated"
    known = np.isfinite(wanted.values)
    np.testing.assert_allclose(
        pixels(rig.image("PhaseSigma"))[canvas_part(said)][known], wanted.values[known], rtol=1e-4
    )
    wait_until(lambda: rig.get("SigmaMedian_RBV") == pytest.approx(wanted.median, rel=1e-5), 10, "the median")
    assert rig.get("SigmaCalibrated_RBV") == 0
