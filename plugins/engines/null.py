"""An engine without network: the result is the preprocessed pattern. It measures receive, join and stitch alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import EngineError


class NullEngine:
    """Returns counts times the dose scale in place of the phase. It needs no model."""

    name = "none"
    version = ""
    precision = "float32"
    device = "CPU"
    reason = "asked for"

    def __init__(self, shape: tuple[int, int], batch: int) -> None:
        self.batch = batch
        self.input_shape = shape
        self.output_shape = shape
        self._out = np.zeros((batch, *shape), dtype=np.float32)
        self._closed = False

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """See `ptychostream.plugins.engines.Engine.infer`."""
        if self._closed or counts.ndim != 3 or counts.shape[1:] != self.input_shape or len(counts) > self.batch:
            what = "the engine is closed" if self._closed else f"counts of shape {counts.shape}"
            remedy = f"give at most {self.batch} frames of {self.input_shape[0]}×{self.input_shape[1]}"
            raise EngineError(what, where="engine none", remedy=remedy)
        return np.multiply(counts, np.float32(dose_scale), out=self._out[: len(counts)])

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
