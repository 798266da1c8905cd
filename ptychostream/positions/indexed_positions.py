"""Positions by trigger or frame index: a stream of (first index, x[], y[]) that counts anew at every arm.

An index alone does not say to which scan it belongs. The samples from one start of the count to the next are a series,
and each run of a scan is bound to series of its own, which place no other run's frames. A stream that names the scan
is bound by that name. Else the run takes the newest series that began after the last frame of the run before and before
its own first frames came, and that has sent something shortly before. If there is none, its frames wait for the next.
"""

from __future__ import annotations

import bisect
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.errors import GeometryError
from ptychostream.frames.frames import Frame
from ptychostream.positions.index_series import IndexSeries, sample_runs
from ptychostream.positions.positions import AxisConfig, NeverPlaced, Place, one_by_one
from ptychostream.positions.sample_counts import SampleCounts

_RUNS = 64
_SERIES = 4096
_OPENING_FRAMES = 16
_OPENING_S = 1.0
"""A scan's first frame is known when so many frames have come, or this time after one: frames may come in disorder."""
_RUN_IDS = 1 << 37
_RUN_NUMBERS = 1 << 16


class IndexPositionSettings(Settings):
    """How frames are placed by a stream of positions that is keyed by an index."""

    samples_per_frame: Annotated[
        int, Setting(flag="--samples-per-frame", help="samples of the stream for each frame")
    ] = Field(1, ge=1, le=1_000_000)
    """Samples that belong to each frame: those with index f·n … f·n + n - 1 belong to frame f of the arm."""
    combine: Annotated[Literal["mean", "middle"], Setting(
        flag="--position-combine", help="several samples for a frame: their mean, or the one in their middle",
    )] = "mean"  # fmt: skip
    """What becomes of several samples: their mean, or the position in the middle of them (interpolated if even)."""
    index_counts: Literal["samples", "frames"] = "samples"
    """Whether the index counts samples, or frames with several samples each."""
    first_index: int = Field(0, ge=0)
    """The index of an arm's first sample (or frame, if the index counts these)."""
    first_frame_id: int | None = None
    """Id of a scan's first frame. None: the lowest of its first frames. Give it if the detector numbers the frames of
    each scan from the same id: a scan whose first frame is lost is then placed right."""
    frames_per_arm: int = Field(0, ge=0)
    """Frames of each arm, if a scan has several arms, such as one for each line. 0: one arm is the whole scan."""
    capacity: int = Field(2_000_000, ge=2, le=200_000_000)
    """The number of samples in memory, 41 bytes each or less."""
    max_lag_s: float = Field(10.0, ge=0)
    """A scan is not bound to an arm that has sent nothing for this time when the scan's first frame comes, and that
    names no scan. Seconds. 0: any time."""


@dataclass(eq=False)
class _Series:
    """One series; `scan` is the scan it names, `began` and `latest` when its samples came, 0 if not known."""

    number: int
    scan: str
    arm: str
    samples: IndexSeries
    began: float
    latest: float
    last_first: int = -1  # where the latest update began
    run: int | None = None
    ended: bool = False
    cut_short: bool = False  # it began anew while frames of its scan still came


@dataclass
class _Run:
    """What is known of a run: its series, its first frame, and what it needs to know that."""

    since: float
    earliest: float  # series that began before belong to another run
    opened: float  # when the frames came that tell its first one
    series: list[_Series] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    first: int | None = None
    lower: int | None = None  # a frame that came below `first` later


class IndexedPositions:
    """A `PositionSource` that finds frames by index. The caller serialises the calls.

    Parameters
    ----------
    settings
        See `IndexPositionSettings`.
    axes
        Unit, swap and signs of the sent positions.
    now
        Seconds since the POSIX epoch, as in `Frame.received`.
    """

    outlasts_scan = True

    def __init__(
        self,
        settings: IndexPositionSettings | None = None,
        axes: AxisConfig | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings or IndexPositionSettings()
        self.axes = axes or AxisConfig()
        self.version = 0
        self.counts = SampleCounts()
        self._now = now
        self._series: list[_Series] = []  # oldest first
        self._held = 0  # samples of all series
        self._begun = 0
        self._runs: OrderedDict[int, _Run] = OrderedDict()
        self._newest_run = -1
        self._latest_frame = 0.0  # when the newest run's latest frame came
        self._complete = False
        self.waits = ""
        """Why the latest frame that belongs to no arm waits."""

    @property
    def held(self) -> int:
        """The number of samples in memory."""
        return self._held

    @property
    def series(self) -> int:
        """Number of the series that takes samples, from 1. 0 before any."""
        return self._begun

    @property
    def next_index(self) -> int:
        """One more than the highest index of the series that takes samples."""
        return max(self._series[-1].samples.end, 0) if self._series else 0

    def begin(self, scan: str = "", arm: str = "", never_before: int = 0, arrival: float = 0.0) -> None:
        """The count begins anew, unless the arm of that name is the one that goes on.

        Samples with an index below `never_before` never come.
        """
        settings = self.settings
        if arm and self._series and (self._series[-1].scan, self._series[-1].arm) == (scan, arm):
            self._series[-1].ended = False
            return
        if self._begun:
            self.counts.restarts += 1
        samples = IndexSeries(
            self.counts,
            settings.samples_per_frame,
            settings.combine,
            settings.capacity,
            max(never_before - self._first_row, 0),
        )
        self._begun += 1
        self._series.append(_Series(self._begun, scan, arm, samples, arrival, arrival))
        self._bound_memory()
        self._complete = False
        self.version += 1

    def update(
        self, index: ArrayLike, x: ArrayLike, y: ArrayLike, scan: str = "", arm: str = "", arrival: float = 0.0
    ) -> None:
        """Take a block of samples.

        Parameters
        ----------
        index
            Index of the first sample, or of every sample.
        x, y
            Positions as the beamline sends them.
        scan
            Id of their scan, as its frames carry it. Empty: the stream does not say.
        arm
            Anything that differs from arm to arm. Empty: the stream does not say; then the count begins anew where the
            index returns to the arm's first one.
        arrival
            Time of arrival in seconds, by the same clock as `Frame.received`. 0: not known.

        Raises
        ------
        GeometryError
            See `sample_runs`. Nothing is taken then.
        """
        settings = self.settings
        runs = list(sample_runs(index, x, y, settings.samples_per_frame, settings.index_counts))
        if runs and min(first for first, _, _ in runs) < self._first_row:
            raise GeometryError(
                f"index {np.min(np.asarray(index)):g}",
                where="positions by index",
                remedy=f"begin at first_index = {settings.first_index}, or correct that",
            )
        for first, a, b in runs:
            self._take(first - self._first_row, *self.axes.apply(a, b), scan, arm, arrival)
        self._bound_memory()
        self._complete = False
        self.version += 1

    def end(self) -> None:
        """The arm has ended: its frames whose samples are not there are never placed."""
        if self._series:
            self._series[-1].ended = True
            self.version += 1

    def complete(self) -> None:
        """Until the next `update` no more samples will come: frames whose samples are not there are never placed."""
        self._complete = True
        self.version += 1

    def restart_counts(self) -> None:
        """Set the counts to zero."""
        zero = SampleCounts()
        for name, value in vars(zero).items():
            setattr(self.counts, name, value)

    def key(self, frame: Frame) -> float:
        """See `PositionSource.key`. It rises with run and id."""
        return frame.run % _RUN_NUMBERS * _RUN_IDS + frame.id

    @property
    def known_below(self) -> float:
        """See `PositionSource.known_below`."""
        run = self._runs.get(self._newest_run)
        if self._complete or run is None or run.first is None or not run.series or self._series[-1].run is None:
            return float("inf")
        per_arm = (len(run.series) - 1) * self.settings.frames_per_arm
        newest = run.first + per_arm + run.series[-1].samples.frames_end
        return self._newest_run % _RUN_NUMBERS * _RUN_IDS + newest

    def lookup(self, frame: Frame) -> tuple[float, float] | None:
        """See `PositionSource.lookup`."""
        run = self._runs.get(frame.run)
        if run is None:
            run = self._new_run(frame)
        if frame.run == self._newest_run and frame.received > self._latest_frame:
            self._latest_frame = frame.received
        if run.first is None:
            self._find_first(run, frame)
        elif frame.id < run.first and run.lower is None and self.settings.first_frame_id is None:
            run.lower = frame.id
        if run.lower is not None:
            raise NeverPlaced(
                f"frame {frame.id}: the scan's first frame was taken to be {run.first}, and then frame {run.lower} "
                "came: give first_frame_id"
            )
        if run.first is None:
            return None
        try:
            return self._place(run, frame, frame.id - run.first)
        except NeverPlaced as why:
            raise NeverPlaced(f"frame {frame.id}: {why}") from None

    def lookup_many(self, frames: Sequence[Frame]) -> Sequence[Place]:
        """What `lookup` gives for each frame."""
        number = frames[0].run
        run, ids = self._runs.get(number), [frame.id for frame in frames if frame.run == number]
        plain = run is not None and run.first is not None and run.lower is None and len(run.series) == 1
        if run is None or run.first is None or not plain or self.settings.frames_per_arm:
            return one_by_one(self, frames)
        if len(ids) != len(frames) or ids[0] < run.first or ids != sorted(set(ids)):
            return one_by_one(self, frames)
        series, first = run.series[0], run.first
        goes_on = series is self._series[-1] and not series.ended and not self._complete
        known = bisect.bisect_left(ids, first + series.samples.unknown_from) if goes_on else len(ids)
        found = series.samples.places([one - first for one in ids[:known]]) if known else []
        if found is None:
            return one_by_one(self, frames)
        if number == self._newest_run:
            self._latest_frame = max(self._latest_frame, *[frame.received for frame in frames])
        return [*found, *[None] * (len(ids) - known)]

    def _place(self, run: _Run, frame: Frame, number: int) -> tuple[float, float] | None:
        """The place of the run's frame with that number, from 0."""
        arm, per_arm = 0, self.settings.frames_per_arm
        if per_arm and number >= 0:
            arm, number = divmod(number, per_arm)
        while len(run.series) <= arm:
            if not self._bind_next(run, frame):
                return None
        series = run.series[arm]
        for before in run.series[:arm] if per_arm else ():
            self._check_arm(before, per_arm)
        place = series.samples.place(number)
        if place is None and (self._complete or series.ended or series is not self._series[-1]):
            if series is self._series[-1] or number < series.samples.frames_end:
                raise NeverPlaced("its position has not come")
            self._note_cut(series, frame)
            raise NeverPlaced(
                f"the index began anew after {series.samples.end} samples, without this frame's: "
                "a scan with several arms needs frames_per_arm"
            )
        return place

    def _note_cut(self, series: _Series, frame: Frame) -> None:
        """Count a restart within a scan: `frame`, which belongs to the series, came after the next series began.

        One that came before waited for samples beyond the arm's end, which is no fault of the restart.
        """
        after = next((one for one in self._series if one.number > series.number), None)
        if series.cut_short or after is None or 0 < frame.received <= after.began:
            return
        series.cut_short = True
        self.counts.restarts_in_scan += 1

    def _check_arm(self, series: _Series, per_arm: int) -> None:
        """Frames of later arms have their numbers only if this arm had as many as it should."""
        due = per_arm * self.settings.samples_per_frame
        if series.samples.end != due:
            raise NeverPlaced(f"an arm of its scan had {series.samples.end} samples in place of {due}")

    def _bind_next(self, run: _Run, frame: Frame) -> bool:
        """Bind the run to its next series. False: that has not begun."""
        series = self._bind(run, frame)
        if series is None:
            self.waits = f"frame {frame.id}: no arm of the position source has begun for it"
            if self._complete:
                raise NeverPlaced("no arm of the position source has begun for it")
            return False
        self.waits = ""
        series.run = frame.run
        run.series.append(series)
        return True

    def _bind(self, run: _Run, frame: Frame) -> _Series | None:
        """The next series of a run; None: it has not begun."""
        free = [one for one in self._series if one.run is None]
        named = [one for one in free if one.scan and one.scan == frame.scan]
        if named:
            return named[0] if self.settings.frames_per_arm else named[-1]
        after = run.series[-1].number if run.series else 0
        limit_s = self.settings.max_lag_s
        unnamed = [one for one in free if not one.scan and one.number > after]
        unnamed = [one for one in unnamed if not one.began or one.began >= run.earliest]
        if not run.series and limit_s and run.since:
            unnamed = [one for one in unnamed if not one.latest or run.since - one.latest <= limit_s]
        if not unnamed:
            return None
        begun = [one for one in unnamed if not run.opened or one.began <= run.opened]
        return begun[-1] if begun and not self.settings.frames_per_arm else unnamed[0]

    def _new_run(self, frame: Frame) -> _Run:
        earliest = self._latest_frame if self._newest_run >= 0 else 0.0
        run = _Run(frame.received, earliest, frame.received, first=self.settings.first_frame_id)
        if frame.run > self._newest_run:
            self._newest_run = frame.run
        self._runs[frame.run] = run
        if len(self._runs) > _RUNS:
            self._runs.popitem(last=False)
        return run

    def _find_first(self, run: _Run, frame: Frame) -> None:
        run.ids.add(frame.id)
        run.opened = max(run.opened, frame.received)
        waited = self._now() - run.since if run.since else 0.0
        if len(run.ids) >= _OPENING_FRAMES or waited >= _OPENING_S or self._complete:
            if len(run.ids) < _OPENING_FRAMES and run.since:
                run.opened = max(run.opened, run.since + _OPENING_S)
            run.first = min(run.ids)
            run.ids.clear()
            self.version += 1

    @property
    def _first_row(self) -> int:
        per_frame = self.settings.samples_per_frame if self.settings.index_counts == "frames" else 1
        return self.settings.first_index * per_frame

    def _take(self, first: int, x: np.ndarray, y: np.ndarray, scan: str, arm: str, arrival: float) -> None:
        newest = self._series[-1] if self._series else None
        if newest is None or self._begins_anew(newest, first, x, y, scan, arm):
            self.begin(scan, arm, arrival=arrival)
            newest = self._series[-1]
        self.counts.received += len(x)
        before = newest.samples.held
        newest.samples.add(first, x, y)
        self._held += newest.samples.held - before
        newest.last_first = first
        newest.latest = max(newest.latest, arrival)

    def _begins_anew(self, newest: _Series, first: int, x: np.ndarray, y: np.ndarray, scan: str, arm: str) -> bool:
        if (scan, arm) != (newest.scan, newest.arm):
            return True
        samples = newest.samples
        if arm or samples.end < 0 or first > samples.start:
            return False
        return first < newest.last_first or not samples.equal(first, x, y)

    def _bound_memory(self) -> None:
        """Forget the oldest series beyond the capacity; the newest limits itself."""
        while len(self._series) > 1 and (len(self._series) > _SERIES or self.held > self.settings.capacity):
            gone = self._series.pop(0).samples
            self._held -= gone.held
            gone.clear()
