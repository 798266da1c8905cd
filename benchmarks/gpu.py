"""`ptychostream bench gpu`: check and measure everything that uses a GPU, with one command.

The machine needs torch, onnx, onnxruntime, h5py and scikit-image, but not EPICS. Each step is a separate command with a
time limit, so that a step that fails or hangs does not affect the others. The output of each step is stored.

Steps
-----
- `doctor`: what is available, and why an engine is not.
- `inference`: every engine and precision with batches of 1 to 32 frames, as in the paper's Table 1.
- `epie`, `epie-cpu`: 40 iterations on a scan of 963 patterns, on the device and on the processor.
- `train`: 50 epochs on that scan. `infer`: the trained model on the device, compared with the reconstruction.
- `tensorrt`: the same by TensorRT, if it is installed.
- `training`: training from the corpus on disk, compared with a simple loop in memory.
- `corpus`: epochs over a corpus as large as the paper's, 108,819 pairs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.gpu_figure import gpu_figure
from ptychostream.benchmarks.measured import say
from ptychostream.errors import ConfigError
from ptychostream.quality.figures import save_figure
from ptychostream.scans.scan_writer import write_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan
from ptychostream.storage.atomic import write_bytes_atomic

PAPER_FRAMES, PAPER_PAIRS, PAPER_EPOCHS, ITERATIONS = 963, 108_819, 50, 40
STEPS = ("doctor", "inference", "epie", "epie-cpu", "train", "infer", "tensorrt", "training", "corpus")


@dataclass(frozen=True)
class Step:
    """A command of ptychostream that prints JSON, and the steps whose files it needs."""

    name: str
    words: Sequence[str]
    needs: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--device", default="cuda", help="device of torch (default %(default)s)")
    parser.add_argument("--engine", default="TorchCUDA", help="engine of the trained model (default %(default)s)")
    parser.add_argument("--steps", default=",".join(STEPS), help="(default %(default)s)")
    parser.add_argument("--frames", type=int, default=PAPER_FRAMES, help="frames of the scan (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="pixels across a pattern (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="iterations of ePIE (default %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=32, help="positions that ePIE updates together (default %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=PAPER_EPOCHS, help="epochs of a training (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=PAPER_PAIRS, help="pairs of the corpus (default %(default)s)")
    parser.add_argument(
        "--limit", type=float, default=300.0, metavar="S", help="time limit of a step (default %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the steps. Returns 1 if one of them failed."""
    asked = [name.strip() for name in arguments.steps.split(",")]
    if unknown := sorted(set(asked) - set(STEPS)):
        raise ConfigError(f"no step {', '.join(unknown)}", where="--steps", remedy=f"from {', '.join(STEPS)}")
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"device": _device(arguments.device), "python": platform.python_version()},
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "steps": {},
    }
    scan = folder / "scan.h5"
    if {"epie", "epie-cpu", "train", "infer", "tensorrt"} & set(asked):
        say(f"simulating {arguments.frames} patterns")
        write_scan(scan, simulate_scan(Simulation(frames=arguments.frames, size=arguments.size, seed=1), "gpu")[0])
    for step in _steps(arguments, scan):
        if step.name in asked:
            report["steps"][step.name] = _run(step, folder, arguments.limit, report["steps"])
            write_bytes_atomic(folder / "report.json", json.dumps(report, indent=1).encode())
    save_figure(gpu_figure(report), folder / "figure.png")
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report["steps"])
    return 1 if any(found["state"] != "done" for found in report["steps"].values()) else 0


def _steps(arguments: argparse.Namespace, scan: Path) -> list[Step]:
    folder, size, device, epochs = arguments.out, arguments.size, arguments.device, arguments.epochs
    epie, model = folder / "epie.h5", folder / "model.onnx"
    recipe = {"epochs": epochs, "simulated": 3, "schedule": "onecycle", "lr": 2e-3}
    corpus = {"pairs": arguments.pairs, "shape": f"{size}x{size}", "epochs": epochs, "seconds": 0.6 * arguments.limit}
    return [
        Step("doctor", _words("doctor")),
        Step("inference", _words("bench", "inference", size=size, rounds=5, seconds=0.15)),
        Step(
            "epie",
            _words("reconstruct", scan, output=epie, engine="torch", device=device, iterations=arguments.iterations,
                   batch=arguments.batch, figure=folder / "epie.png"),
        ),
        Step(
            "epie-cpu",
            _words("reconstruct", scan, output=folder / "epie-cpu.h5", engine="epie", iterations=arguments.iterations),
        ),
        Step(
            "train",
            _words("train", scan, reconstruction=epie, output=model, device=device, figure=folder / "train.png",
                   **recipe),
            ("epie",),
        ),
        Step(
            "infer",
            _words("infer", scan, model, reference=epie, output=folder / "phase.h5", engine=arguments.engine,
                   figure=folder / "infer.png"),
            ("train",),
        ),
        Step(
            "tensorrt",
            _words("infer", scan, model, reference=epie, output=folder / "tensorrt.h5", engine="TensorRT"),
            ("train",),
        ),
        Step("training", _words("bench", "training", sizes=size, batch=64, device=device)),
        Step("corpus", _words("bench", "training", batch=64, device=device, folder=folder, **corpus)),
    ]  # fmt: skip


def _words(*words: object, **options: object) -> list[str]:
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [*map(str, words), *flags, "--json"]


def _run(step: Step, folder: Path, limit_s: float, before: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run a step. Returns `state` (done, failed or passed over), `why`, `seconds`, `command`, and what it `gave`."""
    found: dict[str, Any] = {"command": "ptychostream " + " ".join(step.words)}
    if lacking := [name for name in step.needs if before.get(name, {}).get("state") != "done"]:
        return {**found, "state": "passed over", "why": f"needs {', '.join(lacking)}"}
    say(f"{step.name}: {found['command']}")
    began = time.perf_counter()
    log = folder / f"{step.name}.log"
    try:
        with log.open("wb") as errors:
            ended = subprocess.run(
                [sys.executable, "-m", "ptychostream", *step.words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=limit_s,
                check=False,
            )
        status, printed = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired:
        status, printed = None, b""
    found["seconds"] = time.perf_counter() - began
    if status != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        why = f"not done within {limit_s:g} s" if status is None else f"status {status}: {' '.join(last)}"
        return {**found, "state": "failed", "why": why}
    return {**found, "state": "done", "gave": json.loads(printed)}


def _device(name: str) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"name": name, "torch": torch.__version__}
    if name.startswith("cuda") and torch.cuda.is_available():
        about = torch.cuda.get_device_properties(name)
        found |= {"chip": about.name, "memory_bytes": about.total_memory, "capability": f"{about.major}.{about.minor}"}
    return found


def _print(steps: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "state", "s", "why")
    for name, found in steps.items():
        table.add_row(name, found["state"], f"{found.get('seconds', 0):.1f}", found.get("why", ""))
    Console().print(table)
