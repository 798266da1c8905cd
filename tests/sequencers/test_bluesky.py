"""Plans in a RunEngine, with an IOC and a simulated beamline: documents, repetition, adaptive scans, commands."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from folders import HELPERS
from ioc_helpers import run_python
from tiny_model import tiny_contract, write_tiny

from ptychostream.adaptive.maps import unseen
from ptychostream.adaptive.next_points import next_points
from ptychostream.imaging.stitching import Canvas
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan import Reconstruction
from ptychostream.scans.scan_files import open_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan

pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        importlib.util.find_spec("ophyd_async") is None, reason="ophyd-async is not installed: extra bluesky"
    ),
]

P, BL = "plan:", "planbl:"
SIZE, GAIN, FRAMES = 64, 2e-3, 40
DOSE = 4e5


class Rig:
    """An IOC with a model whose phase is proportional to the counts, and a beamline whose scans it stitches."""

    def __init__(self, env: EpicsEnv, folder: Path) -> None:
        self.env, self.folder = env, folder

    def run(self, plan: str, timeout_s: float = 30.0, **options: Any) -> dict[str, Any]:
        order = {"edge": P, "beamline": BL, "plan": plan, "options": options, "timeout_s": timeout_s}
        code = (HELPERS / "plan_probe.py").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(run_python(self.env, code, json.dumps(order), timeout=120))
        return found


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("plans")
    write_tiny(folder / "tiny.onnx", SIZE, GAIN)
    channel = f"{BL}Pva1:Image"
    words = ["--prefix", BL, "--frames", str(FRAMES), "--rate", "200", "--dose", str(DOSE), "--save", str(folder)]
    with EpicsEnv() as env:
        command = (sys.executable, "-m", "ptychostream", "beamline", *words, "--wait-for", f"{P}Ready_RBV")
        with (
            env.start(*command, env=env.server_env()) as beamline,
            env.start_ioc(
                "--prefix", P, "--input-pv", channel, "--model", str(folder / "tiny.onnx"), "--engine", "ONNXRuntime"
            ),
        ):
            wait_until(lambda: "serving" in beamline.output, 60, lambda: beamline.output)
            yield Rig(env, folder)


@pytest.fixture(scope="module")
def reference(rig: Rig) -> str:
    """What the model makes of a scan with many photons of the beamline's first sample."""
    scan, _ = simulate_scan(Simulation(frames=FRAMES, dose=DOSE, seed=77))
    canvas = Canvas(tiny_contract().object_pixel_m, np.ones((SIZE, SIZE), np.float32))
    canvas.add_batch(scan.counts.astype(np.float32) * np.float32(GAIN), scan.positions_m)
    image = canvas.image()
    phase = np.nan_to_num(image.phase)
    path = rig.folder / "reference.h5"
    made = Reconstruction(
        object=np.exp(1j * phase).astype(np.complex64),
        probe=np.ones((1, SIZE, SIZE), np.complex64),
        origin_m=image.origin_m,
        pixel_m=image.pixel_m,
        positions_m=scan.positions_m,
        errors=np.zeros(1),
        coverage=image.weight,
        scan_id="reference",
        engine="test",
        provenance={},
    )
    write_reconstruction(path, made)
    return str(path)


def documents(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [document for name, document in found["documents"] if name == kind]


def events(found: dict[str, Any], stream: str = "primary") -> list[dict[str, Any]]:
    wanted = {document["uid"] for document in documents(found, "descriptor") if document["name"] == stream}
    return [document["data"] for document in documents(found, "event") if document["descriptor"] in wanted]


def test_a_scan_is_repeated_until_its_ssim_passes(rig: Rig, reference: str) -> None:
    found = rig.run("repeat", dose=DOSE / 30, better=DOSE, reference=reference, ssim=0.9, tries=4)
    assert found["error"] == ""
    first, second = events(found)  # the second scan was good enough, and no third was taken
    assert first["edge-quality-ssim"] < 0.9 <= second["edge-quality-ssim"] == found["returned"]
    for event in (first, second):
        assert event["edge-scan-id"] == event["edge-quality-ssim_scan"] == event["beamline-scan_id"]
        assert event["edge-model-version"] == "tiny"
        assert len(event["edge-model-sha"]) == 64
        assert event["beamline-sent"] == FRAMES
    assert first["edge-scan-id"] != second["edge-scan-id"]
    assert second["edge-accounting-frames_stitched"] - first["edge-accounting-frames_stitched"] == FRAMES
    (start,), (stop,) = documents(found, "start"), documents(found, "stop")
    assert (start["plan_name"], start["ssim_wanted"], stop["exit_status"]) == ("repeat_until_good", 0.9, "success")
    (descriptor,) = documents(found, "descriptor")
    assert descriptor["hints"]["edge"]["fields"] == ["edge-quality-ssim"]
    assert descriptor["configuration"]["edge"]["data"]["edge-quality-ssim_reference"] == reference


def test_it_gives_up_after_its_tries(rig: Rig, reference: str) -> None:
    found = rig.run("repeat", dose=DOSE / 30, better=DOSE / 30, reference=reference, ssim=0.9, tries=2)
    assert found["error"] == ""
    assert len(events(found)) == 2
    assert found["returned"] < 0.9


def test_a_scan_that_is_not_compared_is_an_error_with_its_remedy(rig: Rig) -> None:
    found = rig.run("repeat", dose=DOSE, better=DOSE, reference="", ssim=0.9, tries=2)
    assert "was not compared" in found["error"]
    assert "set SSIMReference" in found["error"]
    assert len(events(found)) == 1
    assert documents(found, "stop")[0]["exit_status"] == "fail"


def test_an_adaptive_scan_spends_its_budget_in_one_scan(rig: Rig) -> None:
    side = np.arange(8) * 0.1
    points_um = [[float(x), float(y)] for y in side for x in side]
    before = rig.env.caget(f"{P}FramesStitched_RBV")
    options: dict[str, Any] = {"beam_m": 0.75e-6, "budget": 30, "sparse": 16, "part": 5}
    found = rig.run("adaptive", points_um=points_um, **options)
    assert found["error"] == ""
    assert len(found["returned"]) == 30
    assert rig.env.caget(f"{P}FramesStitched_RBV") - before == 30
    parts, (whole,) = events(found, "parts"), events(found)
    assert [event["beamline-sent"] for event in parts] == [8, 16, 21, 26, 30]
    assert {event["edge-scan-id"] for event in [*parts, whole]} == {whole["beamline-scan_id"]}
    assert rig.env.caget(f"{P}ScanActive_RBV") == 0
    with open_scan(rig.folder / f"{whole['edge-scan-id']}.h5") as scan:
        measured_um = scan.positions_m * 1e6
    chosen = np.array(points_um)[found["returned"]]
    assert sorted(map(tuple, measured_um.round(6))) == sorted(map(tuple, chosen.round(6)))
    points_m = np.array(points_um) * 1e-6
    first = next_points(points_m, np.zeros(64, np.bool_), unseen(points_m, 0.75e-6), 0.75e-6, 8)
    np.testing.assert_allclose(measured_um[:8], np.array(points_um)[first], atol=1e-6)


def test_a_scan_that_does_not_come_is_an_error_after_the_time_limit(rig: Rig) -> None:
    found = rig.run("waits", 1.0, scan="no such scan")
    assert "no such scan has not begun or not ended within 1 s" in found["error"]


COMMANDS = ["EndScan", "StartScan", "ResetStitch", "CompareSSIM", "SaveCanvas", "ResetCounters", "LoadModel"]


def test_commands_work_in_every_way_of_ophyd_async(rig: Rig) -> None:
    """`set(True)`, set-and-wait-for-value, and the trigger of each command that PVI names."""
    assert rig.run("commands", names=COMMANDS)["returned"] == []
