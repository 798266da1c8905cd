"""The simulated box's two servers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ptychostream.sim.panda.capture import Capture, Process
from ptychostream.sim.panda.control import ControlSession, PandaFields, Refused

_SEND_S = 5
_OPTIONS: dict[str, Process] = {"XML FRAMED SCALED": "Scaled", "XML FRAMED RAW": "Raw"}


class _DataClient:
    """A client of the data port that has said what it wants."""

    def __init__(self, connection: socket.socket, process: Process) -> None:
        self.connection = connection
        self.process = process
        self.rows: int | None = None  # rows sent of the capture that goes on; None: it has not its header yet


class SimulatedPanda:
    """Serves both ports while it is entered. Methods may be called from any thread.

    Parameters
    ----------
    control_port, data_port
        0: any free one. A real box has 8888 and 8889.
    host
        Address to listen on.
    """

    def __init__(self, control_port: int = 0, data_port: int = 0, host: str = "127.0.0.1") -> None:
        self._lock = threading.Lock()
        self.fields = PandaFields(self._arm, self._disarm)
        self._capture: Capture | None = None
        self._clients: list[_DataClient] = []
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listeners = [socket.create_server((host, port)) for port in (control_port, data_port)]
        self.control_port, self.data_port = (one.getsockname()[1] for one in self._listeners)

    def __enter__(self) -> SimulatedPanda:
        for listener, serve in zip(self._listeners, (self._serve_control, self._serve_data), strict=True):
            self._start(self._accept, listener, serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(_SEND_S)

    def put(self, path: str, value: str) -> None:
        """Write a field or attribute, as a client of the control port would."""
        with self._lock:
            self.fields.put(path, value)

    def capture(self, field: str, unit: str) -> None:
        """Let captures hold the value of a field, such as `INENC1.VAL`, in this unit."""
        self.put(f"{field}.CAPTURE", "Value")
        self.put(f"{field}.UNITS", unit)

    def arm(self) -> None:
        """Begin a capture. Raises Refused."""
        with self._lock:
            self._arm()

    def end(self, reason: str = "Ok") -> None:
        """End the capture, as the fall of PCAP.ENABLE would, or for another reason."""
        with self._lock:
            self._end(reason)

    def rows(self, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Capture rows: scaled values by field, such as `INENC1.VAL`. Nothing happens while no capture goes on."""
        with self._lock:
            capture = self._capture
            if capture is None:
                return
            count = len(next(iter(columns.values())))
            for client in list(self._clients):
                if client.rows is not None:
                    self._send(client, capture.block(columns, client.process))
                    client.rows += count
            capture.rows += count

    def drop(self, control: bool = True, data: bool = True) -> None:
        """Close the connections of all clients of these ports."""
        with self._lock:
            of_data = {client.connection for client in self._clients}
            for connection in list(self._connections):
                if (connection in of_data and data) or (connection not in of_data and control):
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    # Under the lock

    def _arm(self) -> None:
        if self._capture is not None:
            raise Refused("Data capture already in progress")
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        self._capture = Capture(self.fields.values, now)
        self.fields.put("PCAP.ACTIVE", "1")
        for client in list(self._clients):
            self._greet(client)

    def _disarm(self) -> None:
        self._end("Disarmed")

    def _end(self, reason: str) -> None:
        capture, self._capture = self._capture, None
        if capture is None:
            return
        self.fields.put("PCAP.ACTIVE", "0")
        for client in list(self._clients):
            if client.rows is not None:
                self._send(client, capture.end(client.rows, reason))
                client.rows = None

    def _greet(self, client: _DataClient) -> None:
        assert self._capture is not None
        self._send(client, self._capture.header(client.process, self._capture.rows))
        client.rows = 0

    def _send(self, client: _DataClient, data: bytes) -> None:
        try:
            client.connection.sendall(data)
        except OSError:  # gone, or too slow: a real box cuts it off
            with contextlib.suppress(OSError):
                client.connection.shutdown(socket.SHUT_RDWR)
            if client in self._clients:
                self._clients.remove(client)

    # Threads

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="simulated PandABox", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))
            with self._lock:
                self._connections.add(connection)
            self._start(self._serve, connection, serve)

    def _serve(self, connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        try:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                serve(connection)
        finally:
            with self._lock:
                self._connections.discard(connection)
                self._clients = [client for client in self._clients if client.connection is not connection]
            connection.close()

    def _serve_control(self, connection: socket.socket) -> None:
        session = ControlSession(self.fields)
        with connection.makefile("r", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                with self._lock:
                    answer = session.answer(line.rstrip("\r\n"))
                connection.sendall(("\n".join(answer) + "\n").encode())

    def _serve_data(self, connection: socket.socket) -> None:
        with connection.makefile("r", encoding="utf-8", newline="\n") as lines:
            process = _OPTIONS.get(lines.readline().strip())
            if process is None:
                connection.sendall(b"ERR Invalid data options\n")
                return
            with self._lock:
                client = _DataClient(connection, process)
                connection.sendall(b"OK\n")
                self._clients.append(client)
                if self._capture is not None:
                    self._greet(client)
            lines.readline()  # until the client goes
