"""The model contract: the input that a model expects, the origin of the model, and data to check it.

It is stored in the ONNX file's `metadata_props` under `CONTRACT_KEY`, or in `<name>.json` beside a model from
elsewhere. The normalisation is part of the graph and not of the contract.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychostream.config import explain
from ptychostream.errors import ModelError
from ptychostream.statements.description import Description
from ptychostream.statements.quantities import REGION
from ptychostream.statements.radiation import Radiation

CONTRACT_KEY = "ptychostream.model.contract"
CONTRACT_VERSION: Literal[3] = 3
"""The version that is written. Version 1, which has no probe, and version 2, which has no calibration of the error, can
also be read."""

# numpy must not parse the name of a type, because contracts come from outside. Names are looked up here.
_DTYPES = {name: kind for kind in map(np.dtype, "?bBhHiIqQefdFD") for name in (kind.str, kind.name)}


class PackedArray(BaseModel):
    """An array in JSON: little-endian bytes in base64, dtype and shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def pack(cls, array: NDArray[Any]) -> PackedArray:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return cls(dtype=little.dtype.str, shape=little.shape, data=base64.b64encode(little.tobytes()).decode())

    def unpack(self) -> NDArray[Any]:
        """The array. Raises ModelError if bytes, dtype and shape do not fit together or the dtype is unknown."""
        try:
            if self.dtype not in _DTYPES or min(self.shape, default=0) < 0:
                raise ValueError(f"type {self.dtype!r}, shape {self.shape}")
            flat = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=_DTYPES[self.dtype])
            return flat.reshape(self.shape).copy()
        except (ValueError, OverflowError) as error:
            raise ModelError(
                f"packed array cannot be decoded: {error}",
                where="model contract",
                remedy="export the model again",
            ) from error


class Preprocessing(BaseModel):
    """The operations on a frame before the graph, in this order.

    what is not measured to zero → crop (row0, column0, height, width) → bin (sum of b×b) → rot90 (quarter turns,
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
    """Whether a pixel at its dtype's maximum is set to zero, because it is dead or saturated (DECTRIS and others). With
    32 bits or more, that is also the value below the maximum."""
    hot_threshold: int | None = Field(default=None, ge=0)
    """A pixel with more counts is hot and is set to zero."""
    saturation: int | None = Field(default=None, ge=1)
    """A pixel with so many counts or more is saturated and is set to zero."""
    bad_pixels: PackedArray | None = None
    """[H, W] bool mask of the raw frame, True = bad."""


class Training(BaseModel):
    """The origin of a model."""

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
    """A few inputs and the outputs that the model must give for them, within `tolerance` rad rms."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    counts: PackedArray
    dose_scale: float = Field(1.0, gt=0)
    phase: PackedArray
    tolerance: float = Field(0.05, gt=0)

    @classmethod
    def of(cls, counts: NDArray[np.float32], phase: NDArray[np.float32], dose_scale: float = 1.0) -> GoldenPair:
        """A pair of frames [n, H, W] and the phase [n, h, w] that float32 gives for them.

        Whole-numbered frames are kept in the smallest type. The tolerance is a tenth of the phase's standard deviation.
        A sound bfloat16 or float16 engine needs about a tenth of that; another network, or frames in another order,
        differ by many times the tolerance.
        """
        small = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
        return cls(
            counts=PackedArray.pack(small if np.array_equal(small, counts) else counts),
            dose_scale=dose_scale,
            phase=PackedArray.pack(phase),
            tolerance=max(0.1 * float(phase.std()), 2e-3),
        )


class SigmaCalibration(BaseModel):
    """How the error of the stitched phase follows from the spread of the patches (`ptychostream.imaging.sigma`).

    It was found on an area that the training never saw, and belongs to this network and its kind of sample.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    factor: float = Field(ge=0)
    """Common error of all patches, in units of their spread."""
    floor_rad: float = Field(ge=0)
    """Common error that the spread does not show."""
    within_1_sigma: float | None = Field(default=None, ge=0, le=1)
    within_2_sigma: float | None = Field(default=None, ge=0, le=1)
    """Parts of the pixels that lie within one and two σ of the reference. Each half of the area is tested by the factor
    and the floor of the other half."""
    pixels: int = Field(default=0, ge=0)
    """Pixels that were compared."""

    @property
    def numbers(self) -> tuple[float, float]:
        """Factor and floor, as `ptychostream.imaging.sigma.phase_sigma` takes them."""
        return self.factor, self.floor_rad


class ModelContract(BaseModel):
    """The contract. Units: eV, metres, radians.

    `input_shape` (H, W) and `output_shape` (h, w) are the graph's shapes for one frame. `object_pixel_m` is the size of
    an output pixel. The patch's pixel [h//2, w//2] lies at the probe's position.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: Literal[1, 2, 3] = CONTRACT_VERSION
    name: str
    network: str = ""
    input_shape: tuple[int, int]
    output_shape: tuple[int, int]
    object_pixel_m: float = Field(gt=0)
    radiation: Radiation | None = None
    """What the scans were measured with. For electrons `energy_ev` is the accelerating voltage, V. None: not known."""
    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    preprocessing: Preprocessing = Preprocessing()
    patch_weight: PackedArray | None = None
    """[h, w] float32 ≥ 0, the probe's footprint. None: all pixels have the same weight."""
    probe: PackedArray | None = None
    """[modes, N, M] complex64 on pixels of `object_pixel_m`, with pixel [N//2, M//2] at the probe's position.
    `ptychostream.quality.consistency` needs it. [N, M] is the shape of the raw frame, or of the frame after crop and
    bin."""
    parameters: int = 0
    region: dict[str, float | bool] | None = None
    """The region of the sensor, as the first training scan states it: some of `offset_x`, `offset_y`, `binning_x`,
    `binning_y`, `reverse_x`, `reverse_y` (see `ptychostream.statements.quantities`). None: not known."""
    bit_depth: int | None = Field(default=None, ge=1, le=64)
    """Bits that the detector counted in, as the first training scan states it. None: not known."""
    mean_counts: float | None = Field(default=None, ge=0)
    """The mean over the training frames of the counts per frame: the dose that the model was trained at."""
    sigma: SigmaCalibration | None = None
    """None: the error of the phase was never calibrated."""
    training: Training = Training()
    golden: GoldenPair | None = None

    def weight(self) -> NDArray[np.float32]:
        """[h, w] the weight of each patch pixel: `patch_weight`, else ones."""
        return self.patch_weight.unpack() if self.patch_weight else np.ones(self.output_shape, np.float32)

    def said(self, where: str = "") -> Description:
        """What the contract says of the frames that the model expects.

        Parameters
        ----------
        where
            The model, for messages. Empty: its name.
        """
        name = where or f"model {self.name}"
        said = Description(name)
        said.state("radiation", self.radiation, f"{name}: radiation")
        said.state("energy", self.energy_ev, f"{name}: energy_ev")
        said.state("distance", self.distance_m, f"{name}: distance_m")
        said.state("object_pixel", self.object_pixel_m, f"{name}: object_pixel_m")
        for axis in "xy":
            said.state(f"detector_pixel_{axis}", self.detector_pixel_m, f"{name}: detector_pixel_m")
        said.state("bit_depth", self.bit_depth, f"{name}: bit_depth")
        for quantity, value in (self.region or {}).items():
            if quantity in REGION:
                said.state(quantity, value, f"{name}: region.{quantity}")
        return said

    def to_json(self) -> str:
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "model contract") -> ModelContract:
        """Parse and validate. Raises ModelError with the name of the wrong field."""
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
            raise ModelError(
                explain(error),
                where=where,
                remedy="export the model again with this version of ptychostream, or correct its sidecar",
            ) from error


def _version_beyond(text: str | bytes) -> int | None:
    """The version of a contract that is newer than this program's, else None. It explains all other errors."""
    try:
        version = json.loads(text)["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and version > CONTRACT_VERSION else None
