"""The runs of scans: the one that goes on, and those before it whose canvases are still kept.

A run is one pass over a sample, from its beginning to its end; a scan that is aborted and restarted under the same
id is two runs. Passive: no thread, no clock, no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ptychostream.frames.frame_ids import FrameIds
from ptychostream.plugins.flow.ledger import Ledger
from ptychostream.plugins.flow.snapshot import RunFigures

_FORGOTTEN_NAMES = 1000


@dataclass(eq=False)
class ScanRun:
    """One run of a scan, and the accounting of its frames.

    Attributes
    ----------
    number
        Counts the runs from 1.
    scan
        Scan id.
    began, ended
        On the clock that the flow is told, s; `ended` is None while the run goes on.
    provisional
        Begun by a frame, before the beamline has said whether a scan runs.
    first_time, last_time
        Earliest and latest acquisition time of its frames, s since the POSIX epoch; None before any.
    arrived
        When its latest frame came, on the clock of `began`.
    """

    number: int
    scan: str
    began: float
    provisional: bool = False
    ended: float | None = None
    first_time: float | None = None
    last_time: float | None = None
    arrived: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    ids: FrameIds = field(default_factory=FrameIds)

    @property
    def active(self) -> bool:
        return self.ended is None

    @property
    def pending(self) -> int:
        """Frames of this run that are under way."""
        return self.ledger.received - self.ledger.stitched - sum(self.ledger.dropped.values())

    def note(self, time: float, now: float) -> None:
        """A frame taken at `time` has come."""
        self.arrived = now
        if self.first_time is None or self.last_time is None:
            self.first_time = self.last_time = time
        elif time > self.last_time:
            self.last_time = time
        elif time < self.first_time:
            self.first_time = time

    def distance_s(self, time: float) -> float:
        """Seconds between `time` and the frames of this run; 0 among them, infinite where there are none."""
        if self.first_time is None or self.last_time is None:
            return float("inf")
        return max(self.first_time - time, time - self.last_time, 0.0)

    def figures(self) -> RunFigures:
        """A copy of what is known."""
        return RunFigures(
            number=self.number,
            scan=self.scan,
            active=self.active,
            received=self.ledger.received,
            stitched=self.ledger.stitched,
            pending=self.pending,
            dropped={cause: count for cause, count in self.ledger.dropped.items() if count},
            missed=self.ids.missed,
            began=self.began,
            ended=self.ended,
            first_time=self.first_time,
            last_time=self.last_time,
        )


class ScanRuns:
    """The current run, and the finished ones that are kept.

    Parameters
    ----------
    keep
        Finished runs to keep.
    max_bytes
        What their canvases may take together; the oldest goes first.

    Attributes
    ----------
    current
        The run that began last, active or not; None before any.
    """

    def __init__(self, keep: int, max_bytes: int) -> None:
        self.keep = keep
        self.max_bytes = max_bytes
        self.current: ScanRun | None = None
        self._finished: dict[int, ScanRun] = {}  # oldest first
        self._begun = 0
        self._ending: list[ScanRun] = []  # over, and not told yet
        self._forgotten: dict[str, None] = {}  # scan ids, the oldest first
        self._forgotten_missed = 0
        self._forgotten_disordered = 0

    @property
    def finished(self) -> list[ScanRun]:
        """The kept runs before the current one, newest first."""
        return list(reversed(self._finished.values()))

    @property
    def newest_first(self) -> list[ScanRun]:
        """Every run that is known."""
        return self._all()[::-1]

    @property
    def missed(self) -> int:
        """Gaps in the frame ids of all runs there ever were."""
        return self._forgotten_missed + sum(run.ids.missed for run in self._all())

    @property
    def disordered(self) -> int:
        """Frames of all runs that came after one with a higher id."""
        return self._forgotten_disordered + sum(run.ids.disordered for run in self._all())

    def get(self, number: int) -> ScanRun:
        """The run of that number. A run with pending frames is always here."""
        if self.current is not None and self.current.number == number:
            return self.current
        return self._finished[number]

    def latest(self, scan: str) -> ScanRun | None:
        """The newest run of that scan id which is kept."""
        return next((run for run in reversed(self._all()) if run.scan == scan), None)

    def was_forgotten(self, scan: str) -> bool:
        """Whether a scan of that id has been, and is not kept any more."""
        return scan in self._forgotten

    def begin(self, scan: str, now: float, provisional: bool = False) -> ScanRun:
        """Begin a run; the one before it ends."""
        if self.current is not None:
            self.end(now)
            self._finished[self.current.number] = self.current
        self._begun += 1
        self._forgotten.pop(scan, None)
        self.current = ScanRun(self._begun, scan, now, provisional)
        return self.current

    def end(self, now: float) -> None:
        """The current run is over."""
        if self.current is not None and self.current.ended is None:
            self.current.ended = now
            self._ending.append(self.current)

    def reopen(self) -> None:
        """The current run goes on after all."""
        if self.current is not None:
            self.current.ended = None
            if self.current in self._ending:
                self._ending.remove(self.current)

    def trim(self, sizes: Mapping[int, int]) -> set[int]:
        """Forget the oldest finished runs beyond the limits, never one whose frames are under way.

        Parameters
        ----------
        sizes
            Bytes of each run's canvas, by number.

        Returns
        -------
        set
            Numbers of the runs that remain.
        """
        if not self._finished:
            return {run.number for run in self._all()}
        for run in [run for run in self._finished.values() if run.ledger.received == 0]:
            self._forget(run)
        for run in [run for run in self._finished.values() if run.pending == 0 and run not in self._ending]:
            too_many = len(self._finished) > self.keep
            too_large = sum(sizes.get(number, 0) for number in self._finished) > self.max_bytes
            if too_many or too_large:
                self._forget(run)
        return {run.number for run in self._all()}

    def figures(self) -> tuple[RunFigures, ...]:
        """The accounting of every run that is known, newest first."""
        return tuple(run.figures() for run in self.newest_first)

    def take_ended(self) -> list[ScanRun]:
        """Runs with frames that have ended, all of them through; each is given once."""
        if not self._ending:
            return []
        through = [run for run in self._ending if run.pending == 0 and run.ledger.received]
        self._ending = [run for run in self._ending if run not in through]
        return through

    def _all(self) -> list[ScanRun]:
        """Oldest first."""
        return [*self._finished.values(), *([self.current] if self.current is not None else [])]

    def _forget(self, run: ScanRun) -> None:
        del self._finished[run.number]
        if run in self._ending:
            self._ending.remove(run)
        self._forgotten_missed += run.ids.missed
        self._forgotten_disordered += run.ids.disordered
        if run.scan and run.ledger.received:
            self._forgotten[run.scan] = None
            if len(self._forgotten) > _FORGOTTEN_NAMES:
                del self._forgotten[next(iter(self._forgotten))]
