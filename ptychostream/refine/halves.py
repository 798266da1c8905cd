"""Two objects of separate frames, for the resolution by Fourier ring correlation.

Each is refined from nothing, by every second frame, with the probe of all. The network's phase takes no part: errors of
the network would be the same in both objects, and correlate.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.reconstruct import fft_kernels
from ptychostream.reconstruct.overlap import share_of
from ptychostream.refine.kernels import add_visits, visit
from ptychostream.refine.pull import Pull

PASSES = 40
"""Uses of each frame."""
_FULL_STEPS = 20
_STEP = 0.5
_CHUNK = 16
_SEEN = 0.1
"""Pixels below this part of the most visits are not compared."""


class HalfSets:
    """Refines two objects within a budget. Used by one thread, while no frame is added to the store.

    Parameters
    ----------
    amplitudes, corners
        [N, n, n] uint16, see `FrameStore.amplitudes`; [N, 2] (row, column) of the frames on the object.
    box, pixel_m
        Absolute pixels of the object, and the size of one.
    probe
        [2, modes, n, n] float32, real and imaginary part. It is not changed.
    pull
        Its part for the modulus is used.

    Attributes
    ----------
    overlap
        Part of a frame's illumination that others of its half share (`overlap.share_of`), the lesser of both halves.
    """

    def __init__(
        self,
        amplitudes: NDArray[np.uint16],
        corners: NDArray[np.int64],
        box: PixelBox,
        pixel_m: float,
        probe: NDArray[np.float32],
        pull: Pull,
        seed: int = 0,
    ) -> None:
        self._amplitudes, self._corners, self._box, self._pixel_m = amplitudes, corners, box, pixel_m
        self._probe = probe.copy()
        self._pulls = np.array([0.0, pull.modulus], np.float32)
        self._random = np.random.default_rng(seed)
        modes, size = probe.shape[1], probe.shape[2]
        self._work = np.zeros((2, 2, modes, size, size + fft_kernels.PADDING), np.float32)
        self._twiddles = fft_kernels.twiddles(size)
        self._residuals = np.empty(len(amplitudes), np.float32)
        self._unmoved = np.zeros((0, 2))
        intensity = (probe**2).sum(axis=(0, 1))
        footprint = (intensity / intensity.max()).astype(np.float32)
        self._prior = np.zeros((2, *box.shape), np.float32)
        self._objects = [np.zeros((2, *box.shape), np.float32) for _ in range(2)]
        self._visits = [np.zeros(box.shape, np.float32) for _ in range(2)]
        for half in (0, 1):
            self._objects[half][0] = 1
            add_visits(self._visits[half], np.ascontiguousarray(corners[half::2]), footprint)
        self.overlap = min(share_of(self._visits[half], corners[half::2], footprint) for half in (0, 1))
        self._passes = 0
        self._left: list[tuple[int, NDArray[np.int64]]] = []

    def work(self, seconds: float) -> bool:
        """Go on for about `seconds`. True: both objects are done."""
        until = time.perf_counter() + seconds
        while (self._left or self._next_pass()) and time.perf_counter() < until:
            half, frames = self._left.pop()
            step = _STEP * min(1.0, _FULL_STEPS / self._passes)
            visit(
                frames, self._amplitudes, self._corners, self._objects[half], self._prior, self._visits[half],
                self._probe, self._work, self._twiddles, np.array([step, 0], np.float32), self._pulls, self._residuals,
                self._unmoved,
            )  # fmt: skip
        return not self._left and self._passes == PASSES

    def images(self) -> tuple[PhaseImage, PhaseImage]:
        """The two phases, where they were measured."""
        first, second = (self._image(half) for half in (0, 1))
        return first, second

    def _next_pass(self) -> bool:
        if self._passes == PASSES:
            return False
        self._passes += 1
        for half in (0, 1):
            frames = self._random.permutation(np.arange(half, len(self._amplitudes), 2))
            self._left += [(half, frames[first : first + _CHUNK]) for first in range(0, len(frames), _CHUNK)]
        return True

    def _image(self, half: int) -> PhaseImage:
        visits, (real, imaginary) = self._visits[half], self._objects[half]
        seen = visits > _SEEN * visits.max()
        phase = np.where(seen, np.arctan2(imaginary, real), np.nan).astype(np.float32)
        origin = (self._box.left * self._pixel_m, self._box.top * self._pixel_m)
        return PhaseImage(phase, np.where(seen, visits, 0).astype(np.float32), origin, self._pixel_m)
