"""The PVs that tell when a scan runs, and what it is called."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, NamedTuple

import pvaccess as pva

from ptychostream.frames.idle import is_idle

log = logging.getLogger(__name__)

Provider = Literal["ca", "pva"]

_POLL_S = 0.05
_REST_S = 0.2  # after a failure of the thread's own
_QUEUED = 100


class Edge(Enum):
    """What a change of the PVs means."""

    BEGIN = "begin"
    END = "end"
    IDLE = "idle"
    """The first word is that no scan runs."""


class ScanEdges:
    """From the PVs' values to edges. Passive.

    A scan whose id changes while it runs is another one: the edges between were missed. The id is to be written
    before the other PV rises. After a disconnection the values are judged as any: what says "idle" ends the scan,
    what says "runs" under the same id lets it go on.
    """

    def __init__(self) -> None:
        self.active: bool | None = None
        self.scan: str | None = None

    def change(self, active: bool | None, scan: str | None) -> Edge | None:
        """Take new values, None where one is not known yet; returns the edge there was."""
        if active is None:
            return None
        before, name = self.active, self.scan
        self.active = active
        if active:
            self.scan = scan
            return Edge.BEGIN if before is not True or name != scan else None
        if before is None:
            return Edge.IDLE
        return Edge.END if before else None


class _Watched(NamedTuple):
    channel: Any
    updates: Any


class ScanWatch:
    """Watches the PVs, in a thread of its own.

    Parameters
    ----------
    active_pv
        A number that is 0 while idle, or a text such as "Idle" or "Done".
    id_pv
        The scan's name or number; empty: none.
    active_provider, id_provider
        "ca" or "pva".
    on_edge
        Called at every edge with the scan's id, None without an id PV.
    """

    def __init__(
        self,
        active_pv: str,
        active_provider: Provider,
        id_pv: str,
        id_provider: Provider,
        on_edge: Callable[[Edge, str | None], None],
    ) -> None:
        self._edges = ScanEdges()
        self._on_edge = on_edge
        self._active = _watch(active_pv, active_provider)
        self._id = _watch(id_pv, id_provider) if id_pv else None
        self._scan: str | None = None
        self._said: bool | None = None
        self._connected = False
        self._name = active_pv
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scan watch", daemon=True)

    @property
    def active(self) -> bool | None:
        """The last value; None before any."""
        return self._edges.active

    @property
    def connected(self) -> bool:
        """Whether every PV answers."""
        return self._connected

    def start(self) -> None:
        # Updates are queued, not called back: a callback and a put of this process wait for each other.
        for watched in (self._id, self._active):
            if watched is not None:
                watched.channel.qMonitor(watched.updates, "field(value)")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            for watched in (self._id, self._active):
                if watched is not None:
                    watched.channel.stopMonitor()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception:
                log.exception("the scan PVs could not be read")
                self._stop.wait(_REST_S)

    def _look(self) -> None:
        try:
            update = self._active.updates.get(_POLL_S)
        except pva.QueueEmpty:
            update = None
        connected = all(watched.channel.isConnected() for watched in (self._active, self._id) if watched is not None)
        if connected != self._connected:
            self._connected = connected
            log.info("scan PV %s %s", self._name, "connected" if connected else "disconnected")
        if self._id is not None:
            while len(self._id.updates):  # after the active PV's update: an id that was written before it is here
                self._scan = id_text(self._id.updates.get()["value"])
        if update is not None:
            self._said = not is_idle(_plain(update["value"]))
        if self._id is not None and self._scan is None:
            return  # a scan is not begun before its name is known
        edge = self._edges.change(self._said, self._scan)
        if edge is not None:
            log.info("scan PV %s: %s, scan %s", self._name, edge.value, self._scan or "without an id")
            self._on_edge(edge, self._scan)


def id_text(value: object) -> str:
    """A scan's id as text: a text, a number, an enumeration's choice, or characters as areaDetector sends them."""
    plain = _plain(value)
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    return str(plain).strip()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):  # an enumeration
        choices, index = value.get("choices", []), int(value.get("index", 0))
        return choices[index] if index < len(choices) else index
    if isinstance(value, (list, tuple)) or hasattr(value, "tobytes"):  # a waveform of characters
        return bytes(int(code) & 0xFF for code in value).split(b"\0")[0].decode(errors="replace")
    return value


def _watch(name: str, provider: Provider) -> _Watched:
    return _Watched(pva.Channel(name, pva.CA if provider == "ca" else pva.PVA), pva.PvObjectQueue(_QUEUED))
