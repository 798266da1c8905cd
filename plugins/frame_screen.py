"""Which live frames are a measurement, from the counts of those before them in their run. Passive."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.measured_frames import BRIGHT_FACTOR, DARK_SHARE, ENOUGH, FrameLimits, frame_limits

_RUNS_KEPT = 16
_WINDOW = 256
_AGAIN = 512


class MeasuredSettings(Settings):
    """Which pixels and frames of the stream are no measurement, besides what the model's contract says."""

    saturation: Annotated[int, Setting(
        "Saturation", "Count of a saturated pixel; 0: not given", group="plugin", egu="counts", high=2**53,
        flag="--saturation", help="count at which a pixel is saturated",
    )] = Field(0, ge=0, le=2**53)  # fmt: skip
    """Count at which a pixel is saturated; 0: the contract's and the type's alone."""
    dark_share: Annotated[float, Setting(
        "DarkShare", "Dark: below this part of the usual", group="plugin",
    )] = Field(DARK_SHARE, ge=0, le=0.5)  # fmt: skip
    """Part of a run's usual counts below which a frame is dark and is not inferred; 0: only frames without counts."""
    bright_factor: Annotated[float, Setting(
        "BrightFactor", "Too bright: so many times the usual", group="plugin", prec=1,
    )] = Field(BRIGHT_FACTOR, ge=0, le=1e6)  # fmt: skip
    """Times a run's usual counts above which a frame is no diffraction pattern and is not inferred; 0: never."""


class _Seen:
    """The sums of a run's frames, and the limits that follow."""

    def __init__(self) -> None:
        self.sums: deque[float] = deque(maxlen=_WINDOW)
        self.limits: FrameLimits | None = None
        self.number = 0
        self.next_at = ENOUGH


class FrameScreen:
    """Gives the limits of a frame's counts for each run.

    The median is that of the last 256 frames that were not dark: a dark pause does not become the usual. It is
    computed anew after 4, 8, 16 … 512 frames, then after every 512.

    Parameters
    ----------
    settings
        May be replaced at any time.
    """

    def __init__(self, settings: MeasuredSettings) -> None:
        self._runs: OrderedDict[int, _Seen] = OrderedDict()
        self._settings = settings

    @property
    def settings(self) -> MeasuredSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: MeasuredSettings) -> None:
        if settings != self._settings:
            self._settings = settings
            for seen in self._runs.values():
                seen.limits = None

    def limits(self, run: int, sums: Sequence[float], expected: float | None) -> FrameLimits:
        """Note the sums of a batch of a run, and give the limits by which to judge it.

        Parameters
        ----------
        expected
            See `frame_limits`.
        """
        seen = self._runs.get(run)
        if seen is None:
            seen = self._runs[run] = _Seen()
            while len(self._runs) > _RUNS_KEPT:
                self._runs.popitem(last=False)
        low = seen.limits.low if seen.limits is not None else 0.0
        lit = [total for total in sums if total > 0 and total >= low]
        seen.sums.extend(lit)
        seen.number += len(lit)
        if seen.limits is None or seen.number >= seen.next_at:
            chosen = self._settings
            seen.limits = frame_limits(list(seen.sums), expected, chosen.dark_share, chosen.bright_factor)
            while seen.next_at <= seen.number:
                seen.next_at += min(seen.next_at, _AGAIN)
        return seen.limits
