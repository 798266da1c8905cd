"""A scan through a model, offline: the same preprocessing, graph and canvas as the live path."""

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
        Read a batch at a time.
    contract
        Of the model that `infer` runs.
    infer
        (counts [n, H, W], dose_scale) → phase [n, h, w] rad, n at most `batch`.
    frames
        Indices to infer; None means all whose position is finite.
    positions_m
        [N, 2] in place of the scan's own, one for each of its frames.
    dose_scale
        What the counts are multiplied by before inference.
    batch
        Frames at once.
    on_frames
        Called with the number of frames done.

    Raises
    ------
    EngineError
        `infer` returned another shape.
    GeometryError, FrameError
        As preprocessing and canvas raise them.
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
    """Preprocessed counts of a scan's first frames, each summed over the frame, as the edge takes them for its dose.

    Parameters
    ----------
    frames
        Indices of the frames that were inferred, in order.
    most
        So many frames with counts are looked for.

    Raises
    ------
    GeometryError, FrameError
        As preprocessing raises them.
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
