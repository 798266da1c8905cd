"""The measured amplitudes, in the form that the engines need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.scans.scan import Scan

MIN_FRAMES = 4
"""Fewer patterns cannot overlap enough to determine an object and a probe."""

BAD = np.float32(-1)
"""Amplitude of a pixel that the detector did not measure. Engines do not change the modulus there."""

_CHUNK = 64


@dataclass(frozen=True)
class Patterns:
    """Amplitudes of the used frames.

    Attributes
    ----------
    amplitudes
        [N, H, W] float32 square roots of the counts, zero frequency at [0, 0]. `BAD` where not measured.
    frames
        [N] int64 indices of the frames in the scan. Frames without any count are left out.
    mean
        [H, W] float64 mean counts, zero frequency at [0, 0]. 0 at bad pixels.
    """

    amplitudes: NDArray[np.float32]
    frames: NDArray[np.int64]
    mean: NDArray[np.float64]

    @property
    def power(self) -> float:
        """Mean counts per frame."""
        return float(self.mean.sum())

    @classmethod
    def read(cls, scan: Scan) -> Patterns:
        """Read every frame of `scan` once. A pixel at its dtype's maximum (dead or saturated) is bad in that frame.

        Raises
        ------
        ReconstructionError
            Counts, positions and mask do not fit together, or too few frames have counts.
        """
        _check(scan)
        size = scan.counts.shape[1]
        bad = np.zeros((size, size), np.bool_) if scan.bad_pixels is None else np.fft.ifftshift(scan.bad_pixels)
        saturated = np.iinfo(scan.counts.dtype).max if np.issubdtype(scan.counts.dtype, np.integer) else np.inf
        amplitudes = np.empty((len(scan), size, size), np.float32)
        lit = np.zeros(len(scan), np.bool_)
        mean = np.zeros((size, size))
        for first in range(0, len(scan), _CHUNK):
            raw = np.fft.ifftshift(np.asarray(scan.counts[first : first + _CHUNK]), axes=(1, 2))
            dead = bad | (raw == saturated)
            chunk = np.where(dead, 0, raw).astype(np.float32)
            if not (np.isfinite(chunk).all() and chunk.min() >= 0):
                raise ReconstructionError(
                    f"counts that are negative or not finite between frames {first} and {first + len(chunk) - 1}",
                    where=scan.scan_id,
                    remedy="give raw counts, or mark these pixels as bad",
                )
            lit[first : first + len(chunk)] = chunk.any(axis=(1, 2))
            mean += chunk.sum(axis=0, dtype=np.float64)
            amplitudes[first : first + len(chunk)] = np.where(dead, BAD, np.sqrt(chunk))
        frames = np.flatnonzero(lit)
        if len(frames) < MIN_FRAMES:
            raise ReconstructionError(
                f"{len(frames)} of {len(scan)} frames hold counts, at least {MIN_FRAMES} are needed",
                where=scan.scan_id,
                remedy="check the shutter, the crop and the mask of bad pixels",
            )
        if len(frames) < len(scan):
            amplitudes = amplitudes[frames]
        return cls(amplitudes, frames, mean / len(frames))


def _check(scan: Scan) -> None:
    shape, positions = tuple(scan.counts.shape), np.asarray(scan.positions_m)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ReconstructionError(
            f"positions of shape {positions.shape}, not [N, 2]",
            where=scan.scan_id,
            remedy="ptychography needs the (x, y) of every frame",
        )
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ReconstructionError(
            f"counts of shape {shape}, not [N, size, size]", where=scan.scan_id, remedy="crop the frames to a square"
        )
    if shape[0] != len(positions):
        raise ReconstructionError(
            f"{shape[0]} frames and {len(positions)} positions",
            where=scan.scan_id,
            remedy="leave out the frames that have no position, and the positions that have no frame",
        )
    if scan.bad_pixels is not None and scan.bad_pixels.shape != shape[1:]:
        raise ReconstructionError(
            f"a mask of {scan.bad_pixels.shape} for frames of {shape[1:]}",
            where=scan.scan_id,
            remedy="give one mask value per detector pixel",
        )
