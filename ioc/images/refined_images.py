"""The images Refined, RefinedAmplitude and Probe, served as NTNDArrays beside those of the canvas."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from p4p.server import StaticProvider
from p4p.server.raw import SharedPV

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.ioc.images.served_area import displayed, place_attributes
from ptychostream.plugins.refining.live import LiveRefinement
from ptychostream.plugins.refining.refined import Refined
from ptychostream.pva.ntndarray import build
from ptychostream.pva.reading import Scalar
from ptychostream.refine.figures import RefineFigures

log = logging.getLogger(__name__)

REFINED, AMPLITUDE, PROBE = "Refined", "RefinedAmplitude", "Probe"
REFINED_IMAGES = (REFINED, AMPLITUDE, PROBE)
_UNITS = {REFINED: "rad", AMPLITUDE: "1", PROBE: "sqrt(photons)"}


_EMPTY = PhaseImage(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), (0.0, 0.0), 0.0)
_NOTHING = Refined(0, _EMPTY, _EMPTY, np.zeros((1, 1, 1), np.complex64), "", 0, "", RefineFigures(r_factor=0.0), "", -1)
"""What is served before the first image."""


def refined_attributes(refined: Refined, sha256: str, fill: float) -> dict[str, Scalar]:
    """Attributes of the three images."""
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


def _filled(image: PhaseImage) -> tuple[NDArray[np.float32], float]:
    shown, fill = displayed(image, image.box)
    return shown.phase, fill


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
    first_shape
        [H, W] of the zeros that are served until the first image.

    Attributes
    ----------
    served
        uniqueId of the last image.
    """

    def __init__(
        self, prefix: str, source: LiveRefinement, sha_of: Callable[[str], str], first_shape: tuple[int, int] = (1, 1)
    ) -> None:
        self._prefix = prefix
        self._source = source
        self._sha_of = sha_of
        self._first_shape = first_shape
        self._channels = {name: SharedPV() for name in REFINED_IMAGES}
        self.served = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refined images", daemon=True)

    def open(self) -> StaticProvider:
        """Open the channels. Returns their provider, to be served."""
        provider = StaticProvider("refined images")
        first = np.zeros(self._first_shape, np.float32)
        attributes = refined_attributes(_NOTHING, "", 0.0)
        for name, channel in self._channels.items():
            value = build(first, 0, time.time(), attributes, descriptor=name, units=_UNITS[name])
            channel.open(value)
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
        """Serve the newest image, if it is new."""
        refined = self._source.latest
        if refined is None or refined.number == self.served:
            return
        sha256, now = self._sha_of(refined.model), time.time()
        modulus = np.sqrt((np.abs(refined.probe) ** 2).sum(axis=0)).astype(np.float32)
        shown: dict[str, tuple[NDArray[np.float32], float]] = {
            PROBE: (modulus, 0.0),
            AMPLITUDE: _filled(refined.amplitude),
            REFINED: _filled(refined.phase),
        }
        for name, (array, fill) in shown.items():
            attributes = refined_attributes(refined, sha256, fill)
            value = build(array, refined.number, now, attributes, descriptor=name, units=_UNITS[name])
            self._channels[name].post(value)
        self.served = refined.number

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                self.serve()
            except Exception:
                log.exception("the refined images could not be served")
                self._stop.wait(10.0)
