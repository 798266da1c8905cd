"""Puts that are refused: the old value comes back, autosave keeps what is in force, and the reason is one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import record_list, wait_for

pytestmark = pytest.mark.server

P = "refuse:"
PLAIN = ("--prefix", P, "--engine", "None", "--frame-shape", "16x16")
RECORDS = {record["name"].removeprefix("P:"): record for group in record_list().values() for record in group}
FLOATS = sorted(
    name
    for name, record in RECORDS.items()
    if record["type"] == "ao" and record["fields"]["ASG"] in ("OPERATOR", "MODEL")
)
TEXTS = ("InputPVAName", "PositionPVAName", "RouteFile", "SaveDirectory", "SSIMReference", "ModelFile")


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


@pytest.fixture(scope="module")
def saved(env: EpicsEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The autosave file of an IOC that runs."""
    path = tmp_path_factory.mktemp("saved") / "setpoints.sav"
    with env.start_ioc(*PLAIN, "--autosave", str(path)) as ioc:
        wait_until(path.exists, 15, "setpoints on disk")
        yield path
        assert ioc.stop() == 0, ioc.output
        assert "Traceback" not in ioc.output
        assert "pydantic" not in ioc.output


def message(env: EpicsEnv) -> str:
    return str(env.caget(f"{P}StatusMessage_RBV"))


def shown(env: EpicsEnv, name: str) -> tuple[float, float | None]:
    """A setpoint and its readback, where it has one."""
    back = f"{name}_RBV"
    return env.pvget(f"{P}{name}").value, env.pvget(f"{P}{back}").value if back in RECORDS else None


def put(env: EpicsEnv, over: str, name: str, value: Any) -> None:
    """Put with completion."""
    if over == "ca":
        env.caput(f"{P}{name}", value)
    else:
        env.pva.put(f"{P}{name}", value, request="record[block=true]", timeout=10)


def test_every_floating_setpoint_is_looked_at() -> None:
    assert {"FieldX", "MaxLatency", "RollbackTolerance", "Agent:Tolerance", "DoseScale"} <= set(FLOATS)


@pytest.mark.parametrize("over", ["ca", "pva"])
def test_nan_is_refused(env: EpicsEnv, saved: Path, over: str) -> None:
    for name in FLOATS:
        before = shown(env, name)
        put(env, over, name, math.nan)
        assert shown(env, name) == before, name
        assert message(env) == f"refused: {name}: {name} = nan (give a finite number)"
    assert "nan" not in saved.read_text()


def test_infinity_is_beyond_the_limit_and_never_in_force(env: EpicsEnv, saved: Path) -> None:
    """EPICS moves a number beyond the limits to the limit before anybody is told of it."""
    assert saved.exists()
    for name in FLOATS:
        before = env.pvget(f"{P}{name}")
        for value, limit in ((math.inf, before.control.limitHigh), (-math.inf, before.control.limitLow)):
            put(env, "pva", name, value)
            assert shown(env, name)[0] == limit, name
        put(env, "pva", name, before.value)
        assert shown(env, name)[0] == before.value, name


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("DropPolicy", 7, "DropPolicy = 7 (give a state from 0 to 1)"),
        ("PositionSource", 2, "no route file named (write its path there first)"),
        ("Engine", 15, "Engine = 15 (give a state from 0 to 6)"),
    ],
)
def test_a_refused_setpoint_is_shown_and_saved_as_it_is_in_force(
    env: EpicsEnv, saved: Path, name: str, value: int, why: str
) -> None:
    before, in_force = env.caget(f"{P}{name}"), env.caget(f"{P}{name}_RBV")
    env.caput(f"{P}{name}", value)
    assert (env.caget(f"{P}{name}"), env.caget(f"{P}{name}_RBV")) == (before, in_force)
    assert message(env).endswith(why)
    count = env.caget(f"{P}ScanFrames") + 1
    env.caput(f"{P}ScanFrames", count)  # the file is written after this
    wait_until(lambda: f"{P}ScanFrames {count}\n" in saved.read_text(), 15, "setpoints on disk")
    assert f"{P}{name} {before}\n" in saved.read_text()


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_may_have_been_cut_is_refused(env: EpicsEnv, saved: Path, name: str) -> None:
    assert saved.exists()
    before = env.caget(f"{P}{name}")
    env.caput(f"{P}{name}", list(b"/" + b"x" * 6000 + b"\0"))
    assert env.caget(f"{P}{name}") == before
    assert "may be cut" in message(env)


def test_a_path_is_read_back_as_it_was_put(env: EpicsEnv, saved: Path) -> None:
    """With or without a slash at its end: a client waits for the text that it has put."""
    for text in (f"{saved.parent}/", str(saved.parent), f"{saved.parent}/./"):
        env.caput(f"{P}SaveDirectory", list(text.encode() + b"\0"))
        assert env.caget(f"{P}SaveDirectory_RBV") == env.caget(f"{P}SaveDirectory") == text


def test_a_string_that_may_have_been_cut_is_refused(env: EpicsEnv, saved: Path) -> None:
    assert saved.exists()
    env.pva.put(f"{P}XAttribute", "A" * 50, request="record[block=true]", timeout=10)
    assert (env.caget(f"{P}XAttribute"), env.caget(f"{P}XAttribute_RBV")) == ("PositionX", "PositionX")
    assert "may be cut" in message(env)
    env.caput(f"{P}XAttribute", "A" * 38)
    assert env.caget(f"{P}XAttribute_RBV") == "A" * 38


def test_saved_values_that_do_not_fit_are_passed_over(env: EpicsEnv, tmp_path: Path) -> None:
    path = tmp_path / "setpoints.sav"
    lines = {
        "MaxLatency": "nan", "DropPolicy": "7", "QueueSize": "0", "FieldX": "1e999", "Agent:Tolerance": "NaN",
        "EnableCallbacks": "maybe", "START_CNT": "3.5", "NoSuchRecord": "1", "XAttribute": "A" * 60,
    }  # fmt: skip
    good = {"PhaseRate": "7.5", "ScanFrames": "12", "Agent:Interval": "120.0"}
    text = "".join(f"bad:{name} {value}\n" for name, value in (*lines.items(), *good.items()))
    path.write_text(f"{text}<END>\n", encoding="utf-8")
    command = ("--prefix", "bad:", "--engine", "None", "--frame-shape", "16x16", "--autosave", str(path))
    with env.start_ioc(*command) as ioc:
        wait_for(env, "bad:AutosavePassedOver_RBV", len(lines))
        told = env.caget("bad:AutosaveMessage_RBV")
        for name in lines:
            assert name in told
            assert f"{name} = " in ioc.output or f"{name}: " in ioc.output
        assert env.pvget("bad:AutosavePassedOver_RBV")["alarm.severity"] == 1
        assert (env.caget("bad:MaxLatency"), env.caget("bad:DropPolicy"), env.caget("bad:QueueSize")) == (50, 0, 2000)
        assert (env.caget("bad:PhaseRate_RBV"), env.caget("bad:ScanFrames"), env.caget("bad:Agent:Interval")) == (
            7.5, 12, 120,
        )  # fmt: skip
        wait_until(lambda: "bad:MaxLatency 50.0\n" in path.read_text(), 15, "what is in force on disk")
        assert ioc.stop() == 0, ioc.output
