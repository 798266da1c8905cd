"""Configuration of one consumer of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ptychostream.cluster.settings import dotted
from ptychostream.config import Settings, check_place, load_object, load_settings
from ptychostream.errors import ConfigError
from ptychostream.frames.frame_settings import FrameSettings
from ptychostream.model.model_push import read_key
from ptychostream.plugins.engines.settings import EngineSettings
from ptychostream.plugins.pipeline import PipelineSettings
from ptychostream.positions.positions import AttributePositions, AxisConfig, PositionSource, RoutePositions

OF_PVAPY = frozenset(
    {
        "processorId", "inputChannel", "inputMode", "inputArgs", "outputChannel", "outputMode", "outputArgs",
        "objectIdField", "skipInitialUpdates", "objectIdOffset", "nSequentialUpdates", "fieldRequest",
    }
)  # fmt: skip
"""Keys that pvapy-hpc-consumer adds to the processor's arguments."""


class ConsumerInput(FrameSettings):
    """NTAttributes of the frames."""

    scan_attribute: str = "ScanID"
    """NTNDArray attribute that names the scan; empty: the stream names none."""
    end_attribute: str = "ScanComplete"
    """NTNDArray attribute that marks the last frame of a scan; empty: none does."""


class ConsumerPositions(Settings):
    """Where positions come from: each consumer has every position it may need, whichever frames it gets."""

    source: Literal["attributes", "route"] = "attributes"
    """Attributes of the frames, or a file that is written before the scan."""
    x_attribute: str = "PositionX"
    """NTNDArray attribute that holds x."""
    y_attribute: str = "PositionY"
    """NTNDArray attribute that holds y."""
    route_file: Path | None = None
    """Route file (CSV, HDF5) with positions."""
    first_id: int = 0
    """Frame id that the first position of a route belongs to."""
    axes: AxisConfig = AxisConfig()
    own: Annotated[str, AfterValidator(check_place)] = ""
    """A position source of one's own, as "module:Class"; as `positions.own` of the IOC."""

    def make(self) -> PositionSource:
        """The source. Raises ScanFileError when the route cannot be read, ConfigError when none is named."""
        if self.source == "attributes":
            kind = load_object(self.own) if self.own else AttributePositions
            made: PositionSource = kind(self.x_attribute, self.y_attribute, self.axes)
            return made
        if self.route_file is None:
            raise ConfigError("no route file", where="consumer.positions", remedy="name it as route_file")
        return RoutePositions(self.route_file, self.axes, self.first_id)


class ConsumerSettings(Settings):
    """Configuration of a consumer."""

    orders: str = ""
    """PV of the collector's orders, `<prefix>ClusterOrders_RBV`; empty: there is no collector."""
    key_file: Path | None = None
    """File with the cluster's key: reports are signed with it, and orders must be; none: nothing is signed."""
    input: ConsumerInput = ConsumerInput()
    positions: ConsumerPositions = ConsumerPositions()
    model: Path | None = None
    """Model to start with; none: engine None, or the collector's."""
    model_directory: Path | None = None
    """Folder that every model must lie in, after links are resolved; none: anywhere. The collector's, if it has one."""
    engine: EngineSettings = EngineSettings()
    pipeline: PipelineSettings = PipelineSettings()
    dose_scale: float = Field(1.0, gt=0)
    """Factor on the counts until the collector gives another one."""
    state_s: float = Field(1.0, gt=0, le=60)
    """Seconds between two full reports: a consumer that dies loses at most the frames of that time."""
    status_s: float = Field(0.2, gt=0, le=10)
    """Seconds between two reports without a canvas."""
    recall_mib: float = Field(64.0, gt=0)
    """Memory for the last patches: a frame that the distributor has repeated is taken back while its patch is there."""
    codec: Literal["", "lz4", "bslz4", "zlib"] = "bslz4"
    """Compression of the canvas in a state."""

    def key(self) -> bytes | None:
        """The cluster's key; None without one. Raises ConfigError."""
        return read_key(self.key_file, "consumer.key_file")


def consumer_settings(arguments: Mapping[str, Any]) -> ConsumerSettings:
    """Settings from pvapy's processor arguments, which override the TOML file that `config` names.

    Raises
    ------
    ConfigError
        A key is unknown or a value is wrong; the error names the key.
    """
    own = {key: value for key, value in arguments.items() if key not in OF_PVAPY}
    config = own.pop("config", None)
    return load_settings(ConsumerSettings, Path(config) if config else None, dotted(own))
