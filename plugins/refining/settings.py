"""Settings of the live refinement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.reconstruct.positions import Correction


class RefineSettings(Settings):
    """Refinement of the network's phase by iterations, beside the network."""

    enabled: Annotated[bool, Setting(
        "Refine:Enable", "Refine the phase by iterations", group="refine", states=("Disable", "Enable"),
        flag="--refine", help="yes: refine the network's phase by iterations",
    )] = False  # fmt: skip
    """Whether the phase is refined. It takes `budget` of a core, which the network may need."""
    budget: Annotated[float, Setting(
        "Refine:Budget", "Part of a core for the refinement", group="refine", low=0.01,
    )] = Field(0.5, gt=0, le=1)  # fmt: skip
    """Part of one core that it takes, 0 to 1."""
    memory_mb: Annotated[int, Setting(
        "Refine:Memory", "Memory for frames, from the next scan", group="refine", egu="MB",
    )] = Field(256, ge=1, le=1_000_000)  # fmt: skip
    """Memory of the frames. Beyond it frames are left out, evenly over the scanned area."""
    probe: Annotated[Literal["contract", "last", "file"], Setting(
        "Refine:ProbeSource", "Probe to begin with, from the next scan", group="refine",
        states=("Contract", "Last scan", "File"),
    )] = "last"  # fmt: skip
    """Where the first probe comes from: the model's contract; the last refined scan of the same geometry, or the
    contract before one; a reconstruction file."""
    probe_file: Annotated[Path | None, Setting(
        "Refine:ProbeFile", "Reconstruction with the first probe", group="refine",
    )] = None  # fmt: skip
    """Reconstruction whose probe is taken."""
    correct_positions: Annotated[Correction, Setting(
        "Refine:CorrectPositions", "Positions that the refinement corrects", group="refine",
        states=("None", "Global", "Each", "Both"), flag="--refine-positions",
        help="positions that the refinement corrects once a scan is over",
    )] = "none"  # fmt: skip
    """Positions that are corrected once the scan is over: all by one scale, rotation and shear; each by itself, while
    these stay; both. As `correct_positions` of a reconstruction. No position moves by more than a quarter of the
    frame's width in object pixels along an axis."""
    queue_size: int = Field(2000, ge=1)
    """Frames that may wait for the refinement, and of no more bytes than `memory_mb`. Those beyond are counted and not
    taken."""
    rate_hz: float = Field(2.0, gt=0, le=20)
    """Refined images per second, at most."""
