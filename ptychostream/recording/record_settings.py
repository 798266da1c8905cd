"""Settings of a recording, and the interface of its position source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.positions.positions import PositionSource
from ptychostream.recording.record_metadata import MetadataSettings


class RecordSettings(Settings):
    """Settings of a recording.

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
    select_attribute, select_value
        NTAttribute that tells frames of several kinds apart, such as a detector's thresholds, and its value in those
        that are recorded; empty: all are.
    bit_depth_attribute
        NTAttribute that gives the bits that the detector counts in, kept in the file; empty: none does.
    position_attributes, attributes
        NTAttributes that hold x and y, read where positions come from attributes; further numbers to keep.
    codec
        Codec of the files; "auto" keeps the detector's compression, and uses bslz4 for frames without one.
    threads
        Number of threads that compress and check frames.
    check
        Decompress frames that are kept as they came, so that a damaged one is counted now.
    commit_s
        Seconds between commits; a crash loses at most the frames of that time.
    linger_s, position_wait_s
        Seconds after the end of a scan in which its late frames, and its late positions, are accepted.
    frames, scans, seconds
        Number of frames, scans or seconds after which to stop; None: no limit.
    timeout_s
        Seconds to wait for the first frame; None: no limit.
    metadata
        See `MetadataSettings`.
    """

    queue_size: int = Field(2000, ge=1)
    queue_mb: int = Field(256, ge=1)
    scan_attribute: str = "ScanID"
    scan_id: str = ""
    end_attribute: str = "ScanComplete"
    select_attribute: str = ""
    select_value: str = ""
    bit_depth_attribute: str = "BitDepth"
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
    """A position source, and the subscription that feeds it."""

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
    """A position source that needs no subscription: attributes, a route file."""

    source: PositionSource

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def begin(self, last_frame_s: float) -> None:
        """Nothing to do."""

    def bring(self) -> None:
        """Nothing to do."""
