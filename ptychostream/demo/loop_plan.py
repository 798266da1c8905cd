"""How much of everything the loop shows, and how the simulated session is laid out. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True)
class Stage:
    """Scans of one kind of sample, each on a place of its own: at least `least` of them, at most `most`.

    Attributes
    ----------
    until
        "judged": the stage ends when the live network is within tolerance; "suspended": when the policy rests.
    """

    sample: str
    least: int
    most: int
    until: str


@dataclass(frozen=True)
class LoopPlan:
    """The session. 64×64 frames on two cores.

    Attributes
    ----------
    stages
        One after the other; `endless` begins again with the first after the last.
    rest
        Scans that are taken once the policy is suspended, to show that they are passed over.
    frames, step_nm, rate_hz, size
        Of a scan.
    seed
        Of the first scan's place on the sample; each scan has the next.
    tolerance, scans, interval_s
        The policy's, as an operator writes them to the edge's records.
    iterations
        Of ePIE.
    epochs, learning_rate, training_limit_s
        Of a training; the schedule is hurried through in that time on a slow machine.
    """

    stages: tuple[Stage, ...]
    endless: bool = False
    rest: int = 1
    frames: int = 400
    step_nm: float = 80.0
    rate_hz: float = 200.0
    size: int = 64
    seed: int = 20
    tolerance: float = 0.25
    scans: int = 2
    interval_s: float = 60.0
    iterations: int = 20
    epochs: int = 8
    learning_rate: float = 2e-3
    training_limit_s: float = 10.0

    def each(self) -> Iterator[Stage]:
        """The stages in order."""
        return iter(cycle(self.stages) if self.endless else self.stages)


def stage_over(stage: Stage, taken: int, within: bool, suspended: bool) -> bool:
    """Whether a stage ends after so many scans; `within`: the last of them was judged, and is within tolerance."""
    if taken < stage.least:
        return False
    return taken >= stage.most or (within and (suspended or stage.until == "judged"))
