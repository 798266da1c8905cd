"""When the frames were taken: which epoch areaDetector's time stamps count from, and the times since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.scans.scan_layout import EPICS_EPOCH
from ptychostream.statements.description import Description

STAMP, EPICS_SECONDS, EPICS_NANOSECONDS = "NDArrayTimeStamp", "NDArrayEpicsTSSec", "NDArrayEpicsTSnSec"
_EPOCHS = {"POSIX": 0.0, "EPICS": float(EPICS_EPOCH)}
_SAME_CLOCK_S = 86_400.0
"""Two clocks of one detector may differ by this, and be counted from the same epoch."""


def frame_times(
    columns: Mapping[str, NDArray[Any]], written_epoch: str, said: Description, place: str
) -> NDArray[np.float64] | None:
    """POSIX seconds of each frame, or None if they are not known. What decided it is added to `said`.

    ADCore's `NDArrayTimeStamp` counts from 1990, from 1970 or from when the camera was switched on, as the driver
    chooses; its EPICS stamp always counts from 1990. So the EPICS stamp tells which epoch the other has. If it fits
    neither, the EPICS stamp is the time. Without an EPICS stamp only the attribute `epoch` can tell.

    Parameters
    ----------
    columns
        The NDAttributes [N], by name. A stamp that is 0 in every frame was never set.
    written_epoch
        The attribute `epoch` of the time stamps: "POSIX", "EPICS", or another text, which says nothing.
    place
        Path of the NDAttributes.
    """
    stamps, epics = _seconds(columns, STAMP), _epics_times(columns)
    if epics is not None:
        found = "EPICS" if stamps is None else _epoch_of(stamps, epics)
        said.state("epoch", found or "EPICS", f"{place}/{EPICS_SECONDS}")
        if stamps is None or not found:
            return epics
        if written_epoch in _EPOCHS:
            said.state("epoch", written_epoch, f"{place}/{STAMP}@epoch")
        return stamps + _EPOCHS[found]
    if stamps is None:
        return None
    if written_epoch in _EPOCHS:
        said.state("epoch", written_epoch, f"{place}/{STAMP}@epoch")
        return stamps + _EPOCHS[written_epoch]
    said.assume("epoch", "unknown", f"{place}/{STAMP}, beside which no {EPICS_SECONDS} and no `epoch` stands")
    return None


def _epics_times(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
    seconds = _seconds(columns, EPICS_SECONDS)
    if seconds is None:
        return None
    nanoseconds = _seconds(columns, EPICS_NANOSECONDS)
    fraction = 0.0 if nanoseconds is None or nanoseconds.shape != seconds.shape else nanoseconds * 1e-9
    return seconds + float(EPICS_EPOCH) + fraction


def _epoch_of(stamps: NDArray[np.float64], epics: NDArray[np.float64]) -> str:
    """The epoch that brings the stamps nearest to the EPICS times; empty if none does."""
    count = min(len(stamps), len(epics))
    off = float(np.median(epics[:count] - stamps[:count])) if count else np.inf
    return next((name for name, start in _EPOCHS.items() if abs(off - start) <= _SAME_CLOCK_S), "")


def _seconds(columns: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64] | None:
    column = columns.get(name)
    if column is None or column.dtype.kind not in "iuf" or not column.any():
        return None
    return column.astype(np.float64)
