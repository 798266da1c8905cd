"""The tutorial, typed by a test: every command of it, in its order, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from folders import ROOT

PAGE = ROOT / "docs/tutorial/first-live-phase.md"
P = "ptycho:NN1:"


def blocks() -> list[tuple[str, str]]:
    """Caption (empty without one) and text of every block of commands that a reader types."""
    block = r"^```(?:\{code-block\} sh\n:caption: ([^\n]+)\n\n|sh\n)(.*?)^```"
    found = re.findall(block, PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(caption, text.strip()) for caption, text in found]


def test_the_tutorial_has_the_blocks_that_are_run_here() -> None:
    captions = [caption for caption, _ in blocks()]
    assert captions == ["", "", "", "terminal 1", "terminal 2", "terminal 3", ""]


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_the_commands_of_the_tutorial_end_in_a_live_phase(tmp_path: Path) -> None:
    """The network is trained for 3 of its 20 epochs: the test asks whether the commands lead there."""
    scripts = Path(sys.executable).parent
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with EpicsEnv(ca_servers=16) as env, ExitStack() as running:

        def start(text: str) -> None:
            words = shlex.split(text)
            process = env.start(str(scripts / words[0]), *words[1:], env=environment(), cwd=tmp_path)
            running.enter_context(process)

        def environment() -> dict[str, str]:
            return {**env.server_env(), "PATH": f"{scripts}:{os.environ['PATH']}"}

        def type_in(text: str) -> None:
            done = subprocess.run(
                ["bash", "-e", "-c", text], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=900
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

        for caption, text in blocks():
            port = environment()["EPICS_CAS_SERVER_PORT"] if "--ca-port" in text else ""
            command = text.replace("5066", port).replace("--epochs 20 ", "--epochs 3 ")
            if caption in ("terminal 1", "terminal 2"):
                start(command)
            else:
                type_in(command)
            if caption == "terminal 2":
                wait_until(lambda: env.caget(f"{P}FramesStitched_RBV") > 100, 240, "100 frames stitched")
        assert env.caget(f"{P}Accounting_RBV") == 0
        assert env.caget(f"{P}EngineName_RBV") != "None"
    phase = np.load(tmp_path / "phase.npy")
    assert phase.ndim == 2 and min(phase.shape) > 32 and 0.05 < np.ptp(phase) <= 2 * np.pi
    assert (tmp_path / "phase.png").stat().st_size > 1000
