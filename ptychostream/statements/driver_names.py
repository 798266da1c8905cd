"""Names that drivers of areaDetector give to what their attributes say of the sensor's region."""

from __future__ import annotations

_NAMES = {
    "binning": ("bin", "binning"),
    "offset": ("min", "offset", "start"),
    "reverse": ("reverse",),
}
"""Names of drivers' attributes without the axis, `_RBV`, upper case and underscores."""


def region_name(name: str) -> tuple[str, str] | None:
    """("binning", "offset" or "reverse"; axis) of a driver's attribute such as `BinX`, or None."""
    plain = name.lower().removesuffix("_rbv").replace("_", "")
    for quantity, stems in _NAMES.items():
        for stem in stems:
            for axis in "xy":
                if plain in (stem + axis, axis + stem):
                    return quantity, axis
    return None
