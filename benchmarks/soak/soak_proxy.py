"""A PV Access proxy on loopback that simulates a failing network between a detector and its client.

The client's search goes through a UDP relay. The relay writes the proxy's port into the server's answer, so that the
client's TCP connection also goes through the proxy. `stall` forwards nothing and keeps the connections, like a pulled
cable. `cut` closes the connections and accepts none, like a switch that restarts. `restore` ends both.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from ptychostream.processes.loopback import LOOPBACK

_MAGIC, _SEARCH, _RESPONSE = 0xCA, 3, 4
_BIG_ENDIAN = 0x80
_REPLY_PORT_AT = 8 + 4 + 4 + 16  # header, sequence, flags, address
_SERVER_PORT_AT = 8 + 12 + 4 + 16  # header, guid, sequence, address
_BLOCK = 1 << 16


def port_in(message: bytes, at: int) -> int:
    """The port at offset `at` of a PV Access message, in the message's byte order."""
    return int(struct.unpack_from(_order(message), message, at)[0])


def with_port(message: bytes, at: int, port: int) -> bytes:
    """The message with another port at offset `at`."""
    changed = bytearray(message)
    struct.pack_into(_order(message), changed, at, port)
    return bytes(changed)


def _order(message: bytes) -> str:
    return ">H" if message[2] & _BIG_ENDIAN else "<H"


def _is(message: bytes, command: int, at: int) -> bool:
    return len(message) >= at + 2 and message[0] == _MAGIC and message[3] == command


class PvaProxy:
    """Connects PVA clients that search at UDP port `search_port` to the server at UDP port `server_port`, on loopback.

    Parameters
    ----------
    search_port
        Port for the client's EPICS_PVA_ADDR_LIST, as `127.0.0.1:port`.
    server_port
        EPICS_PVAS_BROADCAST_PORT of the server.
    """

    def __init__(self, search_port: int, server_port: int) -> None:
        self._server = (LOOPBACK, server_port)
        self._target: tuple[str, int] | None = None
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._refusing = self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._search.bind((LOOPBACK, search_port))
        self._listener = socket.create_server((LOOPBACK, 0))
        self._port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._relay_searches, self._accept)]
        for thread in self._threads:
            thread.start()

    def stall(self) -> None:
        """Forward nothing. Connections stay open."""
        self._flows.clear()

    def cut(self) -> None:
        """Close all connections and accept no new one."""
        self._refusing = True
        self._close_pairs()

    def restore(self) -> None:
        """Forward data and accept connections again."""
        self._refusing = False
        self._flows.set()

    @property
    def connections(self) -> int:
        """The number of connections through the proxy."""
        return len(self._pairs)

    def close(self) -> None:
        """Stop the proxy."""
        self._closed = self._refusing = True
        self._flows.set()
        for one in (self._listener, self._search):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._close_pairs()
        for thread in self._threads:
            thread.join(2.0)

    def __enter__(self) -> PvaProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _relay_searches(self) -> None:
        """Relay searches. Each client has its own socket, so that answers go back to the right client."""
        onward: dict[tuple[str, int], socket.socket] = {}
        while not self._closed:
            try:
                message, sender = self._search.recvfrom(_BLOCK)
            except OSError:
                break
            if self._refusing or not self._flows.is_set() or not _is(message, _SEARCH, _REPLY_PORT_AT):
                continue
            client = (LOOPBACK, port_in(message, _REPLY_PORT_AT) or sender[1])
            if client not in onward:
                onward[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                onward[client].bind((LOOPBACK, 0))
                threading.Thread(target=self._relay_answers, args=(onward[client], client), daemon=True).start()
            own_port = onward[client].getsockname()[1]
            onward[client].sendto(with_port(message, _REPLY_PORT_AT, own_port), self._server)
        for one in onward.values():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _relay_answers(self, answers: socket.socket, client: tuple[str, int]) -> None:
        while not self._closed:
            try:
                message, _ = answers.recvfrom(_BLOCK)
            except OSError:
                break
            if _is(message, _RESPONSE, _SERVER_PORT_AT):
                self._target = (LOOPBACK, port_in(message, _SERVER_PORT_AT))
                with contextlib.suppress(OSError):
                    answers.sendto(with_port(message, _SERVER_PORT_AT, self._port), client)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            target = self._target
            if self._refusing or target is None:
                client.close()
                continue
            try:
                server = socket.create_connection(target, 2.0)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            for one, other in (pair, pair[::-1]):
                threading.Thread(target=self._forward, args=(one, other, pair), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                self._flows.wait()
                sink.sendall(block)
        self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _close_pairs(self) -> None:
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._close(pair)
