"""The resolution of a refinement that has converged, within the refinement's own time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ptychostream.errors import GeometryError
from ptychostream.reconstruct.overlap import COMPARABLE

if TYPE_CHECKING:
    from ptychostream.refine.halves import HalfSets
    from ptychostream.refine.refiner import Refiner

FEWEST = 8
"""With fewer frames no half has an object."""


class Resolution:
    """Fourier ring correlation of two half sets of the frames. Used by the thread of the refinement.

    Attributes
    ----------
    value_m
        Half-bit resolution in metres; NaN while it is not known, and where the halves cannot be compared.
    """

    def __init__(self) -> None:
        self.value_m = math.nan
        self._halves: HalfSets | None = None
        self._is_done = False

    def forget(self) -> None:
        """The frames have changed."""
        self.value_m, self._halves, self._is_done = math.nan, None, False

    @property
    def pending(self) -> bool:
        """Whether there is work to do once the refinement has converged."""
        return not self._is_done

    def work(self, refiner: Refiner, seconds: float) -> bool:
        """Go on for about `seconds`. True: `value_m` is new; it stays NaN where the halves cannot be compared."""
        if self._is_done:
            return False
        if len(refiner.store) < FEWEST:
            self._is_done = True
            return True
        if self._halves is None:
            self._halves = refiner.half_sets()
            if self._halves.overlap < COMPARABLE:
                self._halves, self._is_done = None, True
                return True
        if not self._halves.work(seconds):
            return False
        self._is_done = True
        images = self._halves.images()
        self._halves = None
        # Imported here: scikit-image and scipy would cost the IOC a second of its start.
        from ptychostream.quality.frc import ring_correlation

        try:
            self.value_m = ring_correlation(*images).resolution_m
        except GeometryError:
            self.value_m = math.nan  # too small an area, or none that both halves have
        return True
