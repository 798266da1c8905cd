"""When the positions of a refinement are corrected, whether that has made it better, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.reconstruct.overlap import share_of
from ptychostream.reconstruct.positions import Correction
from ptychostream.refine.correction import BEFORE, CLEARLY, FEWEST, LEAST_OVERLAP, SURE, LiveCorrection, moved
from ptychostream.refine.field import RefinedField
from ptychostream.refine.figures import PositionFigures
from ptychostream.refine.frame_store import FrameStore
from ptychostream.refine.kernels import add_visits
from ptychostream.refine.status import PositionStatus, reach_px

_UNSETTLED = (PositionStatus.WAITS, PositionStatus.CORRECTS)
_UNMOVED = np.zeros((0, 2))
Probe = NDArray[np.float32]


@dataclass
class _Kept:
    """Object, probe and positions that may be gone back to, and their R factor."""

    object: NDArray[np.float32]
    probe: Probe
    positions_m: NDArray[np.float64]
    r_factor: float


class Placing:
    """The correction of a store's positions: it waits, corrects, compares, and keeps what is better.

    Parameters
    ----------
    store, field
        Frames, and the object that is refined.

    Attributes
    ----------
    kind
        What is corrected.
    all_here
        Whether the scan is over. Positions move only then: a frame at the edge of what was measured so far has no
        neighbours that hold it.
    searches
        Whether places are tried before the next pass.
    """

    def __init__(self, store: FrameStore, field: RefinedField) -> None:
        self.kind: Correction = "none"
        self.all_here = False
        self.searches = False
        self._store, self._field = store, field
        self._correction: LiveCorrection | None = None
        self._before: _Kept | None = None
        self._corrected: _Kept | None = None  # while the given positions get as many passes
        self._passes_left = 0
        self._figures = PositionFigures(bound_m=reach_px(store.size) * field.pixel_m)

    @property
    def figures(self) -> PositionFigures:
        """What it tells now."""
        if self.kind == "none" or not len(self._store):
            return self._figures
        rms, largest, at_bound = moved(self._store, self._field.pixel_m)
        passes = self._correction.passes if self._correction is not None else self._figures.passes
        return replace(self._figures, rms_m=rms, largest_m=largest, at_bound=at_bound, passes=passes)

    @property
    def is_unsettled(self) -> bool:
        """Whether positions will move, or do."""
        return self._figures.status in _UNSETTLED

    @property
    def is_busy(self) -> bool:
        """Whether positions are corrected, or compared with those that were given."""
        return self._correction is not None or self._corrected is not None

    @property
    def shifts(self) -> NDArray[np.float64]:
        """Where displacements are to be measured, see `kernels.visit`."""
        return _UNMOVED if self._correction is None else self._correction.shifts

    def would_change(self, kind: Correction, all_here: bool) -> bool:
        """Whether these are news."""
        return kind != self.kind or (self.is_unsettled and all_here != self.all_here)

    def choose(self, kind: Correction) -> bool:
        """Take another kind. True: it is another one, and the positions are where they were given."""
        if kind == self.kind:
            return False
        self.kind = kind
        self._stop()
        self._store.positions_m[:] = self._store.given_m
        status = PositionStatus.OFF if kind == "none" else PositionStatus.WAITS
        self._figures = PositionFigures(status, bound_m=self._figures.bound_m)
        return True

    def interrupt(self) -> None:
        """A frame has come: what was corrected stays, and all begin again once the scan is over."""
        self.all_here = False
        if self.kind != "none":
            self._stop()
            self._tell(PositionStatus.WAITS)

    def go_on(self) -> bool:
        """Try a piece of the places. True: that was the last one, and the positions have moved."""
        assert self._correction is not None
        if self._correction.go_on():
            return False
        self.searches = False
        if self._correction.begins_anew():
            self._field.begin_anew()
        return True

    def after_pass(self, probe: Probe, first: Callable[[], Probe], r_factor: float) -> Probe | None:
        """What follows a pass.

        Parameters
        ----------
        probe
            [2, modes, n, n] as it is now.
        first
            Makes it as it was before the first pass.
        r_factor
            Of the pass; NaN where it has diverged.

        Returns
        -------
        NDArray or None
            The probe to go on with, where object, probe and positions were replaced.
        """
        if self._corrected is not None:
            self._passes_left -= 1
            return self._compare(r_factor) if self._passes_left == 0 or math.isnan(r_factor) else None
        correction = self._correction
        if correction is None:
            return self._begin(probe, first(), r_factor) if self._is_due() else None
        if correction.is_done or math.isnan(r_factor):
            return self._judge(correction, probe, r_factor)
        correction.follow(self._field.object, probe, (self._field.box.top, self._field.box.left))
        self.searches = True
        return None

    def _is_due(self) -> bool:
        """Whether a correction is waited for, and may begin by now."""
        waits = self._figures.status == PositionStatus.WAITS and self.all_here
        return waits and int(self._store.passes[: len(self._store)].min()) >= BEFORE

    def _is_possible(self, first: Probe) -> bool:
        number = len(self._store)
        if number < FEWEST:
            return self._refuse(f"{number} frames, fewer than {FEWEST}")
        overlap = self._overlap(first)
        if overlap < LEAST_OVERLAP:
            return self._refuse(f"frames share {overlap:.0%} of their illumination, less than {LEAST_OVERLAP:.0%}")
        reach = reach_px(self._store.size) + 2
        corners = self._field.corners(self._store.given_m[:number], self._store.size)
        try:
            self._field.reserve(corners.min(axis=0) - reach, self._store.size)
            self._field.reserve(corners.max(axis=0) + reach, self._store.size)
        except ReconstructionError as error:
            return self._refuse(error.what)
        return True

    def _overlap(self, first: Probe) -> float:
        """See `overlap.share_of`; by the first probe, because wrong positions spoil the present one."""
        intensity = np.asarray(np.square(first).sum(axis=(0, 1)), np.float32)
        visits = np.zeros(self._field.box.shape, np.float32)
        corners = self._field.corners(self._store.given_m[: len(self._store)], self._store.size)
        corners -= np.array([self._field.box.top, self._field.box.left])
        add_visits(visits, corners, intensity)
        return share_of(visits, corners, intensity)

    def _refuse(self, why: str) -> bool:
        self._tell(PositionStatus.NOT_POSSIBLE, f"positions are not corrected: {why}")
        return False

    def _begin(self, probe: Probe, first: Probe, r_factor: float) -> Probe | None:
        if not self._is_possible(first):
            return None
        store, field = self._store, self._field
        self._before = self._keep(probe, r_factor)
        self._before.positions_m = store.given_m[: len(store)].copy()
        self._correction = LiveCorrection(store, self.kind, field.pixel_m, first)
        self._each_once()
        self._tell(PositionStatus.CORRECTS)
        if self._correction.goes_on:
            return None
        field.begin_anew()
        return first

    def _judge(self, correction: LiveCorrection, probe: Probe, r_factor: float) -> Probe | None:
        """The passes are made: is it better? If that is not sure, the given positions get as many passes."""
        assert self._before is not None
        before, passes = self._before, correction.passes
        if r_factor < SURE * before.r_factor:
            self._stop()
            self._tell(PositionStatus.CORRECTED, passes=passes)
            return None
        if math.isnan(r_factor):
            return self._give_up(before.r_factor, r_factor, passes)
        self._correction = None
        self._corrected, self._passes_left = self._keep(probe, r_factor), passes
        self._tell(PositionStatus.CORRECTS, passes=passes)
        self._each_once()
        return self._go_back(before)

    def _compare(self, r_factor: float) -> Probe:
        """The given positions have had as many passes."""
        corrected, passes = self._corrected, self._figures.passes
        assert corrected is not None
        margin = 1.0 if self.kind == "global" else CLEARLY
        if margin * r_factor <= corrected.r_factor:
            return self._give_up(r_factor, corrected.r_factor, passes)
        self._stop()
        self._tell(PositionStatus.CORRECTED, passes=passes)
        return self._go_back(corrected)

    def _give_up(self, given_r: float, corrected_r: float, passes: int) -> Probe:
        """Go back to before the correction, as if there had been none."""
        before = self._before
        assert before is not None
        self._stop()
        why = f"given up, R = {corrected_r:.3g} with corrected positions, {given_r:.3g} with those that were given"
        self._tell(PositionStatus.GIVEN_UP, f"positions: {why}, which are kept", passes)
        return self._go_back(before)

    def _keep(self, probe: Probe, r_factor: float) -> _Kept:
        positions = self._store.positions_m[: len(self._store)].copy()
        return _Kept(self._field.object.copy(), probe.copy(), positions, r_factor)

    def _go_back(self, kept: _Kept) -> Probe:
        self._field.object[:] = kept.object
        self._store.positions_m[: len(kept.positions_m)] = kept.positions_m
        return kept.probe

    def _each_once(self) -> None:
        """From now on each pass uses each frame once."""
        self._store.turn[: len(self._store)] = 0

    def _stop(self) -> None:
        self._correction = self._before = self._corrected = None
        self.searches = False

    def _tell(self, status: PositionStatus, message: str = "", passes: int = 0) -> None:
        self._figures = replace(self._figures, status=status, message=message, passes=passes)
