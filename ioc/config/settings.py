"""Configuration of the IOC: one TOML file, its sections as below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ptychostream.config import Setting, Settings, check_place
from ptychostream.frames.frame_settings import FrameSettings
from ptychostream.model.model_file import MAX_BYTES
from ptychostream.model.model_push import read_key
from ptychostream.panda.settings import PandaSettings
from ptychostream.plugins.engines.settings import EngineSettings
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.plugins.refining.settings import RefineSettings
from ptychostream.positions.indexed_positions import IndexPositionSettings
from ptychostream.positions.position_gate import GateSettings
from ptychostream.positions.position_stream import StreamPositionSettings
from ptychostream.positions.positions import AxisConfig

if TYPE_CHECKING:
    from ptychostream.plugins.position_receiver import IndexReceiverSettings, PositionReceiverSettings

_USER = r"[A-Za-z0-9_.\-]+"


class InputSettings(FrameSettings):
    """The detector's stream."""

    pv: Annotated[str, Setting(
        "InputPVAName", "PVA channel of the detector to listen to", group="plugin", length=256, flag="--input-pv",
        help="PVA channel of the detector's NTNDArrays", readback_about="PVA channel that is listened to",
    )] = ""  # fmt: skip
    """PVA channel of the detector's NTNDArrays."""
    queue_size: int = Field(2000, ge=1)
    """Updates that may wait on the server's side and in the receiver."""
    scan_attribute: Annotated[str, Setting(flag="--scan-attribute", help="NTNDArray attribute that names the scan")] = (
        "ScanID"
    )
    """NTNDArray attribute that names the scan; empty: the stream names none."""
    end_attribute: Annotated[
        str, Setting(flag="--end-attribute", help="NTNDArray attribute, not 0 in a scan's last frame")
    ] = "ScanComplete"
    """NTNDArray attribute that rises when a scan ends; empty: do not look."""
    energy_pv: Annotated[str, Setting(flag="--energy-pv", help="PV that gives the energy")] = ""
    """PV that gives the energy, compared with that of the model; empty: none."""
    energy_provider: Literal["ca", "pva"] = "ca"
    """Protocol of `energy_pv`."""


class PositionStreamSettings(StreamPositionSettings):
    """A PVA channel of positions by time, and how frames find theirs in it."""

    pv: Annotated[str, Setting(
        "PositionPVAName", "PVA channel of the stream of positions", group="positions", length=256,
        flag="--position-pv", help="PVA channel of a stream of (time, x, y)",
    )] = ""  # fmt: skip
    """PVA channel that gives time, x and y."""
    columns: tuple[str, str, str] = ("time", "x", "y")
    """Names of its fields or table columns."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Unit of its times, since the POSIX epoch."""
    queue_size: int = Field(1000, ge=1)
    """Updates that may wait on the server's side."""

    def receiver(self, channel: str = "", unit: str = "") -> PositionReceiverSettings:
        """How the channel is read; "": `pv`. `unit` is the configured one of x and y."""
        from ptychostream.plugins.position_receiver import PositionReceiverSettings

        return PositionReceiverSettings(
            channel=channel or self.pv,
            columns=self.columns,
            time_unit=self.time_unit,
            unit=unit,
            queue_size=self.queue_size,
        )


class PositionIndexSettings(IndexPositionSettings):
    """A PVA channel of positions by trigger or frame index, and how frames find theirs in it."""

    pv: Annotated[str, Setting(
        "PositionIndexPVName", "PVA channel of positions by index", group="positions", length=256,
        flag="--position-index-pv", help="PVA channel of positions by index: (first index, x[], y[])",
    )] = ""  # fmt: skip
    """PVA channel that gives index, x and y."""
    columns: tuple[str, str, str] = ("index", "x", "y")
    """Names of its fields or table columns: the index of the first sample or of every one, x and y."""
    names: tuple[str, str] = ("scan", "arm")
    """Names of the fields that name the scan, as its frames do, and the arm, by anything that differs from arm to arm.
    A channel need not have them."""
    queue_size: int = Field(1000, ge=1)
    """Updates that may wait on the server's side."""

    def receiver(self, channel: str = "", unit: str = "") -> IndexReceiverSettings:
        """How the channel is read; "": `pv`. `unit` is the configured one of x and y."""
        from ptychostream.plugins.position_receiver import IndexReceiverSettings

        return IndexReceiverSettings(
            channel=channel or self.pv, columns=self.columns, names=self.names, unit=unit, queue_size=self.queue_size
        )


class PositionSettings(Settings):
    """Where positions come from."""

    source: Annotated[Literal["attributes", "waveform", "route", "stream", "index", "panda"], Setting(
        "PositionSource", "Where positions come from", group="scan", flag="--position-source",
        states=("Attributes", "Waveform", "Route", "Stream", "Index", "PandA"),
    )] = "attributes"  # fmt: skip
    x_attribute: Annotated[
        str, Setting("XAttribute", "NTNDArray attribute that holds x", group="scan", length=39, flag="--x-attribute")
    ] = Field("PositionX", min_length=1)
    y_attribute: Annotated[
        str, Setting("YAttribute", "NTNDArray attribute that holds y", group="scan", length=39, flag="--y-attribute")
    ] = Field("PositionY", min_length=1)
    route_file: Annotated[
        Path | None, Setting("RouteFile", "Route file (CSV, HDF5) with positions", group="scan", flag="--route-file")
    ] = None
    own: Annotated[str, AfterValidator(check_place)] = ""
    """A position source of one's own, as "module:Class". With it, the source "attributes" means this one. It is made
    with the names of the two attributes and the axes, as `ptychostream.positions.positions.AttributePositions` is."""
    points: int = Field(100_000, ge=1)
    """Length of the waveforms PositionsX and PositionsY."""
    first_id: Annotated[
        int | None, Setting(flag="--first-id", help="frame id of the first position of a waveform or route")
    ] = None
    """Frame id that the first position of a waveform or route belongs to; none: that of the scan's first frame."""
    axes: AxisConfig = AxisConfig()
    """Unit, swap and signs of what the beamline sends."""
    stream: PositionStreamSettings = PositionStreamSettings()
    index: PositionIndexSettings = PositionIndexSettings()
    """A channel of positions by index; what it says of frames and samples holds for the PandABox too."""
    panda: PandaSettings = PandaSettings()
    gate: GateSettings = GateSettings()
    """Which frames are not stitched though their position is known."""


class ScanSettings(BoundarySettings):
    """Where a scan begins and ends, besides the commands StartScan and EndScan; what becomes of finished ones."""

    active_pv: Annotated[str, Setting(
        "ScanPVName", "PV that is not 0 while a scan runs", group="canvases", length=128, live=False,
        flag="--scan-active-pv",
    )] = ""  # fmt: skip
    """A PV that is not 0 (or not "Idle"/"Done") while the scan runs; it falls when the scan has ended.

    With boundary "pv" its edges are the scans' bounds; else it begins scans of frames that name none, and ends them.
    """
    active_provider: Annotated[
        Literal["ca", "pva"], Setting(flag="--scan-active-provider", help="protocol of that PV")
    ] = "ca"
    """Protocol of `active_pv`."""
    id_pv: Annotated[str, Setting(
        "ScanIDPVName", "PV that names the scan", group="canvases", length=128, live=False, flag="--scan-id-pv",
        help="PV that names the scan, for --scan-boundary pv",
    )] = ""  # fmt: skip
    """A PV with the scan's name or number, written before the other one rises; none: scans are named by their time."""
    id_provider: Literal["ca", "pva"] = "ca"
    """Protocol of `id_pv`."""
    frames: Annotated[int, Setting(
        "ScanFrames", "Frames expected in a scan, 0 = unknown", group="scan", egu="frames", high=100_000_000,
        flag="--scan-frames",
    )] = Field(0, ge=0)  # fmt: skip
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

    directory: Annotated[
        Path | None, Setting("SaveDirectory", "Folder for saved canvases", group="canvases", flag="--save-directory")
    ] = None
    """Folder of saved canvases."""
    automatic: Annotated[bool, Setting(
        "AutoSaveCanvas", "Save every scan when it ends", group="canvases", flag="--save-automatic",
        help="yes: save every scan when it ends",
    )] = False  # fmt: skip
    """Save every scan when it ends."""
    delay_s: float = Field(2.0, ge=0)
    """How long after its end: its last frames may come late."""
    queue_mb: float = Field(256.0, gt=0)
    """Memory of the canvases that wait to be written, MB, and as much of those that could not be."""


class ModelSettings(Settings):
    """The model slot."""

    file: Annotated[Path | None, Setting(
        "ModelFile", "Model file (.onnx) to load", group="model", access="MODEL", readback=False, flag="--model",
        help="model file (.onnx) to start with",
    )] = None  # fmt: skip
    """Model to start with."""
    directory: Annotated[Path | None, Setting(flag="--models-dir", help="folder that every model must lie in")] = None
    """Folder that every model must lie in; none: anywhere, and models cannot be pushed."""
    max_bytes: int = Field(MAX_BYTES, ge=1)
    """Largest model file that is taken, bytes."""
    key_file: Annotated[
        Path | None, Setting(flag="--model-key-file", help="file with the key that pushed models must be signed with")
    ] = None
    """File with the key that pushed models must be signed with; none: access security alone guards the slot."""
    keep: int = Field(10, ge=1)
    """Pushed models that stay in the folder, besides the two in the slot."""


class AgentWatchSettings(Settings):
    """The agent, as the edge sees it, and the operators' switches for it."""

    timeout_s: float = Field(10.0, ge=2)
    """An agent whose heartbeat has stood still for so long is offline, and its lease is over."""
    enabled: Annotated[bool, Setting(
        "Agent:Enable", "The agent may work", group="agent", states=("Disable", "Enable"),
    )] = True  # fmt: skip
    """Whether the agent may work."""
    training: Annotated[Literal["automatic", "always", "never"], Setting(
        "Agent:Policy", "Policy the agent follows", group="agent", states=("Automatic", "Always", "Never"),
    )] = "automatic"  # fmt: skip
    """Train by the mismatch, on every scan that is reconstructed, or only when an operator asks."""
    interval_s: Annotated[float, Setting(
        "Agent:Interval", "Between checks while suspended", group="agent", egu="s", prec=0,
    )] = Field(3600.0, ge=1, le=86400)  # fmt: skip
    """Time between judged scans while the learning is suspended, s."""
    tolerance: Annotated[float, Setting(
        "Agent:Tolerance", "Retrain when 1 - SSIM reaches this", group="agent",
    )] = Field(0.10, ge=0.001, le=1.999)  # fmt: skip
    """Mismatch (1 - SSIM) from which the network is retrained."""
    scans: Annotated[int, Setting(
        "Agent:Scans", "Good scans in a row until Suspended", group="agent", egu="scans",
    )] = Field(3, ge=1, le=1000)  # fmt: skip
    """Scans in a row within tolerance that suspend the learning."""


class AccessSettings(Settings):
    """Access security."""

    mode: Annotated[
        Literal["open", "operators", "locked"] | None,
        Setting(flag="--access", help="who may write: open (everybody), operators (those named), locked (nobody)"),
    ] = None
    """Who may write: "open" (everybody), "operators" (the users below), "locked" (nobody). Not given: "operators" where
    users are named, else "open"."""
    file: Annotated[Path | None, Setting(flag="--access-file", help="access security file of the site's")] = None
    """An access security file of the site's, in place of a mode; it must define the groups of db/access.acf."""
    operators: tuple[Annotated[str, Field(pattern=f"^{_USER}$")], ...] = ()
    """Users that may write setpoints, load models and report as the agent."""
    agents: tuple[Annotated[str, Field(pattern=f"^{_USER}$")], ...] = ()
    """Users that may report as the agent and load models."""
    roots: tuple[Path, ...] = ()
    """Folders that records may name files and folders in. None given: the working directory, unless that is `/`, and
    the folders of the files that this configuration names."""

    @model_validator(mode="after")
    def _one_way(self) -> AccessSettings:
        named = bool(self.operators or self.agents)
        if self.file is not None and (self.mode is not None or named):
            raise ValueError("give either a file or a mode with users")
        if self.mode == "operators" and not named:
            raise ValueError('mode "operators" needs users in access.operators or access.agents')
        if self.mode in ("open", "locked") and named:
            raise ValueError(f'mode "{self.mode}" takes no users')
        return self


class ClusterInput(Settings):
    """Consumers that stitch the frames in this process's place."""

    consumers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Their numbers; none: the frames are stitched here."""
    output: str = "{prefix}consumer:*"
    """Their output channels; `*` is the number, `{prefix}` the records'."""
    dead_after_s: float = Field(5.0, gt=0)
    """A consumer that has not reported for so long counts as dead."""
    key_file: Path | None = None
    """File with the key that the consumers' reports must be signed with, and orders are; none: nothing is signed."""
    settle_s: float = Field(1.0, ge=0)
    """At a scan's end, how long ids that are missing are waited for after the last frame came."""

    def key(self) -> bytes | None:
        """The cluster's key; None without one. Raises ConfigError."""
        return read_key(self.key_file, "cluster.key_file")

    def channel(self, number: int, prefix: str) -> str:
        """Output channel of a consumer."""
        return self.output.replace("{prefix}", prefix).replace("*", str(number))


class IocSettings(Settings):
    """Everything `ptychostream ioc` can be told."""

    prefix: Annotated[str, Setting(flag="--prefix", help="what every record name begins with")] = "ptycho:NN1:"
    """What every record name begins with."""
    input: InputSettings = InputSettings()
    positions: PositionSettings = PositionSettings()
    scan: ScanSettings = ScanSettings()
    save: SaveSettings = SaveSettings()
    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    pipeline: PipelineSettings = PipelineSettings()
    refine: RefineSettings = RefineSettings()
    access: AccessSettings = AccessSettings()
    agent: AgentWatchSettings = AgentWatchSettings()
    dose_scale: Annotated[float, Setting(
        "DoseScale", "Scales the counts for the network", group="quality", prec=4, low=1e-4, high=1e5,
        readback=False, flag="--dose-scale", help="factor on the counts for the network",
    )] = Field(1.0, gt=0)  # fmt: skip
    """Factor on the counts for the network, in mode Manual."""
    dose_mode: Annotated[
        Literal["Manual", "Auto"], Setting("DoseMode", "DoseScale by hand, or for each scan", group="quality")
    ] = "Manual"
    """Manual: `dose_scale` is used. Auto: the scale is chosen for each scan from its first frames."""
    phase_rate_hz: Annotated[float, Setting(
        "PhaseRate", "Images served per second, at most", group="images", egu="Hz", prec=1, low=0.1,
        flag="--phase-rate",
    )] = Field(5.0, gt=0, le=50)  # fmt: skip
    """Images served per second, at most."""
    images_port: Annotated[
        int, Setting(flag="--images-port", help="TCP port of the images and of Model:Load; 0: any free one")
    ] = Field(0, ge=0, le=65535)
    """TCP port of the PVA server of `Phase`, `Weight`, `Patch` and `Model:Load`; 0: any free one. The records' server
    has the port that `EPICS_PVAS_SERVER_PORT` names, 5075 where it names none."""
    update_rate_hz: float = Field(5.0, gt=0, le=20)
    """How often the readbacks are brought up to date."""
    ssim_reference: Annotated[Path | None, Setting(
        "SSIMReference", "Reconstruction file to compare with", group="quality", flag="--ssim-reference",
        help="reconstruction file to compare the canvas with",
    )] = None  # fmt: skip
    """Reconstruction file that the canvas is compared with."""
    ssim_tolerance: Annotated[
        float, Setting("SSIMTolerance", "Alarm when 1 - SSIM1px exceeds this", group="quality")
    ] = Field(0.5, ge=0, le=2)
    """1 - SSIM at one pixel's resolution beyond which the comparison alarms."""
    sigma_limit: Annotated[
        float, Setting("SigmaLimit", "Alarm when SigmaMedian exceeds this", group="images", egu="rad")
    ] = Field(0.3, ge=0, le=10)
    """Median error of the phase beyond which SigmaStatus_RBV alarms, rad."""
    canary_limit: Annotated[
        float, Setting("CanaryLimit", "Refuse a model that differs more; 0: off", group="canary", egu="rad")
    ] = Field(0.0, ge=0, le=10)
    """Rms difference of a new model's phase from the live one's, rad, beyond which it is refused; 0: none."""
    rollback_tolerance: Annotated[
        float, Setting("RollbackTolerance", "Go back when SSIM falls more; 2: never", group="canary")
    ] = Field(0.05, ge=0, le=2)
    """How far a model's SSIM may be below that of the one before it; beyond, the edge goes back to that. 2: never."""
    cluster: ClusterInput = ClusterInput()
    autosave: Annotated[
        Path | None, Setting(flag="--autosave", help="file that keeps the setpoints over a restart")
    ] = None
    """File that keeps the setpoints over a restart; none: they are not kept."""
