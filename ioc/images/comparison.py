"""Compares the stitched phase with a reconstruction, on demand and at the end of a scan."""

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
    """A comparison, and the scan that was compared."""

    quality: Quality
    scan: str


class Comparison:
    """Compares the canvas with the reconstruction file that was named last.

    Parameters
    ----------
    stitched
        Gives the canvas as an image.
    """

    def __init__(self, stitched: Callable[[], Stitched | None], reference: str = "", tolerance: float = 0.5) -> None:
        self._stitched = stitched
        self._comparing = threading.Lock()
        self.reference = reference
        self.tolerance = tolerance
        self.latest: Compared | None = None

    def run(self, stitched: Stitched | None = None) -> Compared:
        """Compare the given canvas, or the live one, now.

        Raises
        ------
        ConfigError
            No reference is named.
        ScanFileError
            The reference cannot be read.
        GeometryError
            The canvas is empty, or does not overlap the reference.
        """
        # Imported here: scikit-image and scipy would cost the IOC a second of its start.
        from ptychostream.quality.quality import compare
        from ptychostream.ioc.images.reference_file import read_reference

        with self._comparing:
            if not self.reference:
                remedy = "write a reconstruction's path to it"
                raise ConfigError("no reference named", where="SSIMReference", remedy=remedy)
            stitched = stitched or self._stitched()
            if stitched is None or stitched.frames == 0:
                raise GeometryError("the canvas is empty", where="CompareSSIM", remedy="stream a scan first")
            reference = read_reference(self.reference)
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
