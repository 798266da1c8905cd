"""Every emitter's updates, as recorded: replayed over PVA, each decodes to the right array or to a named cause."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from cases import written
from epics_env import EpicsEnv, wait_until
from folders import CORPUS, HELPERS
from make import expected

from ptychostream.frames.frame_ids import FrameIds
from ptychostream.pva.array_monitor import ArrayMonitor
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_updates import RawFile
from ptychostream.rawpva.raw_values import RawUpdate

pytestmark = pytest.mark.server

MANIFEST: dict[str, Any] = json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))
# A channel with none of an NTNDArray's fields cannot be subscribed to: kept for the round trip (test_raw_updates).
RECEIVED = sorted(MANIFEST.keys() - {"p4p_everything"})
# pvapy 5.6 ends with a segmentation fault when it is asked for an array of structures with a null element.
PVAPY_DIES_OF = {"attribute_null", "dimension_null"}
COUNTED = [name for name, entry in MANIFEST.items() if "ids" in entry]


def updates_of(name: str) -> list[RawUpdate]:
    with RawFile(CORPUS / f"{name}.pvaraw") as recording:
        return list(recording)


def served_as(name: str) -> str:
    """The recorded part's channels have one name: here each has its own."""
    return f"t:{name}"


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as environment:
        yield environment


@pytest.fixture(scope="module", params=["compiled", "p4p"])
def heard(env: EpicsEnv, request: pytest.FixtureRequest) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What a Receiver and pvapy's client with `decode` made of every file, by channel; all replayed at once."""
    if request.param == "compiled" and ArrayMonitor is None:
        pytest.skip("this installation has no compiled receiver")
    wanted = {
        served_as(name): {
            "attributes": sorted(_attributes(entry)),
            "updates": len(entry["updates"]),
            "pvapy": name not in PVAPY_DIES_OF,
            "empty": sum(update["is"] == "empty" for update in entry["updates"]),
        }
        for name in RECEIVED
        for entry in [MANIFEST[name]]
    }
    probe = subprocess.Popen(
        [sys.executable, str(HELPERS / "emitter_probe.py"), request.param],
        env=env.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert probe.stdin
    try:
        with RawServer(wanted, env.server_env()) as server:
            files = {served_as(name): updates_of(name) for name in RECEIVED}
            for channel, updates in files.items():
                server.announce(channel, updates[0])
            probe.stdin.write(json.dumps(wanted) + "\n")
            probe.stdin.flush()
            wait_until(
                lambda: all(server.monitors(c) == 1 + wanted[c]["pvapy"] for c in files),
                60,
                "every channel to be subscribed to",
            )
            for channel, updates in files.items():
                for update in updates:
                    server.publish(channel, update)
            output, errors = probe.communicate("all is sent\n", timeout=90)
            assert not any(server.overruns(channel) for channel in files)
    finally:
        probe.kill()
        probe.wait()
    assert probe.returncode == 0, errors
    assert "was lost" not in errors, errors
    answer: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(output)
    return answer


def _attributes(entry: dict[str, Any]) -> set[str]:
    return {name for update in entry["updates"] for name in update.get("attributes", {})} | {"absent", "Unit"}


def test_the_manifest_says_what_the_cases_do() -> None:
    """A case that was changed without `python tests/corpus/make.py` shows here."""
    laid_out = {name: case for name, case in written()}
    assert {name for name, entry in MANIFEST.items() if entry["kind"] == "written"} == laid_out.keys()
    assert {path.stem for path in CORPUS.glob("*.pvaraw")} == MANIFEST.keys()
    for name, case in laid_out.items():
        assert [told(expected(sent)) for sent in case.updates] == [told(u) for u in MANIFEST[name]["updates"]], name
        assert [update.type for update in updates_of(name)] == [case.type] * len(case.updates)


def told(expected: dict[str, Any]) -> dict[str, Any]:
    """What is compared exactly."""
    return {key: expected[key] for key in ("is", "cause", "dtype", "shape", "sha256", "id") if key in expected}


def check(got: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [told(update) for update in got] == [told(update) for update in expected]
    for one, other in zip(got, expected, strict=True):
        if other["is"] == "frame":
            assert one["time"] == pytest.approx(other["time"], abs=1e-6)
            assert one["attributes"].keys() == other["attributes"].keys()
            for name, value in other["attributes"].items():
                there = one["attributes"][name]
                assert there == value or (math.isnan(there) and math.isnan(value)), name


@pytest.mark.parametrize("name", RECEIVED)
def test_a_receiver_gets_the_right_array_or_the_cause(name: str, heard: dict[str, Any]) -> None:
    expected = [update for update in MANIFEST[name]["updates"] if update["is"] != "empty"]
    check(heard[served_as(name)]["receiver"], expected)


@pytest.mark.parametrize("name", sorted(set(RECEIVED) - PVAPY_DIES_OF))
def test_so_does_pvapys_client(name: str, heard: dict[str, Any]) -> None:
    check(heard[served_as(name)]["pvapy"], MANIFEST[name]["updates"])


@pytest.mark.parametrize("name", COUNTED)
def test_ids_are_unwrapped_and_counted(name: str, heard: dict[str, Any]) -> None:
    ids, expected = FrameIds(), MANIFEST[name]["ids"]
    frames = [update for update in heard[served_as(name)]["receiver"] if update["is"] == "frame"]
    assert [ids.accept(frame["id"], frame["time"]) for frame in frames] == expected["accepted"]
    counted = {"missed": ids.missed, "disordered": ids.disordered, "resets": ids.resets}
    assert counted == {key: expected[key] for key in counted}
