"""What screens are made of: lamps, numbers, entries, buttons, images and rows, each from the record it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ptychostream.opi import style
from ptychostream.opi.alarms import ALARMS
from ptychostream.opi.database import Record
from ptychostream.opi.widgets import Box, Font, Screen, element, open_action, write_action

PREFIX = "$(P=ptycho:NN1:)$(R=)"
"""Of the IOC's channels. Defaults stand where the macros are used: those of a display win over the caller's."""
BEAMLINE_PREFIX = "$(B=bl:)"
"""Of the simulated beamline."""
ROW = 29
_LABEL, _GAP = 296, 6
_STRING = 6
"""The format of a widget that shows bytes as a text."""
REMEDIES = {alarm.record: alarm for group in ALARMS.values() for alarm in group}
"""What the tooltip of a lamp says besides."""
LONG = frozenset({"KeptScans_RBV", "Agent:Message", "StatusMessage_RBV", "Contradiction_RBV", "ModelMessage_RBV"})
"""Texts with room for three lines."""
CONFIRMED = frozenset({"ResetStitch", "ResetCounters", "RollbackModel", "Abort"})
"""Commands that ask before they act."""


def spaced(name: str) -> str:
    """`ResetStitch` as `Reset stitch`, `Agent:Retrain` as `Retrain`, `CompareSSIM` as `Compare SSIM`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|\d+", name.rpartition(":")[2])
    return " ".join([words[0], *(word if word.isupper() else word.lower() for word in words[1:])])


class Parts:
    """Adds parts to a screen.

    Parameters
    ----------
    screen
        The screen.
    records
        The records by name.
    prefix
        What stands before a record's name.
    """

    def __init__(self, screen: Screen, records: Mapping[str, Record], prefix: str = PREFIX) -> None:
        self.screen = screen
        self.records = records
        self.prefix = prefix

    def channel(self, name: str) -> str:
        """The channel of a record. Over Channel Access, a widget knows who may write it."""
        return f"{self.prefix}{name}"

    def label(self, text: str, box: Box, size: int = style.NORMAL, bold: bool = False, **properties: Any) -> None:
        """A text that stays."""
        given: dict[str, Any] = {"foreground_color": style.TEXT, "vertical_alignment": 1, **properties}
        self.screen.add("label", text[:40], box, text=text, font=Font(size, bold), **given)

    def panel(self, box: Box, colour: tuple[int, int, int] = style.PANEL) -> None:
        """A rectangle behind other parts."""
        properties = {"background_color": colour, "line_width": 0, "corner_width": 6, "corner_height": 6}
        self.screen.add("rectangle", "panel", box, **properties)

    def value(self, name: str, box: Box, size: int = style.NORMAL, **properties: Any) -> None:
        """A record's value with its unit."""
        record = self.records[name]
        given: dict[str, Any] = {
            "vertical_alignment": 1,
            "wrap_words": record.is_text,
            "transparent": True,
            **properties,
        }
        if record.is_text:
            given["format"] = _STRING
        self._of(record, "textupdate", box, font=Font(size), **given)

    def tile(self, name: str, caption: str, box: Box) -> None:
        """A caption over a value."""
        self.label(caption, Box(box.x, box.y, box.width, 20), style.SMALL, foreground_color=style.QUIET)
        self.value(name, Box(box.x, box.y + 20, box.width, box.height - 20), style.LARGE)

    def lamp(self, name: str, box: Box, caption: str = "") -> None:
        """A lamp for the states of a record, with the state's name in it."""
        record = self.records[name]
        if caption:
            self.label(caption, Box(box.x, box.y, box.width, 20), style.SMALL, foreground_color=style.QUIET)
            box = Box(box.x, box.y + 20, box.width, box.height - 20)
        states = [
            _state(number, text, style.IDLE if text in style.QUIET_STATES and severity == "NO_ALARM"
                   else style.BY_SEVERITY[severity])
            for number, text, severity in record.states
        ]  # fmt: skip
        about = record.about
        if (alarm := REMEDIES.get(name)) is not None:
            about = f"{about}\n{alarm.meaning}\n{alarm.remedy}"
        self._of(record, "multi_state_led", box, about=about, square=True, font=Font(style.NORMAL, True), states=states)

    def entry(self, name: str, box: Box) -> None:
        """Where an operator writes a record."""
        record = self.records[name]
        if record.is_command:
            self.command(name, box)
        elif record.states:
            self._of(record, "combo", box, font=Font(), background_color=style.ENTRY)
        else:
            text: dict[str, Any] = {"format": _STRING} if record.is_text else {}
            self._of(record, "textentry", box, font=Font(), background_color=style.ENTRY, **text)

    def command(self, name: str, box: Box) -> None:
        """A button that writes 1, and a lamp that is on until the command is done."""
        record, channel = self.records[name], self.channel(name)
        ask = {"show_confirm_dialog": True, "confirm_message": f"{record.about}?"} if name in CONFIRMED else {}
        self.screen.add(
            "action_button", name, Box(box.x, box.y, box.width - 16, box.height),
            actions=write_action(channel, "1", record.about), text=spaced(name), font=Font(style.NORMAL, True),
            foreground_color=style.TEXT, background_color=style.ENTRY, tooltip=f"{record.about}\n{channel}", **ask,
        )  # fmt: skip
        lamp = Box(box.x + box.width - 13, box.y + 4, 11, box.height - 8)
        self._of(record, "led", lamp, square=True, off_color=style.IDLE, on_color=style.TRACES[0])

    def goto(self, file: str, text: str, box: Box, about: str) -> None:
        """A button that opens another screen."""
        self.screen.add(
            "action_button", text, box, actions=open_action(file, text), text=text, font=Font(style.NORMAL),
            foreground_color=style.TEXT, tooltip=about,
        )  # fmt: skip

    def row(self, name: str, x: int, y: int, width: int) -> int:
        """One line for a record, with its setpoint where it has one; returns its height."""
        record = self.records[name]
        back = self.records.get(f"{name}_RBV") if record.is_setpoint else None
        if record.is_command:
            self.label(record.about, Box(x, y, _LABEL, ROW - 4), 15)
            self.command(name, Box(x + _LABEL + _GAP, y, width - _LABEL - _GAP, ROW - 4))
            return ROW
        if record.is_text:
            return self._long_row(record, back, x, y, width)
        self.label(record.about, Box(x, y, _LABEL, ROW - 4), 15)
        left, room = x + _LABEL + _GAP, width - _LABEL - _GAP
        if record.is_setpoint:
            share = room * 3 // 5 if record.states else room // 2  # a combo has an arrow beside its text
            self.entry(name, Box(left, y, share - _GAP, ROW - 4))
            left, room = left + share, room - share
        shown = back if record.is_setpoint else record
        if shown is None:
            return ROW
        box = Box(left, y, room, ROW - 4)
        if shown.states and shown.alarms:
            self.lamp(shown.name, box)
        else:
            self.value(shown.name, box)
        return ROW

    def _long_row(self, record: Record, back: Record | None, x: int, y: int, width: int) -> int:
        self.label(record.about, Box(x, y, width, 22), 15)
        lines = 3 if record.name in LONG else 1
        top = y + 22
        if record.is_setpoint:
            self.entry(record.name, Box(x, top, width, ROW - 4))
            top += ROW
            if back is None:
                return top - y
        height = (ROW - 4) * lines
        self.value((back or record).name, Box(x, top, width, height), 15)
        return top + height + 4 - y

    def _of(self, record: Record, kind: str, box: Box, about: str = "", **properties: Any) -> None:
        tooltip = f"{about or record.about}\n$(pv_name)\n$(pv_value)"
        self.screen.add(kind, record.name, box, pv_name=self.channel(record.name), tooltip=tooltip,
                        border_alarm_sensitive=True, **properties)  # fmt: skip


def _state(number: int, label: str, colour: tuple[int, int, int]) -> Any:
    return element("state", {"value": number, "label": label, "color": colour})
