"""Image and plot parts of the screens: right aspect, axes in µm, perceptual colour maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptychostream.opi import style
from ptychostream.opi.parts import Parts
from ptychostream.opi.widgets import Box, Font, Rule, element, rules, traces

LEFT, RIGHT, TOP, BOTTOM = 45, 41, 1, 45
"""Pixels of the image widget around the picture: y axis, colour bar, upper margin, x axis."""
STITCHED = ("ImageLeft_RBV", "ImageRight_RBV", "ImageTop_RBV", "ImageBottom_RBV")
"""Edges of Phase and Weight, µm."""
REFINED = ("Refine:Left_RBV", "Refine:Right_RBV", "Refine:Top_RBV", "Refine:Bottom_RBV")
"""Edges of Refined and RefinedAmplitude, µm."""


def _edges(parts: Parts, y_axis: str, records: Sequence[str]) -> list[Rule]:
    """The axes are those of the served images. A limit is NaN, which is unequal to itself, before the first image."""
    edges = ("x_axis.minimum", "x_axis.maximum", f"{y_axis}.maximum", f"{y_axis}.minimum")
    return [
        Rule(edge, (parts.channel(record),), [("pv0 == pv0", "pv0")])
        for edge, record in zip(edges, records, strict=True)
    ]


def image(
    parts: Parts, name: str, place: tuple[int, int], side: int, *, colours: str = "VIRIDIS", log: bool = False,
    size: tuple[str, str] | None = None, edges: Sequence[str] = (), about: str, also: Sequence[Rule] = (),
    visible: bool = True,
) -> None:  # fmt: skip
    """An image over PV Access, in a square of `side` pixels.

    Parameters
    ----------
    size
        Records of its width and height in pixels. With them, the picture keeps its aspect where it is no square.
    edges
        Records of its edges in µm: left, right, top, bottom. With them, its axes are in µm.
    also
        Further rules.
    visible
        Whether it is shown before a rule says so.
    """
    x, y = place
    box = Box(x, y, side + LEFT + RIGHT, side + TOP + BOTTOM)
    given = list(also)
    if size is not None:
        width, height = (parts.channel(one) for one in size)
        given += [
            Rule("width", (width, height), [("pv0 > 0 and pv1 > pv0", f"int({side} * pv0 / pv1) + {LEFT + RIGHT}")]),
            Rule("height", (width, height), [("pv1 > 0 and pv0 > pv1", f"int({side} * pv1 / pv0) + {TOP + BOTTOM}")]),
        ]
    axis, unit = {"title_font": Font(style.SMALL), "scale_font": Font(style.SMALL)}, "px"
    if edges:
        unit = "µm"
        given += _edges(parts, "y_axis", edges)
    parts.screen.add(
        "image", name, box,
        pv_name=f"pva://{parts.channel(name)}",
        color_map=element("color_map", {"name": colours}),
        color_bar=element("color_bar", {"visible": True, "bar_size": 40, "scale_font": Font(style.SMALL)}),
        x_axis=element("x_axis", {"visible": True, "title": f"x, {unit}", **axis}),
        y_axis=element("y_axis", {"visible": True, "title": f"y, {unit}", **axis}),
        limits_from_pv=not edges, autoscale=True, log_scale=log, unsigned=True, show_toolbar=False,
        cursor_crosshair=True, background_color=style.PANEL, foreground_color=style.TEXT,
        tooltip=f"{about}\n$(pv_name)", border_alarm_sensitive=True, rules=rules(*given),
        **({} if visible else {"visible": False}),
    )  # fmt: skip


def trend(
    parts: Parts, box: Box, title: str, records: Mapping[str, str], *, axis: str,
    limits: tuple[float, float] | None = None, minutes: int = 10,
) -> None:  # fmt: skip
    """The last minutes of some records, by their names in the legend."""
    low, high = limits or (0, 100)
    y_axis = element("y_axis", {
        "title": axis, "autoscale": limits is None, "log_scale": False, "minimum": low, "maximum": high,
        "show_grid": True, "visible": True,
    })  # fmt: skip
    lines = traces((text, {"y_pv": parts.channel(record), "trace_type": 1}) for record, text in records.items())
    parts.screen.add(
        "stripchart", title, box, title=title, title_font=Font(style.NORMAL, True), label_font=Font(style.SMALL),
        scale_font=Font(style.SMALL), show_toolbar=False, show_legend=len(records) > 1, show_grid=True,
        start=f"{minutes} minutes", y_axes=[y_axis], traces=lines, background_color=style.PANEL,
        tooltip="\n".join(parts.channel(record) for record in records),
    )  # fmt: skip


def places(
    parts: Parts, box: Box, title: str, pairs: Sequence[tuple[str, str, str]], unit: str, *, edges: Sequence[str] = ()
) -> None:  # fmt: skip
    """Points by their x and y, each pair (name, record of x, record of y); with `edges`, on the axes of an image."""
    shown: dict[str, Any] = {
        "title_font": Font(style.SMALL),
        "scale_font": Font(style.SMALL),
        "autoscale": not edges,
    }
    given = _edges(parts, "y_axes[0]", edges) if edges else []
    lines = traces(
        (name, {"x_pv": parts.channel(x), "y_pv": parts.channel(y), "trace_type": 0, "point_type": 2, "point_size": 4,
                "line_width": 1})
        for name, x, y in pairs
    )  # fmt: skip
    parts.screen.add(
        "xyplot", title, box, title=title, title_font=Font(style.NORMAL, True), show_legend=len(pairs) > 1,
        x_axis=element("x_axis", {"title": f"x, {unit}", "show_grid": True, **shown}),
        y_axes=[element("y_axis", {"title": f"y, {unit}", "show_grid": True, **shown})],
        traces=lines, background_color=style.PANEL, tooltip=title, rules=rules(*given),
    )  # fmt: skip
