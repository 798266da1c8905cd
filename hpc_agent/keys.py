"""Names of scans in the journal: their ids, made unique where a sequencer counts from 1 again."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.scans.collect import ScanEvent, local_name
from ptychostream.scans.phase_file import file_stem


class ScanKeys:
    """Gives the key of an event: the same for a scan that is reported twice, another for a later scan of the same id.

    Two events belong to one scan if they agree in id and in file, as far as both events give them.

    Parameters
    ----------
    path_map
        As in `CollectSettings`: one event may give the detector's name of a file, the other the local name.
    """

    def __init__(self, journal: Journal, path_map: dict[str, str]) -> None:
        self._journal = journal
        self._path_map = path_map

    def __call__(self, event: ScanEvent) -> str:
        name = file_stem(event.scan_id or Path(local_name(event.file, self._path_map)).stem)
        for number in count(1):
            key = name if number == 1 else f"{name}-{number}"
            known = self._journal.event(key)
            if known is None or self._same(known, event):
                return key
        raise AssertionError("there are more numbers than scans")

    def _same(self, told: dict[str, Any], event: ScanEvent) -> bool:
        pairs = (
            (told.get("scan_id", ""), event.scan_id),
            (local_name(told.get("file", ""), self._path_map), local_name(event.file, self._path_map)),
        )
        return all(one == other for one, other in pairs if one and other)
