"""pty-chi's ePIE behind our interface, where pty-chi is installed (Apache licence; it needs torchvision)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ptychi.api import EPIEOptions
from ptychi.api.enums import Devices
from ptychi.api.task import PtychographyTask

from ptychostream.reconstruct.engines import Misfit, Norms, Problem
from ptychostream.reconstruct.options import ReconstructOptions


class PtychiEngine:
    """See `engines.Engine`. pty-chi draws its own batches, and shifts the probe by fractions of a pixel."""

    def __init__(self, problem: Problem, options: ReconstructOptions, device: str) -> None:
        logging.getLogger("ptychi").setLevel(logging.WARNING)
        self.name = f"ptychi ({device})"
        amplitudes = problem.amplitudes
        good = (amplitudes >= 0).all(axis=0)
        size = problem.probe.shape[-1]
        centre = np.round(np.array(problem.grid.shape) / 2) - 0.5  # where pty-chi puts the positions' zero
        positions = problem.grid.corners + problem.grid.fractions + (size - 1) / 2 - centre
        self._task = PtychographyTask(
            _settings(options, device),
            diffraction_data=np.where(good, amplitudes, 0) ** 2,
            object_data=problem.object[None],
            probe_data=problem.probe[None] / size,  # pty-chi's FFT is not normalised
            probe_position_y_px=positions[:, 0],
            probe_position_x_px=positions[:, 1],
            valid_pixel_mask=good,
        )
        self._task.reconstructor.pbar.disable = True
        self._misfit = _MisfitSum(torch.as_tensor(good, device=device))
        self._task.reconstructor.loss_tracker.metric_function = self._misfit
        self._size = size
        self._norms = Norms.of(np.where(good, amplitudes, 0))

    def iterate(self, order: NDArray[np.int64], update_probe: bool) -> Misfit:  # noqa: ARG002
        """One epoch of pty-chi, in an order of its own; returns the misfit met on the way."""
        self._task.probe.optimizable = update_probe
        self._misfit.sums.zero_()
        self._task.run(1)
        return self._norms.misfit(*self._misfit.sums.tolist())

    def result(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """Object [Ho, Wo] and probe [modes, n, n] as they are now."""
        object_ = self._task.get_data_to_cpu("object", as_numpy=True)[0]
        probe = self._task.get_data_to_cpu("probe", as_numpy=True)[0] * self._size
        return object_.astype(np.complex64), probe.astype(np.complex64)

    def corrected(self) -> None:
        """Positions stay as they were given."""

    def finish(self) -> None:
        """The amplitudes were not changed."""


def _settings(options: ReconstructOptions, device: str) -> Any:
    settings = EPIEOptions()
    settings.reconstructor_options.num_epochs = options.iterations
    settings.reconstructor_options.batch_size = options.batch
    settings.reconstructor_options.random_seed = options.seed
    settings.reconstructor_options.default_device = Devices.CPU if device == "cpu" else Devices.GPU
    settings.data_options.fft_shift = False
    settings.object_options.alpha = options.step
    settings.probe_options.alpha = options.probe_step
    return settings


class _MisfitSum:
    """Stands where pty-chi computes the loss it shows, and adds up our misfit instead, at about the same cost."""

    def __init__(self, good: torch.Tensor) -> None:
        self._good = good
        self.sums = torch.zeros(2, dtype=torch.float64, device=good.device)

    def __call__(self, predicted: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        lacking = (measured.sqrt() - predicted.sqrt()) * self._good
        self.sums += torch.stack([lacking.square().sum(dtype=torch.float64), lacking.abs().sum(dtype=torch.float64)])
        return lacking.new_zeros(())
