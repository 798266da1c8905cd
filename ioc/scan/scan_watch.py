"""The PVs that tell when a scan runs, and what it is called."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum

from ptychostream.frames.idle import is_idle
from ptychostream.frames.scan_id import id_text, plain
from ptychostream.ioc.scan.watched_pv import Provider, WatchedPv, Watcher

log = logging.getLogger(__name__)

_POLL_S = 0.05
_REST_S = 0.2  # after a failure of the thread's own


class Edge(Enum):
    """What a change of the PVs means."""

    BEGIN = "begin"
    END = "end"
    IDLE = "idle"
    """The first value says that no scan runs."""


class ScanEdges:
    """Turns values of the PVs into begin and end of scans. Passive: no thread, no clock.

    When the id changes while a scan runs, another scan has begun and the end between was missed. The id must be written
    before the other PV rises. After a disconnection the values are judged as any: what says "idle" ends the scan,
    what says "runs" under the same id lets it go on.
    """

    def __init__(self) -> None:
        self.active: bool | None = None
        self.scan: str | None = None

    def change(self, active: bool | None, scan: str | None) -> Edge | None:
        """Take new values, None where one is not known yet; return what they mean, if anything."""
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


class ScanWatch:
    """Watches the PVs in a thread of its own.

    Parameters
    ----------
    active_pv
        A number that is 0 while idle, or a text such as "Idle" or "Done".
    id_pv
        PV of the scan's name or number; empty: there is none.
    active_provider, id_provider
        "ca" or "pva".
    on_edge
        Called at every begin and end with the scan's id, None without an id PV.
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
        self._arrived = threading.Event()
        self._watcher = Watcher(self._arrived.set)
        self._pvs = (active_pv, active_provider), (id_pv, id_provider)
        self._active: WatchedPv
        self._id: WatchedPv | None = None
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
        """Whether every PV is connected."""
        return self._connected

    def start(self) -> None:
        active, named = self._pvs
        self._active = self._watcher.watch(*active)
        if named[0]:
            self._id = self._watcher.watch(*named)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._arrived.set()
        if self._thread.ident is not None:
            self._thread.join()
            self._active.close()
            if self._id is not None:
                self._id.close()
            self._watcher.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception:
                log.exception("the scan PVs could not be read")
                self._stop.wait(_REST_S)

    def _look(self) -> None:
        update = self._active.next()
        if self._id is not None:
            while (named := self._id.next()) is not None:  # after the active PV's: an id written before it is here
                self._scan = id_text(named[0])
        if update is None:
            self._arrived.wait(_POLL_S)
            self._arrived.clear()
        connected = self._active.connected and (self._id is None or self._id.connected)
        if connected != self._connected:
            self._connected = connected
            log.info("scan PV %s %s", self._name, "connected" if connected else "disconnected")
        if update is not None:
            self._said = not is_idle(plain(update[0]))
        if self._id is not None and self._scan is None:
            return  # a scan is not begun before its name is known
        edge = self._edges.change(self._said, self._scan)
        if edge is not None:
            log.info("scan PV %s: %s, scan %s", self._name, edge.value, self._scan or "without an id")
            self._on_edge(edge, self._scan)
