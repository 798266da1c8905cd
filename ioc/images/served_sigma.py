"""What the image PhaseSigma is made of: its pixels and its attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.imaging.sigma import CALIBRATED, OFF, PhaseSigma
from ptychostream.ioc.images.served_area import displayed
from ptychostream.pva.reading import Scalar


@dataclass(frozen=True)
class ServedSigma:
    """Median (rad) and kind of the last image; NaN and `OFF` where none is served."""

    median: float = math.nan
    kind: str = OFF

    def status(self, limit: float) -> int:
        """0: the median is at most `limit` rad. 1: it is larger. 2: it is not known."""
        return 2 if math.isnan(self.median) else int(self.median > limit)

    @property
    def calibrated(self) -> bool:
        """Whether it is a standard deviation."""
        return self.kind == CALIBRATED


def displayed_sigma(image: PhaseImage, sigma: PhaseSigma | None, box: PixelBox) -> tuple[NDArray[np.float32], float]:
    """The pixels that are served, and the value of those whose error is not known: the mean of the others.

    Parameters
    ----------
    image
        The phase that the error belongs to.
    sigma
        Its error; None gives zeros.
    box
        Absolute pixels to show. They contain those of the image.
    """
    if sigma is None:
        return np.zeros(box.shape, np.float32), 0.0
    known = np.isfinite(sigma.values).astype(np.float32)
    square, fill = displayed(replace(image, phase=sigma.values, weight=known), box)
    return square.phase, fill


def sigma_attributes(sigma: PhaseSigma | None) -> dict[str, Scalar]:
    """What PhaseSigma says besides what Phase says: what it is, and its calibration (rad)."""
    if sigma is None:
        return {"SigmaKind": OFF, "SigmaFactor": 0.0, "SigmaFloor": 0.0, "SigmaMedian": math.nan}
    return {
        "SigmaKind": sigma.kind,
        "SigmaFactor": float(sigma.factor),
        "SigmaFloor": float(sigma.floor_rad),
        "SigmaMedian": sigma.median,
    }
