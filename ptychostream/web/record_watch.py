"""The records of one IOC over PV Access: found, followed, lost and found again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from p4p import Value
from p4p.client.raw import Context, Subscription

from ptychostream.pva.channel_list import IMAGES
from ptychostream.pva.channel_reader import ChannelReader, each
from ptychostream.web.readings import DISCONNECTED, FIELDS, Reading, reading_of

log = logging.getLogger(__name__)

PILOT = "HEARTBEAT"
"""The record that tells whether the IOC is there. The others are searched when it has been found."""
PATIENCE_S = 20.0
"""A record that has not been found for so long is not there; an IOC has some records only on some machines."""
MOST_IMAGES = 32
REST_S = 0.05
"""Pause between two looks at the records: together they change some hundred times a second."""


class RecordWatch:
    """Follows the records of one IOC. `start` and `stop` are called by one thread.

    Parameters
    ----------
    prefix
        Of the IOC.
    names
        The records, without the prefix.
    on_change
        Called with a record's name, its reading before (None for the first one) and its new reading, in a thread of
        the client library.
    on_connect
        Called with True when the IOC is found, and False when it is lost.

    Attributes
    ----------
    connected
        Whether the IOC answers.
    images
        Names of the images that the IOC lists.
    """

    def __init__(
        self,
        prefix: str,
        names: Iterable[str],
        on_change: Callable[[str, Reading | None, Reading], None],
        on_connect: Callable[[bool], None],
    ) -> None:
        self.prefix = prefix
        self.connected = False
        self.images: tuple[str, ...] = ()
        self._names = [name for name in names if name != PILOT]
        self._on_change = on_change
        self._on_connect = on_connect
        self._conf = {name: value for name, value in os.environ.items() if name.startswith("EPICS_PVA")}
        self._lock = threading.Lock()
        self._readings: dict[str, Reading] = {}
        self._stamps: dict[str, int] = {}
        self._stamp = 0
        self._context: Context | None = None
        self._open: dict[str, Subscription] = {}
        self._opened_s = 0.0
        self._marked: set[str] = set()  # records that have updates; changed under `_lock`
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"web records {prefix}", daemon=True)
        take = each(partial(self._take, PILOT))
        self._pilot = ChannelReader(f"{prefix}{PILOT}", FIELDS, 2, take, self._pilot_changed, name=f"web {prefix}")

    def start(self) -> None:
        """Search the IOC, and follow it when it is there."""
        self._thread.start()
        self._pilot.start()

    def stop(self) -> None:
        """End it; it may take some seconds."""
        self._pilot.stop()
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._leave()

    def readings(self) -> dict[str, Reading]:
        """The newest reading of every record that has answered since the start."""
        with self._lock:
            return dict(self._readings)

    def changed_since(self, stamp: int) -> tuple[dict[str, Reading], int]:
        """The readings that have changed after `stamp`, and the stamp to ask with next time."""
        with self._lock:
            if stamp == self._stamp:
                return {}, stamp
            found = {name: self._readings[name] for name, at in self._stamps.items() if at > stamp}
            return found, self._stamp

    def tidy(self) -> None:
        """Stop the search for records that the IOC does not have."""
        if self._context is None or time.monotonic() - self._opened_s < PATIENCE_S:
            return
        with self._lock:
            missing = [name for name in self._open if name not in self._readings and name != IMAGES]
            gone = [self._open.pop(name) for name in missing]
        for subscription in gone:
            subscription.close()

    def _pilot_changed(self, connected: bool) -> None:
        self.connected = connected
        log.info("%s %s", self.prefix, "is there" if connected else "is gone")
        self._on_connect(connected)
        if connected:
            self._enter()
            return
        self._leave()
        with self._lock:
            for name, reading in self._readings.items():
                self._put(name, replace(reading, severity=DISCONNECTED, alarm="the IOC does not answer"))

    def _enter(self) -> None:
        context = self._context = Context("pva", conf=self._conf, useenv=False, nt=False)
        self._opened_s = time.monotonic()
        for name in (*self._names, IMAGES):
            subscription = context.monitor(f"{self.prefix}{name}", partial(self._mark, name), FIELDS)
            with self._lock:
                self._open[name] = subscription

    def _leave(self) -> None:
        """Close all monitors, without the lock: the end of one waits for its callback, and that for the lock."""
        with self._lock:
            context, self._context = self._context, None
            monitors, self._open = self._open, {}
        monitors.clear()
        if context is not None:
            context.close()

    def _mark(self, name: str) -> None:
        """In a thread of the client library: a record has updates."""
        with self._lock:
            self._marked.add(name)
        self._wake.set()

    def _run(self) -> None:
        """Take the updates of marked records. p4p's own threads lose one that comes while its monitor is made."""
        while not self._stopping:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                marked = {name: self._open[name] for name in self._marked if name in self._open}
                self._marked -= marked.keys()
                waiting = bool(self._marked) and bool(self._open)
            for name, subscription in marked.items():
                try:
                    self._drain(name, subscription)
                except Exception:
                    log.exception("an update of %s%s was lost", self.prefix, name)
            time.sleep(REST_S)
            if waiting:
                self._wake.set()

    def _drain(self, name: str, subscription: Subscription) -> None:
        """The newest update of a record."""
        newest = None
        while (update := subscription.pop()) is not None:
            newest = update if isinstance(update, Value) else newest
        if newest is None:
            return
        if name == IMAGES:
            self._take_images(newest)
        else:
            self._take(name, newest)

    def _take(self, name: str, update: Any) -> None:
        reading = reading_of(update) if isinstance(update, Value) else None
        if reading is None:
            return
        with self._lock:
            before = self._readings.get(name)
            if before is not None and replace(before, time_s=0) == replace(reading, time_s=0):
                return
            self._put(name, reading)
        self._on_change(name, before, reading)

    def _take_images(self, update: Value) -> None:
        if isinstance(names := update["value"], list):
            self.images = tuple(str.__str__(one)[:60] for one in names[:MOST_IMAGES])

    def _put(self, name: str, reading: Reading) -> None:
        self._stamp += 1
        self._readings[name], self._stamps[name] = reading, self._stamp
