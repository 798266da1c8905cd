"""Configuration of the inference engine, for every process that runs one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ptychostream.config import Setting, Settings, check_place
from ptychostream.processes.bounded import Bounds, share_of_memory


class EngineSettings(Settings):
    """The inference engine."""

    name: Annotated[Literal["Auto", "TensorRT", "TorchCUDA", "OpenVINO", "ONNXRuntime", "Torch", "None"], Setting(
        "Engine", "Inference engine wanted", group="model", access="MODEL", slow=True, flag="--engine",
        readback_about="Inference engine wanted, as accepted",
    )] = "Auto"  # fmt: skip
    """Auto: the fastest engine that works here. None: frames are shown unchanged, without a network."""
    precision: Annotated[Literal["auto", "float32", "tf32", "bfloat16", "float16", "int8"], Setting(
        "Precision", "Arithmetic of the engine wanted", group="model", access="MODEL", slow=True, flag="--precision",
        readback_about="Arithmetic wanted, as accepted",
    )] = "auto"  # fmt: skip
    """auto: the fastest precision with which the model's golden pair passes on this device."""
    cache_dir: Annotated[Path | None, Setting(flag="--engine-cache", help="folder that keeps built engines")] = None
    """Folder of the built engines. The default is the user's cache folder."""
    threads: Annotated[
        Annotated[int, Field(ge=1)] | None, Setting(flag="--threads", help="processor cores of a CPU engine")
    ] = None
    """Number of processor cores that a CPU engine may use. The default is all."""
    frame_shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
        Setting(flag="--frame-shape", help="HxW of a frame, for engine None without a model"),
    ] = (128, 128)
    """[H, W] of a frame for engine None without a model."""
    pixel_m: Annotated[
        float, Setting(flag="--pixel-size", help="canvas pixel in metres, for engine None without a model")
    ] = Field(10e-9, gt=0)
    """Pixel of the canvas for engine None without a model. Metres."""
    trial_s: float = Field(600.0, gt=0)
    """A model is built and tried in a process of its own first. It must be done within this time, s."""
    trial_memory: float = Field(0.5, gt=0, le=1)
    """Share of the machine's memory that this process may take; 1 GiB at least."""
    own: Annotated[str, AfterValidator(check_place)] = ""
    """A user's own engine, as "module:Class". With it, Auto means this engine."""

    @property
    def automatic(self) -> str:
        """What `create_engine` is given for Auto."""
        return self.own or "Auto"

    @property
    def trial_bounds(self) -> Bounds:
        """Limits of the process that tries a model."""
        return Bounds(share_of_memory(self.trial_memory), self.trial_s)
