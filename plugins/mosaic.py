"""The canvases, one for each run of a scan."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from ptychostream.errors import DropCause, FrameError, GeometryError
from ptychostream.frames.frames import PlacedFrame
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.flow.snapshot import LatestPatch, Maker, Stitched
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.trajectory import Trajectory


@dataclass
class Laid:
    """The frames of a batch that are on the canvas, and the drop cause and reason of each refused one."""

    stitched: list[PlacedFrame] = field(default_factory=list)
    refused: list[tuple[DropCause, str]] = field(default_factory=list)


@dataclass(frozen=True)
class CanvasFigures:
    """The live canvas's run, latest patch and number of patches, and the memory of the finished canvases."""

    run: int = 0
    latest: LatestPatch | None = None
    patches: int = 0
    finished_bytes: int = 0


@dataclass
class _Made:
    """What one model and engine added to a canvas."""

    contract: ModelContract
    engine: str
    low: float = float("inf")
    high: float = float("-inf")
    frames: int = 0


class RunCanvas:
    """The canvas of one run. The inference thread adds; any thread may read.

    Parameters
    ----------
    run, scan
        Number of the run, and its scan id.
    contract
        The contract of the model that makes the patches.
    canvas
        An empty canvas for that contract.
    """

    def __init__(self, run: int, scan: str, contract: ModelContract, canvas: Canvas) -> None:
        self.run = run
        self.scan = scan
        self.contract = contract
        self.canvas = canvas
        self.last: LatestPatch | None = None
        self.dose_scale = 1.0
        self.trajectory = Trajectory()
        self._made: list[_Made] = []
        self._lock = threading.Lock()

    @property
    def patches(self) -> int:
        """Patches on the canvas."""
        return self.canvas.patches

    def adopt(self, contract: ModelContract, canvas: Canvas) -> None:
        """Go on with another model's patches, on its empty canvas. Raises GeometryError where the pixels differ."""
        if self.canvas.patches:
            canvas.merge(self.canvas)
        with self._lock:
            self.contract, self.canvas = contract, canvas

    def note(self, last: LatestPatch, engine: str, dose_scale: float, frames: int) -> None:
        """Note that `frames` frames were added by this engine under the contract in force."""
        with self._lock:
            self.last, self.dose_scale = last, dose_scale
            if not self._made or (self._made[-1].contract, self._made[-1].engine) != (self.contract, engine):
                self._made.append(_Made(self.contract, engine))
            made = self._made[-1]
            made.low, made.high = min(made.low, dose_scale), max(made.high, dose_scale)
            made.frames += frames

    def stitched(self) -> Stitched:
        """The canvas as an image, and what it is made of."""
        with self._lock:
            canvas, contract, last = self.canvas, self.contract, self.last
            makers = tuple(Maker(m.contract, m.engine, (m.low, m.high), m.frames) for m in self._made)
        frames = canvas.patches
        number = last.frame_id if last else -1
        calibrations = {one.sigma for one in ([maker.contract for maker in makers] or [contract])}
        only = calibrations.pop() if len(calibrations) == 1 else None
        return Stitched(
            canvas.image(),
            self.scan,
            frames,
            number,
            contract.name,
            self.dose_scale,
            self.run,
            makers,
            only.numbers if only is not None else None,
        )


class Mosaic:
    """Adds patches to the canvas of their run. The inference thread adds; any thread may read or reset.

    The live canvas belongs to the newest run that has a frame.

    Parameters
    ----------
    max_pixels
        Largest number of pixels of a canvas.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._spread = False
        self._lock = threading.Lock()  # guards what follows; adding to a canvas is the canvas's own affair
        self._contract: ModelContract | None = None
        self._engine = ""
        self._live: RunCanvas | None = None
        self._finished: dict[int, RunCanvas] = {}

    def figures(self) -> CanvasFigures:
        """The figures as they are now."""
        with self._lock:
            live, size = self._live, sum(canvas.canvas.nbytes for canvas in self._finished.values())
        return CanvasFigures(live.run, live.last, live.patches, size) if live else CanvasFigures(finished_bytes=size)

    def adopt(self, contract: ModelContract, engine: str = "") -> str:
        """Stitch with another model's pixel and patch weight; what is on the live canvas stays where the pixel allows.

        Returns
        -------
        str
            Why the canvas begins anew; empty when it goes on.

        Raises
        ------
        GeometryError
            The contract's patch weight is no weight.
        """
        canvas = self._new_canvas(contract)
        live, message = self._live, ""
        if live is None:
            live = RunCanvas(0, "", contract, canvas)
        else:
            try:
                live.adopt(contract, canvas)
            except GeometryError as error:
                message = f"the canvas begins anew: {error.what}"
                live = RunCanvas(live.run, live.scan, contract, canvas)
        with self._lock:
            self._contract, self._engine, self._live = contract, engine, live
        return message

    def want_spread(self, wanted: bool) -> None:
        """Accumulate the spread of the patches on every canvas that is empty now or begins later, or on none."""
        with self._lock:
            self._spread = wanted
            canvases = [one.canvas for one in (self._live, *self._finished.values()) if one is not None]
        for canvas in canvases:
            canvas.want_spread(wanted)

    def begin(self, run: int, scan: str) -> None:
        """Prepare for frames of `run`: a run newer than the live one gets a new, empty live canvas."""
        with self._lock:
            live = self._live
            if live is not None and run <= live.run:
                return
            if self._contract is None:
                self._live = None
                return
            if live is not None and live.run:
                self._finished[live.run] = live
            self._renew(run, scan)

    def add(self, patches: Patches, run: int, dose_scale: float = 1.0) -> Laid:
        """Add a batch of one run to its canvas."""
        contract, live = self._contract, self._live
        assert contract is not None, "adopt a model first"
        assert live is not None
        target = live if run >= live.run else self._finished.get(run)
        if target is None:
            why = f"the canvas of scan {patches.placed[0].frame.scan} is gone"
            return Laid(refused=[(DropCause.LATE, why)] * len(patches.placed))
        if target.contract is not contract:
            try:
                target.adopt(contract, self._new_canvas(contract))
            except GeometryError as error:
                why = f"the canvas of scan {target.scan} is of another model: {error.what}"
                return Laid(refused=[(DropCause.LATE, why)] * len(patches.placed))
        laid = _lay(target.canvas, patches)
        if laid.stitched:
            last = laid.stitched[-1]
            index = next(i for i, placed in enumerate(patches.placed) if placed is last)
            phase = patches.phase[index].copy()
            frame = last.frame
            latest = LatestPatch(phase, frame.scan, frame.id, last.x_m, last.y_m, frame.counts, contract, patches.spec)
            target.trajectory.add((placed.x_m, placed.y_m) for placed in laid.stitched)
            target.note(latest, self._engine, dose_scale, len(laid.stitched))
        return laid

    def reset(self) -> None:
        """Begin an empty live canvas for the same run."""
        with self._lock:
            if self._live is not None:
                self._renew(self._live.run, self._live.scan)

    def canvas(self, run: int | None = None) -> RunCanvas | None:
        """The live canvas, or the canvas of a run; None where there is none. A reference keeps its memory in use."""
        with self._lock:
            live = self._live
            return live if run is None or (live is not None and live.run == run) else self._finished.get(run)

    def sizes(self) -> dict[int, int]:
        """Bytes of the finished canvases, by run."""
        with self._lock:
            return {run: canvas.canvas.nbytes for run, canvas in self._finished.items()}

    def retain(self, runs: Collection[int]) -> None:
        """Forget the finished canvases of other runs."""
        with self._lock:
            for run in [run for run in self._finished if run not in runs]:
                del self._finished[run]

    def _renew(self, run: int, scan: str) -> None:
        assert self._contract is not None
        self._live = RunCanvas(run, scan, self._contract, self._new_canvas(self._contract))

    def _new_canvas(self, contract: ModelContract) -> Canvas:
        return Canvas(contract.object_pixel_m, contract.weight(), self._max_pixels, self._spread)


def _lay(canvas: Canvas, patches: Patches) -> Laid:
    """Add the whole batch at once, or, where the canvas refuses it, patch by patch, so that only bad ones are lost.

    A position beyond the canvas's limit is counted as NoPosition.
    """
    laid = Laid()
    xy_m = np.array([(placed.x_m, placed.y_m) for placed in patches.placed], np.float64).reshape(-1, 2)
    try:
        canvas.add_batch(patches.phase, xy_m)
    except (FrameError, GeometryError):
        for placed, phase in zip(patches.placed, patches.phase, strict=True):
            try:
                canvas.add(phase, placed.x_m, placed.y_m)
            except FrameError as error:
                laid.refused.append((error.cause, str(error)))
            except GeometryError as error:
                laid.refused.append((DropCause.NO_POSITION, str(error)))
            else:
                laid.stitched.append(placed)
    else:
        laid.stitched.extend(patches.placed)
    return laid
