"""The screen at one glance: is it running, how good is the phase, which model made it, what to do."""

from __future__ import annotations

from collections.abc import Mapping

from ptychostream.opi import style
from ptychostream.opi.database import Record
from ptychostream.opi.images import REFINED, STITCHED, image, places, trend
from ptychostream.opi.parts import PREFIX, Parts
from ptychostream.opi.widgets import Box, Font, Rule, Screen, rules

WIDTH, HEIGHT = 1700, 1020
SIDE = 460
LAMPS = {
    "Connected_RBV": "Detector",
    "Ready_RBV": "Next frame",
    "ModelState_RBV": "Model",
    "ScanActive_RBV": "Scan",
    "Accounting_RBV": "Every frame accounted for",
    "PositionConnected_RBV": "Positions",
    "SSIMStatus_RBV": "Quality against reference",
    "SaveStatus_RBV": "Saving",
    "Agent:State": "Agent",
    "Agent:Lost_RBV": "Agent's heartbeat lost",
}
TILES = (
    ("FramesStitched_RBV", "Frames stitched"),
    ("FramesPending_RBV", "Frames waiting"),
    ("DroppedArrays_RBV", "Frames dropped"),
    ("FramesMissed_RBV", "Frames that never came"),
    ("SSIM1px_RBV", "SSIM at 1 pixel"),
    ("SSIMScan_RBV", "… of scan"),
    ("LatencyServedP95_RBV", "Frame to image, 95 %"),
    ("QueueUse_RBV", "Queue in use"),
    ("ModelVersion_RBV", "Model"),
    ("ModelAge_RBV", "Live for"),
    ("EngineName_RBV", "Engine"),
    ("MeanCounts_RBV", "Dose: counts in a frame"),
    ("DoseScale_RBV", "Dose scale"),
    ("Agent:SSIM", "Agent's SSIM"),
    ("CanvasWidth_RBV", "Width of the canvas"),
    ("CanvasHeight_RBV", "Height of the canvas"),
)
COMMANDS = ("EndScan", "CompareSSIM", "SaveCanvas", "ResetStitch", "LoadModel", "RollbackModel", "Agent:Reconstruct",
            "Agent:Retrain")  # fmt: skip


def main_screen(records: Mapping[str, Record], others: Mapping[str, str]) -> Screen:
    """The screen; `others` gives the titles of the other screens by their files."""
    screen = Screen("ptychostream", WIDTH, HEIGHT)
    parts = Parts(screen, records)
    _banner(parts)
    lamp = (WIDTH - 20) // len(LAMPS)
    for number, (name, caption) in enumerate(LAMPS.items()):
        parts.lamp(name, Box(10 + number * lamp, 64, lamp - 8, 62), caption)
    _images(parts)
    left = 1230
    trend(parts, Box(left, 138, WIDTH - left - 10, 200), "Quality", {"SSIM1px_RBV": "SSIM at 1 pixel",
          "SSIM_RBV": "SSIM"}, axis="SSIM", limits=(0, 1))  # fmt: skip
    trend(parts, Box(left, 344, WIDTH - left - 10, 200), "Rate", {"ArrayRate_RBV": "received",
          "OutputRate_RBV": "stitched"}, axis="frames/s")  # fmt: skip
    places(parts, Box(left, 550, WIDTH - left - 10, 366), "Where the frames were taken",
           [("frames", "TrajectoryX_RBV", "TrajectoryY_RBV")], "µm", edges=STITCHED)  # fmt: skip
    _figures(parts)
    width = (WIDTH - 20) // len(COMMANDS)
    for number, name in enumerate(COMMANDS):
        parts.command(name, Box(10 + number * width, 926, width - 8, 40))
    width = (WIDTH - 20) // len(others)
    for number, (file, title) in enumerate(others.items()):
        parts.goto(file, title, Box(10 + number * width, 976, width - 8, 34), f"Open {file}")
    return screen


def _banner(parts: Parts) -> None:
    on_dark = {"foreground_color": style.BANNER_TEXT, "background_color": style.BANNER}
    parts.panel(Box(0, 0, WIDTH, 56), style.BANNER)
    parts.label("Live phase", Box(14, 8, 190, 40), style.HUGE, True, foreground_color=style.BANNER_TEXT)
    parts.label(PREFIX, Box(206, 8, 240, 40), style.LARGE, foreground_color=style.BANNER_TEXT)
    parts.value("ScanID_RBV", Box(450, 8, 290, 40), style.LARGE, **on_dark)
    progress = Box(750, 14, 190, 28)
    parts.screen.add(
        "progressbar", "ScanProgress_RBV", progress, pv_name=parts.channel("ScanProgress_RBV"), fill_color=style.OK,
        tooltip="Part of the scan that is stitched\n$(pv_name)\n$(pv_value)", font=Font(style.SMALL),
        rules=rules(Rule("visible", (parts.channel("ScanProgress_RBV"),), [("pv0 != pv0", "False")])),
    )  # fmt: skip
    text = Box(950, 1, WIDTH - 960, 17)
    parts.label("What it waits for, or why a lamp is yellow or red:", text, style.SMALL, foreground_color=style.IDLE)
    parts.value("StatusMessage_RBV", Box(950, 18, WIDTH - 960, 38), style.NORMAL, **on_dark)


def _images(parts: Parts) -> None:
    """The phase, and beside it the refined one; while nothing is refined, the weight is in its place."""
    size = ("ImageSizeX_RBV", "ImageSizeY_RBV")
    first, second, y = 10, 620, 138
    for x in (first, second):
        parts.panel(Box(x, y, 600, 542))
    parts.label("Stitched phase, rad", Box(first + 12, y + 4, 420, 28), style.LARGE, True)
    image(parts, "Phase", (first, y + 34), SIDE, size=size, edges=STITCHED, about="Stitched phase")
    status = (parts.channel("Refine:Status_RBV"),)
    # Until Phoebus has started its rules, which takes seconds, the refined image is shown.
    off, on = Rule("visible", status, [("pv0 == 0", "True")]), Rule("visible", status, [("pv0 == 0", "False")])
    for caption, one, shown in (("Patches at each pixel", off, False), ("Refined phase, rad", on, True)):
        box = Box(second + 12, y + 4, 250, 28)
        parts.label(caption, box, style.LARGE, True, visible=shown, rules=rules(one))
    image(parts, "Weight", (second, y + 34), SIDE, colours="MAGMA", size=size, edges=STITCHED,
          about="Patches at each pixel", also=(off,), visible=False)  # fmt: skip
    image(parts, "Refined", (second, y + 34), SIDE, edges=REFINED, about="Phase after the iterations of the refinement",
          also=(on,))  # fmt: skip
    parts.label("Refinement", Box(second + 270, y + 6, 84, 24), style.SMALL, foreground_color=style.QUIET)
    parts.lamp("Refine:Status_RBV", Box(second + 356, y + 4, 100, 28))
    parts.label("R factor", Box(second + 466, y + 6, 56, 24), style.SMALL, foreground_color=style.QUIET)
    parts.value("Refine:RFactor_RBV", Box(second + 524, y + 4, 70, 28))


def _figures(parts: Parts) -> None:
    parts.panel(Box(10, 690, 1210, 226))
    columns = 4
    width = 1194 // columns
    for number, (name, caption) in enumerate(TILES):
        column, row = divmod(number, len(TILES) // columns)
        parts.tile(name, caption, Box(22 + column * width, 696 + row * 54, width - 24, 52))
