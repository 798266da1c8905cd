"""Interpolate positions to each frame's time, from a stream of (time, x, y).

The position of a frame is the linear interpolation between the two samples that enclose its time, if these are at
most `tolerance_s` apart. A frame is placed only when both samples are final (see `sample_history`): later samples
cannot change its position, which depends on the samples, the frame and the clock offset only. Until then the frame
waits. If no more samples can come, it is never placed. Nothing is extrapolated: the stream must begin before the first
exposure and end after the last.

The error of the linear interpolation is at most a·dt²/8: 1.25 nm for samples 1 ms apart and an acceleration of
10 mm/s².
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.frames import Frame
from ptychostream.positions.clock_offset import ClockOffset, OffsetEstimate
from ptychostream.positions.positions import AxisConfig, NeverPlaced
from ptychostream.positions.sample_history import SampleCounts, SampleHistory, sample_block

_RUNS = 64
_ROUNDING_S = 2e-6
"""float64 resolves 0.24 µs in seconds since 1970, and three such times are added."""


class StreamPositionSettings(Settings):
    """How frames are placed by a stream of positions."""

    tolerance_s: Annotated[float, Setting(
        "PositionTolerance", "Longest gap between samples at a frame", group="positions", egu="ms", scale=1e3,
        low=0.001, high=1e6,
    )] = Field(0.02, gt=0)  # fmt: skip
    """The largest time between the two samples that enclose a frame. Seconds."""
    capacity: int = Field(200_000, ge=2, le=50_000_000)
    """The number of samples in memory, 48 bytes each."""
    max_disorder_s: float = Field(0.0, ge=0)
    """A sample may arrive this much later than a newer one, seconds. Every frame waits that much longer."""
    frame_time_offset_s: float = 0.0
    """From a frame's time stamp to the middle of its exposure: half the exposure if the stamp is the start. Seconds."""
    clock_offset_mode: Annotated[Literal["Manual", "Auto"], Setting(
        "ClockOffsetMode", "Position clock - detector clock: from", group="positions", flag="--clock-offset-mode",
        help="clock offset as given, or estimated",
    )] = "Manual"  # fmt: skip
    """Manual: `clock_offset_s` is used. Auto: it is estimated from when frames and positions arrive."""
    clock_offset_s: Annotated[float, Setting(
        "ClockOffset", "Position clock - detector clock", group="positions", egu="s", prec=6, low=-1e10, high=1e10,
        readback=False, flag="--clock-offset", help="position clock - detector clock, seconds",
    )] = 0.0  # fmt: skip
    """Position source's clock - detector's clock, seconds, used in mode Manual."""
    delay_difference_s: float = 0.0
    """Used in mode Auto, seconds. See `clock_offset.ClockOffset`."""
    max_speed_m_s: Annotated[
        float,
        Setting("MaxSpeed", "Fastest stage at a frame, 0 = any", group="positions", egu="um/s", scale=1e6, high=1e9),
    ] = Field(0.0, ge=0)
    """A frame is not placed if the stage moved faster when it was taken, m/s. 0: any speed."""
    speed_window_s: float = Field(0.005, ge=0)
    """The speed is the mean over this time before the frame, or between two samples if these are farther apart."""


class StreamPositions:
    """A `PositionSource` that finds frames by time. The caller serialises the calls.

    Parameters
    ----------
    settings
        See `StreamPositionSettings`.
    axes
        Unit, swap and signs of the sent positions.
    """

    def __init__(self, settings: StreamPositionSettings | None = None, axes: AxisConfig | None = None) -> None:
        settings = settings or StreamPositionSettings()
        self.settings = settings
        self.axes = axes or AxisConfig()
        self.version = 0
        self.outlasts_scan = True
        self.moving = 0
        """The number of frames that were not placed because the stage moved too fast."""
        self._history = SampleHistory(settings.capacity, settings.max_disorder_s)
        self._clocks = ClockOffset(settings.delay_difference_s)
        self._of_run: OrderedDict[int, float] = OrderedDict()  # mode Auto: the offset at the start of each scan run
        self._latest_offset_s: float | None = None
        self._complete = False

    @property
    def counts(self) -> SampleCounts:
        return self._history.counts

    @property
    def held(self) -> int:
        """The number of samples in the history."""
        return len(self._history)

    @property
    def newest(self) -> float:
        """Time of the newest sample by its own clock. Minus infinity without samples."""
        return self._history.newest

    @property
    def offset_s(self) -> float | None:
        """The clock offset of the latest scan, seconds. None in mode Auto while it is not known yet."""
        if not self._auto:
            return self.settings.clock_offset_s
        return self._latest_offset_s

    def estimate(self) -> OffsetEstimate | None:
        """The estimate of the clock offset at this moment, in both modes. None until enough messages have arrived."""
        return self._clocks.estimate()

    def configure(self, **values: float | str) -> None:
        """Change some settings, but not those of the history. Placed frames keep their positions.

        Raises
        ------
        pydantic.ValidationError
            A value is out of range. Nothing is changed then.
        """
        before = self.settings
        self.settings = type(before).model_validate({**before.model_dump(), **values})
        if self.settings.clock_offset_mode != before.clock_offset_mode:
            self._of_run.clear()
            self._latest_offset_s = None
        self.version += 1

    @property
    def _auto(self) -> bool:
        return self.settings.clock_offset_mode == "Auto"

    def update(self, times: ArrayLike, x: ArrayLike, y: ArrayLike, arrival: float = 0.0) -> None:
        """Take a block of samples.

        Parameters
        ----------
        times
            Seconds by the position source's clock.
        x, y
            Positions as the beamline sends them.
        arrival
            The block's time of arrival in seconds, by the same clock as `Frame.received`. 0: not known.

        Raises
        ------
        GeometryError
            The arguments are not three arrays of one length. Nothing is taken then.
        """
        block = sample_block(times, x, y)
        block[1:] = self.axes.apply(block[1], block[2])
        before, restarts = self._history.newest, self.counts.restarts
        self._history.add(block)
        self._complete = False
        if self.counts.restarts != restarts:
            self._clocks.forget_positions()
            before = -math.inf
        if arrival and self._history.newest > before:  # an older sample says nothing about the delay
            self._clocks.note_positions(arrival, self._history.newest)
        self.version += 1

    def complete(self) -> None:
        """Until the next `update` no more samples will come: frames that no two samples enclose are never placed."""
        self._history.settle()
        self._complete = True
        self.version += 1

    def restart_counts(self) -> None:
        """Set the counts to zero."""
        self._history.counts = SampleCounts()
        self.moving = 0

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`. It is the frame's time."""
        return frame.time + self.settings.frame_time_offset_s

    @property
    def known_below(self) -> float:
        """See `PositionSource.known_below`. It is a time by the detector's clock."""
        if self._complete:
            return math.inf
        if not self._auto:
            offset_s = self.settings.clock_offset_s
        elif self._of_run:
            offset_s = min(self._of_run.values())
        elif (estimate := self.estimate()) is not None:
            offset_s = estimate.offset_s
        else:
            return -math.inf
        return self._history.newest_final - offset_s + _ROUNDING_S

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`."""
        if frame.received:
            self._clocks.note_frame(frame.received, frame.time)
        offset_s = self._offset_for(frame.run)
        if offset_s is None:
            return None
        time = self.key(frame) + offset_s
        if not math.isfinite(time):
            raise NeverPlaced(f"frame {frame.id} has time {frame.time}")
        times, x, y = self._history.final
        if time > self._history.newest_final:
            if self._complete:
                raise NeverPlaced(f"frame {frame.id}: no position was measured after it")
            return None
        # `item` gives Python floats: this runs for every frame, and numpy's scalars take three times as long.
        before = after = int(times.searchsorted(time))
        part = 0.0
        if times.item(after) != time:
            if after == 0:
                why = "are no longer in memory: raise the capacity" if self._history.cut else "were never sent"
                raise NeverPlaced(f"frame {frame.id}: the positions at its time {why}")
            before = after - 1
            gap_s = times.item(after) - times.item(before)
            if gap_s > self.settings.tolerance_s:
                raise NeverPlaced(f"frame {frame.id}: no position for {gap_s:.3g} s around it")
            part = (time - times.item(before)) / gap_s
        self._check_speed(frame, before, after)
        x_m, y_m = x.item(before), y.item(before)
        return x_m + part * (x.item(after) - x_m), y_m + part * (y.item(after) - y_m)

    def _offset_for(self, run: int) -> float | None:
        """The offset of a scan run. It is fixed for the run: positions must not depend on the order of arrival."""
        if not self._auto:
            return self.settings.clock_offset_s
        offset_s = self._of_run.get(run)
        if offset_s is None and (estimate := self.estimate()) is not None:
            offset_s = self._of_run[run] = self._latest_offset_s = estimate.offset_s
            if len(self._of_run) > _RUNS:
                self._of_run.popitem(last=False)
        return offset_s

    def _check_speed(self, frame: Frame, before: int, after: int) -> None:
        if not self.settings.max_speed_m_s:
            return
        times, x, y = self._history.final
        if after == before and before == 0:
            return
        far = int(np.searchsorted(times, times[after] - self.settings.speed_window_s, side="right")) - 1
        far = max(0, min(far, after - 1))
        way_m = math.hypot(x[after] - x[far], y[after] - y[far])
        speed_m_s = way_m / float(times[after] - times[far])
        if speed_m_s > self.settings.max_speed_m_s:
            self.moving += 1
            raise NeverPlaced(f"frame {frame.id}: settling, the stage moves at {speed_m_s * 1e6:.3g} µm/s")
