"""The decimation of the stream: off, one in n, or as many as the engine carries. Passive: no thread, clock or lock."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.decimation import LARGEST_FACTOR, AutoFactor, Thinning
from ptychostream.frames.frames import PlacedFrame

_RUNS = 4
_LOOK_EVERY_S = 0.25
_MEMORY = 0.9


class DecimationSettings(Settings):
    """Settings: which patterns are inferred."""

    mode: Annotated[Literal["Off", "Manual", "Auto"], Setting(
        "Decimation", "Infer all, one in n, or what is possible", group="decimation", flag="--decimation",
        help="patterns left out, evenly over the sample",
    )] = "Off"  # fmt: skip
    """Off: every one. Manual: one in `factor`, evenly over the sample. Auto: as many as the engine carries."""
    factor: Annotated[int, Setting(
        "DecimationFactor", "One pattern in so many, in mode Manual", group="decimation", egu="frames", readback=False,
        flag="--decimation-factor", help="patterns of which one is inferred, in mode Manual",
    )] = Field(2, ge=1, le=LARGEST_FACTOR)  # fmt: skip
    """Patterns of which one is inferred, in mode Manual."""


class Decimator:
    """Decides for every frame whether it is inferred.

    Parameters
    ----------
    settings
        What to begin with; `settings` may be replaced at any time.

    Attributes
    ----------
    on
        Whether there is anything to ask: nearly always not.
    """

    def __init__(self, settings: DecimationSettings) -> None:
        self.settings = settings
        self._auto = AutoFactor()
        self._runs: dict[int, Thinning] = {}
        self._offered = 0
        self._looked: float | None = None
        self._offered_hz = 0.0
        self._frames, self._seconds = 0.0, 0.0  # of recent batches, older ones counting less

    @property
    def settings(self) -> DecimationSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: DecimationSettings) -> None:
        self._settings = settings
        self.on = settings.mode != "Off"

    @property
    def factor(self) -> int:
        """One frame out of this many is inferred now."""
        return {"Off": 1, "Manual": self.settings.factor, "Auto": self._auto.factor}[self.settings.mode]

    def keep(self, placed: PlacedFrame, queue_use: float, now: float) -> bool:
        """Whether the frame is inferred.

        Parameters
        ----------
        placed
            The next frame of its run.
        queue_use
            Part of the queue in use, 0 … 1.
        now
            Monotonic time, seconds.
        """
        if not self.on:
            return True
        if self.settings.mode == "Auto":
            self._look(queue_use, now)
        thinning = self._runs.get(placed.frame.run)
        if thinning is None:
            thinning = self._runs[placed.frame.run] = Thinning()
            if len(self._runs) > _RUNS:
                del self._runs[next(iter(self._runs))]
        thinning.factor = self.factor
        return thinning.keep(placed.x_m, placed.y_m)

    def note(self, frames: int, seconds: float) -> None:
        """Note how long the inference thread took for a batch of `frames`."""
        self._frames = _MEMORY * self._frames + frames
        self._seconds = _MEMORY * self._seconds + seconds

    def _look(self, queue_use: float, now: float) -> None:
        """Now and then: the rate at which frames are offered, and what that asks for."""
        self._offered += 1
        if self._looked is None:
            self._looked, self._offered = now, 0
        elif now - self._looked >= _LOOK_EVERY_S:
            rate_hz = self._offered / (now - self._looked)
            self._offered_hz = rate_hz if not self._offered_hz else 0.5 * (self._offered_hz + rate_hz)
            self._looked, self._offered = now, 0
            each_s = self._seconds / self._frames if self._frames else 0.0
            self._auto.update(now, queue_use, self._offered_hz * each_s)
