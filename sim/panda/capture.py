"""The bytes of the data port: header, blocks of rows, end. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from ptychostream.sim.panda.control import Refused

TICK_S = 8e-9
_GATE_TICKS = 125_000

Process = Literal["Scaled", "Raw"]


@dataclass(frozen=True)
class Captured:
    """One captured field, frozen when the box was armed."""

    name: str
    capture: str
    scale: float
    offset: float
    units: str

    def type(self, process: Process) -> str:
        """Type of its column, as the header says it."""
        if self.name == "PCAP.BITS0":
            return "uint32"
        if process == "Scaled":
            return "double"
        return "int64" if self.capture == "Mean" or self.name == "PCAP.TS_TRIG" else "int32"

    def column(self, values: NDArray[np.float64], process: Process) -> NDArray[np.generic]:
        """The column of values that are given scaled."""
        kind = np.dtype(self.type(process))
        if process == "Scaled" or self.name in ("PCAP.BITS0", "PCAP.GATE_DURATION"):
            return values.astype(kind)
        if self.name == "PCAP.TS_TRIG":
            return np.rint(values / TICK_S).astype(kind)
        raw = np.rint((values - self.offset) / self.scale)
        return (raw * (_GATE_TICKS if self.capture == "Mean" else 1)).astype(kind)


class Capture:
    """One capture, from its arm to its end.

    Parameters
    ----------
    values
        The box's fields and attributes, which say what is captured.
    arm_time
        As the header says it.
    """

    def __init__(self, values: Mapping[str, str], arm_time: str) -> None:
        self.arm_time = arm_time
        self.rows = 0
        chosen = [
            path.removesuffix(".CAPTURE")
            for path, value in values.items()
            if path.endswith(".CAPTURE") and value != "No"
        ]
        if not chosen:
            raise Refused("Nothing configured for capture")
        self.fields = [
            Captured(
                path,
                values[f"{path}.CAPTURE"],
                float(values.get(f"{path}.SCALE", 1)),
                float(values.get(f"{path}.OFFSET", 0)),
                values.get(f"{path}.UNITS", ""),
            )
            for path in chosen
        ]

    def _sent(self, process: Process) -> list[Captured]:
        """By type, as the server orders them; raw means bring the length of their gate, unasked."""
        fields = list(self.fields)
        means = any(one.capture == "Mean" for one in fields)
        if process == "Raw" and means and not any(one.name == "PCAP.GATE_DURATION" for one in fields):
            fields.insert(0, Captured("PCAP.GATE_DURATION", "Value", 1, 0, ""))
        order = {"uint32": 0, "int32": 1, "int64": 2, "double": 3}
        return sorted(fields, key=lambda one: order[one.type(process)])

    def header(self, process: Process, missed: int) -> bytes:
        """The XML header, with the empty line that ends it."""
        fields = self._sent(process)
        size = sum(np.dtype(one.type(process)).itemsize for one in fields)
        lines = [
            "<header>",
            f'<data arm_time={quoteattr(self.arm_time)} start_time={quoteattr(self.arm_time)} missed="{missed}" '
            f'process="{process}" format="Framed" sample_bytes="{size}" />',
            "<fields>",
        ]
        for one in fields:
            scaled = f' scale="{one.scale:g}" offset="{one.offset:g}" units={quoteattr(one.units)}'
            if one.name in ("PCAP.BITS0", "PCAP.GATE_DURATION"):
                scaled = ""
            lines.append(f'<field name="{one.name}" type="{one.type(process)}" capture="{one.capture}"{scaled} />')
        return "\n".join([*lines, "</fields>", "</header>", "", ""]).encode()

    def block(self, columns: Mapping[str, NDArray[np.float64]], process: Process) -> bytes:
        """A block of rows; `columns` are scaled values by field. A field without a column is zero."""
        count = len(next(iter(columns.values())))
        fields = self._sent(process)
        kinds = [(f"{one.name}.{one.capture}", one.type(process)) for one in fields]
        rows = np.zeros(count, kinds)
        for one in fields:
            default = np.full(count, float(_GATE_TICKS if one.name == "PCAP.GATE_DURATION" else 0))
            values = np.asarray(columns.get(one.name, default), np.float64)
            rows[f"{one.name}.{one.capture}"] = one.column(values, process)
        data = rows.tobytes()
        return b"BIN " + struct.pack("<I", len(data) + 8) + data

    def end(self, rows: int, reason: str) -> bytes:
        """The line that ends a capture, for a client that was sent so many rows."""
        return f"END {rows} {reason}\n".encode()
