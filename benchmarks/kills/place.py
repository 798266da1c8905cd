"""Where the programs of `bench kills` run, and what a series of kills has shown."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.soak.soak_stage import Victim
from ptychostream.demo.pvs import Pvs
from ptychostream.errors import PtychostreamError, StreamError
from ptychostream.processes.loopback import free_ports, loopback_environment

CHANNEL = "kills:det:Image"
PREFIX = "kills:"
START_S = 300.0
_POLL_S = 0.02


@dataclass
class Outcome:
    """What a series of kills has shown.

    Attributes
    ----------
    kills
        How often the program was killed.
    done
        How many things it had reported as done before.
    lost
        What of that was not there, or not whole, afterwards.
    seconds
        How long the series took.
    """

    kills: int = 0
    done: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def check(self, what: str, sound: Callable[..., bool]) -> None:
        """Count one thing that was reported as done, and note it if it is not sound."""
        self.done += 1
        try:
            if not sound():
                self.lost.append(what)
        except (PtychostreamError, OSError, ValueError, KeyError) as error:
            self.lost.append(f"{what}: {error}")


class Place:
    """A folder, an environment on loopback, and chance.

    Parameters
    ----------
    folder
        For files and logs.
    seed
        Decides when programs are killed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        ca, pva = free_ports(2)
        self.environment = loopback_environment([ca], pva)
        self._lives = 0

    def victim(self, module: str, words: Sequence[str], **more: str) -> Victim:
        """Start `python -m module words…`, which may be killed."""
        self._lives += 1
        log = self.folder / f"{self._lives:03}-{words[0] if words else module.rpartition('.')[2]}.log"
        return Victim(module, list(words), log, {**self.environment, **more})

    def detector(self) -> Victim:
        """Start the detector."""
        return self.victim("ptychostream.benchmarks.kills.detector", [CHANNEL])

    def pvs(self) -> Pvs:
        """The records of the IOC."""
        return Pvs(PREFIX, self.environment)

    def wait(self, condition: Callable[..., Any], child: Victim, timeout_s: float, what: str) -> None:
        """Wait until the condition is true. Raises StreamError when the child ends, or after the time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not child.running():
                raise child.failure()
            if time.monotonic() > deadline:
                raise StreamError(
                    f"not within {timeout_s:.0f} s: {what}", where=str(child.log_path), remedy="see that log"
                )
            time.sleep(_POLL_S)

    def live_and_die(
        self, child: Victim, least_s: float, most_s: float, look: Callable[[], None] = lambda: None
    ) -> None:
        """Let the child live for a while, look at it now and then, and kill it."""
        end = time.monotonic() + self.chance.uniform(least_s, most_s)
        while time.monotonic() < end and child.running():
            look()
            time.sleep(_POLL_S)
        if not child.running():
            raise child.failure()
        child.send(signal.SIGKILL)
