"""The dose scale of each scan, from its first frames; fixed per scan, so that one canvas never mixes scales.

The network was trained at some mean counts; a scan of another exposure is brought to it by one factor, as
`ptychostream.model.dose` chooses it. Passive and pure: no thread, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ptychostream.model.dose import FRAMES, LIMITS, choose_scale, telling

_RUNS_KEPT = 16


class ScanDose:
    """Counts of each scan's first frames, and the dose scale that follows.

    While fewer than `frames` have come, what there is decides: the scan's first patches are shown at once, and only
    they can be at a scale that differs a little.

    Parameters
    ----------
    frames
        Number of frames with counts that decide; later ones change nothing.
    limits
        Limits of the scale.

    Attributes
    ----------
    newest
        The newest run that has a frame.
    """

    def __init__(self, frames: int = FRAMES, limits: tuple[float, float] = LIMITS) -> None:
        self.limits = limits
        self.newest = 0
        self._frames = frames
        self._automatic = False
        self._sums: OrderedDict[int, list[float]] = OrderedDict()

    @property
    def automatic(self) -> bool:
        """Whether scales are chosen here; switching it on forgets the frames seen before."""
        return self._automatic

    @automatic.setter
    def automatic(self, on: bool) -> None:
        self._sums = OrderedDict()
        self._automatic = on

    def choose(self, run: int, trained: float | None, otherwise: float, counts: NDArray[np.float32]) -> float:
        """Scale for frames of a run that are to be inferred now, [n, H, W]; `otherwise` where none can be chosen."""
        if self.wants(run):
            self.note(run, counts.sum(axis=(1, 2), dtype=np.float64))
        return self.scale(run, trained, otherwise)

    def newest_scale(self, trained: float | None, otherwise: float) -> float:
        """The dose scale of the newest run."""
        return self.scale(self.newest, trained, otherwise)

    def wants(self, run: int) -> bool:
        """Whether more frames of that run are needed."""
        return self._automatic and len(self._sums.get(run, ())) < self._frames

    def note(self, run: int, sums: Iterable[float]) -> None:
        """Note the counts of frames of a run, each summed over the frame. Frames without counts are ignored."""
        seen = self._sums.setdefault(run, [])
        seen.extend(telling(sums)[: self._frames - len(seen)])
        self.newest = max(self.newest, run)
        while len(self._sums) > _RUNS_KEPT:
            self._sums.popitem(last=False)

    def scale(self, run: int, trained: float | None, otherwise: float) -> float:
        """Dose scale of a run for a network that was trained at `trained` counts a frame."""
        chosen = choose_scale(self._sums.get(run, ()), trained, self.limits) if self._automatic else None
        return otherwise if chosen is None else chosen
