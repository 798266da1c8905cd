"""The image that a server held before anybody subscribed: it is the past, unless its scan goes on.

A PVA plugin keeps its last image for ever, and gives it to every new subscriber as the first update. That image may be
of last week's scan. The one rule for the IOC, the consumers of a cluster and the recorder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

_PAUSE_S = 5.0
"""Frames without a scan id that are further apart are of two acquisitions."""
_HALF = 1 << 31

T = TypeVar("T")


class Seen(NamedTuple):
    """What identifies a frame.

    Attributes
    ----------
    scan
        Scan id; empty where the stream names none.
    raw_id
        Id as it was sent.
    time
        Acquisition time, s since the POSIX epoch; 0 where the stream gives none.
    flag
        Whether its end attribute is up; None where it has none.
    """

    scan: str
    raw_id: int
    time: float
    flag: bool | None = None


class HeldImages(Generic[T]):
    """Lets the frames of one channel pass, but for the image that the server held at the subscription.

    Every server gives a new subscriber what it holds. So the first update was there before the subscription, whatever
    the two clocks say. It is kept back until the next frame: if that is a later one of the same scan, both pass; if
    not, the first one is dropped. A first image that continues the scan of the last frame before a disconnection passes
    at once. Frames without a scan id are of the same scan if they are at most 5 s apart.

    Attributes
    ----------
    count
        Images that were dropped, the one that is kept back included.
    """

    def __init__(self) -> None:
        self._dropped = 0
        self._first = True  # the next update is the first one of a subscription
        self._held: tuple[T, Seen] | None = None
        self._last: Seen | None = None  # the last frame that passed

    @property
    def count(self) -> int:
        return self._dropped + (self._held is not None)

    def subscribed(self) -> None:
        """A subscription begins: the next update is its first one."""
        self._dropped += self._held is not None
        self._held, self._first = None, True

    def empty(self) -> None:
        """An update without an image, or with one that cannot be read, came: no image is kept back."""
        self._first = False

    @property
    def held(self) -> Seen | None:
        """The image that is kept back; None: there is none."""
        return self._held[1] if self._held is not None else None

    @property
    def image(self) -> T | None:
        """The same image, as it was given to `take`."""
        return self._held[0] if self._held is not None else None

    def restart_count(self) -> None:
        """Count from zero."""
        self._dropped = 0

    def take(self, frame: T, seen: Seen) -> Sequence[T]:
        """The frames to go on with, in order, now that `frame` has come."""
        if not self._first and self._held is None:  # nearly always
            self._last = seen
            return (frame,)
        passes: Sequence[T] = (frame,)
        if self._held is not None:
            held, before = self._held
            if _same(before, seen):
                return ()
            if _goes_on(before, seen):
                passes = (held, frame)
            else:
                self._dropped += 1
        elif self._last is not None and _same(self._last, seen):
            self._first = False
            self._dropped += 1
            return ()
        elif self._last is None or not _goes_on(self._last, seen):
            self._held, self._first = (frame, seen), False
            return ()
        self._held, self._first, self._last = None, False, seen
        return passes


def _same(a: Seen, b: Seen) -> bool:
    return (a.raw_id, a.time, a.scan) == (b.raw_id, b.time, b.scan)


def _goes_on(before: Seen, after: Seen) -> bool:
    """Whether `after` is a later frame of the acquisition that `before` is of."""
    step = (after.raw_id - before.raw_id + _HALF) % (2 * _HALF) - _HALF
    over = before.flag is True and after.flag is False
    near = not (before.time and after.time) or abs(after.time - before.time) <= _PAUSE_S
    return step > 0 and after.scan == before.scan and not over and (bool(after.scan) or near)
