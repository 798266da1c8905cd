"""The values of all numbers over the last minutes and the last day, in memory of a fixed size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

SECONDS = 900
"""Samples at one a second."""
MINUTES = 1440
"""Samples at one a minute: the mean of the seconds."""


class _Ring:
    """The last `length` rows of `width` values, and their times."""

    def __init__(self, length: int, width: int) -> None:
        self._rows = np.full((length, width), np.nan, np.float32)
        self._times = np.full(length, np.nan)
        self._next = 0

    def add(self, time_s: float, row: NDArray[np.float32]) -> None:
        place = self._next % len(self._times)
        self._rows[place], self._times[place] = row, time_s
        self._next += 1

    def columns(self, which: list[int], since_s: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        order = np.arange(max(0, self._next - len(self._times)), self._next) % len(self._times)
        order = order[self._times[order] > since_s]
        return self._times[order], self._rows[order][:, which]


class History:
    """Samples of the numbers of one IOC.

    Parameters
    ----------
    names
        The records.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._columns = {name: column for column, name in enumerate(names)}
        self._seconds = _Ring(SECONDS, len(self._columns))
        self._minutes = _Ring(MINUTES, len(self._columns))
        self._minute: list[NDArray[np.float32]] = []

    def sample(self, time_s: float, values: Mapping[str, object]) -> None:
        """Add one sample; to be called once a second. Names that are missing or no numbers become NaN."""
        row = np.full(len(self._columns), np.nan, np.float32)
        for name, column in self._columns.items():
            value = values.get(name)
            if isinstance(value, float | int) and abs(value) < np.finfo(np.float32).max:
                row[column] = value
        self._seconds.add(time_s, row)
        self._minute.append(row)
        if len(self._minute) == 60:
            rows = np.stack(self._minute)
            there = np.isfinite(rows).sum(axis=0)
            mean = np.where(there, np.nansum(rows, axis=0) / np.maximum(there, 1), np.nan).astype(np.float32)
            self._minutes.add(time_s, mean)
            self._minute.clear()

    def series(self, names: Iterable[str], since_s: float, *, minutes: bool = False) -> dict[str, list[float | None]]:
        """Times and values since `since_s`, by the second or by the minute. A name that is not known is left out."""
        known = [name for name in names if name in self._columns]
        ring = self._minutes if minutes else self._seconds
        times, values = ring.columns([self._columns[name] for name in known], since_s)
        found: dict[str, list[float | None]] = {"time": [round(float(time), 2) for time in times]}
        for place, name in enumerate(known):
            found[name] = [None if math.isnan(value) else float(f"{value:.6g}") for value in values[:, place]]
        return found
