"""Colours and sizes of the screens.

The colours are those of Okabe and Ito, which people with every kind of colour vision tell apart. A lamp says its state
in words too. Texts are read at arm's length.
"""

from __future__ import annotations

OK = (86, 180, 233)
"""Sky blue: as it should be."""
WARN = (240, 228, 66)
"""Yellow: minor."""
BAD = (213, 94, 0)
"""Vermilion: major."""
IDLE = (205, 208, 212)
"""Grey: nothing happens, or not used."""
TRACES = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167))
"""Blue, vermilion, green, purple."""
PAPER = (238, 240, 242)
PANEL = (250, 250, 250)
BANNER = (38, 50, 56)
BANNER_TEXT = (255, 255, 255)
TEXT = (20, 20, 20)
QUIET = (70, 76, 82)
ENTRY = (200, 232, 255)
"""Background of what can be written."""

BY_SEVERITY = {"NO_ALARM": OK, "MINOR": WARN, "MAJOR": BAD, "INVALID": BAD}
QUIET_STATES = frozenset({
    "Idle", "Not used", "No", "Off", "Disable", "Unknown", "Done", "Manual", "Offline", "No agent", "NoModel",
})  # fmt: skip
"""States without an alarm that are shown in grey."""

SMALL, NORMAL, LARGE, HUGE = 14, 17, 22, 28
"""Heights of texts, pixels."""
