"""The position receiver against real PVA servers: every layout, bad updates, a source that goes and comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, free_port, wait_until
from p4p import Type, Value
from p4p.nt import NTNDArray, NTScalar, NTTable
from p4p.server import Server
from p4p.server.thread import SharedPV

from ptychostream.errors import StreamError
from ptychostream.plugins.position_receiver import PositionReceiver, PositionReceiverSettings
from ptychostream.pva.indexed_update import decode_indexed
from ptychostream.pva.position_update import check_units, decode_positions

CHANNEL = "panda:Positions"
COLUMNS = [("time", "d"), ("x", "d"), ("y", "d")]
ROWS = np.array([[1.0, 10.0, -1.0], [2.0, 20.0, -2.0], [3.0, 30.0, -3.0]])
TIMES, X, Y = ROWS.T


def table(names: tuple[str, str, str] = ("time", "x", "y")) -> Value:
    nt = NTTable(columns=[(name, "d") for name in names])
    return nt.wrap([dict(zip(names, row, strict=True)) for row in ROWS])


def table_without_a_cell() -> Value:
    """The second row has no x: p4p puts the third row's in its place (findings/p4p-nttable-row-without-a-cell.sh)."""
    rows = [dict(zip(("time", "x", "y"), row, strict=True)) for row in ROWS]
    del rows[1]["x"]
    return NTTable(COLUMNS).wrap(rows)


SAMPLES = Type([("time", "ad"), ("x", "ad"), ("y", "ad")])


def samples(time: Any, x: Any, y: Any) -> Value:
    """A structure of three arrays."""
    return Value(SAMPLES, {"time": time, "x": x, "y": y})


def structure(kinds: str = "ad", **columns: Any) -> Value:
    return Value(Type([(name, kinds) for name in columns]), columns)


def group() -> Value:
    """As QSRV serves a group of three waveform records."""
    member = NTScalar.buildType("ad")
    value = Value(Type([("time", member), ("x", member), ("y", member)]))
    for name, column in zip(("time", "x", "y"), ROWS.T, strict=True):
        value[name] = {"value": column}
    return value


def nd_array(values: np.ndarray) -> Value:
    return NTNDArray().wrap(values)


# ---------------------------------------------------------------- what an update holds


@pytest.mark.parametrize(
    ("update", "columns"),
    [
        (table(), ("time", "x", "y")),
        (table(("TS", "ENC1", "ENC2")), ("TS", "ENC1", "ENC2")),
        (structure(time=TIMES, x=X, y=Y), ("time", "x", "y")),
        (structure("al", time=[1, 2, 3], x=[10, 20, 30], y=[-1, -2, -3]), ("time", "x", "y")),
        (group(), ("time", "x", "y")),
        (nd_array(ROWS), ("time", "x", "y")),
        (NTScalar("ad").wrap(ROWS.ravel()), ("time", "x", "y")),
    ],
    ids=["table", "PandABox table", "structure", "integers", "group", "NTNDArray", "NTScalarArray"],
)
def test_every_layout_gives_the_same_samples(update: Value, columns: tuple[str, str, str]) -> None:
    np.testing.assert_array_equal(decode_positions(update, columns), ROWS.T)


def test_one_sample_at_a_time() -> None:
    sample = decode_positions(structure("d", time=1.5, x=2.0, y=3.0))
    np.testing.assert_array_equal(sample, [[1.5], [2.0], [3.0]])


@pytest.mark.parametrize(
    "update",
    [structure(time=[], x=[], y=[]), NTNDArray.buildType()(), NTScalar("ad").wrap([]), NTTable(COLUMNS).wrap([])],
)
def test_an_empty_update_is_none(update: Value) -> None:
    assert decode_positions(update) is None


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (structure(time=TIMES, x=X, z=Y), "no column 'y'.*there are time, x, z"),
        (structure(time=TIMES, x=X[:2], y=Y), "different length: 3 of time, 2 of x, 3 of y"),
        (table_without_a_cell(), "different length: 3 of time, 2 of x, 3 of y"),
        (structure("as", time=["a"], x=["b"], y=["c"]), "not numbers"),
        (nd_array(ROWS.T.copy().reshape(3, 3)[:, :2].copy()), "6 values as 3 × 2"),
        (NTScalar("ad").wrap(np.arange(7.0)), "7 values as 2 × 3"),
        (NTScalar("d").wrap(1.0), "no column 'time'"),
    ],
)
def test_what_holds_no_positions_says_why(update: Value, why: str) -> None:
    with pytest.raises(StreamError, match=why):
        decode_positions(update)


# ---------------------------------------------------------------- the units that records state


STATED = Type([(name, NTScalar.buildType("ad", display=True)) for name in ("time", "x", "y")])


def stated(**units: str) -> Value:
    """A group of waveform records with their EGU."""
    value = Value(STATED)
    for name, column in zip(("time", "x", "y"), ROWS.T, strict=True):
        value[name] = {"value": column, "display": {"units": units.get(name, "")}}
    return value


@pytest.mark.parametrize(
    ("units", "why"),
    [
        ({"x": "mm", "y": "um"}, "x says that its unit is mm, and um is configured"),
        ({"x": "\u00b5m", "y": "nm"}, "y says that its unit is nm, and um is configured"),
        ({"x": "deg"}, "x says that its unit is deg"),
        ({"x": "microns", "y": "\u03bcm", "time": "s"}, ""),
        ({"x": "steps", "y": ""}, ""),  # an operator's own word cannot be compared
        ({}, ""),
    ],
)
def test_the_unit_that_a_record_states_is_compared_with_the_configured_one(units: dict[str, str], why: str) -> None:
    """x in mm was taken for x in \u00b5m: a thousand times too small, without a word."""
    update, expected = stated(**units), {"x": "um", "y": "um"}
    if not why:
        check_units(update, expected, "length")
        return
    with pytest.raises(StreamError, match=why) as caught:
        check_units(update, expected, "length")
    assert caught.value.remedy


def test_the_unit_of_times_is_compared_as_well() -> None:
    with pytest.raises(StreamError, match="time says that its unit is ms, and s is configured"):
        check_units(stated(time="ms"), {"time": "s"}, "time")


# ---------------------------------------------------------------- the subscription


class Heard:
    """What a receiver was told."""

    def __init__(self) -> None:
        self.samples: list[np.ndarray] = []
        self.arrivals: list[float] = []
        self.bad: list[str] = []
        self.connected: list[bool] = []

    def take(self, samples: np.ndarray, arrived: float) -> None:
        self.samples.append(samples)
        self.arrivals.append(arrived)

    @property
    def times(self) -> list[float]:
        return np.concatenate([block[0] for block in self.samples]).tolist() if self.samples else []


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as environment:
        yield environment


@contextmanager
def receiving(env: EpicsEnv, **settings: Any) -> Iterator[tuple[PositionReceiver, Heard]]:
    heard = Heard()
    with env.active():
        receiver = PositionReceiver(
            PositionReceiverSettings(channel=CHANNEL, **settings),
            heard.take,
            lambda error: heard.bad.append(str(error)),
            heard.connected.append,
        )
    receiver.start()
    try:
        yield receiver, heard
    finally:
        receiver.stop()


@contextmanager
def serving(env: EpicsEnv, first: Value) -> Iterator[Callable[[Value], None]]:
    pv = SharedPV(initial=first)
    ports = {name: str(free_port()) for name in ("EPICS_PVAS_SERVER_PORT", "EPICS_PVA_SERVER_PORT")}
    with Server(providers=[{CHANNEL: pv}], conf={**env.epics, **ports}, useenv=False):
        yield pv.post


@pytest.mark.server
def test_samples_arrive_in_seconds_and_in_order_and_bad_updates_are_named(env: EpicsEnv) -> None:
    with receiving(env, time_unit="ms") as (receiver, heard):
        with serving(env, samples(time=[], x=[], y=[])) as post:
            wait_until(lambda: receiver.connected, 20, "connected")
            for number in range(200):
                post(samples(time=[2.0 * number, 2.0 * number + 1], x=[0.0, 0.0], y=[1.0, 1.0]))
            post(samples(time=[1.0], x=[0.0, 0.0], y=[0.0]))
            post(samples(time=[400.0], x=[5.0], y=[6.0]))
            wait_until(lambda: len(heard.times) == 401, 20, lambda: f"{len(heard.times)} samples")
        np.testing.assert_allclose(heard.times, np.arange(401) * 1e-3)
        np.testing.assert_array_equal(heard.samples[-1][1:], [[5.0], [6.0]])
        assert len(heard.bad) == 1
        assert "different length" in heard.bad[0]
        assert heard.arrivals == sorted(heard.arrivals)


@pytest.mark.server
def test_samples_in_another_unit_than_the_configured_one_are_refused(env: EpicsEnv) -> None:
    with receiving(env, unit="um") as (receiver, heard), serving(env, stated(x="um", y="um")) as post:
        wait_until(lambda: receiver.connected and len(heard.times) == 3, 20, "connected")
        post(stated(x="mm", y="um"))
        wait_until(lambda: heard.bad, 20, "the refusal")
        post(stated(x="um", y="um"))
        wait_until(lambda: len(heard.times) == 6, 20, lambda: f"{len(heard.times)} samples")
        assert "x says that its unit is mm, and um is configured" in heard.bad[0]
        assert len(heard.bad) == 1


@pytest.mark.server
def test_the_source_goes_and_comes_back(env: EpicsEnv) -> None:
    with receiving(env) as (receiver, heard):
        for number in range(2):
            with serving(env, samples(time=[], x=[], y=[])) as post:
                wait_until(lambda: receiver.connected, 30, "connected")
                post(samples(time=[float(number)], x=[0.0], y=[0.0]))
                wait_until(lambda number=number: number in heard.times, 20, "its sample")
            wait_until(lambda: not receiver.connected, 20, "disconnected")
        assert heard.connected == [True, False, True, False]


@pytest.mark.server
def test_a_receiver_stops_with_and_without_a_source(env: EpicsEnv) -> None:
    with env.active():
        never = PositionReceiver(PositionReceiverSettings(channel=CHANNEL), lambda *_: None, lambda _: None)
    never.stop()
    with receiving(env) as (receiver, _):
        pass
    assert not receiver.connected


SENDER = """
import sys, numpy as np, pvaccess as pva
from ptychostream.sim.replay.position_stream import position_update
layout = sys.argv[1]
server = pva.PvaServer()
server.addRecord("panda:Positions", position_update(layout, (), (), ()), None)
print("up", flush=True)
sys.stdin.readline()
for number in range(500):
    server.update("panda:Positions", position_update(layout, np.arange(20) + 20.0 * number, np.ones(20), np.zeros(20)))
print("sent", flush=True)
sys.stdin.readline()
"""


@pytest.mark.server
@pytest.mark.parametrize("layout", ["table", "structure", "array"])
def test_a_pvapy_server_that_sends_faster_than_it_is_read_loses_nothing(env: EpicsEnv, layout: str) -> None:
    command = (sys.executable, "-c", SENDER, layout)
    with receiving(env) as (receiver, heard), env.start(*command, env=env.server_env()) as sender:
        wait_until(lambda: receiver.connected, 30, lambda: "connected: " + sender.output)
        say(sender)
        wait_until(lambda: len(heard.times) == 10_000, 20, lambda: f"{len(heard.times)} samples, {heard.bad[:1]}")
        say(sender)
    assert heard.times == list(range(10_000))
    assert not heard.bad


def say(process: Process) -> None:
    assert process.popen.stdin is not None
    process.popen.stdin.write(b"\n")
    process.popen.stdin.flush()


# ---------------------------------------------------------------- a real QSRV group

GROUP = """
record(waveform, "q:T") {field(FTVL, "DOUBLE") field(NELM, "10")
    info(Q:group, {"panda:Positions": {"time": {+channel: "VAL"}}})}
record(waveform, "q:X") {field(FTVL, "DOUBLE") field(NELM, "10")
    info(Q:group, {"panda:Positions": {"x": {+channel: "VAL"}}})}
record(waveform, "q:Y") {field(FTVL, "DOUBLE") field(NELM, "10")
    info(Q:group, {"panda:Positions": {"y": {+channel: "VAL"%s}}})}
"""


@pytest.mark.server
@pytest.mark.parametrize("trigger", ["", ', +trigger: "*"'])
def test_a_qsrv_group_is_whole_with_trigger_and_refused_without(env: EpicsEnv, trigger: str, tmp_path: Path) -> None:
    """Without `+trigger` the first of three updates has the new times with the old x and y."""
    database = tmp_path / "group.db"
    database.write_text(GROUP % trigger, encoding="utf-8")
    command = (sys.executable, "-m", "pvxslibs.ioc", "-d", str(database))
    with receiving(env) as (receiver, heard), env.start(*command, env=env.server_env()) as ioc:
        wait_until(lambda: receiver.connected, 30, lambda: "connected: " + ioc.output)
        for number in range(1, 4):
            for name in ("q:T", "q:X", "q:Y"):
                env.pva.put(name, [10.0 * number, 10.0 * number + 1], timeout=10)
        if trigger:
            wait_until(lambda: len(heard.times) == 6, 20, lambda: f"{heard.times}, {heard.bad[:1]}")
            assert not heard.bad
            for block in heard.samples:
                np.testing.assert_array_equal(block, np.stack([block[0]] * 3))
        else:
            wait_until(lambda: len(heard.bad) == 9, 20, lambda: f"{len(heard.bad)} bad")
            assert not heard.samples
            assert "new time and old x, y" in heard.bad[0]
            assert '+trigger:"*"' in heard.bad[0]


# ---------------------------------------------------------------- by index

INDEXED = Type([("index", "l"), ("x", "ad"), ("y", "ad"), ("scan", "s")])


def test_updates_by_index() -> None:
    update = Value(INDEXED, {"index": 7, "x": X, "y": Y, "scan": "S1"})
    index, x, y, scan, arm = decode_indexed(update)
    assert (index, x.tolist(), y.tolist(), scan, arm) == (7, X.tolist(), Y.tolist(), "S1", "")
    table = NTTable(columns=[("n", "l"), ("x", "d"), ("y", "d"), ("arm", "l")])
    rows = [{"n": number, "x": 1.0, "y": 2.0, "arm": 4} for number in (5, 6)]
    index, x, y, scan, arm = decode_indexed(table.wrap(rows), ("n", "x", "y"))
    assert (index.tolist(), x.tolist(), scan, arm) == ([5, 6], [1.0, 1.0], "", "4")
    rows[1]["arm"] = 5
    with pytest.raises(StreamError, match="arm 4 and others in one update"):
        decode_indexed(table.wrap(rows), ("n", "x", "y"))
    assert decode_indexed(Value(INDEXED, {"index": 0, "x": [], "y": []})) is None
    assert decode_indexed(Value(INDEXED)) is None
    for wrong, why in (
        (structure(first=[0], x=X, y=Y), r"no column 'index'.*there are first, x, y"),
        (Value(INDEXED, {"index": 0, "x": X}), "new index, x and old y"),
        (Value(INDEXED, {"index": 0, "x": X, "y": []}), "3 of x, 0 of y"),
    ):
        with pytest.raises(StreamError, match=why):
            decode_indexed(wrong)
