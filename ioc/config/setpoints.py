"""Settings that are records, and their values as a record holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ptychostream.config import Declared, Setting, declared
from ptychostream.errors import ConfigError
from ptychostream.statements.record_text import STRING_BYTES

if TYPE_CHECKING:
    from ptychostream.ioc.config.settings import IocSettings


class Setpoint:
    """One setting that is a record.

    Parameters
    ----------
    declared
        Its declaration, with a record name.
    """

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.key = declared.key
        self.setting = _with_limits(declared)
        self.record = declared.setting.record
        self.type, self.choices = declared.type, declared.choices

    def shown(self, value: Any) -> float | int | str:
        """A setting's value as the record's: a number in the record's unit, a state's number, a text."""
        choices, kind = self.choices, self.type
        if choices:
            return choices.index(value)
        if kind is bool:
            return int(value)
        if kind is float:
            exact = float(value * self.setting.scale)
            short = float(f"{exact:.15g}")  # what was written, without the last digit's rounding error
            return short if short / self.setting.scale == value else exact
        if kind is int:
            return int(value * self.setting.scale)
        return "" if value is None else str(value)

    def value(self, raw: Any, where: str = "") -> Any:
        """A record's value, or its text, as the setting's.

        Raises
        ------
        ConfigError
            It is no finite number, no state of the record, or a text that the record cannot hold; it says `where`.
        """
        choices, kind = self.choices, self.type
        what = f"{self.record} = {raw!r}"
        try:
            if choices:
                return dict(enumerate(choices))[int(raw)]
            if kind is bool:
                return {0: False, 1: True}[int(raw)]
            if kind is int or kind is float:
                number = float(raw) / self.setting.scale
                return kind(number) if math.isfinite(number) else _refuse_number()
        except (ValueError, KeyError):
            last = len(choices) - 1 if choices else 1
            remedy = f"give a state from 0 to {last}" if choices or kind is bool else "give a finite number"
            raise ConfigError(what, where=where or self.record, remedy=remedy) from None
        size = len(str(raw).encode())
        if size > self.room:
            remedy = f"give at most {self.room} bytes"
            raise ConfigError(f"{self.record}: a text of {size} bytes", where=where or self.record, remedy=remedy)
        return str(raw).strip() or (None if kind is Path else "")

    @property
    def room(self) -> int:
        """Bytes that the record of a text holds."""
        length = self.setting.length
        return length if length <= STRING_BYTES else length - 1

    def is_cut(self, raw: Any) -> bool:
        """Whether a text that was put fills its record: EPICS may have cut it, and does not say so."""
        text = not self.choices and self.type in (str, Path)
        return text and len(str(raw).encode()) >= self.room


def _refuse_number() -> NoReturn:
    raise ValueError


def _with_limits(declared: Declared) -> Setting:
    """The declaration, its limits taken from the field's type where it gives none."""
    setting, kind = declared.setting, declared.type
    if kind is not int and kind is not float:
        return setting
    bounds: dict[str, Any] = {
        name: kind(bound * setting.scale)
        for name, limit in (("low", "ge"), ("high", "le"))
        for one in declared.field.metadata
        if getattr(setting, name) is None and (bound := getattr(one, limit, None)) is not None
    }
    setting = replace(setting, **bounds)
    if setting.high is None:
        remedy = "give `high` with the record, or `le` with the field"
        raise ConfigError(f"record {setting.record} has no upper limit", where=declared.key, remedy=remedy)
    return setting


@cache
def setpoints(kind: type[IocSettings]) -> Mapping[str, Setpoint]:
    """The settings of `kind` that are records, by record name.

    Raises
    ------
    ConfigError
        Two settings have one record.
    """
    found: dict[str, Setpoint] = {}
    for one in declared(kind):
        if not one.setting.record:
            continue
        before = found.setdefault(one.setting.record, Setpoint(one))
        if before.key != one.key:
            raise ConfigError(
                f"{before.key} and {one.key} are both record {before.record}",
                where=kind.__name__,
                remedy="give each setting a record name of its own",
            )
    return found
