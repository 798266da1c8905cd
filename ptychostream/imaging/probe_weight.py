"""The weight of each patch pixel. It is low where the probe is dark, because the pattern has no information there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ptychostream.errors import GeometryError

FLOOR = 0.01
"""Below this part of the maximum the weight is 0."""


def probe_weight(
    probe: ArrayLike,
    output_shape: tuple[int, int],
    *,
    blur_px: float = 2.0,
    pixel_ratio: float = 1.0,
) -> NDArray[np.float32]:
    """The patch weight: the blurred intensity of the probe, summed over its modes and scaled to a maximum of 1.

    Parameters
    ----------
    probe
        [H, W] or [modes, H, W] complex, on the object's pixels.
    output_shape
        (h, w) of the patch. Probe pixel [H//2, W//2] is placed on patch pixel [h//2, w//2].
    blur_px
        Standard deviation of the Gaussian blur, in probe pixels. The blur fills the fringes and the shadow of the
        central stop a little.
    pixel_ratio
        Patch pixel / probe pixel. It is below 1 if patches are finer than the probe's grid.

    Returns
    -------
    [h, w] float32, 0 … 1. Weights below 0.01 are set to 0.

    Raises
    ------
    GeometryError
        The probe has no intensity within the patch, or is not finite.

    Examples
    --------
    >>> probe_weight(np.ones((8, 8), complex), (4, 4)).shape
    (4, 4)
    """
    modes = np.asarray(probe)
    if modes.ndim not in (2, 3):
        raise GeometryError(f"probe of shape {modes.shape}", where="patch weight", remedy="give [modes, H, W]")
    height, width = modes.shape[-2:]
    intensity = (np.abs(modes.reshape(-1, height, width)).astype(np.float64) ** 2).sum(axis=0)
    if not np.isfinite(intensity).all():
        raise GeometryError(
            "the probe is not finite", where="patch weight", remedy="the reconstruction diverged: run it again"
        )
    blurred = ndimage.gaussian_filter(intensity, blur_px, mode="constant")
    rows = (np.arange(output_shape[0]) - output_shape[0] // 2) * pixel_ratio + height // 2
    columns = (np.arange(output_shape[1]) - output_shape[1] // 2) * pixel_ratio + width // 2
    grid = np.meshgrid(rows, columns, indexing="ij")
    weight = ndimage.map_coordinates(blurred, grid, order=1, mode="constant")
    if not weight.max() > 0:
        raise GeometryError(
            "the probe has no intensity within the patch", where="patch weight", remedy="centre the probe"
        )
    weight /= weight.max()
    weight[weight < FLOOR] = 0
    return np.asarray(weight, np.float32)
