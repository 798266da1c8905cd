"""The futures and the callback that follow when the last frame of a scan is stitched or dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.snapshot import RunFigures
from ptychostream.plugins.mosaic import Mosaic, RunCanvas

_log = logging.getLogger(__name__)


class ScanEnds:
    """Holds the futures of those that wait. Passive: the caller holds its lock for every method, and releases it
    before it makes the calls that `through` returns.

    Parameters
    ----------
    flow, mosaic
        The frames and the canvases.
    on_finished
        Called for each run that has ended, with its figures and its canvas (None where there is none); again when
        frames came after that.
    """

    def __init__(
        self, flow: FrameFlow, mosaic: Mosaic, on_finished: Callable[[RunFigures, RunCanvas | None], None]
    ) -> None:
        self._on_finished = on_finished
        self._flow = flow
        self._mosaic = mosaic
        # Who waits: the batcher's `left` at which its run is through, None while frames wait for positions; the run.
        self._waiting: list[tuple[int | None, int, Future[int]]] = []

    def wait_for(self, scan: str) -> Future[int]:
        """A future for the number of patches on the scan's canvas, when every frame that is under way now has left."""
        done: Future[int] = Future()
        done.set_running_or_notify_cancel()
        run = self._flow.runs.latest(scan)
        self._waiting.append((None, run.number if run is not None else 0, done))
        return done

    def through(self) -> list[Callable[[], None]]:
        """The calls that are due, to be made without the lock."""
        runs = self._flow.runs
        calls: list[Callable[[], None]] = [
            partial(self._on_finished, run.figures(), self._mosaic.canvas(run.number)) for run in runs.take_ended()
        ]
        if self._waiting:
            self._waiting = [(self._target(target, run), run, done) for target, run, done in self._waiting]
        if self._waiting and not self._flow.in_flight:
            left = self._flow.batcher.left
            through = [waiting for waiting in self._waiting if waiting[0] is not None and waiting[0] <= left]
            self._waiting = [waiting for waiting in self._waiting if waiting not in through]
            calls += [partial(self._resolve, run, done) for _, run, done in through]
        return calls

    def _target(self, target: int | None, run: int) -> int | None:
        if target is None and not self._flow.waits_for_position(run):
            return self._flow.batcher.entered
        return target

    def trim(self) -> None:
        """Forget the runs and canvases beyond the limits."""
        self._mosaic.retain(self._flow.runs.trim(self._mosaic.sizes()))

    def name_canvas(self) -> None:
        """Give the canvas of the current run its scan id, which may have changed."""
        run = self._flow.runs.current
        canvas = self._mosaic.canvas(run.number) if run is not None else None
        if run is not None and canvas is not None:
            canvas.scan = run.scan

    def _resolve(self, run: int, done: Future[int]) -> None:
        canvas = self._mosaic.canvas(run)
        done.set_result(canvas.patches if canvas is not None else 0)


def log_finished(figures: RunFigures, _canvas: RunCanvas | None = None) -> None:
    """Log the figures of a run that has ended; at first only, because later frames may come one by one."""
    if figures.told > 1:
        return
    dropped = ", ".join(f"{count} {cause.value}" for cause, count in figures.dropped.items()) or "none"
    _log.info("scan %s (run %d) is over: %d frames, %d stitched, dropped: %s",
              figures.scan, figures.number, figures.received, figures.stitched, dropped)  # fmt: skip
