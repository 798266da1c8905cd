"""Checkpoints: the weights before export, for a warm start."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import torch

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.training.networks import Network, make_network
from ptychostream.storage.atomic import write_bytes_atomic


def checkpoint_path(model: str | Path) -> Path:
    """Path of the checkpoint of a model file: `<name>.pt` beside it."""
    return Path(model).with_suffix(".pt")


def save_checkpoint(path: str | Path, network: Network, sha256: str = "") -> None:
    """Write the weights and what is needed to read them, atomically; `sha256` is that of the model exported from them.

    Raises
    ------
    TrainingError
        The file cannot be written.
    """
    buffer = io.BytesIO()
    content = {"network": network.name, "reduction": network.reduction, "sha256": sha256, "state": network.state_dict()}
    torch.save(content, buffer)
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise TrainingError(what, where=str(path), remedy="give a folder that can be written, with room") from error


def load_checkpoint(path: str | Path) -> tuple[Network, str]:
    """The network of a checkpoint, on the CPU, and the sha256 of the model exported from it.

    Only tensors and plain values are read; code is never run.

    Raises
    ------
    TrainingError
        The file is missing, damaged or no checkpoint.
    """
    remedy = "give the .pt file that lies beside a model that `ptychostream train` wrote"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        network = make_network(content["network"], content["reduction"])
        network.load_state_dict(content["state"])
        return network, str(content["sha256"])
    except OSError as error:
        raise TrainingError(error.strerror or str(error), where=str(path), remedy=remedy) from error
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        what = f"not a checkpoint: {str(error).splitlines()[0]}"
        raise TrainingError(what, where=str(path), remedy=remedy) from error
