"""Leave out frames while the stage settles, and frames outside the field of view."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.frames import Frame
from ptychostream.positions.positions import NeverPlaced, Place, PositionSource, lookup_all, one_by_one

_RUNS = 64


class GateSettings(Settings):
    """Which frames are left out although their position is known. Lengths are in metres, in canvas axes."""

    settling_s: Annotated[
        float, Setting("SettleTime", "Frames left out at a scan's start", group="positions", egu="s", high=3600)
    ] = Field(0.0, ge=0)
    """Frames within this time after a scan's first frame are left out, because the stage settles. Seconds."""
    field_width_m: Annotated[
        float,
        Setting("FieldWidth", "Width of the field, 0 = no limit", group="positions", egu="um", scale=1e6, high=1e9),
    ] = Field(0.0, ge=0)
    """Frames farther than half of this from the field's centre are left out: one wrong position would make the canvas
    very large. 0: the canvas alone limits it."""
    field_height_m: Annotated[
        float,
        Setting("FieldHeight", "Height of the field, 0 = no limit", group="positions", egu="um", scale=1e6, high=1e9),
    ] = Field(0.0, ge=0)
    field_x_m: Annotated[float, Setting(
        "FieldX", "Centre of the field, canvas axes", group="positions", egu="um", scale=1e6, low=-1e9, high=1e9,
    )] = 0.0  # fmt: skip
    """The centre of the field."""
    field_y_m: Annotated[float, Setting(
        "FieldY", "Centre of the field, canvas axes", group="positions", egu="um", scale=1e6, low=-1e9, high=1e9,
    )] = 0.0  # fmt: skip


class GatedPositions:
    """A `PositionSource` that checks the positions of another one. The caller serialises the calls.

    Parameters
    ----------
    source
        Gives the positions.
    settings
        See `GateSettings`.

    Notes
    -----
    A scan's first frame is the first frame of its run that is looked up. Late frames with an earlier time count as
    near the start too. `source` and `settings` may be changed.
    """

    def __init__(self, source: PositionSource, settings: GateSettings) -> None:
        self.source = source
        self.settings = settings
        self.settling = 0
        """Frames left out while the stage settled."""
        self.outside = 0
        """Frames left out because they are outside the field."""
        self.message = ""
        """Why the latest frame was left out, by the gate or by the source."""
        self._first: OrderedDict[int, float] = OrderedDict()  # time of each run's first frame

    @property
    def version(self) -> int:
        """See `PositionSource.version`."""
        return self.source.version

    @property
    def known_below(self) -> float:
        """See `PositionSource.known_below`."""
        return self.source.known_below

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`."""
        return self.source.key(frame)

    @property
    def outlasts_scan(self) -> bool:
        """See `PositionSource.outlasts_scan`."""
        return self.source.outlasts_scan

    @property
    def waits(self) -> str:
        """Why frames wait that the source cannot bind to its samples; empty: they do not."""
        waits: str = getattr(self.source, "waits", "")
        return waits

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`."""
        try:
            self._check_settled(frame)
            place = self.source.lookup(frame)
            if place is not None:
                self._check_field(frame, *place)
        except NeverPlaced as why:
            self.message = str(why)
            raise
        return place

    def lookup_many(self, frames: Sequence[Frame]) -> Sequence[Place]:
        """What `lookup` gives for each frame."""
        settings = self.settings
        if settings.settling_s:
            return one_by_one(self, frames)
        places = lookup_all(self.source, frames)
        if settings.field_width_m or settings.field_height_m:
            places = [self._checked(frame, place) for frame, place in zip(frames, places, strict=True)]
        refused = next((place for place in reversed(places) if isinstance(place, NeverPlaced)), None)
        if refused is not None:
            self.message = str(refused)
        return places

    def restart_counts(self) -> None:
        """Set the counts to zero."""
        self.settling = self.outside = 0
        self.message = ""

    def _checked(self, frame: Frame, place: Place) -> Place:
        if not isinstance(place, tuple):
            return place
        try:
            self._check_field(frame, *place)
        except NeverPlaced as why:
            return why
        return place

    def _check_settled(self, frame: Frame) -> None:
        if not self.settings.settling_s:
            return
        if frame.run not in self._first:
            self._first[frame.run] = frame.time
            if len(self._first) > _RUNS:
                self._first.popitem(last=False)
        since_s = frame.time - self._first[frame.run]
        if abs(since_s) < self.settings.settling_s:  # abs: if the clock was set back, the stage does not settle
            self.settling += 1
            raise NeverPlaced(f"frame {frame.id}: settling, {since_s:.3g} s after the scan's first")

    def _check_field(self, frame: Frame, x_m: float, y_m: float) -> None:
        settings = self.settings
        for name, value_m, centre_m, size_m in (
            ("x", x_m, settings.field_x_m, settings.field_width_m),
            ("y", y_m, settings.field_y_m, settings.field_height_m),
        ):
            if size_m and not abs(value_m - centre_m) <= size_m / 2:
                self.outside += 1
                raise NeverPlaced(
                    f"frame {frame.id}: {name} = {value_m * 1e6:.6g} µm is outside the field of {size_m * 1e6:.4g} µm"
                )
