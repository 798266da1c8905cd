"""The screens as they are committed, and the channels in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from folders import ROOT

FOLDER = ROOT / "opi"
SCREENS = sorted(FOLDER.glob("*.bob"))


def channels(text: str) -> set[str]:
    """Every channel of a screen, with its macros."""
    root = ET.fromstring(text)
    return {
        element.text
        for tag in ("pv_name", "x_pv", "y_pv")
        for element in root.iter(tag)
        if element.text and not element.text.startswith("$(pv")
    }
