"""Screens that list groups of records: every setpoint with its readback, every figure and state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ptychostream.opi import style
from ptychostream.opi.database import Record
from ptychostream.opi.images import REFINED, places, trend
from ptychostream.opi.parts import BEAMLINE_PREFIX, Parts
from ptychostream.opi.widgets import Box, Screen

COLUMN, GAP, TOP = 610, 16, 64
COLUMNS = 3
WIDTH = COLUMNS * COLUMN + (COLUMNS + 1) * GAP
BOTTOM = 1000
TITLES = {
    "plugin": "Plugin", "accounting": "Accounting", "dropped": "Dropped frames, by cause", "timing": "Timing",
    "stages": "Time in each stage", "decimation": "Decimation", "model": "Model", "canary": "Canary and rollback",
    "quality": "Quality and dose", "scan": "Scan", "positions": "Positions", "canvases": "Finished scans",
    "images": "Images", "refine": "Refinement", "agent": "Agent", "health": "Health of the IOC", "beamline": "Scans",
}  # fmt: skip
UNSHOWN = frozenset({
    "TrajectoryX_RBV", "TrajectoryY_RBV", "PositionX_RBV", "PositionY_RBV", "Agent:Lease", "Agent:JudgedSHA",
    "Agent:JudgedPreviousSHA", "Agent:JudgedSignature", "Agent:ReconstructDone", "Agent:RetrainDone",
    "Refine:Left_RBV", "Refine:Right_RBV", "Refine:Top_RBV", "Refine:Bottom_RBV", "Refine:ResidualX_RBV",
    "Refine:ResidualY_RBV", "Refine:Residual_RBV", "Refine:WorstX_RBV", "Refine:WorstY_RBV",
})  # fmt: skip
"""Arrays that a plot shows, edges that the axes of an image show, and what only the agent's program writes."""


class GroupScreen(NamedTuple):
    """Title and groups; a number begins that column, counted from 0, unless the groups before reach into it."""

    title: str
    groups: tuple[str | int, ...]


SCREENS = {
    "plugin.bob": GroupScreen("Plugin and stream", ("plugin", 1, "decimation", "images", 2, "canvases")),
    "model.bob": GroupScreen("Model and quality", ("model", 1, "canary", 2, "quality")),
    "refine.bob": GroupScreen("Refinement", ("refine",)),
    "agent.bob": GroupScreen("Agent", ("agent",)),
    "accounting.bob": GroupScreen("Accounting and timing", ("accounting", 1, "dropped", 2, "timing", "stages")),
    "positions.bob": GroupScreen("Scan and positions", ("scan", 1, "positions")),
    "health.bob": GroupScreen("Health", ("health",)),
}


def group_screen(given: GroupScreen, records: Mapping[str, Record]) -> Screen:
    """A screen that lists groups in columns, with what belongs beside them."""
    screen = Screen(f"ptychostream: {given.title}", WIDTH, BOTTOM)
    parts = Parts(screen, records)
    heading(parts, given.title, screen.width)
    flow = _Flow(parts)
    height = flow.add(given.groups)
    free = COLUMNS - flow.columns  # trends take the columns that are left
    x, half = GAP + flow.columns * (COLUMN + GAP), (BOTTOM - TOP) // 2 - GAP
    width = free * COLUMN + (free - 1) * GAP
    upper, lower = Box(x, TOP, width, half), Box(x, TOP + half + GAP, width, half)
    if given.title == "Refinement":
        third = half * 2 // 3 - GAP // 2
        ones = [Box(x, TOP + number * (third + GAP), width, third) for number in range(3)]
        trend(parts, ones[0], "Misfit of the refined image", {"Refine:RFactor_RBV": "R factor"}, axis="R factor")
        trend(parts, ones[1], "SSIM of the live to the refined phase", {"Refine:SSIM_RBV": "SSIM"}, axis="SSIM",
              limits=(0, 1))  # fmt: skip
        places(parts, ones[2], "Frames whose R factor is above twice the median",
               [("frames", "Refine:ResidualX_RBV", "Refine:ResidualY_RBV"),
                ("badly explained", "Refine:WorstX_RBV", "Refine:WorstY_RBV")], "µm", edges=REFINED)  # fmt: skip
    if given.title == "Agent":
        trend(parts, upper, "Losses of the training", {"Agent:TrainLoss": "training", "Agent:ValLoss": "validation"},
              axis="rad", minutes=30)  # fmt: skip
        trend(parts, lower, "Agent's SSIM", {"Agent:SSIM": "live model", "Agent:SSIMPrevious": "model before"},
              axis="SSIM", limits=(0, 1), minutes=60)  # fmt: skip
    if given.title == "Health":
        trend(parts, upper, "Processor", {"SYS_CPU_LOAD": "machine", "IOC_CPU_LOAD": "IOC"}, axis="%")
        trend(parts, lower, "Memory of the IOC", {"MEM_USED": "memory"}, axis="byte")
    screen.height = max(height, BOTTOM)
    return screen


def beamline_screen(records: Mapping[str, Record]) -> Screen:
    """The screen of the simulated beamline."""
    screen = Screen("ptychostream: simulated beamline", WIDTH, BOTTOM)
    parts = Parts(screen, records, BEAMLINE_PREFIX)
    heading(parts, "Simulated beamline", screen.width, BEAMLINE_PREFIX)
    _Flow(parts).add(("beamline",))
    side = BOTTOM - TOP - GAP
    places(parts, Box(2 * GAP + COLUMN, TOP, side, side), "Where the frames of the scan are taken",
           [("positions", "PositionX_RBV", "PositionY_RBV")], "µm")  # fmt: skip
    return screen


def heading(parts: Parts, title: str, width: int, prefix: str | None = None) -> None:
    """The banner of a screen."""
    parts.panel(Box(0, 0, width, 52), style.BANNER)
    parts.label(title, Box(16, 6, 700, 40), style.HUGE, True, foreground_color=style.BANNER_TEXT)
    parts.label(prefix or parts.prefix, Box(width - 420, 6, 400, 40), style.LARGE,
                foreground_color=style.BANNER_TEXT, horizontal_alignment=2)  # fmt: skip


def rows(records: Mapping[str, Record], group: str) -> Iterator[str]:
    """Names of the rows of a group: setpoints, then figures and states, then commands. A readback is in a row."""
    ones = [record for record in records.values() if record.group == group and record.name not in UNSHOWN]
    names = {record.name for record in ones if record.is_setpoint and not record.is_command}
    yield from (record.name for record in ones if record.name in names)
    backs = {f"{name}_RBV" for name in names}
    yield from (one.name for one in ones if one.name not in names | backs and not one.is_command)
    yield from (one.name for one in ones if one.is_command)


class _Flow:
    """Rows down one column and then down the next, each group on a panel."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._column, self._y = 0, TOP
        self._lowest = TOP

    def add(self, groups: Sequence[str | int]) -> int:
        """Add groups; returns the height that they take."""
        for group in groups:
            if isinstance(group, int):
                if group > self._column:
                    self._column, self._y = group, TOP
            else:
                self._add(group)
        return self._lowest + GAP

    def _add(self, group: str) -> None:
        begin = self._begin(TITLES[group])
        for name in rows(self._parts.records, group):
            if self._y > BOTTOM - 70 and self._column + 1 < COLUMNS:
                self._end(begin)
                self._column, self._y = self._column + 1, TOP
                begin = self._begin(f"{TITLES[group]}, continued")
            self._y += self._parts.row(name, self._x + 12, self._y, COLUMN - 24)
        self._end(begin)

    @property
    def columns(self) -> int:
        """How many columns are begun."""
        return self._column + 1

    @property
    def _x(self) -> int:
        return GAP + self._column * (COLUMN + GAP)

    def _begin(self, title: str) -> tuple[int, int]:
        begin = len(self._parts.screen.widgets), self._y
        self._parts.label(title, Box(self._x + 12, self._y + 5, COLUMN - 24, 30), style.LARGE, True)
        self._y += 40
        return begin

    def _end(self, begin: tuple[int, int]) -> None:
        first, top = begin
        self._parts.panel(Box(self._x, top, COLUMN, self._y - top + 4))
        widgets = self._parts.screen.widgets
        widgets.insert(first, widgets.pop())
        self._y += GAP
        self._lowest = max(self._lowest, self._y)
