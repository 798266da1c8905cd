"""Position sources: attributes, waveforms, a route file and streams have one interface, `PositionSource`.

`AxisConfig` converts the beamline's positions to metres and canvas axes. No other module converts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.errors import GeometryError, ScanFileError
from ptychostream.frames.frames import Frame
from ptychostream.positions.route_file import Route, read_route
from ptychostream.statements.units import contradiction

UNIT_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
"""Metres in each unit that positions may have."""
_WAVEFORMS = "position waveforms"
EVERY_ID = math.inf
Number = TypeVar("Number", float, NDArray[np.float64])


class NeverPlaced(Exception):  # noqa: N818 - a result, not an error
    """No position can ever come for this frame. The text says why."""


class AxisConfig(Settings):
    """Converts the beamline's two positions to canvas axes: swaps them, applies the signs, scales and turns them."""

    unit: Annotated[Literal["m", "mm", "um", "nm"], Setting(flag="--position-unit", help="unit of the positions")] = "m"
    """Unit of the positions as they are sent."""
    swap_xy: Annotated[bool, Setting("SwapXY", "x and y are swapped before the signs", group="scan", live=False)] = (
        False
    )
    sign_x: Literal[-1, 1] = 1
    """Sign from the beamline's x to the canvas."""
    sign_y: Literal[-1, 1] = 1
    """Sign from the beamline's y to the canvas."""
    rotation_deg: Annotated[
        float,
        Setting(
            "PositionRotation",
            "Turn of the positions after the signs",
            group="scan",
            egu="deg",
            prec=2,
            live=False,
            flag="--position-rotation",
            help="turn of the positions from x towards y, after swap and signs, degrees",
        ),
    ] = Field(0.0, ge=-180, le=180)
    """Turn of the positions from the canvas's x towards its y, after swap and signs, degrees: the angle between the
    scanner's and the detector's axes."""

    @property
    def unit_m(self) -> float:
        return UNIT_M[self.unit]

    def apply(self, a: Number, b: Number) -> tuple[Number, Number]:
        """(x, y) in metres from the sent x and y, numbers or arrays."""
        if self.swap_xy:
            a, b = b, a
        return self.turn(a * (self.sign_x * self.unit_m), b * (self.sign_y * self.unit_m))

    def turn(self, x: Number, y: Number) -> tuple[Number, Number]:
        """Positions in metres that lack only the rotation."""
        if not self.rotation_deg:
            return x, y
        angle = math.radians(self.rotation_deg)
        cosine, sine = math.cos(angle), math.sin(angle)
        return x * cosine - y * sine, x * sine + y * cosine


Place = tuple[float, float] | None | NeverPlaced
"""What a source says of a frame: (x, y) in metres, not known yet, or why never."""


class PositionSource(Protocol):
    """Gives the positions of frames.

    A source may also have a method `lookup_many`, which is faster than a `lookup` for each of many frames: it takes a
    sequence of frames and returns the `Place` of each.

    Attributes
    ----------
    version
        Changes whenever a position that was not known yet may have become known.
    known_below
        The positions of frames with this key or a higher one are certainly not known yet.
    outlasts_scan
        Whether it gives correct positions for frames of an ended scan, because it holds the positions of several scans.
    """

    @property
    def version(self) -> int: ...

    @property
    def known_below(self) -> float: ...

    @property
    def outlasts_scan(self) -> bool: ...

    def key(self, frame: Frame) -> float:
        """The frame's id or time, in whose order positions become known. It never changes for a frame."""
        ...

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """(x, y) in metres, or None if not known yet. Raises NeverPlaced if no position can ever come."""
        ...


def lookup_all(source: PositionSource, frames: Sequence[Frame]) -> Sequence[Place]:
    """What the source says of each frame, in this order."""
    many: Callable[[Sequence[Frame]], Sequence[Place]] | None = getattr(source, "lookup_many", None)
    return one_by_one(source, frames) if many is None or len(frames) == 1 else many(frames)


def one_by_one(source: PositionSource, frames: Sequence[Frame]) -> list[Place]:
    """As `lookup_all`, by a `lookup` for each frame."""
    places: list[Place] = []
    for frame in frames:
        try:
            places.append(source.lookup(frame))
        except NeverPlaced as why:
            places.append(why)
    return places


class _ById:
    """A source that finds frames by id."""

    outlasts_scan = True

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`."""
        return frame.id


class AttributePositions(_ById):
    """Positions in the frame's own attributes.

    Parameters
    ----------
    x_name, y_name
        Names of the two attributes.
    axes
        Unit, swap and signs.
    """

    version = 0
    known_below = EVERY_ID

    def __init__(self, x_name: str, y_name: str, axes: AxisConfig | None = None) -> None:
        axes = axes or AxisConfig()
        self.axes = axes
        # Computed once, because `lookup` runs for every frame.
        self._names = (y_name, x_name) if axes.swap_xy else (x_name, y_name)
        self._scale_x, self._scale_y = axes.sign_x * axes.unit_m, axes.sign_y * axes.unit_m
        self._turned = axes.rotation_deg != 0

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`. An attribute that is absent, not a number or not finite raises NeverPlaced."""
        name_x, name_y = self._names
        try:
            x = self._scale_x * float(frame.attributes[name_x])
            y = self._scale_y * float(frame.attributes[name_y])
        except KeyError as error:
            raise NeverPlaced(f"frame {frame.id} has no attribute {error}") from None
        except ValueError as error:
            raise NeverPlaced(f"frame {frame.id}: attributes {name_x} and {name_y}: {error}") from None
        if math.isfinite(x) and math.isfinite(y):
            return self.axes.turn(x, y) if self._turned else (x, y)
        raise NeverPlaced(f"frame {frame.id}: attributes {name_x} and {name_y} give ({x}, {y})")


class _Waveforms(NamedTuple):
    """The two arrays in one object, so that another thread never reads the new x with the old y."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    complete: bool
    scan: str | None


class WaveformPositions(_ById):
    """Two arrays by frame index. They fill while the scan runs, or are known beforehand.

    Parameters
    ----------
    axes
        Unit, swap and signs.
    first_id
        Id of the frame that belongs to element 0. None: the first frame of its scan.

    Notes
    -----
    An element that is not finite counts as not filled yet. Once the arrays are complete, its frame is never placed.
    If the unfilled part holds zeros, the caller must cut the arrays to the filled part. One thread may call `update`
    while another calls `lookup`.
    """

    outlasts_scan = False

    def __init__(self, axes: AxisConfig | None = None, first_id: int | None = 0) -> None:
        self.axes = axes or AxisConfig()
        self.first_id = first_id
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Forget the arrays, so that a new scan's frames are not placed by the last scan's positions."""
        self.update([], [])

    def update(self, x: ArrayLike, y: ArrayLike, complete: bool = False, scan: str | None = None) -> None:
        """Replace the arrays.

        Parameters
        ----------
        x, y
            Positions as the beamline sends them. While they fill, one may be longer; the shorter length counts.
        complete
            Whether no more positions will come. Frames beyond the end are never placed then.
        scan
            The scan that the arrays belong to: the positions of other scans are not known yet. None: every scan.

        Raises
        ------
        GeometryError
            The arrays are not one-dimensional numbers, or are complete with different lengths. The old arrays stay.
        """
        first, second = _numbers(x), _numbers(y)
        if complete and len(first) != len(second):
            raise GeometryError(
                f"complete, but {len(first)} x and {len(second)} y",
                where=_WAVEFORMS,
                remedy="send as many y as x before the arrays are marked complete",
            )
        length = min(len(first), len(second))
        now = _Waveforms(*self.axes.apply(first[:length], second[:length]), complete, scan)
        filled = np.flatnonzero(np.isfinite(now.x) & np.isfinite(now.y))
        # In this order: a thread that reads the new version finds the new arrays.
        self._now = now
        self.known_below: float = (
            EVERY_ID if complete else (self.first_id or 0) + (int(filled[-1]) + 1 if len(filled) else 0)
        )
        self.version += 1

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`."""
        return frame.id - frame.first if self.first_id is None else frame.id

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`."""
        now = self._now
        if now.scan is not None and frame.scan != now.scan:
            return None
        first = frame.first if self.first_id is None else self.first_id
        index = frame.id - first
        if index < 0:
            raise NeverPlaced(f"frame {frame.id} comes before frame {first}, the first one with a position")
        if index >= len(now.x):
            if now.complete:
                raise NeverPlaced(f"frame {frame.id} is beyond the {len(now.x)} positions of the scan")
            return None
        x, y = now.x.item(index), now.y.item(index)
        if math.isfinite(x) and math.isfinite(y):
            return x, y
        if now.complete:
            raise NeverPlaced(f"frame {frame.id} has position ({x}, {y})")
        return None


class RoutePositions(_ById):
    """Positions from a file that was written before the scan (see `ptychostream.positions.route_file`).

    Parameters
    ----------
    route
        CSV or HDF5 route file, or what was read of one.
    axes
        Unit, swap and signs of the file's positions.
    first_id
        Id of the frame that belongs to the first row, if the file gives no ids. None: the first frame of its scan.

    Raises
    ------
    ScanFileError
        The file is not a readable route file, or its unit is not the configured one.
    """

    version = 0
    known_below = EVERY_ID

    def __init__(self, route: Route | Path | str, axes: AxisConfig | None = None, first_id: int | None = 0) -> None:
        if not isinstance(route, Route):
            route = read_route(Path(route))
        self.axes = axes or AxisConfig()
        for name, unit in zip("xy", route.units, strict=True):
            if what := contradiction(name, unit, self.axes.unit, "length"):
                remedy = "configure the unit that the file has, or correct its attribute `units`"
                raise ScanFileError(what, where="route", remedy=remedy)
        self._by_row = route.ids is None and first_id is None
        first = first_id or 0
        ids = range(first, first + len(route.x)) if route.ids is None else route.ids.tolist()
        x, y = self.axes.apply(route.x, route.y)
        self._places = dict(zip(ids, zip(x.tolist(), y.tolist(), strict=True), strict=True))

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`. A frame that is not in the route, or not with numbers, raises NeverPlaced."""
        place = self._places.get(frame.id - frame.first if self._by_row else frame.id)
        if place is None:
            raise NeverPlaced(f"frame {frame.id} is not in the route of {len(self._places)} positions")
        if not (math.isfinite(place[0]) and math.isfinite(place[1])):
            raise NeverPlaced(f"frame {frame.id} has position {place} in the route")
        return place


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"not numbers: {error}", where=_WAVEFORMS, remedy="send numeric arrays") from error
    if array.ndim != 1:
        raise GeometryError(f"shape {array.shape}", where=_WAVEFORMS, remedy="send one-dimensional arrays")
    return array
