"""The blocks and fields of the simulated box, as a real one's server describes them."""

from __future__ import annotations

from typing import NamedTuple

BITS = ("TTLIN1.VAL", "TTLIN2.VAL", "PCAP.ACTIVE", *("",) * 29)
"""What the bits of PCAP.BITS0 are."""
BIT_SOURCES = ("TTLIN1.VAL", "TTLIN2.VAL", "PCAP.ACTIVE", "ZERO", "ONE")
POSITION_CAPTURES = ("No", "Value", "Mean")


class Field(NamedTuple):
    """One field: its name, its type as the server says it, its description, its value at the start."""

    name: str
    type: str
    about: str
    value: str = ""


class Block(NamedTuple):
    """One kind of block, and how many there are."""

    number: int
    about: str
    fields: tuple[Field, ...]


BLOCKS: dict[str, Block] = {
    "TTLIN": Block(2, "TTL input", (Field("VAL", "bit_out", "TTL input value", "0"),)),
    "INENC": Block(4, "Encoder input", (Field("VAL", "pos_out", "Current position", "0"),)),
    "PCAP": Block(
        1,
        "Position capture",
        (
            Field("ENABLE", "bit_mux", "Gate of the whole capture", "ONE"),
            Field("GATE", "bit_mux", "Gate of the sums", "ONE"),
            Field("TRIG", "bit_mux", "Trigger of a row", "TTLIN1.VAL"),
            Field("TRIG_EDGE", "param enum", "Edge of the trigger", "Rising"),
            Field("ACTIVE", "bit_out", "Whether a capture goes on", "0"),
            Field("TS_TRIG", "ext_out timestamp", "Time of the trigger"),
            Field("GATE_DURATION", "ext_out samples", "Ticks of the gate"),
            Field("BITS0", "ext_out bits", "Bits 0 to 31"),
        ),
    ),
}
ENUMS: dict[str, tuple[str, ...]] = {"PCAP.TRIG_EDGE": ("Rising", "Falling", "Either")}


def instances(name: str) -> list[str]:
    """Names of the blocks of that kind: a single one has no number."""
    number = BLOCKS[name].number
    return [name] if number == 1 else [f"{name}{one}" for one in range(1, number + 1)]


def initial_values() -> dict[str, str]:
    """Every field and attribute that has a value, in the order of the server's."""
    values: dict[str, str] = {}
    for name, block in BLOCKS.items():
        for one in instances(name):
            for field in block.fields:
                path = f"{one}.{field.name}"
                if not field.type.startswith("ext_out"):
                    values[path] = field.value
                if field.type == "pos_out":
                    values |= {
                        f"{path}.CAPTURE": "No",
                        f"{path}.SCALE": "1",
                        f"{path}.OFFSET": "0",
                        f"{path}.UNITS": "",
                    }
                elif field.type.startswith("ext_out"):
                    values[f"{path}.CAPTURE"] = "No"
                elif field.type == "bit_mux":
                    values[f"{path}.DELAY"] = "0"
    return values


def labels(path: str) -> tuple[str, ...] | None:
    """What the field or attribute may be; None: it is no choice."""
    block, _, rest = path.partition(".")
    found = BLOCKS.get(block.rstrip("0123456789"))
    name, _, attribute = rest.partition(".")
    field = next((one for one in found.fields if one.name == name), None) if found else None
    if field is None:
        return None
    if attribute == "CAPTURE":
        return POSITION_CAPTURES if field.type == "pos_out" else ("No", "Value")
    if field.type == "bit_mux":
        return BIT_SOURCES
    return ENUMS.get(f"{block.rstrip('0123456789')}.{name}")
