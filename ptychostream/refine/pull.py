"""How strongly the network's phase holds a pixel. Pure; the derivation is in docs/explanation/refinement.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NETWORK_ERROR_RAD = 0.1
"""Rms error of a network's phase before it is known, rad; and of an object's modulus from 1."""
VISIT = 0.25
"""Variance of the phase that one visit gives, as a part of the R factor. It is half of this where all is shared."""
STRONGEST = 2.0
_LEAST_ERROR = 1e-4
_SAMPLES = 250_000


@dataclass(frozen=True)
class Pull:
    """κ of phase and modulus, in visits, and what they follow from.

    Attributes
    ----------
    phase, modulus
        A pixel that was measured `κ` times is held by the network's phase (by modulus 1) as strongly as by the frames.
    shared
        Part of the illumination that a second frame shares, 0 to 1.
    phase_error, modulus_error
        Estimated rms error of the network's phase, rad, and of modulus 1.
    """

    phase: float = 0.2
    modulus: float = 0.2
    shared: float = 0.0
    phase_error: float = NETWORK_ERROR_RAD
    modulus_error: float = NETWORK_ERROR_RAD


def pull_of(
    object_: NDArray[np.float32],
    prior: NDArray[np.float32],
    visits: NDArray[np.float32],
    r_now: float,
    r_early: float,
    before: Pull,
) -> Pull:
    """The pull for an object [2, H, W], its prior [2, H, W] and the visits [H, W].

    Parameters
    ----------
    r_now, r_early
        R factor of the frames at their last use, and at one of their first ones. Where frames share no illumination
        an object fits any pattern, so that `r_now` says nothing; the early one is taken instead.
    before
        The pull of the last pass.
    """
    stride = max(1, int(np.ceil(np.sqrt(visits.size / _SAMPLES))))
    a, b = (part[::stride, ::stride] for part in object_)
    u, v = (part[::stride, ::stride] for part in prior)
    m = visits[::stride, ::stride]
    shared = shared_of(m)
    known = (u != 0) | (v != 0)
    away = np.arctan2(b * u - a * v, a * u + b * v)
    phase2 = _error2(away, np.where(known, m, 0), before.phase, before.phase_error)
    modulus2 = _error2(np.hypot(a, b) - 1, np.where(known, m, 0), before.modulus, before.modulus_error)
    r = shared * r_now + (1 - shared) * r_early
    variance = VISIT * (1 - shared / 2) * r
    return Pull(
        phase=min(variance / (2 * phase2), STRONGEST),
        modulus=min(variance / (2 * modulus2), STRONGEST),
        shared=shared,
        phase_error=float(np.sqrt(phase2)),
        modulus_error=float(np.sqrt(modulus2)),
    )


def shared_of(visits: NDArray[np.float32]) -> float:
    """Part of the illumination that a second frame shares, 0 to 1; `visits` is how often each pixel was measured."""
    total = float(visits.sum(dtype=np.float64))
    return float(np.maximum(visits - 1, 0).sum(dtype=np.float64)) / total if total > 0 else 0.0


def _error2(away: NDArray[np.float32], visits: NDArray[np.float32], pull: float, error: float) -> float:
    """Mean square error of the prior: what the object is away from it, and the variance that is left where it holds.

    This is the step of expectation and maximisation for the variance of a Gaussian prior. Without the second term the
    estimate would fall to 0 wherever the prior holds the object.
    """
    weight = visits / (visits + 1)
    total = float(weight.sum(dtype=np.float64))
    if total == 0:
        return error**2
    left = error**2 * pull / np.maximum(pull + visits / 2, _LEAST_ERROR)
    return max(float((weight * (away * away + left)).sum(dtype=np.float64)) / total, _LEAST_ERROR)
