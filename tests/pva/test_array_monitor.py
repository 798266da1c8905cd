"""Where the compiled receiver comes from, and what runs without it. Receiving itself: test_receiver.py in plugins."""

from __future__ import annotations

import runpy
import subprocess
import sys
from typing import Any

import pytest
import setuptools
from folders import ROOT

from ptychostream.pva.array_monitor import ArrayMonitor

WITHOUT = """
import sys
sys.modules["ptychostream.pva._array_monitor"] = None  # an import of it fails
from ptychostream.pva.array_monitor import open_monitor, receiver_kind
monitor = open_monitor("none", "field(value)")
print(receiver_kind(), type(monitor).__name__)
monitor.close()
"""


@pytest.mark.slow
def test_without_the_compiled_module_images_come_through_p4p() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["p4p", "P4pMonitor"], done.stderr


def _modules_to_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **words: given.update(words))
    runpy.run_path(str(ROOT / "setup.py"))
    return [extension.name for extension in given["ext_modules"]]


def test_without_a_compiler_the_package_is_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    if ArrayMonitor is not None:
        assert _modules_to_build(monkeypatch) == ["ptychostream.pva._array_monitor"]
    monkeypatch.setenv("PATH", "")
    assert _modules_to_build(monkeypatch) == []


def test_without_the_libraries_the_package_is_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pvxslibs", None)
    assert _modules_to_build(monkeypatch) == []


@pytest.mark.skipif(ArrayMonitor is None, reason="this installation has no compiled receiver")
def test_a_monitor_that_is_closed_gives_nothing_and_does_no_harm() -> None:
    assert ArrayMonitor is not None
    monitor = ArrayMonitor("none", "field(value)")
    assert list(monitor.take((), 10)) == []
    monitor.subscribe()
    monitor.wake()
    monitor.wait(60.0, 0.0)  # returns at once, for it was woken
    monitor.forget()
    monitor.unsubscribe()
    monitor.unsubscribe()
    monitor.close()
    assert list(monitor.take((), 10)) == []
    with pytest.raises(TypeError):
        monitor.take(["no tuple"], 10)  # type: ignore[arg-type]
