"""Reads a PandABox's data port, in a thread of its own, and watches its control port.

pandablocks gives the protocol (`DataConnection`, `ControlConnection`). The sockets are ours: its clients do not notice
a lost data connection, wait for ever for an answer, and have no bound on what they hold.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from xml.etree.ElementTree import ParseError

from pandablocks.commands import CommandError, Get
from pandablocks.connections import ControlConnection, DataConnection, NoContextAvailableError
from pandablocks.responses import ReadyData

from ptychostream.errors import PtychostreamError, StreamError
from ptychostream.panda.capture import Captures
from ptychostream.panda.messages import Begun, Ended, Rows
from ptychostream.panda.settings import PandaSettings

log = logging.getLogger(__name__)

_CONNECT_S = 5.0
_ASK_EVERY_S = 2.0
_ANSWER_S = 5.0
_RETRY_S = (1.0, 2.0, 4.0, 8.0)
_RECEIVE = 1 << 18
MOST_HELD = 64 << 20
"""Bytes of a message that is not complete, at the most."""
_NOT_THE_PROTOCOL = (
    AssertionError, ValueError, ParseError, KeyError, TypeError, AttributeError, IndexError, CommandError,
    NoContextAvailableError,
)  # fmt: skip
"""What pandablocks raises for bytes that are not the protocol's."""


Heard = Callable[[Begun | Rows | Ended, float], None]


class PandaReader:
    """Keeps both connections to a box and hands on its captures.

    Parameters
    ----------
    settings
        See `PandaSettings`.
    on_heard
        Takes what a message means and when it came, seconds since the POSIX epoch. Called in the reader's thread.
    on_bad
        Takes the error of a capture that cannot be used, and of a connection that is lost.
    """

    def __init__(self, settings: PandaSettings, on_heard: Heard, on_bad: Callable[[PtychostreamError], None]) -> None:
        self._settings = settings
        self._on_heard = on_heard
        self._on_bad = on_bad
        self._where = f"PandABox {settings.host}"
        self._stop, self._stopped = socket.socketpair()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="PandABox", daemon=True)
        self.connected = False

    def start(self) -> None:
        """Connect. A box that is not there yet is connected to when it comes."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect."""
        self._stopping.set()
        self._stop.send(b".")
        if self._thread.ident is not None:
            self._thread.join()
        self._stop.close()
        self._stopped.close()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._serve()
            except PtychostreamError as error:
                if self.connected or failures == 0:
                    log.warning("%s", error)
                    self._on_bad(error)
                failures = 0 if self.connected else failures + 1
            self.connected = False
            self._stopping.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])

    def _serve(self) -> None:
        """Read until stopped. Raises StreamError when a connection cannot be made or is lost."""
        settings = self._settings
        with ExitStack() as stack:
            try:
                control = stack.enter_context(_connect(settings.host, settings.control_port))
                data = stack.enter_context(_connect(settings.host, settings.data_port))
                asked = _Control(control, self._where)
                captured = _Data(data, Captures(settings.x, settings.y, settings.unit, self._where))
            except OSError as error:
                raise self._lost(f"no connection: {error}") from error
            while not self._stopping.is_set():
                asked.ask(time.monotonic())
                ready, _, _ = select.select([control, data, self._stopped], [], [], _ASK_EVERY_S / 2)
                try:
                    if control in ready:
                        asked.receive()
                    if data in ready:
                        self._hear(captured)
                except _NOT_THE_PROTOCOL as error:
                    raise self._lost(f"not a PandABox's protocol: {type(error).__name__}: {error}") from error
                except OSError as error:
                    raise self._lost(str(error)) from error

    def _hear(self, captured: _Data) -> None:
        arrived = time.time()
        for message in captured.receive():
            if isinstance(message, ReadyData):
                self.connected = True
                log.info("%s: connected", self._where)
                continue
            try:
                heard = captured.captures.take(message)
            except PtychostreamError as error:
                log.warning("%s", error)
                self._on_bad(error)
                continue
            if heard is not None:
                self._on_heard(heard, arrived)

    def _lost(self, what: str) -> StreamError:
        return StreamError(what, where=self._where, remedy="see that it is on and reached")


class _Control:
    """The control port: asks who is there, so that a box that is gone is noticed."""

    def __init__(self, connection: socket.socket, where: str) -> None:
        self._socket = connection
        self._where = where
        self._protocol = ControlConnection()
        self._asked: float | None = None
        self._answered = -_ASK_EVERY_S

    def ask(self, now: float) -> None:
        if self._asked is not None:
            if now - self._asked > _ANSWER_S:
                raise StreamError(
                    f"no answer on the control port for {_ANSWER_S:g} s", where=self._where, remedy="see that it is on"
                )
        elif now - self._answered >= _ASK_EVERY_S:
            self._asked = now
            self._send(self._protocol.send(Get("*IDN")))

    def receive(self) -> None:
        received = self._socket.recv(_RECEIVE)
        if not received:
            raise ConnectionError("the control connection was closed by the box")
        self._send(self._protocol.receive_bytes(received))
        for _, answer in self._protocol.responses():
            if isinstance(answer, Exception):
                raise answer
            self._asked, self._answered = None, time.monotonic()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise StreamError(str(error), where=self._where, remedy="see that it is on and reached") from error


class _Data:
    """The data port."""

    def __init__(self, connection: socket.socket, captures: Captures) -> None:
        self.captures = captures
        self._socket = connection
        self._protocol = DataConnection()
        self._socket.sendall(self._protocol.connect(scaled=True))
        self._held = 0

    def receive(self) -> list[object]:
        received = self._socket.recv(_RECEIVE)
        if not received:
            raise ConnectionError("the data connection was closed by the box")
        messages = list(self._protocol.receive_bytes(received))
        self._held = len(received) if messages else self._held + len(received)
        if self._held > MOST_HELD:
            raise ValueError(f"a message of more than {MOST_HELD >> 20} MiB")
        return messages


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_CONNECT_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # these are Linux's
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
