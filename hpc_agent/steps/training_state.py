"""A training's state on disk. It is written after each epoch, and a training that was killed continues from it."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict
from pathlib import Path

import torch

from ptychostream.hpc_agent.training.training import Epoch, TrainingState
from ptychostream.storage.atomic import cannot_be_written, write_bytes_atomic


def save_state(path: Path, state: TrainingState, task: str) -> None:
    """Write `state` atomically.

    Parameters
    ----------
    task
        Digest of corpus, options and start: a state of another task is not used.

    Raises
    ------
    ScanFileError
        The file cannot be written.
    """
    buffer = io.BytesIO()
    content = {"task": task, "history": [asdict(epoch) for epoch in state.history]}
    torch.save(content | {name: getattr(state, name) for name in ("network", "best", "optimiser")}, buffer)
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        raise cannot_be_written(path, error) from error


def load_state(path: Path, task: str) -> TrainingState | None:
    """The state at `path`; None if it belongs to another task, is missing or cannot be read."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["task"] != task:
            return None
        history = [Epoch(**epoch) for epoch in content["history"]]
        return TrainingState(history, content["network"], content["best"], content["optimiser"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
        return None
