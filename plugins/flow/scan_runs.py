"""The runs of scans in the frames' flow, with the accounting of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ptychostream.frames.scan_runs import ScanRun, ScanRuns
from ptychostream.plugins.flow.ledger import Ledger
from ptychostream.plugins.flow.snapshot import RunFigures


@dataclass(eq=False)
class FlowRun(ScanRun):
    """One run of a scan, and the accounting of its frames."""

    ledger: Ledger = field(default_factory=Ledger)
    told: int = 0
    """How often `FlowRuns.take_ended` has given it."""
    _figures: tuple[tuple[object, ...], RunFigures] | None = None

    @property
    def pending(self) -> int:
        """Frames of this run that are under way."""
        return self.ledger.received - self.ledger.stitched - self.ledger.lost

    def figures(self) -> RunFigures:
        """A copy of what is known; the same one as before while nothing has changed.

        Every snapshot asks every kept run, and after many short scans there are hundreds.
        """
        ledger = self.ledger
        counts = ledger.received, ledger.stitched, ledger.lost, self.ids.missed, self.late, self.told
        now = *counts, self.scan, self.ended, self.first_time, self.last_time
        if self._figures is None or self._figures[0] != now:
            self._figures = now, self._count()
        return self._figures[1]

    def _count(self) -> RunFigures:
        return RunFigures(
            number=self.number,
            scan=self.scan,
            active=self.active,
            received=self.ledger.received,
            stitched=self.ledger.stitched,
            pending=self.pending,
            dropped={cause: count for cause, count in self.ledger.dropped.items() if count},
            missed=self.ids.missed,
            late=self.late,
            told=self.told,
            began=self.began,
            ended=self.ended,
            first_time=self.first_time,
            last_time=self.last_time,
        )


class FlowRuns(ScanRuns[FlowRun]):
    """The current run, and the finished ones whose canvases are kept.

    Parameters
    ----------
    keep
        Finished runs to keep.
    max_bytes
        Memory that their canvases may take together; the oldest are forgotten first.
    """

    def __init__(self, keep: int, max_bytes: int) -> None:
        super().__init__()
        self.keep = keep
        self.max_bytes = max_bytes
        self._ending: list[FlowRun] = []  # ended, and not returned by `take_ended` yet
        self._forgotten_missed = 0
        self._forgotten_disordered = 0

    @property
    def missed(self) -> int:
        """Gaps in the frame ids of all runs there ever were."""
        return self._forgotten_missed + sum(run.ids.missed for run in self.oldest_first)

    @property
    def disordered(self) -> int:
        """Frames of all runs that came after one with a higher id."""
        return self._forgotten_disordered + sum(run.ids.disordered for run in self.oldest_first)

    def begin(self, scan: str, now: float, provisional: bool = False, time: float | None = None) -> FlowRun:
        """Begin a run, by a frame that was acquired at `time`, if by any; the one before it ends."""
        run = FlowRun(self.next_number, scan, now, provisional)
        self.add(run, now, time)
        return run

    def end(self, now: float, over_at: float | None = None) -> bool:
        """End the current run; `take_ended` returns it when its frames have left."""
        run, ends = self.current, super().end(now, over_at)
        if ends and run is not None:
            self._ending.append(run)
        return ends

    def changed(self, run: FlowRun) -> None:
        """Frames were stitched to a run: `take_ended` gives it, perhaps again, if it is over."""
        if not run.active and run not in self._ending:
            self._ending.append(run)

    def reopen(self) -> None:
        """Let the current run go on after all; `take_ended` does not return it."""
        super().reopen()
        if self.current in self._ending:
            self._ending.remove(self.current)

    def forget(self, run: FlowRun) -> None:
        """Keep this run no longer; what it missed still counts."""
        super().forget(run)
        if run in self._ending:
            self._ending.remove(run)
        self._forgotten_missed += run.ids.missed
        self._forgotten_disordered += run.ids.disordered

    def trim(self, sizes: Mapping[int, int]) -> set[int]:
        """Forget the oldest finished runs beyond the limits, but no run that has frames under way.

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
            return {run.number for run in self.oldest_first}
        for run in [run for run in self._finished.values() if run.ledger.received == 0]:
            self.forget(run)
        for run in [run for run in self._finished.values() if run.pending == 0 and run not in self._ending]:
            too_many = len(self._finished) > self.keep
            too_large = sum(sizes.get(number, 0) for number in self._finished) > self.max_bytes
            if too_many or too_large:
                self.forget(run)
        return {run.number for run in self.oldest_first}

    def figures(self) -> tuple[RunFigures, ...]:
        """The accounting of every run that is known, newest first."""
        return tuple(run.figures() for run in reversed(self.oldest_first))

    def take_ended(self) -> list[FlowRun]:
        """Runs with frames that have ended, all of them through; again when later frames were stitched to them."""
        if not self._ending:
            return []
        through = [run for run in self._ending if run.pending == 0 and run.ledger.received]
        self._ending = [run for run in self._ending if run not in through]
        for run in through:
            run.told += 1
        return through
