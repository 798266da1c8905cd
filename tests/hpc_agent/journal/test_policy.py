"""The agent's policy: every mode with every event, and what holds whatever comes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.hpc_agent.journal.policy import (
    NOTHING,
    Enabled,
    Event,
    Judged,
    Mode,
    ModelLost,
    ModelPushed,
    Plan,
    PolicySettings,
    PolicyState,
    ReconstructAsked,
    RetrainAsked,
    ScanCompleted,
    step,
)

SETTINGS = PolicySettings(tolerance=0.1, scans=3, interval_s=100.0)
NOW = 1_000.0
GOOD, BAD = Judged(0.05), Judged(0.3)
LOOK, TRAIN = Plan(reconstruct=True, judge=True), Plan(reconstruct=True, train=True)
ALL = Plan(reconstruct=True, judge=True, train=True)

BOOT = PolicyState(Mode.BOOTSTRAP)
ACTIVE = PolicyState(Mode.ACTIVE, within=0, last_looked_s=950.0)
ALMOST = PolicyState(Mode.ACTIVE, within=2, last_looked_s=950.0)
RESTING = PolicyState(Mode.SUSPENDED, within=3, last_looked_s=950.0)
DUE = PolicyState(Mode.SUSPENDED, within=3, last_looked_s=900.0)


def paused(state: PolicyState) -> PolicyState:
    return replace(state, mode=Mode.PAUSED, resumes=state.mode)


def looked(state: PolicyState) -> PolicyState:
    return replace(state, last_looked_s=NOW)


TABLE: list[tuple[PolicyState, Event, PolicyState, Plan]] = [
    (BOOT, ScanCompleted(), looked(BOOT), TRAIN),
    (BOOT, GOOD, BOOT, NOTHING),
    (BOOT, BAD, BOOT, NOTHING),
    (BOOT, ModelPushed(), replace(BOOT, mode=Mode.ACTIVE), NOTHING),
    (BOOT, ModelLost(), BOOT, NOTHING),
    (BOOT, ReconstructAsked(), looked(BOOT), Plan(reconstruct=True)),
    (BOOT, RetrainAsked(), looked(BOOT), TRAIN),
    (ACTIVE, ScanCompleted(), looked(ACTIVE), LOOK),
    (ACTIVE, GOOD, replace(ACTIVE, within=1), NOTHING),
    (ACTIVE, BAD, ACTIVE, TRAIN),
    (ACTIVE, Judged(0.1), ACTIVE, TRAIN),  # at the tolerance is beyond it
    (ACTIVE, Judged(math.nan), ACTIVE, TRAIN),
    (ACTIVE, ModelPushed(), ACTIVE, NOTHING),
    (ACTIVE, ModelLost(), replace(ACTIVE, mode=Mode.BOOTSTRAP), NOTHING),
    (ACTIVE, ReconstructAsked(), looked(ACTIVE), LOOK),
    (ALMOST, RetrainAsked(), replace(looked(ALMOST), within=0), ALL),
    (ALMOST, BAD, replace(ALMOST, within=0), TRAIN),
    (ALMOST, GOOD, replace(ALMOST, mode=Mode.SUSPENDED, within=3), NOTHING),
    (RESTING, ScanCompleted(), RESTING, NOTHING),
    (replace(RESTING, last_looked_s=None), ScanCompleted(), looked(RESTING), LOOK),
    (DUE, ScanCompleted(), looked(DUE), LOOK),
    (replace(DUE, last_looked_s=2_000.0), ScanCompleted(), looked(DUE), LOOK),  # the clock went back
    (RESTING, GOOD, replace(RESTING, within=4), NOTHING),
    (RESTING, BAD, replace(RESTING, mode=Mode.ACTIVE, within=0), TRAIN),
    (RESTING, ModelPushed(), RESTING, NOTHING),
    (RESTING, ModelLost(), replace(RESTING, mode=Mode.BOOTSTRAP, within=0), NOTHING),
    (RESTING, ReconstructAsked(), looked(RESTING), LOOK),
    (RESTING, RetrainAsked(), replace(looked(RESTING), within=0), ALL),
    (paused(BOOT), ScanCompleted(), paused(BOOT), NOTHING),
    (paused(BOOT), ReconstructAsked(), looked(paused(BOOT)), Plan(reconstruct=True)),
    (paused(BOOT), RetrainAsked(), looked(paused(BOOT)), TRAIN),
    (paused(BOOT), GOOD, paused(BOOT), NOTHING),
    (paused(BOOT), ModelPushed(), paused(replace(BOOT, mode=Mode.ACTIVE)), NOTHING),
    (paused(BOOT), ModelLost(), paused(BOOT), NOTHING),
    (paused(ALMOST), GOOD, replace(paused(replace(ALMOST, mode=Mode.SUSPENDED)), within=3), NOTHING),
    (paused(RESTING), BAD, replace(paused(ACTIVE), within=0), NOTHING),
    (paused(RESTING), ScanCompleted(), paused(RESTING), NOTHING),
    (paused(ACTIVE), ModelLost(), paused(replace(ACTIVE, mode=Mode.BOOTSTRAP)), NOTHING),
]


@pytest.mark.parametrize(("state", "event", "expected", "plan"), TABLE)
def test_the_table(state: PolicyState, event: Event, expected: PolicyState, plan: Plan) -> None:
    decision = step(state, event, NOW, SETTINGS)
    assert (decision.state, decision.plan) == (expected, plan)
    assert decision.reason


@pytest.mark.parametrize("state", [BOOT, ACTIVE, ALMOST, RESTING])
def test_a_pause_ends_where_it_began(state: PolicyState) -> None:
    off = step(state, Enabled(False), NOW, SETTINGS)
    assert off.state == paused(state) and off.plan == NOTHING
    assert step(off.state, Enabled(False), NOW, SETTINGS).state == off.state
    on = step(off.state, Enabled(True), NOW, SETTINGS)
    assert replace(on.state, resumes=state.resumes) == state
    assert step(state, Enabled(True), NOW, SETTINGS).state == state


def test_training_switched_off_or_always_on() -> None:
    never, always = (SETTINGS.model_copy(update={"training": word}) for word in ("never", "always"))
    for state in (BOOT, ACTIVE, DUE):
        assert not step(state, ScanCompleted(), NOW, never).plan.train
        assert step(state, ScanCompleted(), NOW, always).plan == replace(LOOK, train=True, judge=state is not BOOT)
    assert step(ACTIVE, BAD, NOW, never).plan == NOTHING
    assert step(ACTIVE, RetrainAsked(), NOW, never).plan.train
    for state in (RESTING, paused(ACTIVE)):
        assert step(state, ScanCompleted(), NOW, always).plan == NOTHING


def test_the_table_has_every_mode_with_every_event() -> None:
    seen = {(state.mode, type(event)) for state, event, _, _ in TABLE}
    events = {ScanCompleted, Judged, ModelPushed, ModelLost, ReconstructAsked, RetrainAsked}
    assert seen == set(itertools.product(Mode, events))


EVENTS = st.one_of(
    st.sampled_from([ScanCompleted(), ModelPushed(), ModelLost(), ReconstructAsked(), RetrainAsked()]),
    st.builds(Judged, st.floats(0, 1) | st.just(math.nan)),
    st.builds(Enabled, st.booleans()),
)


@pytest.mark.slow
@given(st.lists(st.tuples(EVENTS, st.floats(0, 300)), max_size=40), st.integers(1, 5))
def test_whatever_comes(happened: list[tuple[Event, float]], scans: int) -> None:
    settings = PolicySettings(tolerance=0.1, scans=scans, interval_s=100.0)
    state, now, looked_s, since_beyond = PolicyState(), 0.0, -math.inf, 0
    has_model = False
    for event, passed in happened:
        now += passed
        before, decision = state, step(state, event, now, settings)
        state, plan = decision.state, decision.plan
        has_model = (has_model or isinstance(event, ModelPushed)) and not isinstance(event, ModelLost)
        alive = (state.resumes if state.mode is Mode.PAUSED else state.mode) is not Mode.BOOTSTRAP
        assert alive == has_model
        if plan.judge or plan.train:
            assert plan.reconstruct
        if before.mode is Mode.PAUSED and not isinstance(event, ReconstructAsked | RetrainAsked):
            assert plan == NOTHING
        if before.mode is Mode.SUSPENDED and isinstance(event, ScanCompleted) and plan.reconstruct:
            assert now - looked_s >= settings.interval_s
        if plan.judge or (plan.reconstruct and not isinstance(event, Judged)):
            looked_s = now
        if isinstance(event, Judged) and has_model:
            since_beyond = since_beyond + 1 if event.mismatch < settings.tolerance else 0
        elif isinstance(event, RetrainAsked | ModelLost):
            since_beyond = 0
        if state.mode is Mode.SUSPENDED and before.mode is Mode.ACTIVE and isinstance(event, Judged):
            assert since_beyond >= settings.scans
