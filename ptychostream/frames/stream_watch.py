"""What the frames of a stream say of themselves, compared with what the model expects, while they come.

The statements are read at the first frame and again when one changes. For every other frame a few values are compared
with those of the frame before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ptychostream.errors import DropCause
from ptychostream.frames.codecs import LOSSY
from ptychostream.statements.description import Contradiction, Description, Value
from ptychostream.statements.quantities import REGION

_log = logging.getLogger(__name__)
_PAUSE_S = 5.0
"""Frames of one scan id that are further apart are of two acquisitions, whose regions may differ."""
_TOLERANCE = 0.01
"""Relative difference of the energy that does not matter."""
_REMEDY = "set the detector as for the training scans, or load a model for these frames"
_KEEP = "keep the detector's region, pixel type and compression during a scan"
_NOTED = "the frames are used; keep the detector's settings during a scan"
_DEPTH = "the frames are used; set the detector's bit depth as for the training scans, or load a model for this one"
_FITS = "the frames are used; let the detector send a type that holds its bit depth"

Region = tuple[int, int, int, int, bool, bool]
"""Offset x, y; binning x, y; reverse x, y, as the dimensions of an NTNDArray say. A binning of 0 was never set."""
PLAIN: Region = (0, 0, 1, 1, False, False)
UNSAID: Region = (0, 0, 0, 0, False, False)


class Said(NamedTuple):
    """The values of a frame that statements are made of.

    Attributes
    ----------
    region, shape, dtype
        Region of the sensor, [H, W], numpy type of the counts.
    energy
        Value of the energy attribute, in eV; None where there is none.
    codec
        Name of the codec; empty where nothing is compressed.
    bit_depth
        Value of the bit depth attribute; None where there is none.
    """

    region: Region
    shape: tuple[int, ...]
    dtype: Any
    energy: float | None = None
    codec: str = ""
    bit_depth: int | None = None


class StreamWatch:
    """Judges each frame of one stream. One thread calls `look`; any thread may call the other methods.

    Some contradictions make a picture wrong: a frame with one is dropped. Others are told only, and the frame is used:
    another codec that loses nothing, or another bit depth, which may come from a PV that is behind the frames.

    Parameters
    ----------
    source
        The PV, for messages.

    Attributes
    ----------
    description
        What the latest frame says.
    told, since
        What contradicts, empty where nothing does, and since when, s since the POSIX epoch.
    on_contradiction
        Called in the thread of `look` with what contradicts, where a frame begins to say something else.
    """

    def __init__(self, source: str = "") -> None:
        self.source = source
        self.description = Description(source)
        self.told = ""
        self.since = 0.0
        self.on_contradiction: Callable[[Sequence[Contradiction]], None] = lambda _: None
        self._lock = threading.Lock()  # guards what follows
        self._expected: Description | None = None
        self._measured = Description(source)  # by PVs
        self._key: tuple[str, Said] | None = None
        self._fault: DropCause | None = None
        self._of_scan: tuple[str, Description] = ("", Description())
        self._latest = 0.0

    def expect(self, expected: Description | None) -> None:
        """Compare with these statements from the next frame on; None: with none."""
        with self._lock:
            self._expected, self._key = expected, None

    def measure(self, quantity: str, value: Value | None, where: str, written: str = "") -> None:
        """What a PV or a setting says beside the frames; None: it does not answer."""
        with self._lock:
            said = Description(self.source, (one for one in self._measured if one.quantity != quantity))
            said.state(quantity, value, where, written)
            self._measured, self._key = said, None

    def begin(self) -> None:
        """A scan begins: its region need not be that of the frames before."""
        with self._lock:
            self._of_scan, self._key = ("", Description()), None

    def look(self, said: Said, scan: str, time: float, now: float) -> DropCause | None:
        """Whether a frame of that scan, taken at `time` and come at `now`, contradicts: the cause of its drop."""
        if self._key == (scan, said):  # nearly always
            self._latest = time
            return self._fault
        with self._lock:
            found, noted = self._judge(said, scan, time)
            self._key, self._latest = (scan, said), time
            self._fault = DropCause.CONTRADICTION if found else None
            told = "; ".join(f"{one} ({one.remedy})" for one in (*found, *noted))
            if told and not self.told:
                self.since = now
            changed, self.told = told != self.told, told
        if told:
            self.on_contradiction([*found, *noted])
        if changed and told:
            _log.warning("%s: %s", "frames are dropped" if found else self.source, told)
        elif changed:
            _log.info("%s: nothing contradicts any more", self.source)
        return self._fault

    def _judge(self, said: Said, scan: str, time: float) -> tuple[list[Contradiction], list[Contradiction]]:
        """What a frame contradicts: for which it is dropped, and what is only told."""
        self.description = description = describe(said, self.source)
        name, before = self._of_scan
        if name != scan or not len(before) or abs(time - self._latest) > _PAUSE_S:
            self._of_scan = (scan, description)
        found: list[Contradiction] = []
        if self._expected is not None:
            stated = Description(self.source, [*description, *self._measured])
            found = stated.against(self._expected, REGION, remedy=_REMEDY)
            found += stated.against(self._expected, ("radiation", "energy"), tolerance=_TOLERANCE, remedy=_REMEDY)
        first = self._of_scan[1]
        found = found or description.against(first, (*REGION, "pixel_type"), remedy=_KEEP)
        codec = description.against(first, ("codec",), remedy=_NOTED)
        if any(one.value in LOSSY for contradiction in codec for one in contradiction.statements):
            codec, found = [], found or description.against(first, ("codec",), remedy=_KEEP)
        return found, [*codec, *self._depths(said, description, first)]

    def _depths(self, said: Said, description: Description, first: Description) -> list[Contradiction]:
        """What the bit depth contradicts: that of the scan's first frame, that of the model, the type."""
        found = description.against(first, ("bit_depth",), remedy=_NOTED)
        if self._expected is not None:
            found = found or description.against(self._expected, ("bit_depth",), remedy=_DEPTH)
        if said.bit_depth is not None and said.bit_depth > 8 * said.dtype.itemsize:
            statements = (*description.about("bit_depth"), *description.about("pixel_type"))
            found = found or [Contradiction("bit_depth", statements, _FITS)]
        return found


def describe(said: Said, source: str) -> Description:
    """The statements of one frame."""
    found = Description(source)
    for axis, name in ((0, "frame_height"), (1, "frame_width")):
        found.state(name, said.shape[axis], f"dimension[{1 - axis}].size")
    state_region(found, said.region)
    found.state("pixel_type", str(said.dtype), "value")
    found.state("codec", said.codec or "none", "codec.name")
    found.state("bit_depth", said.bit_depth, "the bit depth attribute")
    found.state("energy", said.energy, "the energy attribute")
    return found


def state_region(said: Description, region: Region) -> None:
    """Add what the dimensions say. Where its binning was never set, a dimension says only what is not 0."""
    for index, axis in enumerate("xy"):
        offset, binning, reverse = region[index], region[2 + index], region[4 + index]
        place = f"dimension[{index}]"
        said.state(f"offset_{axis}", int(offset) if binning or offset else None, f"{place}.offset")
        said.state(f"binning_{axis}", int(binning) or None, f"{place}.binning")
        said.state(f"reverse_{axis}", bool(reverse) if binning or reverse else None, f"{place}.reverse")


def expected_of(contract: Description, given: Mapping[str, float | bool | None]) -> Description:
    """What frames are expected to say: the contract, else an unbinned and unreversed sensor; `given` goes before both.

    A model whose contract says nothing of binning was made for frames of which nobody said that they are binned.
    """
    expected = Description(contract.source, contract)
    for quantity in REGION:
        expected.give(quantity, given.get(quantity), f"input.region.{quantity}")
        if not quantity.startswith("offset"):
            expected.assume(quantity, 1 if quantity.startswith("binning") else False, _unsaid(contract.source))
    return expected


def region_of(dimensions: Iterable[Mapping[str, Any]]) -> Region:
    """The region of two dimensions with the fields of an NTNDArray; `UNSAID` where fields are missing."""
    try:
        x, y, *_ = dimensions
        return (x["offset"], y["offset"], x["binning"], y["binning"], x["reverse"], y["reverse"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return UNSAID


def _unsaid(source: str) -> str:
    return f"{source or 'the model'}, of which nobody said more,"
