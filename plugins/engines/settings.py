"""Configuration of the inference engine, of whatever process runs one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ptychostream.config import Settings, check_place


class EngineSettings(Settings):
    """The inference engine."""

    name: Literal["Auto", "TensorRT", "TorchCUDA", "OpenVINO", "ONNXRuntime", "Torch", "None"] = "Auto"
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16", "int8"] = "auto"
    cache_dir: Path | None = None
    """Where built engines are kept; the user's cache folder by default."""
    threads: int | None = Field(None, ge=1)
    """Processor cores that a CPU engine may use."""
    frame_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (128, 128)
    """[H, W] of a frame for engine None without a model."""
    pixel_m: float = Field(10e-9, gt=0)
    """Canvas pixel for engine None without a model, metres."""
    own: Annotated[str, AfterValidator(check_place)] = ""
    """An engine of one's own, as "module:Class". With it, Auto means this engine."""

    @property
    def automatic(self) -> str:
        """What `create_engine` is given for Auto."""
        return self.own or "Auto"
