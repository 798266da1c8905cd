"""The receiver against real PVA servers in processes of their own: pvapy's, p4p's, and pvapy's simulated detector."""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from epics_env import EpicsEnv
from folders import HELPERS

from ptychostream.pva.array_monitor import ArrayMonitor

pytestmark = pytest.mark.server

PVAPY_DETECTOR = """
import json, sys
import numpy as np, pvaccess as pva
from ptychostream.sim.replay.ntndarray import build
server = pva.PvaServer()
server.addRecord("t:Image", pva.NtNdArray(), None)
print("up", flush=True)
for line in sys.stdin:
    first, last, codec, dtype, attributes = json.loads(line)
    for number in range(first, last):
        counts = np.full((32, 48), number % 100, dtype)
        image = build(counts, number, 1.7e9 + number, attributes, codec)
        if "binned" in attributes:
            x = {"size": 48, "offset": 5, "fullSize": 101, "binning": 2, "reverse": True}
            image["dimension"] = [x, {"size": 32, "offset": 6, "fullSize": 134, "binning": 4, "reverse": False}]
        server.update("t:Image", image)
    print("sent", flush=True)
"""

P4P_DETECTOR = """
import sys
import numpy as np
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV
kind = NTNDArray.buildType()
pv = SharedPV(initial=kind())
with Server(providers=[{"t:Image": pv}]):
    print("up", flush=True)
    for line in sys.stdin:
        kind_of, number = line.split()
        counts = np.full((32, 48), int(number) % 100, np.uint16)
        value = NTNDArray().wrap(counts.astype(np.float32) if kind_of == "float" else counts)
        value.uniqueId = int(number)
        value.dataTimeStamp = {"secondsPastEpoch": 1_700_000_000 + int(number), "nanoseconds": 500_000_000}
        value.codec.name = "snappy" if kind_of == "codec" else ""  # what is not set stays as it was
        if kind_of == "short":
            value.dimension[0].size = 47
        pv.post(value)
        print("sent", flush=True)
"""


class Child:
    """A process that is written lines to and read lines from."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.popen.stdout
        for line in self.popen.stdout:
            self._lines.put(line.strip())

    def say(self, line: str) -> None:
        assert self.popen.stdin
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def hear(self, timeout: float = 30.0) -> str:
        return self._lines.get(timeout=timeout)

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The events up to and with the one that is wanted."""
        events: list[dict[str, Any]] = []
        while not events or not wanted(events[-1]):
            events.append(json.loads(self.hear()))
        return events

    def end(self) -> int:
        """Close its stdin, on which it ends by itself."""
        assert self.popen.stdin
        self.popen.stdin.close()
        try:
            return self.popen.wait(20)
        finally:
            self.kill()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reading.join(10)
        assert self.popen.stdin and self.popen.stdout
        self.popen.stdin.close()
        self.popen.stdout.close()


@pytest.fixture
def env() -> EpicsEnv:
    return EpicsEnv()


RECEIVERS = ("compiled", "p4p")


class Bench:
    """Starts detectors and receivers of one kind, and ends them all."""

    def __init__(self, env: EpicsEnv, kind: str) -> None:
        self._env = env
        self.kind = kind
        self.children: list[Child] = []

    def child(self, *command: str, server: bool = False) -> Child:
        child = Child([sys.executable, *command], self._env.server_env() if server else self._env.env)
        self.children.append(child)
        return child

    def detector(self, program: str = PVAPY_DETECTOR) -> Child:
        child = self.child("-c", program, server=True)
        assert child.hear() == "up"
        return child

    def receiver(self, **settings: Any) -> Child:
        child = self.child(
            str(HELPERS / "receiver_probe.py"), json.dumps({"channel": "t:Image", **settings}), self.kind
        )
        child.until(lambda event: event["event"] == "started")
        return child


@pytest.fixture(params=RECEIVERS)
def bench(env: EpicsEnv, request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "compiled" and ArrayMonitor is None:
        pytest.skip("this installation has no compiled receiver")
    bench = Bench(env, request.param)
    yield bench
    for child in bench.children:
        child.kill()


def send(detector: Child, first: int, last: int, codec: str = "", dtype: str = "uint16", **attributes: Any) -> None:
    detector.say(json.dumps([first, last, codec, dtype, attributes]))
    assert detector.hear() == "sent"


def frame_of(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "frame" and event["id"] == number


def connected(value: bool) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "connected" and event["value"] is value


def test_every_frame_of_a_burst_arrives_once_in_order_and_whole(bench: Bench) -> None:
    detector = bench.detector()
    send(detector, 0, 1)
    receiver = bench.receiver(attributes=["x", "y"])
    assert receiver.until(connected(True))[:-1] == [], "the image that was there is the past"
    send(detector, 1, 501, x=1.5, y=2, ScanID="scan 1", other="not asked for")
    events = receiver.until(frame_of(500))
    assert [event["id"] for event in events] == list(range(1, 501))
    last = events[-1]
    assert last["attributes"] == {"x": 1.5, "y": 2, "ScanID": "scan 1"}
    assert (last["scan"], last["time"], last["shape"], last["dtype"]) == ("scan 1", 1.7e9 + 500, [32, 48], "uint16")
    assert all(event["sum"] == event["id"] % 100 * 32 * 48 for event in events)
    assert receiver.end() == 0
    assert json.loads(receiver.hear()) == {"event": "stopped", "connected": True}


def test_codecs_types_and_the_scan_that_is_told(bench: Bench) -> None:
    detector = bench.detector()
    receiver = bench.receiver(scan_attribute="Scan")
    receiver.until(connected(True))
    receiver.say("told")
    receiver.until(lambda event: event["event"] == "scan")
    streams = [("lz4", "int8"), ("bslz4", "uint32"), ("blosc", "int64"), ("zlib", "uint64"), ("", "int16")]
    for number, (codec, dtype) in enumerate(streams, start=1):
        send(detector, number, number + 1, codec, dtype)
    events = receiver.until(frame_of(len(streams)))
    assert [event["dtype"] for event in events] == [dtype for _, dtype in streams]
    assert {event["scan"] for event in events} == {"told"}
    send(detector, 10, 11, Scan=42)
    assert receiver.until(frame_of(10))[-1]["scan"] == "42"


def test_bad_frames_are_reported_with_their_cause_and_the_stream_goes_on(bench: Bench) -> None:
    detector, receiver = bench.detector(P4P_DETECTOR), bench.receiver()
    receiver.until(connected(True))
    heard = []
    for number, kind in enumerate(("good", "float", "codec", "short", "good")):
        detector.say(f"{kind} {number}")
        assert detector.hear() == "sent"
        heard.append(receiver.until(lambda event: event["event"] in ("frame", "bad"))[-1])
    assert [event.get("id", event.get("cause")) for event in heard] == [0, "Type", "Codec", "Shape", 4]
    assert heard[-1]["time"] == 1.7e9 + 4.5
    assert "snappy" in heard[2]["text"]


def test_a_detector_that_comes_late_vanishes_and_returns(bench: Bench) -> None:
    receiver = bench.receiver()
    for first in (0, 10):
        detector = bench.detector()
        send(detector, first, first + 1)
        assert receiver.until(connected(True)) == [{"event": "connected", "value": True}]
        send(detector, first + 1, first + 4)
        events = receiver.until(frame_of(first + 3))
        # The first one may have come before the subscription; its scan goes on.
        assert [event["id"] for event in events] == [first, first + 1, first + 2, first + 3]
        detector.kill()
        assert receiver.until(connected(False)) == [{"event": "connected", "value": False}]
    assert receiver.end() == 0


def test_what_the_dimensions_say_of_the_region(bench: Bench) -> None:
    detector, receiver = bench.detector(), bench.receiver()
    receiver.until(connected(True))
    send(detector, 0, 1)
    send(detector, 1, 2, binned=1)
    send(detector, 2, 3, "lz4", binned=1)
    events = receiver.until(frame_of(2))
    said = [6, 5, 4, 2, False, True]  # offset, binning, reverse, y first
    assert events[-1]["sum"] == 2 * 32 * 48
    assert events[-1]["region"] == said


ABRUPT = """
import random, sys, threading
from ptychostream.pva.array_monitor import ArrayMonitor
from ptychostream.pva.channel_reader import ChannelReader
from ptychostream.pva.monitors import P4pMonitor
random.seed(1)
words = ("t:Image", "field(value)", 4, lambda _: None)
monitor = P4pMonitor if sys.argv[1] == "p4p" else ArrayMonitor
for _ in range(250):
    reader = ChannelReader(*words, lambda _: None, name="reader", monitor=monitor)
    reader.start()
    threading.Event().wait(random.random() * 0.03)
    reader.stop()
found = threading.Event()
reader = ChannelReader(*words, lambda _: found.set(), name="reader", monitor=monitor)
reader.start()
print("found" if found.wait(4) else "held up", flush=True)
reader.stop()
"""


def test_a_reader_that_stops_while_it_connects_does_not_hold_up_the_detector(bench: Bench) -> None:
    bench.detector()
    assert bench.child("-c", ABRUPT, bench.kind).hear(60) == "found"


def test_a_detector_that_is_held_up_is_not_kept_so(bench: Bench, env: EpicsEnv) -> None:
    """A client that goes away in its handshake costs a server of pvAccessCPP 5 to 6 s, in which it accepts nobody."""
    server = env.server_env()
    detector = Child([sys.executable, "-c", PVAPY_DETECTOR], server)
    bench.children.append(detector)
    assert detector.hear() == "up"
    for _ in range(2):
        socket.create_connection(("127.0.0.1", int(server["EPICS_PVAS_SERVER_PORT"]))).close()
    receiver = bench.receiver()
    assert json.loads(receiver.hear(60)) == {"event": "connected", "value": True}


def test_stopping_without_a_detector(bench: Bench) -> None:
    receiver = bench.receiver()
    assert receiver.end() == 0
    assert json.loads(receiver.hear()) == {"event": "stopped", "connected": False}


def test_the_detector_that_pvapy_simulates(bench: Bench) -> None:
    receiver = bench.receiver()
    program = "from pvapy.cli.adSimServer import main; main()"
    options = "-cn t:Image -nx 64 -ny 40 -dt uint8 -fps 200 -nf 40 -rt 1 -std 1 -dc"
    bench.child("-c", program, *options.split(), server=True)
    events = receiver.until(lambda event: event["event"] == "frame" and event["id"] >= 100)
    frames = [event for event in events if event["event"] == "frame"]
    ids = [event["id"] for event in frames]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert {tuple(event["shape"]) for event in frames} == {(40, 64)}
    assert not [event for event in events if event["event"] == "bad"]
