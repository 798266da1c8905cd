"""The energy that a PV gives, beside the frames."""

from __future__ import annotations

import logging
from ptychostream.frames.stream_watch import StreamWatch
from ptychostream.ioc.scan.watched_pv import Provider, WatchedPv, Watcher
from ptychostream.statements.units import EnergyUnit, energy_ev

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

    def __init__(self, pv: str, provider: Provider, unit: EnergyUnit, watch: StreamWatch) -> None:
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
        known = energy_ev(value, self._unit)
        self._known = known is not None
        if known is None:
            _log.warning("%s gives %r, which is no energy: it is not compared", self._name, value)
        self._watch.measure("energy", known, self._name, "" if known is None else f"{value:.8g} {self._unit}")
