"""A figure of the reference, the network's and the refined phase side by side, and their similarity over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align, measured_area
from ptychostream.quality.figure_panels import OUTLINE, axis_unit, crop, phase_limits, phase_panel
from ptychostream.quality.figures import line_profile, most_varied_line, on_grid
from ptychostream.quality.quality import measure

_COLOURS = ("#8a8a8a", OUTLINE)


def refined_figure(
    reference: PhaseImage,
    network: PhaseImage,
    refined: PhaseImage | None,
    area: NDArray[np.bool_],
    over_time: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    reference_name: str = "ePIE, 30 iterations of all frames",
) -> Figure:
    """Three images with the area outlined; below them a line profile, and SSIM against time.

    Parameters
    ----------
    refined
        None: it is left out.
    area
        [H, W] bool on the reference's grid, where the images are compared.
    over_time
        Seconds and SSIM of each curve, by its name.

    Raises
    ------
    GeometryError
        The images cannot be compared (see `ptychostream.quality.quality.compare`).
    """
    measured = measured_area(reference)
    panels: list[tuple[str, NDArray[np.float64]]] = []
    for name, image in (("network, live", network), ("refined, live", refined)):
        if image is None:
            continue
        aligned = align(image, reference, area)
        if not panels:
            panels.append((reference_name, aligned.reference))
        panels.append((f"{name}: SSIM {measure(aligned).ssim:.3f}", aligned.image))
        limits = phase_limits(np.where(aligned.mask, aligned.reference, np.nan))
    shown = [on_grid(reference, measured, values) for _, values in panels]
    line = most_varied_line(shown[0], area)
    figure = Figure(figsize=(5 * len(panels), 8.6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.6, 1])[:, 0]
    axes = above.subplots(1, len(panels), squeeze=False)[0]
    for place, picture, (name, _) in zip(axes, shown, panels, strict=True):
        drawn = phase_panel(place, picture, title=name, limits=limits, colour_bar=False, area=area)
        (x0, y0), (x1, y1) = (np.array(end) * 1e6 for end in line)
        place.plot([x0, x1], [y0, y1], color="black", linewidth=1.2, linestyle="--")
        crop(place, reference, measured)
    above.colorbar(drawn, ax=axes, label="phase (rad)", fraction=0.02, pad=0.01)
    profile, curves = below.subplots(1, 2)
    per_m, unit = axis_unit(float(np.hypot(*np.subtract(*line))))
    for picture, (name, _), colour in zip(shown, panels, ("black", *_COLOURS), strict=False):
        distance_m, phase = line_profile(picture, line)
        profile.plot(distance_m * per_m, phase, color=colour, linewidth=1.3, label=name.partition(":")[0])
    profile.set_xlabel(f"along the dashed line ({unit})")
    profile.set_ylabel("phase (rad)")
    profile.margins(x=0)
    profile.grid(alpha=0.25)
    profile.legend(loc="best", framealpha=0.8)
    for (name, (seconds, values)), colour in zip(over_time.items(), _COLOURS, strict=False):
        curves.plot(seconds, values, color=colour, marker="o", markersize=3, label=name)
    curves.axhline(1.0, color="black", linewidth=1, label="the reference itself")
    curves.set_xlabel("time since the first image (s)")
    curves.set_ylabel("SSIM, area outlined")
    curves.set_ylim(0, 1.05)
    curves.grid(alpha=0.25)
    curves.legend(loc="best", framealpha=0.8)
    return figure
