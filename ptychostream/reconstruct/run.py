"""Reconstruct a scan: prepare it, iterate, and fix the gauge of the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DivergedError
from ptychostream.frames.measured_frames import FrameFault
from ptychostream.reconstruct.engines import CreateEngine, Engine, Misfit, epie_engine
from ptychostream.reconstruct.gauge import fix_gauge
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.overlap import overlap
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.reconstruct.positions import LinearMap
from ptychostream.reconstruct.prepare import InitialObject, prepare
from ptychostream.reconstruct.residuals import frame_residuals
from ptychostream.reconstruct.soundness import explained
from ptychostream.scans.scan import Reconstruction, Scan

OnIteration = Callable[[int, float], bool | None]

DIVERGED = 2.0
"""A reconstruction diverges if its R factor exceeds this and three times its first value."""


def reconstruct(
    scan: Scan,
    options: ReconstructOptions,
    *,
    on_iteration: OnIteration | None = None,
    initial_object: InitialObject | None = None,
    initial_probe: NDArray[np.complex64] | None = None,
    create_engine: CreateEngine = epie_engine,
    initial_positions_m: NDArray[np.float64] | None = None,
    patterns: Patterns | None = None,
) -> Reconstruction:
    """Reconstruct object and probe of `scan` by ePIE (Maiden & Rodenburg 2009, doi 10.1016/j.ultramic.2009.05.012).

    Parameters
    ----------
    scan
        Patterns and positions. What is no measurement is left out (see `ptychostream.frames.survey`).
    options
        See `ReconstructOptions`. On one machine the same options and seed give the same result bit for bit.
    on_iteration
        Called after each iteration with its number (from 1) and R factor. If it returns False, the reconstruction ends.
    initial_object
        [Ho, Wo] first object, on the grid that scan and `options.margin` give, from an earlier reconstruction of the
        same scan. Or a function that makes the object for that grid (see `start.object_from_phase`).
    initial_probe
        [modes, n, n] first probe. None takes the scan's probe, or makes one from the mean pattern.
    create_engine
        Makes the engine for a `Problem`. The default is ePIE by numba.
    initial_positions_m
        [N, 2] (x, y) of the frames that are used, from an earlier reconstruction of the same scan, where positions are
        corrected. They are moved by `options.reach` at most from those of the scan.
    patterns
        Of the scan, by the crop and bin of the options, if they were read before. They are the same afterwards, also
        after an error.

    Raises
    ------
    ReconstructionError
        The scan cannot be reconstructed or an engine is absent. DivergedError: the iterations diverge.
    ScanFileError
        The mask of bad pixels cannot be right, or frames cannot be read.
    """
    ready = prepare(scan, options, initial_object, initial_probe, create_engine, initial_positions_m, patterns)
    grid, options = ready.problem.grid, ready.options
    engine = create_engine(replace(ready.problem, in_place=True), options)
    began = time.perf_counter()
    try:
        misfits = _iterate(engine, len(ready.positions_m), options, on_iteration)
        seconds = time.perf_counter() - began
        object_, modes = engine.result()
        corners = engine.corrected()
    finally:
        engine.finish()
    positions, linear = ready.positions_m, None
    if corners is not None:
        grid = grid.at(corners)
        positions = grid.positions_m(modes.shape[-1])
        linear = LinearMap.between(ready.positions_m, positions)
    seen = grid.accumulate((np.abs(modes) ** 2).sum(axis=0))
    # in the near field a shift of object and probe would shift the patterns
    shift = options.margin if ready.problem.transfer is None else 0
    object_, modes = fix_gauge(object_, modes, seen, shift, options.remove_ramp)
    made = Reconstruction(
        object=object_,
        probe=modes,
        origin_m=grid.origin_m,
        pixel_m=grid.pixel_m,
        positions_m=positions,
        errors=np.array([misfit.r_factor for misfit in misfits]),
        coverage=coverage(grid, modes, options.coverage_threshold),
        scan_id=scan.scan_id,
        engine=engine.name,
        frames=ready.frames,
        given_m=None if linear is None else ready.positions_m,
        residuals=frame_residuals(ready.problem.amplitudes, grid.corners, object_, modes, ready.problem.transfer),
        provenance={
            "options": options.model_dump(),
            "frames": len(scan),
            "frames_without_counts": ready.left_out[FrameFault.DARK.value],
            "frames_too_bright": ready.left_out[FrameFault.BRIGHT.value],
            "pixels": ready.survey.report(),
            "defocus_m": ready.defocus_m,
            "positions": None if linear is None else linear.report(),
            "noise_r_factor": ready.noise_r_factor,
            "empty_r_factor": ready.empty_r_factor,
            "explained": explained(misfits[-1].r_factor, ready.empty_r_factor),
            "counts_a_pixel": ready.counts_a_pixel,
            "centre_off_px": list(ready.centre_off_px),
            "radiation": scan.radiation,
            "energy_ev": scan.energy_ev,
            "absolute_r_factor": misfits[-1].absolute,
            "seconds_per_iteration": seconds / len(misfits),
        },
    )
    made.provenance["overlap"] = overlap(made)
    return made


def _iterate(
    engine: Engine, frames: int, options: ReconstructOptions, on_iteration: OnIteration | None
) -> list[Misfit]:
    random = np.random.default_rng(options.seed)
    misfits: list[Misfit] = []
    for iteration in range(1, options.iterations + 1):
        misfits.append(engine.iterate(random.permutation(frames), iteration > options.probe_start))
        first, r_factor = misfits[0].r_factor, misfits[-1].r_factor
        if not np.isfinite(r_factor) or r_factor > max(DIVERGED, 3 * first):
            raise DivergedError(
                f"diverged: R = {r_factor:.3g} at iteration {iteration}, {first:.3g} at the first",
                where=engine.name,
                remedy="take smaller steps (object_step, probe_step, at most 1), and check positions and probe",
            )
        if on_iteration is not None and on_iteration(iteration, r_factor) is False:
            break
    return misfits


def coverage(grid: ObjectGrid, illumination: NDArray[np.complex64], threshold: float) -> NDArray[np.float32]:
    coverage = grid.accumulate((np.abs(illumination) ** 2).sum(axis=0))
    coverage /= coverage.max()
    coverage[coverage < threshold] = 0
    return coverage
