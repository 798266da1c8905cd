"""Positions that come as a stream of (time, x, y): interpolated to each frame's time.

A frame is placed between the two samples that enclose its time, linearly, where these are at most `tolerance_s`
apart. It is placed only when both are final (see `sample_history`): then nothing that comes later can change the
answer, and which position a frame gets is a function of the samples and the frame, for a given clock offset. Until
then it waits; where no sample can come any more it is never placed. Nothing is extrapolated: let the stream begin
before the first exposure and end after the last.

Linear is enough: it is wrong by at most a·dt²/8, 1.25 nm for samples 1 ms apart at an acceleration of 10 mm/s².
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.frames.frames import Frame
from ptychostream.positions.clock_offset import ClockOffset, OffsetEstimate
from ptychostream.positions.positions import AxisConfig, NeverPlaced
from ptychostream.positions.sample_history import SampleCounts, SampleHistory, sample_block

_RUNS = 64
_ROUNDING_S = 2e-6
"""Seconds since 1970 in float64 are good to 0.24 µs; three are added up."""


class StreamPositionSettings(Settings):
    """How frames find their place in a stream of positions."""

    tolerance_s: float = Field(0.02, gt=0)
    """The two samples beside a frame may be so far apart."""
    capacity: int = Field(200_000, ge=2, le=50_000_000)
    """Samples held; 48 bytes each."""
    max_disorder_s: float = Field(0.0, ge=0)
    """A sample may come so long behind a newer one; every frame waits that much longer."""
    frame_time_offset_s: float = 0.0
    """From a frame's time stamp to the middle of its exposure: half the exposure where it is stamped at its start."""
    clock_offset_mode: Literal["Manual", "Auto"] = "Manual"
    clock_offset_s: float = 0.0
    """Position source's clock - detector's clock, used in mode Manual."""
    delay_difference_s: float = 0.0
    """For mode Auto, see `clock_offset.ClockOffset`."""
    max_speed_m_s: float = Field(0.0, ge=0)
    """A frame that was taken while the stage moved faster is not placed; 0: any speed."""
    speed_window_s: float = Field(0.005, ge=0)
    """The speed is the way over so long a time before the frame, at the least between two samples."""


class StreamPositions:
    """Samples by time answer for frames by time. A `PositionSource`; the caller serialises.

    Parameters
    ----------
    settings
        See `StreamPositionSettings`.
    axes
        Unit, swap and signs of what is sent.
    """

    def __init__(self, settings: StreamPositionSettings | None = None, axes: AxisConfig | None = None) -> None:
        settings = settings or StreamPositionSettings()
        self.settings = settings
        self.axes = axes or AxisConfig()
        self.version = 0
        self.outlasts_scan = True
        self.moving = 0
        """Frames that were not placed because the stage moved too fast."""
        self._history = SampleHistory(settings.capacity, settings.max_disorder_s)
        self._clocks = ClockOffset(settings.delay_difference_s)
        self._of_run: OrderedDict[int, float] = OrderedDict()  # Auto: the offset that a run of a scan began with
        self._latest_offset_s: float | None = None
        self._complete = False

    @property
    def counts(self) -> SampleCounts:
        return self._history.counts

    @property
    def held(self) -> int:
        """Samples in the history."""
        return len(self._history)

    @property
    def newest(self) -> float:
        """Time of the newest sample by its own clock; minus infinity without any."""
        return self._history.newest

    @property
    def offset_s(self) -> float | None:
        """The clock offset that the latest scan's frames are placed with; None: Auto, and not known yet."""
        if not self._auto:
            return self.settings.clock_offset_s
        return self._latest_offset_s

    def estimate(self) -> OffsetEstimate | None:
        """The clock offset as it is estimated now, in either mode; None until enough was heard."""
        return self._clocks.estimate()

    def configure(self, **values: float | str) -> None:
        """Change some settings, but the history's own; frames that are placed already stay where they are.

        Raises
        ------
        pydantic.ValidationError
            A value is out of range; nothing is changed.
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
            Seconds, by the position source's clock.
        x, y
            As the beamline sends them.
        arrival
            When the block came, seconds, by the clock that `Frame.received` is of; 0: not known.

        Raises
        ------
        GeometryError
            Not three arrays of one length; nothing is taken.
        """
        block = sample_block(times, x, y)
        block[1:] = self.axes.apply(block[1], block[2])
        before, restarts = self._history.newest, self.counts.restarts
        self._history.add(block)
        self._complete = False
        if self.counts.restarts != restarts:
            self._clocks.forget_positions()
            before = -math.inf
        if arrival and self._history.newest > before:  # what was sent before says nothing of the way
            self._clocks.note_positions(arrival, self._history.newest)
        self.version += 1

    def complete(self) -> None:
        """No more samples will come: frames that are not enclosed by two are never placed. Until the next `update`."""
        self._history.settle()
        self._complete = True
        self.version += 1

    def restart_counts(self) -> None:
        """Count from zero."""
        self._history.counts = SampleCounts()
        self.moving = 0

    def key(self, frame: Frame) -> float:
        """As `PositionSource.key`: samples come by time."""
        return frame.time + self.settings.frame_time_offset_s

    @property
    def known_below(self) -> float:
        """As `PositionSource.known_below`, a time by the detector's clock."""
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
        """As `PositionSource.lookup`."""
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
        # Plain floats by `item`: this is asked for every frame, and numpy's own scalars cost three times as much.
        before = after = int(times.searchsorted(time))
        part = 0.0
        if times.item(after) != time:
            if after == 0:
                why = "are forgotten: raise the capacity" if self._history.cut else "were never sent"
                raise NeverPlaced(f"frame {frame.id}: the positions of its time {why}")
            before = after - 1
            gap_s = times.item(after) - times.item(before)
            if gap_s > self.settings.tolerance_s:
                raise NeverPlaced(f"frame {frame.id}: no position for {gap_s:.3g} s around it")
            part = (time - times.item(before)) / gap_s
        self._check_speed(frame, before, after)
        x_m, y_m = x.item(before), y.item(before)
        return x_m + part * (x.item(after) - x_m), y_m + part * (y.item(after) - y_m)

    def _offset_for(self, run: int) -> float | None:
        """The offset is fixed for a scan: were it followed, the order of arrival would decide who gets which."""
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
