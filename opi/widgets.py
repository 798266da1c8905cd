"""Widgets of Phoebus's display builder as XML, in the versions that Phoebus 5.0.5 writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ptychostream.opi import style

Colour = tuple[int, int, int]

VERSIONS = {
    "action_button": "3.0.0", "textentry": "3.0.0", "xyplot": "3.0.0", "stripchart": "2.1.0",
}  # fmt: skip
"""Of the other types: 2.0.0."""


class Box(NamedTuple):
    """Place and size of a widget, pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Font:
    """A font of the screens."""

    size: int = style.NORMAL
    bold: bool = False


@dataclass(frozen=True)
class Rule:
    """A property that follows channels.

    Attributes
    ----------
    cases
        (condition, value) pairs in Jython, with pv0, pv1, … for the channels. Where none holds, the property has its
        own value.
    """

    property: str
    channels: Sequence[str]
    cases: Sequence[tuple[str, str]]


@dataclass
class Screen:
    """A display: its widgets in the order in which they are drawn.

    Attributes
    ----------
    name
        Title of the window.
    """

    name: str
    width: int
    height: int
    widgets: list[ET.Element] = field(default_factory=list)

    def add(self, kind: str, name: str, box: Box, **properties: Any) -> None:
        """Add a widget. Properties are texts, numbers, colours, fonts, elements, or lists of elements."""
        widget = ET.Element("widget", {"type": kind, "version": VERSIONS.get(kind, "2.0.0")})
        _text(widget, "name", name)
        for axis, value in zip(("x", "y", "width", "height"), box, strict=True):
            _text(widget, axis, value)
        for key, value in properties.items():
            set_property(widget, key, value)
        self.widgets.append(widget)

    def xml(self) -> str:
        """The file."""
        display = ET.Element("display", {"version": "2.0.0"})
        for key, value in (("name", self.name), ("width", self.width), ("height", self.height)):
            _text(display, key, value)
        set_property(display, "background_color", style.PAPER)
        _text(display, "grid_visible", "false")
        display.extend(self.widgets)
        return document(display)


def document(root: ET.Element) -> str:
    """A generated file with this root."""
    ET.indent(root)
    made = "<!--Made by `ptychostream generate`; do not edit. -->"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{made}\n{ET.tostring(root, encoding="unicode")}\n'


def set_property(parent: ET.Element, key: str, value: Any) -> None:
    """Add the property `key` to a widget."""
    if isinstance(value, ET.Element):
        parent.append(value)
    elif isinstance(value, list):
        ET.SubElement(parent, key).extend(value)
    elif isinstance(value, tuple):
        element = ET.SubElement(parent, key)
        ET.SubElement(element, "color", dict(zip(("red", "green", "blue"), map(str, value), strict=True)))
    elif isinstance(value, Font):
        styled = {"family": "Liberation Sans", "style": "BOLD" if value.bold else "REGULAR", "size": f"{value.size}.0"}
        ET.SubElement(ET.SubElement(parent, key), "font", styled)
    else:
        _text(parent, key, value)


def _text(parent: ET.Element, key: str, value: Any) -> None:
    ET.SubElement(parent, key).text = str(value).lower() if isinstance(value, bool) else str(value)


def element(key: str, properties: Mapping[str, Any] | None = None, **attributes: str) -> ET.Element:
    """An element with properties in it."""
    made = ET.Element(key, attributes)
    for name, value in (properties or {}).items():
        set_property(made, name, value)
    return made


def rules(*given: Rule) -> ET.Element:
    """The property `rules`."""
    made = ET.Element("rules")
    for one in given:
        rule = ET.SubElement(made, "rule", {"name": one.property, "prop_id": one.property, "out_exp": "true"})
        for condition, value in one.cases:
            case = ET.SubElement(rule, "exp", {"bool_exp": condition})
            _text(case, "expression", value)
        for channel in one.channels:
            _text(rule, "pv_name", channel)
    return made


def write_action(channel: str, value: str, about: str) -> ET.Element:
    """The property `actions` of a button that writes."""
    actions = ET.Element("actions")
    action = ET.SubElement(actions, "action", {"type": "write_pv"})
    for key, text in (("pv_name", channel), ("value", value), ("description", about)):
        _text(action, key, text)
    return actions


def open_action(file: str, about: str) -> ET.Element:
    """The property `actions` of a button that opens another screen in a tab."""
    actions = ET.Element("actions")
    action = ET.SubElement(actions, "action", {"type": "open_display"})
    for key, text in (("file", file), ("target", "tab"), ("description", about)):
        _text(action, key, text)
    return actions


def traces(given: Iterable[tuple[str, Mapping[str, Any]]]) -> list[ET.Element]:
    """Traces of a plot: (name, properties), each in a colour of its own."""
    return [
        element("trace", {"name": name, "color": style.TRACES[n % len(style.TRACES)], "line_width": 3, **properties})
        for n, (name, properties) in enumerate(given)
    ]
