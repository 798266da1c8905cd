"""Whose judgement of the models is followed: that of the lease's holder while its heart beats, signed with a key."""

from __future__ import annotations

import pytest

from ptychostream.errors import AgentError
from ptychostream.ioc.attached_agent import AttachedAgent
from ptychostream.ioc.model.canary_rollback import Judgement
from ptychostream.ioc.model.verdicts import Verdicts
from ptychostream.model.model_push import judgement_signature

KEY = b"k" * 32
JUDGED = Judgement("a" * 64, "b" * 64, 0.61234567, 0.82)


def signed(verdicts: Verdicts, key: bytes = KEY, prefix: str = "p:", judged: Judgement = JUDGED) -> str:
    figures = judged.live_sha, judged.previous_sha, judged.ssim, judged.ssim_previous
    return judgement_signature(key, prefix, verdicts.nonce, *figures)


def test_without_a_key_the_lease_and_the_heart_decide() -> None:
    verdicts = Verdicts("p:", None)
    assert verdicts.check(JUDGED, "", "agent-a", True) == "agent-a"
    with pytest.raises(AgentError, match="no agent holds the lease"):
        verdicts.check(JUDGED, "", "", True)
    with pytest.raises(AgentError, match="the heart of agent-a does not beat"):
        verdicts.check(JUDGED, "", "agent-a", False)
    assert verdicts.check(JUDGED, "", "a\nb" * 60, True).isprintable()


def test_with_a_key_only_what_is_signed_is_followed_and_only_once() -> None:
    verdicts = Verdicts("p:", KEY)
    first = signed(verdicts)
    for wrong, what in (
        ("", "not signed"),
        (signed(verdicts, b"x" * 32), "signature is wrong"),
        (signed(verdicts, prefix="q:"), "signature is wrong"),
        (signed(verdicts, judged=Judgement("a" * 64, "b" * 64, 0.7, 0.82)), "signature is wrong"),
    ):
        with pytest.raises(AgentError, match=what):
            verdicts.check(JUDGED, wrong, "agent-a", True)
    assert verdicts.check(JUDGED, first, "agent-a", True) == "agent-a"  # what was refused used nothing up
    with pytest.raises(AgentError, match="signature is wrong"):
        verdicts.check(JUDGED, first, "agent-a", True)
    assert verdicts.check(JUDGED, signed(verdicts), "agent-a", True) == "agent-a"


def test_a_lease_counts_while_it_is_fresh_or_the_heart_beats() -> None:
    now = [100.0]
    agent = AttachedAgent(3.0, clock=lambda: now[0])
    assert not agent.holds
    agent.lease("agent-a")
    assert agent.holds
    now[0] += 4.0
    assert not agent.holds
    for beat in (1, 2):
        agent.look(beat)
    assert agent.holds
    now[0] += 4.0
    assert not agent.holds
    agent.lease("agent-a")  # it was started again, under its old name
    assert agent.holds
    agent.lease("-agent-a")
    assert not agent.holds
