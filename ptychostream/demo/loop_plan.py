"""The plan of the loop: its scans, samples and training. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True)
class Stage:
    """Scans of one kind of sample, each at another place: at least `least`, at most `most`.

    Attributes
    ----------
    until
        "judged": the stage ends when the live network is within tolerance. "suspended": when the policy is suspended.
    """

    sample: str
    least: int
    most: int
    until: str


@dataclass(frozen=True)
class LoopPlan:
    """The plan of the loop, for frames of 64×64 pixels on two cores.

    Attributes
    ----------
    stages
        The stages in order. With `endless` the first follows the last.
    rest
        Number of scans after the policy is suspended, to show that the agent skips them.
    frames, step_nm, rate_hz, size
        Frames, step, rate and frame size of a scan.
    seed
        Seed of the first scan's place on the sample. Each scan has the next seed.
    tolerance, scans, interval_s
        Settings of the policy, which an operator writes to the edge's records.
    iterations
        Iterations of ePIE.
    epochs, learning_rate, training_limit_s
        Settings of a training. On a slow machine the schedule is shortened to the limit.
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
    """Whether a stage ends after `taken` scans. `within`: the last scan was judged and is within tolerance."""
    if taken < stage.least:
        return False
    return taken >= stage.most or (within and (suspended or stage.until == "judged"))
