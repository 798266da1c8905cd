"""Marks models in the store that the edge has rolled back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ptychostream.errors import ModelError, ScanFileError
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.model.rollback_text import read_went_back

_log = logging.getLogger(__name__)


class RollbackNotes:
    """Follows the edge's RollbackMessage_RBV. The same message twice, also after a restart, changes nothing.

    The model that the edge went back to loses its mark: an operator chose it, since the edge itself never returns to a
    model that it rolled back.

    Parameters
    ----------
    store
        Where models are marked.
    report
        Called with a message for people at each mark.
    """

    def __init__(self, store: ModelStore, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._noted = ""
        self._failure = ""

    def look(self, message: str | None) -> None:
        """Take the record's value; None: not read. A mark that cannot be written is tried again."""
        if not message or message == self._noted:
            return
        told = read_went_back(message)
        try:
            if told is not None:
                if self._store.find(told.left) and self._store.mark_rolled_back(told.left, told.reason):
                    self._report(f"model {told.left[:12]} is marked as rolled back: {told.reason}")
                if self._store.find(told.back_to):
                    self._store.lift_mark(told.back_to)
        except (ScanFileError, ModelError) as error:
            if str(error) != self._failure:
                self._failure = str(error)
                _log.warning("the rollback is not marked yet: %s", error)
            return
        self._noted, self._failure = message, ""
