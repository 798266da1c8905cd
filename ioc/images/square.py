"""Which part of the pixel grid a served image shows: a square, whose size changes seldom.

Viewers lose their zoom and contrast, or stretch the picture, where an image is not square or changes its size. So the
canvas is shown within a larger square. It begins at the square of the scan before, grows by a factor when the scan
leaves it, and is trimmed when the scan is over.
"""

from __future__ import annotations

import math

from ptychostream.imaging.pixel_box import PixelBox

_FACTORS = (2, 2, 4, 8)
"""How much the side grows at its first, second, … change within a scan."""
_AT_FIRST = 4
"""Side of the first square of all, in sides of a patch or of the first image."""
_MARGIN = 1.08
_STEP = 32
_TRIMMED = 0.8
"""A finished scan's square is trimmed to less than this part of its side, or not at all."""


class ServedSquare:
    """The square of the served images. It changes its size at most four times in a scan.

    Parameters
    ----------
    patch_side
        Larger side of a patch, pixels.
    max_pixels
        A square of more pixels is not served: the image is then the canvas as it is.

    Attributes
    ----------
    box
        The square, in absolute pixels.
    """

    def __init__(self, patch_side: int, max_pixels: int = 64_000_000) -> None:
        half = _AT_FIRST * patch_side // 2
        self.box = PixelBox(-half, -half, half, half)
        self._largest = math.isqrt(max_pixels)
        self._scan: object = None
        self._first: PixelBox | None = None
        self._changes = 0

    def fit(self, used: PixelBox, scan: object, finished: bool) -> PixelBox:
        """The box to serve.

        Parameters
        ----------
        used
            Box of the pixels with a weight. Empty: the box stays as it is.
        scan
            Anything that tells scans apart.
        finished
            The scan is over.
        """
        if not used.pixels:
            return self.box
        if max(used.shape) > self._largest:
            return used
        if self._first is None or scan != self._scan:
            self._scan, self._first, self._changes = scan, used, 0
        side, before = self._side(used, finished), self.box.shape[0]
        if side != before or not self.box.contains(used):
            self._changes += side != before
            self.box = self._placed(used, side)
        return self.box

    def _side(self, used: PixelBox, finished: bool) -> int:
        side, longest = self.box.shape[0], max(used.shape)
        snug = min(_rounded(_MARGIN * longest), self._largest)
        if longest > side:
            if finished:
                return snug
            wanted = _AT_FIRST * longest if used == self._first else _FACTORS[min(self._changes, 3)] * side
            return min(max(snug, _rounded(wanted)), self._largest)
        trim = finished and self._changes < len(_FACTORS) and snug < _TRIMMED * side
        return snug if trim else side

    def _placed(self, used: PixelBox, side: int) -> PixelBox:
        """A square of `side` around `used`, with more room on the side to which the scan has grown."""
        first = self._first or used
        top = _start(used.top, used.bottom, first.top, first.bottom, side)
        left = _start(used.left, used.right, first.left, first.right, side)
        return PixelBox(top, left, top + side, left + side)


def _start(low: int, high: int, first_low: int, first_high: int, side: int) -> int:
    down, up = first_low - low, high - first_high
    share = down / (down + up) if down + up > 0 else 0.5
    return low - round((side - (high - low)) * min(max(share, 0.0), 1.0))


def _rounded(side: float) -> int:
    """`side`, rounded up to a multiple of 32."""
    return _STEP * math.ceil(side / _STEP)
