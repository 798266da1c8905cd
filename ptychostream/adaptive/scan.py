"""A scan that measures sparsely first, and then where the picture is uncertain, until its budget is used up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptychostream.adaptive.maps import Maps, look, unseen
from ptychostream.adaptive.next_points import next_points
from ptychostream.errors import ConfigError
from ptychostream.imaging.phase_image import PhaseImage


@dataclass
class AdaptiveScan:
    """Chooses the points of a scan, part after part. Passive: no clock, no channel.

    Parameters
    ----------
    points_m
        [N, 2] (x, y) of every point that may be measured, metres: those of the full scan.
    beam_m
        Diameter of the beam on the sample, metres.
    budget
        Number of points to measure in all.
    sparse
        Number of points that are spread evenly at first. They are measured in two parts, because two pictures are
        needed to see where they contradict each other. None: half of the budget.
    part
        Number of points in each part after that. None: an eighth of the budget.

    Raises
    ------
    ConfigError
        A number is not positive, the budget exceeds the points, or the first points exceed the budget.
    """

    points_m: NDArray[np.float64]
    beam_m: float
    budget: int
    sparse: int | None = None
    part: int | None = None
    measured: NDArray[np.bool_] = field(init=False)
    _images: list[PhaseImage] = field(init=False, default_factory=list)
    _frames: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.points_m = np.asarray(self.points_m, np.float64).reshape(-1, 2)
        self.measured = np.zeros(len(self.points_m), np.bool_)
        self.sparse = max(1, self.budget // 2) if self.sparse is None else self.sparse
        self.part = max(1, self.budget // 8) if self.part is None else self.part
        if not (0 < self.sparse <= self.budget <= len(self.points_m) and self.part > 0 and self.beam_m > 0):
            what = f"{self.sparse} of {self.budget} of {len(self.points_m)} points, then parts of {self.part}"
            remedy = "give 0 < sparse ≤ budget ≤ points, a positive part and a positive beam"
            raise ConfigError(f"{what}, with a beam of {self.beam_m:g} m", where="adaptive scan", remedy=remedy)

    @property
    def maps(self) -> Maps:
        """What is known of the picture."""
        if not self._images:
            return unseen(self.points_m, self.beam_m)
        return look(self._images, self.points_m, self.beam_m, self._frames)

    def next(self) -> NDArray[np.intp]:
        """Indices of the next part's points; empty when the budget is used up."""
        assert self.sparse is not None
        assert self.part is not None
        taken = int(self.measured.sum())
        wanted = min(-(-self.sparse // 2), self.sparse - taken) if taken < self.sparse else self.part
        wanted = min(wanted, self.budget - taken)
        return next_points(self.points_m, self.measured, self.maps, self.beam_m, wanted)

    def took(self, points: NDArray[np.intp], image: PhaseImage, frames: int) -> None:
        """Points were measured; `image` is the stitched phase of the scan so far, of `frames` frames."""
        self.measured[points] = True
        self._images.append(image)
        self._frames = frames
