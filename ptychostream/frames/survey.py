"""What of a scan is a measurement, by a sample of its frames: the one answer for every command that reads a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.frames.measured_frames import FrameFault, FrameLimits, frame_limits
from ptychostream.frames.measured_pixels import (
    INVERTED,
    MOST_BAD,
    Marks,
    find_marks,
    highest_count,
    is_count,
    mask_fault,
    proposed_saturation,
    subtracted_fault,
)
from ptychostream.statements.description import Description

SAMPLE = 32
"""Frames that are looked at, spread evenly over the scan."""
MASK_REMEDY = f"{INVERTED}; or give --mask-sense good"
_SAMPLE_BYTES = 256 << 20


class Surveyed(Protocol):
    """What is needed of a scan (see `ptychostream.scans.scan.Scan`)."""

    scan_id: str
    counts: Any
    bad_pixels: NDArray[np.bool_] | None
    said: Description


@dataclass(frozen=True)
class Survey:
    """What of a scan is a measurement.

    Attributes
    ----------
    bad_pixels
        [H, W] True where no frame holds a measurement: the file's mask and the marks.
    masked
        Pixels that the file's mask calls bad.
    marks
        Further pixels, whose values are huge and constant.
    highest
        The largest value that is a count.
    saturation
        Count of a saturated pixel, from the options, the file or its bit depth; None: the type's maximum. Reports,
        corpora and contracts take it over, so that every door has one limit.
    proposed
        Count that so many pixels share that it is probably the saturation; None: there is none.
    at_shared_maximum
        [H, W] True at the pixels that reach the proposed saturation.
    limits
        What the sum over a frame's good pixels lies between, if the frame is a measurement.
    mean
        [H, W] mean counts of the sample, 0 where nothing was measured.
    uncounted
        Part of the values in the sample that are no counts: negative, saturated or marks.
    """

    bad_pixels: NDArray[np.bool_]
    masked: int
    marks: Marks
    highest: int
    saturation: int | None
    proposed: int | None
    at_shared_maximum: NDArray[np.bool_]
    limits: FrameLimits
    mean: NDArray[np.float64]
    uncounted: float

    def counted(self, frames: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Where frames [n, H, W] or a frame [H, W] hold counts."""
        return is_count(frames, self.highest) & ~self.bad_pixels

    def report(self) -> dict[str, Any]:
        """Numbers of pixels for a summary in JSON."""
        return {
            "pixels": int(self.bad_pixels.size),
            "bad_pixels": int(self.bad_pixels.sum()),
            "masked_pixels": self.masked,
            "mark_pixels": self.marks.number,
            "mark_values": list(self.marks.values[:8]),
            "saturation": self.saturation,
            "saturation_proposed": self.proposed,
        }


def survey(scan: Surveyed) -> Survey:
    """Look at some frames of a scan, evenly over it.

    Raises
    ------
    ScanFileError
        The mask calls more than half of the pixels, or of the counts, bad; more than half of the values are no counts;
        a background was subtracted; or frames cannot be read.
    """
    frames = np.stack([np.asarray(scan.counts[int(index)]) for index in sampled(scan)])
    mask = np.zeros(frames.shape[1:], np.bool_) if scan.bad_pixels is None else np.asarray(scan.bad_pixels, np.bool_)
    if mask.shape != frames.shape[1:]:
        raise ScanFileError(
            f"a mask of {mask.shape} for frames of {frames.shape[1:]}",
            where=scan.scan_id,
            remedy="give one mask value per detector pixel",
        )
    saturation, bit_depth = (scan.said.number(name) for name in ("saturation", "bit_depth"))
    level = None if saturation is None else int(saturation)
    highest = highest_count(frames.dtype, saturation=level)
    marks = find_marks(frames, highest, mask)
    depth = None if level is not None or bit_depth is None else int(bit_depth)
    if depth is not None and 2**depth - 2 < highest and _fits(frames, marks.pixels | mask, highest, depth):
        level = 2**depth - 1
        highest = highest_count(frames.dtype, saturation=level)
    below = _below_zero(scan, frames).sum(axis=0)
    if fault := subtracted_fault(below, len(frames), marks.pixels | mask):
        raise ScanFileError(fault, where=scan.scan_id, remedy="give raw counts, not corrected ones")
    counted = is_count(frames, highest) & ~marks.pixels
    none = 1 - float(counted.mean())
    if none > MOST_BAD:
        raise ScanFileError(
            f"{none:.0%} of the values are no counts: they are negative, saturated, or marks of bad pixels",
            where=scan.scan_id,
            remedy="give raw counts, not corrected ones, of a detector that was not saturated",
        )
    counts = np.where(counted, frames, 0)
    mean = counts.mean(axis=0, dtype=np.float64)
    fault = mask_fault(mask, mean)
    if fault:
        raise ScanFileError(fault, where=scan.scan_id, remedy=MASK_REMEDY)
    bad = mask | marks.pixels
    proposed = proposed_saturation(frames, counted & ~mask)
    return Survey(
        bad_pixels=bad,
        masked=int(mask.sum()),
        marks=marks,
        highest=highest,
        saturation=level,
        proposed=proposed,
        at_shared_maximum=np.asarray((frames == proposed).any(axis=0) if proposed else np.zeros_like(mask)),
        limits=frame_limits(counts.sum(axis=(1, 2), where=~bad, dtype=np.float64)),
        mean=np.where(mask, 0.0, mean),
        uncounted=none,
    )


def _below_zero(scan: Surveyed, frames: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """[n, H, W] where the file has negative values, also where they are stored as floats."""
    look = getattr(scan.counts, "below_zero", None)
    if look is None or frames.dtype.kind == "i":
        return frames < 0
    return np.stack([look(int(index)) for index in sampled(scan)])


def sampled(scan: Surveyed) -> NDArray[np.intp]:
    """Indices of the frames that are looked at."""
    height, width = scan.counts.shape[1:]
    number = len(scan.counts)
    most = max(4, min(SAMPLE, _SAMPLE_BYTES // (height * width * np.dtype(scan.counts.dtype).itemsize)))
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(np.intp))


def _fits(frames: NDArray[np.integer[Any]], bad: NDArray[np.bool_], highest: int, bit_depth: int) -> bool:
    """Whether no count exceeds what one read-out of so many bits gives; a detector that adds read-outs exceeds it."""
    counts = frames[:, ~bad]
    return bool((counts[is_count(counts, highest)] < 2**bit_depth).all())


def in_words(report: Mapping[str, Any], frames: Mapping[str, int]) -> list[str]:
    """Lines for people: pixels and frames that were left out, and what is proposed. Empty: everything is a measurement.

    Parameters
    ----------
    report
        See `Survey.report`.
    frames
        Frames that were left out, by `FrameFault` values.
    """
    lines = []
    if report["bad_pixels"]:
        values = ", ".join(map(str, report["mark_values"]))
        marks = f", {report['mark_pixels']} of them marks (constant at {values})" if report["mark_pixels"] else ""
        lines.append(f"{report['bad_pixels']} of {report['pixels']} pixels are no measurement{marks}")
    if report["saturation_proposed"]:
        level = report["saturation_proposed"]
        lines.append(
            f"many pixels share the maximum of {level} counts: if they are saturated, give --saturation {level}"
        )
    for fault in FrameFault:
        if frames.get(fault.value):
            lines.append(f"{frames[fault.value]} frames were left out: {fault.value}")
    return lines
