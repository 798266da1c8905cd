"""The consistency of an inferred patch with its pattern: a measure of quality that needs no reference.

The exit wave of probe and patch is propagated to the detector. The R factor is its distance from the measured pattern
(Maiden, Johnson & Li 2017, Optica 4, 736, eq. 18), with a free scale s of the intensity:

    R = min_s Σ(√I − s|ψ|)² / ΣI = 1 − C²,  C = Σ√I|ψ| / √(ΣI Σ|ψ|²)

over good pixels. C is the normalised correlation of the amplitudes. Most of a pattern comes from the probe alone, so
even an empty patch gives a small R. The consistency is therefore the part of R_empty that the patch explains:

    consistency = 1 − R / R_empty

1: the patch explains the pattern. 0: it is no better than an empty sample. Below 0: it is worse, for example the patch
of another place. Counting noise and the sample outside the patch keep it below 1. Over an empty or flat place there is
nothing to explain: it is then about 0 or below, and R is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import GeometryError
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.model.preprocessing import bin_counts, good_counts


@dataclass(frozen=True)
class Consistency:
    """Figures of one patch. They are NaN if the pattern has no counts.

    Attributes
    ----------
    figure
        1 − r_factor / r_empty.
    r_factor, r_empty
        R factor of the patch, and of the probe alone.
    """

    figure: float
    r_factor: float
    r_empty: float


UNKNOWN = Consistency(float("nan"), float("nan"), float("nan"))


class ForwardModel:
    """Propagates patches with the probe of a contract.

    Parameters
    ----------
    contract
        Contract of the model that infers the patches.

    Raises
    ------
    GeometryError
        The contract has no probe.
    """

    def __init__(self, contract: ModelContract) -> None:
        if contract.probe is None:
            remedy = "train or export the model again: contracts of version 2 have the probe"
            raise GeometryError("no probe", where=f"contract of {contract.name}", remedy=remedy)
        self._probe: NDArray[np.complex64] = contract.probe.unpack()
        self._preprocessing = contract.preprocessing
        self._empty = self.intensity(np.zeros(contract.output_shape, np.float32))

    def intensity(
        self, phase: NDArray[np.float32], amplitude: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Far-field intensity of the probe on a patch [h, w]: [N, M], zero frequency at [N//2, M//2].

        Pixel [h//2, w//2] of the patch lies at the probe's centre. Outside the patch the phase is the patch's mean. The
        part of the patch outside the probe's window is left out.
        """
        height, width = self._probe.shape[-2:]
        window = np.ones((height, width), np.complex64)
        mean = phase.mean(dtype=np.float64)
        wave = np.exp(1j * (phase - np.float32(mean))).astype(np.complex64)
        rows, patch_rows = _overlap(height, phase.shape[0])
        columns, patch_columns = _overlap(width, phase.shape[1])
        window[rows, columns] = (wave if amplitude is None else wave * amplitude)[patch_rows, patch_columns]
        waves = np.fft.fft2(self._probe * window, norm="ortho")
        intensity = (waves.real**2 + waves.imag**2).sum(axis=0)
        return np.fft.fftshift(intensity).astype(np.float32)

    def judge(
        self,
        phase: NDArray[np.float32],
        counts: NDArray[np.integer],
        amplitude: NDArray[np.float32] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> Consistency:
        """Compare a patch with its frame.

        Parameters
        ----------
        phase
            [h, w] rad.
        counts
            The raw frame before preprocessing, because it shows dead and saturated pixels.
        amplitude
            [h, w]. None: 1 everywhere, for a network that gives only the phase.
        preprocessing
            The contract's with the bad pixels that are known besides. None: the contract's.

        Raises
        ------
        GeometryError
            The probe's window is neither the raw frame nor the frame after crop and bin, or the frame does not fit
            the preprocessing.
        """
        spec = preprocessing or self._preprocessing
        measured, good = good_counts(spec, counts)
        window = self._probe.shape[-2:]
        raw = window == counts.shape
        if not raw and window != measured.shape:
            raise GeometryError(
                f"a probe of {window} for frames of {counts.shape}, {measured.shape} after crop and bin",
                where="consistency",
                remedy="set the detector's region to that of the scan that the model was trained on",
            )
        root = np.sqrt(measured[good])
        total = float(np.square(root).sum())
        if total == 0:
            return UNKNOWN
        expected = (self.intensity(phase, amplitude), self._empty)
        seen = (bin_counts(spec, image) if raw else image for image in expected)
        r_factor, r_empty = (_r_factor(root, total, np.sqrt(image[good])) for image in seen)
        return Consistency(1 - r_factor / r_empty if r_empty > 0 else float("nan"), r_factor, r_empty)


def _overlap(window: int, patch: int) -> tuple[slice, slice]:
    """Slice of the window that the centred patch covers, and slice of the patch inside the window. In pixels."""
    first = window // 2 - patch // 2
    start, stop = max(first, 0), min(first + patch, window)
    return slice(start, stop), slice(start - first, stop - first)


def _r_factor(root: NDArray[np.float64], total: float, amplitude: NDArray[np.floating]) -> float:
    power = float(np.square(amplitude, dtype=np.float64).sum())
    if power == 0:
        return 1.0
    return max(0.0, 1 - float(root @ amplitude) ** 2 / (total * power))
