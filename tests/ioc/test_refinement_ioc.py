"""The refinement in a real IOC: off at the start, on by a put; its images and records; the network is not disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import attributes_of, replay_scan
from refine_case import SIZE, case
from tiny_model import tiny_contract, tiny_graph

from ptychostream.model.contract import PackedArray
from ptychostream.model.model_file import write_model
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.server

P, CHANNEL = "rf:", "rf:det:Image"


class Rig:
    """An IOC with a network that draws almost nothing, whose contract has the scan's probe."""

    def __init__(self, env: EpicsEnv, folder: Path, probe: bool) -> None:
        one = case()
        self.env, self.folder = env, folder
        contract = tiny_contract(SIZE, gain=1e-7, name="drawn").model_copy(
            update={
                "object_pixel_m": one.truth.pixel_m,
                "probe": PackedArray.pack(one.probe) if probe else None,
                "mean_counts": float(np.mean([counts.sum() for counts in one.scan.counts])),
            }
        )
        write_model(folder / "model.onnx", tiny_graph(SIZE, 1e-7), contract)
        write_scan(folder / "scan.h5", one.scan)
        words = ["--prefix", P, "--input-pv", CHANNEL, "--engine", "ONNXRuntime", "--threads", "1"]
        words += ["--model", str(folder / "model.onnx"), "--engine-cache", str(folder / "cache")]
        words += ["--save-directory", str(folder / "saved"), "--save-automatic", "yes"]
        (folder / "saved").mkdir()
        self.ioc = env.start_ioc(*words)

    def replay(self, scan_id: str) -> None:
        replay_scan(self.env, self.folder / "scan.h5", CHANNEL, P, scan_id)

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with EpicsEnv() as env:
        rig = Rig(env, tmp_path, request.param)
        with rig.ioc:
            yield rig


@pytest.mark.parametrize("rig", [True], indirect=True)
def test_a_scan_is_refined_served_and_saved(rig: Rig) -> None:
    one = case()
    for name in ("Refined", "RefinedAmplitude", "Probe"):
        assert rig.env.pvget(P + name).uniqueId == 0
    assert set(rig.env.pvget(P + "Images").value) >= {"Phase", "Refined", "RefinedAmplitude", "Probe"}
    assert (rig.get("Refine:Enable_RBV"), rig.get("Refine:Status_RBV")) == (0, 0)
    rig.replay("off")
    wait_until(lambda: rig.get("FramesStitched_RBV") == 120, 30, "the scan stitched")
    assert rig.get("Refine:Frames_RBV") == 0

    rig.env.caput(P + "Refine:Budget", 0.9)
    rig.env.caput(P + "Refine:Enable", 1)
    rig.replay("on")
    wait_until(lambda: rig.get("Refine:Passes_RBV") > 30 or rig.get("Refine:Status_RBV") == 3, 60, "30 passes")
    assert rig.get("FramesStitched_RBV") == 240  # the network lost nothing
    found = {name: rig.get(f"Refine:{name}_RBV") for name in ("Frames", "NotTaken", "LeftOut", "Scan", "Probe")}
    assert found == {"Frames": 120, "NotTaken": 0, "LeftOut": 0, "Scan": "on", "Probe": "contract of drawn"}
    assert 0 < rig.get("Refine:RFactor_RBV") < 0.1
    assert rig.get("Refine:Visits_RBV") > 1
    served = {name: rig.env.pvget(P + name) for name in ("Refined", "RefinedAmplitude", "Probe")}
    assert {name: value.display.units for name, value in served.items()} == {
        "Refined": "rad",
        "RefinedAmplitude": "1",
        "Probe": "sqrt(counts)",
    }
    said = attributes_of(served["Refined"])
    assert (said["ScanID"], said["ModelVersion"], said["FramesRefined"]) == ("on", "drawn", 120)
    pixel_m = one.truth.pixel_m
    assert said["PixelSize"] == pytest.approx(pixel_m)
    assert said["OriginX"] / pixel_m == pytest.approx(round(said["OriginX"] / pixel_m), abs=1e-3)

    rig.replay("next")  # the result of a scan is saved when the next one needs the core
    wait_until(lambda: rig.get("Refine:Scan_RBV") == "next", 30, "the next scan")
    saved = rig.folder / "saved/refined"
    wait_until(lambda: list(saved.glob("[!.]*.h5")), 30, "a file")
    files = [read_reconstruction(path) for path in saved.glob("[!.]*.h5")]
    made = next(file for file in files if file.scan_id == "on")
    assert one.ssim(made.phase_image()) > 0.75
    assert rig.ioc.stop() == 0


@pytest.mark.parametrize("rig", [True], indirect=True)
def test_positions_are_corrected_after_the_scan_and_saved(rig: Rig) -> None:
    one = case(100e-9, 140)
    error_m = np.random.default_rng(3).normal(0, 1.5 * one.truth.pixel_m, (140, 2))
    write_scan(rig.folder / "scan.h5", replace(one.scan, positions_m=one.scan.positions_m + error_m))
    assert (rig.get("Refine:CorrectPositions_RBV"), rig.get("Refine:PositionStatus_RBV")) == (0, 0)
    rig.env.caput(P + "Refine:CorrectPositions", 2)
    rig.env.caput(P + "Refine:Budget", 0.9)
    rig.env.caput(P + "Refine:Enable", 1)
    rig.replay("moved")
    wait_until(lambda: rig.get("Refine:Status_RBV") == 3, 90, lambda: f"converged: {rig.get('Refine:Passes_RBV')}")
    assert rig.get("FramesStitched_RBV") == 140
    status, message = rig.get("Refine:PositionStatus_RBV"), rig.get("Refine:PositionMessage_RBV")
    assert (status, message) == (3, ""), "corrected"
    assert rig.env.pvget(P + "Refine:PositionStatus_RBV").alarm.severity == 0
    told = {name: rig.get(f"Refine:Position{name}_RBV") for name in ("Rms", "Max", "Bound", "Passes")}
    assert 40 < told["Rms"] < told["Max"] <= 1.42 * told["Bound"] and told["Passes"] == 60
    made = read_reconstruction(next((rig.folder / "saved/refined").glob("[!.]*.h5")))
    assert made.given_m is not None
    x_um = rig.get("Refine:ResidualX_RBV")
    np.testing.assert_allclose(1e-6 * np.asarray(x_um), made.positions_m[:, 0], atol=1e-11)
    away_m = made.positions_m - one.truth.positions_m
    off_m = np.sqrt(np.square(away_m - away_m.mean(axis=0)).sum(axis=1).mean())
    assert off_m < 0.7 * np.sqrt(2) * 1.5 * one.truth.pixel_m


@pytest.mark.parametrize("rig", [False], indirect=True)
def test_without_a_probe_the_networks_picture_goes_on(rig: Rig) -> None:
    rig.env.caput(P + "Refine:Enable", 1)
    rig.replay("s")
    wait_until(lambda: rig.get("Refine:Status_RBV") == 4, 30, "stopped")
    assert "has no probe" in rig.get("Refine:Message_RBV")
    wait_until(lambda: rig.get("FramesStitched_RBV") == 120, 30, "the scan stitched")
    assert rig.env.pvget(P + "Phase").uniqueId > 0 and rig.env.pvget(P + "Refined").uniqueId == 0


def pin(process: int, cores: set[int]) -> None:
    """Let all threads of a process, and those that they start, run on these cores alone."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:
            continue  # it has ended meanwhile


@contextmanager
def core_taken_away(process: int, rivals: int = 4) -> Iterator[None]:
    """The process has one core, which it shares with processes that never rest."""
    before, core = os.sched_getaffinity(process), min(os.sched_getaffinity(0))
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(rivals):
            rival = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)
            stack.callback(rival.wait)
            stack.callback(rival.kill)
            assert rival.stdout is not None
            stack.enter_context(rival.stdout)
            assert rival.stdout.read(1)
        pin(process, {core})
        try:
            yield
        finally:
            pin(process, before)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")
@pytest.mark.parametrize("rig", [True], indirect=True)
def test_a_core_that_is_taken_away_delays_the_refinement_alone(rig: Rig) -> None:
    rig.env.caput(P + "Refine:Budget", 0.9)
    rig.env.caput(P + "Refine:Enable", 1)
    rig.replay("warm")  # the kernels are compiled
    wait_until(lambda: rig.get("Refine:Passes_RBV") > 1, 60, "the refinement at work")
    with core_taken_away(rig.ioc.popen.pid):
        rig.replay("taken")
        wait_until(lambda: rig.get("FramesStitched_RBV") == 240, 60, "the scan stitched")
        assert rig.get("FramesPending_RBV") == 0 and rig.get("DroppedArrays_RBV") == 0
        wait_until(lambda: rig.get("Refine:Scan_RBV") == "taken", 60, "the scan refined")
        told = {name: rig.get(f"Refine:{name}_RBV") for name in ("Status", "Lag", "Waiting", "NotTaken")}
        assert told["Status"] in (2, 3), told
        assert np.isfinite(told["Lag"]) and (told["Waiting"] == 0 or told["Lag"] > 0), told
        image = rig.env.pvget(P + "Phase")
        assert attributes_of(image)["ScanID"] == "taken"
    wait_until(lambda: rig.get("Refine:Passes_RBV") > 30 or rig.get("Refine:Status_RBV") == 3, 60, "30 passes")
    found = {name: rig.get(f"Refine:{name}_RBV") for name in ("Frames", "NotTaken", "LeftOut", "Waiting")}
    assert sum(found.values()) == 120, found
    assert rig.get("Refine:RFactor_RBV") < 0.1 and rig.get("Refine:Message_RBV") == ""
