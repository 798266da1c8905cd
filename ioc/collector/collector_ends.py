"""Ends of scans in a cluster: a consumer has had a scan's last frame; an end that was ordered is reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ptychostream.ioc.collector.collector_accounts import Consumer, ConsumerAccounts, Group

log = logging.getLogger(__name__)

_END_S = 60.0


@dataclass(eq=False)
class End:
    """An end that was ordered.

    Attributes
    ----------
    group
        The run that ends.
    number
        Of the order.
    deadline
        When it counts as reached in any case, monotonic s.
    done
        Gets the number of patches on the canvas.
    """

    group: Group
    number: int
    deadline: float
    done: Future[int]


class ClusterEnds:
    """Keeps the ends that were ordered and are not reached. The collector calls it under its lock.

    Parameters
    ----------
    settle_s
        How long ids that are missing are waited for after the last frame came.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: list[End] = []
        self._announced: Group | None = None

    def wait(self, group: Group, number: int) -> Future[int]:
        """Wait for the end of `group` that order `number` tells the consumers."""
        done: Future[int] = Future()
        done.set_running_or_notify_cancel()
        self._waiting.append(End(group, number, time.monotonic() + _END_S, done))
        return done

    def announce(self, accounts: ConsumerAccounts, live: Sequence[Consumer]) -> str | None:
        """The current scan's id, once, when a consumer has had its last frame."""
        group = accounts.current
        if group is None or group is self._announced or group.ended:
            return None
        for consumer in live:
            report = consumer.latest
            if report.saw_end == group.scan and (consumer.instance, report.run.number) in group.shares:
                self._announced = group
                return group.scan
        return None

    def reached(self, accounts: ConsumerAccounts, live: Sequence[Consumer], session: str, now: float) -> list[End]:
        """The ends that are reached: every live consumer has finished the scan and reported its canvas.

        Parameters
        ----------
        session
            Of the collector's orders.
        """
        reached = []
        for end in self._waiting:
            group = end.group
            out = all(
                consumer.state is not None
                and consumer.state.session == session
                and consumer.state.drained >= end.number
                for consumer in live
            )
            quiet = now - group.changed > self._settle_s
            if (out and (quiet or _complete(accounts, group))) or now > end.deadline or group is not accounts.current:
                if not out and now > end.deadline:
                    log.warning("scan %s: a consumer did not report its end within %.0f s", group.scan, _END_S)
                reached.append(end)
        self._waiting = [end for end in self._waiting if end not in reached]
        return reached


def _complete(accounts: ConsumerAccounts, group: Group) -> bool:
    """Whether no frame id up to the highest is missing."""
    group.settled = True  # ids up to the highest, not to where the slowest consumer is
    complete = accounts.missed_of(group, time.monotonic()) == 0
    group.settled = False
    return complete
