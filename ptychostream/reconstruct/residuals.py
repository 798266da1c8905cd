"""How well each frame is explained: its own R factor with the object and probe of a result."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

_AT_ONCE = 32


def frame_residuals(
    amplitudes: NDArray[np.float32],
    corners: NDArray[np.int64],
    object_: NDArray[np.complex64],
    probe: NDArray[np.complex64],
    transfer: NDArray[np.complex64] | None = None,
) -> NDArray[np.float32]:
    """[N] Σ(√I − |ψ|)² / ΣI of each frame over its good pixels; NaN where a frame has no counts.

    Parameters
    ----------
    amplitudes
        [N, n, n] square roots of the counts, zero frequency at [0, 0]; negative where not measured. With a `transfer`
        they are in the order of the detector's pixels.
    corners
        [N, 2] (row, column) of the patches' pixel [0, 0] in `object_`.
    object_, probe
        [Ho, Wo] and [modes, n, n].
    transfer
        Of the near field (see `fresnel.transfer`). None: far field.
    """
    size = probe.shape[-1]
    residuals = np.full(len(amplitudes), np.nan, np.float32)
    for first in range(0, len(amplitudes), _AT_ONCE):
        part = slice(first, min(first + _AT_ONCE, len(amplitudes)))
        patches = np.stack([object_[row : row + size, column : column + size] for row, column in corners[part]])
        waves = (probe[None] * patches[:, None]).astype(np.complex64)
        waves = fft.fft2(waves, norm="ortho")
        if transfer is not None:
            waves = fft.ifft2(waves * transfer, norm="ortho")
        modulus = np.sqrt((waves.real**2 + waves.imag**2).sum(axis=1))
        measured = amplitudes[part]
        good = measured >= 0
        lacking = np.where(good, measured - modulus, 0)
        power = np.where(good, measured, 0)
        total = np.square(power, dtype=np.float64).sum(axis=(1, 2))
        misfit = np.square(lacking, dtype=np.float64).sum(axis=(1, 2))
        known = total > 0
        residuals[part][known] = (misfit[known] / total[known]).astype(np.float32)
    return residuals
