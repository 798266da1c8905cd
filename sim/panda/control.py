"""The control port's answers. Pure: a line in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ptychostream.sim.panda.fields import BITS, BLOCKS, initial_values, labels

IDENTITY = "PandA SW: 4.1 FPGA: 4.1 0 0 rootfs: simulated"
_GROUPS = ("CONFIG", "BITS", "POSN", "READ", "ATTR", "TABLE", "METADATA")


class Refused(Exception):  # noqa: N818 - an answer, not an error of this program
    """The server's reason for refusing a command."""


class PandaFields:
    """The values that all clients share. The caller serialises the calls.

    Parameters
    ----------
    arm, disarm
        Begin and end a capture; `Refused` says why not.
    """

    def __init__(self, arm: Callable[[], None], disarm: Callable[[], None]) -> None:
        self.values = initial_values()
        self._arm, self._disarm = arm, disarm
        self._changes = dict.fromkeys(self.values, 0)
        self.change = 0

    def put(self, path: str, value: str) -> None:
        """Write a field or attribute."""
        path = _single(path)
        if path not in self.values:
            raise Refused("No such field")
        allowed = labels(path)
        if allowed is not None and value not in allowed:
            raise Refused("Label not found")
        self.values[path] = value
        self.change += 1
        self._changes[path] = self.change

    def since(self, change: int, group: str) -> list[str]:
        """What was written after that change, in one group of fields or, with "", in all."""
        return [
            f"{path}={value}"
            for path, value in self.values.items()
            if self._changes[path] >= change and group in ("", _group(path))
        ]

    def command(self, path: str, value: str) -> None:
        """Carry out `path=value`."""
        if path == "*PCAP.ARM":
            self._arm()
        elif path == "*PCAP.DISARM":
            self._disarm()
        else:
            self.put(path, value)


class ControlSession:
    """One client of the control port."""

    def __init__(self, fields: PandaFields) -> None:
        self._fields = fields
        self._seen = dict.fromkeys(_GROUPS, 0)  # by group, what this client was told of

    def answer(self, line: str) -> list[str]:
        """The lines that answer one line of the client."""
        try:
            if line.endswith("?"):
                return self._query(line[:-1])
            path, equals, value = line.partition("=")
            if not equals:
                return ["ERR Unknown command"]
            self._fields.command(path, value)
        except Refused as why:
            return [f"ERR {why}"]
        return ["OK"]

    def _query(self, path: str) -> list[str]:
        if path == "*IDN":
            return [f"OK ={IDENTITY}"]
        if path == "*BLOCKS":
            return _many(f"{name} {block.number}" for name, block in BLOCKS.items())
        if path.startswith("*CHANGES"):
            return self._changed(path.partition(".")[2])
        if path.startswith("*ENUMS."):
            found = labels(path.removeprefix("*ENUMS."))
            return _many(found) if found else ["ERR Field not found"]
        if path.startswith("*DESC."):
            return [f"OK ={_about(path.removeprefix('*DESC.'))}"]
        if path == "*PCAP.STATUS":
            return ["OK =Busy" if self._fields.values["PCAP.ACTIVE"] == "1" else "OK =Idle"]
        block, _, field = path.partition(".")
        if field == "*" and block in BLOCKS:
            return _many(f"{one.name} {at} {one.type}" for at, one in enumerate(BLOCKS[block].fields))
        if path == "PCAP.BITS0.BITS":
            return _many(BITS)
        return [f"OK ={self._value(_single(path))}"]

    def _changed(self, wanted: str) -> list[str]:
        if wanted and wanted not in _GROUPS:
            raise Refused("Unknown group")
        lines: list[str] = []
        for group in (wanted,) if wanted else _GROUPS:
            lines += self._fields.since(self._seen[group], group)
            self._seen[group] = self._fields.change + 1
        return _many(lines)

    def _value(self, path: str) -> str:
        name, _, attribute = path.rpartition(".")
        if path in self._fields.values:
            return self._fields.values[path]
        if attribute == "MAX_DELAY":
            return "31"
        if attribute == "CAPTURE_WORD":
            return "PCAP.BITS0"
        if attribute == "OFFSET" and name in BITS:
            return str(BITS.index(name))
        raise Refused("No such field")


def _single(path: str) -> str:
    """`PCAP1.TRIG` as `PCAP.TRIG`: the number of a single block may be left out."""
    block, dot, rest = path.partition(".")
    kind = block.rstrip("0123456789")
    return f"{kind}{dot}{rest}" if block == f"{kind}1" and kind in BLOCKS and BLOCKS[kind].number == 1 else path


def _group(path: str) -> str:
    if path.count(".") > 1:
        return "ATTR"
    block, name = path.split(".")
    kind = next(one.type for one in BLOCKS[block.rstrip("0123456789")].fields if one.name == name)
    return {"bit_out": "BITS", "pos_out": "POSN"}.get(kind, "CONFIG")


def _about(path: str) -> str:
    block, _, name = path.partition(".")
    found = BLOCKS.get(block.rstrip("0123456789"))
    if found is None:
        raise Refused("No such block")
    if not name:
        return found.about
    field = next((one for one in found.fields if one.name == name), None)
    if field is None:
        raise Refused("No such field")
    return field.about


def _many(lines: Iterable[str]) -> list[str]:
    return [*(f"!{line}" for line in lines), "."]
