"""Runs a stored model in the agent: with torch if its weights are there, else with ONNX Runtime."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import EngineError, ModelError
from ptychostream.hpc_agent.training.checkpoint import load_checkpoint
from ptychostream.hpc_agent.training.devices import choose_device
from ptychostream.hpc_agent.training.export import predict
from ptychostream.model.model_file import Infer, ModelFile, check_golden


def load_network(model: ModelFile, checkpoint: str | Path | None = None, device: str = "auto") -> Infer:
    """A function that runs `model`, after a check of the golden pair.

    Parameters
    ----------
    checkpoint
        The weights; used if they belong to this model.
    device
        Torch device for the weights.

    Raises
    ------
    TrainingError, EngineError, ModelError
        The checkpoint cannot be read, no engine can run the model, or the golden pair is not reproduced.
    """
    infer = None if checkpoint is None else _from_checkpoint(model, checkpoint, device)
    infer = infer or _from_onnx(model)
    if model.contract.golden is not None:
        check_golden(model.contract, infer)
    return infer


def _from_checkpoint(model: ModelFile, checkpoint: str | Path, device: str) -> Infer | None:
    network, sha256 = load_checkpoint(checkpoint)
    if sha256 != model.sha256:
        return None
    return partial(predict, network.to(choose_device(device)))


def _from_onnx(model: ModelFile) -> Infer:
    try:
        import onnxruntime
    except ImportError as error:
        remedy = "pip install onnxruntime, or keep the checkpoint beside the model"
        raise EngineError("ONNX Runtime is not installed", where=str(model.path), remedy=remedy) from error
    try:
        session = onnxruntime.InferenceSession(model.data, providers=onnxruntime.get_available_providers())
    except Exception as error:
        what = f"ONNX Runtime refuses it: {str(error).splitlines()[0]}"
        raise ModelError(what, where=str(model.path), remedy="export the model again") from error

    def infer(counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        frames = counts[:, None]
        if model.fixed_batch is not None:
            frames = np.zeros((model.fixed_batch, *frames.shape[1:]), np.float32)
            frames[: len(counts)] = counts[:, None]
        feeds = {model.counts_input: frames}
        if model.dose_input is not None:
            feeds[model.dose_input] = np.full(model.dose_shape, dose_scale, np.float32)
        elif dose_scale != 1.0:
            feeds[model.counts_input] = frames * np.float32(dose_scale)
        phase: NDArray[np.float32] = session.run([model.phase_output], feeds)[0]
        return phase[: len(counts)].reshape(len(counts), *model.contract.output_shape)

    return infer
