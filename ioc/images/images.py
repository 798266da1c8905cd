"""The images, served as NTNDArrays by a PVA server of pvapy in this process: Phase, Weight and Patch.

Phase is float32 rad, uncompressed, as every viewer reads it. Where nothing was measured viewers would show NaN as
they please, so those pixels hold the mean of the measured ones; the image Weight, with the same uniqueId and served
before it, is 0 exactly there. Images are made on their own thread, at most `rate` times a second and only when
something changed; a client that does not read is skipped by the server and holds nobody up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from ptychostream.ioc.records import preflight
from ptychostream.plugins.flow.snapshot import LatestPatch, Snapshot, Stitched
from ptychostream.plugins.stage_times import StageTimes
from ptychostream.pva.ntndarray import build

log = logging.getLogger(__name__)

PHASE, WEIGHT, PATCH = "Phase", "Weight", "Patch"
_READ_LEVEL = 1
_EMPTY = np.zeros((1, 1), np.float32)

Scalar = float | int | str


class ImageSource(Protocol):
    """What images are made from; a `Pipeline` is one."""

    def snapshot(self) -> Snapshot: ...

    def stitched(self) -> Stitched | None: ...


def displayed(phase: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Phase with its unmeasured pixels filled for display, and the fill: the mean of the measured ones.

    A canvas without a pixel becomes one of 1 × 1.
    """
    if phase.size == 0:
        return _EMPTY, 0.0
    measured = weight > 0
    count = int(np.count_nonzero(measured))
    if count == phase.size:
        return phase, 0.0
    fill = float(np.sum(phase, where=measured, dtype=np.float64) / count) if count else 0.0
    return np.where(measured, phase, np.float32(fill)), fill


def phase_attributes(stitched: Stitched, sha256: str, fill: float) -> dict[str, Scalar]:
    """The NTNDArray attributes that say what an image shows and where it lies; metres and radians."""
    return {
        "ScanID": stitched.scan,
        "ModelVersion": stitched.model,
        "ModelSHA": sha256,
        "DoseScale": float(stitched.dose_scale),
        "PixelSize": float(stitched.image.pixel_m),
        "OriginX": float(stitched.image.origin_m[0]),
        "OriginY": float(stitched.image.origin_m[1]),
        "FramesStitched": int(stitched.frames),
        "LastFrameId": int(stitched.last_frame_id),
        "FillValue": fill,
    }


def patch_attributes(patch: LatestPatch, snapshot: Snapshot, sha256: str) -> dict[str, Scalar]:
    """Attributes of the latest patch: what made it and where its centre lies, metres."""
    return {
        "ScanID": patch.scan,
        "ModelVersion": snapshot.model,
        "ModelSHA": sha256,
        "DoseScale": float(snapshot.dose_scale),
        "PositionX": float(patch.x_m),
        "PositionY": float(patch.y_m),
        "LastFrameId": int(patch.frame_id),
    }


class ImageServer:
    """Serves the three images; nobody can write to them.

    Parameters
    ----------
    prefix
        Of the channel names.
    source
        Where the images come from.
    sha_of
        sha256 of a model by its contract's name.
    access
        Access security file and its macros, the one that the records have.
    rate_hz
        Images a second at most.
    times
        Told of every image that is published.
    """

    def __init__(
        self,
        prefix: str,
        source: ImageSource,
        sha_of: Callable[[str], str],
        access: tuple[Path, str],
        rate_hz: float = 5.0,
        times: StageTimes | None = None,
    ) -> None:
        self._names = {name: f"{prefix}{name}" for name in (PHASE, WEIGHT, PATCH)}
        self._source = source
        self._sha_of = sha_of
        self._times = times or StageTimes()
        self.rate_hz = rate_hz
        self.served = 0
        self.last_s = 0.0
        self.failure = ""
        self.size = (0, 0)
        self._shown: tuple[object, ...] | None = None
        self._patch_shown: LatestPatch | None = None
        self._patches = 0
        self._serving = threading.Lock()
        self._access = access
        self._server: Any = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="images", daemon=True)

    @property
    def running(self) -> bool:
        """Whether images are served."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Open the channels. After iocInit: the records' own PVA server takes the port that was asked for."""
        preflight.use_free_port_for_images()
        self._server = pva.PvaServer()
        for name in self._names.values():
            self._server.addRecordWithAs(name, pva.NtNdArray(), _READ_LEVEL, "READONLY", None)
        path, macros = self._access
        self._server.initAs(str(path), macros)
        self._server.start()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, serve what is newest, and close the channels."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self.serve()
            self._server.stop()

    def serve(self, again: bool = False) -> None:
        """Serve what changed since the last call; with `again` whatever there is."""
        with self._serving:
            if again:
                self._shown = None
            self._serve()

    def _serve(self) -> None:
        snapshot = self._source.snapshot()
        now = (snapshot.batches, snapshot.scan, snapshot.scan_stitched, snapshot.model)
        if now == self._shown:
            return
        start = time.perf_counter()
        with self._times.serving() as publication:
            stitched = self._source.stitched()
            if stitched is not None:
                self._serve_canvas(stitched)
                if stitched.run == self._times.run:
                    publication.published(time.monotonic())
        if snapshot.patch is not None and snapshot.patch is not self._patch_shown:
            self._serve_patch(snapshot, snapshot.patch)
        self._shown = now
        self.last_s = time.perf_counter() - start

    def _serve_canvas(self, stitched: Stitched) -> None:
        phase, fill = displayed(stitched.image.phase, stitched.image.weight)
        weight = stitched.image.weight if stitched.image.weight.size else _EMPTY
        attributes = phase_attributes(stitched, self._sha_of(stitched.model), fill)
        number, time_s = self.served + 1, time.time()
        self._update(WEIGHT, weight, number, time_s, attributes, "patches")
        self._update(PHASE, phase, number, time_s, attributes, "rad")
        self.served, self.size = number, stitched.image.phase.shape

    def _serve_patch(self, snapshot: Snapshot, patch: LatestPatch) -> None:
        self._patches += 1
        attributes = patch_attributes(patch, snapshot, self._sha_of(snapshot.model))
        self._update(PATCH, patch.phase, self._patches, time.time(), attributes, "rad")
        self._patch_shown = patch

    def _update(
        self,
        name: str,
        array: NDArray[np.float32],
        number: int,
        time_s: float,
        attributes: Mapping[str, Scalar],
        units: str,
    ) -> None:
        nt = build(array, number, time_s, attributes, descriptor=name, units=units)
        self._server.update(self._names[name], nt)

    def _run(self) -> None:
        while not self._stop.wait(1.0 / self.rate_hz):
            try:
                self.serve()
                self.failure = ""
            except Exception as error:
                if str(error) != self.failure:
                    log.exception("the images could not be served")
                self.failure = str(error)
