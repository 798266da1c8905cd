"""The faults of the soak: how each begins, how it ends, and the checks while it lasts."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from ptychostream.benchmarks.soak.soak_journal import Mark, Place
from ptychostream.benchmarks.soak.soak_stage import Figures, Stage

CLOCK_STEP_S = 3600.0
SPARE_BYTES = 96 << 20
"""Memory that a limited process may still allocate: enough to continue, too little for the requested canvas."""
FLUSH_S = 0.5
UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Moment:
    """The state when a fault began: the IOC's figures, and the images of the two clients."""

    figures: Figures
    images: int


Act = Callable[[Stage, random.Random], None]
Check = Callable[[Stage, Moment], list[str]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes
    ----------
    name
        Name in the report.
    what
        Description of the fault.
    strike, heal
        Begin and end the fault.
    check
        Called at the end, before `heal`. Returns the violations while the fault lasted.
    hold_s
        Shortest and longest duration.
    stops
        Whether the stream stops while the fault lasts.
    unseen
        Whether frames may be lost without a gap in the ids.
    """

    name: str
    what: str
    strike: Act
    heal: Act
    check: Check
    hold_s: tuple[float, float] = (2.0, 4.0)
    stops: bool = False
    unseen: bool = False


# ------------------------------------------------------------ checks


def _nothing(_stage: Stage, _before: Moment) -> list[str]:
    return []


def _streams_on(stage: Stage, before: Moment) -> list[str]:
    """Check that the stream continues: frames are stitched, and the image client gets images."""
    complaints = []
    if stage.figures().stitched <= before.figures.stitched:
        complaints.append("nothing was stitched while it lasted")
    if stage.image_client.latest().get("images", 0) <= before.images:
        complaints.append("the image client got no image while it lasted")
    return complaints


def _drops(cause: str) -> Check:
    def check(stage: Stage, before: Moment) -> list[str]:
        dropped = stage.figures().dropped[cause] - before.figures.dropped[cause]
        return [] if dropped > 0 else [f"no frame was dropped as {cause}"]

    return check


def _memory_refused(stage: Stage, before: Moment) -> list[str]:
    now = stage.figures()
    grown = sum(now.dropped.values()) - sum(before.figures.dropped.values())
    return [] if grown > 0 else ["the canvas grew beyond the memory limit"]


def _autosave_alarms(stage: Stage, before: Moment) -> list[str]:
    complaints = _streams_on(stage, before)
    if int(stage.pvs.get("AutosaveStatus_RBV")[0]) == 0:
        complaints.append("AutosaveStatus_RBV does not tell that the disk is full")
    return complaints


# ------------------------------------------------------------ actions


def _kill_detector(stage: Stage, _random: random.Random) -> None:
    stage.source.send(signal.SIGKILL)


def _restart_detector(stage: Stage, _random: random.Random) -> None:
    stage.source.stop()
    stage.start_source()
    stage.source.hear("ready", 60.0, stage.ioc)
    stage.begin_scan()


def _kill_ioc(stage: Stage, _random: random.Random) -> None:
    stage.ioc.send(signal.SIGKILL)


def _restart_ioc(stage: Stage, _random: random.Random) -> None:
    stage.ioc.stop()
    stage.start_ioc()


def _step_ioc_clock(stage: Stage, choose: random.Random) -> None:
    assert stage.clock is not None
    stage.clock.offset_s = choose.choice((-1, 1)) * choose.uniform(1, 3) * CLOCK_STEP_S


def _mend_ioc_clock(stage: Stage, _random: random.Random) -> None:
    assert stage.clock is not None
    stage.clock.offset_s = 0.0


def _step_detector_clock(stage: Stage, choose: random.Random) -> None:
    stage.journal.clock_ns = round(choose.choice((-1, 1)) * choose.uniform(1, 3) * CLOCK_STEP_S * 1e9)


def _mend_detector_clock(stage: Stage, _random: random.Random) -> None:
    stage.journal.clock_ns = 0


def _marks(mark: Mark) -> Act:
    def act(stage: Stage, _random: random.Random) -> None:
        stage.journal.mark = mark

    return act


def _places(place: Place) -> Act:
    def act(stage: Stage, _random: random.Random) -> None:
        stage.journal.place = place

    return act


def _limit_memory(stage: Stage, _random: random.Random) -> None:
    resource.prlimit(stage.ioc.pid, resource.RLIMIT_AS, (stage.ioc.memory("VmSize") + SPARE_BYTES, UNLIMITED))
    stage.journal.place = Place.BESIDE


def _lift_memory_limit(stage: Stage, _random: random.Random) -> None:
    stage.journal.place = Place.SCAN
    time.sleep(FLUSH_S)  # frames in the pipeline must still meet the limit
    stage.settle_pending()
    resource.prlimit(stage.ioc.pid, resource.RLIMIT_AS, (UNLIMITED, UNLIMITED))


def _fill_disk(stage: Stage, _random: random.Random) -> None:
    resource.prlimit(stage.ioc.pid, resource.RLIMIT_FSIZE, (0, UNLIMITED))


def _empty_disk(stage: Stage, _random: random.Random) -> None:
    resource.prlimit(stage.ioc.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))


FAULTS: tuple[Fault, ...] = (
    Fault(
        "detector killed", "SIGKILL to the detector in mid-scan; a new one serves the same channel",
        _kill_detector, _restart_detector, _nothing, stops=True, unseen=True,
    ),
    Fault(
        "network stalled", "the network forwards nothing and keeps its connections",
        lambda stage, _: stage.proxy.stall(), lambda stage, _: stage.proxy.restore(), _nothing,
        hold_s=(10.0, 10.0), stops=True,
    ),
    Fault(
        "network cut", "the network closes every connection and takes none",
        lambda stage, _: stage.proxy.cut(), lambda stage, _: stage.proxy.restore(), _nothing,
        hold_s=(10.0, 10.0), stops=True,
    ),
    Fault(
        "IOC killed", "SIGKILL to the IOC in mid-scan; a new one starts with the same command line",
        _kill_ioc, _restart_ioc, _nothing, hold_s=(1.0, 2.0), stops=True, unseen=True,
    ),
    Fault(
        "client frozen", "SIGSTOP to a client of the image",
        lambda stage, _: stage.frozen_client.send(signal.SIGSTOP),
        lambda stage, _: stage.frozen_client.send(signal.SIGCONT), _streams_on, hold_s=(6.0, 10.0),
    ),
    Fault(
        "IOC clock stepped", "the IOC's time of day jumps by one to three hours, and back",
        _step_ioc_clock, _mend_ioc_clock, _streams_on,
    ),
    Fault(
        "detector clock stepped", "the frames' time stamps jump by one to three hours, and back",
        _step_detector_clock, _mend_detector_clock, _streams_on,
    ),
    Fault(
        "engine raises once", "one frame makes the runtime raise",
        _marks(Mark.NEXT), _marks(Mark.NONE), _drops("Engine"),
    ),
    Fault(
        "engine raises always", "every frame makes the runtime raise",
        _marks(Mark.ALL), _marks(Mark.NONE), _drops("Engine"), stops=True,
    ),
    Fault(
        "runaway axis", "positions 10 cm away: more canvas than is allowed",
        _places(Place.RUNAWAY), _places(Place.SCAN), _drops("NoPosition"), stops=True,
    ),
    Fault(
        "memory limit", f"the IOC's address space is limited to {SPARE_BYTES >> 20} MiB more than it has, and a canvas "
        "of 0.6 GB is asked for",
        _limit_memory, _lift_memory_limit, _memory_refused, stops=True,
    ),
    Fault(
        "disk full", "no byte can be written to any file of the IOC's",
        _fill_disk, _empty_disk, _autosave_alarms, hold_s=(4.0, 6.0),
    ),
)  # fmt: skip


def fault(name: str) -> Fault:
    """The fault with that name."""
    return next(one for one in FAULTS if one.name == name)
