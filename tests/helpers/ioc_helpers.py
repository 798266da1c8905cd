"""What the tests of the IOC share: a detector that is told what to send, and short-lived clients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from epics_env import EpicsEnv, wait_until
from folders import HELPERS


class Detector:
    """`scripted_detector.py`, or another script of the same protocol, as a child process."""

    def __init__(self, env: EpicsEnv, channel: str, script: str = "scripted_detector.py") -> None:
        self._popen = subprocess.Popen(
            [sys.executable, str(HELPERS / script), channel],
            env=env.server_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stdout.readline() == "serving\n"

    def send(self, **order: Any) -> None:
        """Send frames; returns when all are out."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        assert self._popen.stdout.readline() == "sent\n"

    def stop(self) -> None:
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_python(env: EpicsEnv, code: str, *arguments: str, timeout: float = 30.0) -> str:
    """What a short script prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env.env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record_list() -> dict[str, list[dict[str, Any]]]:
    """Every record by group, as the templates give them; loaded in a process of its own."""
    command = [sys.executable, "-m", "ptychostream.ioc.records.record_table", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    groups: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return groups


def attributes_of(image: Any) -> dict[str, Any]:
    """The NTAttributes of a served image."""
    return {attribute.name: attribute.value for attribute in image.attribute}


def replay_scan(env: EpicsEnv, file: Path, channel: str, prefix: str, scan_id: str) -> None:
    """Send a scan file to an IOC under a scan id, at 400 frames/s, once the IOC is connected."""
    words = ["replay", str(file), "--pv", channel, "--rate", "400"]
    words += ["--wait-for", f"{prefix}Connected_RBV", "--scan-id", scan_id]
    with env.start(sys.executable, "-m", "ptychostream", *words, env=env.server_env()) as process:
        assert process.wait(60) == 0, process.output


def wait_for(env: EpicsEnv, pv: str, value: Any, timeout: float = 15.0) -> None:
    """Until the PV has the value."""
    wait_until(lambda: env.caget(pv) == value, timeout, lambda: f"{pv} = {value}; it is {env.caget(pv)}")
