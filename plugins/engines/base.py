"""What an inference engine is, and what every engine does alike: check, scale, pad and chunk."""

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

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")


class Engine(Protocol):
    """A model, ready to run on one device.

    Attributes
    ----------
    name, version
        The engine's name as it is asked for, and its runtime's version.
    precision
        One of `PRECISIONS` but "auto": what the convolutions are computed in.
    device
        What it runs on, for people.
    reason
        Why this engine was taken, for people.
    batch
        Most frames `infer` takes.
    input_shape, output_shape
        (H, W) of a frame and (h, w) of its phase.
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
        """[n ≤ batch, H, W] preprocessed counts → [n, h, w] phase in rad.

        The runtime only sees shapes fixed at start, short batches are padded, so that a frame's phase is the same, bit
        for bit, whatever its neighbours, its place and the fill of the batch. One thread at a time. The result is a
        view of the engine's own buffer: valid until the next call; copy what must live longer.

        Raises
        ------
        EngineError
            The counts do not fit, the runtime failed, or the engine is closed.
        """

    def close(self) -> None:
        """Free what the engine holds; further calls of `infer` raise EngineError."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine can run here.

    Attributes
    ----------
    name
        As `create_engine` takes it.
    available
        Whether its runtime and its device seem to be here (looked for, not loaded).
    reason
        Why not, with the remedy; or what makes it available.
    device
        What it would run on; empty where it is not available.
    """

    name: str
    available: bool
    reason: str
    device: str = ""


@dataclass(frozen=True)
class EngineOptions:
    """What `create_engine` passes on: see there."""

    batch: int = 8
    precision: str = "auto"
    cache_dir: Path | None = None
    threads: int | None = None
    chunk: int | None = None


class BatchedEngine(ABC):
    """An engine whose runtime takes `chunk` frames at a time, always that many.

    Subclasses set `precision`, `device` and `version`, keep their runtime, and implement `_run`, which reads
    `self._counts` [runs·chunk, 1, H, W] and `self._dose`, and writes `self._phase` [runs·chunk, 1, h, w].
    """

    name: str
    supported: tuple[str, ...]
    """Precisions, the one that "auto" means not necessarily first."""
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
        """`asked`, or `automatic` where that is "auto"; EngineError where the engine cannot do it."""
        chosen = automatic if asked == "auto" else asked
        if chosen not in cls.supported:
            remedy = f"choose one of auto, {', '.join(cls.supported)}"
            raise EngineError(f"precision {asked!r} is not supported", where=f"engine {cls.name}", remedy=remedy)
        return chosen

    def _feeds(self, frames: slice) -> dict[str, NDArray[np.float32]]:
        """The engine's own input arrays for a chunk, by the graph's input names."""
        feeds = {self._counts_input: self._counts[frames]}
        if self._dose_input is not None:
            feeds[self._dose_input] = self._dose
        return feeds

    def _chunks(self, runs: int) -> list[slice]:
        """Frames of each of the first `runs` chunks."""
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
