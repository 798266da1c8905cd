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
    survey
        What of the scan is a measurement.
    left_out
        Number of frames that were left out, by `FrameFault` values.
    """

    amplitudes: NDArray[np.float32]
    frames: NDArray[np.int64]
    mean: NDArray[np.float64]
    survey: Survey
    left_out: dict[str, int]

    @property
    def power(self) -> float:
        """Mean counts per frame."""
        return float(self.mean.sum())

    @classmethod
    def read(cls, scan: Scan) -> Patterns:
        """Read every frame of `scan` once. What `ptychostream.frames.survey` calls no measurement is bad or left out.

        Raises
        ------
        ReconstructionError
            Counts, positions and mask do not fit together, or too few frames have counts.
        ScanFileError
            The mask cannot be right, or frames cannot be read.
        """
        _check(scan)
        size = scan.counts.shape[1]
        found = survey(scan)
        amplitudes = np.empty((len(scan), size, size), np.float32)
        faults: list[FrameFault | None] = []
        mean = np.zeros((size, size))
        for first in range(0, len(scan), _CHUNK):
            raw = np.asarray(scan.counts[first : first + _CHUNK])
            counted = np.fft.ifftshift(found.counted(raw), axes=(1, 2))
            chunk = np.where(counted, np.fft.ifftshift(raw, axes=(1, 2)), 0).astype(np.float32)
            amplitudes[first : first + len(chunk)] = np.where(counted, np.sqrt(chunk), BAD)
            faults += [found.limits.fault(total) for total in chunk.sum(axis=(1, 2), dtype=np.float64)]
            measured = [fault is None for fault in faults[first:]]
            mean += chunk[measured].sum(axis=0, dtype=np.float64)
        frames = np.flatnonzero([fault is None for fault in faults])
        if len(frames) < MIN_FRAMES:
            raise ReconstructionError(
                f"{len(frames)} of {len(scan)} frames hold counts, at least {MIN_FRAMES} are needed{_values(found)}",
                where=scan.scan_id,
                remedy="check the shutter, the crop and the mask of bad pixels",
            )
        if len(frames) < len(scan):
            amplitudes = amplitudes[frames]
        left_out = {fault.value: faults.count(fault) for fault in FrameFault}
        return cls(amplitudes, frames, mean / len(frames), found, left_out)


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
