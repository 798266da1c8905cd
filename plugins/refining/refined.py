"""What the refinement shows at one moment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.refine.figures import RefineFigures


@dataclass(frozen=True)
class Refined:
    """A refined image.

    Attributes
    ----------
    number
        Counts the images; 0 before any.
    phase, amplitude
        Refined phase, rad, and modulus; their weight is the visits.
    probe
        [modes, n, n].
    scan, run, model
        The scan, the number of its run, and the name of the model whose phase it began with.
    figures, probe_source
        See `RefineFigures`; where the first probe came from.
    last_frame_id
        Of the newest frame that was taken.
    taken
        Frames that had been taken from the queue since the start, those of other scans included.
    residuals
        [3, n] x and y (m) of at most `refiner.MOST_RESIDUALS` frames and their R factors, divided by the median of all.
    """

    number: int
    phase: PhaseImage
    amplitude: PhaseImage
    probe: NDArray[np.complex64]
    scan: str
    run: int
    model: str
    figures: RefineFigures
    probe_source: str
    last_frame_id: int
    taken: int = 0
    residuals: NDArray[np.float64] = field(default_factory=lambda: np.empty((3, 0)))


@dataclass(frozen=True)
class RefineState:
    """What the live refinement tells.

    Attributes
    ----------
    figures
        Of the scan that is refined.
    scan, probe_source
        That scan, and where its first probe came from.
    not_taken
        Frames of the scan that found the queue full, or that could not be used.
    waiting
        Frames in the queue.
    lag_s
        Age of the oldest frame that waits, s; 0 where none waits, NaN before any came.
    frc_m
        Resolution by Fourier ring correlation, m; NaN before the refinement has converged.
    ssim
        Similarity of the network's phase to the refined phase; NaN before any comparison.
    stopped, message
        Whether the scan is not refined any more; the last thing that went wrong, "" where all is well.
    saved
        File of the last result.
    """

    figures: RefineFigures = field(default_factory=RefineFigures)
    scan: str = ""
    probe_source: str = ""
    not_taken: int = 0
    waiting: int = 0
    lag_s: float = math.nan
    frc_m: float = math.nan
    ssim: float = math.nan
    stopped: bool = False
    message: str = ""
    saved: str = ""
