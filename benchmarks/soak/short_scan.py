"""What the detector of `bench short-scans` sends."""

from __future__ import annotations

from pydantic import Field

from ptychostream.config import Settings

CHANNEL = "short:det:Image"
PIXEL_M = 10e-9
START_S = 120.0


class ShortScans(Settings):
    """Scans of a few frames."""

    scans: int = Field(2000, ge=1)
    frames: int = Field(8, ge=1)
    rate_hz: float = Field(40.0, gt=0)
    """Scans per second."""
    side: int = Field(64, ge=8)
