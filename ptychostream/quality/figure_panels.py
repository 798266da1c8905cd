"""Parts of figures: a phase image with its scale bar, its colour bar and an outlined area."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.scans.scan import Reconstruction

COLOUR_MAP = "viridis"
UNMEASURED = "#e6e6e6"
OUTLINE = "#ff3b30"
MICRO = "\N{MICRO SIGN}m"


def phase_panel(
    axes: Axes,
    image: PhaseImage,
    *,
    title: str = "",
    limits: tuple[float, float] | None = None,
    colour_bar: bool = True,
    area: NDArray[np.bool_] | None = None,
) -> AxesImage:
    """Draw `image` with a scale bar and a colour bar in radians. Row 0 is at the top, as in EPICS viewers.

    Parameters
    ----------
    limits
        Colour range, radians; None takes the 0.5th to 99.5th percentile.
    area
        [H, W] bool, drawn as an outline.
    """
    limits = limits or phase_limits(image.phase)
    drawn = show(axes, np.ma.masked_invalid(image.phase), image, COLOUR_MAP, limits)
    if title:
        axes.set_title(title, fontsize=11)
    if area is not None and area.any() and not area.all():
        columns, rows = (
            (start + np.arange(-1, count + 1) * image.pixel_m) * 1e6
            for start, count in zip(image.origin_m, reversed(area.shape), strict=True)
        )
        axes.contour(columns, rows, np.pad(area.astype(np.float32), 1), levels=[0.5], colors=[OUTLINE], linewidths=1.4)
    add_scale_bar(axes, image)
    if colour_bar:
        assert axes.figure is not None
        axes.figure.colorbar(drawn, ax=axes, label="phase (rad)", fraction=0.046, pad=0.02)
    return drawn


def phase_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Colour range: the 0.5th to 99.5th percentile of the finite values. It is never empty."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -1.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def show(
    axes: Axes, values: NDArray[np.floating], image: PhaseImage, colour_map: str, limits: tuple[float, float]
) -> AxesImage:
    """Draw `values` [H, W] or [H, W, 3] on the grid of `image` without ticks. Masked pixels are grey."""
    (left, right), (top, bottom) = (
        ((start - image.pixel_m / 2) * 1e6, (start + (count - 0.5) * image.pixel_m) * 1e6)
        for start, count in zip(image.origin_m, reversed(image.phase.shape), strict=True)
    )
    axes.set_facecolor(UNMEASURED)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(
        values,
        cmap=colour_map,
        vmin=limits[0],
        vmax=limits[1],
        extent=(left, right, bottom, top),
        interpolation="nearest",
    )


def crop(axes: Axes, image: PhaseImage, measured: NDArray[np.bool_]) -> None:
    """Show the measured part and a small margin."""
    (left, right), (top, bottom) = (
        ((origin + low * image.pixel_m) * 1e6, (origin + high * image.pixel_m) * 1e6)
        for origin, (low, high) in zip(image.origin_m, map(_span, reversed(np.nonzero(measured))), strict=True)
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _span(places: NDArray[np.intp]) -> tuple[float, float]:
    margin = 0.03 * (np.ptp(places) + 1)
    return float(places.min() - margin), float(places.max() + margin)


def axis_unit(longest_m: float) -> tuple[float, str]:
    """Factor and name of the unit of an axis of lengths up to `longest_m`: µm, or nm below 0.5 µm."""
    return (1e6, MICRO) if longest_m >= 0.5e-6 else (1e9, "nm")


def add_scale_bar(axes: Axes, image: PhaseImage) -> None:
    """Draw a bar of 1, 2 or 5 × 10ⁿ m that is about a fifth of the image's width."""
    target = image.phase.shape[1] * image.pixel_m / 5
    power = 10 ** math.floor(math.log10(target))
    length_m = max(step * power for step in (1, 2, 5) if step * power <= target)
    label = f"{length_m * 1e6:g} {MICRO}" if length_m >= 1e-6 else f"{length_m * 1e9:g} nm"
    length, thickness = length_m * 1e6, image.phase.shape[0] * image.pixel_m * 1e6 / 90
    bar = AuxTransformBox(axes.transData)
    bar.add_artist(Rectangle((0, 0), length, thickness, color="black"))
    labelled = VPacker(children=[bar, TextArea(label, textprops={"size": 9})], align="center", pad=0, sep=4)
    box = AnchoredOffsetbox("lower right", pad=0.4, borderpad=0.5, child=labelled)
    box.patch.set(facecolor="white", edgecolor="none", alpha=0.75)
    axes.add_artist(box)


def residual_panel(axes: Axes, reconstruction: Reconstruction) -> None:
    """Draw the R factor of each frame at its position, divided by the median. Bright: badly explained."""
    residuals = reconstruction.residuals
    assert residuals is not None
    middle = max(float(np.nanmedian(residuals)), 1e-30) if np.isfinite(residuals).any() else 1.0
    x, y = reconstruction.positions_m.T * 1e6
    size = float(np.clip(20_000 / max(len(residuals), 1), 2, 80))
    drawn = axes.scatter(x, y, c=residuals / middle, s=size, cmap=COLOUR_MAP, vmin=0, vmax=3, linewidths=0)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xlabel(MICRO)
    axes.set_title("R factor of each frame / median", fontsize=11)
    assert axes.figure is not None
    axes.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.02)
