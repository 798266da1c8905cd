"""`ptychostream doctor`: faults that are put in one at a time are named, and a healthy stage has none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from epics_env import EpicsEnv
from ioc_helpers import Detector
from tiny_model import tiny_contract, write_tiny

from ptychostream.doctor.clock import check_clock
from ptychostream.doctor.examine import intake_of
from ptychostream.doctor.files import check_autosave, check_disk
from ptychostream.doctor.finding import Finding, Level, exit_code
from ptychostream.doctor.frames import check_frames
from ptychostream.doctor.memory import check_memory
from ptychostream.doctor.model import check_engine, check_model
from ptychostream.doctor.positions import SeenPositions, check_positions
from ptychostream.doctor.records import check_records
from ptychostream.doctor.region import check_region
from ptychostream.doctor.scan_marks import check_marks
from ptychostream.doctor.scan_pv import check_scan_pvs
from ptychostream.doctor.servers import check_servers
from ptychostream.doctor.stream import SeenFrame, SeenStream
from ptychostream.errors import DropCause, FrameError
from ptychostream.frames.stream_watch import Region
from ptychostream.ioc.config.settings import IocSettings
from ptychostream.ioc.records.autosave import format_values
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.engines.base import EngineStatus
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.pva.reading import RawArray

NOW = 1.79e9
SETTINGS = IocSettings.model_validate({"input": {"pv": "det:Image"}})
CONTRACT = tiny_contract(name="tiny")
ROWS, COLUMNS = CONTRACT.input_shape


def healthy(count: int = 20, **changes: Any) -> SeenStream:
    """A scan of `count` frames at 100/s that began after the subscription."""
    frames = [
        SeenFrame(
            raw_id=7 + n,
            time=NOW + 0.5 + n / 100,
            arrived=NOW + 0.502 + n / 100,
            shape=(ROWS, COLUMNS),
            dtype="uint16",
            attributes={"PositionX": 1e-6 * n, "PositionY": 0.0, "ScanID": "s1", "ScanComplete": int(n == count - 1)},
        )
        for n in range(count)
    ]
    return replace(SeenStream("det:Image", NOW, 3.0, connected=True, frames=frames), **changes)


def every(change: Callable[[int, SeenFrame], SeenFrame]) -> SeenStream:
    """The scan with each frame changed."""
    seen = healthy()
    seen.frames = [change(n, frame) for n, frame in enumerate(seen.frames)]
    return seen


def of_stream(seen: SeenStream, settings: IocSettings = SETTINGS) -> list[Finding]:
    clock = check_clock(seen)
    found = [*check_frames(seen, CONTRACT), *check_marks(seen, settings), *([clock] if clock else [])]
    return [*found, *check_positions(settings.positions, seen, None)]


def bad(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level is not Level.OK]


def with_attributes(frame: SeenFrame, **changes: Any) -> SeenFrame:
    return replace(frame, attributes={**frame.attributes, **changes})


def without(frame: SeenFrame, name: str) -> SeenFrame:
    return replace(frame, attributes={key: value for key, value in frame.attributes.items() if key != name})


def test_a_healthy_stream_has_no_fault() -> None:
    found = of_stream(healthy())
    assert bad(found) == []
    assert {one.check for one in found} == {
        "frame",
        "rate",
        "frame ids",
        "scan id",
        "end of scan",
        "clock",
        "positions",
    }
    assert "20 frames within 3 s, 100/s" in next(one.what for one in found if one.check == "rate")


FAULTS: dict[str, tuple[SeenStream, str, Level, str]] = {
    "another region": (
        every(lambda _, f: replace(f, shape=(ROWS + 8, COLUMNS))), "frame", Level.FAIL, "where model tiny takes",
    ),
    "two plugins on one channel": (
        every(lambda n, f: replace(f, shape=(ROWS, COLUMNS // (1 + n % 2)))), "frame", Level.FAIL, "by turns",
    ),
    "floats": (
        healthy(frames=[], refused=[FrameError(DropCause.TYPE, "values of type float32", remedy="send counts")]),
        "updates", Level.FAIL, "1 of 1 updates of det:Image are no frames: values of type float32",
    ),
    "nobody acquires": (healthy(frames=[]), "images", Level.WARN, "no image of det:Image came within 3 s"),
    "a held image": (
        healthy(frames=[], held=replace(healthy().frames[0], time=NOW - 900)), "images", Level.WARN,
        "holds its last image, uniqueId 7, 900 s old",
    ),
    "frames lost": (
        every(lambda n, f: replace(f, raw_id=f.raw_id + 3 * (n // 5))), "frame ids", Level.FAIL, "9 of 29 frames are",
    ),
    "frames twice": (
        healthy(frames=[f for frame in healthy().frames for f in (frame, frame)]), "frame ids", Level.FAIL,
        "20 of 40 frames came again",
    ),
    "a clock of 1990": (
        every(lambda _, f: replace(f, time=f.time - 631152000)), "clock", Level.FAIL, "6.31e+08 s behind",
    ),
    "a clock ahead": (every(lambda _, f: replace(f, time=f.time + 30)), "clock", Level.FAIL, "ahead of"),
    "no time stamps": (every(lambda _, f: replace(f, time=0.0)), "clock", Level.WARN, "have no time stamp"),
    "equal time stamps": (
        every(lambda n, f: replace(f, time=NOW + 0.5 + n // 10)), "clock", Level.FAIL, "18 of 20 frames have the time",
    ),
    "the end is a level": (
        every(lambda _, f: with_attributes(f, ScanComplete=1)), "end of scan", Level.FAIL, "is a level that stays",
    ),
    "no end": (every(lambda _, f: without(f, "ScanComplete")), "end of scan", Level.WARN, "no attribute ScanComplete"),
    "no scan id": (every(lambda _, f: without(f, "ScanID")), "scan id", Level.WARN, "no attribute ScanID"),
    "no position": (every(lambda _, f: without(f, "PositionX")), "positions", Level.FAIL, "no attribute PositionX"),
    "a position that is no number": (
        every(lambda _, f: with_attributes(f, PositionY="undefined")), "positions", Level.FAIL,
        "attribute PositionY is 'undefined' in 20 of 20 frames",
    ),
    "positions of NaN": (
        every(lambda n, f: with_attributes(f, PositionX=math.nan if n > 9 else 1.0)), "positions", Level.FAIL,
        "is nan in 10",
    ),
    "a stage that stands": (
        every(lambda _, f: with_attributes(f, PositionX=1.0)), "positions", Level.WARN, "20 frames have one position",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_stream_is_named_and_no_other(name: str) -> None:
    seen, check, level, what = FAULTS[name]
    (found,) = bad(of_stream(seen))
    assert (found.check, found.level) == (check, level)
    assert what in found.what
    assert found.remedy
    assert exit_code([found]) == (level is Level.FAIL)


def test_frames_that_are_not_wanted_are_counted_and_their_positions_and_shapes_are_not_looked_at() -> None:
    other = every(
        lambda n, f: replace(without(f, "PositionX"), shape=(1, 1), fault=DropCause.UNSELECTED) if n % 2 else f
    )
    assert bad(of_stream(other)) == []
    (found,) = bad(of_stream(every(lambda _, f: replace(f, fault=DropCause.UNSELECTED))))
    assert (found.check, found.level) == ("selection", Level.FAIL)
    assert "select_attribute" in found.remedy


@pytest.mark.parametrize(
    ("servers", "connected", "level", "what"),
    [
        ([], False, Level.FAIL, "no server has det:Image (searched 10.0.0.255:5076)"),
        (
            ["10.0.0.1:5075", "10.0.0.2:5075"],
            True,
            Level.FAIL,
            "2 servers have det:Image: 10.0.0.1:5075, 10.0.0.2:5075",
        ),
        (["10.0.0.1:5075"], True, Level.OK, "is served by 10.0.0.1:5075"),
        ([], True, Level.OK, "a name server"),
    ],
)
def test_the_detector_has_one_server(servers: list[str], connected: bool, level: Level, what: str) -> None:
    found = check_servers("input.pv", "det:Image", servers, connected, "10.0.0.255:5076")
    assert (found.check, found.level) == ("detector", level)
    assert what in found.what


def test_a_route_covers_the_frames_or_the_first_that_it_does_not_is_named(tmp_path: Path) -> None:
    route = tmp_path / "route.csv"
    route.write_text("x,y\n" + "".join(f"{n},0\n" for n in range(20)), encoding="utf-8")
    for first, level, what in ((7, Level.OK, "ids 7 to 26"), (0, Level.FAIL, "frame 20 is not in")):
        settings = SETTINGS.positions.model_copy(update={"source": "route", "route_file": route, "first_id": first})
        (found,) = check_positions(settings, healthy(), None)
        assert found.level is level
        assert what in found.what


def test_the_unit_that_a_route_states_is_compared(tmp_path: Path) -> None:
    route = tmp_path / "route.h5"
    with h5py.File(route, "w") as file:
        for axis in "xy":
            file[axis] = np.arange(40.0)
            file[axis].attrs["units"] = "mm"
    for unit, level in (("mm", Level.OK), ("um", Level.FAIL)):
        values = {"source": "route", "route_file": str(route), "axes": {"unit": unit}}
        (found,) = check_positions(IocSettings.model_validate({"positions": values}).positions, healthy(), None)
        assert found.level is level
        assert ("x says that its unit is mm, and um is configured" in found.what) == (level is Level.FAIL)


@pytest.mark.parametrize("kind", ["stream", "index"])
def test_a_channel_of_positions_is_looked_at(kind: str) -> None:
    source = IocSettings.model_validate({"positions": {"source": kind, kind: {"pv": "panda:pos"}}}).positions
    cases = {
        "20 samples in 4 updates": SeenPositions(True, 4, 20),
        "does not answer": SeenPositions(),
        "no column 'x'": SeenPositions(True, refused=["no column 'x'"]),
        "3 of 20 samples of panda:pos are not finite": SeenPositions(True, 4, 20, 3),
        "no sample of panda:pos came": SeenPositions(True),
    }
    for what, samples in cases.items():
        (found,) = check_positions(source, healthy(), samples)
        assert what in found.what
        assert (found.level is Level.OK) == (what.startswith("20"))


CONTRACT_OF_REGION = CONTRACT.model_copy(update={"region": {"offset_x": 8, "binning_x": 1, "reverse_x": False}})


@pytest.mark.parametrize(
    ("contract", "given", "region", "name"),
    [
        (CONTRACT_OF_REGION, {}, (8, 0, 1, 1, False, False), ""),
        (CONTRACT_OF_REGION, {}, (14, 0, 1, 1, False, False), "offset"),
        (CONTRACT_OF_REGION, {}, (8, 0, 2, 1, False, False), "binning"),
        (CONTRACT_OF_REGION, {}, (8, 0, 1, 1, True, False), "reverse"),
        (CONTRACT_OF_REGION, {"offset_x": 14}, (14, 0, 1, 1, False, False), ""),
        (CONTRACT, {}, (14, 0, 1, 1, False, False), ""),
        (CONTRACT, {}, (0, 0, 2, 2, False, False), "binning"),
        (CONTRACT, {"binning_x": 2, "binning_y": 2}, (0, 0, 2, 2, False, False), ""),
    ],
)
def test_the_region_is_judged_as_the_ioc_judges_it(
    contract: ModelContract, given: dict[str, int], region: Region, name: str
) -> None:
    settings = IocSettings.model_validate({"input": {"pv": "det:Image", "region": given}})
    intake = intake_of(settings, contract)
    seen = healthy()
    intake.watch.on_contradiction = seen.contradictions.extend
    counts = np.ones((ROWS, COLUMNS), np.uint16)
    seen.frames = [
        replace(one, fault=intake.frame(RawArray(one.raw_id, one.time, counts, one.attributes, region), NOW).fault)
        for one in seen.frames
    ]
    seen.said = intake.watch.description
    found = list(check_region(seen, contract))
    assert {one.level for one in found} == {Level.FAIL if name else Level.OK}
    for one in found:
        assert one.check == "region" and "model tiny" in one.what
        assert name in one.what and (not name or ("20 of 20 frames would be dropped" in one.what and one.remedy))


def test_a_source_of_positions_that_is_not_looked_at_is_said() -> None:
    own = SETTINGS.positions.model_copy(update={"own": "package:Class"})
    (found,) = check_positions(own, healthy(), None)
    assert (found.level, found.what) == (Level.WARN, "the source package:Class is not looked at here")


def test_scan_pvs_that_do_not_answer_are_named() -> None:
    scan = SETTINGS.scan.model_copy(update={"boundary": "pv", "active_pv": "scan:busy", "id_pv": "scan:id"})
    found = list(check_scan_pvs(scan, {"active_pv": "Done", "id_pv": 12.0}))
    assert [one.what for one in found] == ["scan:busy is Done: no scan runs", "scan:id is 12"]
    (silent, _) = check_scan_pvs(scan, {"id_pv": 12})
    assert (silent.level, silent.what) == (Level.FAIL, "scan:busy does not answer over CA")


def test_the_model_and_its_engine(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_tiny(path, name="tiny")
    found, contract = check_model(IocSettings.model_validate({"model": {"file": path}}))
    assert found.level is Level.OK and contract is not None and contract.name == "tiny"
    path.write_bytes(path.read_bytes()[:-100])
    found, contract = check_model(IocSettings.model_validate({"model": {"file": path}}))
    assert (found.check, found.level, contract) == ("model", Level.FAIL, None)
    assert str(path) in found.what
    assert check_model(SETTINGS)[0].level is Level.WARN
    engines = [EngineStatus("TensorRT", False, "no NVIDIA GPU here"), EngineStatus("OpenVINO", True, "installed")]
    assert check_engine(SETTINGS, engines).what == "OpenVINO: installed"
    wanted = IocSettings.model_validate({"engine": {"name": "TensorRT"}})
    refused = check_engine(wanted, engines)
    assert (refused.level, refused.what) == (Level.FAIL, "TensorRT cannot run here: no NVIDIA GPU here")
    assert refused.remedy == "set engine.name to Auto or OpenVINO"
    assert check_engine(SETTINGS, engines[:1]).level is Level.FAIL


def test_the_agent_and_its_lease() -> None:
    running = {
        "Ready_RBV": 1, "StatusMessage_RBV": "running", "Agent:Lost_RBV": 0, "Agent:Lease_RBV": "hpc:12",
        "Agent:State": "Active", "AutosaveStatus_RBV": "Fine", "AutosaveMessage_RBV": "",
    }  # fmt: skip
    assert bad(list(check_records("p:", running, "attributes"))) == []
    cases = {
        "the agent has gone": {"Agent:Lost_RBV": 1},
        "no agent has the lease": {"Agent:Lease_RBV": ""},
        "hpc:12 reports a fault": {"Agent:State": "Fault"},
        "the IOC cannot save its setpoints": {"AutosaveStatus_RBV": "Failed"},
        "saved values were not restored": {"AutosaveMessage_RBV": "MaxLatency = 'nan'"},
        "p: is not ready: waiting for det:Image": {"Ready_RBV": 0, "StatusMessage_RBV": "waiting for det:Image"},
        "no position is written": {"PositionsCount_RBV": 0},
    }
    for what, change in cases.items():
        (found,) = bad(list(check_records("p:", {"PositionsCount_RBV": 5, **running, **change}, "waveform")))
        assert what in found.what


def test_the_files(tmp_path: Path) -> None:
    full = IocSettings.model_validate({"save": {"directory": tmp_path}, "autosave": tmp_path / "s.sav", "prefix": "p:"})
    assert check_disk(full, lambda _: 5 << 30).level is Level.OK
    assert "100 MB are free" in check_disk(full, lambda _: 100_000_000).what
    gone = IocSettings.model_validate({"save": {"directory": tmp_path / "no"}, "autosave": tmp_path / "no" / "s.sav"})
    assert (check_disk(gone).level, check_autosave(gone).level) == (Level.FAIL, Level.FAIL)
    assert check_autosave(full).level is Level.OK
    (tmp_path / "s.sav").write_text(format_values({"p:PhaseRate": 5.0, "p:MaxLatency": math.nan}), encoding="utf-8")
    found = check_autosave(full)
    assert found.level is Level.WARN and "MaxLatency = 'nan'" in found.what
    (tmp_path / "s.sav").write_text("p:PhaseRate 5", encoding="utf-8")
    assert check_autosave(full).level is Level.FAIL
    assert check_autosave(SETTINGS).level is Level.WARN


@pytest.mark.server
def test_real_servers_are_found_and_a_held_image_is_told_from_a_scan(tmp_path: Path) -> None:
    config = tmp_path / "ioc.toml"
    config.write_text('prefix = "doc:"\n[input]\npv = "doc:Image"\n[engine]\nname = "None"\n', encoding="utf-8")
    command = [sys.executable, "-m", "ptychostream", "doctor", "--config", str(config), "--seconds", "2", "--json"]

    def checks(env: EpicsEnv, meanwhile: Callable[[subprocess.Popen[str]], None] | None = None) -> dict[str, Any]:
        with subprocess.Popen(command, env=env.env, stdout=subprocess.PIPE, text=True) as doctor:
            if meanwhile is not None:
                meanwhile(doctor)
            out, _ = doctor.communicate(timeout=60)
        told = json.loads(out)["checks"]
        assert doctor.returncode == any(one["level"] == "FAIL" for one in told)
        return {one["check"]: one for one in told}

    with EpicsEnv() as env:
        nobody = checks(env)["detector"]
        assert nobody["level"] == "FAIL" and "no server has doc:Image" in nobody["what"]
        with Detector(env, "doc:Image") as detector:
            detector.send(scan="s1", count=1, clock_s=-600)
            held = checks(env)
            assert held["detector"]["level"] == "OK" and "is served by 127.0.0.1:" in held["detector"]["what"]
            assert "holds its last image, uniqueId 1" in held["images"]["what"]

            def scan(doctor: subprocess.Popen[str]) -> None:
                first = 2
                while doctor.poll() is None:
                    detector.send(scan="s2", count=20, first=first, rate=100)
                    first += 20

            live = checks(env, scan)
            assert live["frame ids"]["level"] == "OK" and live["positions"]["level"] == "OK"
            with Detector(env, "doc:Image"):
                twice = checks(env)["detector"]
                assert twice["level"] == "FAIL" and "2 servers have doc:Image" in twice["what"]


def test_the_memory_that_the_frames_need_is_said() -> None:
    few = IocSettings(pipeline=PipelineSettings(queue_memory=3.0))  # a MiB in each place
    stream = SeenStream(
        "det:Pva1:Image",
        1000.0,
        5.0,
        connected=True,
        frames=[SeenFrame(n, 1000.0 + n / 100, 1000.0 + n / 100, (256, 256), "uint16", {}) for n in range(101)],
    )
    (told,) = check_memory(stream, few)
    assert told.level is Level.WARN
    assert "a frame takes 0.12 MiB, 1 MiB in each place hold 8 frames, 0.1 s at this rate" in told.what
    assert "queue_memory" in told.remedy
    (told,) = check_memory(stream, IocSettings(pipeline=PipelineSettings(queue_memory=3000.0)))
    assert (told.level, told.what.endswith("the queues' 4000 need 500 MiB")) == (Level.OK, True)
    assert not list(check_memory(SeenStream("det", 0.0, 1.0), few))
