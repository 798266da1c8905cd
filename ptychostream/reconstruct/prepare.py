"""Prepare a scan for an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.frames.survey import Survey
from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.reconstruct import fresnel, probe
from ptychostream.reconstruct.engines import CreateEngine, Problem, epie_engine
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.patterns import Patterns, Window
from ptychostream.reconstruct.soundness import noise_r_factor
from ptychostream.scans.scan import Scan

InitialObject: TypeAlias = "NDArray[np.complex64] | Callable[[ObjectGrid], NDArray[np.complex64]]"
"""[Ho, Wo] first object, or a function that makes it for the scan's grid."""

TRIAL_FRAMES, TRIAL_ITERATIONS = 96, 4
"""The short reconstructions that search for the defocus. Half of the frames are reserved to judge them."""


@dataclass(frozen=True)
class Prepared:
    """A scan ready for an engine.

    Attributes
    ----------
    problem
        Input of the engine.
    positions_m
        [N, 2] (x, y) of the used frames, as the scan says.
    frames
        [N] their indices in the scan.
    defocus_m
        Defocus of the probe made from the patterns. None if a probe was given.
    noise_r_factor
        R factor that comes from counting noise alone (see `soundness.noise_r_factor`).
    empty_r_factor
        R factor of an empty object (see `patterns.Patterns`).
    counts_a_pixel
        Mean counts of a raw pixel where the counts are; sums of pixels say no more of the object.
    centre_off_px
        (rows, columns) from the zero frequency to the middle of the mean pattern.
    options
        With the steps that were chosen.
    survey
        What of the scan is a measurement.
    left_out
        Number of frames that were left out, by `FrameFault` values.
    """

    problem: Problem
    positions_m: NDArray[np.float64]
    frames: NDArray[np.int64]
    defocus_m: float | None
    noise_r_factor: float
    empty_r_factor: float
    counts_a_pixel: float
    centre_off_px: tuple[float, float]
    options: ReconstructOptions
    survey: Survey
    left_out: dict[str, int]


def prepare(
    scan: Scan,
    options: ReconstructOptions,
    initial_object: InitialObject | None = None,
    initial_probe: NDArray[np.complex64] | None = None,
    create_engine: CreateEngine = epie_engine,
    initial_positions_m: NDArray[np.float64] | None = None,
    patterns: Patterns | None = None,
) -> Prepared:
    """Everything before the first iteration. Parameters and errors are those of `reconstruct`."""
    window = Window(options.crop, options.bin)
    if patterns is None:
        patterns = Patterns.read(scan, window)
    counts_a_pixel = patterns.counts_a_pixel / options.bin**2
    options, centre = options.for_dose(counts_a_pixel), patterns.centre_off_px
    size = patterns.mean.shape[0]
    near = None
    if options.propagator == "fresnel":
        patterns, pixel, near = fresnel.near_field(scan, patterns, options)
    else:
        pixel = object_pixel_m(
            scan.energy_ev, scan.distance_m, scan.detector_pixel_m * options.bin, size, scan.radiation
        )
    positions = np.asarray(scan.positions_m, np.float64)[patterns.frames]
    grid = ObjectGrid.around(positions, pixel, size, options.margin + options.reach(size))
    places = None if initial_positions_m is None else _places(initial_positions_m, grid, size)
    start = _object(initial_object, grid)
    own = scan.probe if window == Window() else None
    given = own if initial_probe is None else initial_probe
    defocus = options.defocus_m if given is None and near is None else None
    if given is None and near is not None:
        given = fresnel.probe_from_pattern(patterns.mean, near)
    elif given is None:
        area = np.pi * wavelength_m(scan.energy_ev, scan.radiation) / (size * pixel) ** 2
        if defocus is None:
            some = middle(grid)
            trial = half_of(patterns.amplitudes[some], grid.part(some), patterns.power, options, create_engine)
            defocus = float(probe.search_curvature(patterns.mean, trial) / area)
        given = probe.from_pattern(patterns.mean, defocus * area)
    elif given.ndim != 3 or given.shape[1:] != (size, size):
        raise ReconstructionError(
            f"a probe of shape {given.shape} for frames of {size} × {size}",
            where="probe",
            remedy="give [modes, H, W] of the frames' own size, or none",
        )
    modes = probe.complete(given, options.probe_modes, patterns.power)
    problem = Problem(patterns.amplitudes, grid, start, modes, near, places)
    noise = noise_r_factor(patterns.mean)
    return Prepared(
        problem,
        positions,
        patterns.frames,
        defocus,
        noise,
        patterns.empty_r_factor,
        counts_a_pixel,
        centre_off_px=centre,
        options=options,
        survey=patterns.survey,
        left_out=patterns.left_out,
    )


def _places(positions_m: NDArray[np.float64], grid: ObjectGrid, size: int) -> NDArray[np.float64]:
    if positions_m.shape != grid.corners.shape or not np.isfinite(positions_m).all():
        raise ReconstructionError(
            f"positions of {positions_m.shape} to start from, but the scan has {len(grid.corners)} frames that count",
            where="initial positions",
            remedy="start from a reconstruction of the same scan, or without it",
        )
    return ((positions_m - np.asarray(grid.origin_m)) / grid.pixel_m)[:, ::-1] - size // 2


def _object(initial: InitialObject | None, grid: ObjectGrid) -> NDArray[np.complex64]:
    if initial is None:
        return np.ones(grid.shape, np.complex64)
    if callable(initial):
        initial = initial(grid)
    if initial.shape != grid.shape:
        raise ReconstructionError(
            f"an object of {initial.shape}, but the scan needs {grid.shape}",
            where="initial object",
            remedy="start from a reconstruction of the same scan, made with the same margin",
        )
    if not np.isfinite(initial).all():
        raise ReconstructionError("the object is not finite", where="initial object", remedy="start without it")
    return initial


def middle(grid: ObjectGrid) -> NDArray[np.int64]:
    """Indices of the frames in the middle of the scan that short reconstructions take."""
    from_middle = np.abs(grid.corners - np.median(grid.corners, axis=0)).max(axis=1)
    return np.sort(np.argsort(from_middle, kind="stable")[:TRIAL_FRAMES])


def half_of(
    amplitudes: NDArray[np.float32],
    grid: ObjectGrid,
    power: float,
    options: ReconstructOptions,
    create_engine: CreateEngine,
) -> Callable[[NDArray[np.complex64]], float]:
    """The R factor of half of the frames [N, n, n], for a reconstruction of the others with a probe [modes, n, n].

    The R factor of the reconstructed frames themselves would prefer a probe so small that no two frames overlap.
    """
    seen, unseen = np.arange(0, len(amplitudes), 2), np.arange(1, len(amplitudes), 2)
    simple = options.model_copy(update={"correct_positions": "none", "momentum": 0.0})

    def r_factor(start: NDArray[np.complex64]) -> float:
        modes = probe.complete(start, 1, power)
        engine = create_engine(Problem(amplitudes, grid, np.ones(grid.shape, np.complex64), modes), simple)
        for _ in range(TRIAL_ITERATIONS):
            engine.iterate(seen, True)
        return engine.iterate(unseen, False).r_factor

    return r_factor
