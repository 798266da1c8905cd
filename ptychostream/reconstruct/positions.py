"""Correct the positions of a scan while it is reconstructed: each by itself, and all by one linear map.

The change that the modulus constraint makes to the exit waves of a position is compared with the change that a small
displacement of the object would make. The displacement that explains most of it, in least squares, is the measured one
(Odstrčil et al., Optics Express 26, 3108 (2018), section 4; `wave_kernels.displacement`). It points the right way and
is too short, because the constraint knows amplitudes alone, so that several iterations are needed.

That finds the nearest minimum. Errors as large as the sample's features have others, so in the first iterations places
around each position are tried, too, and the one whose pattern fits best is taken (Maiden et al., Ultramicroscopy 120,
64 (2012)): some near the position, the nearer the later, and some anywhere around the given one. Two errors survive:

- A frame far off, beside which none of the few places was near enough. The frames that are explained worst are compared
  at a whole lattice of places (`Positions.lattice`).
- A group of neighbours that moved together, most at the edge of a scan. They explain one another and carry their part
  of the object with them, so only the frames between them and the rest disagree. Errors that each position has by
  itself have no mean among neighbours. So what neighbours have in common is taken away, and the object begins anew,
  because the old one would pull them back (`Positions.begins_anew`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Correction = Literal["none", "global", "each", "both"]

START = 2
"""Iterations before the positions follow, so that there is an object to compare with."""
LONGEST = 2.0
"""A displacement in one iteration is at most so many object pixels."""
GAIN = 1.5
"""The measured displacement is multiplied by this."""
MEASURED = 0.5
"""Part of a displacement that is measured, because half of the change of an exit wave is in its phases."""
KEPT = 0.7
"""Part of the last displacement that is made again (momentum)."""


@dataclass(frozen=True)
class LinearMap:
    """What the positions (x, y) have in common: corrected = rotation · [[x scale, shear], [0, y scale]] · given.

    Attributes
    ----------
    scale_x, scale_y
        1 where the given positions have the right scale.
    rotation_rad
        From the given x axis towards y.
    shear
        Movement along x per movement along y.
    rms_m
        Rms distance of the corrected positions from this map.
    moved_m
        Rms distance of the corrected positions from the given ones, common translation removed.
    """

    scale_x: float
    scale_y: float
    rotation_rad: float
    shear: float
    rms_m: float
    moved_m: float

    @classmethod
    def between(cls, given: Floats, corrected: Floats) -> LinearMap:
        """The map of least squares between positions [N, 2] (x, y) in metres."""
        by = _displacement_map(given, corrected - given)
        matrix = np.eye(2) + by[:2].T
        turn = np.arctan2(matrix[1, 0], matrix[0, 0])
        cosine, sine = np.cos(turn), np.sin(turn)
        upper = np.array([[cosine, sine], [-sine, cosine]]) @ matrix
        moved = corrected - given
        rest = moved - _mapped(given, by)
        return cls(
            scale_x=float(upper[0, 0]),
            scale_y=float(upper[1, 1]),
            rotation_rad=float(turn),
            shear=float(upper[0, 1]),
            rms_m=_rms(rest),
            moved_m=_rms(moved - moved.mean(axis=0)),
        )

    def report(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


TRIED = 30
"""Iterations in which places are tried."""
NEAR, FAR = 2, 4
"""Places that are tried near a position, and around the given one."""
WIDE = 0.75
"""Around the given position is within so much of the reach."""
FIRST, CLOSEST, SHRINK = 0.4, 1.5, 10.0
"""Near is within `FIRST` of the reach and shrinks by e in `SHRINK` iterations, to `CLOSEST` object pixels at least."""

SEARCHED = (13, 20, 28)
"""Iterations after which a lattice of places is tried for the frames that are explained worst."""
WORST = 0.05
"""Part of the frames for which it is."""
SIDE = 21
"""Places along a side of the lattice, which spans the reach."""
ANEW = (9, 16)
"""Iterations after which the object begins anew, without what neighbours have in common."""
SETTLE = 15
"""In so many iterations at the end no object begins anew, and positions come to rest, though not in the first ones."""
NEIGHBOURS = 18
"""Positions that are compared then, at most an eighth of all."""
DRIFT = 3
"""Degree of the polynomial in time that they keep in common: a drift is no error of single positions."""


class Positions:
    """Positions of the patches' first pixels as they are corrected.

    Parameters
    ----------
    given
        [N, 2] (row, column) object pixels.
    kind
        "global": all by one linear map. "each": every position by itself, and no linear map. "both".
    reach
        Largest displacement along an axis in pixels.
    start
        Where they begin; no other places are tried then. None: as they were given.
    seed
        Of the places that are tried.
    iterations
        Passes that are planned.

    Attributes
    ----------
    now
        [N, 2] (row, column), the mean is that of the given ones: a common translation cannot be determined.
    """

    def __init__(
        self,
        given: Floats,
        kind: Correction,
        reach: float,
        start: Floats | None = None,
        seed: int = 0,
        iterations: int = SETTLE,
    ) -> None:
        self._given, self._kind, self._reach = given, kind, reach
        self._tried = TRIED if kind in ("each", "both") and start is None else 0
        self._random = np.random.default_rng(seed)
        self._motion = np.zeros_like(given)
        self._settles = iterations - SETTLE
        self._passes = 0
        self._left = np.zeros(len(given))
        self.now = given.copy() if start is None else given + np.clip(start - given, -reach, reach)

    @property
    def corners(self) -> NDArray[np.int64]:
        """[N, 2] the nearest whole pixels."""
        nearest: NDArray[np.int64] = np.rint(self.now).astype(np.int64)
        return nearest

    def follow(self, measured: Floats) -> None:
        """Take the displacements [N, 2] that were measured in a pass, relative to `corners`."""
        self._passes += 1
        if self._passes < START:
            return
        off = np.nan_to_num(measured)
        if self._passes > max(self._settles, SETTLE) and self._kind != "global":
            # Measured from a whole pixel: without the fraction a position swings around the middle between two pixels.
            # That swing helps what neighbours have in common to come to rest, so it ends late.
            off -= MEASURED * (self.now - self.corners)
        step = np.clip(GAIN * off, -LONGEST, LONGEST)
        self._motion = np.clip(KEPT * self._motion + step, -LONGEST, LONGEST)
        self._move(self.now + self._motion)

    def candidates(self) -> NDArray[np.int64] | None:
        """[N, K, 2] corners to compare, the present ones first; None where none are to be tried."""
        late = self._passes - START
        if not 0 <= late < self._tried:
            return None
        near = max(CLOSEST, FIRST * self._reach * np.exp(-late / SHRINK))
        places = [
            self.now[:, None],
            self.now[:, None] + self._disc(NEAR, near),
            self._given[:, None] + self._disc(FAR, WIDE * self._reach),
        ]
        there = np.concatenate(places, axis=1) - self._given[:, None]
        inside = self._given[:, None] + np.clip(there, -self._reach, self._reach)
        tried: NDArray[np.int64] = np.rint(inside).astype(np.int64)
        return tried

    def lattice(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """The frames that are explained worst [n], and corners to compare [n, K, 2], the present ones first."""
        if not self._tried or self._passes not in SEARCHED:
            return None
        frames = np.argsort(-self._left, kind="stable")[: int(np.ceil(WORST * len(self.now)))]
        line = np.linspace(-self._reach, self._reach, SIDE)
        around = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
        places = np.concatenate([self.now[frames][:, None], self._given[frames][:, None] + around], axis=1)
        return frames, np.rint(places).astype(np.int64)

    def choose(self, frames: NDArray[np.int64], candidates: NDArray[np.int64], misfits: Floats) -> None:
        """Take the candidates [n, K, 2] with the smallest misfits [n, K], relative to the frames' counts."""
        self._left[frames] = misfits.min(axis=1)
        best = misfits.argmin(axis=1)
        rows = np.flatnonzero(best > 0)
        self._motion[frames[rows]] = 0
        places = self.now.copy()
        places[frames[rows]] = candidates[rows, best[rows]]
        self._move(places)

    def begins_anew(self) -> bool:
        """Whether the object must begin anew: what neighbours had in common, besides map and drift, was taken away."""
        number = min(NEIGHBOURS, len(self.now) // 8)
        if not self._tried or self._passes not in ANEW or self._passes > self._settles or number < 2:
            return False
        moved = self.now - self._given
        own = moved - _mapped(self._given, _displacement_map(self._given, moved))
        times = np.vander(np.linspace(-1, 1, len(own)), DRIFT + 1)
        own = own - times @ np.linalg.lstsq(times, own, rcond=None)[0]
        from scipy.spatial import cKDTree  # here: the IOC needs this module's names at its start, and no scipy

        _, near = cKDTree(self._given).query(self._given, number)
        self._motion[:] = 0
        self._move(self.now - own[near].mean(axis=1))
        return True

    def _disc(self, number: int, radius: float) -> Floats:
        """[N, number, 2] random displacements of at most `radius`."""
        shape = len(self.now), number
        angle = self._random.uniform(0, 2 * np.pi, shape)
        distance = radius * np.sqrt(self._random.uniform(0, 1, shape))
        return np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=2)

    def _move(self, places: Floats) -> None:
        moved = places - self._given
        common = _mapped(self._given, _displacement_map(self._given, moved))
        if self._kind == "global":
            moved = common
        elif self._kind == "each":
            moved = moved - common
        moved = moved - moved.mean(axis=0)
        self.now = self._given + np.clip(moved, -self._reach, self._reach)


def in_words(report: dict[str, Any], pixel_m: float) -> str:
    """What `LinearMap.report` means, for people."""
    return (
        f"positions corrected by {report['moved_m'] / pixel_m:.2f} pixels rms; in common scale x "
        f"{report['scale_x']:.5f}, y {report['scale_y']:.5f}, rotation {np.degrees(report['rotation_rad']):.3f} deg, "
        f"shear {report['shear']:.5f}, the rest {report['rms_m'] / pixel_m:.2f} pixels rms"
    )


def _displacement_map(given: Floats, moved: Floats) -> Floats:
    """[3, 2] the linear map of least squares from centred positions, and 1, to displacements.

    Where the positions lie on a line the map along the other axis is not known, and is 0.
    """
    found: Floats = np.asarray(np.linalg.lstsq(_centred(given), moved, rcond=1e-9)[0], np.float64)
    return found


def _mapped(given: Floats, by: Floats) -> Floats:
    mapped: Floats = _centred(given) @ by
    return mapped


def _centred(given: Floats) -> Floats:
    centred = given - given.mean(axis=0)
    extent = np.abs(centred).max() or 1.0
    return np.column_stack([centred, np.full(len(given), extent)])


def _rms(distances: Floats) -> float:
    return float(np.sqrt(np.square(distances).sum(axis=1).mean()))
