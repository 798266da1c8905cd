"""What the tests of the agent's steps share: a work folder with a small real scan."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_scans import small_scan

from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps import reconstruct_step
from ptychostream.hpc_agent.steps.label_step import label_step
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_writer import write_scan

torch.set_num_threads(1)
Arguments = dict[str, Any]
RECIPE: Arguments = {"epochs": 1, "batch": 20, "learning_rate": 2e-3, "precision": "float32", "bootstrap": None}


def with_scan(folder: Path) -> Path:
    """A work folder with a scan."""
    write_scan(folder / "0.h5", small_scan()[0])
    return folder


def of(work: Path, key: str = "0") -> Arguments:
    return {"scan": str(work / f"{key}.h5"), "scan_options": {}, "key": key}


def folder(work: Path, key: str = "0") -> str:
    return str(work / "scans" / key)


def reconstructed(work: Path, key: str = "0", **more: Any) -> Arguments:
    return reconstruct_step.reconstruct_step(
        **of(work, key), folder=folder(work, key), **{"options": {"iterations": 10}, **more}
    )


def true_reconstruction(work: Path, key: str = "0") -> str:
    """Of the scan, as the simulation has it."""
    path = work / "scans" / key / "reconstruction.h5"
    write_reconstruction(path, replace(small_scan(seed=int(key))[1], errors=np.array([0.01])))
    return str(path)


def labelled(work: Path, key: str = "0", **options: Any) -> Arguments:
    where = {"reconstruction": true_reconstruction(work, key), "corpus": str(work / "corpus")}
    return label_step(**of(work, key), **where, options=options)


def training(work: Path, name: str = "0", **options: Any) -> Arguments:
    """Arguments of the training step."""
    return {
        **of(work),
        "reconstruction": str(work / "scans" / "0" / "reconstruction.h5"),
        "folder": folder(work),
        "corpus": str(work / "corpus"),
        "store": str(work / "models"),
        "name": name,
        "options": {**RECIPE, **options},
    }


@cache
def _trained() -> tuple[bytes, bytes]:
    """A model file and its checkpoint, trained for a while."""
    from tempfile import TemporaryDirectory

    from ptychostream.hpc_agent.training.model_job import train_model
    from ptychostream.hpc_agent.training.training import TrainingOptions

    with TemporaryDirectory() as where:
        options = TrainingOptions(epochs=20, batch=8, learning_rate=2e-3, schedule="onecycle", simulated=2)
        made = train_model([Source(*small_scan())], Path(where, "m.onnx"), options)
        return made.path.read_bytes(), made.checkpoint.read_bytes()


def stored(work: Path) -> str:
    model, weights = work / "m.onnx", work / "m.pt"
    model.write_bytes(_trained()[0])
    weights.write_bytes(_trained()[1])
    return ModelStore(work / "models").add(model, weights, {}, [])
