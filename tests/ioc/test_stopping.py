"""The IOC ends within seconds of a signal, whatever waits, and at once at the second one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from epics_env import EpicsEnv, Process, wait_until
from ioc_helpers import Detector
from tiny_model import write_tiny

pytestmark = pytest.mark.server

# An engine that answers while it is tried, and then waits for ever.
STUCK = """
import threading
from ptychostream.plugins.engines.base import BatchedEngine
class Stuck(BatchedEngine):
    name = "Stuck"
    supported = ("float32",)
    def __init__(self, model, options):
        super().__init__(model, options)
        self.version, self.device = "1", "nowhere"
        self.precision = self.choose_precision(options.precision, "float32")
    def _run(self, runs):
        if self._counts.max() > 1000:
            print("stuck now", flush=True)
            threading.Event().wait()
        self._phase[:] = self._counts * 0.01
    def _release(self):
        pass
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Process]:
    """An IOC whose engine holds frames for ever."""
    (tmp_path / "stuck.py").write_text(STUCK)
    write_tiny(tmp_path / "m.onnx")
    config = tmp_path / "ioc.toml"
    model = f'[model]\nfile = "{tmp_path / "m.onnx"}"\n[engine]\nown = "stuck:Stuck"\n'
    config.write_text(f'prefix = "stop:"\n[input]\npv = "stop:det"\n{model}')
    with EpicsEnv() as env, Detector(env, "stop:det") as detector:
        child = {**env.server_env(), "PYTHONPATH": str(tmp_path)}
        with env.start_ioc("--config", str(config), prefix="stop:", wait="ready", env=child) as ioc:
            detector.send(scan="s", count=40, value=2000)
            wait_until(lambda: "stuck now" in ioc.output, 30, lambda: ioc.output)
            yield ioc


def test_it_ends_by_force_when_the_engine_does_not_return_and_says_what_is_left(stuck: Process) -> None:
    stuck.popen.send_signal(signal.SIGTERM)
    assert stuck.wait(30) == 1, stuck.output
    assert "frames are not stitched" in stuck.output, stuck.output


def test_a_second_signal_ends_it_at_once(stuck: Process) -> None:
    stuck.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: "ending" in stuck.output, 10, lambda: stuck.output)
    stuck.popen.send_signal(signal.SIGTERM)
    assert stuck.wait(30) == 128 + signal.SIGTERM, stuck.output
