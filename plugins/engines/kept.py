"""An engine that is used in one place and kept in another: it closes when nobody holds it any more."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from ptychostream.plugins.engines.base import Engine


class KeptEngine:
    """An engine with a number of holders, none at first. `hold` adds one, `close` takes one away.

    Parameters
    ----------
    engine
        The engine; nobody else may close it.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.version = engine.version
        self.precision = engine.precision
        self.device = engine.device
        self.reason = engine.reason
        self.batch = engine.batch
        self.input_shape = engine.input_shape
        self.output_shape = engine.output_shape
        self._engine = engine
        self._lock = threading.Lock()
        self._holders = 0

    def hold(self) -> KeptEngine:
        """Count one holder more, and return this."""
        with self._lock:
            self._holders += 1
        return self

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        return self._engine.infer(counts, dose_scale)

    def close(self) -> None:
        """One holder less; the last one closes the engine."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._engine.close()
