"""The probe that a refinement begins with, and the counts on its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ReconstructionError
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.model.preprocessing import good_counts
from ptychostream.plugins.refining.settings import RefineSettings
from ptychostream.scans.reconstruction_file import read_reconstruction

_SAME_PIXEL = 1e-3


@dataclass(frozen=True)
class FirstProbe:
    """A probe [modes, n, n] complex64 on pixels of `pixel_m`, and where it comes from."""

    probe: NDArray[np.complex64]
    pixel_m: float
    source: str


def first_probe(settings: RefineSettings, contract: ModelContract, last: FirstProbe | None) -> FirstProbe:
    """The probe that the settings name.

    Parameters
    ----------
    contract
        Of the live model; the canvas has its pixels.
    last
        The probe of the last refined scan; None: there is none.

    Raises
    ------
    ReconstructionError
        There is no probe, or it is of another energy or geometry.
    ScanFileError
        The file cannot be read.
    """
    pixel_m = contract.object_pixel_m
    if settings.probe == "file":
        if settings.probe_file is None:
            raise ReconstructionError("no file named", where="Refine:ProbeFile", remedy="write a reconstruction's path")
        made = read_reconstruction(settings.probe_file)
        if not math.isclose(made.pixel_m, pixel_m, rel_tol=_SAME_PIXEL):
            raise ReconstructionError(
                f"its pixel is {made.pixel_m:.6g} m, the canvas's {pixel_m:.6g} m",
                where=str(settings.probe_file),
                remedy="give a reconstruction of this energy, distance and detector region",
            )
        return FirstProbe(made.probe, pixel_m, str(settings.probe_file))
    given = contract.probe.unpack() if contract.probe is not None else None
    if settings.probe == "last" and last is not None and _fits(last, pixel_m, given):
        return last
    if given is None:
        raise ReconstructionError(
            "the model's contract has no probe",
            where="refinement",
            remedy="train the model again, or name a reconstruction in Refine:ProbeFile",
        )
    modes = given.reshape(-1, *given.shape[-2:]).astype(np.complex64)
    return FirstProbe(modes, pixel_m, f"contract of {contract.name}")


def _fits(last: FirstProbe, pixel_m: float, given: NDArray[np.complex64] | None) -> bool:
    """Whether the last scan's probe has this pixel, and the window of the contract's."""
    window = last.probe.shape[-2:] if given is None else given.shape[-2:]
    return math.isclose(last.pixel_m, pixel_m, rel_tol=_SAME_PIXEL) and window == last.probe.shape[-2:]


def on_the_probe(
    spec: Preprocessing, counts: NDArray[np.integer[Any]], size: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Counts [n, n] of a raw frame on the detector pixels of a probe of `size`, and which are measurements.

    A probe has the window of the raw frame, or that of the frame after crop and bin.

    Raises
    ------
    ReconstructionError
        It has neither.
    GeometryError
        The frame does not fit the preprocessing.
    """
    whole = spec if counts.shape != (size, size) else spec.model_copy(update={"crop": None, "bin": 1})
    measured, good = good_counts(whole, counts)
    if measured.shape != (size, size):
        raise ReconstructionError(
            f"a probe of {size} × {size} for frames of {counts.shape}, {measured.shape} after crop and bin",
            where="refinement",
            remedy="give the probe of this detector region",
        )
    return measured, good
