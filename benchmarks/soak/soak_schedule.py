"""The order of the faults: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ptychostream.benchmarks.soak.soak_faults import Fault

RESTARTS = "IOC killed"
"""This fault ends the process whose memory is measured, so it occurs only in the first cycle and at the soak's end."""


def schedule(faults: Sequence[Fault], seed: int) -> Iterator[Fault | None]:
    """Cycles of all faults, each in a new random order. Each cycle starts with a round without fault (None).

    The fault that ends the IOC is the first of the first cycle, and is not in the others.
    """
    choose = random.Random(seed)
    others = [one for one in faults if one.name != RESTARTS]
    yield None
    yield from (one for one in faults if one.name == RESTARTS)
    while True:
        yield from choose.sample(others, len(others))
        yield None
