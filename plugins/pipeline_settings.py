"""Configuration of the pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.plugins.flow.decimator import DecimationSettings


class PipelineSettings(Settings):
    """Configuration of the pipeline."""

    batch: int = Field(8, ge=1, le=1024)
    """Frames in a full batch; never more than the engine's own batch."""
    max_latency_s: float = Field(0.05, ge=0)
    """How long a frame may wait for its batch to fill."""
    backlog_batches: int = Field(4, ge=1, le=64)
    """Batches inferred in one call where so many frames wait, up to 128 frames."""
    queue_size: int = Field(2000, ge=1)
    """Placed frames that may wait for the engine."""
    when_full: Literal["drop_newest", "drop_oldest"] = "drop_newest"
    """Which frame is dropped when the queue is full."""
    decimation: DecimationSettings = DecimationSettings()
    """Patterns left out on purpose."""
    join_size: int = Field(4000, ge=1)
    """Frames that may wait for their position."""
    position_wait_s: float = Field(5.0, ge=0)
    """Seconds that frames wait, after the end of their scan, for positions that come as a stream."""
    max_canvas_pixels: int = Field(64_000_000, ge=1)
