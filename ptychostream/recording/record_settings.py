"""What a recording is told, and what brings its positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.positions.positions import PositionSource
from ptychostream.recording.record_metadata import MetadataSettings


class RecordSettings(Settings):
    """What is recorded, and until when.

    Attributes
    ----------
    queue_size, queue_mb
        Frames held on the server's side, and as many on this; MiB of them, as they came, that may wait for the
        threads here.
    scan_attribute, scan_id
        NTAttribute that names the scan; the id of frames that name none.
    end_attribute
        NTAttribute of the scan's last frame: a number other than 0, or a text such as "true" (see
        `ptychostream.frames.idle.ends_scan`).
    position_attributes, attributes
        NTAttributes that hold x and y, read where positions come from attributes; further numbers to keep.
    codec
        Of the files; "auto" keeps what the detector has compressed, and takes bslz4 for what it has not.
    threads
        That compress, and check.
    check
        Decompress frames that are kept as they came, so that a damaged one is counted now.
    commit_s
        Seconds between commits: what a crash costs at most.
    linger_s, position_wait_s
        For how long after a scan's end its late frames, and its late positions, are waited for.
    frames, scans, seconds
        Where to stop; None: nowhere.
    timeout_s
        For how long to wait for the first frame; None: for ever.
    metadata
        See `MetadataSettings`.
    """

    queue_size: int = Field(2000, ge=1)
    queue_mb: int = Field(256, ge=1)
    scan_attribute: str = "ScanID"
    scan_id: str = ""
    end_attribute: str = "ScanComplete"
    position_attributes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    codec: Literal["auto", "none", "lz4", "bslz4", "blosc", "zlib"] = "auto"
    threads: int = Field(2, ge=1)
    check: bool = True
    commit_s: float = Field(1.0, gt=0)
    linger_s: float = Field(0.5, ge=0)
    position_wait_s: float = Field(5.0, ge=0)
    frames: int | None = Field(None, ge=1)
    scans: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    timeout_s: float | None = Field(None, gt=0)
    metadata: MetadataSettings = MetadataSettings()


class PositionFeed(Protocol):
    """Positions, and what brings them here."""

    @property
    def source(self) -> PositionSource: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def begin(self, last_frame_s: float) -> None:
        """A scan begins; the last frame of the one before arrived then, POSIX time."""
        ...

    def bring(self) -> None:
        """Hand what has come to the source; in the thread that asks it."""
        ...


@dataclass(frozen=True)
class StillPositions:
    """A source that needs nothing to be brought: attributes, a route file."""

    source: PositionSource

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def begin(self, last_frame_s: float) -> None:
        """Nothing to do."""

    def bring(self) -> None:
        """Nothing to do."""
