"""The stitched phase against a reconstruction, on demand and when a scan ends."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptychostream.errors import ConfigError, GeometryError
from ptychostream.plugins.flow.snapshot import Stitched

if TYPE_CHECKING:
    from ptychostream.quality.quality import Quality

WITHIN, BELOW, UNKNOWN = range(3)
"""States of SSIMStatus_RBV."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compared:
    """A comparison and the scan it is about."""

    quality: Quality
    scan: str


class Comparison:
    """Compares the canvas with the reconstruction file named last.

    Parameters
    ----------
    stitched
        Gives the canvas.
    """

    def __init__(self, stitched: Callable[[], Stitched | None], reference: str = "", tolerance: float = 0.5) -> None:
        self._stitched = stitched
        self._comparing = threading.Lock()
        self.reference = reference
        self.tolerance = tolerance
        self.latest: Compared | None = None

    def run(self, stitched: Stitched | None = None) -> Compared:
        """Compare now: the canvas given, or the live one.

        Raises
        ------
        ConfigError
            No reference is named.
        ScanFileError
            It cannot be read.
        GeometryError
            There is nothing on the canvas, or it does not overlap the reference.
        """
        # Imported here: scikit-image and scipy would cost the IOC a second of its start.
        from ptychostream.quality.quality import compare
        from ptychostream.scans.reconstruction_file import read_reconstruction

        with self._comparing:
            if not self.reference:
                remedy = "write a reconstruction's path to it"
                raise ConfigError("no reference named", where="SSIMReference", remedy=remedy)
            stitched = stitched or self._stitched()
            if stitched is None or stitched.frames == 0:
                raise GeometryError("the canvas is empty", where="CompareSSIM", remedy="stream a scan first")
            reference = read_reconstruction(self.reference)
            compared = Compared(compare(stitched.image, reference.phase_image()), stitched.scan)
            log.info("scan %s: SSIM %.3f, at 1 px %.3f, r %.3f", compared.scan, compared.quality.ssim,
                     compared.quality.ssim_1px, compared.quality.pearson)  # fmt: skip
            self.latest = compared
            return compared

    @property
    def status(self) -> int:
        """`WITHIN` or `BELOW` the tolerance by the latest comparison; `UNKNOWN` where there is none, or no figure."""
        mismatch = 1.0 - self.latest.quality.ssim_1px if self.latest is not None else math.nan
        return UNKNOWN if math.isnan(mismatch) else BELOW if mismatch > self.tolerance else WITHIN
