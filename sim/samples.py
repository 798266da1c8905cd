"""Samples etched into a gold film. A sample is an infinite plane and a pure function of (seed, x, y).

Scans of different density, and scans of neighbouring areas, therefore have the same sample. A sample is given by its
etch depth from 0 (full film) to 1 (etched through). `Film` converts it to a transmission function.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptychostream.config import Settings
from ptychostream.errors import ConfigError

EDGE_M = 15e-9
"""Width of an etched wall, metres."""


class Film(Settings):
    """The film. The defaults are 1 µm of gold with n = 1 - delta + i·beta at 10 keV."""

    thickness_m: float = 1e-6
    """Thickness of the film."""
    delta: float = 2.99e-5
    """Decrement of the refractive index."""
    beta: float = 2.2e-6
    """Absorption index."""

    def transmission(self, depth: NDArray[np.float32], wavelength_m: float) -> NDArray[np.complex64]:
        """Transmission of the film etched to `depth`, relative to the phase of the full film.

        Returns
        -------
        [H, W] complex64. The phase is 0 (film) to 2π·delta·thickness/wavelength (etched through), the amplitude ≤ 1.
        """
        k = 2 * np.pi / wavelength_m
        phase = k * self.delta * self.thickness_m * depth
        amplitude = np.exp(-k * self.beta * self.thickness_m * (1 - depth))
        return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def etch_depth(name: str, x_m: NDArray[np.float64], y_m: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Etch depth of the sample `name` at every (y, x).

    Parameters
    ----------
    name
        One of `SAMPLES`.
    x_m, y_m
        Evenly spaced coordinates of the columns [W] and rows [H], metres.
    seed
        Seed of the sample.

    Returns
    -------
    [H, W] float32, 0 … 1.

    Raises
    ------
    ConfigError
        The sample is unknown.
    """
    check_sample(name)
    return SAMPLES[name](x_m, y_m, seed)


def check_sample(name: str) -> None:
    """Raise ConfigError if the sample is unknown."""
    if name not in SAMPLES:
        raise ConfigError(f"no sample {name!r}", where="sample", remedy=f"choose from {', '.join(SAMPLES)}")


def _wall(distance_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth from the signed distance (negative inside): 1 inside, 0 outside, a slope of width EDGE_M between."""
    return np.clip(0.5 - distance_m / EDGE_M, 0, 1)


def _cells(
    x_m: NDArray[np.float64], y_m: NDArray[np.float64], size_m: float, reach_m: float
) -> Iterator[tuple[int, int]]:
    """Indices of the square cells whose shapes can reach the window."""
    for j in range(int(np.floor((y_m[0] - reach_m) / size_m)), int(np.floor((y_m[-1] + reach_m) / size_m)) + 1):
        for i in range(int(np.floor((x_m[0] - reach_m) / size_m)), int(np.floor((x_m[-1] + reach_m) / size_m)) + 1):
            yield i, j


def _cell_random(seed: int, i: int, j: int) -> np.random.Generator:
    return np.random.default_rng([seed, i % 2**32, j % 2**32])


def _window(coordinates_m: NDArray[np.float64], centre_m: float, reach_m: float) -> slice:
    return slice(*np.searchsorted(coordinates_m, [centre_m - reach_m, centre_m + reach_m]))


def _shape_distance(
    kind: int, u: NDArray[np.float64], v: NDArray[np.float64], size_m: float, ratio: float
) -> NDArray[np.float64]:
    """Signed distance to a shape of half size `size_m`, at the shape's rotated coordinates (u, v)."""
    radius = np.hypot(u, v)
    if kind == 0:  # disc
        return radius - size_m
    if kind == 1:  # ring
        return np.abs(radius - size_m * 0.75) - size_m * 0.25
    if kind == 2:  # bar or rectangle
        return np.maximum(np.abs(u) - size_m, np.abs(v) - size_m * ratio)
    if kind == 3:  # triangle
        return np.maximum(v - size_m / 2, np.abs(u) * np.sqrt(0.75) - v / 2 - size_m / 2)
    if kind == 4:  # corner: two bars
        width = size_m * min(ratio, 0.4)
        flat = np.maximum(np.abs(u) - size_m, np.abs(v + size_m - width) - width)
        upright = np.maximum(np.abs(v) - size_m, np.abs(u + size_m - width) - width)
        return np.minimum(flat, upright)
    # ellipse, to first order in the distance
    level = np.hypot(u, v / ratio)
    return (level - size_m) * ratio


def _shapes(x_m: NDArray[np.float64], y_m: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    cell_m, largest_m = 0.5e-6, 0.26e-6
    reach_m = largest_m * np.sqrt(2) + EDGE_M
    depth = np.zeros((len(y_m), len(x_m)), np.float32)
    for i, j in _cells(x_m, y_m, cell_m, reach_m):
        random = _cell_random(seed, i, j)
        for _ in range(3):
            x0, y0 = (np.array([i, j]) + random.random(2)) * cell_m
            kind, angle = int(random.integers(6)), random.random() * 2 * np.pi
            size_m, ratio, level = random.uniform(0.06e-6, largest_m), random.uniform(0.2, 0.9), random.uniform(0.4, 1)
            columns, rows = _window(x_m, x0, reach_m), _window(y_m, y0, reach_m)
            dx, dy = x_m[None, columns] - x0, y_m[rows, None] - y0
            u = dx * np.cos(angle) + dy * np.sin(angle)
            v = dy * np.cos(angle) - dx * np.sin(angle)
            inside = level * _wall(_shape_distance(kind, u, v, size_m, ratio))
            depth[rows, columns] = np.maximum(depth[rows, columns], inside)
    return depth


@lru_cache(maxsize=64)
def _glyph(letter: str, pixels: int = 256) -> NDArray[np.float32]:
    """[pixels, pixels] coverage of a letter. Row 0 is at the bottom. The frame is 1.5 times as high as a capital."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=pixels)
    canvas = FigureCanvasAgg(figure)
    # a capital of DejaVu Sans is 0.73 of the font size high; an inch is 72 points
    figure.text(
        0.5, 0.5, letter, ha="center", va="center_baseline", family="DejaVu Sans", weight="bold", size=72 / 1.5 / 0.73
    )
    canvas.draw()  # type: ignore[no-untyped-call]
    ink = 255 - np.asarray(canvas.buffer_rgba())[::-1, :, 0]  # type: ignore[no-untyped-call]
    return (ink / np.float32(255)).astype(np.float32)


def _letters(x_m: NDArray[np.float64], y_m: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    cell_m, frame_m = 0.8e-6, 1.0e-6
    reach_m = frame_m / np.sqrt(2)
    depth = np.zeros((len(y_m), len(x_m)), np.float32)
    for i, j in _cells(x_m, y_m, cell_m, reach_m):
        random = _cell_random(seed, i, j)
        x0, y0 = (np.array([i, j]) + random.uniform(0.4, 0.6, 2)) * cell_m
        letter, angle = string.ascii_uppercase[random.integers(26)], random.uniform(-0.25, 0.25)
        glyph = _glyph(letter)
        columns, rows = _window(x_m, x0, reach_m), _window(y_m, y0, reach_m)
        dx, dy = x_m[None, columns] - x0, y_m[rows, None] - y0
        if dx.size == 0 or dy.size == 0:
            continue
        scale, middle = glyph.shape[0] / frame_m, (glyph.shape[0] - 1) / 2
        column = (dx * np.cos(angle) + dy * np.sin(angle)) * scale + middle
        row = (dy * np.cos(angle) - dx * np.sin(angle)) * scale + middle
        inside = ndimage.map_coordinates(glyph, [row, column], order=1, mode="constant")
        depth[rows, columns] = np.maximum(depth[rows, columns], inside)
    return depth


def _raised_letters(x_m: NDArray[np.float64], y_m: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Letters in the opposite tone: the film around them is etched away."""
    return np.float32(1) - _letters(x_m, y_m, seed)


def _siemens_star(x_m: NDArray[np.float64], y_m: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """36 spokes around (0, 0) with an empty centre and a ring every micrometre. `seed` sets the rotation."""
    spokes, ring_m = 36, 1e-6
    turn = np.random.default_rng(seed).random() * 2 * np.pi
    x, y = x_m[None, :], y_m[:, None]
    radius = np.hypot(x, y)
    angle = (np.arctan2(y, x) - turn) % (2 * np.pi / spokes) - np.pi / spokes
    spoke = _wall(radius * (np.abs(angle) - np.pi / spokes / 2))
    blank = _wall(radius - 0.15e-6)
    from_ring = np.abs((radius + ring_m / 2) % ring_m - ring_m / 2)
    ring = _wall(from_ring - 0.04e-6) * (radius > ring_m / 2)
    return np.asarray(np.maximum(spoke, ring) * (1 - blank), np.float32)


SAMPLES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64], int], NDArray[np.float32]]] = {
    "shapes": _shapes,
    "letters": _letters,
    "siemens": _siemens_star,
    "raised": _raised_letters,
}
