"""The commands that read a scan file, run on one that a test has damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tiny_model import write_tiny

from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.sim.diffraction import Simulation, simulate_scan

COMMANDS = ("reconstruct", "train", "infer", "replay")


def run_command(command: str, scan: Path, folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Everything else that the command is given is sound; raises subprocess.TimeoutExpired where it hangs."""
    model, made = folder / "tiny.onnx", folder / "made.h5"
    write_tiny(model)
    write_reconstruction(made, simulate_scan(Simulation(frames=4))[1])
    words = {
        "reconstruct": [scan, "--output", folder / "out.h5"],
        "train": [scan, "--reconstruction", made, "--output", folder / "out.onnx"],
        "infer": [scan, model, "--output", folder / "out.h5"],
        "replay": [scan],
    }[command]
    return subprocess.run(
        [sys.executable, "-m", "ptychostream", command, *map(str, words)],
        capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
