"""Start a reconstruction from the phase that a network stitched while the scan ran.

The canvas of a live scan shows the sample before the first iteration. With the probe of the previous scan ePIE only
refines it. Canvas and probe are each known except for a constant and a linear phase. These are removed here in the
same way as from a reconstruction (see `gauge`), so that canvas and probe fit together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import measured_area
from ptychostream.reconstruct.gauge import phase_slope
from ptychostream.reconstruct.grid import ObjectGrid


def object_from_phase(image: PhaseImage, grid: ObjectGrid) -> NDArray[np.complex64]:
    """An object of modulus 1 with the phase of `image`, on `grid`.

    Constant and linear phase are removed. Outside the `measured_area` of the image the object is 1.

    Parameters
    ----------
    image
        A stitched phase in the axes of the scan's positions. Its pixel size and origin may differ from the grid's.

    Returns
    -------
    [Ho, Wo] complex64
    """
    known = measured_area(image)
    if not known.any():
        return np.ones(grid.shape, np.complex64)
    field = np.where(known, np.exp(1j * np.where(known, image.phase, 0)), 0).astype(np.complex64)
    weight = np.where(known, image.weight, 0).astype(np.float32)
    slope = phase_slope(field, weight / weight.max())
    rows, columns = np.indices(field.shape, dtype=np.float32)
    field = field * np.exp(-1j * (slope[0] * rows + slope[1] * columns))
    field = field * np.exp(-1j * np.angle((weight * field).sum(dtype=np.complex128)))
    places = _places(image, grid)
    sampled = [ndimage.map_coordinates(part, places, order=3, mode="nearest") for part in (field.real, field.imag)]
    inside = ndimage.map_coordinates(known.astype(np.float32), places, order=1, mode="constant", cval=0) > 0.5
    drawn = sampled[0] + 1j * sampled[1]
    size = np.abs(drawn)
    usable = inside & (size > 0)
    return np.where(usable, drawn / np.where(usable, size, 1), 1).astype(np.complex64)


def _places(image: PhaseImage, grid: ObjectGrid) -> NDArray[np.float64]:
    """[2, Ho, Wo] (row, column) of the grid's pixels in `image`."""
    axes = []
    for axis in (0, 1):
        origin, other = grid.origin_m[1 - axis], image.origin_m[1 - axis]
        axes.append((origin - other + grid.pixel_m * np.arange(grid.shape[axis])) / image.pixel_m)
    return np.stack(np.meshgrid(*axes, indexing="ij"))
