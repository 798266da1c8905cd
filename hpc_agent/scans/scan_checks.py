"""Checks of a scan before it is reconstructed. Each fault has a name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import (
    ContradictionError,
    FewerPositionsError,
    FileBusyError,
    FileCutError,
    FileMissingError,
    MorePositionsError,
    NoPositionsError,
    ScanFileError,
    UnitError,
)
from ptychostream.frames.measured_frames import FrameLimits
from ptychostream.frames.measured_pixels import highest_count, is_count
from ptychostream.statements.description import Description

_BLOCK_BYTES = 32 << 20


ENERGY_TOLERANCE = 0.01
"""Relative difference between the energy of a PV and that of a file which does not matter."""


class ScanFault(Enum):
    """Why a scan is not used."""

    MISSING = "missing"
    GROWING = "still growing"
    UNCLOSED = "never closed"
    TRUNCATED = "truncated"
    WRONG_SCAN = "wrong scan"
    NO_POSITIONS = "no positions"
    MORE_POSITIONS = "more positions than frames"
    FEWER_POSITIONS = "fewer positions than frames"
    DARK = "all-zero frames"
    SATURATED = "saturated frames"
    CONTRADICTION = "contradiction"
    UNREADABLE = "unreadable"


class CollectError(ScanFileError):
    """The scan cannot be used; `fault` says why."""

    def __init__(self, fault: ScanFault, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.fault = fault


_FAULTS: tuple[tuple[type[ScanFileError], ScanFault], ...] = (
    (FileMissingError, ScanFault.MISSING),
    (FileBusyError, ScanFault.UNCLOSED),
    (FileCutError, ScanFault.TRUNCATED),
    (NoPositionsError, ScanFault.NO_POSITIONS),
    (MorePositionsError, ScanFault.MORE_POSITIONS),
    (FewerPositionsError, ScanFault.FEWER_POSITIONS),
    (ContradictionError, ScanFault.CONTRADICTION),
    (UnitError, ScanFault.CONTRADICTION),
)


def fault_of(error: ScanFileError) -> ScanFault:
    """The fault for a reader's error."""
    return next((fault for kind, fault in _FAULTS if isinstance(error, kind)), ScanFault.UNREADABLE)


class CheckSettings(Settings):
    """How much of a scan may be bad.

    Attributes
    ----------
    dark_share
        Share of frames without a single count, such as after a beam dump.
    saturated_share
        Share of frames with more than `saturated_pixels` of their good pixels at or above `saturation`.
    saturated_pixels
        Share of a frame's good pixels.
    saturation
        Counts; None: the type's maximum. A pixel that has them in every frame is dead and not counted.
    """

    dark_share: float = Field(0.05, ge=0, le=1)
    saturated_share: float = Field(0.05, ge=0, le=1)
    saturated_pixels: float = Field(1e-3, ge=0, le=1)
    saturation: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class FrameStatistics:
    """Statistics of the frames of a scan.

    Attributes
    ----------
    frames, dark, saturated
        Number of all frames, of frames without a count or far below the usual, and of frames with too many saturated
        pixels.
    dead_pixels
        Marked by the file or by their constant value, or at the saturation in every frame.
    mean_counts
        Per frame, over good pixels.
    bright
        Frames far above the usual.
    """

    frames: int
    dark: int
    saturated: int
    dead_pixels: int
    mean_counts: float
    bright: int = 0


def measure(
    blocks: Iterable[NDArray[np.integer]],
    settings: CheckSettings,
    bad_pixels: NDArray[np.bool_] | None = None,
    saturation: int | None = None,
    limits: FrameLimits | None = None,
) -> FrameStatistics:
    """Read every frame once.

    Parameters
    ----------
    blocks
        [n, H, W] counts, the scan in pieces.
    bad_pixels
        [H, W], True where the detector cannot be trusted.
    saturation
        Of the scan, where the settings have none.
    limits
        What the sum of a frame lies between, if it is a measurement. None: above 0.
    """
    totals: list[NDArray[np.float64]] = []
    hot: list[NDArray[np.int64]] = []
    always: NDArray[np.bool_] | None = None
    good_pixels = 0
    for block in blocks:
        good = np.ones(block.shape[1:], bool) if bad_pixels is None else ~bad_pixels
        highest = highest_count(block.dtype, saturation=settings.saturation or saturation)
        at_limit = (block > highest) & good
        in_block: NDArray[np.bool_] = np.logical_and.reduce(at_limit, axis=0)
        always = in_block if always is None else always & in_block
        hot.append(at_limit.sum(axis=(1, 2)))
        counts = np.where(is_count(block, highest), block, 0)
        totals.append(counts.sum(axis=(1, 2), where=good, dtype=np.float64))
        good_pixels = int(good.sum())
    if always is None:
        return FrameStatistics(0, 0, 0, 0, 0.0)
    dead = int(always.sum())
    sums, hot_pixels = np.concatenate(totals), np.concatenate(hot) - dead
    low, high, _ = limits or (0.0, np.inf, np.nan)
    dark = (sums <= 0) | (sums < low)
    return FrameStatistics(
        frames=len(sums),
        dark=int((dark & (hot_pixels == 0)).sum()),
        saturated=int((hot_pixels > settings.saturated_pixels * max(1, good_pixels - dead)).sum()),
        dead_pixels=dead + always.size - good_pixels,
        mean_counts=float(sums.mean()),
        bright=int((sums > high).sum()),
    )


def judge(statistics: FrameStatistics, settings: CheckSettings, where: str) -> None:
    """Raise CollectError where too much of a scan is bad."""
    frames = max(1, statistics.frames)
    if statistics.dark > settings.dark_share * frames:
        raise CollectError(
            ScanFault.DARK,
            f"{statistics.dark} of {statistics.frames} frames have no counts, or hardly any",
            where=where,
            remedy="look at the shutter and the beam, and at the detector's threshold",
        )
    if statistics.saturated > settings.saturated_share * frames:
        raise CollectError(
            ScanFault.SATURATED,
            f"{statistics.saturated} of {statistics.frames} frames are saturated",
            where=where,
            remedy="attenuate the beam, expose shorter, or mark the hot pixels as bad",
        )


def check_name(found: str, wanted: str, where: str) -> None:
    """Raise CollectError where a file names another scan than the one that completed; either may name none."""
    if found and wanted and found != wanted:
        raise CollectError(
            ScanFault.WRONG_SCAN,
            f"the file holds scan {found!r}, not {wanted!r}",
            where=where,
            remedy="let the file-name PV be written before the scan-complete PV",
        )


def check_energy(said: Description, energy_ev: float | None, where: str) -> None:
    """Raise CollectError if the energy that a PV gave is not the one that the file states, within 1 %."""
    from_pv = Description(where)
    from_pv.state("energy", energy_ev, "the energy PV")
    in_file = Description(where, [one for one in said if one.quantity == "energy" and one.origin == "stated"])
    remedy = "check the unit of both; if the file is wrong, write its energy right or not at all"
    for found in from_pv.against(in_file, ("energy",), tolerance=ENERGY_TOLERANCE, remedy=remedy):
        raise CollectError(ScanFault.CONTRADICTION, str(found), where=where, remedy=found.remedy)


def check_length(frames: int, wanted: int | None, where: str) -> None:
    """Raise CollectError where a file holds fewer frames than the scan has."""
    if wanted is not None and frames < wanted:
        raise CollectError(
            ScanFault.TRUNCATED,
            f"{frames} of {wanted} frames",
            where=where,
            remedy="the detector or its file writer lost frames: look at its dropped frames",
        )


def blocks_of(counts: Any) -> Iterable[NDArray[np.integer]]:
    """The frames of a scan in pieces of some megabytes."""
    height, width = counts.shape[1:]
    size = max(1, _BLOCK_BYTES // (height * width * np.dtype(counts.dtype).itemsize))
    for start in range(0, len(counts), size):
        yield counts[start : start + size]
