"""The images in detail: phase, weight, and the latest patch beside the pattern that it was made of."""

from __future__ import annotations

from collections.abc import Mapping

from ptychostream.opi import style
from ptychostream.opi.database import Record
from ptychostream.opi.images import image
from ptychostream.opi.parts import Parts
from ptychostream.opi.widgets import Box, Screen

LARGE, SMALL = 690, 288


def image_screen(records: Mapping[str, Record]) -> Screen:
    """The screen."""
    screen = Screen("ptychostream images", 1700, 1000)
    parts = Parts(screen, records)
    canvas = ("ImageSizeX_RBV", "ImageSizeY_RBV")
    parts.panel(Box(10, 10, 830, 780))
    parts.label("Stitched phase, rad", Box(22, 14, 500, 30), style.LARGE, True)
    image(parts, "Phase", (14, 50), LARGE, size=canvas, in_um=True, about="Stitched phase")
    for x, y, name, caption, colours, size, log in (
        (850, 10, "Weight", "Patches at each pixel", "MAGMA", canvas, False),
        (850, 400, "Patch", "Latest patch, rad", "VIRIDIS", None, False),
        (1280, 400, "Pattern", "Its pattern, counts, log", "MAGMA", ("ArraySizeX_RBV", "ArraySizeY_RBV"), True),
    ):
        parts.panel(Box(x, y, 420, 384))
        parts.label(caption, Box(x + 12, y + 4, 400, 30), style.LARGE, True)
        image(parts, name, (x, y + 44), SMALL, colours=colours, size=size, in_um=name == "Weight", log=log,
              about=caption)  # fmt: skip
    parts.panel(Box(1280, 10, 410, 384))
    for number, (name, caption) in enumerate(
        (
            ("ShownScanID_RBV", "Scan shown"),
            ("PixelSize_RBV", "Pixel"),
            ("CanvasWidth_RBV", "Width of the canvas"),
            ("CanvasHeight_RBV", "Height of the canvas"),
            ("PhaseCounter_RBV", "Images served"),
            ("Consistency_RBV", "Pattern explained by the patch"),
        )
    ):
        parts.tile(name, caption, Box(1296, 18 + number * 60, 380, 54))
    parts.panel(Box(10, 800, 1680, 190))
    y = 810
    for name in ("ShowScan", "PhaseRate", "SSIMReference"):
        y += parts.row(name, 22, y, 800)
    y = 810
    for name in ("SaveCanvas", "CompareSSIM", "RFactor_RBV", "Pearson_RBV", "PhaseTime_RBV"):
        y += parts.row(name, 870, y, 800)
    return screen
