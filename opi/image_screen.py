"""The images in detail: stitched and refined phase, error, weight, amplitude, probe, latest patch and its pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptychostream.opi import style
from ptychostream.opi.database import Record
from ptychostream.opi.images import REFINED, STITCHED, image
from ptychostream.opi.parts import Parts
from ptychostream.opi.widgets import Box, Screen

WIDTH, HEIGHT = 1900, 1000
LARGE, SMALL = 562, 220
_CANVAS: dict[str, Any] = {"size": ("ImageSizeX_RBV", "ImageSizeY_RBV"), "edges": STITCHED}
_FRAME: dict[str, Any] = {"size": ("ArraySizeX_RBV", "ArraySizeY_RBV"), "colours": "MAGMA", "log": True}
_LARGE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Phase", "Stitched phase, rad", _CANVAS),
    ("Refined", "Refined phase, rad", {"edges": REFINED}),
)
_SMALL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PhaseSigma", "Error of the phase, rad", {"colours": "MAGMA", **_CANVAS}),
    ("Weight", "Patches at each pixel", {"colours": "MAGMA", **_CANVAS}),
    ("RefinedAmplitude", "Refined amplitude", {"edges": REFINED}),
    ("Probe", "Probe, √photons", {"colours": "MAGMA"}),
    ("Patch", "Latest patch, rad", {}),
    ("Pattern", "Its pattern, counts, log", _FRAME),
)  # fmt: skip
_TILES = (
    ("ShownScanID_RBV", "Scan shown"),
    ("PixelSize_RBV", "Pixel"),
    ("SigmaMedian_RBV", "Error of the phase, median"),
    ("SigmaCalibrated_RBV", "What this error is"),
    ("PhaseCounter_RBV", "Images served"),
    ("Consistency_RBV", "Pattern explained by the patch"),
    ("Refine:Scan_RBV", "Scan refined"),
    ("Refine:RFactor_RBV", "R factor of the refined image"),
    ("Refine:Passes_RBV", "Uses of a frame, mean"),
    ("Refine:SSIM_RBV", "SSIM of stitched to refined"),
)
_ROWS = ("Refine:Enable", "SigmaEnable", "SigmaStatus_RBV", "ShowScan", "PhaseRate", "SaveCanvas", "CompareSSIM",
         "RFactor_RBV", "Pearson_RBV", "PhaseTime_RBV", "SSIMReference")  # fmt: skip


def image_screen(records: Mapping[str, Record]) -> Screen:
    """The screen."""
    screen = Screen("ptychostream images", WIDTH, HEIGHT)
    parts = Parts(screen, records)
    for number, (name, caption, more) in enumerate(_LARGE):
        x = 10 + 664 * number
        parts.panel(Box(x, 10, 656, 652))
        parts.label(caption, Box(x + 12, 13, 500, 30), style.LARGE, True)
        image(parts, name, (x + 2, 46), LARGE, about=caption, **more)
    for number, (name, caption, more) in enumerate(_SMALL):
        x = 10 + 314 * number
        parts.panel(Box(x, 672, 308, 318))
        parts.label(caption, Box(x + 12, 675, 290, 30), style.LARGE, True)
        image(parts, name, (x + 2, 712), SMALL, about=caption, **more)
    left, width = 1338, WIDTH - 1338 - 10
    parts.panel(Box(left, 10, width, 652))
    for number, (name, caption) in enumerate(_TILES):
        row, column = divmod(number, 2)
        parts.tile(name, caption, Box(left + 12 + column * (width // 2 - 6), 16 + row * 53, width // 2 - 18, 51))
    y = 284
    for name in _ROWS:
        y += parts.row(name, left + 12, y, width - 24)
    return screen
