"""The images Refined, RefinedAmplitude and Probe, served as NTNDArrays beside those of the canvas.

Refined and RefinedAmplitude are square by the rules of Phase (`square`). After a change of size the image is sent once
more: some viewers do not show an image well whose size differs from the one before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from p4p.server import StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.ioc.images.served_area import ServedArea, canvas_attributes, displayed, place_attributes
from ptychostream.ioc.images.square import ServedSquare
from ptychostream.plugins.flow.snapshot import RunFigures
from ptychostream.plugins.refining.live import LiveRefinement
from ptychostream.plugins.refining.refined import Refined
from ptychostream.pva.ntndarray import build
from ptychostream.pva.reading import Scalar
from ptychostream.refine.figures import RefineFigures

log = logging.getLogger(__name__)

REFINED, AMPLITUDE, PROBE = "Refined", "RefinedAmplitude", "Probe"
REFINED_IMAGES = (REFINED, AMPLITUDE, PROBE)
_UNITS = {REFINED: "rad", AMPLITUDE: "1", PROBE: "sqrt(counts)"}


_EMPTY = PhaseImage(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), (0.0, 0.0), 0.0)
_NOTHING = Refined(0, _EMPTY, _EMPTY, np.zeros((1, 1, 1), np.complex64), "", 0, "", RefineFigures(r_factor=0.0), "", -1)
"""What is served before the first image."""


def refined_attributes(refined: Refined, sha256: str, fill: float) -> dict[str, Scalar]:
    """Attributes of the three images; `refined` as it is served."""
    figures = refined.figures
    return {
        "ScanID": refined.scan,
        "ModelVersion": refined.model,
        "ModelSHA": sha256,
        "ProbeSource": refined.probe_source,
        **place_attributes(refined.phase),
        "RFactor": float(figures.r_factor),
        "Passes": float(figures.passes),
        "FillValue": fill,
        "FramesRefined": int(figures.frames),
        "LastFrameId": int(refined.last_frame_id),
        "Converged": int(figures.converged),
    }


class RefinedImages:
    """Serves the newest refined image, in a thread of its own.

    Parameters
    ----------
    prefix
        Of the channel names.
    source
        Gives the refined images.
    sha_of
        Gives the sha256 of a model by its contract's name.
    runs
        Gives the runs of the pipeline.
    patch_shape
        [h, w] of a patch. It sets the size of the zeros that are served until the first image.
    max_pixels
        Largest number of pixels of a square. Beyond it, the image is served as it is.

    Attributes
    ----------
    served
        uniqueId of the last image.
    area
        Where the last image lies. Its pixel is 0 before the first.
    """

    def __init__(
        self,
        prefix: str,
        source: LiveRefinement,
        sha_of: Callable[[str], str],
        runs: Callable[[], Iterable[RunFigures]],
        patch_shape: tuple[int, int] = (128, 128),
        max_pixels: int = 64_000_000,
    ) -> None:
        self._prefix = prefix
        self._source = source
        self._sha_of = sha_of
        self._runs = runs
        self._patch_shape = patch_shape
        self._square = ServedSquare(max(patch_shape), max_pixels)
        self._channels = {name: SharedPV() for name in REFINED_IMAGES}
        self.served = 0
        self.area = ServedArea(PixelBox(0, 0, 0, 0), self._square.box, 0.0)
        self._finished = False
        self._once_more = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refined images", daemon=True)

    def open(self) -> StaticProvider:
        """Open the channels. Returns their provider, to be served."""
        provider = StaticProvider("refined images")
        attributes = refined_attributes(_NOTHING, "", 0.0)
        canvas = canvas_attributes((slice(0, 0), slice(0, 0)))
        for name, channel in self._channels.items():
            first = np.zeros(self._patch_shape if name == PROBE else self._square.box.shape, np.float32)
            told = attributes if name == PROBE else attributes | canvas
            channel.open(build(first, 0, time.time(), told, descriptor=name, units=_UNITS[name]))
            provider.add(f"{self._prefix}{name}", channel)
        return provider

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the newest image is served."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
            self.serve()

    def serve(self) -> None:
        """Serve the newest image, if it is new, or its scan is over, or the last one changed the size."""
        refined = self._source.latest
        if refined is None:
            return
        finished = self._is_finished(refined)
        if refined.number == self.served and finished == self._finished and not self._once_more:
            return
        box = self._square.fit(refined.phase.box, (refined.run, refined.phase.pixel_m), finished)
        self._once_more = box.shape != self.area.shape
        self.area = ServedArea(refined.phase.box, box, refined.phase.pixel_m)
        self._post(refined, box)
        self.served, self._finished = refined.number, finished

    def _post(self, refined: Refined, box: PixelBox) -> None:
        sha256, now = self._sha_of(refined.model), time.time()
        modulus = np.sqrt((np.abs(refined.probe) ** 2).sum(axis=0)).astype(np.float32)
        shown: list[tuple[str, NDArray[np.float32], dict[str, Scalar]]] = [
            (PROBE, modulus, refined_attributes(refined, sha256, 0.0))
        ]
        for name, image in ((AMPLITUDE, refined.amplitude), (REFINED, refined.phase)):
            square, fill = displayed(image, box)
            told = refined_attributes(replace(refined, phase=square), sha256, fill)
            shown.append((name, square.phase, told | canvas_attributes(self.area.part)))
        for name, array, attributes in shown:
            value = build(array, refined.number, now, attributes, descriptor=name, units=_UNITS[name])
            self._channels[name].post(value)

    def _is_finished(self, refined: Refined) -> bool:
        """Whether its scan is over, and every frame of it is in the image."""
        over = any(run.number == refined.run and not run.active and not run.pending for run in self._runs())
        return over and refined.taken == self._source.queued

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                self.serve()
            except Exception:
                log.exception("the refined images could not be served")
                self._stop.wait(10.0)
