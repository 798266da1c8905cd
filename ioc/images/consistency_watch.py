"""The consistency of the latest patch, computed rarely enough to leave the processor to the stream."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ptychostream.quality.consistency import UNKNOWN, Consistency, ForwardModel
from ptychostream.model.contract import ModelContract
from ptychostream.errors import PtychostreamError
from ptychostream.plugins.flow.snapshot import LatestPatch

log = logging.getLogger(__name__)

_SHARE = 0.02
"""The largest part of one core that this takes."""


class ConsistencyWatch:
    """Computes the consistency of the latest patch, at most as often as its share of a core allows.

    Parameters
    ----------
    clock
        Gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.latest: Consistency = UNKNOWN
        """Consistency of the latest patch. NaN if its model has no probe, or there is no patch."""
        self._clock = clock
        self._seen: LatestPatch | None = None
        self._contract: ModelContract | None = None
        self._model: ForwardModel | None = None
        self._not_before = float("-inf")

    def look(self, patch: LatestPatch | None) -> None:
        """Update `latest`. Only one thread at a time may call it."""
        began = self._clock()
        if patch is self._seen or (patch is not None and began < self._not_before):
            return
        self._seen = patch
        if patch is None or patch.counts is None or patch.contract is None:
            self.latest = UNKNOWN
            return
        self._adopt(patch.contract)
        if self._model is None:
            self.latest = UNKNOWN
            return
        try:
            self.latest = self._model.judge(patch.phase, patch.counts, preprocessing=patch.spec)
        except PtychostreamError as error:
            log.warning("no consistency with this model: %s", error)
            self._model, self.latest = None, UNKNOWN
        now = self._clock()
        self._not_before = now + (now - began) / _SHARE

    def _adopt(self, contract: ModelContract) -> None:
        if contract is not self._contract:
            self._contract = contract
            self._model = ForwardModel(contract) if contract.probe is not None else None
