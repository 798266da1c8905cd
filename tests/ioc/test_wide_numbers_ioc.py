"""Whole numbers beyond 31 bits in an IOC, as clients of Channel Access and of PV Access see them, over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import Detector, wait_for

pytestmark = pytest.mark.server

P, CHANNEL = "wide:", "wide:det:Pva1:Image"
WORDS = ("--prefix", P, "--input-pv", CHANNEL, "--engine", "None", "--frame-shape", "16x16")
LEVEL = 4_294_967_293  # of a 32-bit detector
WIDE = ("ArrayCounter_RBV", "Saturation", "Saturation_RBV", "SaturationProposed_RBV", "PositionSamplesTwice_RBV")


def both(env: EpicsEnv, name: str) -> tuple[Any, Any]:
    """Over Channel Access, and over PV Access."""
    return env.caget(f"{P}{name}"), env.pvget(f"{P}{name}").value


@pytest.mark.slow
def test_a_level_and_a_counter_of_more_than_31_bits(tmp_path: Path) -> None:
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector:
        saved, line = tmp_path / "setpoints.sav", f"{P}Saturation {LEVEL}\n"
        with env.start_ioc(*WORDS, "--autosave", str(saved)) as ioc:
            wait_for(env, f"{P}Connected_RBV", 1)
            env.caput(f"{P}Saturation", LEVEL)
            assert both(env, "Saturation_RBV") == (LEVEL, LEVEL)
            env.pva.put(f"{P}Saturation", 2**53, request="record[block=true]", timeout=10)
            assert both(env, "Saturation_RBV") == (2**53, 2**53)
            env.caput(f"{P}Saturation", LEVEL)
            env.caput(f"{P}ArrayCounter", 2**31 - 2)
            detector.send(scan="w1", count=6)
            wait_for(env, f"{P}ArrayCounter_RBV", 2**31 + 4)
            assert both(env, "ArrayCounter_RBV")[1] == 2**31 + 4
            for name in WIDE:  # an older client asks for the native type: Channel Access has no 64 bits
                assert isinstance(env.caget(f"{P}{name}"), float)
                assert env.pvget(f"{P}{name}").type()["value"] == "l"
            wait_until(lambda: saved.exists() and line in saved.read_text(), 15, "the level on disk")
            assert ioc.stop() == 0, ioc.output
        with env.start_ioc(*WORDS, "--autosave", str(saved)) as ioc:
            assert both(env, "Saturation") == (LEVEL, LEVEL)
            assert both(env, "Saturation_RBV") == (LEVEL, LEVEL)
            assert env.caget(f"{P}AutosavePassedOver_RBV") == 0
