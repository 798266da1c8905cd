"""Figures of reconstructions, comparisons and training. They need no display and no global state of pyplot."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.errors import ScanFileError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align, measured_area
from ptychostream.quality.figure_panels import (
    COLOUR_MAP,
    OUTLINE,
    add_scale_bar,
    axis_unit,
    crop,
    phase_limits,
    phase_panel,
    residual_panel,
    show,
)
from ptychostream.quality.quality import measure
from ptychostream.scans.scan import Reconstruction
from ptychostream.storage.atomic import atomic_path, cannot_be_written

REFERENCE_STYLE: dict[str, Any] = {"color": "black", "linewidth": 1.6}
IMAGE_STYLE: dict[str, Any] = {"color": OUTLINE, "linewidth": 1.3}

Line = tuple[tuple[float, float], tuple[float, float]]
"""((x, y), (x, y)) in metres, in canvas axes."""


class EpochLosses(Protocol):
    """The figures of an epoch that a training figure shows."""

    @property
    def number(self) -> int: ...
    @property
    def training_loss(self) -> float: ...
    @property
    def validation_loss(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write `figure` to `path` atomically, in the format of its suffix (png, pdf, svg). Raises ScanFileError."""
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix and suffix not in figure.canvas.get_supported_filetypes():
        raise ScanFileError(
            f"no picture format {suffix!r}", where=str(path), remedy="end its name in .png, .pdf or .svg"
        )
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=dpi)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def on_grid(reference: PhaseImage, measured: NDArray[np.bool_], values: NDArray[np.float64]) -> PhaseImage:
    """An image of `values` [H, W] on the reference's grid, NaN where they or the reference were not measured."""
    phase = np.where(measured & np.isfinite(values), values, np.nan).astype(np.float32)
    return replace(reference, phase=phase)


def stitched_figure(image: PhaseImage, reference: PhaseImage | None) -> Figure:
    """A stitched phase alone, or beside a reference. Raises GeometryError if the two cannot be compared."""
    if reference is not None:
        return comparison_figure(reference, image, reference_name="reference", image_name="stitched")
    figure = Figure(figsize=(6, 5), layout="constrained")
    phase_panel(figure.add_subplot(), image, title="stitched phase")
    return figure


def comparison_figure(
    reference: PhaseImage,
    image: PhaseImage,
    area: NDArray[np.bool_] | None = None,
    line: Line | None = None,
    *,
    reference_name: str = "ePIE",
    image_name: str = "stitched live",
    area_name: str = "not seen in training",
) -> Figure:
    """Reference and image side by side with the area outlined, and a line profile below (as Babu et al. 2023, Fig. 2).

    Both are registered on one grid, without constant and linear phase, as they are compared.

    Parameters
    ----------
    reference, image
        Phase images that overlap.
    area
        [H, W] bool on the reference's grid. None takes the well measured part of the reference.
    line
        The profile's line. None takes the row or column of the area where the reference varies most.

    Raises
    ------
    GeometryError
        The images cannot be compared (see `ptychostream.quality.quality.compare`).
    """
    aligned = align(image, reference, area)
    quality = measure(aligned)
    measured = measured_area(reference)
    shown = [on_grid(reference, measured, values) for values in (aligned.reference, aligned.image)]
    limits = phase_limits(np.where(aligned.mask, aligned.reference, np.nan))
    line = line or most_varied_line(shown[0], aligned.mask)

    figure = Figure(figsize=(10.5, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[2.1, 1])
    panels = [figure.add_subplot(grid[0, column]) for column in (0, 1)]
    for panel, picture, name in zip(panels, shown, (reference_name, image_name), strict=True):
        drawn = phase_panel(panel, picture, title=name, limits=limits, colour_bar=False, area=area)
        (x0, y0), (x1, y1) = (np.array(end) * 1e6 for end in line)
        panel.plot([x0, x1], [y0, y1], color="white", linewidth=2.6)
        panel.plot([x0, x1], [y0, y1], color="black", linewidth=1.2, linestyle="--")
        crop(panel, reference, measured)
    figure.colorbar(drawn, cax=panels[1].inset_axes((1.03, 0, 0.04, 1)), label="phase (rad)")

    profile = figure.add_subplot(grid[1, :])
    per_m, unit = axis_unit(float(np.hypot(*np.subtract(*line))))
    for picture, name, style in zip(shown, (reference_name, image_name), (REFERENCE_STYLE, IMAGE_STYLE), strict=True):
        distance_m, phase = line_profile(picture, line)
        profile.plot(distance_m * per_m, phase, label=name, **style)
    profile.set_xlabel(f"along the dashed line ({unit})")
    profile.set_ylabel("phase (rad)")
    profile.margins(x=0)
    profile.grid(alpha=0.25)
    profile.legend(loc="best", framealpha=0.8)
    where = f"area outlined: {area_name}" if area is not None else "where the scan covers the sample"
    scores = f"SSIM {quality.ssim:.3f}, at 1 px resolution {quality.ssim_1px:.3f} · Pearson r {quality.pearson:.3f}"
    scores += f" · range {quality.range_rad:.2g} rad"
    scores += " · SHIFTED BEYOND THE LIMIT" if quality.at_limit else ""
    profile.set_title(f"{where} · {scores}", fontsize=10)
    return figure


def reconstruction_figure(reconstruction: Reconstruction) -> Figure:
    """Amplitude and phase of the object, the probe, the R factor of each iteration, and that of each frame.

    Where the frames' own R factors are not known, there is no panel for them.
    """
    phase = reconstruction.phase_image()
    measured = measured_area(phase)
    shown = PhaseImage(np.where(measured, phase.phase, np.nan), phase.weight, phase.origin_m, phase.pixel_m)
    amplitude = np.where(measured, np.abs(reconstruction.object), np.nan)

    by_frame = reconstruction.residuals is not None
    figure = Figure(figsize=(15.5 if by_frame else 10.5, 9), layout="constrained")
    panels = figure.subplots(2, 3 if by_frame else 2)
    drawn = show(panels[0, 0], np.ma.masked_invalid(amplitude), phase, "gray", phase_limits(amplitude))
    panels[0, 0].set_title("amplitude", fontsize=11)
    add_scale_bar(panels[0, 0], phase)
    figure.colorbar(drawn, ax=panels[0, 0], label="amplitude", fraction=0.046, pad=0.02)
    phase_panel(panels[0, 1], shown, title="phase")
    for panel in panels[0, :2]:
        crop(panel, phase, measured)
    if by_frame:
        residual_panel(panels[0, 2], reconstruction)
        _residual_histogram(panels[1, 2], reconstruction)
    _probe_panel(panels[1, 0], reconstruction)

    errors = panels[1, 1]
    errors.semilogy(np.arange(1, len(reconstruction.errors) + 1), reconstruction.errors, marker="o", markersize=3)
    errors.set_xlabel("iteration")
    errors.set_ylabel("R factor")
    title = f"R factor {reconstruction.r_factor:.4f} after {len(reconstruction.errors)} iterations"
    if "overlap" in reconstruction.provenance:
        title += f", overlap {reconstruction.provenance['overlap']:.0%}"
    errors.set_title(title, fontsize=11)
    errors.xaxis.set_major_locator(MaxNLocator(integer=True))
    errors.grid(alpha=0.25, which="both")
    name = " · ".join(part for part in (reconstruction.scan_id, reconstruction.engine) if part)
    figure.suptitle(name or "reconstruction")
    return figure


def _residual_histogram(axes: Axes, reconstruction: Reconstruction) -> None:
    assert reconstruction.residuals is not None
    known = reconstruction.residuals[np.isfinite(reconstruction.residuals)]
    axes.hist(known, bins=40, color="#5a5a5a")
    axes.set_xlabel("R factor of a frame")
    axes.set_ylabel("frames")
    worst = f", {known.max():.4f} at most" if known.size else ""
    axes.set_title(f"median {np.median(known) if known.size else math.nan:.4f}{worst}", fontsize=11)


def training_figure(history: Sequence[EpochLosses]) -> Figure:
    """Training loss, validation loss and learning rate of each epoch. The best epoch is marked."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.add_subplot()
    epochs = [epoch.number for epoch in history]
    losses.semilogy(epochs, [epoch.training_loss for epoch in history], color="black", label="training")
    losses.semilogy(epochs, [epoch.validation_loss for epoch in history], color=OUTLINE, label="validation")
    best = min(history, key=lambda epoch: epoch.validation_loss)
    losses.plot(best.number, best.validation_loss, "o", color=OUTLINE, label=f"best: epoch {best.number}")
    losses.set_xlabel("epoch")
    losses.set_ylabel("loss")
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses.grid(alpha=0.25, which="both")
    rates = losses.twinx()
    rates.plot(epochs, [epoch.learning_rate for epoch in history], color="#8a8a8a", linewidth=1, linestyle=":")
    rates.set_ylabel("learning rate (dotted)", color="#6a6a6a")
    losses.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False
    )  # above the panel, so that no line crosses it
    return figure


def line_profile(image: PhaseImage, line: Line) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance (m) along `line` in steps of about a pixel, and the phase (rad), NaN where not measured."""
    ends = [((y - image.origin_m[1]) / image.pixel_m, (x - image.origin_m[0]) / image.pixel_m) for x, y in line]
    length_px = math.dist(*ends)
    steps = max(2, math.ceil(length_px) + 1)
    rows, columns = (np.linspace(ends[0][axis], ends[1][axis], steps) for axis in (0, 1))
    phase = ndimage.map_coordinates(image.phase.astype(np.float64), [rows, columns], order=1, cval=np.nan)
    return np.linspace(0, length_px * image.pixel_m, steps), phase


def most_varied_line(image: PhaseImage, area: NDArray[np.bool_]) -> Line:
    """The row or column through the middle half of `area` along which the phase varies most."""
    rows, columns = np.nonzero(area)
    best: tuple[float, Line] | None = None
    for axis, places in ((0, rows), (1, columns)):
        low, high = np.percentile(places, (25, 75)).round().astype(int)
        for place in range(low, high + 1):
            inside = area[place] if axis == 0 else area[:, place]
            values = (image.phase[place] if axis == 0 else image.phase[:, place])[inside]
            along = np.flatnonzero(inside)
            if not len(along):
                continue
            # The sum of the squared steps prefers a long line through many features to a short one across one edge.
            score = float(np.nansum(np.diff(ndimage.gaussian_filter1d(values.astype(np.float64), 2)) ** 2))
            ends = [(int(along[0]), place), (int(along[-1]), place)]
            if axis == 1:
                ends = [(place, end) for end, _ in ends]
            points = [
                (image.origin_m[0] + column * image.pixel_m, image.origin_m[1] + row * image.pixel_m)
                for column, row in ends
            ]
            if best is None or score > best[0]:
                best = score, (points[0], points[1])
    assert best is not None
    return best[1]


def _probe_panel(axes: Axes, reconstruction: Reconstruction) -> None:
    """Draw the strongest probe mode: hue is the phase, brightness the amplitude."""
    power = (np.abs(reconstruction.probe) ** 2).sum(axis=(1, 2))
    strongest = int(np.argmax(power))
    probe = reconstruction.probe[strongest]
    amplitude = np.abs(probe) / max(float(np.abs(probe).max()), np.finfo(np.float32).tiny)
    hue = (np.angle(probe) / (2 * np.pi)) % 1
    size = PhaseImage(np.angle(probe), amplitude, (0.0, 0.0), reconstruction.pixel_m)
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), np.sqrt(amplitude)], axis=-1))
    show(axes, colours, size, COLOUR_MAP, (0.0, 1.0))
    share = f", {power[strongest] / power.sum():.0%} of the power" if len(power) > 1 else ""
    title = f"probe, mode {strongest + 1} of {len(power)}{share}\n(hue: phase, brightness: √amplitude)"
    axes.set_title(title, fontsize=11)
    add_scale_bar(axes, size)
