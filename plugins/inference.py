"""From frames to patches: preprocessing into one buffer, then the engine. Used by the inference thread only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause, EngineError, FrameError
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.frames.measured_frames import FrameLimits
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.model.raw_shape import raw_shape
from ptychostream.plugins.engines.base import Engine
from ptychostream.plugins.live_preprocessor import LivePreprocessor

_COMMON_TYPES = (np.uint8, np.uint16, np.uint32, np.int32)
_SHAPES_KEPT = 32  # a stream has one frame shape, perhaps two; a bad one must not fill the memory


class Patches(NamedTuple):
    """The patches of a batch, and its frames that could not be inferred.

    Attributes
    ----------
    placed
        The n frames that were inferred.
    phase
        [n, h, w] rad, valid until the next batch.
    misfits
        The drop cause and the reason for every frame that the preprocessing cannot take, or that is no measurement.
    mean_counts
        Mean of the counts of a preprocessed frame, summed over the frame.
    prepared, inferred
        When preprocessing and inference were done, monotonic seconds.
    counts
        [n, H, W] what the engine was given, valid until the next batch.
    dose_scale
        The dose scale of the patches.
    spec
        The preprocessing of the last frame: the contract's, with what its stream shows; None: no frame.
    """

    placed: list[PlacedFrame]
    phase: NDArray[np.float32]
    misfits: list[tuple[DropCause, str]]
    mean_counts: float
    prepared: float
    inferred: float
    counts: NDArray[np.float32]
    dose_scale: float
    spec: Preprocessing | None = None


class Inference:
    """An engine with the preprocessing that its model asks for.

    Attributes
    ----------
    newest
        The preprocessing of the newest frames; None before any.

    Raises
    ------
    EngineError
        The engine's shapes are not those of the contract.
    """

    def __init__(self, engine: Engine, contract: ModelContract) -> None:
        if tuple(engine.input_shape) != contract.input_shape or tuple(engine.output_shape) != contract.output_shape:
            raise EngineError(
                f"takes {engine.input_shape} and gives {engine.output_shape}, the contract says "
                f"{contract.input_shape} and {contract.output_shape}",
                where=f"engine {engine.name}",
                remedy="export the model again",
            )
        self.engine = engine
        self.contract = contract
        self._buffer = np.zeros((engine.batch, *contract.input_shape), np.float32)
        self.newest: LivePreprocessor | None = None
        self._saturation = 0
        self._preprocessors: dict[tuple[Any, ...], LivePreprocessor | FrameError] = {}

    @property
    def saturation(self) -> int:
        """Count of a saturated pixel, besides what the contract says; 0: not given."""
        return self._saturation

    @saturation.setter
    def saturation(self, level: int) -> None:
        if level != self._saturation:
            self._saturation = level
            self._preprocessors.clear()

    def run(
        self,
        batch: Sequence[PlacedFrame],
        choose_dose: Callable[[NDArray[np.float32]], float],
        screen: Callable[[Sequence[float]], FrameLimits] | None = None,
    ) -> Patches:
        """Infer at most `engine.batch` frames, at the dose scale that is chosen for their preprocessed counts.

        Parameters
        ----------
        screen
            Gives the limits by which frames are judged, from the sums of their counts; frames outside are not
            inferred. None: all are.

        Raises
        ------
        EngineError
            The engine gave something of the wrong shape; and whatever else it raises.
        """
        placed: list[PlacedFrame] = []
        misfits: list[tuple[DropCause, str]] = []
        sums: list[float] = []
        for prepare, group in groupby(batch, lambda frame: self._preprocessor(frame.frame.counts)):
            together = list(group)
            if isinstance(prepare, FrameError):
                misfits += [(prepare.cause, str(prepare))] * len(together)
                continue
            out = self._buffer[len(placed) : len(placed) + len(together)]
            raw = [frame.frame.counts for frame in together]
            if screen is not None:
                self.newest = prepare
                prepare.look(together[0].frame.run, raw)
                if prepare.fault:
                    misfits += [(DropCause.NOT_MEASURED, prepare.fault)] * len(together)
                    continue
            sums += prepare.apply_all(raw, out).tolist()
            placed += together
        if screen is not None and placed:
            placed, sums = self._screened(placed, sums, screen(sums), misfits)
        shape = (len(placed), *self.contract.output_shape)
        if not placed:
            now = time.monotonic()
            empty = np.empty(shape, np.float32)
            return Patches(placed, empty, misfits, float("nan"), now, now, self._buffer[:0], 1.0)
        counts = self._buffer[: len(placed)]
        dose_scale = choose_dose(counts)
        prepared = time.monotonic()
        phase = self.engine.infer(counts, dose_scale)
        inferred = time.monotonic()
        if phase.shape != shape:
            raise EngineError(
                f"gave {phase.shape}, expected {shape}",
                where=f"engine {self.engine.name}",
                remedy="check the model's output_shape",
            )
        spec = self.newest.spec if self.newest is not None else None
        mean_counts = sum(sums) / len(sums)
        return Patches(placed, phase, misfits, mean_counts, prepared, inferred, counts, dose_scale, spec)

    def warm_up(self) -> None:
        """Infer a batch of nothing, so that the first frames find everything compiled, loaded and working.

        Raises
        ------
        EngineError
            As `run`.
        """
        for dtype in _COMMON_TYPES:
            empty = np.zeros(raw_shape(self.contract), dtype)
            self._preprocessor(empty)
        self.run([PlacedFrame(Frame("", 0, 0.0, empty), 0.0, 0.0)] * self.engine.batch, lambda _: 1.0)

    def _preprocessor(self, counts: NDArray[np.integer]) -> LivePreprocessor | FrameError:
        key = (counts.shape, counts.dtype)
        if key not in self._preprocessors:
            if len(self._preprocessors) >= _SHAPES_KEPT:
                self._preprocessors.clear()
            self._preprocessors[key] = self._make(counts)
        return self._preprocessors[key]

    def _screened(
        self,
        placed: list[PlacedFrame],
        sums: list[float],
        limits: FrameLimits,
        misfits: list[tuple[DropCause, str]],
    ) -> tuple[list[PlacedFrame], list[float]]:
        """Without the frames that are no measurement, which become misfits; the buffer is closed up."""
        low, high = limits.low, limits.high
        if min(sums) > 0 and min(sums) >= low and max(sums) <= high:
            return placed, sums
        kept = [index for index, total in enumerate(sums) if limits.fault(total) is None]
        misfits += [(DropCause.NOT_MEASURED, limits.describe(total)) for total in sums if limits.fault(total)]
        self._buffer[: len(kept)] = self._buffer[kept]
        return [placed[index] for index in kept], [sums[index] for index in kept]

    def _make(self, counts: NDArray[np.integer]) -> LivePreprocessor | FrameError:
        """The preprocessing for one shape and type, made once; the error where the model cannot take them."""
        try:
            return LivePreprocessor(self.contract, counts.shape, counts.dtype, self._saturation or None)
        except FrameError as error:
            return error


def describe(engine: Engine) -> str:
    """Name, version, precision and device of an engine, for the provenance of a canvas."""
    return f"{engine.name} {engine.version}".strip() + f" ({engine.precision}, {engine.device})"
