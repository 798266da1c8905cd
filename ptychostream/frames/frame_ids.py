"""Unwraps the detector's frame numbers, finds duplicates and counts gaps.

A detector's `uniqueId` may be an 8, 16, 24 or 32-bit counter, signed or unsigned. Frames may arrive out of order,
twice or never. The counter may be reset in the middle of a scan.
"""

from __future__ import annotations

MODULI = tuple(1 << bits for bits in (8, 16, 24, 31, 32))
"""The numbers after which detectors' counters begin anew."""
_UNSIGNED = (1 << 32) - 1
WINDOW = 1 << 16
"""How many ids below the highest one are remembered. An id that is further below means that the counter was reset."""
DISORDER = 1 << 10
"""How far below the highest id a frame may still fill a gap although its time is the latest of all."""


def edge(modulus: int) -> int:
    """How near to `modulus`, and then to zero, ids must be for a wrap. Frames may be lost or late around the wrap."""
    return min(modulus >> 4, 4096)


class FrameIds:
    """Unwraps the ids of one scan.

    Unwrapped ids never repeat. While the counter runs and wraps, they continue the counter's own numbers, so that
    the distance between two frames does not depend on their order of arrival. After a reset an unwrapped id is the
    highest id so far plus one plus the counter's value.

    Attributes
    ----------
    disordered
        Frames that were accepted below the highest id.
    resets
        How often the counter was reset.
    first
        The unwrapped id of the first accepted frame; 0 before any.

    Notes
    -----
    The rules for an id and its acquisition time:

    - Duplicate: id and time are those of an accepted frame.
    - Wrap: the id falls from within `edge` of a modulus (2⁸, 2¹⁶, 2²⁴, 2³¹, 2³²) to within `edge` of zero, and its
      time is not before the latest time.
    - Reset: an accepted id comes with another time; or the id is more than `WINDOW` below the highest; or the time is
      the latest of all and the id is below the first one or more than `DISORDER` below the highest.
    - Late frame: every other id below the highest. It fills its gap. If it was taken before the last wrap or reset,
      and is nearer to those ids, it is counted there. If the very first frame came after a wrap, frames from before
      that wrap get negative ids.

    Memory is bounded: the times of the last `WINDOW` ids are kept. A counter that is reset just below a modulus
    looks like a wrap; its ids still never repeat.
    """

    def __init__(self) -> None:
        self.disordered = 0
        self.resets = 0
        self.first = 0
        self._accepted = 0
        # Unwrapped ids of frames that came and could not be used: above the highest id, and below it.
        self._unusable_ahead: set[int] = set()
        self._unusable: dict[int, None] = {}
        self._unusable_below = 0
        self._times: dict[int, float] = {}  # by unwrapped id
        self._high = -1
        self._latest = 0.0
        self._skipped = 0  # unwrapped ids up to the highest one that belong to no frame
        # Since the last reset: the unwrapped id of the counter's zero (wraps move it), the lowest possible id, the
        # lowest id seen.
        self._base = self._floor = self._low = 0
        # The last wrap or reset: its time, the counter's zero before it, the lowest id that a late frame may have.
        self._since: float | None = None
        self._base_before = self._low_before = 0

    @property
    def missed(self) -> int:
        """How many ids between the first and the highest one belong to no frame that came so far."""
        return self._high + 1 - self._accepted - self._skipped - self._unusable_below

    def accept(self, raw_id: int, time: float) -> int | None:
        """Returns the unwrapped id of a frame, or None if the frame is a duplicate.

        Parameters
        ----------
        raw_id
            The id as it was sent. It is negative if a signed 32-bit counter has passed 2³¹.
        time
            Acquisition time, s.
        """
        raw = raw_id & _UNSIGNED
        if not self._accepted:
            return self._begin(raw, time)
        unwrapped = self._base + raw
        if self._since is not None and time < self._since:
            before = self._base_before + raw
            if self._times.get(before) == time:
                return None
            if self._is_straggler(before, unwrapped):
                unwrapped = before
        elif unwrapped > self._high:
            if time < self._latest:
                unwrapped -= self._wrapped_before_the_start(raw)
        elif time >= self._latest and self._wrap(raw, time):
            unwrapped = self._base + raw
        if unwrapped > self._high:
            self._unusable_ahead.discard(unwrapped)
            self._advance(unwrapped)
        else:
            known = self._times.get(unwrapped)
            if known == time:
                return None
            if known is not None or self._is_reset(unwrapped, time):
                self._reset(time)
                return self._begin(raw, time)
            self.disordered += 1
            if unwrapped in self._unusable:
                del self._unusable[unwrapped]
                self._unusable_below -= 1
            if self._floor <= unwrapped < self._low:
                self._skipped -= self._low - unwrapped
                self._low = unwrapped
        self._times[unwrapped] = time
        self._accepted += 1
        if time > self._latest:
            self._latest = time
        return unwrapped

    def refuse(self, raw_id: int) -> None:
        """Note that a frame with this id came and cannot be used: the id is not missed.

        Before the first accepted frame nothing is noted, because `missed` counts from that one.
        """
        unwrapped = self._base + (raw_id & _UNSIGNED)
        known = unwrapped in self._times or unwrapped in self._unusable
        if not self._accepted or known or not self._low <= unwrapped <= self._high + WINDOW:
            return
        if unwrapped > self._high:
            self._unusable_ahead.add(unwrapped)
        else:
            self._note_unusable(unwrapped)

    def _note_unusable(self, unwrapped: int) -> None:
        self._unusable[unwrapped] = None
        self._unusable_below += 1
        if len(self._unusable) > WINDOW:
            del self._unusable[next(iter(self._unusable))]

    def _begin(self, raw: int, time: float) -> int:
        """Take the first frame of a counter whose zero is the unwrapped id `_base`."""
        first = self._base + raw
        if not self._accepted:
            self.first = first
        self._skipped += first - self._high - 1
        self._low = first
        self._advance(first)
        self._times[first] = time
        self._accepted += 1
        self._latest = time
        return first

    def _advance(self, high: int) -> None:
        """Raise the highest id, and forget the times of ids that leave the window."""
        oldest = high - WINDOW + 1
        if high - self._high >= len(self._times):  # few are remembered: do not step through every id of a jump
            self._times = {number: time for number, time in self._times.items() if number >= oldest}
        else:
            for old in range(self._high - WINDOW + 1, oldest):
                self._times.pop(old, None)
        self._high = high
        if self._unusable_ahead:
            for passed in [number for number in self._unusable_ahead if number < high]:
                self._unusable_ahead.remove(passed)
                self._note_unusable(passed)

    def _wrap(self, raw: int, time: float) -> bool:
        """Move the base if this fall of the id is a wrap. Returns whether it is."""
        top = self._high - self._base
        for modulus in MODULI:
            if raw < edge(modulus) and modulus - edge(modulus) <= top < modulus:
                self._base_before, self._low_before, self._since = self._base, self._floor, time
                self._base += modulus
                return True
        return False

    def _wrapped_before_the_start(self, raw: int) -> int:
        """The modulus if an early time with a high id shows that the first frame came after a wrap, else 0."""
        if self._since is None:
            for modulus in MODULI:
                if self._high < edge(modulus) and modulus - edge(modulus) <= raw < modulus:
                    self._floor = -modulus
                    return modulus
        return 0

    def _reset(self, time: float) -> None:
        self.resets += 1
        self._unusable_ahead.clear()
        self._base_before, self._low_before, self._since = self._base, self._low, time
        self._base = self._floor = self._high + 1

    def _is_reset(self, unwrapped: int, time: float) -> bool:
        """Whether an id that is below the highest and was not accepted before shows a reset."""
        behind = self._high - unwrapped
        return behind >= WINDOW or (time > self._latest and (unwrapped < self._low or behind > DISORDER))

    def _is_straggler(self, before: int, unwrapped: int) -> bool:
        """Whether a frame was taken before the last wrap or reset and belongs to the ids before it."""
        return (
            self._low_before <= before < self._base
            and before not in self._times
            and abs(self._high - before) < abs(self._high - unwrapped)
        )
