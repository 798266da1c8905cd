"""What a frame's attributes say: which scan it belongs to, and what its end attribute is.

The one reading of a stream for the IOC, the consumers of a cluster and the recorder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.frames.idle import ends_scan
from ptychostream.frames.scan_id import id_text
from ptychostream.frames.stream_watch import Region, Said, StreamWatch
from ptychostream.statements.units import EnergyUnit, energy_ev

Scalar = float | int | str


class Decoded(Protocol):
    """A decoded update, such as `ptychostream.pva.reading.RawArray`: id, POSIX time (0: none), counts, attributes."""

    @property
    def raw_id(self) -> int: ...

    @property
    def time(self) -> float: ...

    @property
    def array(self) -> NDArray[np.integer]: ...

    @property
    def region(self) -> Region: ...

    @property
    def codec(self) -> str: ...

    @property
    def attributes(self) -> Mapping[str, Scalar]: ...


class Intake:
    """Names the scan of every frame and reads its end attribute.

    Parameters
    ----------
    scan_attribute
        NTAttribute that names the scan; empty: the stream names none.
    end_attribute
        NTAttribute that rises when a scan ends, see `ptychostream.frames.idle.ends_scan`; empty: none is looked at.
    further
        Further NTAttributes that frames are to carry, such as the positions'.
    select
        NTAttribute and its value in the frames that are wanted, such as those of one threshold of several; the others
        are dropped as `UNSELECTED`. An empty name: all.
    energy
        NTAttribute that gives the energy, and its unit. An empty name: none does.
    bit_depth
        NTAttribute that gives the bits that the detector counts in. An empty name: none does.

    Attributes
    ----------
    watch
        Compares what the frames say of themselves with what is expected.
    unnamed
        Scan id of the frames that name none.
    wanted
        The NTAttributes that are to be read.
    """

    def __init__(
        self,
        scan_attribute: str,
        end_attribute: str = "",
        further: Iterable[str] = (),
        *,
        select: tuple[str, str] = ("", ""),
        energy: tuple[str, EnergyUnit] = ("", "eV"),
        bit_depth: str = "",
    ) -> None:
        self.unnamed = ""
        self._scan_attribute = scan_attribute
        self._end_attribute = end_attribute
        self._select, self._selected = select[0], select[1].strip()
        self._energy, self._energy_unit = energy
        self._bit_depth = bit_depth
        self.watch = StreamWatch()
        self.want(further)

    def want(self, further: Iterable[str]) -> None:
        """Change the further NTAttributes."""
        own = {self._scan_attribute, self._end_attribute, self._select, self._energy, self._bit_depth}
        self.wanted = frozenset({*own, *further} - {""})

    def scan_of(self, attributes: Mapping[str, Scalar]) -> str:
        """The scan id of a frame with these attributes."""
        named = attributes.get(self._scan_attribute)
        return self.unnamed if named is None else id_text(named)

    def flag(self, attributes: Mapping[str, Scalar]) -> bool | None:
        """Whether the end attribute is up in a frame with these attributes; None where the frame has none."""
        value = attributes.get(self._end_attribute)
        return None if value is None else ends_scan(value)

    def frame(self, raw: Decoded, now: float) -> Frame:
        """The frame of an update that came at `now`, s since the POSIX epoch, which is its time where it has none."""
        scan, flag, time = self.scan_of(raw.attributes), self.flag(raw.attributes), raw.time or now
        said = Said(raw.region, raw.array.shape, raw.array.dtype, codec=raw.codec)
        fault = self.fault(scan, said, raw.attributes, time, now)
        return Frame(scan, raw.raw_id, time, raw.array, raw.attributes, now, raw_id=raw.raw_id, flag=flag, fault=fault)

    def selects(self, attributes: Mapping[str, Scalar]) -> bool:
        """Whether a frame with these attributes is of the wanted kind."""
        return not self._select or id_text(attributes.get(self._select)) == self._selected

    def fault(
        self, scan: str, said: Said, attributes: Mapping[str, Scalar], time: float, now: float
    ) -> DropCause | None:
        """Why a frame of that scan, taken at `time` and come at `now`, is not wanted; None: it is.

        Parameters
        ----------
        said
            What it says of itself; energy and bit depth are added here, from the attributes.
        """
        if not self.selects(attributes):
            return DropCause.UNSELECTED
        if self._energy:
            said = said._replace(energy=energy_ev(attributes.get(self._energy), self._energy_unit))
        if (bits := attributes.get(self._bit_depth)) is not None:
            said = said._replace(bit_depth=_whole(bits))
        return self.watch.look(said, scan, time, now)


def _whole(value: Scalar) -> int | None:
    """A whole number above 0 as an attribute gives it, as a number or as text; None: it gives none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() and number > 0 else None
