"""The stream of a collector: the consumers are subscribed to the detector, not this process."""

from __future__ import annotations

import time

from ptychostream.errors import ConfigError
from ptychostream.ioc.collector.collector import Collector
from ptychostream.ioc.scan.stream import LatestFrame
from ptychostream.frames.scan_boundary import time_name


class CollectorStream:
    """Has the interface of `ptychostream.ioc.scan.stream.Stream`.

    Parameters
    ----------
    collector
        Receives the reports of the consumers.
    channel
        The channel that the consumers are subscribed to, from the configuration.
    """

    def __init__(self, collector: Collector, channel: str) -> None:
        self._collector = collector
        self._unnamed_scan = ""
        self.channel = channel
        self.attributes: tuple[str, ...] = ()
        self.enabled = True

    @property
    def connected(self) -> bool:
        """Whether any consumer reports."""
        return self._collector.cluster.live > 0

    @property
    def held_images(self) -> int:
        """Images that the server held when the consumers subscribed, and that are of no scan that goes on."""
        return self._collector.cluster.held_images

    @property
    def contradiction(self) -> tuple[str, float]:
        """What the frames of a consumer say that its model denies, and since when, s since the POSIX epoch."""
        return self._collector.cluster.contradiction

    @property
    def refusal(self) -> str:
        """Empty: the consumers are subscribed."""
        return ""

    def look(self) -> None:
        """Do nothing: there is no energy PV here."""

    def restart_counts(self) -> None:
        """Do nothing: the consumers count."""

    @property
    def latest_frame(self) -> LatestFrame:
        """The latest frame of the consumer that reported last."""
        frame = self._collector.newest.frame if self._collector.newest else None
        return LatestFrame(frame.id, (frame.height, frame.width), frame.type) if frame else LatestFrame()

    def subscribe(
        self, channel: str | None = None, attributes: tuple[str, ...] | None = None, enabled: bool | None = None
    ) -> None:
        """Raise ConfigError for any change."""
        self.attributes = attributes if attributes is not None else self.attributes
        if (channel is not None and channel.strip() != self.channel) or enabled is False:
            remedy = "change it in the cluster's configuration, and restart the consumers"
            raise ConfigError("the consumers' subscription is not changed from here", where="input", remedy=remedy)

    def stop(self) -> None:
        """Do nothing: there is no subscription here."""

    def begin_scan(self) -> str:
        """Begin a scan for the frames that name none; return its id."""
        self._unnamed_scan = time_name(time.time())
        self._collector.start_scan(self._unnamed_scan, anew=True)
        return self._unnamed_scan

    def names(self, scan: str) -> bool:
        """Whether `scan` is an id that frames carry, and not one that they were given here."""
        return scan not in ("", self._unnamed_scan)
