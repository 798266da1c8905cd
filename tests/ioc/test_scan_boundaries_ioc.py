"""Scan boundaries and saved canvases through the whole IOC: real streams, a real scan IOC that dies, a full disk."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process
from folders import ROOT
from ioc_helpers import Detector, wait_for

from ptychostream.scans.phase_file import read_phase_image, read_provenance

pytestmark = pytest.mark.server

P = "sb:"
SIZE, COLUMNS = 64, 12
COUNT = 10 * COLUMNS  # 10 rows: 484 x 404 pixels of canvas at a step of 36


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv(ca_servers=6) as made:
        yield made


@pytest.fixture
def detector(env: EpicsEnv) -> Iterator[Detector]:
    with Detector(env, f"{P}det") as made:
        yield made


def start_ioc(env: EpicsEnv, tmp_path: Path, text: str) -> Process:
    path = tmp_path / "ioc.toml"
    path.write_text(
        f'prefix = "{P}"\n[input]\npv = "{P}det"\n[engine]\nname = "None"\nframe_shape = [{SIZE}, {SIZE}]\n{text}',
        encoding="utf-8",
    )
    return env.start_ioc("--config", str(path), prefix=P, wait="ready")


def send(detector: Detector, scan: str, value: int, count: int = COUNT, **more: Any) -> None:
    detector.send(scan=scan, count=count, value=value, size=SIZE, step_px=36, columns=COLUMNS, rate=1000, **more)


def kept(env: EpicsEnv) -> dict[int, str]:
    """The scans' accounting by run."""
    lines = env.caget(f"{P}KeptScans_RBV").splitlines()
    return {int(number): rest for number, _, rest in (line.partition(" ") for line in lines)}


def assert_accounted(env: EpicsEnv) -> None:
    assert env.caget(f"{P}Accounting_RBV") == 0
    assert env.caget(f"{P}AccountingError_RBV") == 0


def image_of(env: EpicsEnv) -> tuple[dict[str, Any], Any]:
    """Attributes and pixels of the image that is served."""
    image = env.pvget(f"{P}Phase")
    return {a.name: a.value for a in image.attribute}, np.asarray(image.value)


def assert_holds(path: Path, value: float, scan: str, frames: int) -> dict[str, Any]:
    image, provenance = read_phase_image(path), read_provenance(path)
    assert set(np.unique(image.phase[image.weight > 0])) == {value}
    assert (provenance["scan"], provenance["frames"]["stitched"]) == (scan, frames)
    assert provenance["frames"]["on_canvas"] == frames
    return provenance


def test_scans_back_to_back_an_abort_and_a_full_disk(env: EpicsEnv, detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "saved canvases"
    settings = f'[save]\ndirectory = "{folder}"\nautomatic = true\ndelay_s = 0.1\n[scan]\nkeep = 3\n'
    with start_ioc(env, tmp_path, settings) as ioc:
        assert env.caget(f"{P}ScanBoundary_RBV") == 0
        for number in (1, 2, 3):  # nothing between them, and no frame says that it is the last
            send(detector, f"scan/{number}", number)
        wait_for(env, f"{P}FramesStitched_RBV", 3 * COUNT)
        wait_for(env, f"{P}CanvasesSaved_RBV", 2)
        assert kept(env) == {n: f"scan/{n}: {COUNT} received, {COUNT} stitched" for n in (1, 2, 3)}
        assert sorted(path.name for path in folder.iterdir()) == ["scan_1.h5", "scan_2.h5"]
        provenance = assert_holds(folder / "scan_1.h5", 1.0, "scan/1", COUNT)
        assert_holds(folder / "scan_2.h5", 2.0, "scan/2", COUNT)
        assert provenance["models"][0]["engine"] == "none (float32, CPU)"
        assert provenance["models"][0]["frames"] == COUNT
        assert provenance["positions"]["source"] == "attributes"
        assert provenance["positions"]["axes"]["unit"] == "m"
        assert provenance["times"]["began"] <= provenance["times"]["ended"] <= provenance["times"]["saved"]
        assert provenance["times"]["first_frame"] < provenance["times"]["last_frame"]
        assert provenance["versions"]["ptychostream"] == env.caget(f"{P}Version_RBV")

        env.caput(f"{P}ShowScan", 2)  # the last but one that is finished
        attributes, pixels = image_of(env)
        assert (attributes["ScanID"], set(np.unique(pixels))) == ("scan/1", {1.0})
        wait_for(env, f"{P}ShownScanID_RBV", "scan/1")
        env.caput(f"{P}ShowScan", 0)
        assert image_of(env)[0]["ScanID"] == "scan/3"

        # aborted, and restarted under its id
        send(detector, "scan/4", 4, count=30)
        wait_for(env, f"{P}FramesStitched_RBV", 3 * COUNT + 30)
        env.caput(f"{P}StartScan", 1)
        send(detector, "scan/4", 5)
        wait_for(env, f"{P}FramesStitched_RBV", 4 * COUNT + 30)
        runs = kept(env)
        assert runs[4] == "scan/4: 30 received, 30 stitched"
        assert runs[5] == f"scan/4: {COUNT} received, {COUNT} stitched"
        assert list(runs) == [5, 4, 3, 2], "three finished ones are kept"
        wait_for(env, f"{P}CanvasesSaved_RBV", 4)
        assert_holds(folder / "scan_4.h5", 4.0, "scan/4", 30)

        # a disk that takes no more, while frames come
        resource.prlimit(ioc.popen.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        before = sorted(folder.iterdir())
        env.caput(f"{P}EndScan", 1)
        wait_for(env, f"{P}SaveStatus_RBV", 3)
        assert env.pvget(f"{P}SaveStatus_RBV").alarm.severity == 2
        assert "cannot be written" in env.caget(f"{P}SaveMessage_RBV")
        assert "disk" in env.caget(f"{P}SaveMessage_RBV")
        assert sorted(folder.iterdir()) == before, "nothing half done is left"
        env.caput(f"{P}SaveCanvas", 1)
        assert env.caget(f"{P}SaveStatus_RBV") == 3
        assert "refused" in env.caget(f"{P}StatusMessage_RBV")
        assert env.caget(f"{P}CanvasesWaiting_RBV") == 1
        send(detector, "scan/6", 6)
        wait_for(env, f"{P}FramesStitched_RBV", 5 * COUNT + 30)

        resource.prlimit(ioc.popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        env.caput(f"{P}SaveCanvas", 1)  # what failed, and what is shown
        assert env.caget(f"{P}SaveStatus_RBV") == 2
        assert env.caget(f"{P}CanvasesWaiting_RBV") == 0
        assert_holds(folder / "scan_4_2.h5", 5.0, "scan/4", COUNT)
        assert env.caget(f"{P}LastSavedFile_RBV") == str(folder / "scan_6.h5")
        assert_holds(folder / "scan_6.h5", 6.0, "scan/6", COUNT)
        assert env.caget(f"{P}CanvasesLost_RBV") == 0
        assert_accounted(env)
        assert ioc.stop() == 0, ioc.output
    assert_holds(folder / "scan_6_2.h5", 6.0, "scan/6", COUNT)  # the end of the IOC is the end of its scan


def test_a_pause_between_frames_is_the_boundary(env: EpicsEnv, detector: Detector, tmp_path: Path) -> None:
    with start_ioc(env, tmp_path, '[scan]\nboundary = "gap"\ngap_s = 1.0\n') as ioc:
        assert (env.caget(f"{P}ScanBoundary_RBV"), env.caget(f"{P}ScanGap_RBV")) == (2, 1.0)
        for number in (1, 2, 3):
            send(detector, "", number, count=40)
            wait_for(env, f"{P}FramesStitched_RBV", 40 * number)
            wait_for(env, f"{P}ScanActive_RBV", 0)  # the pause itself ends the scan
        assert [text.partition(": ")[2] for text in kept(env).values()] == 3 * ["40 received, 40 stitched"]
        assert set(np.unique(image_of(env)[1])) == {3.0}
        assert_accounted(env)
        assert ioc.stop() == 0, ioc.output


def start_scan_ioc(env: EpicsEnv, environment: dict[str, str]) -> Process:
    """The simulated beamline's scan records, on their own IOC."""
    words = ["-m", "P=bl:,DET=none,POINTS=10", "-d", str(ROOT / "db/beamline.db")]
    return env.start(sys.executable, "-m", "pvxslibs.ioc", *words, env=environment)


@pytest.mark.parametrize("provider", ["ca", "pva"])
def test_the_scan_pvs_are_the_boundary_though_their_ioc_dies(
    env: EpicsEnv, detector: Detector, tmp_path: Path, provider: str
) -> None:
    settings = (
        f'[scan]\nboundary = "pv"\nactive_pv = "bl:Busy_RBV"\nactive_provider = "{provider}"\n'
        f'id_pv = "bl:ScanID_RBV"\nid_provider = "{provider}"\nlate_s = 60\n'
    )
    scan_env = env.server_env()
    with start_ioc(env, tmp_path, settings) as ioc:
        assert env.caget(f"{P}ScanPVState_RBV") == 1
        assert env.pvget(f"{P}ScanPVState_RBV").alarm.severity == 2
        with start_scan_ioc(env, scan_env) as scans:
            wait_for(env, f"{P}ScanPVState_RBV", 2, timeout=30)
            wait_for(env, f"{P}ScanActive_RBV", 0)
            send(detector, "x", 9, count=5)  # the detector runs, and no scan does
            wait_for(env, f"{P}DroppedLate_RBV", 5)
            env.caput("bl:ScanID_RBV", "first scan")
            env.caput("bl:Busy_RBV", 1)
            wait_for(env, f"{P}ScanID_RBV", "first scan")
            send(detector, "x", 1, count=20)
            wait_for(env, f"{P}FramesStitched_RBV", 20)
            scans.stop(signal.SIGKILL)
        wait_for(env, f"{P}ScanPVState_RBV", 1)
        send(detector, "y", 1, count=20, first=21)  # the scan goes on without it
        wait_for(env, f"{P}FramesStitched_RBV", 40)
        with start_scan_ioc(env, scan_env):
            wait_for(env, f"{P}ScanPVState_RBV", 2, timeout=40)
            wait_for(env, f"{P}ScanActive_RBV", 0)  # it knows of no scan: that is an end
            env.caput("bl:ScanID_RBV", "first scan")
            env.caput("bl:Busy_RBV", 1)
            wait_for(env, f"{P}ScanActive_RBV", 1)
            send(detector, "y", 2, count=15)
            wait_for(env, f"{P}FramesStitched_RBV", 55)
            env.caput("bl:ScanID_RBV", "second scan")  # its edges were too quick to be seen
            wait_for(env, f"{P}ScanID_RBV", "second scan")
            send(detector, "y", 3, count=10)
            wait_for(env, f"{P}FramesStitched_RBV", 65)
            env.caput("bl:Busy_RBV", 0)
            wait_for(env, f"{P}ScanActive_RBV", 0)
        finished = ["second scan: 10 received, 10 stitched", "first scan: 15 received, 15 stitched",
                    "first scan: 40 received, 40 stitched"]  # fmt: skip
        assert list(kept(env).values()) == finished
        assert env.caget(f"{P}DroppedLate_RBV") == 5
        assert_accounted(env)
        assert ioc.stop() == 0, ioc.output


def test_a_pv_boundary_without_a_pv_is_refused(env: EpicsEnv) -> None:
    command = [sys.executable, "-m", "ptychostream", "ioc", "--prefix", P, "--scan-boundary", "pv"]
    done = subprocess.run(command, env=env.server_env(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "needs a PV: set active_pv" in done.stderr
