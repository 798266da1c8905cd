"""When the agent reconstructs, judges and retrains: a state machine, a pure function of state, event and time.

As in Babu et al. 2023 (Nat. Commun. 14, 7059), every scan is reconstructed and compared with the live network's
output. A large mismatch retrains the network. After several scans within tolerance the learning is suspended, and one
scan in an interval is still judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ptychostream.config import Settings, check_place


class Mode(Enum):
    """What the agent does with a completed scan; the record Agent:State shows it."""

    BOOTSTRAP = "Bootstrap"
    """No model is live: reconstruct every scan and train on it."""
    ACTIVE = "Active"
    """Reconstruct and judge every scan; train where the mismatch is too large."""
    SUSPENDED = "Suspended"
    """One scan in an interval is reconstructed and judged."""
    PAUSED = "Paused"
    """Nothing: an operator has paused the agent."""


class PolicySettings(Settings):
    """When to train, and when to suspend the learning."""

    tolerance: float = Field(0.10, gt=0, lt=2)
    """Mismatch (1 - SSIM) from which the network is retrained."""
    scans: int = Field(3, ge=1)
    """Number of scans in a row within tolerance that suspend the learning."""
    interval_s: float = Field(3600.0, gt=0)
    """Time between judged scans while suspended, s."""
    training: Literal["automatic", "always", "never"] = "automatic"
    """Train by the mismatch, on every scan that is reconstructed, or only when an operator asks."""
    own: Annotated[str, AfterValidator(check_place)] = ""
    """A policy of one's own, as "module:function". The function takes and returns what `step` does."""


@dataclass(frozen=True)
class PolicyState:
    """The state that the policy keeps.

    Attributes
    ----------
    mode
        See `Mode`.
    within
        Number of scans in a row that were judged within tolerance.
    last_looked_s
        When a scan was last chosen to be reconstructed, POSIX time; None: never.
    resumes
        The mode after a pause.
    """

    mode: Mode = Mode.BOOTSTRAP
    within: int = 0
    last_looked_s: float | None = None
    resumes: Mode = Mode.BOOTSTRAP


@dataclass(frozen=True)
class ScanCompleted:
    """A scan is complete and its file exists."""


@dataclass(frozen=True)
class Judged:
    """The live network was compared with a scan's reconstruction; `mismatch` is 1 - SSIM."""

    mismatch: float


@dataclass(frozen=True)
class ModelPushed:
    """A model that the agent trained, or took from its store, is live at the edge."""


@dataclass(frozen=True)
class ModelLost:
    """The edge runs no model any more."""


@dataclass(frozen=True)
class Enabled:
    """The operator's switch."""

    on: bool


@dataclass(frozen=True)
class ReconstructAsked:
    """The operator wants the latest scan reconstructed and judged, whatever the mode."""


@dataclass(frozen=True)
class RetrainAsked:
    """The operator wants the network retrained on the latest scan, whatever the mode."""


Event = ScanCompleted | Judged | ModelPushed | ModelLost | Enabled | ReconstructAsked | RetrainAsked


@dataclass(frozen=True)
class Plan:
    """What is done with a scan. `judge` and `train` need the reconstruction."""

    reconstruct: bool = False
    judge: bool = False
    train: bool = False


NOTHING = Plan()


@dataclass(frozen=True)
class Decision:
    """The next state, what is done now, and the reason for people."""

    state: PolicyState
    plan: Plan
    reason: str


def step(state: PolicyState, event: Event, now_s: float, settings: PolicySettings) -> Decision:
    """The decision that follows from `event` at POSIX time `now_s`.

    An event that changes nothing returns the same state. If the clock was set back, the interval counts as over:
    judging one scan too many is better than judging none.
    """
    decision = _automatic(state, event, now_s, settings)
    plan = decision.plan
    if settings.training == "never" and plan.train and not isinstance(event, RetrainAsked):
        plan = NOTHING if isinstance(event, Judged) else replace(plan, train=False)
        return replace(decision, plan=plan, reason=f"{decision.reason}; training is switched off")
    if settings.training == "always" and isinstance(event, ScanCompleted) and plan.reconstruct and not plan.train:
        return replace(decision, plan=replace(plan, train=True), reason=f"{decision.reason}; train on every scan")
    return decision


def _automatic(state: PolicyState, event: Event, now_s: float, settings: PolicySettings) -> Decision:
    match event:
        case Enabled(on=False):
            if state.mode is Mode.PAUSED:
                return Decision(state, NOTHING, "paused already")
            return Decision(replace(state, mode=Mode.PAUSED, resumes=state.mode), NOTHING, "paused by the operator")
        case Enabled():
            if state.mode is not Mode.PAUSED:
                return Decision(state, NOTHING, "enabled already")
            return Decision(replace(state, mode=state.resumes), NOTHING, "resumed by the operator")
        case ReconstructAsked():
            plan = Plan(reconstruct=True, judge=_lives(state) is not Mode.BOOTSTRAP)
            return Decision(replace(state, last_looked_s=now_s), plan, "asked for by the operator")
        case RetrainAsked():
            plan = Plan(reconstruct=True, judge=_lives(state) is not Mode.BOOTSTRAP, train=True)
            return Decision(replace(state, last_looked_s=now_s, within=0), plan, "retraining asked for by the operator")
        case ModelLost():
            if _lives(state) is Mode.BOOTSTRAP:
                return Decision(state, NOTHING, "no model is live yet")
            return Decision(_enter(state, Mode.BOOTSTRAP), NOTHING, "the edge has lost its model")
        case ModelPushed():
            if _lives(state) is not Mode.BOOTSTRAP:
                return Decision(state, NOTHING, "a new model is live")
            return Decision(_enter(state, Mode.ACTIVE), NOTHING, "the first model is live")
        case Judged(mismatch=mismatch):
            return _judged(state, mismatch, settings)
        case ScanCompleted():
            return _completed(state, now_s, settings)


def _completed(state: PolicyState, now_s: float, settings: PolicySettings) -> Decision:
    looked = replace(state, last_looked_s=now_s)
    match state.mode:
        case Mode.PAUSED:
            return Decision(state, NOTHING, "paused: the scan is passed over")
        case Mode.BOOTSTRAP:
            return Decision(looked, Plan(reconstruct=True, train=True), "no model is live: train on this scan")
        case Mode.ACTIVE:
            return Decision(looked, Plan(reconstruct=True, judge=True), "active: judge by this scan")
        case Mode.SUSPENDED:
            since = math.inf if state.last_looked_s is None else now_s - state.last_looked_s
            if 0 <= since < settings.interval_s:
                left = settings.interval_s - since
                return Decision(state, NOTHING, f"suspended: the next scan is judged in {left:.0f} s")
            return Decision(looked, Plan(reconstruct=True, judge=True), "suspended: the interval is over, judge")


def _judged(state: PolicyState, mismatch: float, settings: PolicySettings) -> Decision:
    """A mismatch of NaN is beyond every tolerance: a network that cannot be judged is not trusted."""
    told = f"mismatch {mismatch:.3f}, tolerance {settings.tolerance:.3f}"
    if _lives(state) is Mode.BOOTSTRAP:
        return Decision(state, NOTHING, f"{told}: no model of the agent's is live yet")
    if not mismatch < settings.tolerance:
        plan = NOTHING if state.mode is Mode.PAUSED else Plan(reconstruct=True, train=True)
        return Decision(_enter(state, Mode.ACTIVE), plan, f"{told}: retrain" if plan.train else f"{told}: paused")
    within = state.within + 1
    if within >= settings.scans and _lives(state) is Mode.ACTIVE:
        return Decision(_enter(state, Mode.SUSPENDED, within), NOTHING, f"{told}, {within} scans in a row: suspend")
    return Decision(replace(state, within=within), NOTHING, f"{told}: {within} of {settings.scans} scans in a row")


def _lives(state: PolicyState) -> Mode:
    """The mode, or during a pause the mode after it."""
    return state.resumes if state.mode is Mode.PAUSED else state.mode


def _enter(state: PolicyState, mode: Mode, within: int = 0) -> PolicyState:
    """The state with `mode`, or with `mode` after the pause."""
    if state.mode is Mode.PAUSED:
        return replace(state, resumes=mode, within=within)
    return replace(state, mode=mode, within=within)
