"""The images that a client received while a scan streamed, with their times; how similar each is to a reference."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import GeometryError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.quality import compare
from ptychostream.storage.atomic import atomic_path

REFINED = "Refined"
_MOST = 300


@dataclass(frozen=True)
class Seen:
    """An image, the channel it came from, and the seconds since the first of all images."""

    name: str
    seconds: float
    image: PhaseImage


class Series:
    """Keeps the first images of a client, at most 300."""

    def __init__(self) -> None:
        self._images: list[tuple[str, float, NDArray[np.float32], dict[str, Any]]] = []

    def add(self, name: str, array: NDArray[np.floating], attributes: dict[str, Any]) -> None:
        """Keep an image [H, W] with its attributes."""
        if len(self._images) < _MOST:
            self._images.append((name, time.monotonic(), array.astype(np.float32), attributes))

    def write(self, path: Path) -> None:
        """Write all images to an npz file, atomically."""
        arrays = {f"image{index}": array for index, (_, _, array, _) in enumerate(self._images)}
        keys = ("OriginX", "OriginY", "PixelSize", "FillValue")
        numbers = [[time_s, *(float(told[key]) for key in keys)] for _, time_s, _, told in self._images]
        names = np.array([name for name, _, _, _ in self._images], dtype=np.str_)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, names=names, numbers=np.array(numbers).reshape(-1, 5), **arrays)  # type: ignore[arg-type]


def read_series(path: Path) -> list[Seen]:
    """The images of a file of `Series.write`. Pixels that hold the fill value are NaN."""
    with np.load(path, allow_pickle=False) as file:
        seen, numbers = [], file["numbers"]
        for index, (name, (seconds, x, y, pixel_m, fill)) in enumerate(zip(file["names"], numbers, strict=True)):
            array = file[f"image{index}"]
            measured = np.isfinite(array) & (array != np.float32(fill) if fill else True)
            phase = np.where(measured, array, np.nan).astype(np.float32)
            image = PhaseImage(phase, measured.astype(np.float32), (float(x), float(y)), float(pixel_m))
            seen.append(Seen(str(name), float(seconds - numbers[0, 0]), image))
        return seen


def similarities(
    series: list[Seen], name: str, reference: PhaseImage, area: NDArray[np.bool_]
) -> tuple[list[float], list[float]]:
    """Seconds, and SSIM to the reference on the area, of the images of one channel that cover the area.

    An image that covers less than half of the area is left out.
    """
    times, values = [], []
    for seen in series:
        if seen.name != name:
            continue
        try:
            quality = compare(seen.image, reference, area)
        except GeometryError:
            continue  # it does not reach the area yet
        if quality.covered > 0.5:
            times.append(seen.seconds)
            values.append(quality.ssim)
    return times, values
