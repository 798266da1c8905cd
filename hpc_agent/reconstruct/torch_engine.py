"""ePIE in batches with torch, on CUDA or the CPU, for frames of any size.

Positions of a batch are updated together from the same object and probe. Where they overlap, the object's update is
their mean weighted by the probe's intensity instead of their sum, so that it converges for any batch; for positions
that do not overlap it is ePIE's own (Maiden & Rodenburg 2009, eq. 4). The probe's update is the mean over the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ptychostream.reconstruct.engines import Misfit, Norms, Problem
from ptychostream.reconstruct.options import ReconstructOptions


class TorchEngine:
    """See `engines.Engine`."""

    def __init__(self, problem: Problem, options: ReconstructOptions, device: str) -> None:
        self.name = f"torch ({device})"
        self._device = torch.device(device)
        self._batch = options.batch
        self._steps = options.step, options.probe_step
        self._amplitudes = torch.from_numpy(problem.amplitudes)
        if self._device.type == "cuda":
            self._amplitudes = self._amplitudes.pin_memory()
        self._corners = problem.grid.corners.tolist()
        self._object = torch.from_numpy(problem.object.copy()).to(self._device)
        self._probe = torch.from_numpy(problem.probe.copy()).to(self._device)
        self._transfer = None if problem.transfer is None else torch.from_numpy(problem.transfer).to(self._device)
        self._norms = Norms.of(problem.amplitudes)

    def iterate(self, order: NDArray[np.int64], update_probe: bool) -> Misfit:
        """One pass over the patterns in `order`, batch by batch; returns the misfit met on the way."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        for first in range(0, len(order), self._batch):
            sums += self._step(order[first : first + self._batch], update_probe)
        return self._norms.misfit(*sums.tolist())

    def _step(self, indices: NDArray[np.int64], update_probe: bool) -> torch.Tensor:
        size = self._probe.shape[-1]
        measured = self._amplitudes[torch.from_numpy(indices)].to(self._device, non_blocking=True)
        windows = [
            (slice(row, row + size), slice(column, column + size))
            for row, column in (self._corners[index] for index in indices)
        ]
        patches = torch.stack([self._object[window] for window in windows])[:, None]
        far = self._to_detector(self._probe * patches)
        modulus = far.abs().square().sum(1).sqrt()
        lacking = torch.where(measured >= 0, measured - modulus, 0)
        far *= (lacking / (modulus + 1e-10))[:, None]
        change = self._to_sample(far)

        footprint = self._probe.abs().square().sum(0)
        correction = (self._probe.conj() * change).sum(1)
        seen = torch.zeros(self._object.shape, device=self._device)
        total = torch.zeros_like(self._object)
        for window, patch in zip(windows, correction, strict=True):  # in order: the sum is the same every time
            seen[window] += footprint
            total[window] += patch
        if update_probe:
            greatest = patches.abs().square().amax(dim=(1, 2, 3), keepdim=True)
            self._probe += self._steps[1] * (patches.conj() * change / greatest).mean(0)
        self._object += self._steps[0] * total / seen.clamp_min(footprint.max())
        return torch.stack([lacking.square().sum(dtype=torch.float64), lacking.abs().sum(dtype=torch.float64)])

    def _to_detector(self, waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fft2(waves, norm="ortho")
        return spectrum if self._transfer is None else torch.fft.ifft2(spectrum * self._transfer, norm="ortho")

    def _to_sample(self, waves: torch.Tensor) -> torch.Tensor:
        if self._transfer is not None:
            waves = torch.fft.fft2(waves, norm="ortho") * self._transfer.conj()
        return torch.fft.ifft2(waves, norm="ortho")

    def result(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """Object [Ho, Wo] and probe [modes, H, W] as they are now."""
        return self._object.cpu().numpy().copy(), self._probe.cpu().numpy().copy()

    def corrected(self) -> None:
        """This engine corrects no positions."""

    def finish(self) -> None:
        """The amplitudes were not changed."""
