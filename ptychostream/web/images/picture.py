"""An NTNDArray of any channel as an image of numbers, or an error that says why it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from p4p import Value

from ptychostream.errors import PtychostreamError, StreamError
from ptychostream.pva.reading import counts_of, packed_of, posix_time

LARGEST_PIXELS = 1 << 28
MOST_ATTRIBUTES = 64
LONGEST_TEXT = 256
FIELDS = "field(value,codec,compressedSize,uncompressedSize,uniqueId,timeStamp,dimension,attribute,display)"
"""What is read of an image, as in a pvRequest."""

Scalar = float | int | str


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes
    ----------
    array
        [H, W] of an integer or float type.
    number
        uniqueId.
    time_s
        When it was served, POSIX seconds.
    attributes
        NDAttributes that are a number or a text, at most 64.
    units
        Unit of the pixels.
    """

    array: NDArray[Any]
    number: int
    time_s: float
    attributes: Mapping[str, Scalar]
    units: str

    @property
    def fill(self) -> float | None:
        """The value of pixels without a measurement, or None."""
        fill = self.attributes.get("FillValue")
        return float(fill) if isinstance(fill, float | int) else None


def picture_of(value: Value, channel: str) -> Picture | None:
    """Decode one update. None: the channel has no image yet.

    Raises
    ------
    StreamError
        It is no NTNDArray, or no image with two dimensions of numbers.
    """
    try:
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
        payload = value["value"]
        if not sizes and payload is None:
            return None
        array = _array(value, sizes, payload)
        time_s = posix_time(value["timeStamp.secondsPastEpoch"], value["timeStamp.nanoseconds"])
        units = str.__str__(value.get("display.units") or "")
        number = int(value["uniqueId"])
        return Picture(array, number, time_s, _attributes(value["attribute"]), units[:LONGEST_TEXT])
    except PtychostreamError as error:
        raise StreamError(error.what, where=channel, remedy=error.remedy) from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"not an NTNDArray: {str(error)[:LONGEST_TEXT]}"
        raise StreamError(what, where=channel, remedy="name the channel of an image") from error


def _array(value: Value, sizes: list[int], payload: Any) -> NDArray[Any]:
    while len(sizes) > 2 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) != 2 or min(sizes) < 1:
        shape = " × ".join(map(str, reversed(sizes)))
        raise StreamError(f"dimensions {shape}, where an image has two", remedy="serve one colour, one image at a time")
    if math.prod(sizes) > LARGEST_PIXELS:
        raise StreamError(f"{sizes[1]} × {sizes[0]} pixels", remedy=f"serve at most {LARGEST_PIXELS} pixels")
    if packed := packed_of(value):
        return counts_of(int(value["uniqueId"]), sizes, payload, packed)
    values = np.empty(0, np.uint8) if payload is None else np.asarray(payload)
    if values.dtype.kind not in "iufb":
        raise StreamError(f"values of type {values.dtype}, where pixels are numbers", remedy="serve numbers")
    if values.size != math.prod(sizes):
        what = f"{values.size} values, where the dimensions are {sizes[1]} × {sizes[0]}"
        raise StreamError(what, remedy="look at the server of this channel")
    return values.reshape(sizes[1], sizes[0])


def _attributes(found: Any) -> dict[str, Scalar]:
    """Attributes that are a number or a text; p4p's texts have a time, which `str` would show."""
    kept: dict[str, Scalar] = {}
    for attribute in list(found)[:MOST_ATTRIBUTES]:
        if attribute is None:
            continue
        held = attribute["value"]
        if isinstance(held, str):
            kept[str.__str__(attribute["name"])[:LONGEST_TEXT]] = str.__str__(held)[:LONGEST_TEXT]
        elif isinstance(held, bool | int | np.integer):
            kept[attribute["name"]] = int(held)
        elif isinstance(held, float | np.floating) and math.isfinite(held):
            kept[attribute["name"]] = float(held)
    return kept
