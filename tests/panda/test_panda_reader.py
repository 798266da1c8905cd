"""Reading a PandABox: captures by index; what is lost, late, overrun or without units is told and places nothing."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from epics_env import wait_until

from ptychostream.panda import reader
from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.panda.reader import PandaReader
from ptychostream.panda.settings import PandaSettings
from ptychostream.sim.panda.box import SimulatedPanda

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]


class Heard:
    def __init__(self) -> None:
        self.all: list[Any] = []
        self.bad: list[str] = []

    def take(self, heard: Any, arrived: float) -> None:
        assert arrived > 1.7e9
        self.all.append(heard)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.all if isinstance(one, kind)]

    @property
    def indices(self) -> list[int]:
        return [index for one in self.of(Rows) for index in range(one.first, one.first + len(one.x_m))]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_RETRY_S", (0.05,))
    monkeypatch.setattr(reader, "_ASK_EVERY_S", 0.1)
    monkeypatch.setattr(reader, "_ANSWER_S", 1.0)


@pytest.fixture
def box() -> Iterator[SimulatedPanda]:
    with SimulatedPanda() as box:
        for number, unit in ((1, "mm"), (2, "um")):
            box.capture(f"INENC{number}.VAL", unit)
        yield box


@contextmanager
def reading(control_port: int, data_port: int, **values: Any) -> Iterator[tuple[PandaReader, Heard]]:
    heard = Heard()
    settings = PandaSettings(host="127.0.0.1", control_port=control_port, data_port=data_port, **values)
    panda = PandaReader(settings, heard.take, lambda error: heard.bad.append(str(error)))
    panda.start()
    try:
        yield panda, heard
    finally:
        panda.stop()


@contextmanager
def connected(box: SimulatedPanda, **values: Any) -> Iterator[tuple[PandaReader, Heard]]:
    with reading(box.control_port, box.data_port, **values) as (panda, heard):
        wait_until(lambda: panda.connected, 20, lambda: f"connected: {heard.bad}")
        yield panda, heard


def send(box: SimulatedPanda, *values: float) -> None:
    box.rows({"INENC1.VAL": np.array(values), "INENC2.VAL": -np.array(values)})


def test_captures_are_indexed_and_in_metres_each_field_by_its_own_unit(box: SimulatedPanda) -> None:
    with connected(box) as (_, heard):
        for _ in range(2):
            box.arm()
            send(box, 1.0, 2.0)
            send(box, 3.0)
            box.end()
        wait_until(lambda: len(heard.of(Ended)) == 2, 20, lambda: f"{heard.all} {heard.bad}")
    assert heard.indices == [0, 1, 2, 0, 1, 2]
    begun, ended = heard.of(Begun), heard.of(Ended)
    assert begun[0].arm != begun[1].arm
    assert [one.missed for one in begun] == [0, 0]
    assert [(one.rows, one.problem) for one in ended] == [(3, ""), (3, "")]
    first = heard.of(Rows)[0]
    np.testing.assert_allclose(first.x_m, [1e-3, 2e-3])
    np.testing.assert_allclose(first.y_m, [-1e-6, -2e-6])
    assert not heard.bad


def test_a_late_start_and_a_lost_data_connection_keep_the_index(box: SimulatedPanda) -> None:
    box.arm()
    send(box, *range(5))
    with connected(box) as (panda, heard):
        wait_until(lambda: heard.of(Begun), 20, "begun")
        assert heard.of(Begun)[0].missed == 5
        send(box, 5, 6)
        wait_until(lambda: heard.indices == [5, 6], 20, lambda: f"{heard.all}")
        box.drop(control=False)
        wait_until(lambda: heard.bad, 20, "the loss")
        assert "data connection was closed by the box" in heard.bad[0]
        wait_until(lambda: panda.connected and len(heard.of(Begun)) == 2, 20, "connected again")
        send(box, 7)
        box.end("Data overrun")
        wait_until(lambda: heard.of(Ended), 20, "ended")
    assert heard.indices == [5, 6, 7]
    assert heard.of(Begun)[0].arm == heard.of(Begun)[1].arm
    assert heard.of(Ended)[0].problem == "the capture ended by 'Data overrun' after 1 rows"


def test_a_lost_control_connection_is_told(box: SimulatedPanda) -> None:
    with connected(box) as (panda, heard):
        box.drop(data=False)
        wait_until(lambda: heard.bad, 20, "the loss")
        assert "control connection was closed by the box" in heard.bad[0]
        wait_until(lambda: panda.connected, 20, "connected again")


@pytest.mark.parametrize(
    ("puts", "values", "why"),
    [
        ({"INENC2.VAL.CAPTURE": "No"}, {}, "INENC2.VAL is not captured.*INENC1.VAL.Value"),
        ({"INENC2.VAL.UNITS": ""}, {}, r"INENC2.VAL.UNITS: no unit"),
        ({"INENC2.VAL.UNITS": "(null)"}, {}, r"INENC2.VAL.UNITS: no unit"),
        ({"INENC2.VAL.SCALE": "0"}, {}, r"INENC2.VAL.SCALE: a scale of 0"),
        ({"INENC2.VAL.UNITS": "furlong"}, {}, "unknown unit 'furlong'"),
        ({"INENC2.VAL.UNITS": "deg"}, {}, "a unit of angle"),
        ({}, {"unit": "um"}, "'mm', but unit = 'um'"),
        ({"INENC1.VAL.CAPTURE": "Mean"}, {"x": "INENC1.VAL.Value"}, "not captured.*INENC1.VAL.Mean"),
    ],
)
def test_a_capture_that_does_not_say_where_places_nothing(
    box: SimulatedPanda, puts: dict[str, str], values: dict[str, str], why: str
) -> None:
    with connected(box, **values) as (_, heard):
        before = {path: box.fields.values[path] for path in puts}
        for path, value in puts.items():
            box.put(path, value)
        box.arm()
        send(box, 1.0)
        box.end()
        wait_until(lambda: heard.bad, 20, "the error")
        assert re.search(why, heard.bad[0]), heard.bad
        assert not heard.all
        for path, value in before.items():
            box.put(path, value)
        if not values:  # the next capture is good
            box.arm()
            send(box, 1.0)
            wait_until(lambda: heard.indices == [0], 20, "rows")


def test_a_unit_that_the_box_does_not_have_may_be_given(box: SimulatedPanda) -> None:
    for number in (1, 2):
        box.put(f"INENC{number}.VAL.UNITS", "(null)")
    with connected(box, unit="nm") as (_, heard):
        box.arm()
        send(box, 5.0)
        wait_until(lambda: heard.indices == [0], 20, lambda: f"{heard.bad}")
    assert heard.of(Rows)[0].x_m == pytest.approx(5e-9)


@contextmanager
def answering(control: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """Two ports that send these bytes to whoever says something, and then nothing more."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    open_ones: list[socket.socket] = []

    def serve(listener: socket.socket, answer: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_ones.append(connection)
            with suppress(OSError):
                if connection.recv(100):
                    connection.sendall(answer)

    threads = [
        threading.Thread(target=serve, args=pair, daemon=True) for pair in zip(listeners, (control, data), strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield listeners[0].getsockname()[1], listeners[1].getsockname()[1]
    finally:
        for one in (*listeners, *open_ones):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in threads:
            thread.join(5)


HEADER = b'<header>\n<data missed="0" process="Scaled" format="Framed" sample_bytes="16" />\n<fields>\n'
FIELDS = b"".join(
    b'<field name="INENC%d.VAL" type="double" capture="Value" scale="1" offset="0" units="um" />\n' % number
    for number in (1, 2)
)
GOOD = b"OK =PandA\n"


@pytest.mark.parametrize(
    ("control", "data", "why"),
    [
        (b"", b"OK\n", "no answer on the control port"),
        (b"ERR Unknown command\n", b"OK\n", "not a PandABox's protocol"),
        (b"\xff\xfe\n", b"OK\n", "not a PandABox's protocol"),
        (GOOD, b"HTTP/1.1 400 Bad Request\n", "not a PandABox's protocol"),
        (GOOD, b"OK\n<header>\n<data>\n</header>\n", "not a PandABox's protocol"),
        (GOOD, b"OK\n<header>\n&&&\n</header>\n", "not a PandABox's protocol"),
        (
            GOOD,
            b"OK\n" + HEADER + FIELDS + b"</fields>\n</header>\n\nBIN \x09\x00\x00\x00x",
            "not a PandABox's protocol",
        ),
        (GOOD, b"OK\n" + HEADER + FIELDS + b"</fields>\n</header>\n\nNOTBIN", "not a PandABox's protocol"),
        (GOOD, b"OK\n" + HEADER + FIELDS + b"</fields>\n</header>\n\nEND x Ok\n", "not a PandABox's protocol"),
        (GOOD, b"OK\n<header>\n" + b"x" * (1 << 20), "a message of more than 0 MiB"),
    ],
)
def test_what_is_no_panda_is_told_and_left(
    control: bytes, data: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_HELD", 1 << 19)
    with answering(control, data) as ports, reading(*ports) as (_, heard):
        wait_until(lambda: heard.bad, 20, "the error")
        assert any(why in text for text in heard.bad), heard.bad
        assert not heard.of(Rows)


def test_a_box_that_is_not_there_yet(box: SimulatedPanda) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with reading(port, box.data_port) as (panda, heard):
        wait_until(lambda: heard.bad, 20, "the error")
        assert "no connection" in heard.bad[0]
        assert not panda.connected
        with SimulatedPanda(port, 0):
            wait_until(lambda: panda.connected, 20, "connected")
