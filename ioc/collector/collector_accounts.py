"""What the consumers of a cluster have reported, added up. Passive: no thread, no clock, no lock.

When a consumer dies, only its last *state* (a report with a canvas) counts. Frames that it received later are in no
consumer's set of ids and count as missed. Frames that it held at that time are lost; they count as missed too, unless
another consumer has stitched them. A state with a frame that another canvas holds is not taken (`collector_recalls`).
So at every moment

    received = stitched + pending + Σ dropped     over the consumers, and
    frame ids from the first to the last = received by a consumer + missed     within a scan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ptychostream.errors import DropCause
from ptychostream.cluster.id_set import IdSet, union
from ptychostream.ioc.collector.collector_recalls import Recalls
from ptychostream.plugins.consumer.consumer_report import Report, RunReport
from ptychostream.plugins.flow.figures import counted, figures
from ptychostream.imaging.stitching import CanvasState

KEPT_GROUPS = 8


@dataclass(eq=False)
class Consumer:
    """One process of a consumer.

    Attributes
    ----------
    number, instance
        Number of the consumer, and name of this process.
    latest
        Its newest report of any kind.
    state
        Its newest report with a canvas, which still counts when the process has died.
    heard
        Time of its last report, monotonic s.
    replaced
        Another process reports in its place.
    """

    number: int
    instance: str
    latest: Report
    state: Report | None = None
    heard: float = 0.0
    replaced: bool = False


@dataclass(eq=False)
class Share:
    """The part of a run that one consumer has: its report, from the message of number `sequence`."""

    sequence: int
    run: RunReport


@dataclass(eq=False)
class Group:
    """A run of a scan, over all consumers.

    Attributes
    ----------
    shares
        By instance and the consumer's own number of the run.
    number
        Number of the run in the collector; 0 before the collector has given one.
    ended, settled
        Whether all consumers were told that it is over; whether every frame has been reported.
    changed
        When a share last had more frames, monotonic s.
    stale
        Whether a share has changed since the canvases were last added up; the caller that adds them up clears it.
    """

    scan: str
    shares: dict[tuple[str, int], Share] = field(default_factory=dict)
    number: int = 0
    ended: bool = False
    settled: bool = False
    changed: float = 0.0
    stale: bool = True

    @property
    def began(self) -> float:
        """Acquisition time of its first frame."""
        return min((share.run.began for share in self.shares.values() if share.run.began), default=0.0)

    @property
    def latest(self) -> float:
        """Acquisition time of its latest frame."""
        return max((share.run.latest for share in self.shares.values()), default=0.0)

    def canvases(self) -> list[CanvasState]:
        """The canvases to be added up."""
        return [share.run.canvas for share in self.shares.values() if share.run.canvas is not None]

    def pending(self, live: Collection[str]) -> int:
        """Frames of this run that live consumers (by instance) hold, or have not reported on a canvas yet."""
        return sum(
            share.run.received - share.run.stitched - sum(share.run.dropped.values())
            for (instance, _), share in self.shares.items()
            if instance in live
        )

    @property
    def dropped(self) -> dict[DropCause, int]:
        shares = self.shares.values()
        return {cause: sum(share.run.dropped.get(cause, 0) for share in shares) for cause in DropCause}

    @property
    def patches(self) -> int:
        """Frames on the canvases."""
        return sum(canvas.patches for canvas in self.canvases())


@dataclass(frozen=True)
class Sums:
    """The terms of the law, over the consumers; `lost`: frames that dead consumers held; `counts`: by figure."""

    received: int = 0
    stitched: int = 0
    pending: int = 0
    dropped: dict[DropCause, int] = field(default_factory=lambda: dict.fromkeys(DropCause, 0))
    lost: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def plus(self, other: Sums) -> Sums:
        return Sums(
            self.received + other.received,
            self.stitched + other.stitched,
            self.pending + other.pending,
            {cause: self.dropped[cause] + other.dropped.get(cause, 0) for cause in DropCause},
            self.lost + other.lost,
            self.counts + other.counts,
        )


class ConsumerAccounts:
    """Takes the reports of the consumers, and adds them up.

    Parameters
    ----------
    numbers
        Numbers of the configured consumers.
    dead_after_s
        Silence after which a consumer counts as dead.
    """

    def __init__(self, numbers: Iterable[int], dead_after_s: float) -> None:
        self.numbers = tuple(numbers)
        self.restarts = 0
        self.groups: list[Group] = []  # oldest first
        self.recalls = Recalls()
        self._dead_after_s = dead_after_s
        self._consumers: dict[str, Consumer] = {}
        self._newest: dict[int, Consumer] = {}
        self._connected: dict[int, bool] = {}
        self._folded = Sums()  # of processes whose scans are forgotten
        self._folded_missed = 0
        self._folded_twice = 0

    # What comes in

    def connect(self, number: int, connected: bool) -> None:
        """Note that a consumer's channel has connected or disconnected."""
        self._connected[number] = connected

    def take(self, report: Report, now: float, first_resets: int = 0) -> Group | None:
        """Take a report.

        Parameters
        ----------
        report
            A report from any channel.
        now
            Monotonic s.
        first_resets
            States from before this reset of the canvas are not wanted.

        Returns
        -------
        Group
            The run of the canvas in the report; None where the report has no canvas that is taken.
        """
        consumer = self._consumer(report)
        if consumer is None:
            return None
        consumer.heard = now
        if report.sequence > consumer.latest.sequence or report is consumer.latest:
            consumer.latest = report
        run = report.run
        if run.ids is None:
            return None
        group, key = None, (consumer.instance, run.number)
        if run.number and run.received and report.resets >= first_resets:
            group = self._group(consumer.instance, run)
            if not self.recalls.admits(report, group, self._laid(group, but=key)):
                return None
        if consumer.state is None or report.sequence > consumer.state.sequence:
            consumer.state = report
        if group is None:
            return None
        share = group.shares.get(key)
        if share is None or report.sequence > share.sequence:
            if share is None or share.run.received != run.received:
                group.changed = now
            group.shares[key] = Share(report.sequence, run)
            group.stale = True
        return group if group in self.groups else None

    def empty(self) -> None:
        """Forget the canvases of the newest scan: its canvas begins anew."""
        if self.groups:
            self.groups[-1].shares.clear()
            self.groups[-1].stale = True

    # What goes out

    @property
    def current(self) -> Group | None:
        """The newest run of a scan; None before any."""
        return self.groups[-1] if self.groups else None

    def is_live(self, consumer: Consumer, now: float) -> bool:
        """Whether this process of a consumer still reports."""
        return (
            not consumer.replaced
            and self._connected.get(consumer.number, False)
            and now - consumer.heard <= self._dead_after_s
        )

    def live(self, now: float) -> list[Consumer]:
        """The consumers that report, by number."""
        return [one for _, one in sorted(self._newest.items()) if self.is_live(one, now)]

    def newest(self, number: int) -> Consumer | None:
        """The process of a consumer that reported last."""
        return self._newest.get(number)

    def sums(self, now: float) -> Sums:
        """The law's terms: live consumers as they say now, dead ones as they last said in full."""
        total = self._folded
        for consumer in self._consumers.values():
            total = total.plus(self._sums_of(consumer, self.is_live(consumer, now)))
        return total

    def missed(self, now: float) -> int:
        """Frame ids of all scans that no consumer has had; those that may still be reported are not counted yet.

        Less those that a consumer held when it died and another one stitched: they are among the lost of `sums`.
        """
        live = {consumer.instance for consumer in self.live(now)}
        return self._folded_missed + sum(self.missed_of(g, now) - self._rescued(g, live) for g in self.groups)

    def missed_of(self, group: Group, now: float) -> int:
        """Frame ids of one run that no consumer has had."""
        ids, _ = union(self._id_sets(group))
        first = ids.lowest
        if first is None:
            return 0
        horizon = self._horizon(group, ids, now)
        return max(0, horizon - first + 1 - ids.up_to(horizon))

    def twice(self) -> int:
        """Frames that two consumers' canvases hold: those that could not be taken back."""
        return self._folded_twice + sum(union(self._laid(group))[1] for group in self.groups)

    # Inside

    def _consumer(self, report: Report) -> Consumer | None:
        known = self._consumers.get(report.instance)
        if known is not None:
            return None if known.replaced else known
        consumer = Consumer(report.consumer, report.instance, report)
        before = self._newest.get(report.consumer)
        if before is not None:
            before.replaced = True
            self.restarts += 1
        self._consumers[report.instance] = self._newest[report.consumer] = consumer
        return consumer

    def _group(self, instance: str, run: RunReport) -> Group:
        """The group that a consumer's run belongs to: that of its scan id, in whose time its frames were taken.

        A scan that comes twice under one id is two: no consumer has two runs in one group.
        """
        key = (instance, run.number)
        same = [group for group in self.groups if group.scan == run.scan]
        for group in same:
            if key in group.shares:
                return group
        if same:
            group = same[-1]
            mine = [number for owner, number in group.shares if owner == instance]
            if not mine or run.number < max(mine):
                return group if run.latest >= group.began or len(same) == 1 else same[-2]
        group = Group(run.scan)
        if self.groups and run.began < self.groups[-1].began:
            return group  # a scan from before what is known: not brought back
        self.groups.append(group)
        while len(self.groups) > KEPT_GROUPS:
            self._fold(self.groups.pop(0))
        return group

    def _fold(self, group: Group) -> None:
        """Forget a run but keep its figures; also forget replaced processes that have no other run."""
        ids, _ = union(self._id_sets(group))
        first, last = ids.lowest, ids.highest
        if first is not None and last is not None:
            self._folded_missed += last - first + 1 - len(ids)
        self._folded_missed -= self._rescued(group, ())
        self._folded_twice += union(self._laid(group))[1]
        self.recalls.forget(group)
        held = {instance for kept in self.groups for instance, _ in kept.shares}
        for consumer in [one for one in self._consumers.values() if one.replaced and one.instance not in held]:
            self._folded = self._folded.plus(self._sums_of(consumer, live=False))
            del self._consumers[consumer.instance]
            self.recalls.forget_instance(consumer.instance)

    def _id_sets(self, group: Group) -> list[IdSet]:
        return [share.run.ids for share in group.shares.values() if share.run.ids is not None]

    def _laid(self, group: Group, but: tuple[str, int] | None = None) -> list[IdSet]:
        """Ids of the frames on each canvas, but for one consumer's."""
        return [share.run.laid for key, share in group.shares.items() if share.run.laid is not None and key != but]

    def _rescued(self, group: Group, live: Collection[str]) -> int:
        """Frames that a consumer held when it died, and that the distributor repeated to one that stitched them."""
        rescued = 0
        for key, share in group.shares.items():
            held = share.run.received - share.run.stitched - sum(share.run.dropped.values())
            if held and key[0] not in live and share.run.ids is not None:
                elsewhere, _ = union(self._laid(group, but=key))
                rescued += min(held, len(share.run.ids.common(elsewhere)))
        return rescued

    def _horizon(self, group: Group, ids: IdSet, now: float) -> int:
        """The highest frame id up to which every consumer has reported; missing ids beyond it may still come."""
        highest = ids.highest
        assert highest is not None
        if group is not self.current or group.settled:
            return highest
        live = {consumer.instance for consumer in self.live(now)}
        reached = [
            last
            for (instance, _), share in group.shares.items()
            if instance in live and share.run.ids is not None and (last := share.run.ids.highest) is not None
        ]
        return min(reached, default=highest)

    @staticmethod
    def _sums_of(consumer: Consumer, live: bool) -> Sums:
        report = consumer.latest if live else consumer.state
        if report is None:
            return Sums()
        dropped = dict(report.dropped)
        known = figures(type(report)).items()
        counts = Counter({name: getattr(report, name) for name, (_, one) in known if one.over_consumers is counted})
        if live:
            return Sums(report.received, report.stitched, report.pending, dropped, 0, counts)
        kept = report.stitched + report.all_dropped
        return Sums(kept, report.stitched, 0, dropped, report.received - kept, counts)
