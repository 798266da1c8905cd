"""Reconstruction with every engine: ePIE by numba, torch on CUDA, pty-chi."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.hpc_agent.reconstruct.choice import create_engine
from ptychostream.reconstruct import run
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.reconstruct.prepare import InitialObject
from ptychostream.reconstruct.run import OnIteration
from ptychostream.scans.scan import Reconstruction, Scan

__all__ = ["ReconstructOptions", "reconstruct"]


def reconstruct(
    scan: Scan,
    options: ReconstructOptions,
    *,
    on_iteration: OnIteration | None = None,
    initial_object: InitialObject | None = None,
    initial_probe: NDArray[np.complex64] | None = None,
    initial_positions_m: NDArray[np.float64] | None = None,
    patterns: Patterns | None = None,
) -> Reconstruction:
    """As `ptychostream.reconstruct.run.reconstruct`, by the engine and on the device that `options` name."""
    return run.reconstruct(
        scan,
        options,
        on_iteration=on_iteration,
        initial_object=initial_object,
        initial_probe=initial_probe,
        create_engine=create_engine,
        initial_positions_m=initial_positions_m,
        patterns=patterns,
    )
