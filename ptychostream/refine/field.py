"""The refined object on the canvas's own pixel grid. It grows with the scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox

DRAWN = 0.01
"""The network's phase counts where its canvas has at least this part of its largest weight. Below lie the outermost
rims of patches. A tenth left out what single patches show around the beam, and the image was worse than the network's
where frames share nothing."""
FRESH = 0.05
"""Pixels that were measured less often follow the network's phase as it changes."""

SEEN = 0.02
"""Pixels below this part of the most visits are not shown, as in a reconstruction's coverage."""


class RefinedField:
    """Object, the network's phase, and how often each pixel was measured.

    Pixel (row, column) is centred on (column, row) · pixel, as on the canvas (`ptychostream.imaging.stitching`), so
    that the network's phase needs no interpolation.

    Parameters
    ----------
    pixel_m
        Size of a pixel.
    max_pixels
        Largest number of pixels, each of 21 bytes.

    Attributes
    ----------
    object, prior
        [2, H, W] float32, real and imaginary part. The prior has modulus 1; it is 0 where the network drew nothing.
    visits
        [H, W] float32: Σ|P|² / max|P|² over the frames.
    drawn
        [H, W] whether the network has shown the pixel so far.
    box
        Absolute pixels that the arrays cover.
    """

    def __init__(self, pixel_m: float, max_pixels: int = 64_000_000) -> None:
        self.pixel_m = pixel_m
        self.max_pixels = max_pixels
        self.box = PixelBox(0, 0, 0, 0)
        self.object = np.zeros((2, 0, 0), np.float32)
        self.prior = np.zeros((2, 0, 0), np.float32)
        self.visits = np.zeros((0, 0), np.float32)
        self.drawn = np.zeros((0, 0), np.bool_)
        self._elsewhere = np.complex64(1)  # what pixels that the network has not drawn begin with

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (self.object, self.prior, self.visits, self.drawn))

    def corners(self, positions_m: NDArray[np.float64], size: int) -> NDArray[np.int64]:
        """[N, 2] absolute (row, column) of pixel [0, 0] of the windows around `positions_m` [N, 2]."""
        return np.rint(positions_m[:, ::-1] / self.pixel_m).astype(np.int64) - size // 2

    def reserve(self, corner: NDArray[np.int64], size: int) -> None:
        """Cover the window of `size` × `size` pixels at an absolute corner.

        Raises
        ------
        ReconstructionError
            The field would be too large.
        """
        row, column = (int(start) for start in corner)
        window = PixelBox(row, column, row + size, column + size)
        if self.box.pixels and self.box.contains(window):
            return
        base = self.box.union(window) if self.box.pixels else window
        if base.pixels > self.max_pixels:
            raise ReconstructionError(
                f"a position makes {base.shape[0]} × {base.shape[1]} pixels, more than {self.max_pixels}",
                where="refinement",
                remedy="check the positions' unit, or raise max_canvas_pixels",
            )
        wide = self.box.widened(window) if self.box.pixels else base
        self._move(wide if wide.pixels <= self.max_pixels else base)

    def guide(self, image: PhaseImage) -> None:
        """Take the network's phase as it is now.

        Pixels that were hardly measured follow it. Those that it shows for the first time begin with it, too, whatever
        was made of them until now: where the canvas is read late, frames were used before it showed anything there,
        and what they make from nothing is worse than the network's and hardly recovers where frames overlap little.
        """
        there = image.box
        box = self.box.intersection(there)
        if box is None:
            return
        inner, drawn = self.box.slices(box), there.slices(box)
        weight = image.weight[drawn]
        known = np.isfinite(image.phase[drawn]) & (weight > 0)
        if not known.any():
            return
        known &= weight >= DRAWN * image.weight.max()
        phase = np.where(known, image.phase[drawn], 0)
        phasor = np.exp(1j * phase.astype(np.float32)).astype(np.complex64)
        mean = (phasor * known).sum(dtype=np.complex128)
        self._elsewhere = np.complex64(mean / abs(mean)) if abs(mean) > 0 else np.complex64(1)
        self.prior[:, inner[0], inner[1]] = np.where(known, [phasor.real, phasor.imag], 0)
        fresh = self.visits < FRESH
        first = known & ~self.drawn[inner]
        fresh[inner] |= first
        self.drawn[inner] |= known
        drawn_now = (self.prior != 0).any(axis=0)
        for part, elsewhere in enumerate((self._elsewhere.real, self._elsewhere.imag)):
            value = np.where(drawn_now, self.prior[part], elsewhere)
            np.copyto(self.object[part], value, where=fresh)

    def shown(self, of: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]) -> PhaseImage:
        """An image of a function of the object's real and imaginary part, on the measured pixels only."""
        visits, held = self.visits, self.box
        seen = visits > SEEN * visits.max() if visits.size else visits > 0
        box = held.around(seen)
        if not box.pixels:
            return PhaseImage(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), (0.0, 0.0), self.pixel_m)
        part = held.slices(box)
        shown = np.where(seen[part], of(*self.object[:, part[0], part[1]]), np.nan).astype(np.float32)
        weight = np.where(seen[part], visits[part], 0).astype(np.float32)
        return PhaseImage(shown, weight, (box.left * self.pixel_m, box.top * self.pixel_m), self.pixel_m)

    def begin_anew(self) -> None:
        """Empty the object: the value that pixels begin with, everywhere."""
        self.object[0], self.object[1] = self._elsewhere.real, self._elsewhere.imag

    def _move(self, box: PixelBox) -> None:
        inner = box.slices(self.box) if self.box.pixels else None
        fields = self.object, self.prior, self.visits, self.drawn
        try:
            self.object, self.prior = (np.zeros((2, *box.shape), np.float32) for _ in range(2))
            self.visits = np.zeros(box.shape, np.float32)
            self.drawn = np.zeros(box.shape, np.bool_)
        except MemoryError as error:
            self.object, self.prior, self.visits, self.drawn = fields
            raise ReconstructionError(
                f"no memory for {box.shape[0]} × {box.shape[1]} pixels",
                where="refinement",
                remedy="limit the field of view",
            ) from error
        self.object[0], self.object[1] = self._elsewhere.real, self._elsewhere.imag
        self.box = box
        if inner is not None:
            for new, kept in zip((self.object, self.prior, self.visits, self.drawn), fields, strict=True):
                new[..., inner[0], inner[1]] = kept
