"""Frames in bounded memory. Where it is full, frames are left out evenly over the scanned area."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.reconstruct.fft_kernels import order

STEP = 1 / 32
"""Unit of a stored amplitude, in square roots of a count. Photon noise is 0.5; rounding to this adds 0.009."""
BAD = np.uint16(65535)
"""Stored amplitude of a pixel that is no measurement."""
FULL = 0.75
"""Part of the memory that is used after frames were left out."""
AHEAD = 3
"""So often a new frame is used before the others are used again."""
EARLY = 10
"""Uses of a frame after which its R factor may be that of a fit to its noise."""
_WIDER = 2**0.25


class FrameStore:
    """Amplitudes, positions and figures of at most `capacity` frames.

    Once the memory is full, the area is divided into square cells and one frame of each cell is kept, the one that came
    first. The cells are as small as the memory allows. So the kept frames cover the area evenly, and what is left out
    is a matter of positions alone.

    Parameters
    ----------
    size
        Rows and columns of a frame.
    memory_bytes
        Memory of the amplitudes.

    Attributes
    ----------
    amplitudes
        [capacity, n, n] uint16, in units of `STEP`, in the order of `fft_kernels.permute`; `BAD` where not measured.
    given_m, positions_m
        [capacity, 2] float64 (x, y) as they were given, and as they are corrected.
    power
        [capacity] float64, counts of each frame.
    passes
        [capacity] int64, how often each frame was used.
    turn
        [capacity] float64, frames with the least are used next.
    residuals, early
        [capacity] float32, Σ(√I − |ψ|)² at the last use, and at one of the first `EARLY`; NaN before.
    left_out
        Frames that were given and are not kept.
    cell_m
        Side of the cells; 0 while every frame is kept.
    """

    def __init__(self, size: int, memory_bytes: int) -> None:
        self.size = size
        self.capacity = max(4, memory_bytes // (2 * size * size))
        self._places = order(size)
        self.amplitudes = np.empty((self.capacity, size, size), np.uint16)  # pages are taken when they are written
        self.given_m, self.positions_m = (np.zeros((self.capacity, 2)) for _ in range(2))
        self.power = np.zeros(self.capacity)
        self.passes = np.zeros(self.capacity, np.int64)
        self.turn = np.zeros(self.capacity)
        self.residuals, self.early = (np.full(self.capacity, np.nan, np.float32) for _ in range(2))
        self.left_out = 0
        self.cell_m = 0.0
        self._count = 0
        self._cells: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory of the frames that are kept."""
        return self._count * 2 * self.size * self.size

    def add(self, counts: NDArray[np.generic], good: NDArray[np.bool_], xy_m: tuple[float, float]) -> bool:
        """Add a frame, zero frequency at the centre. Returns False where it is left out.

        Parameters
        ----------
        counts, good
            [n, n] counts, and whether a pixel is a measurement.
        """
        if self._count == self.capacity:
            self._thin()
        if self.cell_m:
            cell = self._cell(xy_m)
            if cell in self._cells or self._count == self.capacity:
                self.left_out += 1
                return False
            self._cells.add(cell)
        here = self._count
        measured = np.where(good, counts, 0).astype(np.float32)
        scaled = np.minimum(np.sqrt(measured) * np.float32(1 / STEP) + np.float32(0.5), np.float32(BAD - 1))
        stored = np.where(good, scaled.astype(np.uint16), BAD)
        self.amplitudes[here] = np.fft.ifftshift(stored).T[self._places[:, None], self._places]
        self.given_m[here] = self.positions_m[here] = xy_m
        self.power[here] = float(measured.sum(dtype=np.float64))
        self.passes[here] = 0
        self.turn[here] = max(0.0, float(self.turn[:here].min()) - AHEAD) if here else 0.0
        self.residuals[here] = self.early[here] = np.nan
        self._count += 1
        return True

    def next(self, number: int, random: np.random.Generator) -> NDArray[np.int64]:
        """The frames to use now: those with the least turn, equal ones in random order. Counts them as used."""
        turn = self.turn[: self._count] + random.random(self._count)
        number = min(number, self._count)
        chosen = np.argpartition(turn, number - 1)[:number]
        chosen = chosen[np.argsort(turn[chosen])]
        self.turn[chosen] += 1
        self.passes[chosen] += 1
        return chosen.astype(np.int64)

    def noted(self, chosen: NDArray[np.int64]) -> None:
        """The frames `chosen` have new residuals."""
        young = chosen[self.passes[chosen] <= EARLY]
        self.early[young] = self.residuals[young]

    def r_factor(self, residuals: NDArray[np.float32]) -> float:
        """Σ residuals / Σ counts over the frames that have one; NaN where none has."""
        known = np.isfinite(residuals[: self._count])
        power = float(self.power[: self._count][known].sum())
        return float(residuals[: self._count][known].sum(dtype=np.float64)) / power if power > 0 else float("nan")

    def r_factors(self) -> NDArray[np.float64]:
        """[N] R factor of each frame at its last use, in the order of `positions_m`: the map of the residuals."""
        return self.residuals[: self._count] / np.maximum(self.power[: self._count], 1e-12)

    def residual_map(self, most: int) -> NDArray[np.float64]:
        """[3, n] x and y (m) of at most `most` frames, evenly chosen, and their R factor / the median of all."""
        r_factors = self.r_factors()
        known = np.flatnonzero(np.isfinite(r_factors))
        if not len(known):
            return np.empty((3, 0))
        relative = r_factors / max(float(np.median(r_factors[known])), 1e-12)
        shown = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), most)).astype(np.intp))]
        return np.stack([*self.positions_m[shown].T, relative[shown]])

    def _cell(self, xy_m: tuple[float, float] | NDArray[np.float64]) -> tuple[int, int]:
        return int(np.floor(xy_m[0] / self.cell_m)), int(np.floor(xy_m[1] / self.cell_m))

    def _thin(self) -> None:
        """Keep one frame of each cell, with the smallest cells that leave `FULL` of the memory in use."""
        xy = self.given_m[: self._count]
        span = float(np.ptp(xy, axis=0).max()) or 1e-12
        self.cell_m = self.cell_m * _WIDER or span / np.sqrt(self.capacity) / 4
        while len(kept := self._first_of_cells(xy)) > FULL * self.capacity:
            self.cell_m *= _WIDER
        self.left_out += self._count - len(kept)
        for new, old in enumerate(kept):  # in place: a second copy of the frames would need the memory twice
            if new != old:
                self.amplitudes[new] = self.amplitudes[old]
        for values in (self.given_m, self.positions_m, self.power, self.passes, self.turn, self.residuals, self.early):
            values[: len(kept)] = values[kept]
        self._count = len(kept)
        self._cells = {self._cell(place) for place in self.given_m[: self._count]}

    def _first_of_cells(self, xy_m: NDArray[np.float64]) -> NDArray[np.intp]:
        cells = np.floor(xy_m / self.cell_m).astype(np.int64)
        _, first = np.unique(cells, axis=0, return_index=True)
        return np.sort(first)
