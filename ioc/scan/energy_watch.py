"""The energy that a PV gives, beside the frames."""

from __future__ import annotations

import logging
import math
from typing import Literal

from ptychostream.frames.frame_settings import UNIT_EV
from ptychostream.frames.stream_watch import StreamWatch
from ptychostream.ioc.scan.watched_pv import Provider, WatchedPv, Watcher

_log = logging.getLogger(__name__)


class EnergyWatch:
    """Tells a `StreamWatch` what the energy PV says.

    Parameters
    ----------
    pv, provider
        Its name, and "ca" or "pva".
    unit
        Of its value.
    watch
        Is told.
    """

    def __init__(self, pv: str, provider: Provider, unit: Literal["eV", "keV"], watch: StreamWatch) -> None:
        self._name, self._unit, self._watch = pv, unit, watch
        self._watcher = Watcher(lambda: None)
        self._pv: WatchedPv = self._watcher.watch(pv, provider)
        self._known = False

    def look(self) -> None:
        """Take the values that have come. Called now and then, by one thread at a time."""
        newest: object = None
        while (value := self._pv.next()) is not None:
            newest = value[0]
        if newest is not None:
            self._tell(newest)
        elif self._known and not self._pv.connected:
            self._known = False
            _log.warning("%s does not answer: the energy is not compared", self._name)
            self._watch.measure("energy", None, self._name)

    def stop(self) -> None:
        self._pv.close()
        self._watcher.close()

    def _tell(self, value: object) -> None:
        number = float(value) if isinstance(value, int | float) else math.nan
        self._known = math.isfinite(number) and number > 0
        if not self._known:
            _log.warning("%s gives %r, which is no energy: it is not compared", self._name, value)
        known = number * UNIT_EV[self._unit] if self._known else None
        self._watch.measure("energy", known, self._name, f"{number:.8g} {self._unit}")
