"""Corrects the positions of a refinement, by the engine's own rules, in pieces that hold nobody up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptychostream.reconstruct.positions import Correction, LinearMap, Positions
from ptychostream.reconstruct.search import PlaceSearch
from ptychostream.refine.frame_store import BAD, STEP, FrameStore
from ptychostream.refine.status import reach_px

PASSES = 60
"""Passes in which positions are corrected."""
AGAIN = 20
"""The same, where they go on from an earlier correction."""
FEWEST = 16
"""With fewer frames positions are not corrected."""
LEAST_OVERLAP = 0.8
"""Nor where frames overlap less (`overlap.share_of`): a frame by itself is explained at any place."""
BEFORE = 10
"""Uses of each frame before positions move, which give the R factor that the correction is judged against."""
SURE = 0.6
"""A correction that lowers the R factor to less than this part is better. Of any other, the R factor is compared with
that of the given positions after as many passes."""
CLEARLY = 0.9
"""It must be below this part of that, where each position moves by itself. Corrections of right positions came to 0.94
on scan 247, and to 1 and more on simulated truth."""
_PIECE = 256
"""Places that are compared at once."""


def moved(store: FrameStore, pixel_m: float) -> tuple[float, float, int]:
    """Rms and largest distance from the given positions, m, and how many frames are at the bound."""
    away = store.positions_m[: len(store)] - store.given_m[: len(store)]
    distance2 = np.square(away).sum(axis=1)
    at = np.abs(away).max(axis=1) > (reach_px(store.size) - 0.5) * pixel_m
    return float(np.sqrt(distance2.mean())), float(np.sqrt(distance2.max())), int(at.sum())


def linear_map(store: FrameStore) -> LinearMap:
    """What the corrected positions have in common."""
    return LinearMap.between(store.given_m[: len(store)], store.positions_m[: len(store)])


class LiveCorrection:
    """One correction of the positions of all frames of a store. Used by the refiner, while no frame is added.

    Parameters
    ----------
    store
        Its positions are moved.
    kind
        See `reconstruct.positions.Positions`.
    pixel_m
        Object pixel.
    probe
        [2, modes, n, n] the first one.
    seed
        Of the places that are tried.

    Attributes
    ----------
    shifts
        [N, 2] what `kernels.visit` measured in this pass.
    passes
        Passes that have been made.
    goes_on
        Whether it goes on from an earlier correction.
    """

    def __init__(
        self,
        store: FrameStore,
        kind: Correction,
        pixel_m: float,
        probe: NDArray[np.float32],
        seed: int = 0,
    ) -> None:
        number = len(store)
        self.passes = 0
        self.shifts = np.zeros((number, 2))
        self._store, self._pixel_m = store, pixel_m
        given, now = (self._pixels(places[:number]) for places in (store.given_m, store.positions_m))
        self.goes_on = again = bool((given != now).any())
        self._planned = AGAIN if again else PASSES
        self._positions = Positions(
            given, kind, reach_px(store.size), now if again else None, seed, iterations=self._planned
        )
        self._search = PlaceSearch(probe)
        self._todo: Iterator[None] = iter(())
        self._anew = False

    @property
    def is_done(self) -> bool:
        """Whether no pass is left to make."""
        return self.passes >= self._planned

    def follow(self, object_: NDArray[np.float32], probe: NDArray[np.float32], corner: tuple[int, int]) -> None:
        """A pass is over. `go_on` must follow until it returns False.

        Parameters
        ----------
        object_, probe
            [2, H, W], [2, modes, n, n].
        corner
            Absolute (row, column) of the object's first pixel.
        """
        self.passes += 1
        self._positions.follow(self.shifts)
        self._todo = self._look(object_, probe, np.array(corner, np.int64))

    def go_on(self) -> bool:
        """Compare a piece of the places that are to be tried. False: the positions have moved; a pass may begin."""
        return next(self._todo, 0) is None

    def begins_anew(self) -> bool:
        """Whether the object must begin anew, once after a pass."""
        anew, self._anew = self._anew, False
        return anew

    def _look(
        self, object_: NDArray[np.float32], probe: NDArray[np.float32], corner: NDArray[np.int64]
    ) -> Iterator[None]:
        tried = self._positions.candidates()
        if tried is not None:
            yield from self._compare(np.arange(len(tried)), tried, object_, probe, corner)
        if (worst := self._positions.lattice()) is not None:
            yield from self._compare(*worst, object_, probe, corner)
        self._anew = self._positions.begins_anew()
        number = len(self._positions.now)
        self._store.positions_m[:number] = (self._positions.now + self._store.size // 2)[:, ::-1] * self._pixel_m

    def _compare(
        self,
        frames: NDArray[np.int64],
        places: NDArray[np.int64],
        object_: NDArray[np.float32],
        probe: NDArray[np.float32],
        corner: NDArray[np.int64],
    ) -> Iterator[None]:
        misfits = np.empty(places.shape[:2])
        at_once = max(1, _PIECE // places.shape[1])
        for first in range(0, len(frames), at_once):
            piece = slice(first, first + at_once)
            stored = self._search.pick(self._store.amplitudes, frames[piece])
            amplitudes = np.where(stored == BAD, np.float32(-1), stored * np.float32(STEP)).astype(np.float32)
            misfits[piece] = self._search.r_factors(amplitudes, places[piece] - corner, object_, probe)
            yield
        self._positions.choose(frames, places, misfits)

    def _pixels(self, positions_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """[N, 2] absolute (row, column) of the patches' first pixels."""
        return positions_m[:, ::-1] / self._pixel_m - self._store.size // 2
