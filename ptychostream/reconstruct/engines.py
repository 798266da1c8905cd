"""The interface of the reconstruction engines, and the CPU engine by numba."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.options import ReconstructOptions


class Misfit(NamedTuple):
    """The distance between modelled and measured amplitudes over good pixels.

    Attributes
    ----------
    r_factor
        Σ(√I − |ψ|)² / ΣI, the error metric of ePIE's authors (Maiden, Johnson & Li 2017, Optica 4, 736).
    absolute
        Σ|√I − |ψ|| / Σ√I, crystallography's R.
    """

    r_factor: float
    absolute: float


class Norms(NamedTuple):
    """The divisors of the sums of squared and absolute differences, over the good pixels of all patterns."""

    squared: float
    absolute: float

    @classmethod
    def of(cls, amplitudes: NDArray[np.float32]) -> Norms:
        squared = sum(float(np.square(np.maximum(frame, 0)).sum(dtype=np.float64)) for frame in amplitudes)
        return cls(squared, sum(float(np.maximum(frame, 0).sum(dtype=np.float64)) for frame in amplitudes))

    def misfit(self, squared: float, absolute: float) -> Misfit:
        return Misfit(squared / self.squared, absolute / self.absolute)


@dataclass(frozen=True)
class Problem:
    """The input of an engine. FFTs are orthonormal, so Σ|probe|² is the number of photons in a frame.

    Attributes
    ----------
    amplitudes
        [N, n, n] float32, zero frequency at [0, 0]. Negative where not measured.
    grid
        The object's pixel grid, with the corners of the N patches.
    object
        [Ho, Wo] complex64.
    probe
        [modes, n, n] complex64, centred on [n//2, n//2].
    transfer
        [n, n] complex64 for a detector in the near field (see `fresnel.transfer`): the amplitudes are then in the
        order of the detector's pixels. None: far field.
    places
        [N, 2] (row, column) of the patches' pixel [0, 0] to start from, where it is not the grid's.
    in_place
        Whether the engine may reorder the amplitudes in place until its `finish`, to need half the memory.
    """

    amplitudes: NDArray[np.float32]
    grid: ObjectGrid
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    transfer: NDArray[np.complex64] | None = None
    places: NDArray[np.float64] | None = None
    in_place: bool = False


class Engine(Protocol):
    """A running reconstruction.

    Attributes
    ----------
    name
        Name of the engine and its device.
    """

    name: str

    def iterate(self, order: NDArray[np.int64], update_probe: bool) -> Misfit:
        """One pass over the patterns in `order`. Returns the misfit during this pass."""
        ...

    def result(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        """The current object [Ho, Wo] and probe [modes, n, n]."""
        ...

    def corrected(self) -> NDArray[np.float64] | None:
        """[N, 2] (row, column) of each patch's pixel [0, 0] as corrected; None where the engine corrects none."""
        ...

    def finish(self) -> None:
        """End: the problem's amplitudes are in their order again. Nothing else may be called after it."""
        ...


CreateEngine = Callable[[Problem, ReconstructOptions], Engine]


def epie_engine(problem: Problem, options: ReconstructOptions) -> Engine:
    """ePIE by numba on one CPU core.

    Raises
    ------
    ReconstructionError
        The engine cannot process frames of this size.
    """
    from ptychostream.reconstruct import fft_kernels
    from ptychostream.reconstruct.epie import EpieEngine

    if problem.transfer is not None:
        raise near_field_refused("epie")
    size = problem.probe.shape[-1]
    if not fft_kernels.supports(size):
        raise ReconstructionError(
            f"the epie engine takes frames of {fft_kernels.SIZES}, not {size}",
            where="--engine",
            remedy="crop the frames, or use --engine torch",
        )
    return EpieEngine(problem, options)


def near_field_refused(engine: str) -> ReconstructionError:
    """The error of an engine that propagates to the far field alone."""
    what = f"the {engine} engine computes the far field alone"
    return ReconstructionError(what, where="--propagator fresnel", remedy="take --engine torch")
