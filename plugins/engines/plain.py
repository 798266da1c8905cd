"""Engine None with a canvas: frames without inference are stitched in place of phase patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.plugins.engines.null import NullEngine

PLAIN = "None"
"""The engine's name in records and configuration."""
_NETWORK = "none"
_HIGHEST_RAD = np.float32(31.0)


class PlainEngine(NullEngine):
    """Engine None with a canvas: counts are clipped to the largest phase of a canvas (±10π rad)."""

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """See `ptychostream.plugins.engines.Engine.infer`."""
        passed = super().infer(counts, dose_scale)
        return np.minimum(passed, _HIGHEST_RAD, out=passed)


def is_plain(contract: ModelContract) -> bool:
    """Whether it is the contract of engine None, which expects nothing of the frames."""
    return contract.network == _NETWORK


def plain_contract(shape: tuple[int, int], pixel_m: float) -> ModelContract:
    """The contract of engine None without a model: unchanged frames on a canvas with pixels of `pixel_m`."""
    return ModelContract(
        name="none", network=_NETWORK, input_shape=shape, output_shape=shape, object_pixel_m=pixel_m,
        preprocessing=Preprocessing(saturated_is_bad=False),
    )  # fmt: skip
