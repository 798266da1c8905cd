"""The images Phase, Weight and Patch, served as NTNDArrays by a PVA server of p4p.

Phase is float32 in rad, uncompressed, as every viewer reads it. Viewers differ in what they show for NaN, so pixels
without a measurement hold the mean of the measured ones; the image Weight, with the same uniqueId and served before
Phase, is exactly 0 there. Images are made in a thread of their own, at most `rate_hz` times a second, when something
has changed. The server keeps the newest image for a client that does not read, and does not wait for it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.plugins.flow.snapshot import LatestPatch, Snapshot, Stitched
from ptychostream.plugins.stage_times import StageTimes
from ptychostream.pva.channel_list import IMAGES, list_channel
from ptychostream.pva.ntndarray import build
from ptychostream.pva.server import port_of, serve

log = logging.getLogger(__name__)

PHASE, WEIGHT, PATCH = "Phase", "Weight", "Patch"
_UNITS = {PHASE: "rad", WEIGHT: "patches", PATCH: "rad"}
_EMPTY = np.zeros((1, 1), np.float32)

Scalar = float | int | str


class ImageSource(Protocol):
    """The source of the images, such as a `Pipeline`."""

    def snapshot(self) -> Snapshot: ...

    def stitched(self) -> Stitched | None: ...


def displayed(phase: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The phase that is served, and the value of its pixels without a measurement.

    Parameters
    ----------
    phase
        [H, W] rad.
    weight
        [H, W], 0 where nothing was measured.

    Returns
    -------
    phase, fill
        [H, W] with the mean of the measured pixels where the weight is 0, and that mean, which is exact in float32;
        0 without such pixels. A canvas without a pixel becomes one of 1 × 1.
    """
    if phase.size == 0:
        return _EMPTY, 0.0
    measured = weight > 0
    count = int(np.count_nonzero(measured))
    if count == phase.size:
        return phase, 0.0
    fill = np.float32(np.sum(phase, where=measured, dtype=np.float64) / count if count else 0.0)
    return np.where(measured, phase, fill), float(fill)


def phase_attributes(stitched: Stitched, sha256: str, fill: float) -> dict[str, Scalar]:
    """Attributes of Phase and Weight: scan, model, and the origin of the canvas in metres; `fill` in rad."""
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
    """Attributes of the latest patch: scan, model, and the position of its centre in metres."""
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
    """Serves the three images. They are read-only for every client, whatever the access security file says.

    Parameters
    ----------
    prefix
        Of the channel names.
    source
        The source of the images.
    sha_of
        Gives the sha256 of a model by its contract's name.
    rate_hz
        The largest number of images per second.
    times
        Records every image that is published.
    first_shape
        [H, W] of the images that are served until the first frame is stitched: zeros, with uniqueId 0. A reader
        thus always gets an image; a gateway cannot pass one on whose union has no field selected.
    port
        TCP port of the server. 0: any free one.
    others
        Names of images that other providers serve; the list of images has them too.

    Attributes
    ----------
    port
        TCP port that the images are served at; 0 before they are.
    served
        How many images of the canvas were served; the uniqueId of the last one.
    last_s
        Seconds that the last one took; NaN before any.
    failure
        Why the last image was not served. "": it was.
    size
        [H, W] of the canvas that was served last.
    """

    def __init__(
        self,
        prefix: str,
        source: ImageSource,
        sha_of: Callable[[str], str],
        rate_hz: float = 5.0,
        times: StageTimes | None = None,
        first_shape: tuple[int, int] = (1, 1),
        port: int = 0,
        others: Sequence[str] = (),
    ) -> None:
        self._wanted_port = port
        self._others = tuple(others)
        self.port = 0
        self._channels = {name: SharedPV() for name in _UNITS}
        self._first_shape = first_shape
        self._prefix = prefix
        self._source = source
        self._sha_of = sha_of
        self._times = times or StageTimes()
        self.rate_hz = rate_hz
        self.served = 0
        self.last_s = math.nan
        self.failure = ""
        self.size = (0, 0)
        self._shown: tuple[object, ...] | None = None
        self._patch_shown: LatestPatch | None = None
        self._patches = 0
        self._serving = threading.Lock()
        self._server: Server | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="images", daemon=True)

    @property
    def running(self) -> bool:
        """Whether images are served."""
        return self._thread.is_alive()

    def start(self, *others: StaticProvider) -> None:
        """Open the channels, and serve them and those of other providers."""
        first = np.zeros(self._first_shape, np.float32)
        nothing = Stitched(PhaseImage(first, first, (0.0, 0.0), 0.0), "", 0, -1, "", 1.0)
        canvas = phase_attributes(nothing, "", 0.0)
        patch = patch_attributes(LatestPatch(first, "", -1, 0.0, 0.0), self._source.snapshot(), "")
        provider = StaticProvider("images")
        for name, channel in self._channels.items():
            channel.open(_image(name, first, 0, time.time(), patch if name == PATCH else canvas))
            provider.add(f"{self._prefix}{name}", channel)
        provider.add(f"{self._prefix}{IMAGES}", list_channel((*self._channels, *self._others)))
        self._server = serve([provider, *others], self._wanted_port)
        self.port = port_of(self._server)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, serve the newest images, and close the channels."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self.serve()
        if self._server is not None:
            self._server.stop()

    def serve(self, again: bool = False) -> None:
        """Serve the images that have changed since the last call. With `again`, serve all."""
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
            if stitched is not None and (stitched.image.phase.size or self.served):
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
        for name, array in ((WEIGHT, weight), (PHASE, phase)):
            self._channels[name].post(_image(name, array, number, time_s, attributes))
        self.served, self.size = number, stitched.image.phase.shape

    def _serve_patch(self, snapshot: Snapshot, patch: LatestPatch) -> None:
        self._patches += 1
        attributes = patch_attributes(patch, snapshot, self._sha_of(snapshot.model))
        self._channels[PATCH].post(_image(PATCH, patch.phase, self._patches, time.time(), attributes))
        self._patch_shown = patch

    def _run(self) -> None:
        while not self._stop.wait(1.0 / self.rate_hz):
            try:
                self.serve()
                self.failure = ""
            except Exception as error:
                if str(error) != self.failure:
                    log.exception("the images could not be served")
                self.failure = str(error)


def _image(
    name: str, array: NDArray[np.float32], number: int, time_s: float, attributes: Mapping[str, Scalar]
) -> Value:
    return build(array, number, time_s, attributes, descriptor=name, units=_UNITS[name])
