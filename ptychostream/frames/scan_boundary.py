"""To which run of a scan a frame belongs: by the scan id it carries, by a PV, or by a gap in time.

The one set of rules for the live canvas (`ptychostream.plugins.flow.frame_flow`) and for recordings
(`ptychostream.recording.record_scans`). Nothing is concluded from frame ids that went backwards: detectors restart
their counters at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, NamedTuple

from ptychostream.frames.scan_runs import R, ScanRuns

_TIME_NAME = "%Y%m%d-%H%M%S.%f"


@dataclass(frozen=True)
class BoundaryRules:
    """What tells scans apart.

    Attributes
    ----------
    kind
        "attribute": frames name their scan; "pv": a PV says when a scan runs; "gap": a pause between frame times.
    gap_s
        For "gap": frames whose times are further apart belong to two scans, s.
    late_s
        How long after its end a run still takes frames once another one has followed, s; None: not at all.
    repeats
        Whether a frame that names a finished scan and was acquired after its last frame begins a second run of that
        scan. This is the one point in which the two users differ. A recording has nobody to tell it that a scan is
        repeated, and must not put two passes into one file: it sets this. The live canvas does not: its operator
        says that a scan starts anew, and the end of a scan may be announced before its last frames come. Frames
        without a scan id cannot be told apart otherwise, so for a finished unnamed scan that another one has
        followed the time always decides.
    """

    kind: Literal["attribute", "pv", "gap"] = "attribute"
    gap_s: float = 5.0
    late_s: float | None = 10.0
    repeats: bool = False


class Begin(NamedTuple):
    """The frame begins a run of this scan id."""

    scan: str


class Boundary(Generic[R]):
    """Assigns frames to runs. Passive: no thread, no clock, no lock.

    Attributes
    ----------
    told
        Whether the beamline has said that a scan begins or ends.
    """

    def __init__(self, rules: BoundaryRules) -> None:
        self.rules = rules
        self.told = False

    @property
    def waits_to_be_told(self) -> bool:
        """Whether frames come before a PV has said if a scan runs: they are taken as if one did."""
        return self.rules.kind == "pv" and not self.told

    def choose(self, scan: str, time: float, runs: ScanRuns[R], now: float) -> R | Begin | None:
        """The run of a frame.

        Parameters
        ----------
        scan, time
            The scan id that the frame carries, and its acquisition time, s since the POSIX epoch.
        runs
            The runs that are kept.
        now
            On the clock of the runs' `ended`, s.

        Returns
        -------
        ScanRun, Begin or None
            None: the frame belongs to a run that is not kept any more, or to no scan.
        """
        if self.rules.kind == "attribute":
            return self._by_name(scan, time, runs)
        if self.rules.kind == "gap":
            return self._by_gap(scan, time, runs, now)
        if runs.current is None:
            return None if self.told else Begin(scan or time_name(time))
        return runs.current if self.takes(runs.current, runs, now) else None

    def takes(self, run: R, runs: ScanRuns[R], now: float) -> bool:
        """Whether a frame that belongs to `run` may still be used.

        A run that has ended, and that no other has followed, goes on taking frames, because its end may be announced
        before its last frames come; with a PV as boundary, only as long as other late frames are taken.
        """
        if run.ended is None or (run is runs.current and self.rules.kind != "pv"):
            return True
        return self.rules.late_s is not None and now - run.ended <= self.rules.late_s

    def reopens(self, run: R) -> bool:
        """Whether a frame shows that a finished run goes on after all.

        So it is where a pause has ended the run but the acquisition times had no gap, and where a stream without
        scan ids goes on after its end.
        """
        endless = self.rules.kind == "attribute" and not run.scan and not self.rules.repeats
        return self.rules.kind == "gap" or endless

    def is_over(self, run: R, now: float) -> bool:
        """Whether frames have failed to come for so long that the run is over."""
        waited = now - max(run.arrived, run.began)
        return self.rules.kind == "gap" and run.active and waited > self.rules.gap_s

    def _by_name(self, scan: str, time: float, runs: ScanRuns[R]) -> R | Begin | None:
        current = runs.current
        if current is not None and current.scan == scan and (current.active or not self.rules.repeats):
            return current
        run, by_time = runs.latest(scan), self.rules.repeats or not scan
        if run is not None:
            return Begin(scan) if by_time and time > run.over_at else run
        last = runs.forgotten(scan)
        return Begin(scan) if last is None or (by_time and time > last) else None

    def _by_gap(self, scan: str, time: float, runs: ScanRuns[R], now: float) -> R | Begin | None:
        """The run whose frames are nearest in time, if within the gap.

        A frame that was acquired before the current run and is near no run is an old one, and is left out while the
        current run's frames keep coming; when they do not, the detector's clock was set back and a scan begins.
        """
        current, begin = runs.current, Begin(scan or time_name(time))
        if current is None:
            return begin
        if current.last_time is None:
            return current
        near = [run for run in (current, *runs.finished) if run is current or self.takes(run, runs, now)]
        nearest = min(near, key=lambda run: run.distance_s(time))
        if nearest.distance_s(time) <= self.rules.gap_s:
            return nearest
        if time < current.last_time and now - current.arrived <= self.rules.gap_s:
            return None
        return begin


def time_name(time: float) -> str:
    """A scan id made from a time, s since the POSIX epoch; local."""
    return datetime.fromtimestamp(time).strftime(_TIME_NAME)


def is_time_name(scan: str) -> bool:
    """Whether a scan id was made by `time_name`."""
    try:
        datetime.strptime(scan, _TIME_NAME)
    except ValueError:
        return False
    return True
