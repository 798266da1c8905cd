"""A picture of the pixels that are no measurement, so that people can look at a mask before they believe it."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ptychostream.frames.survey import Survey

_COLOURS = {"the file's mask": "#ff3b30", "marks: huge and constant": "#ff9f0a", "at the shared maximum": "#34c7eb"}


def mask_figure(survey: Survey, name: str = "") -> Figure:
    """The mean pattern on a logarithmic scale, and over it the pixels of the file's mask, marks, and saturated ones."""
    kinds = np.zeros(survey.bad_pixels.shape, np.int64)
    kinds[survey.bad_pixels] = 1
    kinds[survey.marks.pixels] = 2
    kinds[survey.at_shared_maximum & (kinds == 0)] = 3
    figure = Figure(figsize=(7.5, 6.5), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(np.log10(1 + survey.mean), cmap="gray", interpolation="nearest")
    colours = ListedColormap(list(_COLOURS.values()))
    axes.imshow(np.ma.masked_equal(kinds, 0), cmap=colours, vmin=1, vmax=3, interpolation="nearest")
    handles = [
        Patch(color=colour, label=f"{label}: {(kinds == kind).sum()} pixels")
        for kind, (label, colour) in enumerate(_COLOURS.items(), 1)
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=1, frameon=False)
    axes.set_title(f"{name}: pixels that are no measurement".lstrip(": "), fontsize=11)
    figure.colorbar(drawn, ax=axes, label="log₁₀(1 + mean counts)", fraction=0.046, pad=0.02)
    return figure
