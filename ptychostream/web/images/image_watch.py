"""Subscriptions to images, each open only while somebody looks: an IOC need not make an image that nobody sees."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ptychostream.errors import PtychostreamError
from ptychostream.pva.channel_reader import ChannelReader
from ptychostream.web.images.image_feed import ImageFeed
from ptychostream.web.images.picture import FIELDS, picture_of

log = logging.getLogger(__name__)

KEEP_S = 15.0
"""A subscription is kept so long after the last one who looked."""


class ImageWatch:
    """The subscription to one image.

    Parameters
    ----------
    ioc, name
        Prefix and name; the channel is both together.
    channel
        The channel.
    on_image
        Called after each image, in the subscription's thread.

    Attributes
    ----------
    feed
        The images.
    failure
        Why the newest update was no image; empty: it was one.
    """

    def __init__(self, ioc: str, name: str, channel: str, on_image: Callable[[ImageFeed], None]) -> None:
        self.feed = ImageFeed(ioc, name)
        self.channel = channel
        self.failure = ""
        self._on_image = on_image
        self._reader: ChannelReader | None = None
        self._lock = threading.Lock()
        self._wanted_s = float("-inf")

    @property
    def open(self) -> bool:
        """Whether the subscription is open."""
        return self._reader is not None

    @property
    def waits_for(self) -> str:
        """What keeps it from showing an image, in words; empty: nothing."""
        if self.failure:
            return self.failure
        reader = self._reader
        if reader is None:
            return "" if self.feed.picture is not None else "nobody looks at it"
        if not reader.connected:
            return reader.refusal or f"no server has {self.channel}"
        return "" if self.feed.picture is not None else "no image yet"

    def want(self) -> None:
        """Somebody looks now. Opens the subscription; to be called again while they look."""
        self._wanted_s = time.monotonic()
        with self._lock:
            if self._reader is None:
                self._reader = ChannelReader(
                    self.channel, FIELDS, 2, self._take, lambda _: None, name=f"web {self.channel}"
                )
                self._reader.start()

    def tidy(self) -> None:
        """Close the subscription if nobody looks any more. It may take some seconds."""
        if time.monotonic() - self._wanted_s > KEEP_S:
            self.close()

    def close(self) -> None:
        """Close the subscription."""
        with self._lock:
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()

    def _take(self, updates: Sequence[Any]) -> None:
        """The newest update; earlier ones are passed over."""
        try:
            picture = picture_of(updates[-1], self.channel)
            if picture is None:
                return
            self.feed.take(picture)
            self.failure = ""
        except PtychostreamError as error:
            if str(error) != self.failure:
                log.warning("%s", error)
            self.failure = str(error)
            return
        self._on_image(self.feed)
