"""The structure from which ophyd-async builds a device, and the group Status."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator

import pytest
from epics_env import EpicsEnv, wait_until
from folders import HELPERS
from ioc_helpers import run_python

pytestmark = pytest.mark.server

P = "pvi:"


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as env, env.start_ioc("--prefix", P, "--engine", "None", "--frame-shape", "16x16"):
        yield env


def test_every_channel_that_pvi_names_is_there(env: EpicsEnv) -> None:
    devices = env.pvget(f"{P}PVI").value.todict()
    assert {"plugin", "scan", "model", "quality", "agent", "pictures"} <= devices.keys()
    named: dict[str, str] = {}
    for entry in devices.values():
        for name, signal in env.pvget(entry["d"]).value.todict().items():
            assert name.isidentifier(), name
            named |= dict.fromkeys(signal.values(), name)
    answers = env.pva.get(list(named), timeout=30, throw=False)
    assert [name for name, answer in zip(named, answers, strict=True) if isinstance(answer, Exception)] == []
    assert len(named) > 290


def test_setpoints_readbacks_and_commands_are_told_apart(env: EpicsEnv) -> None:
    quality = env.pvget(f"{P}quality:PVI").value.todict()
    assert quality["dose_scale"] == {"r": f"{P}DoseScale_RBV", "w": f"{P}DoseScale"}
    assert quality["compare_ssim"] == {"x": f"{P}CompareSSIM"}
    assert quality["ssim"] == {"r": f"{P}SSIM_RBV"}
    agent = env.pvget(f"{P}agent:PVI").value.todict()
    assert agent["state"] == {"r": f"{P}Agent:State"}
    assert env.pvget(f"{P}pictures:PVI").value.todict()["phase"] == {"r": f"{P}Phase"}


def test_status_is_one_structure_of_one_moment(env: EpicsEnv) -> None:
    status = env.pvget(f"{P}Status")
    assert (status.message, status.received) == ("no detector: InputPVAName is empty", 0)
    beats: list[float] = []
    watch = env.pva.monitor(f"{P}Status", lambda value: beats.append(value.heartbeat))
    wait_until(lambda: len(beats) > 3, 10, "a status each second")
    watch.close()
    assert {after - before for before, after in itertools.pairwise(beats[1:])} == {1}


@pytest.mark.skipif(
    importlib.util.find_spec("ophyd_async") is None, reason="ophyd-async is not installed: extra bluesky"
)
def test_ophyd_async_builds_its_device(env: EpicsEnv) -> None:
    found = json.loads(run_python(env, (HELPERS / "ophyd_probe.py").read_text(encoding="utf-8"), P, timeout=90))
    assert found["changed"] == 1
    assert found["state"] == "Live"
    assert found["phase"] == [[64, 64], "float32"]
    assert {"dose_scale", "ssim", "compare_ssim"} <= set(found["groups"]["quality"])
