"""The interface of an inference engine, and the common part of all engines: check, scale, pad and chunk."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile


class Engine(Protocol):
    """A model that is ready to run on one device.

    Attributes
    ----------
    name, version
        Name of the engine, and version of its runtime.
    precision
        Precision of the convolutions: a value of `EngineSettings.precision` except "auto".
    device
        The device, to be read by people.
    reason
        Why this engine was chosen, to be read by people.
    batch
        The largest number of frames in one call of `infer`.
    input_shape, output_shape
        Shapes of a frame (H, W) and of its phase (h, w).
    """

    name: str
    version: str
    precision: str
    device: str
    reason: str
    batch: int
    input_shape: tuple[int, int]
    output_shape: tuple[int, int]

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """Infer the phase [n, h, w] in rad from preprocessed counts [n ≤ batch, H, W].

        The runtime always gets the same shape; short batches are padded. So a frame's phase is the same bit for bit for
        every place in a batch, every fill of the batch and all neighbours. Only one thread may call it at a time. The
        result is a view of the engine's buffer and is valid until the next call.

        Raises
        ------
        EngineError
            The counts do not fit, the runtime failed, or the engine is closed.
        """

    def close(self) -> None:
        """Free the engine's memory. Further calls of `infer` raise EngineError."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine can run on this machine.

    Attributes
    ----------
    name
        Name for `create_engine`.
    available
        Whether runtime and device were found. The runtime is not loaded.
    reason
        Why it is available, or why not and the remedy.
    device
        The device. Empty if the engine is not available.
    """

    name: str
    available: bool
    reason: str
    device: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """The options of `create_engine` (see there)."""

    batch: int = 8
    precision: str = "auto"
    cache_dir: Path | None = None
    threads: int | None = None
    chunk: int | None = None


class BatchedEngine(ABC):
    """An engine whose runtime always gets exactly `chunk` frames.

    Subclasses set `precision`, `device` and `version`, store their runtime, and implement `_run`. It reads
    `self._counts` [runs·chunk, 1, H, W] and `self._dose`, and writes `self._phase` [runs·chunk, 1, h, w].
    """

    name: str
    supported: tuple[str, ...]
    """Supported precisions. The precision of "auto" need not be the first."""
    runtime_errors: tuple[type[Exception], ...] = (RuntimeError,)

    def __init__(self, model: ModelFile, options: EngineOptions, chunk: int | None = None) -> None:
        self.version = ""
        self.precision = ""
        self.device = ""
        self.reason = ""
        self.batch = options.batch
        self.input_shape = model.contract.input_shape
        self.output_shape = model.contract.output_shape
        self._where = f"engine {self.name}, model {model.contract.name}"
        self._scales_here = not model.has_dose_scale
        self._counts_input = model.counts_input
        self._dose_input = model.dose_input
        self._chunk = chunk or model.fixed_batch or min(options.chunk or options.batch, options.batch)
        self._runs = math.ceil(self.batch / self._chunk)
        frames = self._runs * self._chunk
        self._counts = np.zeros((frames, 1, *self.input_shape), dtype=np.float32)
        self._phase = np.zeros((frames, 1, *self.output_shape), dtype=np.float32)
        self._dose = np.ones(model.dose_shape or (), dtype=np.float32)
        self._closed = False

    @classmethod
    def choose_precision(cls, asked: str, automatic: str) -> str:
        """`asked`, or `automatic` if it is "auto". Raises EngineError if the engine does not support it."""
        chosen = automatic if asked == "auto" else asked
        if chosen not in cls.supported:
            remedy = f"choose one of auto, {', '.join(cls.supported)}"
            raise EngineError(f"precision {asked!r} is not supported", where=f"engine {cls.name}", remedy=remedy)
        return chosen

    def _feeds(self, frames: slice) -> dict[str, NDArray[np.float32]]:
        """The engine's input arrays of a chunk, by the graph's input names."""
        feeds = {self._counts_input: self._counts[frames]}
        if self._dose_input is not None:
            feeds[self._dose_input] = self._dose
        return feeds

    def _chunks(self, runs: int) -> list[slice]:
        """The frames of each of the first `runs` chunks."""
        return [slice(run * self._chunk, (run + 1) * self._chunk) for run in range(runs)]

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """See `Engine.infer`."""
        self._check(counts, dose_scale)
        n = len(counts)
        if self._scales_here:
            np.multiply(counts, np.float32(dose_scale), out=self._counts[:n, 0])
        else:
            self._counts[:n, 0] = counts
            self._dose[...] = dose_scale
        runs = math.ceil(n / self._chunk)
        self._counts[n : runs * self._chunk] = 0
        try:
            self._run(runs)
        except self.runtime_errors as error:
            what = f"the runtime failed: {str(error).strip() or type(error).__name__}"
            raise EngineError(
                what, where=self._where, remedy="load the model again or choose another engine"
            ) from error
        return self._phase[:n, 0]

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._closed:
            self._closed = True
            self._release()

    @abstractmethod
    def _run(self, runs: int) -> None:
        """Run the first `runs` chunks."""

    @abstractmethod
    def _release(self) -> None:
        """Free the runtime."""

    def _check(self, counts: NDArray[np.float32], dose_scale: float) -> None:
        if self._closed:
            raise EngineError("the engine is closed", where=self._where, remedy="create it again")
        if counts.ndim != 3 or counts.shape[1:] != self.input_shape or len(counts) > self.batch:
            height, width = self.input_shape
            what = f"counts of shape {counts.shape}"
            raise EngineError(what, where=self._where, remedy=f"give at most {self.batch} frames of {height}×{width}")
        if not (math.isfinite(dose_scale) and dose_scale > 0):
            remedy = "give a positive number"
            raise EngineError(f"dose_scale {dose_scale}", where=self._where, remedy=remedy)
