"""The training step killed at any moment: an epoch that it told is not trained again, a finished model is whole."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.benchmarks.kills.place import START_S, Outcome, Place
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps.label_step import label_step
from ptychostream.model.model_file import load_model
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_writer import write_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan
from ptychostream.sim.probe import ZonePlate

_RECIPE = {"epochs": 60, "batch": 20, "learning_rate": 2e-3, "precision": "float32", "bootstrap": None}
_LONGEST_S = 3.0


def run(place: Place, kills: int) -> Outcome:
    """Kill a training so often. One that comes to its end is followed by another."""
    outcome, work = Outcome(), place.folder
    reconstruction = _prepare(work)
    number = epoch = 0
    while outcome.kills < kills:
        name = f"m{number}"
        arguments, result, progress = (work / f"{name}-{what}.json" for what in ("arguments", "result", "progress"))
        arguments.write_text(json.dumps(_arguments(work, reconstruction, name)), encoding="utf-8")
        progress.unlink(missing_ok=True)
        words = ["train", str(arguments), str(result), "--progress", str(progress)]
        with place.victim("ptychostream.hpc_agent.steps", words) as trainer:
            place.wait(lambda at=progress, of=trainer: at.exists() or not of.running(), trainer, START_S, "an epoch")
            if progress.exists():
                first = _read(progress)["epoch"]
                what = f"epoch {epoch} of {name}, and {first} came next"
                outcome.check(what, lambda goes_on=first > epoch: goes_on)
            end = time.monotonic() + place.chance.uniform(0.0, _LONGEST_S)
            while trainer.running() and time.monotonic() < end:
                time.sleep(0.01)
            if trainer.running():
                trainer.send(signal.SIGKILL)
                outcome.kills += 1
            elif not result.exists():
                raise trainer.failure()
        epoch = _read(progress)["epoch"] if progress.exists() else epoch
        if result.exists():
            outcome.check(f"model {name}", lambda at=result: _whole(work, _read(at)["sha256"]))
            number, epoch = number + 1, 0
    return outcome


def _prepare(work: Path) -> Path:
    """A scan, its reconstruction, and a corpus of it."""
    optics = ZonePlate(outermost_zone_m=50e-9)
    simulation = Simulation(size=32, frames=80, step_m=200e-9, optics=optics, dose=1e7)
    scan, truth = simulate_scan(simulation, scan_id="kills")
    write_scan(work / "scan.h5", scan)
    path = work / "reconstruction.h5"
    write_reconstruction(path, replace(truth, errors=np.array([0.01])))
    label_step(
        scan=str(work / "scan.h5"),
        scan_options={},
        key="kills",
        reconstruction=str(path),
        corpus=str(work / "corpus"),
        options={},
    )
    return path


def _arguments(work: Path, reconstruction: Path, name: str) -> dict[str, Any]:
    """Arguments of the training step."""
    folder = work / "trained"
    folder.mkdir(exist_ok=True)
    return {
        "scan": str(work / "scan.h5"),
        "scan_options": {},
        "key": "kills",
        "reconstruction": str(reconstruction),
        "folder": str(folder),
        "corpus": str(work / "corpus"),
        "store": str(work / "models"),
        "name": name,
        "options": _RECIPE,
        "threads": 1,
    }


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _whole(work: Path, sha256: str) -> bool:
    """Whether the store has the model, and it can be read."""
    stored = ModelStore(work / "models").get(sha256)
    return load_model(stored.path).sha256 == sha256
