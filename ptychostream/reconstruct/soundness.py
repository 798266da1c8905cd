"""Whether a reconstruction came to something: what does not must never become a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import special

from ptychostream.config import Settings
from ptychostream.scans.scan import Reconstruction

_LAST = 3  # iterations, the best of which counts: one alone may be worse by chance
_SMALL_RISE = 0.01


class SoundnessLimits(Settings):
    """How bad a reconstruction may be.

    Attributes
    ----------
    r_factor
        Greatest R factor above that of the photon noise. Patterns of nothing in common with the measured ones have
        about 0.4.
    rise
        Greatest R factor of the last iterations against the least of all.
    contrast
        Least rms deviation of the object from its mean, relative: below it, there is nothing to learn from.
    spikes
        Least median of the object's modulus against its 99th percentile: below it, a few pixels have run away.
    """

    r_factor: float = Field(0.3, gt=0)
    rise: float = Field(1.5, gt=1)
    contrast: float = Field(1e-3, ge=0)
    spikes: float = Field(0.05, ge=0, lt=1)


def unsound(reconstruction: Reconstruction, limits: SoundnessLimits) -> str:
    """Why `reconstruction` must not be learned from; "" where it may.

    The photon noise's part of the R factor is that of its provenance (`noise_r_factor`), 0 where there is none.
    """
    errors = reconstruction.errors
    covered = reconstruction.coverage > 0
    if not len(errors) or not np.isfinite(errors).all():
        return "its R factor is not a number"
    if not np.isfinite(reconstruction.object).all() or not np.isfinite(reconstruction.probe).all():
        return "object or probe are not finite"
    if not covered.any():
        return "it covers nothing"
    noise = float(reconstruction.provenance.get("noise_r_factor", 0.0))
    last, least = float(errors[-_LAST:].min()), float(errors.min())
    if last - noise > limits.r_factor:
        return f"R is {last:.3g}, {noise:.3g} of it photon noise: more than {limits.r_factor:g} is left"
    if last > limits.rise * least and last - least > _SMALL_RISE:
        return f"R rose again, from {least:.3g} to {last:.3g}"
    return _degenerate(reconstruction.object[covered], reconstruction.coverage[covered], limits)


def _degenerate(field: NDArray[np.complex64], coverage: NDArray[np.float32], limits: SoundnessLimits) -> str:
    modulus = np.abs(field)
    middle, high = np.percentile(modulus, (50, 99))
    if not middle > limits.spikes * high:
        return f"the object is {middle:.3g} in the middle and {high:.3g} in its brightest pixels"
    weight = coverage / coverage.sum(dtype=np.float64)
    mean = (weight * field).sum(dtype=np.complex128)
    deviation = np.sqrt((weight * np.abs(field - mean) ** 2).sum(dtype=np.float64))
    if not deviation >= limits.contrast * abs(mean):
        return f"the object is flat: it deviates by {deviation:.2g} from its mean"
    return ""


def noise_r_factor(mean: NDArray[np.floating]) -> float:
    """R factor that patterns of these mean counts per pixel have against their own expectation: Σ E(√n − √λ)² / Σλ.

    A quarter of a photon a pixel where there are many, and up to twice the photons where there are few: the R factor
    of a perfect reconstruction, by which sparse frames differ from bright ones.
    """
    rate = np.asarray(mean, np.float64).ravel()
    rate = rate[rate > 0]
    if not len(rate):
        return 0.0
    n = np.arange(1, 80)
    few = np.unique(np.concatenate([np.geomspace(1e-6, 30, 200), [30.0]]))
    probability = np.exp(n * np.log(few[:, None]) - few[:, None] - special.gammaln(n + 1))
    spread = 2 * few - 2 * np.sqrt(few) * (probability * np.sqrt(n)).sum(axis=1)
    expected = np.where(rate < 30, np.interp(rate, few, spread), 0.25)
    return float(expected.sum() / rate.sum())
