"""Setpoints that survive a restart, for every record tagged `info(autosaveFields, "VAL")`.

The file is EPICS autosave's: a line `name value` for each record, `<END>` last. It is replaced atomically, so that a
crash leaves the old one or the new one; the one that was read at start is kept beside it as `.bak`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_double
from pathlib import Path

from ptychostream.storage.atomic import write_bytes_atomic
from ptychostream.errors import ConfigError
from ptychostream.ioc.records.database import RecordInfo
from ptychostream.ioc.records.records import NUMBERS, Value, room

log = logging.getLogger(__name__)

END = "<END>"


def format_values(values: Mapping[str, Value]) -> str:
    """The file's text; floats keep every digit, line ends in texts become spaces."""
    lines = ["# setpoints of ptychostream, written by its IOC"]
    for name, value in values.items():
        text = repr(value) if isinstance(value, float) else str(value)
        lines.append(f"{name} {' '.join(text.splitlines())}")
    return "\n".join([*lines, END, ""])


def parse_values(text: str, where: str) -> dict[str, str]:
    """Read `format_values`' text, or a file of EPICS autosave.

    Raises
    ------
    ConfigError
        It does not end with `<END>`: it was cut short.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or lines[-1].strip() != END:
        raise ConfigError(f"does not end with {END}", where=where, remedy="remove it, or restore its .bak")
    return {name: value for name, _, value in (line.partition(" ") for line in lines[:-1])}


def read_values(path: Path) -> dict[str, str]:
    """Values saved in `path`, from its `.bak` where it is damaged; empty where there is none.

    Raises
    ------
    ConfigError
        A file is there and neither it nor its `.bak` can be used.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        values = parse_values(text, str(path))
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        backup = path.with_name(path.name + ".bak")
        if not backup.exists():
            what = error.what if isinstance(error, ConfigError) else str(error)
            raise ConfigError(what, where=str(path), remedy="remove it: the IOC starts from its defaults") from error
        log.warning("%s: setpoints are restored from %s", error, backup.name)
        return parse_values(backup.read_text(encoding="utf-8", errors="replace"), str(backup))
    write_bytes_atomic(path.with_name(path.name + ".bak"), text.encode())
    return values


def usable(saved: Mapping[str, str], infos: Iterable[RecordInfo], prefix: str) -> tuple[dict[str, str], list[str]]:
    """The saved values that their records can hold, by name without prefix, and why the others are passed over."""
    known = {info.name: info for info in infos}
    good, passed_over = {}, []
    for name, text in saved.items():
        why = _misfit(known.get(name), text)
        if why:
            passed_over.append(f"{name} = {text!r}: {why}")
        else:
            good[name.removeprefix(prefix)] = text
    return good, passed_over


def _misfit(info: RecordInfo | None, text: str) -> str:
    """Why a record cannot hold a text; empty if it can."""
    if info is None:
        return "there is no such record"
    if info.type in NUMBERS:
        is_float = NUMBERS[info.type][0] is c_double
        try:
            return "" if math.isfinite(float(text or 0) if is_float else int(text or 0)) else "no finite number"
        except (ValueError, OverflowError):
            return "no number" if is_float else "no whole number"
    return "" if len(text.encode()) <= room(info) else f"longer than the {room(info)} bytes that the record holds"


class Autosave:
    """A thread that saves values when they change.

    Parameters
    ----------
    path
        The file.
    values
        Gives the values by record name. A setpoint's is the one in force, and never one that was put and refused.
    period_s
        Time between looks.
    on_status
        Called after each try: "" when it could be saved, else why not.
    """

    def __init__(
        self,
        path: Path,
        values: Callable[[], Mapping[str, Value]],
        on_status: Callable[[str], None],
        period_s: float = 1.0,
    ) -> None:
        self._path = path
        self._values = values
        self._on_status = on_status
        self._period_s = period_s
        self._saved = ""
        self._failure = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="autosave", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and save a last time."""
        self._stop.set()
        self._thread.join()
        self.save()

    def save(self) -> None:
        """Write the file if a value changed; a failure is reported, logged when it is a new one, and tried again."""
        text = format_values(self._values())
        if text == self._saved:
            return
        try:
            write_bytes_atomic(self._path, text.encode())
        except OSError as error:
            reason = error.strerror or str(error)  # not the temporary file's name, another each time
            if reason != self._failure:
                self._failure = reason
                remedy = "make its folder, or give --autosave another file; it is tried every second"
                log.error("setpoints cannot be saved to %s: %s (%s)", self._path, reason, remedy)
            self._on_status(str(error))
            return
        if self._failure:
            self._failure = ""
            log.info("setpoints are saved to %s again", self._path)
        self._saved = text
        self._on_status("")

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.save()


def now_text() -> str:
    """Local date and time as the records show it."""
    return time.strftime("%Y-%m-%d %H:%M:%S")
