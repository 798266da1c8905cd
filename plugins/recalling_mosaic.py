"""A mosaic from which recent frames can be removed again, exactly, because a canvas is a sum of integers."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.cluster.id_set import IdSet
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.mosaic import Laid, Mosaic, RunCanvas


@dataclass(frozen=True)
class _Kept:
    """A patch as it was added, with a weak reference to its canvas."""

    canvas: weakref.ref[RunCanvas]
    contract: ModelContract
    phase: NDArray[np.float32]
    x_m: float
    y_m: float


class RecallingMosaic(Mosaic):
    """Knows which frames are on each canvas, and keeps the last patches.

    No two threads may use `add`, `take_back` and `laid` at once. Parameters as `Mosaic`.

    Attributes
    ----------
    keep_bytes
        Memory of the kept patches, bytes; the oldest are dropped first.
    """

    def __init__(self, max_pixels: int) -> None:
        super().__init__(max_pixels)
        self.keep_bytes = 64 << 20
        self._held_bytes = 0
        self._kept: OrderedDict[tuple[int, int], _Kept] = OrderedDict()  # by run and frame id, oldest first
        self._laid: weakref.WeakKeyDictionary[RunCanvas, IdSet] = weakref.WeakKeyDictionary()

    def add(self, patches: Patches, run: int, dose_scale: float = 1.0) -> Laid:
        """Add a batch of one run, and keep its patches."""
        laid = super().add(patches, run, dose_scale)
        canvas = self.canvas(run)
        if canvas is None or not laid.stitched:
            return laid
        ids = self._laid.setdefault(canvas, IdSet())
        stitched = {id(placed) for placed in laid.stitched}
        for placed, phase in zip(patches.placed, patches.phase, strict=True):
            if id(placed) in stitched:
                ids.add(placed.frame.id)
                kept = _Kept(weakref.ref(canvas), canvas.contract, phase.copy(), placed.x_m, placed.y_m)
                self._keep((run, placed.frame.id), kept)
        return laid

    def laid(self, run: int) -> IdSet:
        """Ids of the frames on the canvas of a run: a copy."""
        canvas = self.canvas(run)
        ids = self._laid.get(canvas) if canvas is not None else None
        return ids.copy() if ids is not None else IdSet()

    def take_back(self, run: int, frame_id: int) -> bool:
        """Take one frame off its canvas again. False when it is not there, or its patch is not kept any more."""
        kept = self._kept.pop((run, frame_id), None)
        if kept is None:
            return False
        self._held_bytes -= kept.phase.nbytes
        canvas = self.canvas(run)
        if canvas is None or kept.canvas() is not canvas:
            return False
        alone = self._new_canvas(kept.contract)
        alone.add(kept.phase, kept.x_m, kept.y_m)
        canvas.canvas.subtract_state(alone.state())
        self._laid[canvas].discard(frame_id)
        return True

    def _keep(self, key: tuple[int, int], kept: _Kept) -> None:
        self._kept[key] = kept
        self._held_bytes += kept.phase.nbytes
        while self._held_bytes > self.keep_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._held_bytes -= oldest.phase.nbytes
