"""The model contract: what a model expects, where it comes from, and how to check it.

It travels in the ONNX file's `metadata_props` under `CONTRACT_KEY`, or beside a foreign model as
`<name>.json`. Normalisation is in the graph, never here.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychostream.errors import ModelError

CONTRACT_KEY = "ptychostream.model.contract"
CONTRACT_VERSION: Literal[2] = 2
"""What is written; version 1, which has no probe, is read too."""

# A type's name is looked up here, never given to numpy to parse: contracts come from outside.
_DTYPES = {name: kind for kind in map(np.dtype, "?bBhHiIqQefdFD") for name in (kind.str, kind.name)}


class PackedArray(BaseModel):
    """An array as JSON: little-endian bytes in base64, dtype and shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def pack(cls, array: NDArray[Any]) -> PackedArray:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return cls(dtype=little.dtype.str, shape=little.shape, data=base64.b64encode(little.tobytes()).decode())

    def unpack(self) -> NDArray[Any]:
        """The array; raises ModelError when bytes, dtype and shape disagree, or the dtype is foreign."""
        try:
            if self.dtype not in _DTYPES or min(self.shape, default=0) < 0:
                raise ValueError(f"type {self.dtype!r}, shape {self.shape}")
            flat = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=_DTYPES[self.dtype])
            return flat.reshape(self.shape).copy()
        except (ValueError, OverflowError) as error:
            raise ModelError(
                f"packed array does not decode: {error}",
                where="model contract",
                remedy="export the model again",
            ) from error


class Preprocessing(BaseModel):
    """What is done to a frame before the graph, in this order.

    bad pixels to zero → crop (row0, column0, height, width) → bin (sum of b×b) → rot90 (quarter turns,
    counter-clockwise) → flip_lr → flip_ud → fftshift. The result is float32 counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: tuple[int, int, int, int] | None = None
    bin: int = Field(default=1, ge=1)
    rot90: int = Field(default=0, ge=0, le=3)
    flip_lr: bool = False
    flip_ud: bool = False
    fftshift: bool = False
    saturated_is_bad: bool = True
    """A pixel at its dtype's maximum is dead or saturated (DECTRIS and others): zero it."""
    hot_threshold: int | None = Field(default=None, ge=0)
    """Counts above this are a hot pixel: zero it."""
    bad_pixels: PackedArray | None = None
    """[H, W] bool mask of the raw frame, True = bad."""


class Training(BaseModel):
    """Where a model comes from."""

    model_config = ConfigDict(extra="allow", frozen=True)

    scans: list[str] = []
    frames: int = 0
    seed: int | None = None
    created: str = ""
    parents: list[str] = []
    package_versions: dict[str, str] = {}
    validation_loss: float | None = None
    ssim: float | None = None


class GoldenPair(BaseModel):
    """A few inputs and the outputs they must give, within `tolerance` rad rms."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    counts: PackedArray
    dose_scale: float = Field(1.0, gt=0)
    phase: PackedArray
    tolerance: float = Field(0.05, gt=0)


class ModelContract(BaseModel):
    """The contract. Units: eV, metres, radians.

    `input_shape` (H, W) and `output_shape` (h, w) are those of the graph, per frame. One output pixel is
    `object_pixel_m` and the patch's pixel [h//2, w//2] lies at the probe's position.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[1, 2] = CONTRACT_VERSION
    name: str
    network: str = ""
    input_shape: tuple[int, int]
    output_shape: tuple[int, int]
    object_pixel_m: float = Field(gt=0)
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    preprocessing: Preprocessing = Preprocessing()
    patch_weight: PackedArray | None = None
    """[h, w] float32 ≥ 0, the probe's footprint; None weights evenly."""
    probe: PackedArray | None = None
    """[modes, N, M] complex64 on pixels of `object_pixel_m`, its pixel [N//2, M//2] at the probe's position: makes
    `ptychostream.quality.consistency` possible. [N, M] is that of the frame, raw or after crop and bin."""
    parameters: int = 0
    mean_counts: float | None = Field(default=None, ge=0)
    """Mean counts of a training frame, summed over the frame: the dose the model was trained at."""
    training: Training = Training()
    golden: GoldenPair | None = None

    def to_json(self) -> str:
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "model contract") -> ModelContract:
        """Parse and validate. Raises ModelError naming the field that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            newer = _version_beyond(text)
            if newer is not None:
                raise ModelError(
                    f"contract version {newer}, this program reads {CONTRACT_VERSION} and older",
                    where=where,
                    remedy="update ptychostream here, or export the model with the version that runs here",
                ) from error
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "contract"
            raise ModelError(
                f"{field}: {first['msg']}",
                where=where,
                remedy="export the model again with this version of ptychostream, or correct its sidecar",
            ) from error


def _version_beyond(text: str | bytes) -> int | None:
    """The version of a contract that is newer than ours, which explains whatever else is wrong with it."""
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and version > CONTRACT_VERSION else None
