"""One IOC as the page shows it: its records, images, events, history, and the places where frames were taken."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ptychostream.web.catalog import Entry
from ptychostream.web.events import Events
from ptychostream.web.history import History
from ptychostream.web.images.image_feed import ImageFeed
from ptychostream.web.images.image_watch import ImageWatch
from ptychostream.web.readings import DISCONNECTED, Reading
from ptychostream.web.record_watch import RecordWatch

MOST_PLACES = 4000
"""Places that are kept of one scan."""
_CLOCKS = frozenset({"health"})
"""Groups whose texts and choices change without anything happening, such as the time of day."""


class IocView:
    """Everything that the page shows of one IOC.

    Parameters
    ----------
    prefix
        Of its records.
    entries
        The catalogue of records, by name.
    extra
        Further channels with images.
    on_image
        Called after each image, in a thread of the subscription.
    """

    def __init__(
        self,
        prefix: str,
        entries: Mapping[str, Entry],
        extra: Sequence[str],
        on_image: Callable[[], None],
    ) -> None:
        self.prefix = prefix
        self.entries = entries
        self.events = Events()
        self.history = History(name for name, entry in entries.items() if entry.number)
        self.records = RecordWatch(prefix, entries, self._changed, self._connected)
        self._extra = tuple(extra)
        self._on_image = on_image
        self._images: dict[str, ImageWatch] = {}
        self._places: deque[tuple[int, float, float, int]] = deque(maxlen=MOST_PLACES)
        self._place = 0
        self._placed_scan: object = None

    def image_names(self) -> tuple[str, ...]:
        """Names of the images that can be shown now."""
        return (*self.records.images, *self._extra)

    def image(self, name: str) -> ImageWatch | None:
        """The subscription to an image; None: there is none with this name."""
        if name not in self.image_names():
            return None
        if name not in self._images:
            channel = name if name in self._extra else f"{self.prefix}{name}"
            self._images[name] = ImageWatch(self.prefix, name, channel, self._took)
        return self._images[name]

    def waits_for(self) -> str:
        """What keeps this IOC from being shown, in words; empty: nothing."""
        if not self.records.connected:
            searched = os.environ.get("EPICS_PVA_ADDR_LIST", "") or "the local network"
            return f"no IOC answers to {self.prefix}HEARTBEAT over PV Access (searched {searched})"
        return "" if self.image_names() else "the IOC has not told which images it serves"

    def places_since(self, number: int) -> list[tuple[int, float, float, int]]:
        """(number, x, y in metres, id of the frame) of patches of this scan that were seen after `number`."""
        if number >= self._place:
            return []
        return [place for place in list(self._places) if place[0] > number]

    @property
    def first_place(self) -> int:
        """The number of this scan's first place."""
        return self._places[0][0] if self._places else self._place + 1

    def sample(self) -> None:
        """Add a sample to the history. To be called once a second."""
        readings = self.records.readings()
        there = {name: one.value for name, one in readings.items() if one.severity < DISCONNECTED}
        self.history.sample(time.time(), there)

    def tidy(self) -> None:
        """Close what nobody needs. It may take some seconds."""
        self.records.tidy()
        for watch in list(self._images.values()):
            watch.tidy()

    def stop(self) -> None:
        """End all subscriptions."""
        self.records.stop()
        for watch in self._images.values():
            watch.close()

    def _took(self, feed: ImageFeed) -> None:
        picture = feed.picture
        assert picture is not None
        x, y = picture.attributes.get("PositionX"), picture.attributes.get("PositionY")
        if isinstance(x, float) and isinstance(y, float) and picture.number > 0:
            scan = picture.attributes.get("ScanID")
            if scan != self._placed_scan:
                self._placed_scan = scan
                self._places.clear()
            self._place += 1
            frame = picture.attributes.get("LastFrameId")
            self._places.append((self._place, x, y, frame if isinstance(frame, int) else self._place))
        self._on_image()

    def _connected(self, there: bool) -> None:
        text, severity = ("the IOC answers", 0) if there else ("the IOC does not answer", DISCONNECTED)
        self.events.add(time.time(), "", "", text, severity)

    def _changed(self, name: str, before: Reading | None, after: Reading) -> None:
        entry = self.entries[name]
        if before is None:
            return
        quiet = entry.number or entry.group in _CLOCKS
        same = _without_counts(entry, before) == _without_counts(entry, after)
        text = "" if quiet or same else str(after.value).partition("\n")[0]
        if before.trouble != after.trouble and before.severity < DISCONNECTED:
            alarm = after.alarm.lower() if after.trouble else "alarm over"
            value = f"{after.value:.4g}" if isinstance(after.value, float) else str(after.value)
            text = f"{value} {after.units}".strip() + f" ({alarm})"
        if text:
            self.events.add(after.time_s or time.time(), name, entry.group, text, after.trouble)


def _without_counts(entry: Entry, reading: Reading) -> str:
    """A value as a text; of a long text without its numbers, which may count all the time."""
    text = str(reading.value)
    return re.sub(r"[\d.,]+", "0", text) if entry.kind == "waveform" else text
