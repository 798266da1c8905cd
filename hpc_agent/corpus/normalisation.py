"""The normalisation of raw counts before the first layer of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of raw counts in the graph: √(counts · dose_scale · `scale`) · `gain` + `offset`.

    `scale` brings any detector's counts near one before the root, so that half precision holds them.
    """

    scale: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
