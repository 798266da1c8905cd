"""The measured amplitudes, in the form that the engines need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.frames.measured_frames import FrameFault
from ptychostream.frames.survey import Survey, survey
from ptychostream.scans.scan import Scan

MIN_FRAMES = 4
"""Fewer patterns cannot overlap enough to determine an object and a probe."""

BAD = np.float32(-1)
"""Amplitude of a pixel that the detector did not measure. Engines do not change the modulus there."""

_CHUNK = 64


@dataclass(frozen=True)
class Window:
    """What is taken of each frame: first row, first column, height and width in raw pixels, then sums of bin × bin.

    The zero frequency must lie at [height//2, width//2] of the crop.
    """

    crop: tuple[int, int, int, int] | None = None
    bin: int = 1

    def side(self, scan: Scan) -> int:
        """Rows and columns of what is taken. Raises ReconstructionError."""
        rows, columns = scan.counts.shape[1:]
        row, column, height, width = self.crop or (0, 0, rows, columns)
        if min(row, column) < 0 or min(height, width) < 1 or row + height > rows or column + width > columns:
            what = f"the crop {self.crop} does not lie in frames of {rows} × {columns}"
        elif height != width:
            what = f"frames of {height} × {width}, not square"
        elif height % self.bin:
            what = f"{height} pixels in sums of {self.bin}"
        else:
            return int(height) // self.bin
        raise ReconstructionError(what, where=scan.scan_id, remedy="crop the frames to a square that the bin divides")

    def sums(
        self, counts: NDArray[np.float32], good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Counts [n, H, W] and where they are good, of the window; a sum is good where all its pixels are."""
        if self.crop is not None:
            row, column, height, width = self.crop
            part = (slice(None), slice(row, row + height), slice(column, column + width))
            counts, good = counts[part], good[part]
        if self.bin == 1:
            return counts, good
        frames, side = len(counts), counts.shape[1] // self.bin
        blocks = (frames, side, self.bin, side, self.bin)
        return counts.reshape(blocks).sum(axis=(2, 4)), np.asarray(good.reshape(blocks).all(axis=(2, 4)))


@dataclass(frozen=True)
class Patterns:
    """Amplitudes of the used frames.

    Attributes
    ----------
    amplitudes
        [N, H, W] float32 square roots of the counts, zero frequency at [0, 0]. `BAD` where not measured.
    frames
        [N] int64 indices of the frames in the scan. Those that are no measurement are left out.
    mean
        [H, W] float64 mean counts, zero frequency at [0, 0]. 0 at bad pixels.
    empty_r_factor
        R factor of an empty object: every frame has the same amplitudes, the mean of √n of each pixel, which fit best.
    survey
        What of the scan is a measurement.
    left_out
        Number of frames that were left out, by `FrameFault` values.
    """

    amplitudes: NDArray[np.float32]
    frames: NDArray[np.int64]
    mean: NDArray[np.float64]
    empty_r_factor: float
    survey: Survey
    left_out: dict[str, int]

    @property
    def power(self) -> float:
        """Mean counts per frame."""
        return float(self.mean.sum())

    @property
    def counts_a_pixel(self) -> float:
        """Mean counts of a pixel where the counts are: Σ λ² / Σ λ of the mean pattern λ."""
        return float(np.square(self.mean).sum() / self.mean.sum())

    @property
    def centre_off_px(self) -> tuple[float, float]:
        """Rows and columns from the zero frequency to the middle of the mean pattern, weighted by λ²."""
        weight = np.square(np.fft.fftshift(self.mean))
        middle = weight.shape[0] // 2
        rows, columns = (np.arange(weight.shape[0]) * weight.sum(axis=1 - axis) for axis in (0, 1))
        return float(rows.sum() / weight.sum() - middle), float(columns.sum() / weight.sum() - middle)

    @classmethod
    def read(cls, scan: Scan, window: Window | None = None) -> Patterns:
        """Read every frame of `scan` once. What `ptychostream.frames.survey` calls no measurement is bad or left out.

        Parameters
        ----------
        window
            What is taken of each frame. None: all of it. A sum in which a pixel is no measurement is none.

        Raises
        ------
        ReconstructionError
            Counts, positions and mask do not fit together, the window does not lie in the frames, or too few frames
            have counts.
        ScanFileError
            The mask cannot be right, or frames cannot be read.
        """
        window = window or Window()
        _check(scan)
        size = window.side(scan)
        found = survey(scan)
        amplitudes = np.empty((len(scan), size, size), np.float32)
        faults: list[FrameFault | None] = []
        mean = np.zeros((size, size))
        variation = _Variation(size)
        for first in range(0, len(scan), _CHUNK):
            raw = np.asarray(scan.counts[first : first + _CHUNK])
            good = np.broadcast_to(found.counted(raw), raw.shape)
            raw, good = window.sums(np.where(good, raw, 0).astype(np.float32), good)
            counted = np.fft.ifftshift(good, axes=(1, 2))
            chunk = np.where(counted, np.fft.ifftshift(raw, axes=(1, 2)), 0)
            amplitudes[first : first + len(chunk)] = np.where(counted, np.sqrt(chunk), BAD)
            faults += [found.limits.fault(total) for total in chunk.sum(axis=(1, 2), dtype=np.float64)]
            measured = [fault is None for fault in faults[first:]]
            mean += chunk[measured].sum(axis=0, dtype=np.float64)
            variation.add(amplitudes[first : first + len(chunk)][measured], counted[measured])
        frames = np.flatnonzero([fault is None for fault in faults])
        if len(frames) < MIN_FRAMES:
            raise ReconstructionError(
                f"{len(frames)} of {len(scan)} frames hold counts, at least {MIN_FRAMES} are needed{_values(found)}",
                where=scan.scan_id,
                remedy="check the shutter, the crop and the mask of bad pixels",
            )
        if len(frames) < len(scan):
            for row, frame in enumerate(frames):  # in place: they may be most of the memory
                amplitudes[row] = amplitudes[frame]
            amplitudes = amplitudes[: len(frames)]
        left_out = {fault.value: faults.count(fault) for fault in FrameFault}
        return cls(amplitudes, frames, mean / len(frames), variation.share(mean), found, left_out)


class _Variation:
    """Sums over frames for the variance of √n of each pixel."""

    def __init__(self, size: int) -> None:
        self._sums = np.zeros((size, size))
        self._frames = np.zeros((size, size))

    def add(self, amplitudes: NDArray[np.float32], counted: NDArray[np.bool_]) -> None:
        self._sums += np.where(counted, amplitudes, 0).sum(axis=0, dtype=np.float64)
        self._frames += counted.sum(axis=0)

    def share(self, counts: NDArray[np.float64]) -> float:
        """Σ (√n − mean √n)² / Σ n, of the sum of all counts of each pixel; 0 without counts.

        The mean is of the same frames: the variance is the unbiased one, so that it is that of frames to come.
        """
        varying = (counts - np.square(self._sums) / np.maximum(self._frames, 1)) * self._frames
        return (
            max(0.0, float((varying / np.maximum(self._frames - 1, 1)).sum() / counts.sum())) if counts.any() else 0.0
        )


def _values(found: Survey) -> str:
    return f"; {found.uncounted:.0%} of the values are negative, saturated or marks" if found.uncounted else ""


def _check(scan: Scan) -> None:
    shape, positions = tuple(scan.counts.shape), np.asarray(scan.positions_m)
    if positions.ndim != 2 or positions.shape[1] != 2 or len(positions) == 0:
        raise ReconstructionError(
            f"positions of shape {positions.shape}, not [N, 2]",
            where=scan.scan_id,
            remedy="ptychography needs the (x, y) of every frame",
        )
    if len(shape) != 3:
        raise ReconstructionError(
            f"counts of shape {shape}, not [N, size, size]",
            where=scan.scan_id,
            remedy="give one pattern for each frame",
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
