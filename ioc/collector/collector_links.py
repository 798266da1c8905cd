"""The collector's subscriptions to the three channels of every consumer, over one client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from p4p import Value
from p4p.client.thread import Context, Disconnected, Subscription

from ptychostream.errors import StreamError
from ptychostream.plugins.consumer.consumer_report import FINAL, STATUS, Report
from ptychostream.plugins.consumer.consumer_wire import read_report
from ptychostream.plugins.consumer.consumer_word import check_report

log = logging.getLogger(__name__)

_ANEW = 4  # searches, two seconds apart: not more often, see decision 11
_REQUEST = "record[queueSize=16]field()"  # several short scans may end between two looks


class Links:
    """Subscribes to the reports.

    Parameters
    ----------
    channels
        Output channel of each consumer, by its number.
    take
        Called with each report.
    connect
        Called with (number, True or False) as a consumer connects and disconnects. Both are called in threads of the
        client.
    kind
        Kind of the reports.
    key
        Reports that are not signed with it are not taken; None: all are.
    """

    def __init__(
        self,
        channels: Mapping[int, str],
        take: Callable[[Report], None],
        connect: Callable[[int, bool], None],
        kind: type[Report] = Report,
        key: bytes | None = None,
    ) -> None:
        self._key = key
        self._channels = dict(channels)
        self._take = take
        self._connect = connect
        self._kind = kind
        self._context: Context | None = None
        self._subscriptions: dict[str, Subscription] = {}  # by channel
        self._searches = 0  # since all were there
        self._up: dict[str, bool] = {}
        self._complained: dict[str, str] = {}

    @property
    def connected(self) -> int:
        """Numbers of the consumers that are connected."""
        return sum(self._up.get(f"{channel}{STATUS}", False) for channel in self._channels.values())

    def start(self) -> None:
        """Subscribe. A channel that does not exist yet is connected to when it appears."""
        self._context = Context("pva", nt=False)
        for number in self._channels:
            self._subscribe(self._context, number)

    def search(self) -> None:
        """Search for consumers that are disconnected; to be called regularly.

        The client's own searches grow rarer the longer a channel is away, and one that goes astray costs up to half a
        minute. A new subscription is searched for at once.
        """
        away = [number for number, channel in self._channels.items() if not self._up.get(f"{channel}{STATUS}", False)]
        if self._context is None or not away:
            self._searches = 0
            return
        self._searches += 1
        if self._searches % _ANEW == 0:
            for number in away:
                self._subscribe(self._context, number)
        self._context.hurryUp()

    def stop(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions.values():
            subscription.close()
        if self._context is not None:
            self._context.close()

    def _subscribe(self, context: Context, number: int) -> None:
        """Subscribe to a consumer's channels, anew where that was done before."""
        for suffix in (FINAL, "", STATUS):
            name = f"{self._channels[number]}{suffix}"
            if name in self._subscriptions:
                self._subscriptions.pop(name).close()
                context.disconnect(name)
            self._subscriptions[name] = context.monitor(
                name, partial(self._got, number, name), request=_REQUEST, notify_disconnect=True
            )

    def _got(self, number: int, name: str, update: Any) -> None:
        up = isinstance(update, Value)
        if up != self._up.get(name, False):
            self._up[name] = up
            if name.endswith(STATUS):
                log.info("consumer %d %s", number, "connected" if up else "disconnected")
                self._connect(number, up)
        if not up:
            if not isinstance(update, Disconnected):
                self._complain(name, str(update))
            return
        try:
            report = read_report(update, self._kind)
            if report is not None:
                check_report(report, self._key)
        except StreamError as error:
            self._complain(name, str(error))
            return
        if report is not None and report.consumer == number:
            self._complained.pop(name, None)
            self._take(report)
        elif report is not None:
            self._complain(name, f"says that it is consumer {report.consumer}, not {number}")

    def _complain(self, name: str, what: str) -> None:
        """Log a complaint once, not once for each report."""
        if self._complained.get(name) != what:
            self._complained[name] = what
            log.warning("%s: %s", name, what)
