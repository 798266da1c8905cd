"""The refinement beside the network: a thread of its own, which takes a part of a core and holds nobody up.

The inference thread appends frames to a bounded queue. All else happens in the thread of the refinement.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.errors import DivergedError, GeometryError, PtychostreamError
from ptychostream.frames.frames import PlacedFrame
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.plugins.flow.snapshot import Stitched
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.refining.first_probe import FirstProbe, first_probe, on_the_probe
from ptychostream.plugins.refining.refined import Refined, RefineState
from ptychostream.plugins.refining.resolution import Resolution
from ptychostream.plugins.refining.scan_over import ScanOver
from ptychostream.plugins.refining.settings import RefineSettings
from ptychostream.scans.phase_file import file_stem
from ptychostream.scans.reconstruction_file import write_reconstruction

if TYPE_CHECKING:
    from ptychostream.refine.refiner import Refiner

log = logging.getLogger(__name__)

_SLICE_S = 0.05
"""Work is done in slices of so long; between two of them frames are taken."""
_GUIDE_SHARE, _COMPARE_SHARE = 0.1, 0.05
"""Largest parts of the time for reading the canvas, and for comparing it with the refined phase."""
_TAKEN_AT_ONCE = 64


@dataclass
class _Frame:
    placed: PlacedFrame
    contract: ModelContract
    spec: Preprocessing


class _Rarely:
    """Lets something happen as rarely as its share of the time allows."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._not_before = 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._not_before

    def took(self, seconds: float) -> None:
        self._not_before = time.monotonic() + seconds / self._share


class LiveRefinement:
    """Refines the running scan. Any thread may read; the inference thread calls `note`.

    Parameters
    ----------
    settings
        See `RefineSettings`; may be replaced at any time.
    stitched
        Gives the canvas of a run as an image; None: it is gone.
    folder
        Gives the folder in which results are saved as reconstructions; None: they are not.
    """

    def __init__(
        self,
        settings: RefineSettings,
        stitched: Callable[[int], Stitched | None],
        folder: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._stitched = stitched
        self._folder = folder
        self._wake = threading.Condition()
        self._queue: deque[_Frame] = deque()
        self._not_taken = 0
        self._queued = 0
        self._latest: Refined | None = None
        self._state = RefineState()
        self._refiner: Refiner | None = None
        self._run = -1
        self._contract: ModelContract | None = None
        self._last_probe: FirstProbe | None = None
        self._newest: PlacedFrame | None = None
        self._guided: object = None  # the canvas's frames and the field's box when the refiner was given the canvas
        self._is_saved = True
        self._over = ScanOver()
        self._resolution = Resolution()
        self._guide, self._compare = _Rarely(_GUIDE_SHARE), _Rarely(_COMPARE_SHARE)
        self._shown_at = 0.0
        self._stopping = False
        self._is_warm = False
        self._thread = threading.Thread(target=self._run_thread, name="refinement", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; what is refined is saved."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def note(self, contract: ModelContract, patches: Patches) -> None:
        """Take the frames of a batch. For the inference thread: it neither copies nor waits."""
        if not self.settings.enabled:
            return
        spec = patches.spec or contract.preprocessing
        memory = self.settings.memory_mb * 2**20
        with self._wake:
            for placed in patches.placed:
                most = min(self.settings.queue_size, max(1, memory // max(placed.frame.counts.nbytes, 1)))
                if len(self._queue) >= most:
                    self._not_taken += 1
                else:
                    self._queue.append(_Frame(placed, contract, spec))
                    self._queued += 1
            self._wake.notify()

    def configure(self, **changes: Any) -> None:
        """Change settings by name. Raises pydantic's ValidationError where a value is out of range."""
        with self._wake:
            self.settings = self.settings.model_validate({**self.settings.model_dump(), **changes})
            self._wake.notify()

    def finished(self, run: int) -> None:
        """A run has ended: once its frames are taken, its positions may be corrected."""
        self._over.told(run)
        with self._wake:
            self._wake.notify()

    @property
    def latest(self) -> Refined | None:
        """The newest refined image; None before any."""
        return self._latest

    @property
    def queued(self) -> int:
        """Frames that were put into the queue since the start."""
        return self._queued

    @property
    def state(self) -> RefineState:
        """The figures as they are now."""
        with self._wake:
            waiting, not_taken = len(self._queue), self._not_taken
            oldest = self._queue[0].placed.queued if waiting else math.nan
        lag_s = time.monotonic() - oldest if waiting and oldest else (0.0 if self._run >= 0 else math.nan)
        return replace(self._state, waiting=waiting, not_taken=not_taken, lag_s=lag_s)

    # In the thread

    def _run_thread(self) -> None:
        # No lower priority: on a full machine the thread would then keep the interpreter's lock while it waits for a
        # core, and the inference thread with it.
        while self._wait():
            began = time.monotonic()
            try:
                self._warm_up()
                self._step()
            except PtychostreamError as error:
                self._give_up(str(error))
            except MemoryError:
                self._give_up("no memory for the refinement: lower Refine:Memory")
            except Exception as error:
                log.exception("the refinement failed")
                self._give_up(f"the refinement failed: {error}")
            worked = time.monotonic() - began
            with self._wake:
                if not self._stopping:
                    budget = min(self.settings.budget, 1.0)
                    self._pause(worked * (1 - budget) / budget)
        self._save()

    def _pause(self, seconds: float) -> None:
        """Leave the core to others; the caller holds the lock. A frame that comes does not shorten it."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._wake.wait(left)

    def _wait(self) -> bool:
        """Wait until there is something to do. False: the thread must end."""
        with self._wake:
            while not (self._stopping or self._queue or self._can_work() or self._is_cold()):
                self._wake.wait(1.0)
            if not self.settings.enabled:
                self._queue.clear()
            return not self._stopping

    def _can_work(self) -> bool:
        refiner = self._refiner
        if not self.settings.enabled or refiner is None:
            return False
        return not refiner.converged or self._resolution.pending or self._is_due(refiner)

    def _is_due(self, refiner: Refiner) -> bool:
        """Whether the correction of the positions, or its end, waits for a word."""
        kind = self.settings.correct_positions
        return refiner.placing.would_change(kind, self._over.is_over(self._run, time.monotonic()))

    def _is_cold(self) -> bool:
        return self.settings.enabled and not self._is_warm

    def _warm_up(self) -> None:
        """Compile the kernels, or load them, before the first frames: compiling holds the interpreter's lock."""
        if not self._is_cold():
            return
        from ptychostream.refine.refiner import warm_up

        self._is_warm = True
        warm_up()

    def _step(self) -> None:
        """Take frames, follow the canvas, work for a slice, show the result."""
        frames = self._take()
        for frame in frames:
            self._add(frame)
        refiner = self._refiner
        if refiner is None:
            return
        self._follow_canvas(refiner)
        if not self._queue and self._is_due(refiner):
            self._correct(refiner)
        try:
            refiner.work(_SLICE_S)
        except DivergedError:
            self._show(refiner)  # the last good image
            raise
        now = time.monotonic()
        if refiner.converged and not self._queue:
            self._save()  # before it is told: who reads that it has converged finds the file
        if refiner.converged or now - self._shown_at >= 1.0 / self.settings.rate_hz:
            self._shown_at = now
            self._show(refiner)
        if refiner.converged and not self._queue:
            self._resolve(refiner)

    def _correct(self, refiner: Refiner) -> None:
        """Positions are corrected from now on, or no more: what was saved is not the result."""
        refiner.correct_positions(
            self.settings.correct_positions, all_here=self._over.is_over(self._run, time.monotonic())
        )
        self._is_saved = False
        self._resolution.forget()
        self._state = replace(self._state, frc_m=math.nan)

    def _resolve(self, refiner: Refiner) -> None:
        """Compute the resolution, for a slice of time; once it is known the result is saved again, with it."""
        if self._resolution.work(refiner, _SLICE_S):
            self._is_saved = False
            self._save()  # before it is told, as above
            self._state = replace(self._state, frc_m=self._resolution.value_m)

    def _take(self) -> list[_Frame]:
        with self._wake:
            return [self._queue.popleft() for _ in range(min(len(self._queue), _TAKEN_AT_ONCE))]

    def _add(self, frame: _Frame) -> None:
        run = frame.placed.frame.run
        if run < self._run:
            self._pass_over()  # a late frame of a scan that is over
            return
        if run > self._run or frame.contract.object_pixel_m != (self._contract or frame.contract).object_pixel_m:
            self._begin(frame)
        if self._refiner is None:
            self._pass_over()
            return
        counts, good = on_the_probe(frame.spec, frame.placed.frame.counts, self._refiner.size)
        try:
            self._refiner.add(counts, good, (frame.placed.x_m, frame.placed.y_m))
        except PtychostreamError as error:  # of this frame alone, such as a position that jumped
            self._pass_over()
            self._state = replace(self._state, message=str(error))
            return
        self._newest = frame.placed
        self._over.note(time.monotonic())
        self._is_saved = False
        self._resolution.forget()
        self._state = replace(self._state, frc_m=math.nan)

    def _pass_over(self) -> None:
        with self._wake:
            self._not_taken += 1

    def _begin(self, frame: _Frame) -> None:
        """Another scan: the result of the last one is kept, its frames are forgotten."""
        self._save()
        self._run, self._contract, self._refiner = frame.placed.frame.run, frame.contract, None
        self._over.begin()
        with self._wake:
            self._not_taken = 0
        self._state = RefineState(scan=frame.placed.frame.scan, saved=self._state.saved)
        # Imported here: the kernels and scipy would cost the IOC a second of its start.
        from ptychostream.refine.refiner import Refiner

        start = first_probe(self.settings, frame.contract, self._last_probe)
        limit = self.settings.memory_mb * 2**20
        self._refiner = Refiner(start.probe, frame.contract.object_pixel_m, memory_bytes=limit)
        self._guided = None
        self._resolution.forget()
        self._state = replace(self._state, probe_source=start.source)

    def _follow_canvas(self, refiner: Refiner) -> None:
        """Give the refiner the network's phase, where the canvas has changed."""
        if not self._guide.due():
            return
        began = time.monotonic()
        stitched = self._stitched(self._run)
        if stitched is not None and (now := (stitched.frames, refiner.field.box)) != self._guided:
            refiner.guide(stitched.image)
            self._guided = now
        self._guide.took(time.monotonic() - began)

    def _show(self, refiner: Refiner) -> None:
        image = refiner.image()
        if not image.phase.size or self._newest is None or self._contract is None:
            return
        figures = refiner.figures()
        with self._wake:
            taken = self._queued - len(self._queue)
        number = self._latest.number + 1 if self._latest is not None else 1
        self._latest = Refined(
            number, image, refiner.amplitude(), refiner.probe, self._state.scan, self._run, self._contract.name,
            figures, self._state.probe_source, self._newest.frame.id, taken, refiner.residual_map(),
        )  # fmt: skip
        ssim = self._state.ssim
        if self._compare.due():
            began = time.monotonic()
            ssim = self._similarity(self._latest)
            self._compare.took(time.monotonic() - began)
        self._state = replace(self._state, figures=figures, ssim=ssim)

    def _similarity(self, refined: Refined) -> float:
        # Imported here: scikit-image and scipy would cost the IOC a second of its start.
        from ptychostream.quality.quality import compare

        stitched = self._stitched(refined.run)
        try:
            return compare(stitched.image, refined.phase).ssim if stitched is not None else math.nan
        except GeometryError:
            return math.nan  # too few pixels yet, or a flat sample

    def _give_up(self, why: str) -> None:
        """Refine this scan no more; the last good image stays, and the network's picture goes on."""
        log.error("refinement of scan %s: %s", self._state.scan, why)
        self._refiner = None
        self._state = replace(self._state, stopped=True, message=why)

    def _save(self) -> None:
        """Keep the probe for the next scan, and the result in a file."""
        refiner, contract = self._refiner, self._contract
        if refiner is None or contract is None or self._is_saved or not len(refiner.store):
            return
        self._is_saved = True
        self._last_probe = FirstProbe(refiner.probe, contract.object_pixel_m, f"scan {self._state.scan}")
        folder = self._folder()
        if folder is None:
            return
        figures = refiner.figures()
        made = refiner.reconstruction(
            self._state.scan,
            {
                "run": self._run,
                "model": contract.name,
                "probe_source": self._state.probe_source,
                "frames": figures.frames,
                "frames_left_out": figures.left_out,
                "frames_not_taken": self._not_taken,
                "passes": figures.passes,
                "converged": figures.converged,
                "change_rad": figures.change_rad,
                "frc_m": self._resolution.value_m if math.isfinite(self._resolution.value_m) else None,
                "saved_s": time.time(),
            },
        )
        path = folder / f"{file_stem(f'{self._state.scan}_{self._run}')}.h5"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_reconstruction(path, made)
        except (OSError, PtychostreamError) as error:
            log.error("the refined scan %s is not saved: %s", self._state.scan, error)
            self._state = replace(self._state, message=f"not saved: {error}")
        else:
            self._state = replace(self._state, saved=str(path))
