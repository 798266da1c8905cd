"""A scan of the simulated beamline that is taken in parts: more points are added to it while it is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptychostream.errors import ConfigError
from ptychostream.positions.positions import UNIT_M
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.diffraction import Bench, set_up, truth_of

_UM = UNIT_M["um"]


@dataclass(frozen=True)
class Part:
    """Frames that were streamed.

    Attributes
    ----------
    bench, scan, truth
        What was exposed, its frames and their truth.
    times_s
        POSIX times of the streamed frames, of which there may be fewer than in `scan`.
    first_id
        Id of the first frame.
    """

    bench: Bench
    scan: Scan
    truth: Reconstruction
    times_s: NDArray[np.float64]
    first_id: int


@dataclass
class ScanParts:
    """The parts of the scan that is taken.

    Attributes
    ----------
    scan_id
        Its id; empty: no scan is open, and the next part begins one.
    taken
        Its parts, in order.
    """

    scan_id: str = ""
    taken: list[Part] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Frames that were streamed."""
        return sum(len(part.times_s) for part in self.taken)

    @property
    def bench(self) -> Bench | None:
        """The first part's; None before it."""
        return self.taken[0].bench if self.taken else None

    def close(self) -> None:
        """The scan is over."""
        self.scan_id, self.taken = "", []

    def joined(self) -> Part:
        """All parts as one: the streamed frames, and the truth over the whole area."""
        first = self.taken[0]
        if len(self.taken) == 1:
            return first
        counts = [part.scan.counts[: len(part.times_s)] for part in self.taken]
        said_m = [part.scan.positions_m[: len(part.times_s)] for part in self.taken]
        true_m = [part.truth.positions_m[: len(part.times_s)] for part in self.taken]
        settings = first.bench.settings.model_copy(update={"frames": self.frames, "position_error_m": 0.0})
        bench = set_up(settings, np.concatenate(true_m), first.bench)
        weights = [len(part.times_s) for part in self.taken]
        r_factor = float(np.average([part.truth.errors[0] for part in self.taken], weights=weights))
        scan = replace(
            first.scan,
            counts=np.concatenate(counts),
            positions_m=np.concatenate(said_m),
            frame_ids=np.arange(self.frames, dtype=np.int64),
        )
        times_s = np.concatenate([part.times_s for part in self.taken])
        return Part(bench, scan, truth_of(bench, first.scan.scan_id, r_factor), times_s, first.first_id)


def points_m(x_um: ArrayLike, y_um: ArrayLike) -> NDArray[np.float64] | None:
    """Points to scan, [N, 2] (x, y) in metres, from the values of PointsX and PointsY; None: both are empty.

    Raises
    ------
    ConfigError
        They differ in length, or a value is not finite.
    """
    x, y = np.asarray(x_um, np.float64).ravel(), np.asarray(y_um, np.float64).ravel()
    remedy = "write as many finite values to PointsX as to PointsY, or none to both"
    if len(x) != len(y):
        raise ConfigError(f"{len(x)} values in PointsX and {len(y)} in PointsY", where="PointsX", remedy=remedy)
    points = np.stack([x, y], axis=1) * _UM
    if not np.isfinite(points).all():
        raise ConfigError("a point is not finite", where="PointsX, PointsY", remedy=remedy)
    return points if len(points) else None
