"""Where one scan ends and the next begins: by an id in the frames, by a PV, or by a gap in time.

Which is configuration. Nothing is concluded from frame ids that went backwards: detectors restart their counters
when they please.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.scan_runs import ScanRun, ScanRuns

_TIME_NAME = "%Y%m%d-%H%M%S.%f"
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


class Begin(NamedTuple):
    """A frame that begins a run of this scan id."""

    scan: str


Choice: TypeAlias = "ScanRun | Begin | None"
"""The run a frame belongs to, the one it begins, or None: it belongs to no scan that is known."""


class Boundary:
    """Deals frames to runs. Passive, as the flow is.

    Parameters
    ----------
    settings
        See `BoundarySettings`.
    """

    def __init__(self, settings: BoundarySettings) -> None:
        self.settings = settings
        self.told = False
        """Whether the beamline has said that a scan begins or ends."""

    @property
    def waits_to_be_told(self) -> bool:
        """Whether frames come before a PV has said if a scan runs: they are taken, as if one did."""
        return self.settings.boundary == "pv" and not self.told

    def choose(self, frame: Frame, runs: ScanRuns, now: float) -> Choice:
        """Where a frame belongs; `now` is the clock of the runs' `ended`."""
        kind = self.settings.boundary
        if kind == "attribute":
            return _by_name(frame.scan, runs)
        if kind == "gap":
            return self._by_gap(frame, runs, now)
        if runs.current is None:
            return None if self.told else Begin(_name(frame))
        return runs.current if self.takes(runs.current, runs, now) else None

    def takes(self, run: ScanRun, runs: ScanRuns, now: float) -> bool:
        """Whether a frame that belongs to `run` may still be stitched.

        A run that has ended, and that no other follows, goes on taking frames, for the word of its end may overtake
        its last ones; between two scans of a PV, only so long as others are taken late.
        """
        if run.ended is None or (run is runs.current and self.settings.boundary != "pv"):
            return True
        return self.settings.late == "stitch" and now - run.ended <= self.settings.late_s

    def reopens(self, run: ScanRun) -> bool:
        """Whether a frame shows that a run goes on after all: its stream had paused, its times had not.

        A stream without names, or with none but pauses to tell its scans apart, has no other end.
        """
        return self.settings.boundary == "gap" or (self.settings.boundary == "attribute" and not run.scan)

    def is_over(self, run: ScanRun, now: float) -> bool:
        """Whether frames have failed to come for so long that the run is over."""
        waited = now - max(run.arrived, run.began)
        return self.settings.boundary == "gap" and run.active and waited > self.settings.gap_s

    def _by_gap(self, frame: Frame, runs: ScanRuns, now: float) -> Choice:
        """The run whose frames are nearest in time, if within the gap.

        A frame from before the current run and near none is an old one gone astray, while the current run's frames
        keep coming; when they do not, the detector's clock was set back and a scan begins.
        """
        current = runs.current
        if current is None:
            return Begin(_name(frame))
        if current.last_time is None:
            return current
        near = [run for run in (current, *runs.finished) if run is current or self.takes(run, runs, now)]
        nearest = min(near, key=lambda run: run.distance_s(frame.time))
        if nearest.distance_s(frame.time) <= self.settings.gap_s:
            return nearest
        if frame.time < current.last_time and now - current.arrived <= self.settings.gap_s:
            return None
        return Begin(_name(frame))


def _by_name(scan: str, runs: ScanRuns) -> Choice:
    """By the id that the frame carries; a stream without names is one scan until it is told otherwise."""
    if runs.current is not None and runs.current.scan == scan:
        return runs.current
    if scan:
        run = runs.latest(scan)
        if run is not None:
            return run
        if runs.was_forgotten(scan):
            return None
    return Begin(scan)


def _name(frame: Frame) -> str:
    """What to call the scan that this frame begins: as the frame says, or after its time."""
    return frame.scan or time_name(frame.time)


def time_name(time: float) -> str:
    """A scan id made of a time, s since the POSIX epoch; local."""
    return datetime.fromtimestamp(time).strftime(_TIME_NAME)


def is_time_name(scan: str) -> bool:
    """Whether a scan id was made by `time_name`."""
    try:
        datetime.strptime(scan, _TIME_NAME)
    except ValueError:
        return False
    return True
