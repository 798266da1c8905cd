"""What an IOC asks of whatever stitches its frames: its own `Pipeline`, or the `Collector` of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot, Stitched
from ptychostream.plugins.mosaic import RunCanvas
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.plugins.scan_dose import ScanDose
from ptychostream.plugins.stage_times import StageTimes
from ptychostream.positions.positions import PositionSource


class FrameSource(Protocol):
    """Figures, canvases and commands of the frames' processing. Every method may be called from any thread.

    Attributes
    ----------
    dose_scale
        Factor by which the model is told that its counts were scaled, where it is not chosen for each scan.
    on_finished
        Called for each run that has ended, with its figures and its canvas (None where there is none); again when
        frames came after that. It must not block.
    """

    dose_scale: float
    on_finished: Callable[[RunFigures, RunCanvas | None], None]

    @property
    def scan_dose(self) -> ScanDose:
        """Chooses the dose scale of each scan."""
        ...

    @property
    def times(self) -> StageTimes:
        """Latencies of the running scan's frames."""
        ...

    def start(self) -> None:
        """Begin to work."""
        ...

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End the work; False when it did not end within `timeout_s`."""
        ...

    def expect_engine(self, comes: bool) -> None:
        """Whether the first engine is being built, so that frames wait for it and are not dropped."""
        ...

    def set_positions(self, positions: PositionSource) -> None:
        """Use another position source. Raises ConfigError where it cannot be changed."""
        ...

    def update_positions(self, update: Callable[[], None]) -> None:
        """Run `update`, which changes the position source, between two frames."""
        ...

    def start_scan(self, scan: str, anew: bool = False) -> None:
        """Begin a run of `scan`; where one goes on already, only if `anew`."""
        ...

    def end_scan(self, scan: str) -> Future[int]:
        """End the scan. The future gives the number of patches on its canvas when its last frame is through."""
        ...

    def tick(self) -> str | None:
        """Time has passed: the id of the scan that a pause in the stream has ended, if it has."""
        ...

    def keep_canvases(self, number: int) -> None:
        """Keep so many finished canvases from now on."""
        ...

    def reset(self) -> None:
        """Empty the canvas."""
        ...

    def reset_counters(self) -> None:
        """Count from zero; frames under way count as received."""
        ...

    def configure(self, **changes: object) -> PipelineSettings:
        """Change settings by name and return those in force. Raises ConfigError where they cannot be changed."""
        ...

    def snapshot(self) -> Snapshot:
        """Every figure at one moment; reading them changes nothing."""
        ...

    def stitched(self, run: int | None = None) -> Stitched | None:
        """The live canvas, or a kept run's, as an image; None where there is none."""
        ...

    def canvas(self, run: int | None = None) -> RunCanvas | None:
        """The live canvas, or a kept run's; None where there is none."""
        ...
