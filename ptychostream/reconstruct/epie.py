"""ePIE on the CPU, one position at a time, or one in each of several threads. A pass is a compiled loop.

Maiden & Rodenburg 2009 (doi 10.1016/j.ultramic.2009.05.012), eqs. 3-5, with several incoherent probe modes after
Thibault & Menzel 2013 (doi 10.1038/nature11806).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ptychostream.reconstruct.engines import Misfit, Norms, Problem
from ptychostream.reconstruct.fft_kernels import FAST, PADDING, forward, inverse, permute, restore, twiddles
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.parallel import rounds
from ptychostream.reconstruct.positions import Positions
from ptychostream.reconstruct.search import PlaceSearch
from ptychostream.reconstruct.wave_kernels import (
    constrain,
    displacement,
    exit_wave,
    object_peak,
    probe_peak_of,
    row_of,
    update_probe_row,
)

KICKS = 2
"""So often in a pass the object is moved by its momentum."""
CHUNK = 32
"""Positions of each thread, after which the threads' probes become one: their mean, weighted by the positions."""

AT_ONCE = 64
"""Frames whose places a thread compares at once."""


class EpieEngine:
    """See `engines.Engine`. Amplitudes are in the FFT's order. Real and imaginary parts are separate planes."""

    def __init__(self, problem: Problem, options: ReconstructOptions) -> None:
        modes, size, _ = problem.probe.shape
        self.name = "epie"
        self._norms = Norms.of(problem.amplitudes)
        self._in_place = problem.in_place
        self._amplitudes = permute(problem.amplitudes, problem.amplitudes if problem.in_place else None)
        self._corners = np.ascontiguousarray(problem.grid.corners)
        self._first = problem.object
        self._momentum = np.float32(options.momentum)
        self._begin()
        self._probe = planes(problem.probe)
        self._steps = np.array([options.step, options.probe_step], np.float32)
        self._threads = options.threads
        self._works = np.zeros((options.threads, 2, 2, modes, size, size + PADDING), np.float32)
        self._random = np.random.default_rng(options.seed)
        self._twiddles = twiddles(size)
        self._positions: Positions | None = None
        self._shifts = np.zeros((0, 2))
        if options.correct_positions != "none":
            grid = problem.grid
            given = grid.corners + grid.fractions
            self._positions = Positions(
                given,
                options.correct_positions,
                options.reach(size) - 1,
                problem.places,
                options.seed,
                options.iterations,
            )
            self._corners = self._positions.corners
            self._shifts = np.zeros((len(grid.corners), 2))
            self._search = PlaceSearch(self._probe)

    def iterate(self, order: NDArray[np.int64], update_probe: bool) -> Misfit:
        """One pass over the positions in `order`. Returns the misfit during this pass."""
        steps = self._steps * np.array([1, update_probe], np.float32)
        sums = np.zeros(2)
        for part in np.array_split(order, KICKS) if self._momentum else [order]:
            if self._threads == 1:
                sums += self._visit(part, self._probe, self._works[0], steps)
            else:
                sums += self._together(part, steps)
            if self._momentum:
                self._accelerate()
        if self._positions is not None:
            self._correct(self._positions)
        return self._norms.misfit(float(sums[0]), float(sums[1]))

    def _begin(self) -> None:
        """Set the object to the one that it begins with, at rest."""
        self._object = planes(self._first)
        if self._momentum:
            self._before, self._velocity = self._object.copy(), np.zeros_like(self._object)

    def _accelerate(self) -> None:
        """Go on as the object has moved since the last time, and before (mPIE: Maiden, Johnson & Li, Optica 4, 736)."""
        self._velocity *= self._momentum
        self._velocity += self._object - self._before
        self._object += self._momentum * self._velocity
        self._before[:] = self._object

    def _visit(
        self,
        order: NDArray[np.int64],
        probe: NDArray[np.float32],
        work: NDArray[np.float32],
        steps: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """The sums of `constrain` over the positions."""
        sums = _pass(
            order, self._amplitudes, self._corners, self._object, probe, work, self._twiddles, steps, self._shifts
        )
        return np.array(sums)

    def _correct(self, positions: Positions) -> None:
        positions.follow(self._shifts)
        candidates = positions.candidates()
        if candidates is not None:
            everyone = np.arange(len(candidates))
            positions.choose(everyone, candidates, self._compare(everyone, candidates))
        worst = positions.lattice()
        if worst is not None:
            positions.choose(*worst, self._compare(*worst))
        if positions.begins_anew():
            self._begin()
        self._corners = positions.corners

    def _compare(self, frames: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """[n, K] R factors of the frames [n] at each of their candidates [n, K, 2]."""
        misfits = np.empty(candidates.shape[:2])
        pieces = [slice(first, first + AT_ONCE) for first in range(0, len(frames), AT_ONCE)]

        def compare(piece: slice) -> None:
            amplitudes = self._search.pick(self._amplitudes, frames[piece])
            misfits[piece] = self._search.r_factors(amplitudes, candidates[piece], self._object, self._probe)

        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(compare, pieces))
        return misfits

    def _together(self, order: NDArray[np.int64], steps: NDArray[np.float32]) -> NDArray[np.float64]:
        """A pass by several threads. Each has a probe of its own, which are made one after every `CHUNK` positions."""
        gap = self._probe.shape[-1] + 2  # a displacement looks at one object pixel around a patch
        sums = np.zeros(2)
        with ThreadPoolExecutor(self._threads) as pool:
            for parts in rounds(self._corners, order, gap, self._threads, self._random):
                if len(parts) == 1:
                    sums += self._visit(parts[0], self._probe, self._works[0], steps)
                    continue
                for first in range(0, max(map(len, parts)), CHUNK):
                    pieces = [part[first : first + CHUNK] for part in parts if len(part) > first]
                    probes = np.stack([self._probe] * len(pieces))
                    works = self._works[: len(pieces)]
                    sums += np.sum(list(pool.map(self._visit, pieces, probes, works, [steps] * len(pieces))), axis=0)
                    if steps[1]:
                        weights = np.array([len(piece) for piece in pieces], np.float32)
                        self._probe = np.tensordot(weights / weights.sum(), probes, 1)
        return sums

    def result(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """The current object [Ho, Wo] and probe [modes, H, W]."""
        return complex_of(self._object), complex_of(self._probe)

    def corrected(self) -> NDArray[np.float64] | None:
        """[N, 2] (row, column) of each patch's pixel [0, 0] as corrected; None: positions are as they were given."""
        return None if self._positions is None else self._positions.now

    def finish(self) -> None:
        """Put the problem's amplitudes in their order again."""
        if self._in_place:
            restore(self._amplitudes)


def planes(values: NDArray[np.complex64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.stack([values.real, values.imag]), np.float32)


def complex_of(planes: NDArray[np.float32]) -> NDArray[np.complex64]:
    return (planes[0] + 1j * planes[1]).astype(np.complex64)


@njit(**FAST)
def _pass(order, amplitudes, corners, object_, probe, work, w, steps, shifts):  # type: ignore[no-untyped-def]
    modes, n = probe.shape[1], probe.shape[2]
    scratch = np.zeros((2, n), np.float32)
    probe_peak = probe_peak_of(probe, scratch[0])
    squared, absolute = 0.0, 0.0
    for index in order:
        row, column = corners[index]
        for mode in range(modes):
            re, im = work[0, 0, mode], work[0, 1, mode]
            exit_wave(re, im, probe[0, mode], probe[1, mode], object_, row, column)
            forward(re, im, work[1, 0, mode], work[1, 1, mode], w)
        frame_squared, frame_absolute = constrain(work[1], amplitudes[index], scratch[0])
        squared += frame_squared
        absolute += frame_absolute
        for mode in range(modes):
            inverse(work[1, 0, mode], work[1, 1, mode], work[0, 0, mode], work[0, 1, mode], w)
        if shifts.shape[0]:
            displacement(work[0], probe, object_, row, column, shifts[index])
        object_step = steps[0] / probe_peak
        probe_step = steps[1] / object_peak(object_, row, column, scratch[0])
        probe_peak = _update(work[0], probe, object_, row, column, object_step, probe_step, scratch)
    return squared, absolute


@njit(**FAST)
def _update(change, probe, object_, row, column, object_step, probe_step, scratch):  # type: ignore[no-untyped-def]
    """Update object and probe by the change of the exit waves, each with the other's old value. Return max|P|^2."""
    n = probe.shape[2]
    columns = np.zeros(n, np.float32)
    power = np.empty(n, np.float32)
    d_re, d_im = scratch[0], scratch[1]
    for i in range(n):
        a, b = row_of(object_, row + i, column, n)
        update_probe_row(change, probe, i, a, b, probe_step, d_re, d_im, power)
        for k in range(n):
            a[k] += object_step * d_re[k]
            b[k] += object_step * d_im[k]
        for k in range(n):
            columns[k] = max(columns[k], power[k])
    return columns.max()
