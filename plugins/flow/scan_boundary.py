"""Settings: what tells scans apart, and what becomes of late frames and finished canvases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.frames.scan_boundary import BoundaryRules

BOUNDARIES = ("attribute", "pv", "gap")


class BoundarySettings(Settings):
    """What tells scans apart, and what becomes of those that are over."""

    boundary: Literal["attribute", "pv", "gap"] = "attribute"
    """attribute: frames name their scan; pv: a PV says when a scan runs; gap: a pause between frame times."""
    gap_s: float = Field(5.0, gt=0)
    """For `gap`: frames whose times are further apart belong to two scans."""
    late: Literal["stitch", "drop"] = "stitch"
    """Frames of a scan that is over go to its canvas while that is kept, or are counted as Late."""
    late_s: float = Field(10.0, ge=0)
    """How long after its end a scan may still take such frames."""
    keep: int = Field(4, ge=0, le=100)
    """Finished canvases that are kept."""
    keep_bytes: int = Field(1_000_000_000, ge=0)
    """Memory that they may take together; the oldest go first."""

    @property
    def rules(self) -> BoundaryRules:
        """These settings as the rules for assigning frames to runs."""
        return BoundaryRules(self.boundary, self.gap_s, self.late_s if self.late == "stitch" else None)
