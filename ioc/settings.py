"""Configuration of the IOC: one TOML file, its sections as below."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.model_file import MAX_BYTES
from ptychostream.plugins.pipeline import PipelineSettings
from ptychostream.positions import AxisConfig

ENGINES = ("Auto", "TensorRT", "TorchCUDA", "OpenVINO", "ONNXRuntime", "Torch", "None")
"""States of the record Engine, in order."""
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")
"""States of the record Precision, in order."""
POSITION_SOURCES = ("attributes", "waveform", "route")
"""States of the record PositionSource, in order."""


class InputSettings(Settings):
    """The detector's stream."""

    pv: str = ""
    """PVA channel of the detector's NTNDArrays."""
    queue_size: int = Field(2000, ge=1)
    """Updates that may wait on the server's side and in the receiver."""
    scan_attribute: str = "ScanID"
    """NTNDArray attribute that names the scan; empty: the stream names none."""
    end_attribute: str = "ScanComplete"
    """NTNDArray attribute that is not 0 in the last frame of a scan; empty: do not look."""


class PositionSettings(Settings):
    """Where positions come from."""

    source: Literal["attributes", "waveform", "route"] = "attributes"
    x_attribute: str = "PositionX"
    y_attribute: str = "PositionY"
    route_file: Path | None = None
    points: int = Field(100_000, ge=1)
    """Length of the waveforms PositionsX and PositionsY."""
    first_id: int = 0
    """Frame id that the first position of a waveform or route belongs to."""
    axes: AxisConfig = AxisConfig()
    """Unit, swap and signs of what the beamline sends."""


class ScanSettings(Settings):
    """How the end of a scan is known, besides the command EndScan."""

    active_pv: str = ""
    """A PV that is not 0 (or not "Idle"/"Done") while the scan runs; it falls when the scan has ended."""
    active_provider: Literal["ca", "pva"] = "ca"
    frames: int = Field(0, ge=0)
    """Frames expected in a scan, 0 = unknown."""


class ModelSettings(Settings):
    """The model slot."""

    file: Path | None = None
    """Model to start with."""
    directory: Path | None = None
    """Folder that every model must lie in; none: anywhere."""
    max_bytes: int = Field(MAX_BYTES, ge=1)


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


class AccessSettings(Settings):
    """Access security."""

    file: Path | None = None
    """An access security file of the site's; it must define the groups of db/access.acf."""
    operators: tuple[str, ...] = ()
    """Users that may write setpoints; none named: everybody."""
    agents: tuple[str, ...] = ()
    """Users that may report as the agent and load models."""


class IocSettings(Settings):
    """Everything `ptychostream ioc` can be told."""

    prefix: str = "ptycho:NN1:"
    input: InputSettings = InputSettings()
    positions: PositionSettings = PositionSettings()
    scan: ScanSettings = ScanSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    pipeline: PipelineSettings = PipelineSettings()
    access: AccessSettings = AccessSettings()
    dose_scale: float = Field(1.0, gt=0)
    dose_mode: Literal["Manual", "Auto"] = "Manual"
    phase_rate_hz: float = Field(5.0, gt=0, le=50)
    update_rate_hz: float = Field(5.0, gt=0, le=20)
    """How often the readbacks are brought up to date."""
    ssim_reference: Path | None = None
    """Reconstruction file that the canvas is compared with."""
    ssim_tolerance: float = Field(0.5, ge=0, le=2)
    """1 - SSIM at one pixel's resolution beyond which the comparison alarms."""
    autosave: Path | None = None
    """File that keeps the setpoints over a restart; none: they are not kept."""
