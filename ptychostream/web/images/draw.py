"""Images as PNG, in the colours of the page."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptychostream.errors import ConfigError
from ptychostream.web.images.picture import Picture

COLOURS = Path(__file__).parents[1] / "page" / "colours.json"
"""Colour maps, 256 colours each as hexadecimal text: perceptually uniform ones of matplotlib, and grey."""
_LAST = 254
_NOTHING = 255


@cache
def colour_maps() -> dict[str, NDArray[np.uint8]]:
    """[256, 3] of each colour map by its name."""
    found = json.loads(COLOURS.read_text(encoding="utf-8"))
    return {name: np.frombuffer(bytes.fromhex(text), np.uint8).reshape(256, 3) for name, text in found.items()}


def png_of(picture: Picture, colours: str, low: float, high: float, percentiles: bool) -> bytes:
    """A PNG of an image, one pixel for one pixel; those without a measurement are transparent.

    Parameters
    ----------
    colours
        Name of a colour map.
    low, high
        Values of the first and the last colour, or the percentiles that have them.

    Raises
    ------
    ConfigError
        There is no such colour map, or the limits are none.
    """
    maps = colour_maps()
    if colours not in maps:
        raise ConfigError(f"no colour map {colours[:40]!r}", where="colours", remedy=f"take one of {', '.join(maps)}")
    array = picture.array.astype(np.float64)
    missing = ~np.isfinite(array)
    if picture.fill is not None:
        missing |= picture.array == picture.fill
    held = array[~missing]
    if percentiles and not 0 <= low < high <= 100:
        raise ConfigError(f"percentiles {low:g} and {high:g}", where="low, high", remedy="give 0 to 100, the low first")
    if percentiles and held.size:
        low, high = np.percentile(held, (low, high))
    scaled = (array - low) * (_LAST / max(high - low, 1e-30))
    index = np.where(missing, _NOTHING, np.clip(np.nan_to_num(scaled, nan=0.0), 0, _LAST)).astype(np.uint8)
    image = Image.fromarray(index, "L").convert("P")
    image.putpalette(maps[colours][np.linspace(0, 255, _LAST + 1).round().astype(int)].tobytes() + b"\0\0\0")
    written = io.BytesIO()
    image.save(written, "PNG", transparency=_NOTHING, compress_level=3)
    return written.getvalue()
