"""The rollback to the previous model: by command, or automatic if the agent has judged that the live one is worse."""

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
"""With this tolerance there is no automatic rollback: two SSIMs never differ by more."""


@dataclass(frozen=True)
class Judgement:
    """The agent's result for one scan: the SSIM of the live and of the previous model, and the sha256 of each."""

    live_sha: str
    previous_sha: str
    ssim: float
    ssim_previous: float


@dataclass(frozen=True)
class Verdict:
    """Whether to roll back, and the reason as a text."""

    go_back: bool
    reason: str


def decide(judged: Judgement, live_sha: str, previous_sha: str, tolerance: float, left_sha: str) -> Verdict:
    """Decide whether the previous model replaces the live one.

    Parameters
    ----------
    judged
        The agent's result.
    live_sha, previous_sha
        The models that run now and ran before. "": none.
    tolerance
        The live model's SSIM may be lower than the previous model's by this much.
    left_sha
        The model that the last rollback replaced, "" for none. It does not return automatically. Otherwise two models
        that are good on different scans would replace each other for ever.
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
    """The part of the model slot that a rollback needs."""

    @property
    def live(self) -> Any: ...

    @property
    def previous(self) -> Any: ...

    def rollback(self, only_from: str | None = None) -> None: ...


class Rollback:
    """Carries out the decision, and shows it until another model is live or an operator acknowledges it. Any thread.

    Attributes
    ----------
    tolerance
        See `decide`.
    alarm
        There was an automatic rollback, and no other model and no acknowledgement since.
    message
        Both models and their SSIMs, or why there was no rollback; after an operator's rollback both models.
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

    def judged(self, judgement: Judgement, who: str = "the agent") -> None:
        """Take a result of the agent `who`, and roll back if it says so.

        Raises
        ------
        ModelError, EngineError
            The previous model cannot be loaded. The live model continues.
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
                self.message = went_back(live, previous, f"{verdict.reason}, as {who} has judged")
            log.warning("%s", self.message)

    def by_operator(self) -> None:
        """Roll back for an operator. The model that is replaced does not return automatically.

        Raises
        ------
        ModelError, EngineError
            There is no previous model, it cannot be loaded, or another model is live now.
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
        """End the alarm if another model is live than the one that the rollback loaded."""
        with self._lock:
            if self.alarm and self._shas()[0] != self._back_on:
                self.alarm = False

    def acknowledge(self) -> None:
        """End the alarm: an operator has seen it."""
        with self._lock:
            self.alarm = False

    def _shas(self) -> tuple[str, str]:
        live, previous = self._slot.live, self._slot.previous
        return live.sha256 if live is not None else "", previous.sha256 if previous is not None else ""


def _short(sha256: str) -> str:
    return sha256[:12] or "no model"
