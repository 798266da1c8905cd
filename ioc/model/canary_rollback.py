"""Back to the previous model: by itself, when the agent has judged both on a scan and the live one is worse, and by
an operator."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from ptychostream.errors import PtychostreamError
from ptychostream.model.rollback_text import BY_OPERATOR, went_back

log = logging.getLogger(__name__)

NEVER = 2.0
"""A tolerance that no two SSIMs can differ by."""


@dataclass(frozen=True)
class Judgement:
    """What the agent found on one scan: the SSIM of the live and of the previous model, each with its sha256."""

    live_sha: str
    previous_sha: str
    ssim: float
    ssim_previous: float


@dataclass(frozen=True)
class Verdict:
    """Whether to go back, and why or why not, for people."""

    go_back: bool
    reason: str


def decide(judged: Judgement, live_sha: str, previous_sha: str, tolerance: float, left_sha: str) -> Verdict:
    """Whether the live model is to give way to the previous one.

    Parameters
    ----------
    judged
        By the agent.
    live_sha, previous_sha
        What runs, and what ran before, now; "" for none.
    tolerance
        How far the live model's SSIM may be below the previous one's.
    left_sha
        The model that was gone back from last, "" for none: it does not come back by itself, or two models that are
        good on different scans would take turns for ever.
    """
    if not judged.live_sha or judged.live_sha != live_sha:
        return Verdict(False, f"model {_short(judged.live_sha)} was judged, {_short(live_sha)} is live by now")
    if not judged.previous_sha or judged.previous_sha != previous_sha:
        what = f"model {_short(judged.previous_sha)} was judged beside it"
        return Verdict(False, f"{what}, {_short(previous_sha)} would come back")
    if not (math.isfinite(judged.ssim) and math.isfinite(judged.ssim_previous)):
        return Verdict(False, "one of the models could not be judged")
    before = f"{judged.ssim_previous:.3f} of {_short(previous_sha)} before it"
    told = f"SSIM {judged.ssim:.3f} of {_short(live_sha)}, {before}, tolerance {tolerance:.3f}"
    if tolerance >= NEVER or not judged.ssim_previous - judged.ssim > tolerance:  # a tolerance of NaN: no
        return Verdict(False, told)
    if previous_sha == left_sha:
        return Verdict(False, f"{told}: but {_short(previous_sha)} was gone back from before")
    return Verdict(True, told)


class Slot(Protocol):
    """As much of the model slot as a rollback needs."""

    @property
    def live(self) -> Any: ...

    @property
    def previous(self) -> Any: ...

    def rollback(self, only_from: str | None = None) -> None: ...


class Rollback:
    """Carries out the decision, and remembers it until another model comes or an operator has seen it. Any thread.

    Attributes
    ----------
    tolerance
        See `decide`.
    alarm
        A model was gone back from by itself, and nobody has done anything about it yet.
    message
        Both models and their SSIMs, or why nothing was done; after an operator's rollback both models.
    """

    def __init__(self, slot: Slot, tolerance: float) -> None:
        self.tolerance = tolerance
        self.alarm = False
        self.message = ""
        self._slot = slot
        self._judging = threading.Lock()
        self._lock = threading.Lock()  # guards the alarm and the next two
        self._left = ""
        self._back_on = ""

    def judged(self, judgement: Judgement) -> None:
        """The agent has judged; go back if that is to be.

        Raises
        ------
        ModelError, EngineError
            The previous model cannot be brought back; the live one runs on.
        """
        with self._judging:
            live, previous = self._shas()
            verdict = decide(judgement, live, previous, self.tolerance, self._left)
            if not verdict.go_back:
                if not self.alarm:
                    self.message = verdict.reason
                return
            try:
                self._slot.rollback(only_from=live)  # it calls back: no lock that `follow` takes may be held
            except PtychostreamError as error:
                self.message = f"{verdict.reason}: cannot go back: {error}"
                raise
            with self._lock:
                self.alarm, self._left, self._back_on = True, live, previous
                self.message = went_back(live, previous, verdict.reason)
            log.warning("%s", self.message)

    def by_operator(self) -> None:
        """Go back because an operator wants it; what he leaves does not come back by itself.

        Raises
        ------
        ModelError, EngineError
            There is no previous model, it cannot be brought back, or another one has become live.
        """
        with self._judging:
            live, previous = self._shas()
            self._slot.rollback(only_from=live or None)
            if not (live and previous):
                return
            with self._lock:
                self.alarm, self._left = False, live
                self.message = went_back(live, previous, BY_OPERATOR)
            log.info("%s", self.message)

    def follow(self) -> None:
        """Another model than the one that was gone back to is live: the alarm is over."""
        with self._lock:
            if self.alarm and self._shas()[0] != self._back_on:
                self.alarm = False

    def acknowledge(self) -> None:
        """An operator has seen it."""
        with self._lock:
            self.alarm = False

    def _shas(self) -> tuple[str, str]:
        live, previous = self._slot.live, self._slot.previous
        return live.sha256 if live is not None else "", previous.sha256 if previous is not None else ""


def _short(sha256: str) -> str:
    return sha256[:12] or "no model"
