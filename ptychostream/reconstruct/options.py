"""What a reconstruction can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptychostream.config import Settings


class ReconstructOptions(Settings):
    """Options of `reconstruct`, the same for every engine.

    Attributes
    ----------
    engine
        "epie" (one position at a time, one CPU core), "torch" (batches, CPU or CUDA), "ptychi" (pty-chi, where it is
        installed), or "auto": torch where there is CUDA, else epie; torch too for frames that epie cannot take.
    device
        "cpu", "cuda", "cuda:1" …, or "auto": CUDA where there is one and the engine can use it.
    iterations
        Passes over all positions.
    probe_modes
        Incoherent probe modes.
    object_step, probe_step
        ePIE's alpha and beta; smaller ones leave less noise, greater ones go faster from a bad start.
    probe_start
        Iterations before the probe is updated too.
    batch
        Positions updated together by the batched engines; epie takes one at a time whatever this says.
    seed
        Of the order of the positions.
    margin
        Object pixels kept free around the outermost patch.
    defocus_m
        Of the probe made when none is given; None searches for it (see `probe.search_defocus`).
    remove_ramp
        Take the linear phase, which ptychography cannot fix, off the object and give it to the probe.
    coverage_threshold
        Object pixels that saw less than this fraction of the greatest accumulated probe intensity are not measured.
    """

    engine: Literal["auto", "epie", "torch", "ptychi"] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    iterations: int = Field(30, ge=1)
    probe_modes: int = Field(1, ge=1, le=32)
    object_step: float = Field(0.5, gt=0)
    probe_step: float = Field(0.1, ge=0)
    probe_start: int = Field(1, ge=0)
    batch: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    margin: int = Field(8, ge=0)
    defocus_m: float | None = None
    remove_ramp: bool = True
    coverage_threshold: float = Field(0.02, gt=0, lt=1)
