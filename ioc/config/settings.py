"""Configuration of the IOC: one TOML file, its sections as below."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ptychostream.config import Settings, check_place
from ptychostream.model.model_file import MAX_BYTES
from ptychostream.plugins.engines.settings import EngineSettings
from ptychostream.plugins.pipeline import PipelineSettings
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.positions.position_gate import GateSettings
from ptychostream.positions.position_stream import StreamPositionSettings
from ptychostream.positions.positions import AxisConfig

ENGINES = ("Auto", "TensorRT", "TorchCUDA", "OpenVINO", "ONNXRuntime", "Torch", "None")
"""States of the record Engine, in order."""
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")
"""States of the record Precision, in order."""
POSITION_SOURCES = ("attributes", "waveform", "route", "stream")
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


class PositionStreamSettings(StreamPositionSettings):
    """A PVA channel of positions by time, and how frames find theirs in it."""

    pv: str = ""
    """PVA channel that gives time, x and y."""
    columns: tuple[str, str, str] = ("time", "x", "y")
    """Names of its fields or table columns."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    queue_size: int = Field(1000, ge=1)
    """Updates that may wait on the server's side."""


class PositionSettings(Settings):
    """Where positions come from."""

    source: Literal["attributes", "waveform", "route", "stream"] = "attributes"
    x_attribute: str = "PositionX"
    y_attribute: str = "PositionY"
    route_file: Path | None = None
    own: Annotated[str, AfterValidator(check_place)] = ""
    """A position source of one's own, as "module:Class". With it, the source "attributes" means this one. It is made
    with the names of the two attributes and the axes, as `ptychostream.positions.positions.AttributePositions` is."""
    points: int = Field(100_000, ge=1)
    """Length of the waveforms PositionsX and PositionsY."""
    first_id: int = 0
    """Frame id that the first position of a waveform or route belongs to."""
    axes: AxisConfig = AxisConfig()
    """Unit, swap and signs of what the beamline sends."""
    stream: PositionStreamSettings = PositionStreamSettings()
    gate: GateSettings = GateSettings()
    """Which frames are not stitched though their position is known."""


class ScanSettings(BoundarySettings):
    """Where a scan begins and ends, besides the commands StartScan and EndScan; what becomes of finished ones."""

    active_pv: str = ""
    """A PV that is not 0 (or not "Idle"/"Done") while the scan runs; it falls when the scan has ended.

    With boundary "pv" its edges are the scans' bounds; else it begins scans of frames that name none, and ends them.
    """
    active_provider: Literal["ca", "pva"] = "ca"
    id_pv: str = ""
    """A PV with the scan's name or number, written before the other one rises; none: scans are named by their time."""
    id_provider: Literal["ca", "pva"] = "ca"
    frames: int = Field(0, ge=0)
    """Frames expected in a scan, 0 = unknown."""

    @model_validator(mode="after")
    def _has_its_pvs(self) -> ScanSettings:
        if self.boundary == "pv" and not self.active_pv.strip():
            raise ValueError('boundary = "pv" needs a PV: set active_pv to one that is not 0 while a scan runs')
        if self.id_pv and self.boundary != "pv":
            raise ValueError('id_pv names the scans of boundary = "pv" alone: set that, or remove id_pv')
        if self.boundary == "gap" and self.active_pv:
            raise ValueError('boundary = "gap" takes no active_pv: remove it, or set boundary = "pv"')
        return self


class SaveSettings(Settings):
    """Canvases as files."""

    directory: Path | None = None
    """Folder of saved canvases."""
    automatic: bool = False
    """Save every scan when it ends."""
    delay_s: float = Field(2.0, ge=0)
    """How long after its end: its last frames may come late."""
    queue: int = Field(4, ge=1, le=100)
    """Canvases that may wait to be written, and as many that could not be."""


class ModelSettings(Settings):
    """The model slot."""

    file: Path | None = None
    """Model to start with."""
    directory: Path | None = None
    """Folder that every model must lie in; none: anywhere, and models cannot be pushed."""
    max_bytes: int = Field(MAX_BYTES, ge=1)
    key_file: Path | None = None
    """File with the key that pushed models must be signed with; none: access security alone guards the slot."""
    keep: int = Field(10, ge=1)
    """Pushed models that stay in the folder, besides the two in the slot."""


class AgentWatchSettings(Settings):
    """The agent, as the edge sees it."""

    timeout_s: float = Field(10.0, ge=2)
    """An agent whose heartbeat has stood still for so long is offline, and its lease is over."""


class AccessSettings(Settings):
    """Access security."""

    file: Path | None = None
    """An access security file of the site's; it must define the groups of db/access.acf."""
    operators: tuple[str, ...] = ()
    """Users that may write setpoints; none named: everybody."""
    agents: tuple[str, ...] = ()
    """Users that may report as the agent and load models."""


class ClusterInput(Settings):
    """Consumers that stitch the frames in this process's place."""

    consumers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Their numbers; none: the frames are stitched here."""
    output: str = "{prefix}consumer:*"
    """Their output channels; `*` is the number, `{prefix}` the records'."""
    dead_after_s: float = Field(5.0, gt=0)
    """A consumer that has not reported for so long counts as dead."""
    settle_s: float = Field(1.0, ge=0)
    """At a scan's end, how long ids that are missing are waited for after the last frame came."""

    def channel(self, number: int, prefix: str) -> str:
        """Output channel of a consumer."""
        return self.output.replace("{prefix}", prefix).replace("*", str(number))


class IocSettings(Settings):
    """Everything `ptychostream ioc` can be told."""

    prefix: str = "ptycho:NN1:"
    input: InputSettings = InputSettings()
    positions: PositionSettings = PositionSettings()
    scan: ScanSettings = ScanSettings()
    save: SaveSettings = SaveSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    pipeline: PipelineSettings = PipelineSettings()
    access: AccessSettings = AccessSettings()
    agent: AgentWatchSettings = AgentWatchSettings()
    dose_scale: float = Field(1.0, gt=0)
    dose_mode: Literal["Manual", "Auto"] = "Manual"
    phase_rate_hz: float = Field(5.0, gt=0, le=50)
    update_rate_hz: float = Field(5.0, gt=0, le=20)
    """How often the readbacks are brought up to date."""
    ssim_reference: Path | None = None
    """Reconstruction file that the canvas is compared with."""
    ssim_tolerance: float = Field(0.5, ge=0, le=2)
    """1 - SSIM at one pixel's resolution beyond which the comparison alarms."""
    canary_limit: float = Field(0.0, ge=0, le=10)
    """Rms difference of a new model's phase from the live one's, rad, beyond which it is refused; 0: none."""
    rollback_tolerance: float = Field(0.05, ge=0, le=2)
    """How far a model's SSIM may be below that of the one before it; beyond, the edge goes back to that. 2: never."""
    cluster: ClusterInput = ClusterInput()
    autosave: Path | None = None
    """File that keeps the setpoints over a restart; none: they are not kept."""
