"""Scan trajectories around (0, 0), in metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ConfigError


@dataclass(frozen=True)
class Trajectory:
    """Positions, and the motion during each exposure.

    Attributes
    ----------
    positions_m
        [N, 2] (x, y) of the middle of each exposure, metres.
    motion_m
        [N, 2] (x, y) motion while the shutter is open. Zero for a step scan.
    """

    positions_m: NDArray[np.float64]
    motion_m: NDArray[np.float64]


def trajectory(name: str, frames: int, step_m: float) -> Trajectory:
    """Make a trajectory of `frames` points. Each covers step_m² of the sample.

    Raises
    ------
    ConfigError
        The trajectory is unknown, or `frames` or `step_m` is not positive.
    """
    if name not in TRAJECTORIES:
        raise ConfigError(f"no trajectory {name!r}", where="scan", remedy=f"choose from {', '.join(TRAJECTORIES)}")
    if frames < 1 or not step_m > 0:
        raise ConfigError(
            f"{frames} frames at a step of {step_m} m", where="scan", remedy="give at least 1 frame and a positive step"
        )
    return TRAJECTORIES[name](frames, step_m)


def jitter(positions_m: NDArray[np.float64], rms_m: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Add an error of `rms_m` (rms of the distance, metres) to positions."""
    return positions_m + random.normal(0, rms_m / np.sqrt(2), positions_m.shape)


def _still(positions_m: NDArray[np.float64]) -> Trajectory:
    return Trajectory(positions_m, np.zeros_like(positions_m))


def _spiral(frames: int, step_m: float) -> Trajectory:
    """Archimedean spiral. The distance between turns, and between points along it, is `step_m`."""
    pitch = step_m / (2 * np.pi)
    length = np.arange(frames) * step_m / pitch
    theta = np.sqrt(2 * length)
    for _ in range(8):  # Newton steps for the arc length, pitch / 2 · (theta·√(1 + theta²) + asinh theta)
        slope = np.hypot(1, theta)
        theta -= ((theta * slope + np.arcsinh(theta)) / 2 - length) / slope
    radius = pitch * theta
    return _still(np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1))


def _fermat(frames: int, step_m: float) -> Trajectory:
    """Fermat spiral (Vogel's sunflower): the golden angle between points, the same area per point."""
    n = np.arange(frames)
    radius, theta = step_m * np.sqrt((n + 0.5) / np.pi), n * np.pi * (3 - np.sqrt(5))
    return _still(np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1))


def _rows(frames: int, step_m: float, snake: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    columns = int(np.ceil(np.sqrt(frames)))
    row, column = np.divmod(np.arange(frames), columns)
    direction = np.where(row % 2 == 1, -1.0, 1.0) if snake else np.ones(frames)
    column = np.where(direction < 0, columns - 1 - column, column)
    rows = row[-1] + 1
    positions = np.stack([column - (columns - 1) / 2, row - (rows - 1) / 2], axis=1) * step_m
    return positions, direction


def _raster(frames: int, step_m: float) -> Trajectory:
    return _still(_rows(frames, step_m, snake=False)[0])


def _fly(frames: int, step_m: float) -> Trajectory:
    """Continuous motion along the rows in alternating direction. Each exposure is averaged over one step."""
    positions, direction = _rows(frames, step_m, snake=True)
    return Trajectory(positions, np.stack([direction * step_m, np.zeros(frames)], axis=1))


TRAJECTORIES: dict[str, Callable[[int, float], Trajectory]] = {
    "spiral": _spiral,
    "fermat": _fermat,
    "raster": _raster,
    "fly": _fly,
}
