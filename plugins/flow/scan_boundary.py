"""Settings: what tells scans apart, and what becomes of late frames and finished canvases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.scan_boundary import BoundaryRules


class BoundarySettings(Settings):
    """What tells scans apart, and what becomes of those that are over."""

    boundary: Annotated[Literal["attribute", "pv", "gap"], Setting(
        "ScanBoundary", "What tells one scan from the next", group="canvases", live=False,
        states=("Attribute", "PV", "Gap"), flag="--scan-boundary", help="what tells scans apart",
    )] = "attribute"  # fmt: skip
    """attribute: frames name their scan; pv: a PV says when a scan runs; gap: a pause between frame times."""
    gap_s: Annotated[float, Setting(
        "ScanGap", "Pause that ends a scan, boundary Gap", group="canvases", live=False, egu="s", high=3600,
        flag="--scan-gap", help="seconds between frame times that part two scans, for --scan-boundary gap",
    )] = Field(5.0, gt=0)  # fmt: skip
    """For `gap`: frames whose times are further apart belong to two scans."""
    late: Annotated[Literal["stitch", "drop"], Setting(flag="--late-frames", help="frames of a scan that is over")] = (
        "stitch"
    )
    """Frames of a scan that is over go to its canvas while that is kept, or are counted as Late."""
    late_s: Annotated[float, Setting(
        "LateTime", "How long a finished scan takes frames", group="canvases", live=False, egu="s", prec=1, high=3600,
    )] = Field(10.0, ge=0)  # fmt: skip
    """How long after its end a scan may still take such frames."""
    keep: Annotated[
        int, Setting("KeepCanvases", "Finished canvases that are kept", group="canvases", flag="--keep-canvases")
    ] = Field(4, ge=0, le=100)
    """Finished canvases that are kept."""
    keep_bytes: int = Field(1_000_000_000, ge=0)
    """Memory that they may take together; the oldest go first."""

    @property
    def rules(self) -> BoundaryRules:
        """These settings as the rules for assigning frames to runs."""
        return BoundaryRules(self.boundary, self.gap_s, self.late_s if self.late == "stitch" else None)
