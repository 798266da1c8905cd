"""Interpolate positions to each frame's time, from a stream of (time, x, y).

The position of a frame is the linear interpolation between the two samples that enclose its time, if these are at
most `tolerance_s` apart. A frame is placed only when both samples are final (see `sample_history`): later samples
cannot change its position, which depends on the samples, the frame and the clock offset only. Until then the frame
waits. If no more samples can come, it is never placed. Nothing is extrapolated: the stream must begin before the first
exposure and end after the last.

The source's clock may begin anew (see `source_clock`), and so may the detector's (see `frame_clock`). A time alone is
then no key. In mode Auto each pass of the source's clock has an offset of its own, which maps it to other times of the
detector. In mode Manual the one offset holds for one pass: the frames of a run are placed by one pass alone, a pass by
which frames were placed before the detector's clock went back places none after, and samples that came long before a
frame do not place it.

The error of the linear interpolation is at most a·dt²/8: 1.25 nm for samples 1 ms apart and an acceleration of
10 mm/s².
"""

from __future__ import annotations

import bisect
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.frames import Frame
from ptychostream.positions.clock_offset import ClockOffset, OffsetEstimate
from ptychostream.positions.frame_clock import FrameClock
from ptychostream.positions.positions import AxisConfig, NeverPlaced, Place, one_by_one
from ptychostream.positions.sample_counts import SampleCounts
from ptychostream.positions.sample_history import sample_block
from ptychostream.positions.source_clock import SourceClock, SourcePass

_RUNS = 256
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
    max_lag_s: float = Field(10.0, ge=0)
    """Used in mode Manual: a frame that came this much later than the samples around it were measured belongs to
    another pass of the source's clock, and is not placed by them; nor, once the clock has begun anew, one that came as
    much earlier. Seconds. 0: any time between them."""
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
        self._clock = SourceClock(settings.capacity, settings.max_disorder_s)
        self._frames = FrameClock()
        self._clocks = ClockOffset(settings.delay_difference_s)
        # Mode Auto: the offset by run, pass of the detector's clock and pass of the source's clock.
        self._fixed: OrderedDict[tuple[int, int, int], float] = OrderedDict()
        self._latest_offset_s: float | None = None
        # Mode Manual: the pass of the source's clock that places the frames of a run and a pass of the detector's.
        self._bound: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._frame_pass = 0
        self._floor = 0  # passes of the source's clock from this one on may place frames of the newest `_frame_pass`
        self._complete = False
        self._all_changed = -1  # the version at which frames of any time may have become known

    @property
    def counts(self) -> SampleCounts:
        return self._clock.history.counts

    @property
    def held(self) -> int:
        """The number of samples in memory."""
        return self._clock.held

    @property
    def passes(self) -> int:
        """Number of the pass of the source's clock that takes samples, from 1. 0 before any."""
        return self._clock.live.number + 1 if self.held else 0

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
            self._fixed.clear()
            self._latest_offset_s = None
        if self.settings.clock_offset_s != before.clock_offset_s:  # said for the pass that runs now
            self._bound.clear()
            self._floor = 0
        self.version += 1
        self._all_changed = self.version

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
        before = self._clock.history.newest
        self._clock.add(block)
        self._complete = False
        self.version += 1
        if self._clock.ended is not None:
            self._clock.live.began = arrival
            estimate = self._clocks.estimate()
            if estimate is not None:
                self._clock.ended.estimates[self._frame_pass] = estimate
            self._clocks.forget_positions()
            before = -math.inf
            self._all_changed = self.version
        newest = self._clock.history.newest
        if arrival and newest > before:  # an older sample says nothing about the delay
            self._clocks.note_positions(arrival, newest)
            live, delay_s = self._clock.live, arrival - newest
            if delay_s >= 0:  # samples of the future were known beforehand: their arrival says nothing
                live.least_delay_s = min(live.least_delay_s, delay_s)

    def complete(self) -> None:
        """Until the next `update` no more samples will come: frames that no two samples enclose are never placed."""
        self._clock.settle()
        self._complete = True
        self.version += 1

    def restart_counts(self) -> None:
        """Set the counts to zero."""
        self._clock.history.counts = SampleCounts()
        self.moving = 0

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`. It is the frame's time."""
        return frame.time + self.settings.frame_time_offset_s

    @property
    def known_below(self) -> float:
        """See `PositionSource.known_below`. It is a time by the detector's clock."""
        if self._complete or self._all_changed == self.version:
            return math.inf
        live = self._clock.live
        if not self._auto:
            offset_s = self.settings.clock_offset_s if live.number >= self._floor else math.inf
        elif fixed := [offset_s for (_, _, number), offset_s in self._fixed.items() if number == live.number]:
            offset_s = min(fixed)
        elif (estimate := self.estimate()) is not None:
            offset_s = estimate.offset_s
        else:
            return -math.inf
        return live.newest - offset_s + _ROUNDING_S

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`."""
        frame_pass = self._frames.pass_of(frame)
        if frame_pass > self._frame_pass:
            self._frame_pass, self._floor = frame_pass, max(self._bound.values(), default=-1) + 1
            self._clocks.forget_frames()
        if frame.received and frame_pass == self._frame_pass:
            self._clocks.note_frame(frame.received, frame.time)
        settings = self.settings
        key = frame.time + settings.frame_time_offset_s
        if key - key != 0.0:  # not finite
            raise NeverPlaced(f"frame {frame.id} has time {frame.time}")
        if settings.clock_offset_mode == "Auto":
            return self._by_estimate(frame, key, frame_pass)
        return self._by_given(frame, key, frame_pass)

    def lookup_many(self, frames: Sequence[Frame]) -> Sequence[Place]:
        """What `lookup` gives for each frame."""
        places = self._together(frames)
        return one_by_one(self, frames) if places is None else places

    def _together(self, frames: Sequence[Frame]) -> list[Place] | None:
        """The places of frames of one run and one pass of each clock, in order; None: ask for them one by one."""
        settings, run = self.settings, frames[0].run
        ids, times = [frame.id for frame in frames if frame.run == run], [frame.time for frame in frames]
        if settings.max_speed_m_s or len(ids) != len(frames) or ids != sorted(ids) or times != sorted(times):
            return None
        source, offset_s = self._settled(run)
        if source is None or not (math.isfinite(times[0]) and math.isfinite(times[-1])):
            return None
        if self._frames.one_pass(run, ids, times) != self._frame_pass:
            return None
        self._clocks.note_frames([frame.received for frame in frames], times)
        at = [time + settings.frame_time_offset_s + offset_s for time in times]
        goes_on = source.live and not self._complete
        known = bisect.bisect_right(at, source.newest) if goes_on else len(at)
        places: list[Place] = [None] * len(at)
        if known:
            found, number = source.places(np.array(at[:known]), settings.tolerance_s)
            places[:known] = zip(*found.tolist(), strict=True)
            if number < known:
                for index in np.flatnonzero(np.isnan(found[0])).tolist():
                    (places[index],) = one_by_one(self, frames[index : index + 1])
        return places

    def _settled(self, run: int) -> tuple[SourcePass | None, float]:
        """The pass of the source's clock that places the run's frames, and the offset; None: that is still open."""
        if not self._auto:
            number = self._bound.get((run, self._frame_pass))
            return None if number is None else self._clock.get(number), self.settings.clock_offset_s
        offset_s = self._fixed.get((run, self._frame_pass, self._clock.live.number))
        return (self._clock.live, offset_s) if self._clock.single and offset_s is not None else (None, 0.0)

    def _by_given(self, frame: Frame, key: float, frame_pass: int) -> tuple[float, float] | None:
        """Mode Manual."""
        time = key + self.settings.clock_offset_s
        number = self._bound.get((frame.run, frame_pass))
        if number is not None:
            bound = self._clock.get(number)
            if bound is None:
                raise NeverPlaced(f"frame {frame.id}: its positions are no longer in memory: raise the capacity")
            return self._place(frame, bound, time)
        floor = self._floor if frame_pass == self._frame_pass else 0
        for one in self._clock:
            if one.number >= floor and one.oldest <= time <= one.newest:
                if not self._near(frame, one, time):
                    return None
                self._bound[frame.run, frame_pass] = one.number
                if len(self._bound) > _RUNS:
                    self._bound.popitem(last=False)
                return self._place(frame, one, time)
        live = self._clock.live
        if live.number < floor:
            if self._complete:
                raise NeverPlaced(f"frame {frame.id}: the detector's clock began anew, the position source's did not")
            return None
        return self._place(frame, live, time)

    def _by_estimate(self, frame: Frame, key: float, frame_pass: int) -> tuple[float, float] | None:
        """Mode Auto. By its offset each pass of the source's clock has its own stretch of the detector's time."""
        waits = False
        for one in self._clock:
            offset_s = self._offset_for(frame.run, frame_pass, one)
            if offset_s is None:
                waits = waits or one.live
            elif key + offset_s >= one.oldest and (one.live or not waits or key + offset_s <= one.newest):
                return self._place(frame, one, key + offset_s)
        if waits:
            return None
        raise self._never_sent(frame, self._clock.live)

    def _offset_for(self, run: int, frame_pass: int, source: SourcePass) -> float | None:
        """The offset of a scan run. It is fixed for the run: positions must not depend on the order of arrival."""
        where = (run, frame_pass, source.number)
        offset_s = self._fixed.get(where)
        if offset_s is not None:
            return offset_s
        if not source.live:
            estimate = source.estimates.get(frame_pass)
        else:
            estimate = self.estimate() if frame_pass == self._frame_pass else None
        if estimate is None:
            return None
        self._fixed[where] = self._latest_offset_s = estimate.offset_s
        if len(self._fixed) > _RUNS:
            self._fixed.popitem(last=False)
        return estimate.offset_s

    def _near(self, frame: Frame, source: SourcePass, time: float) -> bool:
        """Whether frame and samples can be of one time. NeverPlaced: they cannot. False: more samples may show it."""
        limit_s, measured = self.settings.max_lag_s, time + source.least_delay_s
        if not (limit_s and frame.received and math.isfinite(measured)):
            return True
        if frame.received - measured > limit_s:
            raise NeverPlaced(
                f"frame {frame.id}: it came {frame.received - measured:.3g} s after the positions at its time, which "
                "are of another pass of the clock; or raise max_lag_s"
            )
        return not source.number or measured - frame.received <= limit_s

    def _place(self, frame: Frame, source: SourcePass, time: float) -> tuple[float, float] | None:
        """The place at a time of one pass. None: it may still come."""
        if time > source.newest:
            if not source.live:
                self.counts.restarts_in_scan += self._clock.is_cut_short(source, frame.received)
                raise NeverPlaced(f"frame {frame.id}: the position source's clock began anew before it")
            if self._complete:
                raise NeverPlaced(f"frame {frame.id}: no position was measured after it")
            return None
        # `item` gives Python floats: this runs for every frame, and numpy's scalars take three times as long.
        times, x, y = source.times, source.x, source.y
        before = after = source.find(time)
        part = 0.0
        if times.item(after) != time:
            if after == 0:
                raise self._never_sent(frame, source)
            before = after - 1
            gap_s = times.item(after) - times.item(before)
            if gap_s > self.settings.tolerance_s:
                raise NeverPlaced(f"frame {frame.id}: no position for {gap_s:.3g} s around it")
            part = (time - times.item(before)) / gap_s
        if self.settings.max_speed_m_s:
            self._check_speed(frame, source, before, after)
        x_m, y_m = x.item(before), y.item(before)
        x_m, y_m = x_m + part * (x.item(after) - x_m), y_m + part * (y.item(after) - y_m)
        if x_m != x_m:  # NaN: see SampleHistory.final
            raise NeverPlaced(f"frame {frame.id}: two different positions were sent for one time")
        return x_m, y_m

    @staticmethod
    def _never_sent(frame: Frame, source: SourcePass) -> NeverPlaced:
        why = "are no longer in memory: raise the capacity" if source.cut else "were never sent"
        return NeverPlaced(f"frame {frame.id}: the positions at its time {why}")

    def _check_speed(self, frame: Frame, source: SourcePass, before: int, after: int) -> None:
        times, x, y = source.times, source.x, source.y
        if after == before and before == 0:
            return
        far = int(np.searchsorted(times, times[after] - self.settings.speed_window_s, side="right")) - 1
        far = max(0, min(far, after - 1))
        way_m = math.hypot(x[after] - x[far], y[after] - y[far])
        speed_m_s = way_m / float(times[after] - times[far])
        if speed_m_s > self.settings.max_speed_m_s:
            self.moving += 1
            raise NeverPlaced(f"frame {frame.id}: settling, the stage moves at {speed_m_s * 1e6:.3g} µm/s")
