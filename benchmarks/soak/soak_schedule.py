"""Which fault comes when: a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ptychostream.benchmarks.soak.soak_faults import Fault

RESTARTS = "IOC killed"
"""It ends the process whose memory is watched: it comes in the first cycle and at the soak's end alone."""


def schedule(faults: Sequence[Fault], seed: int) -> Iterator[Fault | None]:
    """Cycles of all faults in an order drawn anew each time, with a round in peace (None) at each cycle's start.

    The fault that ends the IOC opens the first cycle and is left out of the others.
    """
    choose = random.Random(seed)
    others = [one for one in faults if one.name != RESTARTS]
    yield None
    yield from (one for one in faults if one.name == RESTARTS)
    while True:
        yield from choose.sample(others, len(others))
        yield None
