"""The agent as the edge sees it: alive or lost, which one it is, and what operators have asked of it.

The agent lives on another machine and writes over Channel Access. What is decided here is decided in one place,
where puts come one after the other: Channel Access itself cannot compare and set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum

from ptychostream.errors import AgentError
from ptychostream.model.agent_commands import COMMANDS

_LOOK_S = 0.5  # how often a command that waits looks whether the agent lives


class Pulse:
    """Whether a counter moves; times are monotonic seconds. What it held at the first look was not seen to move."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._value: int | None = None
        self._moved_s: float | None = None

    def look(self, value: int, now_s: float) -> None:
        """It holds `value` now."""
        if self._value is not None and value != self._value:
            self._moved_s = now_s
        self._value = value

    def alive(self, now_s: float) -> bool:
        """It moved a short while ago."""
        return self._moved_s is not None and now_s - self._moved_s < self.timeout_s

    def lost(self, now_s: float) -> bool:
        """It moved once, and stands still now."""
        return self._moved_s is not None and not self.alive(now_s)


class Lease:
    """Who is the agent of this edge. A lease is taken by a name, given back by `-` and the name.

    It ends when the holder's heartbeat has stood still for as long as the watchdog waits.
    """

    def __init__(self, pulse: Pulse) -> None:
        self.holder = ""
        self._pulse = pulse
        self._taken_s = 0.0

    def ask(self, text: str, now_s: float) -> None:
        """Take it, keep it, or give it back.

        Raises
        ------
        AgentError
            Another agent has it.
        """
        if text.startswith("-"):
            if text[1:] == self.holder:
                self.holder = ""
            return
        if self.holder != text and self.lives(now_s):
            remedy = f"end that agent, or wait {self._pulse.timeout_s:.0f} s after it has died"
            raise AgentError(f"{text} wants the lease that {self.holder} has", where="Agent:Lease", remedy=remedy)
        if self.holder != text or not self.lives(now_s):  # its holder may have been started again
            self.holder, self._taken_s = text, now_s

    def lives(self, now_s: float) -> bool:
        """Whether there is a holder whose heart beats, or that has only just taken the lease."""
        fresh = now_s - self._taken_s < self._pulse.timeout_s
        return bool(self.holder) and (fresh or self._pulse.alive(now_s))


class CommandStatus(IntEnum):
    """States of the record Agent:CommandStatus_RBV."""

    IDLE = 0
    WORKING = 1
    NO_AGENT = 2


class AttachedAgent:
    """Watchdog, lease and commands. Any thread.

    Parameters
    ----------
    timeout_s
        An agent whose heartbeat has stood still for so long is offline.
    on_change
        Called when a command has come, ended or failed.
    clock
        Monotonic seconds.

    Attributes
    ----------
    asked, done
        Per command, the number of the newest that was asked for, and of the newest that the agent has done.
    """

    def __init__(
        self,
        timeout_s: float,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._pulse = Pulse(timeout_s)
        self._lease = Lease(self._pulse)
        self._told = threading.Condition()
        self._closed = False
        self._no_agent = False
        self.asked = dict.fromkeys(COMMANDS, 0)
        self.done = dict.fromkeys(COMMANDS, 0)

    def look(self, heartbeat: int) -> None:
        """Agent:Heartbeat holds `heartbeat` now."""
        with self._told:
            self._pulse.look(heartbeat, self._clock())
            if self._no_agent and self._pulse.alive(self._clock()):
                self._no_agent = False

    @property
    def lost(self) -> bool:
        """The agent was there, and is not any more."""
        return self._pulse.lost(self._clock())

    @property
    def holds(self) -> bool:
        """Whether there is an agent that holds the lease and is alive."""
        return self._lease.lives(self._clock())

    @property
    def holder(self) -> str:
        """Who has the lease."""
        return self._lease.holder

    @property
    def status(self) -> CommandStatus:
        """What is with the commands."""
        if self._no_agent:
            return CommandStatus.NO_AGENT
        return CommandStatus.WORKING if self.asked != self.done else CommandStatus.IDLE

    def lease(self, text: str) -> None:
        """A put to Agent:Lease. Raises AgentError where another agent has it."""
        with self._told:
            self._lease.ask(text.strip(), self._clock())

    def command(self, name: str) -> None:
        """Ask the agent, and wait until it has done it.

        Raises
        ------
        AgentError
            There is no agent, or it went away.
        """
        with self._told:
            if not self._pulse.alive(self._clock()):
                self._no_agent = True
                raise _no_agent(name, "no agent is at work")
            self._no_agent = False
            self.asked[name] += 1
            number = self.asked[name]
        self._on_change()
        with self._told:
            while self.done[name] < number:
                self._told.wait(_LOOK_S)
                if self._closed or not self._pulse.alive(self._clock()):
                    self.asked[name] = self.done[name]
                    self._no_agent = True
                    raise _no_agent(name, "the agent has gone")

    def finish(self, name: str, number: int) -> None:
        """The agent has done command `number`, and all before it."""
        with self._told:
            self.done[name] = min(number, self.asked[name])
            self._told.notify_all()

    def close(self) -> None:
        """Whoever waits is told that the agent has gone."""
        with self._told:
            self._closed = True
            self._told.notify_all()


def _no_agent(command: str, what: str) -> AgentError:
    return AgentError(what, where=f"Agent:{command.capitalize()}", remedy="start ptychostream agent for this prefix")
