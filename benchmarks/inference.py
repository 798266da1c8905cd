"""`ptychostream bench inference`: compare all available engines.

Shared machines are noisy, so the engines take turns. In each round every engine runs once, in another order, and its
ratio to ONNX Runtime in float32 is computed within the round. The result is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ptychostream.errors import ConfigError, EngineError, ModelError
from ptychostream.hpc_agent.training.architectures import NETWORK_NAMES
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import ModelFile, load_model
from ptychostream.plugins.engines import Engine, create_engine, probe_engines
from ptychostream.plugins.engines.registry import engine_precisions
from ptychostream.processes.hardware import cores, cpu_flags, cpu_name

BASELINE = ("ONNXRuntime", "float32")
BATCHES = (1, 2, 4, 8, 16, 32)
GOLDEN_FRAMES = 4
STATISTICS_PASSES = 30
SEED = 247
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass
class Row:
    """One engine at one batch size.

    `frames_per_second` is the median over rounds, `slowest` and `fastest` are the extremes. `ratio` is the median of
    the ratios within each round. `rms_rad`, `max_rad` and `pearson` compare the phase with that of ONNX Runtime in
    float32, whose standard deviation is `reference_std_rad`.
    """

    network: str
    batch: int
    engine: str
    precision: str
    version: str
    device: str
    frames_per_second: float = 0.0
    slowest: float = 0.0
    fastest: float = 0.0
    ratio: float = 0.0
    rms_rad: float = 0.0
    max_rad: float = 0.0
    pearson: float = 0.0
    reference_std_rad: float = 0.0
    rounds: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench inference`."""
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="batch sizes (default %(default)s)")
    parser.add_argument(
        "--networks", default=",".join(NETWORK_NAMES), help="networks with random weights (default %(default)s)"
    )
    parser.add_argument("--model", type=Path, help="measure this model on its golden frames instead")
    parser.add_argument("--size", type=int, default=128, help="pattern side, pixels (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of each engine's turn (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each engine (default %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="cores that a CPU engine may use (default all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    batches = _integers(arguments.batches)
    networks = [name.strip() for name in arguments.networks.split(",")]
    unknown = sorted(set(networks) - set(NETWORK_NAMES))
    if unknown or arguments.rounds < 1:
        remedy = f"networks are {', '.join(NETWORK_NAMES)}; at least one round"
        raise ConfigError(f"networks {unknown}, rounds {arguments.rounds}", where="bench inference", remedy=remedy)
    rows: list[Row] = []
    absent: dict[str, str] = {}
    turns = Turns(arguments.rounds, arguments.seconds, arguments.threads, absent)
    with Progress(console=Console(file=sys.stderr)) as progress, tempfile.TemporaryDirectory() as folder:
        subjects = [arguments.model] if arguments.model else networks
        task = progress.add_task("bench inference", total=len(subjects) * len(batches))
        for subject in subjects:
            model = load_model(subject) if arguments.model else random_model(subject, arguments.size, Path(folder))
            counts = golden_frames(model, max(batches))
            for batch in batches:
                progress.update(task, description=f"{model.contract.name}, batch {batch}")
                rows += turns.measure(model, counts[:batch])
                progress.advance(task)
    report = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "arguments": {name: str(value) for name, value in vars(arguments).items() if value is not None},
        "machine": {
            "processor": cpu_name(),
            "cores": cores(),
            "instructions": [feature for feature in FEATURES if feature in cpu_flags()],
            "python": platform.python_version(),
        },
        "baseline": dict(zip(("engine", "precision"), BASELINE, strict=True)),
        "results": [asdict(row) for row in rows],
        "absent": absent,
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(rows, absent)
    return 0


def patterns(frames: int, size: int) -> NDArray[np.float32]:
    """Counts [frames, size, size] of random weak phase objects with a defocused probe, about 1e5 per frame."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    probe = np.exp(-8 * (x**2 + y**2)) * np.exp(12j * (x**2 + y**2))
    phase = np.kron(rng.uniform(-0.6, 0.6, (frames, size // 8, size // 8)), np.ones((8, 8)))
    wave = np.fft.fftshift(np.fft.fft2(probe * np.exp(1j * phase), norm="ortho"), axes=(1, 2))
    intensity = np.abs(wave) ** 2
    return rng.poisson(intensity * (1e5 / intensity.sum(axis=(1, 2), keepdims=True))).astype(np.float32)


def random_model(name: str, size: int, folder: Path) -> ModelFile:
    """A model with random weights and the batch statistics of `patterns`, so that no layer is idle or saturated."""
    import torch

    from ptychostream.hpc_agent.corpus.normalisation import Normalisation
    from ptychostream.hpc_agent.training.export import export
    from ptychostream.hpc_agent.training.networks import make_network

    torch.manual_seed(SEED)
    frames = patterns(8, size)
    network = make_network(name, 1, Normalisation(scale=1 / float(frames.mean()), gain=1.0, offset=-0.5))
    network.train()
    with torch.no_grad():
        for _ in range(STATISTICS_PASSES):
            network(torch.from_numpy(frames)[:, None])
    contract = ModelContract(
        name=name, network=name, input_shape=(size, size), output_shape=(size, size), object_pixel_m=1e-8
    )
    path = folder / f"{name}.onnx"
    export(network.eval(), contract, frames[:GOLDEN_FRAMES], path)
    return load_model(path)


def golden_frames(model: ModelFile, frames: int) -> NDArray[np.float32]:
    """The golden frames, repeated."""
    golden = model.contract.golden
    if golden is None:
        raise ModelError("no golden pair", where=str(model.path), remedy="export the model with one")
    counts = golden.counts.unpack().astype(np.float32) * np.float32(golden.dose_scale)
    return np.resize(counts, (frames, *counts.shape[1:]))


@dataclass
class Turns:
    """Measures engines in turns. `absent` has the reasons why engines were left out."""

    rounds: int
    seconds: float
    threads: int | None
    absent: dict[str, str]

    def measure(self, model: ModelFile, counts: NDArray[np.float32]) -> list[Row]:
        """One row per engine and precision."""
        engines = list(self._engines(model, len(counts)))
        rows = [
            Row(model.contract.name, len(counts), engine.name, engine.precision, engine.version, engine.device)
            for engine in engines
        ]
        try:
            phases = {(engine.name, engine.precision): engine.infer(counts).copy() for engine in engines}
            for row in rows:
                _compare(row, phases[row.engine, row.precision], phases.get(BASELINE))
            for round_ in range(self.rounds):
                order = np.random.default_rng(round_).permutation(len(engines))
                for i in order:
                    rows[i].rounds.append(self._rate(engines[i], counts))
        finally:
            for engine in engines:
                engine.close()
        baseline = next((row for row in rows if (row.engine, row.precision) == BASELINE), None)
        for row in rows:
            row.frames_per_second = statistics.median(row.rounds)
            row.slowest, row.fastest = min(row.rounds), max(row.rounds)
            if baseline is not None:
                row.ratio = statistics.median(a / b for a, b in zip(row.rounds, baseline.rounds, strict=True))
        return rows

    def _engines(self, model: ModelFile, batch: int) -> Iterator[Engine]:
        for status in probe_engines():
            if not status.available:
                self.absent[status.name] = status.reason
                continue
            for precision in engine_precisions(status.name):
                try:
                    yield create_engine(status.name, model, batch=batch, precision=precision, threads=self.threads)
                except EngineError as error:
                    self.absent[f"{status.name} {precision}"] = str(error)

    def _rate(self, engine: Engine, counts: NDArray[np.float32]) -> float:
        """Frames per second of one turn. Before it the engine runs a third of that time, so that other threads end."""
        self._calls(engine, counts, self.seconds / 3)
        calls, elapsed = self._calls(engine, counts, self.seconds)
        return calls * len(counts) / elapsed

    @staticmethod
    def _calls(engine: Engine, counts: NDArray[np.float32], seconds: float) -> tuple[int, float]:
        start, calls = time.perf_counter(), 0
        while True:
            engine.infer(counts)
            calls += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return calls, elapsed


def _compare(row: Row, phase: NDArray[np.float32], reference: NDArray[np.float32] | None) -> None:
    if reference is None:
        return
    difference = phase.astype(np.float64) - reference
    row.rms_rad = float(np.sqrt(np.mean(difference**2)))
    row.max_rad = float(np.abs(difference).max())
    row.pearson = float(np.corrcoef(phase.ravel(), reference.ravel())[0, 1])
    row.reference_std_rad = float(reference.std())


def _integers(text: str) -> list[int]:
    try:
        values = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--batches {text}", where="bench inference", remedy="numbers with commas: 1,8") from error
    if min(values) < 1:
        raise ConfigError(f"--batches {text}", where="bench inference", remedy="batches of at least one frame")
    return values


def _print(rows: list[Row], absent: dict[str, str]) -> None:
    table = Table("network", "batch", "engine", "precision", "frames/s", "× ORT float32", "rms, rad", "r")
    for row in sorted(rows, key=lambda r: (r.network, r.batch, -r.frames_per_second)):
        figures: list[Any] = [f"{row.frames_per_second:.0f}", f"{row.ratio:.2f}", f"{row.rms_rad:.2g}"]
        table.add_row(row.network, str(row.batch), row.engine, row.precision, *figures, f"{row.pearson:.5f}")
    console = Console()
    console.print(table)
    for name, reason in absent.items():
        console.print(f"{name}: {reason}")
