"""The last check of an engine before it becomes live: shapes, one run, and the model's golden pair."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ModelError
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import check_golden
from ptychostream.plugins.engines.base import Engine

log = logging.getLogger(__name__)


def check_engine(engine: Engine, contract: ModelContract, golden: bool = True) -> None:
    """Check the shapes, run the engine once, and check the golden pair unless `golden` is False.

    Raises
    ------
    ModelError
        A check failed.
    """
    if tuple(engine.input_shape) != contract.input_shape or tuple(engine.output_shape) != contract.output_shape:
        raise ModelError(
            f"the engine takes {tuple(engine.input_shape)} and gives {tuple(engine.output_shape)}, "
            f"its contract says {contract.input_shape} and {contract.output_shape}",
            where=contract.name,
            remedy="export the model again",
        )

    def infer(counts: NDArray[np.float32], dose_scale: float) -> NDArray[np.float32]:
        parts = [counts[start : start + engine.batch] for start in range(0, len(counts), engine.batch)]
        return np.concatenate([engine.infer(part, dose_scale).copy() for part in parts])

    phase = infer(np.zeros((1, *contract.input_shape), np.float32), 1.0)
    if phase.shape != (1, *contract.output_shape):
        raise ModelError(
            f"a frame comes out as {phase.shape}, its contract says {contract.output_shape}",
            where=contract.name,
            remedy="export the model again",
        )
    if golden:
        rms = check_golden(contract, infer)
        if contract.golden is not None:
            log.info("golden pair of %s passed on %s: %.2g rad rms", contract.name, engine.name, rms)
