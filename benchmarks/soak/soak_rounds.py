"""A round of the soak: a scan with a fault in the middle, and the account of all its frames."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptychostream.benchmarks.soak.soak_faults import Fault, Moment
from ptychostream.benchmarks.soak.soak_source import scan_name
from ptychostream.benchmarks.soak.soak_stage import Figures, Stage
from ptychostream.errors import StreamError

MARGIN_S = 2.0
POLL_S = 0.05
BACKLOG = 32
"""The largest number of pending frames in a normal stream: some batches."""


class InterruptedRound(Exception):  # noqa: N818 - the user's wish, not an error
    """A round was given up because `stop` was set."""


@dataclass
class Round:
    """The result of one round.

    Attributes
    ----------
    fault
        Name of the fault. Empty for a round without one.
    began_s, struck_s, healed_s, ended_s
        POSIX times.
    restart_s
        Duration of `heal`, for example the start of a process.
    recovery_s
        Time from the end of `heal` until a frame sent after it is on the canvas and at most BACKLOG frames are pending.
        For a frozen client: until it has an image newer than any before. None: the time limit passed first.
    sent, received, stitched, duplicates, missed
        Frames of this round. After a restart of the IOC only those of the new process.
    unseen
        Sent frames that are neither received nor counted as missed.
    dropped
        Frames by cause.
    violations
        Failed checks.
    """

    fault: str
    began_s: float
    struck_s: float = 0.0
    healed_s: float = 0.0
    ended_s: float = 0.0
    restart_s: float = 0.0
    recovery_s: float | None = None
    sent: int = 0
    received: int = 0
    stitched: int = 0
    duplicates: int = 0
    missed: int = 0
    unseen: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def play(
    stage: Stage,
    fault: Fault | None,
    choose: random.Random,
    *,
    hold_s: float | None = None,
    margin_s: float = MARGIN_S,
    recovery_limit_s: float = 5.0,
    patience_s: float = 30.0,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Round:
    """Play one round.

    Parameters
    ----------
    stage
        The processes. No frame is pending.
    fault
        The fault. None: a scan without fault.
    choose
        Chooses times and sizes.
    hold_s
        Duration of the fault. None: chosen from its range.
    margin_s
        Time without fault before and after the fault.
    recovery_limit_s
        A slower recovery is a violation.
    patience_s
        Longest wait for a recovery.
    stop
        Ends the round early.

    Raises
    ------
    StreamError, TimeoutError
        The IOC has ended or does not answer.
    InterruptedRound
        `stop` was set.
    """
    stop = stop or threading.Event()
    round_ = Round(fault.name if fault else "", time.time())
    before, sent_before, life = stage.figures(), stage.journal.total, stage.lives
    stage.begin_scan()
    _rest(stop, margin_s)
    if fault is not None:
        _suffer(stage, fault, round_, choose, hold_s, patience_s, stop, say)
        if round_.recovery_s is None:
            round_.violations.append(f"did not recover within {patience_s:.0f} s")
        elif round_.recovery_s > recovery_limit_s:
            round_.violations.append(f"took {round_.recovery_s:.1f} s to recover")
    _rest(stop, margin_s)
    stage.end_scan()
    after = stage.settle()
    if not _ca_clients_live(stage, patience_s):
        round_.violations.append(f"the CA clients got nothing within {patience_s:.0f} s")
    round_.ended_s = time.time()
    _account(round_, before if stage.lives == life else None, after, stage.journal.total - sent_before)
    if round_.unseen < 0:
        round_.violations.append(f"{-round_.unseen} frames more than were sent")
    elif round_.unseen and not (fault is not None and fault.unseen):
        round_.violations.append(f"{round_.unseen} frames are neither received nor missed")
    if after.error or after.law_broken:
        round_.violations.append(f"the conservation law is broken by {after.error}")
    return round_


def _suffer(
    stage: Stage,
    fault: Fault,
    round_: Round,
    choose: random.Random,
    hold_s: float | None,
    patience_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    before = Moment(stage.figures(), int(stage.image_client.latest().get("images", 0)))
    hold_s = choose.uniform(*fault.hold_s) if hold_s is None else hold_s
    say(f"{fault.name}, {hold_s:.1f} s")
    round_.struck_s = time.time()
    fault.strike(stage, choose)
    _rest(stop, hold_s)
    round_.violations += fault.check(stage, before)
    began = time.time()
    fault.heal(stage, choose)
    round_.healed_s = time.time()
    round_.restart_s = round_.healed_s - began
    recovered = _sees_again(stage) if fault.name == "client frozen" else _stitches_again(stage)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not stage.ioc.running():
            raise stage.ioc.failure()
        if recovered():
            round_.recovery_s = time.time() - round_.healed_s
            return
        _rest(stop, POLL_S)


def _rest(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise InterruptedRound


def _sees_again(stage: Stage) -> Callable[[], bool]:
    """Whether the frozen client has an image newer than any before. Its socket may still have older ones."""
    newest = int(stage.image_client.latest()["frames"])
    return lambda: int(stage.frozen_client.latest()["frames"]) > newest


def _stitches_again(stage: Stage) -> Callable[[], bool]:
    """Whether a frame sent from now on is on the canvas, and there is no backlog."""
    sent, received_stitched = stage.journal.sent(stage.scan), -1

    def recovered() -> bool:
        nonlocal received_stitched
        try:
            scan, newest, stitched, pending = stage.pvs.get(
                "ScanID_RBV", "UniqueId_RBV", "FramesStitched_RBV", "FramesPending_RBV", timeout_s=1.0
            )
        except TimeoutError:
            return False
        if scan != scan_name(stage.scan) or newest < sent:
            return False
        if received_stitched < 0:
            received_stitched = stitched
        return bool(stitched > received_stitched and pending <= BACKLOG)

    return recovered


def _ca_clients_live(stage: Stage, patience_s: float) -> bool:
    """Whether the monitoring client gets updates, and the writing client can write."""
    updates, puts = stage.monitor.latest().get("updates", 0), stage.writer.latest().get("puts", 0)
    try:
        stage.wait(
            lambda: stage.monitor.latest().get("updates", 0) > updates and stage.writer.latest().get("puts", 0) > puts,
            patience_s,
            "updates and puts of the CA clients",
        )
    except StreamError:
        return False
    return True


def _account(round_: Round, before: Figures | None, after: Figures, sent: int) -> None:
    """Set the counts between two quiet moments. `before` is None for a new IOC, which counts from zero."""
    round_.sent = sent
    round_.received = after.received - (before.received if before else 0)
    round_.stitched = after.stitched - (before.stitched if before else 0)
    round_.missed = after.missed - (before.missed if before else 0)
    round_.dropped = {cause: count - (before.dropped[cause] if before else 0) for cause, count in after.dropped.items()}
    round_.duplicates = round_.dropped["Duplicate"]
    round_.unseen = sent - (after.seen - (before.seen if before else 0))


def steady(stage: Stage, timeout_s: float = 60.0) -> None:
    """Wait until the IOC is ready for the detector's first scan. Raises StreamError."""
    stage.source.hear("ready", timeout_s, stage.ioc)
    try:
        stage.wait(lambda: stage.value("Ready_RBV") == 1, timeout_s, "a connection to the detector")
    except TimeoutError as error:
        raise StreamError(f"{error} does not answer", where=str(stage.ioc.log_path), remedy="see that log") from error
