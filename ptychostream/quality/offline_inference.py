"""Infer and stitch a scan offline, with the same preprocessing, graph and canvas as the live path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import EngineError
from ptychostream.frames.survey import Survey
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract
from ptychostream.model.dose import FRAMES, telling
from ptychostream.model.model_file import Infer
from ptychostream.quality.measured_input import measured_input
from ptychostream.scans.scan import Scan


class Unmeasured(NamedTuple):
    """What a scan holds besides measurements: its survey, and the number of frames left out by `FrameFault` values."""

    survey: Survey
    frames: dict[str, int]


def stitch_scan(
    scan: Scan,
    contract: ModelContract,
    infer: Infer,
    *,
    frames: NDArray[np.intp] | None = None,
    positions_m: NDArray[np.float64] | None = None,
    dose_scale: float = 1.0,
    batch: int = 8,
    spread: bool = False,
    on_frames: Callable[[int], None] | None = None,
    on_unmeasured: Callable[[Unmeasured], None] | None = None,
) -> Canvas:
    """Infer every frame and stitch the patches. What is no measurement is left out, as at the edge.

    Parameters
    ----------
    scan
        The scan. One batch is read at a time.
    contract
        Contract of the model that `infer` runs.
    infer
        (counts [n, H, W], dose_scale) → phase [n, h, w] rad, with n ≤ `batch`.
    frames
        Indices of the frames to infer. None means all frames with a finite position.
    positions_m
        [N, 2] positions of all frames, instead of those of the scan.
    dose_scale
        Factor of the counts before inference.
    batch
        Frames per call of `infer`.
    spread
        Whether the canvas accumulates the spread of the patches.
    on_frames
        Called with the number of frames that are done.
    on_unmeasured
        Called at the end with what was left out.

    Raises
    ------
    EngineError
        `infer` returned a wrong shape.
    GeometryError, FrameError
        Errors of preprocessing and canvas.
    ScanFileError
        The mask of bad pixels cannot be right, or frames cannot be read.
    """
    places = scan.positions_m if positions_m is None else positions_m
    chosen = np.flatnonzero(np.isfinite(places).all(axis=1)) if frames is None else np.asarray(frames)
    canvas = Canvas(contract.object_pixel_m, contract.weight(), spread=spread)
    ready = measured_input(scan, contract.preprocessing, _expected(contract, dose_scale))
    counts = np.empty((batch, *ready.preprocessor.output_shape), dtype=np.float32)
    left_out: Counter[str] = Counter()
    for start in range(0, len(chosen), batch):
        kept: list[np.intp] = []
        for frame in chosen[start : start + batch]:
            fault = ready.limits.fault(ready.apply(int(frame), counts[len(kept)]))
            if fault is None:
                kept.append(frame)
            else:
                left_out[fault.value] += 1
        if kept:
            patches = infer(counts[: len(kept)], dose_scale)
            if patches.shape != (len(kept), *contract.output_shape):
                what = f"{len(kept)} frames gave patches of shape {patches.shape}"
                raise EngineError(what, where=contract.name, remedy=f"the contract says {contract.output_shape} each")
            canvas.add_batch(patches, places[kept])
        if on_frames is not None:
            on_frames(min(start + batch, len(chosen)))
    if on_unmeasured is not None:
        on_unmeasured(Unmeasured(ready.survey, dict(left_out)))
    return canvas


def _expected(contract: ModelContract, dose_scale: float) -> float | None:
    """Counts of a frame of a scan that has this dose scale; None: not known."""
    return contract.mean_counts / dose_scale if contract.mean_counts else None


def first_counts(scan: Scan, contract: ModelContract, frames: NDArray[np.intp], most: int = FRAMES) -> list[float]:
    """Preprocessed counts of a scan's first frames, summed over each frame. The edge computes its dose from the same.

    Parameters
    ----------
    frames
        Indices of the inferred frames, in order.
    most
        The largest number of frames with counts.

    Raises
    ------
    GeometryError, FrameError
        Errors of preprocessing.
    ScanFileError
        The mask of bad pixels cannot be right, or frames cannot be read.
    """
    ready = measured_input(scan, contract.preprocessing, _expected(contract, 1.0))
    counts = np.empty(ready.preprocessor.output_shape, np.float32)
    sums: list[float] = []
    for frame in frames:
        total = ready.apply(int(frame), counts)
        sums += telling([total] if ready.limits.fault(total) is None else [])
        if len(sums) == most:
            break
    return sums
