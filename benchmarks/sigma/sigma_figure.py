"""The figure of `bench sigma`: the error beside σ, and whether σ is right."""

from __future__ import annotations

from dataclasses import replace
from math import erf, sqrt

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align, on_grid
from ptychostream.imaging.sigma import phase_sigma, sigma
from ptychostream.quality.figure_panels import phase_panel
from ptychostream.quality.sigma_calibration import Errors, fit


def sigma_figure(
    image: PhaseImage,
    reference: PhaseImage,
    area: NDArray[np.bool_],
    errors: Errors,
    calibration: tuple[float, float],
) -> Figure:
    """The size of the error, σ, the parts of the pixels within k σ, and the error by the spread.

    Parameters
    ----------
    image, reference, area
        The stitched phase, what it is compared with, and where.
    errors
        Those of the image on the area.
    calibration
        Factor and floor (rad) of the whole area, for the map; the curves have those of the other half.
    """
    assert image.spread is not None
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.5, 1.5))
    aligned = align(image, reference, area)
    values = on_grid(phase_sigma(image.spread, calibration).values, image, reference, aligned.shift_px)
    shown = aligned.mask & np.isfinite(values)
    rows, columns = np.nonzero(shown)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    limits = (0.0, float(np.percentile(np.abs(errors.error), 99)))
    for axis, title, map_ in (
        (axes[0], "|error|", np.abs(aligned.image - aligned.reference)),
        (axes[1], "σ", values),
    ):
        part = np.where(shown, map_, np.nan)[box].astype(np.float32)
        panel = replace(reference, phase=part, weight=shown[box].astype(np.float32))
        phase_panel(axis, panel, title=title, limits=limits)
    _coverage(axes[2], errors)
    _by_spread(axes[3], errors, calibration)
    return figure


def rms_by_spread(errors: Errors, values: NDArray[np.floating]) -> list[float]:
    """Rms of a quantity of the pixels in each tenth of them, in the order of their spread."""
    edges = np.quantile(errors.single, np.linspace(0, 1, 11))
    tenth = np.clip(np.searchsorted(edges, errors.single, side="right") - 1, 0, 9)
    return [float(np.sqrt(np.mean(values[tenth == n] ** 2))) for n in range(10)]


def _coverage(axes: Axes, errors: Errors) -> None:
    steps = np.linspace(0, 3, 61)
    for half in (0, 1):
        numbers, other = fit(errors.part(1 - half)), errors.part(half)
        axes.plot(steps, [other.within(*numbers, step) for step in steps], label=f"half {half + 1}, by the other")
    axes.plot(steps, [erf(step / sqrt(2)) for step in steps], "k--", label="Gaussian")
    naive = [errors.within(0.0, 0.0, step) for step in steps]
    axes.plot(steps, naive, ":", color="0.4", label="s / √n, no calibration")
    axes.set(xlabel="k", ylabel="part of the pixels with |error| ≤ k σ", ylim=(0, 1))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _by_spread(axes: Axes, errors: Errors, calibration: tuple[float, float]) -> None:
    spread = rms_by_spread(errors, errors.single)
    expected, naive = sigma(errors.single, errors.number, *calibration), errors.single / np.sqrt(errors.number)
    axes.plot(spread, rms_by_spread(errors, errors.error), "o-", label="error, rms")
    axes.plot(spread, rms_by_spread(errors, expected), "s-", label="σ, rms")
    axes.plot(spread, rms_by_spread(errors, naive), ":", color="0.4", label="s / √n, rms")
    axes.set(xlabel="spread of single patches, s (rad)", ylabel="rad", ylim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
