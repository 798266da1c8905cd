"""`ptychostream bench reconstruction`: seconds per iteration and error of every engine, on the same scan in one run."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import fft

from ptychostream.hpc_agent.reconstruct.choice import create_engine
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.quality import compare
from ptychostream.reconstruct.engines import Engine, Misfit, Norms, Problem
from ptychostream.reconstruct.gauge import fix_gauge
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.prepare import prepare
from ptychostream.reconstruct.run import coverage
from ptychostream.sim.diffraction import Simulation, simulate_scan

BATCHES = {"torch": 16, "ptychi": 96}
"""Batch sizes for the batched engines on a CPU. For pty-chi it is the fastest of those that were tried."""


STEPS = {"ptychi": (0.1, 0.1)}
"""pty-chi's own steps. It adds the updates of a batch, and diverges with the steps for one position at a time."""


class PlainEngine:
    """A direct implementation of ePIE: scipy's FFT, one position at a time. See `engines.Engine`."""

    name = "plain"

    def __init__(self, problem: Problem, options: ReconstructOptions) -> None:
        self._amplitudes, self._corners = problem.amplitudes, problem.grid.corners
        self._object, self._probe = problem.object.copy(), problem.probe.copy()
        self._steps = np.float32(options.step), np.float32(options.probe_step)
        self._norms = Norms.of(problem.amplitudes)

    def iterate(self, order: NDArray[np.int64], update_probe: bool) -> Misfit:
        size = self._probe.shape[-1]
        squared, absolute = 0.0, 0.0
        for index in order:
            row, column = self._corners[index]
            patch = self._object[row : row + size, column : column + size]
            measured, probe = self._amplitudes[index], self._probe
            far = fft.fft2(probe * patch, norm="ortho")
            modulus = np.sqrt((far.real**2 + far.imag**2).sum(axis=0))
            lacking = np.where(measured >= 0, measured - modulus, np.float32(0))
            squared += float((lacking**2).sum())
            absolute += float(np.abs(lacking).sum())
            change = fft.ifft2(far * (lacking / (modulus + np.float32(1e-10))), norm="ortho")
            step = self._steps[0] / (probe.real**2 + probe.imag**2).sum(axis=0).max()
            correction = step * (probe.conj() * change).sum(axis=0)
            if update_probe:
                self._probe = probe + self._steps[1] / (patch.real**2 + patch.imag**2).max() * patch.conj() * change
            patch += correction
        return self._norms.misfit(squared, absolute)

    def result(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        return self._object, self._probe

    def corrected(self) -> None:
        """Positions stay as they were given."""

    def finish(self) -> None:
        """The amplitudes were not changed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, default=963, help="positions of the scan (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="pixels across a frame (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=10, help="iterations of each engine (default %(default)s)")
    parser.add_argument("--modes", type=int, default=1, help="probe modes (default %(default)s)")
    parser.add_argument("--torch", action="store_true", help="measure the torch engine too, with CUDA if there is one")
    parser.add_argument(
        "--ptychi",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure pty-chi too (default: if it is installed)",
    )
    parser.add_argument(
        "--sizes", metavar="N,N,…", help="instead: nanoseconds per pixel of frames of these sizes, one beside the other"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.sizes:
        sizes = [int(size) for size in arguments.sizes.split(",")]
        return _sizes(sizes, arguments.iterations, arguments.torch, arguments.json)
    with_ptychi = arguments.ptychi
    if with_ptychi is None:
        with_ptychi = importlib.util.find_spec("ptychi") is not None
    engines = ["epie", "plain"] + ["torch"] * arguments.torch + ["ptychi"] * with_ptychi
    result = measure(engines, arguments.frames, arguments.size, arguments.iterations, arguments.modes)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)
    return 0


def measure(engines: list[str], frames: int, size: int, iterations: int, modes: int = 1) -> dict[str, Any]:
    """Measure every engine on the same simulated scan, from the same start. They take turns after each iteration.

    Returns
    -------
    Per engine: seconds per iteration (median and smallest), the R factor in the last iteration, `absolute_r_factor`
    (see `engines.Misfit`), and the similarity of the phase to the true sample (see `quality.compare`).
    `times_faster_than`: how many times epie is faster than each other engine, the median of the ratios within each
    turn.
    """
    scan, truth = simulate_scan(Simulation(frames=frames, size=size, seed=1), "bench")
    scan.probe = None
    options = ReconstructOptions(probe_modes=modes, iterations=iterations, device="cpu")
    ready = prepare(scan, options, create_engine=create_engine)
    few = _few(ready.problem)
    running: dict[str, Engine] = {}
    seconds: dict[str, list[float]] = {}
    last: dict[str, Misfit] = {}
    for name in engines:
        _engine(name, few, options).iterate(np.arange(len(few.amplitudes)), True)  # compiles
        running[name], seconds[name] = _engine(name, ready.problem, options), []
    random = np.random.default_rng(options.seed)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("reconstructing", total=iterations)
        for iteration in range(1, iterations + 1):
            order = random.permutation(frames)
            for name, engine in running.items():
                progress.update(task, description=engine.name)
                began = time.perf_counter()
                last[name] = engine.iterate(order, iteration > options.probe_start)
                seconds[name].append(time.perf_counter() - began)
            progress.advance(task)
    reference = truth.phase_image()
    rows = {}
    for name, engine in running.items():
        quality = compare(phase_of(engine, ready.problem, options), reference)
        rows[name] = {
            "engine": engine.name,
            "batch": BATCHES.get(name, 1),
            "steps": _steps(name, options),
            "seconds_per_iteration": statistics.median(seconds[name]),
            "least_seconds": min(seconds[name]),
            "r_factor": last[name].r_factor,
            "absolute_r_factor": last[name].absolute,
            "ssim_to_truth": quality.ssim,
            "pearson_to_truth": quality.pearson,
        }
    turns = {name: [other / own for other, own in zip(seconds[name], seconds["epie"], strict=True)] for name in engines}
    return {
        "frames": frames,
        "size": size,
        "probe_modes": modes,
        "iterations": iterations,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "engines": rows,
        "times_faster_than": {name: statistics.median(turns[name]) for name in engines if name != "epie"},
    }


def _sizes(sizes: list[int], turns: int, with_torch: bool, as_json: bool) -> int:
    result = measure_sizes(sizes, turns, with_torch)
    if as_json:
        print(json.dumps(result, indent=2))
        return 0
    table = Table("size", *result["engines"], "times a power of two", title="nanoseconds per pixel of a frame and pass")
    for row in result["sizes"]:
        costs = [f"{cost:.2f}" for cost in row["ns_per_pixel"].values()]
        table.add_row(str(row["size"]), *costs, f"{row['times_power_of_two']:.2f}")
    Console().print(table)
    return 0


def measure_sizes(sizes: list[int], turns: int, with_torch: bool = False) -> dict[str, Any]:
    """The cost of an ePIE pass over frames of each size, per pixel. The sizes take turns.

    Returns
    -------
    `sizes`: for each, the median of nanoseconds per pixel of each engine, and `times_power_of_two`: the ratio of epie's
    to the mean of the powers of two below and above it, each turn by itself, the median of the turns.
    """
    around = {size: (1 << (size.bit_length() - 1), 1 << (size - 1).bit_length()) for size in sizes}
    engines = ["epie"] + ["torch"] * with_torch
    seconds: dict[tuple[str, int], list[float]] = {}
    running = {}
    for size in sorted({*sizes, *(other for pair in around.values() for other in pair)}):
        problem = _noise(size)
        for name in engines if size in sizes else ["epie"]:
            running[name, size] = _engine(name, problem, ReconstructOptions(device="cpu"))
            running[name, size].iterate(np.arange(len(problem.amplitudes)), True)
            seconds[name, size] = []
    for _ in range(turns):
        for (name, size), engine in running.items():
            frames = _frames(size)
            began = time.perf_counter()
            engine.iterate(np.arange(frames), True)
            seconds[name, size].append((time.perf_counter() - began) / (frames * size**2) * 1e9)
    rows = []
    for size in sizes:
        below, above = (seconds["epie", other] for other in around[size])
        ratios = [2 * own / (a + b) for own, a, b in zip(seconds["epie", size], below, above, strict=True)]
        costs = {name: statistics.median(seconds[name, size]) for name in engines}
        rows.append({"size": size, "ns_per_pixel": costs, "times_power_of_two": statistics.median(ratios)})
    return {"engines": engines, "turns": turns, "machine": platform.machine(), "sizes": rows}


def _frames(size: int) -> int:
    """As many frames of `size` as have the pixels of 48 of 128 × 128, and at least 4."""
    return max(4, 48 * 128**2 // size**2)


def _noise(size: int) -> Problem:
    """Frames that are no pictures of anything: what a pass costs does not depend on what is in them."""
    random, frames = np.random.default_rng(size), _frames(size)
    positions = random.uniform(0, 100e-9, (frames, 2))
    grid = ObjectGrid.around(positions, 1e-9, size, 8)
    amplitudes = random.uniform(0, 10, (frames, size, size)).astype(np.float32)
    probe = random.standard_normal((1, size, size, 2)).astype(np.float32).view(np.complex64)[..., 0]
    return Problem(amplitudes, grid, np.ones(grid.shape, np.complex64), probe)


def _engine(name: str, problem: Problem, options: ReconstructOptions) -> Engine:
    if name == "plain":
        return PlainEngine(problem, options)
    object_step, probe_step = _steps(name, options)
    changes = {"engine": name, "batch": BATCHES.get(name, 1), "object_step": object_step, "probe_step": probe_step}
    return create_engine(problem, options.model_copy(update=changes))


def _steps(name: str, options: ReconstructOptions) -> tuple[float, float]:
    return STEPS.get(name, (options.step, options.probe_step))


def _few(problem: Problem) -> Problem:
    """The same problem with a few patterns."""
    some = np.arange(8)
    return replace(problem, amplitudes=problem.amplitudes[some], grid=problem.grid.part(some))


def phase_of(engine: Engine, problem: Problem, options: ReconstructOptions) -> PhaseImage:
    """The phase of an engine's current object, with fixed gauge."""
    object_, modes = engine.result()
    grid = problem.grid
    seen = grid.accumulate((np.abs(modes) ** 2).sum(axis=0))
    object_, modes = fix_gauge(object_, modes, seen, options.margin, True)
    weight = coverage(grid, modes, options.coverage_threshold)
    phase = np.where(weight > 0, np.angle(object_), np.nan).astype(np.float32)
    return PhaseImage(phase, weight, grid.origin_m, grid.pixel_m)


def _show(result: dict[str, Any]) -> None:
    scan = f"{result['frames']} × {result['size']}×{result['size']}, {result['probe_modes']} mode(s)"
    table = Table("engine", "s / iteration", "times slower", "R factor", "SSIM to truth", title=scan)
    for name, row in result["engines"].items():
        ratio = result["times_faster_than"].get(name, 1.0)
        figures = f"{row['seconds_per_iteration']:.3f}", f"{ratio:.1f}", f"{row['r_factor']:.5f}"
        table.add_row(row["engine"], *figures, f"{row['ssim_to_truth']:.3f}")
    Console().print(table)
