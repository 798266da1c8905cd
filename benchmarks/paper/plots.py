"""Parts of the plots: panels of phase on one colour scale, and the colour of each way of imaging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.registration import align
from ptychostream.quality.figure_panels import crop, phase_limits, phase_panel
from ptychostream.quality.figures import Line, on_grid

COLOURS: dict[str, dict[str, Any]] = {
    "truth": {"color": "0.6", "linewidth": 3.0},
    "epie": {"color": "black", "linewidth": 1.6},
    "network": {"color": "#d55e00", "linewidth": 1.6},
    "refined": {"color": "#0072b2", "linewidth": 1.4, "linestyle": "--"},
}
"""Of each way of imaging; colours that the colour-blind tell apart (Okabe and Ito 2008)."""


def names_of(refining: int) -> dict[str, str]:
    """The ways of imaging, for people. `refining` is the number of the refinement's passes."""
    return {"epie": "ePIE", "network": "network, stitched", "refined": f"network, refined in {refining} passes"}


def on_truth(image: PhaseImage, truth: PhaseImage, area: NDArray[np.bool_]) -> PhaseImage:
    """An image as it is compared with the truth: on its grid, on the area, without constant and linear phase."""
    aligned = align(image, truth, area)
    return on_grid(truth, aligned.mask, aligned.image)


def flat(truth: PhaseImage, area: NDArray[np.bool_]) -> PhaseImage:
    """The truth without constant and linear phase, on the area."""
    aligned = align(truth, truth, area)
    return on_grid(truth, aligned.mask, aligned.reference)


def panels(
    axes: Sequence[Axes],
    images: Sequence[PhaseImage],
    titles: Sequence[str],
    truth: PhaseImage,
    line: Line | None = None,
) -> None:
    """Phase images side by side on the truth's colour scale, with the line of a profile dashed."""
    limits = phase_limits(truth.phase)
    for axis, image, title in zip(axes, images, titles, strict=True):
        drawn = phase_panel(axis, image, title=title, limits=limits, colour_bar=False)
        crop(axis, images[0], np.isfinite(images[0].phase))
        if line is not None:
            (x0, y0), (x1, y1) = (np.array(end) * 1e6 for end in line)
            axis.plot([x0, x1], [y0, y1], color="white", linewidth=2.6)
            axis.plot([x0, x1], [y0, y1], color="black", linewidth=1.2, linestyle="--")
    last = axes[-1]
    assert last.figure is not None
    last.figure.colorbar(drawn, cax=last.inset_axes((1.03, 0, 0.04, 1)), label="phase (rad)")
