"""Frame numbers as the detector sends them, made whole: unwrapped, without duplicates, gaps counted.

A detector's `uniqueId` may be an 8, 16, 24 or 32-bit counter, signed or not; frames may arrive in
another order, twice or never; and the counter may start anew in the middle of a scan.
"""

from __future__ import annotations

_MODULI = tuple(1 << bits for bits in (8, 16, 24, 31, 32))
_UNSIGNED = (1 << 32) - 1
WINDOW = 1 << 16
"""Ids behind the highest one that are remembered; what is older than that is taken for a reset."""
DISORDER = 1 << 10
"""A gap this far behind the highest id may still be filled by a frame whose time is later than all before."""


def edge(modulus: int) -> int:
    """How near to `modulus`, and then to zero, ids must be for a wrap: frames may be lost or late around it."""
    return min(modulus >> 4, 4096)


class FrameIds:
    """Unwraps the ids of one scan.

    Unwrapped ids never repeat. While the counter runs and wraps they are its own numbers carried on, so that
    frames that arrive in any order keep their distances. After a reset they continue: the highest id so far,
    plus one, plus what the counter says now.

    Attributes
    ----------
    disordered
        Frames accepted below the highest id.
    resets
        Times that the counter started anew.

    Notes
    -----
    Rules, for an id and its acquisition time:

    - id and time as of a frame accepted before: a duplicate;
    - a drop from within `edge` of a modulus (2⁸, 2¹⁶, 2²⁴, 2³¹, 2³²) to within `edge` of zero, at a time not
      before the latest: a wrap;
    - an accepted id with another time, an id more than `WINDOW` behind, or a time later than all before with
      an id that is below the first one or more than `DISORDER` behind: a reset;
    - any other id below the highest: a late frame, it fills its gap. One taken before the last wrap or reset
      is counted there, when it is nearer; where the very first frame came past a wrap, those get ids below zero.

    Memory is bounded: the times of the last `WINDOW` ids. A counter that is reset just below a modulus looks
    like a wrap; its ids still never repeat.
    """

    def __init__(self) -> None:
        self.disordered = 0
        self.resets = 0
        self._accepted = 0
        self._times: dict[int, float] = {}  # by unwrapped id
        self._high = -1
        self._latest = 0.0
        self._skipped = 0  # unwrapped numbers up to the highest that no frame was ever meant to have
        # Since the last reset: the counter's zero (moved by wraps), the least id possible, the least id seen.
        self._base = self._floor = self._low = 0
        # Before the last wrap or reset: when it was, the counter's zero then, the least id a late frame may have.
        self._since: float | None = None
        self._base_before = self._low_before = 0

    @property
    def missed(self) -> int:
        """Gaps between the first and the highest id that no frame has filled so far."""
        return self._high + 1 - self._accepted - self._skipped

    def accept(self, raw_id: int, time: float) -> int | None:
        """The unwrapped id of a frame, or None: a duplicate.

        Parameters
        ----------
        raw_id
            As sent; negative for a signed 32-bit counter that has passed 2³¹.
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
            self._advance(unwrapped)
        else:
            known = self._times.get(unwrapped)
            if known == time:
                return None
            if known is not None or self._is_reset(unwrapped, time):
                self._reset(time)
                return self._begin(raw, time)
            self.disordered += 1
            if self._floor <= unwrapped < self._low:
                self._skipped -= self._low - unwrapped
                self._low = unwrapped
        self._times[unwrapped] = time
        self._accepted += 1
        if time > self._latest:
            self._latest = time
        return unwrapped

    def _begin(self, raw: int, time: float) -> int:
        """The first frame of a counter that starts (anew) at `_base`."""
        first = self._base + raw
        self._skipped += first - self._high - 1
        self._low = first
        self._advance(first)
        self._times[first] = time
        self._accepted += 1
        self._latest = time
        return first

    def _advance(self, high: int) -> None:
        """Raise the highest id, and forget the times that fall out of the window."""
        oldest = high - WINDOW + 1
        if high - self._high >= len(self._times):  # few are remembered: a jump must not cost as many steps as ids
            self._times = {number: time for number, time in self._times.items() if number >= oldest}
        else:
            for old in range(self._high - WINDOW + 1, oldest):
                self._times.pop(old, None)
        self._high = high

    def _wrap(self, raw: int, time: float) -> bool:
        """Move the base when this drop is a wrap."""
        top = self._high - self._base
        for modulus in _MODULI:
            if raw < edge(modulus) and modulus - edge(modulus) <= top < modulus:
                self._base_before, self._low_before, self._since = self._base, self._floor, time
                self._base += modulus
                return True
        return False

    def _wrapped_before_the_start(self, raw: int) -> int:
        """The modulus, when a frame with an early time and a high id shows that the first one came past a wrap."""
        if self._since is None:
            for modulus in _MODULI:
                if self._high < edge(modulus) and modulus - edge(modulus) <= raw < modulus:
                    self._floor = -modulus
                    return modulus
        return 0

    def _reset(self, time: float) -> None:
        self.resets += 1
        self._base_before, self._low_before, self._since = self._base, self._low, time
        self._base = self._floor = self._high + 1

    def _is_reset(self, unwrapped: int, time: float) -> bool:
        """For an id below the highest that was not accepted before."""
        behind = self._high - unwrapped
        return behind >= WINDOW or (time > self._latest and (unwrapped < self._low or behind > DISORDER))

    def _is_straggler(self, before: int, unwrapped: int) -> bool:
        """Whether a frame taken before the last wrap or reset belongs there rather than here."""
        return (
            self._low_before <= before < self._base
            and before not in self._times
            and abs(self._high - before) < abs(self._high - unwrapped)
        )
