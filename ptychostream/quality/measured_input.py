"""The network's input from a scan, without what is no measurement: for `infer`, training and the agent's judgement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.frames.measured_frames import FrameLimits, frame_limits
from ptychostream.frames.survey import Survey, sampled, survey
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor, refined
from ptychostream.scans.scan import Scan


@dataclass(frozen=True)
class MeasuredInput:
    """A scan with the preprocessing that leaves out what is no measurement.

    Attributes
    ----------
    scan, survey
        The scan, and what of it is a measurement.
    preprocessor
        With the bad pixels and the saturation of the scan besides those of the model.
    limits
        What the sum of a preprocessed frame lies between, if it is a measurement.
    """

    scan: Scan
    survey: Survey
    preprocessor: Preprocessor
    limits: FrameLimits

    def apply(self, frame: int, out: NDArray[np.float32]) -> float:
        """Preprocess a frame of the scan into `out` [H, W], and give the sum of its counts."""
        return self.preprocessor.apply(np.ascontiguousarray(self.scan.counts[frame]), out)


def measured_input(scan: Scan, spec: Preprocessing, expected: float | None = None) -> MeasuredInput:
    """Look at a sample of the scan.

    Parameters
    ----------
    spec
        The model's preprocessing.
    expected
        Counts of a preprocessed frame that are known otherwise (see `ptychostream.frames.measured_frames`).

    Raises
    ------
    ScanFileError
        See `ptychostream.frames.survey.survey`.
    GeometryError, FrameError
        The frames do not go with the preprocessing.
    """
    found = survey(scan)
    first = np.asarray(scan.counts[0])
    preprocessor = Preprocessor(refined(spec, found.bad_pixels, found.saturation), first.shape, first.dtype)
    out = np.empty(preprocessor.output_shape, np.float32)
    sums = [preprocessor.apply(np.ascontiguousarray(scan.counts[int(frame)]), out) for frame in sampled(scan)]
    return MeasuredInput(scan, found, preprocessor, frame_limits(sums, expected))
