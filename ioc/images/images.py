"""The images Phase, PhaseSigma, Weight, Patch and Pattern, served as NTNDArrays by a PVA server of p4p.

Phase is float32 in rad, uncompressed, as every viewer reads it, and square (`square`). Viewers differ in what they show
for NaN, so pixels without a measurement hold the mean of the measured ones; the image Weight, with the same uniqueId
and served before Phase, is exactly 0 there. PhaseSigma is the error of Phase, served where the spread of the patches is
accumulated. Pattern is the detector's frame that the patch was inferred from, decoded.
It is served while a client watches it. Images are made in a thread of their own, at most `rate_hz` times a second, when
something has changed; those of a finished scan are sent twice. The server keeps the newest image for a client that
does not read, and does not wait for it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.imaging.sigma import OFF
from ptychostream.ioc.images.served_area import ServedArea, displayed, patch_attributes, phase_attributes
from ptychostream.ioc.images.served_sigma import ServedSigma, displayed_sigma, sigma_attributes
from ptychostream.ioc.images.square import ServedSquare
from ptychostream.pva.reading import Scalar
from ptychostream.plugins.flow.snapshot import LatestPatch, Snapshot, Stitched
from ptychostream.plugins.stage_times import StageTimes
from ptychostream.pva.channel_list import IMAGES, list_channel
from ptychostream.pva.ntndarray import build
from ptychostream.pva.server import port_of, serve

log = logging.getLogger(__name__)

PHASE, SIGMA, WEIGHT, PATCH, PATTERN = "Phase", "PhaseSigma", "Weight", "Patch", "Pattern"
UNITS = {PHASE: "rad", SIGMA: "rad", WEIGHT: "patches", PATCH: "rad", PATTERN: "counts"}
"""Unit of each image, by its name."""


class ImageSource(Protocol):
    """The source of the images, such as a `Pipeline`."""

    def snapshot(self) -> Snapshot: ...

    def stitched(self) -> Stitched | None: ...


class ImageServer:
    """Serves the images. They are read-only for every client, whatever the access security file says.

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
    patch_shape
        [h, w] of a patch, as far as it is known at the start. Until the first frame is stitched, images of zeros are
        served, with uniqueId 0. A reader thus always gets an image; a gateway cannot pass one on whose union has no
        field selected.
    port
        TCP port of the server. 0: any free one.
    others
        Names of images that other providers serve; the list of images has them too.
    max_pixels
        Largest number of pixels of a square. Beyond it, the canvas is served as it is.

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
    sigma
        Median and kind of the last image PhaseSigma; NaN and `OFF` where none is served.
    area
        Where the images that were served last lie. Its pixel is 0 before a canvas was served.
    """

    def __init__(
        self,
        prefix: str,
        source: ImageSource,
        sha_of: Callable[[str], str],
        rate_hz: float = 5.0,
        times: StageTimes | None = None,
        patch_shape: tuple[int, int] = (128, 128),
        port: int = 0,
        others: Sequence[str] = (),
        max_pixels: int = 64_000_000,
    ) -> None:
        self._wanted_port = port
        self._others = tuple(others)
        self.port = 0
        self._channels = {name: SharedPV(handler=self if name == PATTERN else None) for name in UNITS}
        self._patch_shape = patch_shape
        self._square = ServedSquare(max(patch_shape), max_pixels)
        self._watched = False
        self._prefix = prefix
        self._source = source
        self._sha_of = sha_of
        self._times = times or StageTimes()
        self.rate_hz = rate_hz
        self.served = 0
        self.last_s = math.nan
        self.failure = ""
        self.sigma = ServedSigma()
        self.area = ServedArea(PixelBox(0, 0, 0, 0), self._square.box, 0.0)
        self._shown: tuple[object, ...] | None = None
        self._once_more = False
        self._patch_shown: LatestPatch | None = None
        self._pattern_shown: LatestPatch | None = None
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
        empty = np.zeros((0, 0), np.float32)
        nothing = Stitched(PhaseImage(empty, empty, (0.0, 0.0), 0.0), "", 0, -1, "", 1.0)
        first, patch = displayed(nothing.image, self._square.box)[0].phase, np.zeros(self._patch_shape, np.float32)
        canvas = phase_attributes(nothing, "", 0.0, (slice(0, 0), slice(0, 0)))
        about = patch_attributes(LatestPatch(patch, "", -1, 0.0, 0.0), self._source.snapshot(), "")
        provider = StaticProvider("images")
        for name, array, attributes in (
            (PHASE, first, canvas),
            (SIGMA, first, canvas | sigma_attributes(None)),
            (WEIGHT, first, canvas),
            (PATCH, patch, about),
            (PATTERN, patch.astype(np.uint16), about),
        ):
            self._channels[name].open(_image(name, array, 0, time.time(), attributes))
            provider.add(f"{self._prefix}{name}", self._channels[name])
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
        now = (snapshot.batches, snapshot.scan, snapshot.scan_stitched, snapshot.model, snapshot.scan_active)
        again = now == self._shown
        if again and not self._once_more:
            return
        start = time.perf_counter()
        with self._times.serving() as publication:
            stitched = self._source.stitched()
            if stitched is not None and (stitched.image.phase.size or self.served):
                finished = _is_finished(stitched, snapshot)
                self._serve_canvas(stitched, finished, self.served + (not again))
                # Some viewers do not show an image well whose size differs from the one before.
                self._once_more = finished and not again
                if stitched.run == self._times.run:
                    publication.published(time.monotonic())
        if snapshot.patch is not None and snapshot.patch is not self._patch_shown:
            self._serve_patch(snapshot, snapshot.patch)
        self._shown = now
        self.last_s = time.perf_counter() - start

    def _serve_canvas(self, stitched: Stitched, finished: bool, number: int) -> None:
        used = stitched.image.box
        box = self._square.fit(used, (stitched.run, stitched.image.pixel_m), finished)
        image, fill = displayed(stitched.image, box)
        area = ServedArea(used, box, image.pixel_m)
        attributes = phase_attributes(replace(stitched, image=image), self._sha_of(stitched.model), fill, area.part)
        time_s = time.time()
        self._channels[WEIGHT].post(_image(WEIGHT, image.weight, number, time_s, attributes))
        self._serve_sigma(stitched, box, number, time_s, attributes)
        self._channels[PHASE].post(_image(PHASE, image.phase, number, time_s, attributes))
        self.served, self.area = number, area

    def _serve_sigma(
        self, stitched: Stitched, box: PixelBox, number: int, time_s: float, attributes: dict[str, Scalar]
    ) -> None:
        """Serve the error of the image that is being served; zeros, once, where it is known no more."""
        sigma = stitched.sigma
        if sigma is None and self.sigma.kind == OFF:
            return
        array, fill = displayed_sigma(stitched.image, sigma, box)
        told = attributes | {"FillValue": fill} | sigma_attributes(sigma)
        self._channels[SIGMA].post(_image(SIGMA, array, number, time_s, told))
        self.sigma = ServedSigma(sigma.median, sigma.kind) if sigma is not None else ServedSigma()

    def _serve_patch(self, snapshot: Snapshot, patch: LatestPatch) -> None:
        self._patches += 1
        attributes = patch_attributes(patch, snapshot, self._sha_of(snapshot.model))
        self._channels[PATCH].post(_image(PATCH, patch.phase, self._patches, time.time(), attributes))
        self._patch_shown = patch
        if self._watched:
            self._serve_pattern(snapshot, patch)

    def _serve_pattern(self, snapshot: Snapshot, patch: LatestPatch) -> None:
        if patch.counts is None or patch is self._pattern_shown:
            return
        attributes = patch_attributes(patch, snapshot, self._sha_of(snapshot.model))
        self._channels[PATTERN].post(_image(PATTERN, patch.counts, self._patches, time.time(), attributes))
        self._pattern_shown = patch

    def onFirstConnect(self, _channel: SharedPV) -> None:  # noqa: N802 (the name is p4p's)
        """Serve the newest pattern to the first client of Pattern, and every one from now on."""
        self._watched = True  # without the lock: p4p's server waits for this
        if self._patch_shown is not None:
            self._serve_pattern(self._source.snapshot(), self._patch_shown)

    def onLastDisconnect(self, _channel: SharedPV) -> None:  # noqa: N802 (the name is p4p's)
        """Serve no more patterns: nobody watches."""
        self._watched = False

    def _run(self) -> None:
        while not self._stop.wait(1.0 / self.rate_hz):
            try:
                self.serve()
                self.failure = ""
            except Exception as error:
                if str(error) != self.failure:
                    log.exception("the images could not be served")
                self.failure = str(error)


def _is_finished(stitched: Stitched, snapshot: Snapshot) -> bool:
    return any(run.number == stitched.run and not run.active for run in snapshot.runs)


def _image(name: str, array: NDArray[Any], number: int, time_s: float, attributes: Mapping[str, Scalar]) -> Value:
    return build(array, number, time_s, attributes, descriptor=name, units=UNITS[name])
