"""How the agent processes scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class WorkSettings:
    """How scans are processed.

    Attributes
    ----------
    folder
        The work folder.
    attempts
        How often a step is tried that failed for a temporary reason, such as a walltime or a lost node.
    reconstruct, train, label, judge
        Options of the steps; see their modules.
    canvases
        The folder where the edge saves its canvases, from which reconstructions start; None: not accessible.
    canvas_wait_s
        How long to wait for a scan's canvas after its completion, where the edge saves one.
    refined
        Whether the edge's refined result may be taken as a scan's reconstruction. It lies in the folder `refined` of
        `canvases`.
    refined_wait_s
        How long to wait until the edge has refined a scan.
    ceiling
        SSIM of a perfect network, below 1 where the reference is noisy; mismatch = ceiling - SSIM.
    keep_scans
        How many reconstructed scans keep their folder.
    """

    folder: Path
    attempts: int = 3
    reconstruct: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    canvases: Path | None = None
    canvas_wait_s: float = 5.0
    refined: bool = False
    refined_wait_s: float = 30.0
    ceiling: float = 1.0
    keep_scans: int = 200
