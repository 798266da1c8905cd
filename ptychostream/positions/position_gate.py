"""What is no place to stitch at: the first moments of a scan, and places where the sample cannot be."""

from __future__ import annotations

from collections import OrderedDict

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.frames.frames import Frame
from ptychostream.positions.positions import NeverPlaced, PositionSource

_RUNS = 64


class GateSettings(Settings):
    """Which frames are not placed though their position is known. Lengths in metres, canvas axes."""

    settling_s: float = Field(0.0, ge=0)
    """Frames of so long a time after a scan's first frame are left out: the stage settles."""
    field_width_m: float = Field(0.0, ge=0)
    """Frames farther than half of it from the field's centre are left out: one wild position would make the canvas
    as large as memory allows. 0: no limit but that of the canvas."""
    field_height_m: float = Field(0.0, ge=0)
    field_x_m: float = 0.0
    """Centre of the field."""
    field_y_m: float = 0.0


class GatedPositions:
    """Another source, with a gate behind it. A `PositionSource`; the caller serialises.

    Parameters
    ----------
    source
        Knows the positions.
    settings
        See `GateSettings`.

    Notes
    -----
    A scan's first frame is the first of its run that is asked for. Frames that come before it in time, because
    they were overtaken, are in the scan's first moments too. `source` and `settings` may be changed.
    """

    def __init__(self, source: PositionSource, settings: GateSettings) -> None:
        self.source = source
        self.settings = settings
        self.settling = 0
        """Frames left out in the scans' first moments."""
        self.outside = 0
        """Frames left out because they lie outside the field."""
        self.message = ""
        """Why the latest frame was left out, by the gate or by the source."""
        self._first: OrderedDict[int, float] = OrderedDict()  # time of each run's first frame

    @property
    def version(self) -> int:
        """As `PositionSource.version`."""
        return self.source.version

    @property
    def known_below(self) -> float:
        """As `PositionSource.known_below`."""
        return self.source.known_below

    def key(self, frame: Frame) -> float:
        """As `PositionSource.key`."""
        return self.source.key(frame)

    @property
    def outlasts_scan(self) -> bool:
        """As `PositionSource.outlasts_scan`."""
        return self.source.outlasts_scan

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """As `PositionSource.lookup`."""
        try:
            self._check_settled(frame)
            place = self.source.lookup(frame)
            if place is not None:
                self._check_field(frame, *place)
        except NeverPlaced as why:
            self.message = str(why)
            raise
        return place

    def restart_counts(self) -> None:
        """Count from zero."""
        self.settling = self.outside = 0
        self.message = ""

    def _check_settled(self, frame: Frame) -> None:
        if not self.settings.settling_s:
            return
        if frame.run not in self._first:
            self._first[frame.run] = frame.time
            if len(self._first) > _RUNS:
                self._first.popitem(last=False)
        since_s = frame.time - self._first[frame.run]
        if abs(since_s) < self.settings.settling_s:  # a clock that was set back is no settling stage
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
