"""The preprocessing of live frames of one shape and type: what the contract says, and the marks that they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.frames.measured_pixels import (
    Constants,
    is_count,
    mask_fault,
    proposed_saturation,
    subtracted_fault,
)
from ptychostream.model.contract import ModelContract
from ptychostream.model.preprocessing import Preprocessor, bad_pixels, highest_good, refined

_LOOK_AT = (1, 2, 3, 4, 8, 16, 32)
"""Frames of a run after which the marks are looked for again; later frames change nothing."""
_ENOUGH = 16
"""Frames after which values below 0 are judged: marks with a glitch are known by then."""


class LivePreprocessor:
    """Preprocesses frames without the pixels that are no measurement. Used by one thread.

    Parameters
    ----------
    contract
        Of the live model.
    shape, dtype
        Of the raw frames.
    saturation
        Count of a saturated pixel, if the operator gives one.

    Attributes
    ----------
    spec
        The preprocessing in force: the contract's, with the saturation and the marks.
    bad_pixels
        Pixels of the raw frame that are no measurement in any frame: those of the mask, and marks.
    marks
        Pixels that are marks by their constant value.
    proposed
        Count that so many pixels share that it is probably the saturation; 0: none.
    fault
        Why the run's frames are no counts; empty: nothing is known against them.

    Raises
    ------
    FrameError
        The model cannot take such frames.
    """

    def __init__(
        self, contract: ModelContract, shape: tuple[int, int], dtype: np.dtype[Any], saturation: int | None
    ) -> None:
        self.spec = self._given = refined(contract.preprocessing, saturation=saturation)
        self.bad_pixels = self.marks = 0
        self.proposed = 0
        self.fault = ""
        self._below, self._looked = np.zeros(shape, np.int32), 0
        self._shape, self._dtype = shape, dtype
        self._run = -1
        self._constants = Constants()
        self._preprocessor = self._make()
        if self._preprocessor.output_shape != contract.input_shape:
            raise FrameError(
                DropCause.SHAPE,
                f"a frame of {shape} becomes {self._preprocessor.output_shape}, the model takes {contract.input_shape}",
                where="preprocessing",
                remedy="set the detector's region to what the model was trained on",
            )

    def look(self, run: int, frames: Sequence[NDArray[np.integer[Any]]]) -> None:
        """Look for marks in the first frames of a run."""
        if run != self._run:
            self._run, self._constants, self.fault = run, Constants(), ""
            self._below[:], self._looked = 0, 0
        seen = self._constants.frames
        if seen >= _LOOK_AT[-1]:
            return
        stack = np.stack(frames)
        self._constants.add(stack)
        if self._dtype.kind == "i":
            self._below += (stack < 0).sum(axis=0, dtype=np.int32)
            self._looked += len(stack)
        if not any(seen < at <= self._constants.frames for at in _LOOK_AT):
            return
        self._find(stack)

    def apply_all(self, frames: Sequence[NDArray[np.integer[Any]]], out: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Preprocessor.apply_all`."""
        return self._preprocessor.apply_all(frames, out)

    def _find(self, frames: NDArray[np.integer[Any]]) -> None:
        highest = highest_good(self._given, self._dtype)
        known = self._given.bad_pixels
        bad = None if known is None else known.unpack().astype(np.bool_)
        found = self._constants.marks(highest, bad)
        if found is not None and self._looked >= _ENOUGH:
            excluded = found.pixels if bad is None else found.pixels | bad
            self.fault = subtracted_fault(self._below, self._looked, excluded)
        if found is None or mask_fault(found.pixels):
            return
        good = is_count(frames, highest) & ~found.pixels
        proposed = proposed_saturation(frames, good if bad is None else good & ~bad) or 0
        spec = refined(self._given, found.pixels)
        if spec == self.spec and proposed == self.proposed:
            return
        self.proposed = proposed
        if spec != self.spec:
            self.spec, self.marks = spec, found.number
            self._preprocessor = self._make()

    def _make(self) -> Preprocessor:
        self.bad_pixels = bad_pixels(self.spec)
        try:
            return Preprocessor(self.spec, self._shape, self._dtype)
        except GeometryError as error:
            raise FrameError(DropCause.SHAPE, error.what, where=error.where, remedy=error.remedy) from error
