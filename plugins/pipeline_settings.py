"""Configuration of the pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.plugins.flow.decimator import DecimationSettings
from ptychostream.plugins.frame_screen import MeasuredSettings
from ptychostream.processes.bounded import share_of_memory

_SHARE = 0.25


class PipelineSettings(Settings):
    """Configuration of the pipeline."""

    batch: Annotated[int, Setting(
        "BatchSize", "Frames inferred at once", group="timing", egu="frames", high=256, slow=True, readback=False,
        flag="--batch",
    )] = Field(8, ge=1, le=1024)  # fmt: skip
    """Frames in a full batch; never more than the engine's own batch."""
    max_latency_s: Annotated[float, Setting(
        "MaxLatency", "A frame waits for its batch at most", group="timing", egu="ms", scale=1e3, prec=1, high=10_000,
        flag="--max-latency", help="seconds a frame may wait for its batch",
    )] = Field(0.05, ge=0)  # fmt: skip
    """How long a frame may wait for its batch to fill."""
    backlog_batches: int = Field(4, ge=1, le=64)
    """Batches inferred in one call where so many frames wait, up to 128 frames."""
    queue_size: Annotated[int, Setting(
        "QueueSize", "Frames that may wait in the plugin", group="plugin", egu="frames", high=1_000_000,
        readback=False, flag="--queue-size", help="frames that may wait for the engine",
    )] = Field(2000, ge=1)  # fmt: skip
    """Placed frames that may wait for the engine."""
    queue_memory: Annotated[float, Setting(
        "QueueMemory", "Memory of waiting frames; 0: a quarter", group="plugin", egu="MiB", prec=0, high=1e8,
        readback=False, flag="--queue-memory", help="MiB for frames that wait; 0: a quarter of the memory",
    )] = Field(0.0, ge=0, le=1e8)  # fmt: skip
    """Memory for frames that wait, MiB; 0: a quarter of the machine's. The receiver, the wait for positions and the
    wait for the engine have a third each; the receiver's is that of the start."""
    when_full: Annotated[Literal["drop_newest", "drop_oldest"], Setting(
        "DropPolicy", "Which frame goes when the queue is full", group="plugin", states=("Drop newest", "Drop oldest"),
        flag="--when-full",
    )] = "drop_newest"  # fmt: skip
    """Which frame is dropped when the queue is full."""
    decimation: DecimationSettings = DecimationSettings()
    """Patterns left out on purpose."""
    measured: MeasuredSettings = MeasuredSettings()
    """Which pixels and frames are no measurement."""
    join_size: int = Field(4000, ge=1)
    """Frames that may wait for their position."""
    position_wait_s: float = Field(5.0, ge=0)
    """Seconds that frames wait, after the end of their scan, for positions that come as a stream."""
    sigma: Annotated[bool, Setting(
        "SigmaEnable", "Serve the error of the phase", group="images", states=("Disable", "Enable"), flag="--sigma",
        help="yes: accumulate the spread of the patches, and serve PhaseSigma",
    )] = False  # fmt: skip
    """Whether the spread of the patches is accumulated, for `PhaseSigma`: from the next empty canvas on, that is with
    the next scan or `ResetStitch`. The canvas then takes twice the memory. Switched off, it is forgotten at once."""
    max_canvas_pixels: int = Field(64_000_000, ge=1)
    """Largest canvas; a frame beyond it counts as NoPosition."""

    @property
    def memory_bytes(self) -> int:
        """Memory for frames that wait."""
        return int(self.queue_memory * (1 << 20)) or share_of_memory(_SHARE)

    @property
    def waiting_bytes(self) -> int:
        """Memory in each of the three places in which frames wait."""
        return self.memory_bytes // 3
