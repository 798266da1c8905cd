"""Writes finished canvases to files in a separate thread, so that no frame waits for the disk."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ptychostream.errors import ConfigError, PtychostreamError, ScanFileError
from ptychostream.scans.phase_file import save_phase_image
from ptychostream.plugins.mosaic import RunCanvas
from ptychostream.plugins.scan_ends import log_finished
from ptychostream.plugins.flow.snapshot import RunFigures, Stitched

log = logging.getLogger(__name__)

_LONGEST = 5
"""If late frames keep coming, a scan is saved after this many times the delay."""


class SaveState(IntEnum):
    """States of the record SaveStatus_RBV."""

    IDLE = 0
    SAVING = 1
    SAVED = 2
    FAILED = 3


@dataclass
class _Job:
    """A canvas to write, and a future for the caller. It keeps the canvas in memory.

    It is written at `due`. Frames after the end of the scan move `due`, but not beyond `latest`. Monotonic seconds.
    """

    canvas: RunCanvas
    figures: RunFigures
    due: float
    latest: float = math.inf
    automatic: bool = False
    done: Future[Path] = field(default_factory=Future)


def _size(jobs: Iterable[_Job]) -> int:
    """Memory of the canvases, bytes."""
    return sum(job.canvas.canvas.nbytes for job in jobs)


class CanvasSaver:
    """Saves canvases in order. Any thread may call its methods.

    Parameters
    ----------
    figures_of
        Gives the accounting of a run by its number. None: it is not kept any more.
    describe
        Gives the provenance of a canvas.
    directory
        Folder of the files.
    automatic
        Save every scan when it ends.
    delay_s
        A scan is saved automatically this long after its end, or after its last late frame.
    queue_bytes
        The largest memory of the waiting canvases, and also of those that could not be saved. One is always taken.
    on_change
        Called after every change of the state.
    """

    def __init__(
        self,
        figures_of: Callable[[int], RunFigures | None],
        describe: Callable[[Stitched, RunFigures], dict[str, Any]],
        *,
        directory: str = "",
        automatic: bool = False,
        delay_s: float = 2.0,
        queue_bytes: int = 256_000_000,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self.automatic = automatic
        self.state = SaveState.IDLE
        self.message = ""
        self.last_file = ""
        self.saved = 0
        self.lost = 0
        """Number of canvases that could not be saved and are gone."""
        self._figures_of = figures_of
        self._describe = describe
        self._delay_s = delay_s
        self._capacity = queue_bytes
        self._on_change = on_change
        self._wake = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._failed: deque[_Job] = deque()
        self._in_file: WeakKeyDictionary[RunCanvas, int] = WeakKeyDictionary()  # patches in the last file
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="canvas saver", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of canvases that wait to be saved, or to be saved again."""
        return len(self._jobs) + len(self._failed)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Save the waiting canvases now, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def finished(self, figures: RunFigures, canvas: RunCanvas | None) -> None:
        """Save a scan that is over, or that got late frames, if scans are saved automatically.

        A scan that is saved again because of late frames gets another file.
        """
        log_finished(figures)
        if not self.automatic:
            return
        if canvas is None and figures.stitched:
            self._lose(figures, "its canvas was given up before it ended")
        if canvas is None or not canvas.patches:
            return
        now = time.monotonic()
        job = _Job(canvas, figures, now + self._delay_s, now + _LONGEST * self._delay_s, automatic=True)
        with self._wake:
            waiting = next((one for one in self._jobs if one.canvas is canvas), None)
            if waiting is not None:
                waiting.due = min(job.due, waiting.latest)
                return
            if not self._jobs or _size(self._jobs) + _size([job]) <= self._capacity:
                self._jobs.append(job)
                self._wake.notify()
                return
            waiting_mb, count = _size(self._jobs) / 1e6, len(self._jobs)
        self._lose(figures, f"{count} canvases of {waiting_mb:.0f} MB wait already")

    def save(self, canvas: RunCanvas | None) -> None:
        """Save a canvas now, and try those again that could not be saved. Returns when this is done.

        Raises
        ------
        ConfigError
            There is nothing to save.
        ScanFileError
            A canvas could not be written. The next call tries it again.
        """
        with self._wake:
            jobs, self._failed = list(self._failed), deque()
            if canvas is not None and canvas.patches and canvas not in [job.canvas for job in jobs]:
                figures = self._figures_of(canvas.run)
                if figures is not None:
                    jobs.append(_Job(canvas, figures, 0.0))
            jobs = [_Job(job.canvas, job.figures, 0.0) for job in jobs]
            if not jobs:
                raise ConfigError("the canvas is empty", where="SaveCanvas", remedy="stream a scan first")
            if self._stopping:
                raise ScanFileError("the IOC ends", where="SaveCanvas", remedy="start it again")
            self._jobs.extendleft(reversed(jobs))
            self._wake.notify()
        failures = [error for job in jobs if (error := job.done.exception()) is not None]
        if failures:
            raise failures[0]

    def _run(self) -> None:
        while (job := self._next()) is not None:
            patches = job.canvas.patches
            if job.automatic and self._in_file.get(job.canvas) == patches:
                continue  # its last file has all patches
            try:
                path = self._write(job)
            except Exception as error:
                if not isinstance(error, PtychostreamError):
                    log.exception("scan %s could not be saved", job.figures.scan)
                self._keep(job)
                self._tell(SaveState.FAILED, str(error))
                job.done.set_exception(error)
            else:
                self.last_file, self.saved = str(path), self.saved + 1
                if job.automatic:
                    self._in_file[job.canvas] = patches
                self._tell(SaveState.SAVED, f"scan {job.figures.scan}: {job.canvas.patches} frames in {path.name}")
                job.done.set_result(path)

    def _next(self) -> _Job | None:
        """Wait until a job is due. None: the thread must end."""
        with self._wake:
            while not (self._jobs and (self._stopping or self._jobs[0].due <= time.monotonic())):
                if self._stopping:
                    return None
                self._wake.wait(self._jobs[0].due - time.monotonic() if self._jobs else None)
            return self._jobs.popleft()

    def _write(self, job: _Job) -> Path:
        figures = self._figures_of(job.canvas.run) or job.figures
        self._tell(SaveState.SAVING, f"scan {figures.scan}")
        if not self.directory:
            raise ConfigError("no folder named", where="SaveDirectory", remedy="write the folder's path to it")
        stitched = job.canvas.stitched()
        about = self._describe(stitched, figures)
        return save_phase_image(self.directory, stitched.scan, stitched.image, about, stitched.sigma)

    def _keep(self, job: _Job) -> None:
        """Keep a job that failed for the next try. If they take too much memory, the oldest is dropped."""
        with self._wake:
            self._failed.append(job)
            while len(self._failed) > 1 and _size(self._failed) > self._capacity:
                self._failed.popleft()
                self.lost += 1

    def _lose(self, figures: RunFigures, why: str) -> None:
        self.lost += 1
        self._tell(SaveState.FAILED, f"scan {figures.scan} was not saved: {why}")

    def _tell(self, state: SaveState, message: str) -> None:
        self.state, self.message = state, message
        log.log(logging.ERROR if state is SaveState.FAILED else logging.INFO, "save: %s", message)
        self._on_change()
