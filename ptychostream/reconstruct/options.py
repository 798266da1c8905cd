"""Options of a reconstruction."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.reconstruct.positions import Correction

LARGEST_STEP, SMALLEST_STEP = 0.5, 0.05
_FULL_STEP_COUNTS = 50.0
"""Counts of a pixel from which the largest step is taken."""


def step_for_dose(counts_a_pixel: float) -> float:
    """ePIE's object step for a scan with so many counts in a pixel where counts are (see `patterns.counts_a_pixel`).

    An object pixel is the running average of what about 2 / step frames say of it, so that a small step averages the
    counting noise of sparse frames, and a large one converges sooner. Simulated scans of 225 overlapping frames, 20
    iterations, correlation of half scans at 7 to 25 pixels a period: at 2.3 counts 0.78 by a step of 0.5 and 0.91 by
    0.05; at 9 counts 0.92 by 0.5 and 0.98 by 0.1; at 45 counts 0.98 and 0.99.
    """
    return min(LARGEST_STEP, max(SMALLEST_STEP, LARGEST_STEP * counts_a_pixel / _FULL_STEP_COUNTS))


class ReconstructOptions(Settings):
    """Options of `reconstruct`, the same for every engine.

    Attributes
    ----------
    engine
        "epie" (one position at a time, on the CPU), "torch" (batches, CPU or CUDA), "ptychi" (pty-chi, if it is
        installed), or "auto": torch if there is CUDA and positions are not corrected, or if epie cannot process
        the frames' size, else epie.
    device
        "cpu", "cuda", "cuda:1" …, or "auto": CUDA if there is one and the engine can use it.
    iterations
        Passes over all positions.
    probe_modes
        Incoherent probe modes.
    object_step, probe_step
        ePIE's alpha and beta. Smaller values give less noise, larger values converge faster from a bad start. An object
        step of None follows from the dose (see `step_for_dose`).
    momentum
        Of the object, 0 to 1: twice in a pass it goes on by this part of how it has moved (mPIE). 0: none, plain ePIE.
        Engine epie alone.
    probe_start
        Number of iterations before the probe is updated too.
    batch
        Positions that the torch and ptychi engines update together. epie always updates one at a time.
    threads
        Threads of the epie engine. Positions whose patches share no object pixel go at the same time. The result is the
        same for the same number of threads and seed, and another for another number.
    seed
        Seed of the order of the positions.
    margin
        Object pixels around the outermost patch.
    defocus_m
        Defocus of the first probe, if no probe is given. None searches for it (see `probe.search_curvature`).
    correct_positions
        "global": positions are corrected by one linear map, that is scale, rotation and shear, for all of them.
        "each": every position by itself, while the linear map stays as it was given. "both". "none". Engine epie alone
        can do this.
    crop, bin
        (first row, first column, height, width) in raw pixels that is taken of each frame, a square around the zero
        frequency; then sums of bin × bin pixels. As in a model's contract. The scan's own probe, which is of the whole
        frame, is then not used.
    remove_ramp
        Move the linear phase, which ptychography cannot determine, from the object to the probe.
    propagator
        "far-field", or "fresnel" for a detector close behind the sample; torch alone computes that.
    magnification
        Of a cone beam from source to detector, for "fresnel": (source to detector) / (source to sample). 1: parallel.
    coverage_threshold
        An object pixel counts as not measured below this fraction of the largest accumulated probe intensity.
    """

    engine: Literal["auto", "epie", "torch", "ptychi"] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    iterations: int = Field(30, ge=1)
    probe_modes: int = Field(1, ge=1, le=32)
    object_step: float | None = Field(None, gt=0)
    probe_step: float = Field(0.1, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    probe_start: int = Field(1, ge=0)
    batch: int = Field(16, ge=1)
    threads: int = Field(1, ge=1, le=64)
    seed: int = Field(0, ge=0)
    margin: int = Field(8, ge=0)
    defocus_m: float | None = None
    correct_positions: Correction = "none"
    crop: tuple[int, int, int, int] | None = None
    bin: int = Field(1, ge=1)
    remove_ramp: bool = True
    propagator: Literal["far-field", "fresnel"] = "far-field"
    magnification: float = Field(1.0, gt=0)
    coverage_threshold: float = Field(0.02, gt=0, lt=1)

    @property
    def step(self) -> float:
        """The object step; `LARGEST_STEP` where none is chosen yet."""
        return LARGEST_STEP if self.object_step is None else self.object_step

    def for_dose(self, counts_a_pixel: float) -> ReconstructOptions:
        """These options with an object step; of a scan with so many counts in a pixel where counts are."""
        return (
            self
            if self.object_step is not None
            else self.model_copy(update={"object_step": step_for_dose(counts_a_pixel)})
        )

    def reach(self, size: int) -> int:
        """Object pixels around the outermost patch that corrected positions need. Frames are `size` × `size`.

        A position moves by one less at most along an axis.
        """
        return 0 if self.correct_positions == "none" else size // 4
