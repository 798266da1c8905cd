"""Every screen beside a streaming IOC: its channels exist, and Phoebus opens it without a warning.

The second test needs a program `open-display SCREEN PICTURE SECONDS [MACRO=VALUE …]` on PATH that opens a screen in
Phoebus and ends with 0 when every channel is connected and nothing warns.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until
from screen_files import SCREENS, channels

from ptychostream.opi.parts import BEAMLINE_PREFIX, PREFIX

pytestmark = [pytest.mark.server, pytest.mark.timeout(280)]

P, B = "scr:", "scrbl:"
ITS_OWN = "while channel is null"
"""Phoebus 5.0.5's Channel Access client warns of this, now and then, of channels that answer while it subscribes."""
PROGRAM = shutil.which("open-display")


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    """An IOC that stitches the scans of a simulated beamline."""
    with EpicsEnv() as env:
        python = (sys.executable, "-m", "ptychostream")
        scans = ("--prefix", B, "--frames", "400", "--rate", "20", "--autostart")
        frames = ("--input-pv", f"{B}Pva1:Image", "--engine", "None", "--frame-shape", "64x64", "--scan-frames", "400")
        with (
            env.start(*python, "beamline", *scans, env=env.server_env()),
            env.start_ioc("--prefix", P, *frames, wait="ready"),
        ):
            wait_until(lambda: env.caget(f"{P}FramesStitched_RBV") > 20, 30, "frames")
            wait_until(lambda: env.caget(f"{P}CanvasWidth_RBV") > 0, 30, "an image")
            yield env


def test_every_channel_of_every_screen_answers(env: EpicsEnv) -> None:
    shown = set().union(*(channels(path.read_text(encoding="utf-8")) for path in SCREENS))
    names = {name.removeprefix("pva://").replace(PREFIX, P) for name in shown if PREFIX in name}
    assert len(names) > 280
    answers = env.pva.get(sorted(names), timeout=30, throw=False)
    assert [name for name, answer in zip(sorted(names), answers, strict=True) if isinstance(answer, Exception)] == []
    for name in sorted(name.replace(BEAMLINE_PREFIX, B) for name in shown if BEAMLINE_PREFIX in name):
        env.caget(name)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no program open-display on PATH, which opens a screen in Phoebus")
@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_phoebus_opens_the_screen(env: EpicsEnv, path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "screen.png"
    command = [str(PROGRAM), str(path), str(picture), "10", f"P={P}", "R=", f"B={B}"]
    for _ in range(2):
        done = subprocess.run(command, env=env.env, capture_output=True, text=True, timeout=100, check=False)
        told = [line for line in done.stdout.splitlines() if line.startswith("warning")]
        if not told or any(ITS_OWN not in line for line in told):
            break
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "  connected" not in line)
    assert picture.stat().st_size > 10_000
