"""To which run of a scan a frame belongs: by the scan id it carries, by a PV, or by a gap in time.

The one set of rules for the live canvas (`ptychostream.plugins.flow.frame_flow`) and for recordings
(`ptychostream.recording.record_scans`). Nothing is concluded from frame ids that went backwards: detectors restart
their counters at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, NamedTuple

from ptychostream.frames.least_delay import LeastDelay
from ptychostream.frames.scan_runs import R, ScanRuns

_TIME_NAME = "%Y%m%d-%H%M%S.%f"
_MARKED_LATE_S = 10.0
_EARLY_S = 0.1
"""How long before the PV's rise was heard a frame may have been taken that belongs to the scan."""


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
        scan, also where no end attribute has told that the scan is over. This is the one point in which the two users
        differ. A recording has nobody to tell it that a scan is repeated, and must not put two passes into one file: it
        sets this. The live canvas does not: its operator says that a scan starts anew, and the end of a scan may be
        announced before its last frames come. Frames without a scan id cannot be told apart otherwise, so for a
        finished unnamed scan that another one has followed the time always decides.
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

    An end attribute is a level: a detector repeats its last value in every frame until somebody changes it, and the
    change may come some frames late. So a run ends where the attribute rises within the run (`ends`). A run whose first
    frame carries it is not over. While it stays up, frames that name the scan belong to the run that is over; the first
    frame without it, acquired after the end, begins another run of that scan.

    Attributes
    ----------
    told
        Whether the beamline has said that a scan begins or ends.
    """

    def __init__(self, rules: BoundaryRules) -> None:
        self.rules = rules
        self.told = False
        self._delay = LeastDelay()

    @property
    def waits_to_be_told(self) -> bool:
        """Whether frames come before a PV has said if a scan runs: they are taken as if one did."""
        return self.rules.kind == "pv" and not self.told

    def arrives(self, time: float, arrived: float) -> None:
        """Note when a frame of that time came, both in POSIX seconds; to be called before `choose`, for a PV alone."""
        if self.rules.kind == "pv":
            self._delay.note(time, arrived)

    def choose(
        self, scan: str, time: float, runs: ScanRuns[R], now: float, flag: bool | None = None
    ) -> R | Begin | None:
        """The run of a frame.

        Parameters
        ----------
        scan, time, flag
            The scan id that the frame carries, its acquisition time, s since the POSIX epoch, and what its end
            attribute says; None where it has none, which is as good as not up.
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
            return self._by_name(scan, time, runs, flag)
        if self.rules.kind == "gap":
            return self._by_gap(scan, time, runs, now)
        return self._by_pv(scan, time, runs)

    def ends(self, run: R, time: float, flag: bool | None) -> bool:
        """Whether the end attribute of a frame of `run` ends it: it rises. To be called before the run notes the frame.

        The attribute of a frame that is older than the run's latest says nothing new.
        """
        if run.last_time is not None and time < run.last_time:
            return False
        before, run.flag = run.flag, bool(flag)
        if not flag or before is not False or not run.active:
            return False
        run.marked = True
        return True

    def takes(self, run: R, runs: ScanRuns[R], now: float) -> bool:
        """Whether a frame that belongs to `run` may still be used.

        A run that has ended, and that no other has followed, goes on taking frames, because its end may be announced
        before its last frames come. With a PV as boundary, and where an end attribute tells the end, it does so only as
        long as other late frames are taken: a detector that runs on afterwards must not fill the canvas.
        """
        late_s = self.rules.late_s
        if run.ended is None:
            return True
        if run is runs.current and self.rules.kind != "pv":
            return not run.marked or now - run.ended <= (_MARKED_LATE_S if late_s is None else late_s)
        return late_s is not None and now - run.ended <= late_s

    def reopens(self, run: R) -> bool:
        """Whether a frame shows that a finished run goes on after all.

        So it is where a pause has ended the run but the acquisition times had no gap, and where a stream without
        scan ids goes on after its end, which no end attribute has told.
        """
        endless = self.rules.kind == "attribute" and not run.scan and not self.rules.repeats and not run.marked
        return self.rules.kind == "gap" or endless

    def is_over(self, run: R, now: float) -> bool:
        """Whether frames have failed to come for so long that the run is over."""
        waited = now - max(run.arrived, run.began)
        return self.rules.kind == "gap" and run.active and waited > self.rules.gap_s

    def _by_name(self, scan: str, time: float, runs: ScanRuns[R], flag: bool | None) -> R | Begin | None:
        current, by_time = runs.current, self.rules.repeats or not scan
        if current is not None and current.scan == scan and current.active:
            return current
        run = runs.latest(scan)
        if run is not None:
            anew = not flag if run.marked else by_time and (run is not current or self.rules.repeats)
            return Begin(scan) if anew and time > run.over_at else run
        last = runs.forgotten(scan)
        if last is None:
            return Begin(scan)
        anew = not flag if last.marked else by_time
        return Begin(scan) if anew and time > last.time else None

    def _by_pv(self, scan: str, time: float, runs: ScanRuns[R]) -> R | Begin | None:
        """The run in which the frame was taken, by its own time, whenever it comes."""
        if runs.current is None:
            return None if self.told else Begin(scan or time_name(time))
        taken = self._delay.taken(time)
        if taken is None:
            return runs.current
        for early_s in (0.0, _EARLY_S):
            for run in (runs.current, *runs.finished):
                if run.told_from - early_s <= taken <= run.told_until:
                    return run
        return None

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
