"""Reconstruct a scan: check it, prepare it, iterate, and bring the result to the convention."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.geometry import object_pixel_m, wavelength_m
from ptychostream.hpc_agent.reconstruct import gauge, probe
from ptychostream.hpc_agent.reconstruct.engines import Engine, Misfit, Problem, create_engine
from ptychostream.hpc_agent.reconstruct.grid import ObjectGrid
from ptychostream.hpc_agent.reconstruct.options import ReconstructOptions
from ptychostream.hpc_agent.reconstruct.patterns import Patterns
from ptychostream.scan import Reconstruction, Scan

OnIteration = Callable[[int, float], bool | None]

TRIAL_FRAMES, TRIAL_ITERATIONS = 96, 4
"""Of the short reconstructions that search for the defocus."""

DIVERGED = 2.0
"""R factor beyond which, and three times beyond its first value, nothing is being reconstructed any more."""


def reconstruct(
    scan: Scan,
    options: ReconstructOptions,
    *,
    on_iteration: OnIteration | None = None,
    initial_object: NDArray[np.complex64] | None = None,
    initial_probe: NDArray[np.complex64] | None = None,
) -> Reconstruction:
    """Object and probe of `scan` by ePIE (Maiden & Rodenburg 2009, doi 10.1016/j.ultramic.2009.05.012).

    Parameters
    ----------
    scan
        Patterns and positions; frames without a single count are left out.
    options
        See `ReconstructOptions`. The same options and seed give the same result, bit for bit, on one machine.
    on_iteration
        Called after each iteration with its number, from 1, and R factor; returning False ends the reconstruction.
    initial_object
        [Ho, Wo] object to start from, on the grid that the scan and `options.margin` give: that of an earlier
        reconstruction of the same scan.
    initial_probe
        [modes, n, n] probe to start from; else the scan's, else one made from the mean pattern.

    Raises
    ------
    ReconstructionError
        When the scan cannot be reconstructed, an engine is absent, or the iterations diverge.
    """
    patterns = Patterns.read(scan)
    size = patterns.mean.shape[0]
    wavelength = wavelength_m(scan.energy_ev, scan.radiation)
    pixel = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, size, scan.radiation)
    positions = np.asarray(scan.positions_m, np.float64)[patterns.frames]
    grid = ObjectGrid.around(positions, pixel, size, options.margin)
    start = _object(initial_object, grid)
    given = scan.probe if initial_probe is None else initial_probe
    defocus = options.defocus_m
    if given is None:
        area = np.pi * wavelength / (size * pixel) ** 2
        if defocus is None:
            defocus = probe.search_curvature(patterns.mean, _trial(patterns, grid, options)) / area
        given = probe.from_pattern(patterns.mean, defocus * area)
    elif given.ndim != 3 or given.shape[1:] != (size, size):
        raise ReconstructionError(
            f"a probe of shape {given.shape} for frames of {size} × {size}",
            where="probe",
            remedy="give [modes, H, W] of the frames' own size, or none",
        )
    modes = probe.complete(given, options.probe_modes, patterns.power)
    engine = create_engine(Problem(patterns.amplitudes, grid, start, modes), options)
    began = time.perf_counter()
    misfits = _iterate(engine, len(positions), options, on_iteration)
    seconds = time.perf_counter() - began
    result, illumination = engine.result()
    footprint = (np.abs(illumination) ** 2).sum(axis=0)
    object_, final_probe = gauge.fix_gauge(
        result, illumination, grid.accumulate(footprint), options.margin, options.remove_ramp
    )
    return Reconstruction(
        object=object_,
        probe=final_probe,
        origin_m=grid.origin_m,
        pixel_m=pixel,
        positions_m=positions,
        errors=np.array([misfit.r_factor for misfit in misfits]),
        coverage=_coverage(grid, final_probe, options.coverage_threshold),
        scan_id=scan.scan_id,
        engine=engine.name,
        provenance={
            "options": options.model_dump(),
            "frames": len(scan),
            "frames_without_counts": len(scan) - len(positions),
            "defocus_m": defocus,
            "absolute_r_factor": misfits[-1].absolute,
            "seconds_per_iteration": seconds / len(misfits),
        },
    )


def _object(initial: NDArray[np.complex64] | None, grid: ObjectGrid) -> NDArray[np.complex64]:
    if initial is None:
        return np.ones(grid.shape, np.complex64)
    if initial.shape != grid.shape:
        raise ReconstructionError(
            f"an object of {initial.shape} where the scan needs {grid.shape}",
            where="initial object",
            remedy="start from a reconstruction of the same scan, made with the same margin",
        )
    if not np.isfinite(initial).all():
        raise ReconstructionError("the object is not finite", where="initial object", remedy="start without it")
    return initial


def _iterate(engine: Engine, frames: int, options: ReconstructOptions, on_iteration: OnIteration | None) -> list[Misfit]:
    random = np.random.default_rng(options.seed)
    misfits: list[Misfit] = []
    for iteration in range(1, options.iterations + 1):
        misfits.append(engine.iterate(random.permutation(frames), iteration > options.probe_start))
        first, r_factor = misfits[0].r_factor, misfits[-1].r_factor
        if not np.isfinite(r_factor) or r_factor > max(DIVERGED, 3 * first):
            raise ReconstructionError(
                f"diverged: R = {r_factor:.3g} at iteration {iteration}, {first:.3g} at the first",
                where=engine.name,
                remedy="take smaller steps (object_step, probe_step, at most 1), and check positions and probe",
            )
        if on_iteration is not None and on_iteration(iteration, r_factor) is False:
            break
    return misfits


def _trial(patterns: Patterns, grid: ObjectGrid, options: ReconstructOptions) -> Callable[[NDArray[np.complex64]], float]:
    """R factor of a few iterations on the frames around the middle of the scan."""
    from_middle = np.abs(grid.corners - np.median(grid.corners, axis=0)).max(axis=1)
    near = np.sort(np.argsort(from_middle, kind="stable")[:TRIAL_FRAMES])
    part = grid.part(near)
    amplitudes = patterns.amplitudes[near]
    short = options.model_copy(update={"iterations": TRIAL_ITERATIONS, "probe_start": 0})

    def r_factor(start: NDArray[np.complex64]) -> float:
        problem = Problem(amplitudes, part, np.ones(part.shape, np.complex64), probe.complete(start, 1, patterns.power))
        return _iterate(create_engine(problem, short), len(near), short, None)[-1].r_factor

    return r_factor


def _coverage(grid: ObjectGrid, illumination: NDArray[np.complex64], threshold: float) -> NDArray[np.float32]:
    coverage = grid.accumulate((np.abs(illumination) ** 2).sum(axis=0))
    coverage /= coverage.max()
    coverage[coverage < threshold] = 0
    return coverage
