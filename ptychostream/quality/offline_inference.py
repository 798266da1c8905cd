"""Infer and stitch a scan offline, with the same preprocessing, graph and canvas as the live path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import EngineError
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract
from ptychostream.model.dose import FRAMES, telling
from ptychostream.model.model_file import Infer
from ptychostream.model.preprocessing import Preprocessor
from ptychostream.scans.scan import Scan


def stitch_scan(
    scan: Scan,
    contract: ModelContract,
    infer: Infer,
    *,
    frames: NDArray[np.intp] | None = None,
    positions_m: NDArray[np.float64] | None = None,
    dose_scale: float = 1.0,
    batch: int = 8,
    on_frames: Callable[[int], None] | None = None,
) -> Canvas:
    """Infer every frame and stitch the patches.

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
    on_frames
        Called with the number of inferred frames.

    Raises
    ------
    EngineError
        `infer` returned a wrong shape.
    GeometryError, FrameError
        Errors of preprocessing and canvas.
    """
    places = scan.positions_m if positions_m is None else positions_m
    chosen = np.flatnonzero(np.isfinite(places).all(axis=1)) if frames is None else np.asarray(frames)
    weight = contract.patch_weight.unpack() if contract.patch_weight else np.ones(contract.output_shape, np.float32)
    canvas = Canvas(contract.object_pixel_m, weight)
    first = np.asarray(scan.counts[0])
    preprocessor = Preprocessor(contract.preprocessing, first.shape, first.dtype)
    counts = np.empty((batch, *preprocessor.output_shape), dtype=np.float32)
    for start in range(0, len(chosen), batch):
        indices = chosen[start : start + batch]
        for slot, frame in enumerate(indices):
            preprocessor.apply(np.ascontiguousarray(scan.counts[int(frame)]), counts[slot])
        patches = infer(counts[: len(indices)], dose_scale)
        if patches.shape != (len(indices), *contract.output_shape):
            what = f"{len(indices)} frames gave patches of shape {patches.shape}"
            raise EngineError(what, where=contract.name, remedy=f"the contract says {contract.output_shape} each")
        canvas.add_batch(patches, places[indices])
        if on_frames is not None:
            on_frames(start + len(indices))
    return canvas


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
    """
    first = np.asarray(scan.counts[0])
    preprocessor = Preprocessor(contract.preprocessing, first.shape, first.dtype)
    counts = np.empty(preprocessor.output_shape, np.float32)
    sums: list[float] = []
    for frame in frames:
        preprocessor.apply(np.ascontiguousarray(scan.counts[int(frame)]), counts)
        sums += telling([float(counts.sum(dtype=np.float64))])
        if len(sums) == most:
            break
    return sums
