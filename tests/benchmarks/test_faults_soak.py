"""The parts of the soak that need no IOC: schedule, verdicts, network, clock, the model that fails."""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.benchmarks.soak import soak
from ptychostream.benchmarks.soak.soak_clock import SteppedClock, compiler
from ptychostream.benchmarks.soak.soak_faults import FAULTS
from ptychostream.benchmarks.soak.soak_journal import Journal, Mark, Place
from ptychostream.benchmarks.soak.soak_model import MARK_COUNTS, write_mark_model
from ptychostream.benchmarks.soak.soak_proxy import PvaProxy, port_in, with_port
from ptychostream.benchmarks.soak.soak_report import growth, rate_hz, summarise, write_report
from ptychostream.benchmarks.soak.soak_rounds import Round
from ptychostream.benchmarks.soak.soak_schedule import RESTARTS, schedule
from ptychostream.benchmarks.soak.soak_watch import Sample
from ptychostream.errors import DropCause
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine
from ptychostream.processes.loopback import LOOPBACK, free_ports

LOOK = Sample(0.0, 1, 0, 0, 0, 0, 0, 0, 500_000_000, 40, 60, 0)


def looks(seconds: int, life: int = 1, start: float = 0.0, rss_per_s: float = 0.0) -> list[Sample]:
    return [
        replace(LOOK, time_s=start + t, life=life, rss=round(LOOK.rss * (1 + rss_per_s * t)), sent=200 * t)
        for t in range(seconds)
    ]


# ------------------------------------------------------------ schedule


def test_schedule_is_the_seeds_and_every_cycle_has_every_fault() -> None:
    def plan(seed: int, count: int = 60) -> list[str]:
        return [one.name if one else "" for one in itertools.islice(schedule(FAULTS, seed), count)]

    assert plan(3) == plan(3) != plan(4)
    first = plan(3)
    assert first[:2] == ["", RESTARTS]
    assert RESTARTS not in first[2:]
    others = {one.name for one in FAULTS} - {RESTARTS}
    for cycle in range(4):
        start = 2 + cycle * (len(others) + 1)
        assert set(first[start : start + len(others)]) == others
        assert first[start + len(others)] == ""


# ------------------------------------------------------------ verdicts


def test_growth_is_of_the_longest_life_after_its_warm_up() -> None:
    leaking = looks(1000, rss_per_s=1e-4)
    assert growth(leaking, "rss", 300) == pytest.approx((1 + 0.0930) / (1 + 0.0370) - 1, rel=0.02)
    assert growth(looks(1000), "rss", 300) == 0
    # a short life that leaks, and the away between two lives, do not count
    assert growth([*looks(50, rss_per_s=1e-2), replace(LOOK, rss=0), *looks(400, 2, 60.0)], "rss", 100) == 0
    assert growth(looks(100), "rss", 90) is None


def test_growth_in_the_warm_up_is_forgiven() -> None:
    warm = [replace(sample, rss=LOOK.rss // 2) for sample in looks(100)]
    assert growth([*warm, *looks(300, start=100.0)], "rss", 100) == 0


@pytest.mark.parametrize(
    ("rounds", "samples", "law", "clients", "said"),
    [
        ([Round("network cut", 0.0, violations=["took 9.0 s"])], looks(3), [], {}, "network cut: took 9.0 s"),
        ([], looks(3), [(1.5, 4)], {}, "the conservation law was off by 4"),
        ([], looks(900, rss_per_s=1e-4), [], {}, "rss grew by"),
        ([], looks(3), [], {"monitor": {"violations": 2}}, "a CA client saw the law broken 2 times"),
        ([], looks(3), [], {"writer": {"wrong": 1}}, "1 readbacks did not follow"),
    ],
)  # fmt: skip
def test_whatever_does_not_hold_is_a_violation(
    rounds: list[Round], samples: list[Sample], law: list[tuple[float, int]], clients: dict[str, Any], said: str
) -> None:
    violations = summarise(rounds, samples, law, clients)["violations"]
    assert len(violations) == 1
    assert violations[0].startswith(said)


@pytest.mark.slow
def test_a_soak_that_held_has_none_and_its_report_is_written(tmp_path: Path) -> None:
    calm = [Round("", 0.0, ended_s=9.0, sent=900, received=900, stitched=900)]
    calm += [
        Round(
            fault.name, at := 10.0 * number, at + 1, at + 3, at + 9, recovery_s=0.5, sent=10, received=10, stitched=9,
            dropped={DropCause.ENGINE.value: 1},
        )
        for number, fault in enumerate(FAULTS, 1)
    ]  # fmt: skip
    report = summarise(calm, looks(900), [], {})
    assert report["violations"] == []
    assert report["frames"]["sent"] == 900 + 10 * len(FAULTS)
    assert report["faults"]["network cut"]["recovery_s"] == {"median": 0.5, "max": 0.5}
    write_report(tmp_path, report, calm, looks(900))
    assert len(json.loads((tmp_path / "report.json").read_text())["each_round"]) == len(FAULTS) + 1
    assert "| network cut | 1 | 0.50 | 0.50 |" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 20_000


def test_rates_know_nothing_of_a_change_of_process() -> None:
    two = [*looks(3), *[replace(sample, received=7) for sample in looks(3, 2, 3.0)]]
    rates = rate_hz(two, "received")
    assert np.isnan(rates[[0, 3]]).all()
    assert (rates[[1, 2, 4, 5]] == 0).all()


@pytest.mark.parametrize(("violations", "code"), [([], 0), (["memory grew"], 1)])
def test_exit_code_tells_of_violations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], violations: list[str], code: int
) -> None:
    from ptychostream.cli.main import main

    report = {**summarise([], looks(3), [], {}), "violations": violations}
    monkeypatch.setattr(soak, "soak", lambda *_: report)
    assert main(["bench", "soak", "--minutes", "1", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["violations"] == violations


# ------------------------------------------------------------ journal and model


def test_journal_is_one_for_all_who_open_it(tmp_path: Path) -> None:
    mine, theirs = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    mine.allowed, mine.mark, mine.place, mine.clock_ns = 2, Mark.ALL, Place.RUNAWAY, -(10**13)
    theirs.note_sent(1, 100)
    theirs.note_sent(2, 11)
    assert (theirs.allowed, theirs.mark, theirs.place, theirs.clock_ns) == (2, Mark.ALL, Place.RUNAWAY, -(10**13))
    assert (mine.sent(1), mine.total) == (100, 111)


def test_a_marked_frame_makes_the_runtime_itself_raise(tmp_path: Path) -> None:
    write_mark_model(tmp_path / "m.onnx", 16)
    engine = create_engine("ONNXRuntime", load_model(tmp_path / "m.onnx"), batch=2, cache_dir=tmp_path)
    counts = np.full((2, 16, 16), 1000, np.float32)
    counts[:, 0, 0] = 0
    assert engine.infer(counts)[0, 1, 1] == pytest.approx(np.pi * np.tanh(1.0), rel=1e-4)
    counts[1, 0, 0] = MARK_COUNTS
    with pytest.raises(Exception, match="indices element out of data bounds"):
        engine.infer(counts)
    counts[1, 0, 0] = 0
    assert engine.infer(counts).shape == (2, 16, 16)
    engine.close()


# ------------------------------------------------------------ network


@given(st.binary(min_size=44, max_size=80), st.sampled_from([0x00, 0x80]), st.integers(0, 65535), st.integers(8, 42))
def test_ports_are_read_and_written_in_the_messages_byte_order(data: bytes, order: int, port: int, at: int) -> None:
    message = data[:2] + bytes([order]) + data[3:]
    changed = with_port(message, at, port)
    assert port_in(changed, at) == port
    assert changed[at : at + 2] == struct.pack(">H" if order else "<H", port)
    assert changed[:at] + changed[at + 2 :] == message[:at] + message[at + 2 :]


class Echo:
    """A server that answers one PVA search, and echoes over TCP."""

    def __init__(self) -> None:
        self.tcp = socket.create_server((LOOPBACK, 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((LOOPBACK, 0))
        for run in (self.answer, self.accept):
            threading.Thread(target=run, daemon=True).start()

    def answer(self) -> None:
        while True:
            try:
                message, _ = self.udp.recvfrom(2048)
                reply = bytes([0xCA, 2, 0x80, 4]) + bytes(36) + struct.pack(">H", self.tcp.getsockname()[1])
                self.udp.sendto(reply, (LOOPBACK, port_in(message, 32)))
            except OSError:
                return

    def accept(self) -> None:
        while True:
            try:
                one, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(one,), daemon=True).start()

    def echo(self, one: socket.socket) -> None:
        with one:
            while data := one.recv(1024):
                one.sendall(data)

    def close(self) -> None:
        for one in (self.tcp, self.udp):
            one.shutdown(socket.SHUT_RDWR) if one is self.tcp else None
            one.close()


@pytest.fixture
def proxied() -> Iterator[tuple[PvaProxy, int]]:
    """A proxy before an echo server, and the TCP port that a search through it found."""
    echo, (port,) = Echo(), free_ports(1)
    with PvaProxy(port, echo.udp.getsockname()[1]) as proxy, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as search:
        search.bind((LOOPBACK, 0))
        search.settimeout(10)
        request = bytes([0xCA, 2, 0x80, 3]) + bytes(28) + struct.pack(">H", search.getsockname()[1])
        search.sendto(request, (LOOPBACK, port))
        found = port_in(search.recv(2048), 40)
        assert found != echo.tcp.getsockname()[1]
        yield proxy, found
    echo.close()


@pytest.mark.server
def test_network_stalls_and_goes_on_in_the_same_connection(proxied: tuple[PvaProxy, int]) -> None:
    proxy, port = proxied
    with socket.create_connection((LOOPBACK, port), 10) as one:
        one.sendall(b"a")
        assert one.recv(1) == b"a"
        proxy.stall()
        one.sendall(b"b")
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.recv(1)
        proxy.restore()
        one.settimeout(10)
        assert one.recv(1) == b"b"


@pytest.mark.server
def test_network_that_is_cut_closes_and_refuses_until_it_is_restored(proxied: tuple[PvaProxy, int]) -> None:
    proxy, port = proxied
    with socket.create_connection((LOOPBACK, port), 10) as one:
        one.sendall(b"a")
        assert one.recv(1) == b"a"
        assert proxy.connections == 1
        proxy.cut()
        assert one.recv(1) == b""
    with socket.create_connection((LOOPBACK, port), 10) as refused:
        assert refused.recv(1) == b""
    proxy.restore()
    with socket.create_connection((LOOPBACK, port), 10) as again:
        again.sendall(b"c")
        assert again.recv(1) == b"c"


# ------------------------------------------------------------ clock

WAIT = """
import ctypes, ctypes.util, sys, time
libc = ctypes.CDLL(None, use_errno=True)
class Spec(ctypes.Structure): _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
semaphore = ctypes.create_string_buffer(64)
libc.sem_init(semaphore, 0, 0)
now = time.time() + float(sys.argv[1])
until = Spec(int(now), int(now % 1 * 1e9))
print("waiting", flush=True)
began = time.monotonic()
libc.sem_timedwait(semaphore, ctypes.byref(until))
print(time.monotonic() - began, flush=True)
"""


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    if compiler() is None:
        pytest.skip("no C compiler")
    return SteppedClock(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("offset_s", [-7200.25, 0.0, 7200.75])
def test_stepped_clock_is_what_a_process_reads(clock: SteppedClock, offset_s: float) -> None:
    clock.offset_s = offset_s
    assert clock.offset_s == offset_s
    code = "import time, datetime; print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp())"
    command = [sys.executable, "-c", code]
    before = time.time()
    done = subprocess.run(command, env=clock.environment(dict(os.environ)), capture_output=True, text=True, check=True)
    after = time.time()
    for read in map(float, done.stdout.split()):
        assert before + offset_s - 1e-3 <= read <= after + offset_s + 1e-3


@pytest.mark.server
def test_a_wait_for_a_time_of_day_ends_when_the_clock_is_stepped_past_it(clock: SteppedClock) -> None:
    environment = clock.environment(dict(os.environ))
    command = [sys.executable, "-c", WAIT, "3000"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waiting\n"
        clock.offset_s = 3600.0
        assert float(waiting.stdout.readline()) < 60
