"""Check a reconstruction before it is used as a label for training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import special

from ptychostream.config import Settings
from ptychostream.reconstruct.overlap import in_words, overlap
from ptychostream.scans.scan import Reconstruction

_LAST = 3  # the best of this many last iterations counts, because a single one may be worse by chance
_SMALL_RISE = 0.01


class SoundnessLimits(Settings):
    """Limits of a sound reconstruction.

    Attributes
    ----------
    r_factor
        Largest R factor, after the part of the counting noise is subtracted. Unrelated patterns have about 0.4.
    explained
        Smallest part of the patterns' variation that the reconstruction explains, 1 − R / R₀, where R₀ is the R factor
        of an empty object. In sparse frames R is nearly all counting noise, and says nothing by itself.
    attained
        Smallest ratio of that part to the one that counting noise leaves to be explained, 1 − noise / R₀.
        It is small, because patterns also vary by what is neither noise nor object, such as the beam.
    rise
        Largest ratio of the R factor of the last iterations to the smallest of all iterations.
    contrast
        Smallest relative rms deviation of the object from its mean. Below this the object is flat.
    spikes
        Smallest ratio of the median of the object's modulus to its 99th percentile. Below this a few pixels have
        diverged.
    overlap
        Smallest part of a frame's illumination that other frames share (see `ptychostream.reconstruct.overlap`).
    """

    r_factor: float = Field(0.3, gt=0)
    explained: float = Field(0.003, ge=0, lt=1)
    attained: float = Field(0.02, ge=0, lt=1)
    rise: float = Field(1.5, gt=1)
    contrast: float = Field(1e-3, ge=0)
    spikes: float = Field(0.05, ge=0, lt=1)
    overlap: float = Field(0.1, ge=0, lt=1)


def unsound(reconstruction: Reconstruction, limits: SoundnessLimits) -> str:
    """The reason why `reconstruction` must not be used for training. "" if it may be used.

    The part of the counting noise in the R factor, and the R factor of an empty object, come from its provenance
    (`noise_r_factor`, `empty_r_factor`). Where they are not there, they are 0 and not compared.
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
        return f"R is {last:.3g}, {noise:.3g} of it counting noise: more than {limits.r_factor:g} is left"
    if last > limits.rise * least and last - least > _SMALL_RISE:
        return f"R rose again, from {least:.3g} to {last:.3g}"
    if reason := not_explained(reconstruction, limits):
        return reason
    if reason := undetermined(reconstruction, limits):
        return reason
    return _degenerate(reconstruction.object[covered], reconstruction.coverage[covered], limits)


def not_explained(reconstruction: Reconstruction, limits: SoundnessLimits) -> str:
    """Why `reconstruction` is none, since an empty object does nearly as well. "" if it explains the patterns."""
    noise, empty = (float(reconstruction.provenance.get(name, 0.0)) for name in ("noise_r_factor", "empty_r_factor"))
    r_factor = float(reconstruction.errors[-_LAST:].min())
    found, possible = explained(r_factor, empty), explained(noise, empty)
    if empty <= 0 or found >= max(limits.explained, limits.attained * possible):
        return ""
    return (
        f"R is {r_factor:.4g}, and an empty object has {empty:.4g}: {found:.2%} of the variation is explained, "
        f"of {max(possible, 0.0):.2%} beyond counting noise; check positions, orientation, wavelength and pixel"
    )


def undetermined(reconstruction: Reconstruction, limits: SoundnessLimits) -> str:
    """Why the object of `reconstruction` is none that a network can learn, however small R is. "" if it may be one."""
    if dict(reconstruction.provenance.get("options") or {}).get("propagator") == "fresnel":
        return "it is of near-field data, and networks are trained on far-field patterns"
    known = reconstruction.provenance.get("overlap")  # as the reconstruction computed it
    share = known if isinstance(known, float) else overlap(reconstruction)
    return in_words(share) if share < limits.overlap else ""


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


def explained(r_factor: float, empty_r_factor: float) -> float:
    """1 − R / R₀, the part of the patterns' variation that a reconstruction explains; 0 where nothing varies."""
    return 1.0 - r_factor / empty_r_factor if empty_r_factor > 0 else 0.0


def noise_r_factor(mean: NDArray[np.floating]) -> float:
    """R factor that counting noise alone leaves: Σ Var √n / Σ λ, of Poisson counts n with the expectation λ = `mean`.

    A reconstruction fits amplitudes, and the amplitude that fits √n best is E √n, not √λ, which lies above it where
    counts are few. Var √n is a quarter where there are many counts, and λ where there are few.
    """
    rate = np.asarray(mean, np.float64).ravel()
    rate = rate[rate > 0]
    if not len(rate):
        return 0.0
    n = np.arange(1, 80)
    few = np.unique(np.concatenate([np.geomspace(1e-6, 30, 200), [30.0]]))
    probability = np.exp(n * np.log(few[:, None]) - few[:, None] - special.gammaln(n + 1))
    spread = few - (probability * np.sqrt(n)).sum(axis=1) ** 2
    expected = np.where(rate < 30, np.interp(rate, few, spread), 0.25)
    return float(expected.sum() / rate.sum())
