"""Watches the scan-complete PV of any sequencer over Channel Access, and the PVs that name the scan."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import caproto
from caproto.threading.client import PV, Context, Subscription
from pydantic import Field, model_validator

from ptychostream.config import Settings
from ptychostream.frames.scan_id import id_text
from ptychostream.hpc_agent.edge.edge_values import plain
from ptychostream.hpc_agent.scans.collect import ScanEvent
from ptychostream.hpc_agent.scans.transitions import (
    Coherence,
    Transitions,
    coherence,
    frame_count,
    to_tell,
)
from ptychostream.statements.radiation import of_unit
from ptychostream.statements.record_text import STRING_BYTES
from ptychostream.statements.units import EnergyUnit, energy_ev

log = logging.getLogger(__name__)

_SETTLE_POLL_S = 0.05
_SEARCH_S = 1.0
_REST_S = 1.0  # after a failure of the thread's own
_FAILED_READS = 3  # in a row on a connection that should be there: then it is made anew
_QUEUED = 1000


class ScanWatchSettings(Settings):
    """The PVs.

    Attributes
    ----------
    complete_pv
        PV that shows that a scan is complete; empty: no PV is watched, and scans come from the folder only.
    edge
        Which transition: "rising" (0 → 1), "falling" (a busy record), "counter" (any change).
    id_pv, file_pv
        The scan's id; its file. At least one of them; long names of lsi, lso or stringin records as `NAME.VAL$`.
    energy_pv, energy_unit
        The photon energy in eV or keV, or the accelerating voltage of electrons in V or kV.
    frames_pv
        How many frames the file should hold.
    settle_s
        How long id and file may come after the transition.
    poll_s
        How often the PV is read although no update came.
    timeout_s
        Time limit of a read.
    catch_up
        Whether to take the scan that the PVs name after the agent or the IOC restarts, if it is complete and new.
    """

    complete_pv: str = ""
    edge: Literal["rising", "falling", "counter"] = "rising"
    id_pv: str = ""
    file_pv: str = ""
    energy_pv: str = ""
    energy_unit: EnergyUnit = "keV"
    frames_pv: str = ""
    settle_s: float = Field(5.0, ge=0)
    poll_s: float = Field(10.0, gt=0)
    timeout_s: float = Field(2.0, gt=0)
    catch_up: bool = True

    @model_validator(mode="after")
    def _named(self) -> ScanWatchSettings:
        if self.complete_pv and not (self.id_pv or self.file_pv):
            raise ValueError("complete_pv needs id_pv, file_pv or both: nothing else tells one scan from the next")
        return self


class ScanWatch:
    """Watches the PVs in a thread, also across restarts of the IOC.

    Parameters
    ----------
    settings
        The PVs.
    on_event
        Called with each completed scan. Duplicates that the PVs show are left out.
    last
        The scan that was reported last, by an earlier run; None: none.
    on_return
        Called when the PVs are connected or connected again: scans may have been missed.
    """

    def __init__(
        self,
        settings: ScanWatchSettings,
        on_event: Callable[[ScanEvent], object],
        last: ScanEvent | None = None,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self.connected = False
        self._settings = settings
        self._on_event = on_event
        self._on_return = on_return
        self._last = last
        self._transitions = Transitions(settings.edge)
        self._updates: queue.Queue[object] = queue.Queue(_QUEUED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scan watch", daemon=True)
        self._context: Context | None = None
        self._pvs: dict[str, PV] = {}
        self._subscription: Subscription | None = None
        self._failures = 0
        self._lost = threading.Event()  # the connection, since it was last looked at
        self._first: object = None  # update since the connection came
        self._owed = False  # a transition was seen, its scan is not reported yet

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; nothing is reported after this returns."""
        self._stop.set()
        self._offer(None)
        if self._thread.ident is not None:
            self._thread.join()

    # The thread

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._look()
                except caproto.CaprotoError as error:
                    self._failed(error)
                except Exception:
                    log.exception("the scan PVs could not be read")
                    self._stop.wait(_REST_S)
        finally:
            self._disconnect()

    def _look(self) -> None:
        if self._context is None:
            self._connect()
        try:
            wait_s = self._settings.poll_s if self.connected else min(self._settings.poll_s, _SEARCH_S)
            value, waited = self._updates.get(timeout=wait_s), False
        except queue.Empty:
            value, waited = None, True
        if self._stop.is_set():
            return
        if self._lost.is_set():
            self._lost.clear()
            self._first = None
            self._say_connected(False)
        if not self.connected and value is not None:
            self._first = value
        if not all(pv.connected for pv in self._pvs.values()):
            self._say_connected(False)
            if waited and self._context is not None:
                self._context.broadcaster.search_now()  # caproto's own searches become less and less frequent
            return
        if waited:
            value = self._value("complete_pv")
            self._failures = 0
        if not self.connected:
            # The first update, not the connection: transitions between the two would be missed.
            first = self._first if value is None else value
            if first is not None:
                self._returned(first)
                self._say_connected(True)
        elif value is not None:
            self._take(value)

    def _take(self, value: object) -> None:
        missed = self._transitions.missed
        if self._transitions.take(value):
            if self._transitions.missed > missed:
                log.warning(
                    "%s: %d scans completed unseen", self._settings.complete_pv, self._transitions.missed - missed
                )
                self._on_return()
            self._completed()

    def _say_connected(self, connected: bool) -> None:
        if connected != self.connected:
            self.connected = connected
            log.info("scan PVs of %s %s", self._settings.complete_pv, "connected" if connected else "disconnected")

    def _returned(self, value: object) -> None:
        """The PVs are connected again: the scan that they name may have completed meanwhile."""
        before = self._transitions.value
        self._transitions.take(value)
        if self._owed:
            self._completed()
        elif self._settings.catch_up and self._transitions.complete(before):
            event = self._read()
            if coherence(event, self._last) in (Coherence.FRESH, Coherence.REPEATED):
                self._tell(event, "completed unseen")
        self._on_return()

    def _completed(self) -> None:
        """After a transition, wait until the PVs name another scan than the last one."""
        self._owed = True
        deadline = time.monotonic() + self._settings.settle_s
        while True:
            event = self._read()
            found = coherence(event, self._last)
            if found is Coherence.FRESH or time.monotonic() >= deadline:
                break
            if self._stop.wait(_SETTLE_POLL_S):
                return
        self._owed = False
        if found is Coherence.STALE_FILE:
            log.error("scan %s: %s still names %s", event.scan_id, self._settings.file_pv, event.file)
        told = to_tell(event, self._last)
        if told is None:
            name = event.scan_id or event.file
            log.warning("%s: scan %r is told again, and ignored", self._settings.complete_pv, name)
            return
        self._tell(told, "completed")

    def _tell(self, event: ScanEvent, how: str) -> None:
        log.info("scan %s %s", event.scan_id or event.file, how)
        self._last = event
        self._on_event(event)

    # Channel Access

    def _connect(self) -> None:
        names = {
            role: name
            for role in ("complete_pv", "id_pv", "file_pv", "energy_pv", "frames_pv")
            if (name := getattr(self._settings, role))
        }
        self._context = Context(timeout=self._settings.timeout_s)
        found = self._context.get_pvs(*names.values(), connection_state_callback=self._state_changed)
        self._pvs = dict(zip(names, found, strict=True))
        # caproto holds callbacks by weak reference: bound methods of an object that lives are safe
        self._subscription = self._pvs["complete_pv"].subscribe(data_type="native")
        self._subscription.add_callback(self._updated)

    def _disconnect(self) -> None:
        context, names = self._context, [pv.name for pv in self._pvs.values()]
        self._context, self._subscription, self._pvs = None, None, {}
        self.connected = False
        if context is not None:
            context.broadcaster.cancel(*names)  # its search thread would send on the closed socket
            context.disconnect()

    def _failed(self, error: caproto.CaprotoError) -> None:
        self._failures += 1
        log.warning("scan PVs: %s", error)
        if self._failures >= _FAILED_READS:
            log.warning("scan PVs: connecting anew")
            self._failures = 0
            self._disconnect()
        self.connected = False  # what was missed is looked for when a read succeeds again
        self._stop.wait(_REST_S)

    def _state_changed(self, _pv: PV, state: str) -> None:
        if state == "disconnected":
            self._lost.set()
        self._offer(None)

    def _updated(self, _subscription: Subscription, response: Any) -> None:
        self._offer(plain(response))

    def _offer(self, value: object) -> None:
        try:
            self._updates.put_nowait(value)
        except queue.Full:  # of values that wait, none is needed more than the ones that are read at the next poll
            log.warning("%s changes faster than scans complete", self._settings.complete_pv)

    def _value(self, role: str) -> object:
        return plain(self._pvs[role].read(timeout=self._settings.timeout_s))

    def _read(self) -> ScanEvent:
        values = {role: self._value(role) for role in self._pvs if role != "complete_pv"}
        file = id_text(values.get("file_pv"))
        if len(file) == STRING_BYTES and self._pvs["file_pv"].channel.native_data_type is caproto.ChannelType.STRING:
            name = self._settings.file_pv
            log.error("%s is cut at %d characters: watch %s.VAL$ in its place", name, STRING_BYTES, name)
        return ScanEvent(
            id_text(values.get("id_pv")),
            file,
            energy_ev(values.get("energy_pv"), self._settings.energy_unit),
            frame_count(values.get("frames_pv")),
            of_unit(self._settings.energy_unit),
        )
