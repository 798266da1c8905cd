"""Commands from the shell and from the sscan record: a put with callback is complete when the work is done."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from epics_env import EpicsEnv
from ioc_helpers import Detector, run_python, wait_for

pytestmark = pytest.mark.server

P, CHANNEL = "seq:", "seqdet:Image"

SSCAN = """
import asyncio, json, sys, aioca
async def main(p, points):
    # What the sscan record does at each point: T1PV (DBR_FLOAT, T1CD = 1) by a put with callback, then D01PV, D02PV.
    rows = []
    for _ in range(points):
        await aioca.caput(p + 'EndScan', 1.0, datatype=float, wait=True, timeout=20)
        detectors = (p + 'FramesStitched_RBV', p + 'FramesPending_RBV', p + 'ScanActive_RBV')
        rows.append([float(value) for value in await aioca.caget(detectors, datatype=float)])
    print(json.dumps(rows))
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Rig:
    def __init__(self, env: EpicsEnv, detector: Detector) -> None:
        self.env, self.detector, self.scans = env, detector, 0

    def open_scan(self, frames: int) -> int:
        """Stream a scan that nobody ends; gives how many frames there are to stitch in all."""
        received = int(self.env.caget(f"{P}FramesReceived_RBV"))
        self.scans += 1
        self.detector.send(scan=f"open {self.scans}", count=frames)
        wait_for(self.env, f"{P}FramesReceived_RBV", received + frames)
        assert self.env.caget(f"{P}ScanActive_RBV") == 1
        return received + frames


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    # A batch that is never full, and waits long: only the command has the last frames stitched.
    options = ("--engine", "None", "--frame-shape", "16x16", "--batch", "64", "--max-latency", "10")
    with (
        EpicsEnv() as env,
        Detector(env, CHANNEL) as detector,
        env.start_ioc("--prefix", P, "--input-pv", CHANNEL, *options, wait="ready"),
    ):
        yield Rig(env, detector)


def test_an_sscan_record_waits_for_the_command_and_reads_what_it_made(rig: Rig) -> None:
    frames = rig.open_scan(10)
    first, second = json.loads(run_python(rig.env, SSCAN, P, "2"))
    assert first == [frames, 0, 0]  # stitched, nothing under way, the scan is over
    assert second == first  # the command on a scan that is over changes nothing


@pytest.mark.skipif(shutil.which("caput") is None, reason="caput of EPICS base is not on PATH")
def test_the_shell_waits_for_the_command(rig: Rig) -> None:
    frames = rig.open_scan(7)

    def shell(*words: str) -> str:
        done = subprocess.run(words, env=rig.env.env, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.split()[-1]

    assert shell("caput", "-c", "-w", "30", f"{P}EndScan", "1") in ("Done", "End")
    assert shell("caget", "-t", f"{P}FramesStitched_RBV") == str(frames)
    assert shell("caget", "-t", f"{P}ScanActive_RBV") == "Idle"
    assert shell("caget", "-t", f"{P}EndScan") == "Done"


def test_a_put_without_callback_does_the_same_later(rig: Rig) -> None:
    frames = rig.open_scan(5)
    rig.env.caput(f"{P}EndScan", 1, wait=False)
    wait_for(rig.env, f"{P}FramesStitched_RBV", frames)
    wait_for(rig.env, f"{P}EndScan", 0)
