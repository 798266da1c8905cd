"""Compares the pattern of a frame with the object at other places, to find where the frame was taken."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ptychostream.reconstruct.fft_kernels import FAST, PADDING, forward, order, supports, twiddles
from ptychostream.reconstruct.wave_kernels import constrain, exit_wave

INSIDE = 0.9
"""Where the central half of the window holds this part of the beam's intensity, every second pixel is compared."""


class PlaceSearch:
    """R factors of frames at places that are tried.

    A wave that lies within the central half of the window is determined by every second pixel of its pattern along both
    axes: these are the transform of that half. So a quarter of the pixels is compared, in a fifth of the time. Where
    the beam is wider, all are.

    Parameters
    ----------
    probe
        [2, modes, n, n] float32, real and imaginary part, the first one.

    Attributes
    ----------
    size
        Pixels a side that are compared.
    """

    def __init__(self, probe: NDArray[np.float32]) -> None:
        whole = probe.shape[-1]
        half = whole // 2
        self._from, self.size = whole // 2 - half // 2, half
        inside = slice(self._from, self._from + half)
        intensity = np.square(probe, dtype=np.float64).sum(axis=(0, 1))
        if whole % 2 or not supports(half) or intensity[inside, inside].sum() < INSIDE * intensity.sum():
            self._from, self.size = 0, whole
        step = whole // self.size
        place = np.argsort(order(whole))  # where a frequency stands
        self._pick = place[step * order(self.size)]
        self._scale = np.float32(1 / step)
        self._twiddles = twiddles(self.size)

    def pick(self, stored: NDArray[Any], frames: NDArray[np.int64]) -> NDArray[Any]:
        """[m, size, size] what is compared of the frames [m] of [N, n, n], in the order of `fft_kernels.permute`."""
        picked: NDArray[Any] = stored[frames[:, None, None], self._pick[:, None], self._pick]
        return picked

    def r_factors(
        self,
        amplitudes: NDArray[np.float32],
        places: NDArray[np.int64],
        object_: NDArray[np.float32],
        probe: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """[m, K] R factors of the frames at each of their places.

        Parameters
        ----------
        amplitudes
            [m, size, size] see `pick`; negative where not measured.
        places
            [m, K, 2] (row, column) of the whole window's pixel [0, 0] in the object.
        object_, probe
            [2, H, W]; [2, modes, n, n].
        """
        inside = slice(self._from, self._from + self.size)
        part = np.ascontiguousarray(probe[:, :, inside, inside]) * self._scale
        work = np.zeros((2, 2, probe.shape[1], self.size, self.size + PADDING), np.float32)
        misfits = np.empty(places.shape[:2])
        _try(np.ascontiguousarray(amplitudes), places + self._from, object_, part, work, self._twiddles, misfits)
        power = np.square(np.maximum(amplitudes, 0), dtype=np.float64).sum(axis=(1, 2))
        return np.asarray(misfits / np.maximum(power, 1.0)[:, None])


@njit(**FAST)
def _try(amplitudes, places, object_, probe, work, w, misfits):  # type: ignore[no-untyped-def]
    """The misfits of patterns [m, n, n] at each of their places [m, K, 2] into misfits [m, K]."""
    modes, n = probe.shape[1], probe.shape[2]
    factors = np.zeros(n, np.float32)
    for index in range(places.shape[0]):
        for place in range(places.shape[1]):
            row, column = places[index, place]
            for mode in range(modes):
                re, im = work[0, 0, mode], work[0, 1, mode]
                exit_wave(re, im, probe[0, mode], probe[1, mode], object_, row, column)
                forward(re, im, work[1, 0, mode], work[1, 1, mode], w)
            misfits[index, place], _ = constrain(work[1], amplitudes[index], factors)
