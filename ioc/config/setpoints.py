"""Settings that are records: their values as a record holds them, and what an IOC starts with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.config import Declared, Setting, changed, declared
from ptychostream.errors import ConfigError

if TYPE_CHECKING:
    from ptychostream.ioc.config.settings import IocSettings

AUTOSAVE = "autosave file"


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
            It is no number, or no state of the record; it says `where`.
        """
        choices, kind = self.choices, self.type
        try:
            if choices:
                return dict(enumerate(choices))[int(raw)]
            if kind is bool:
                return bool(int(raw))
            if kind is int or kind is float:
                return kind(float(raw) / self.setting.scale)
        except (ValueError, KeyError):
            remedy = f"give a state from 0 to {len(choices) - 1}" if choices else "give a number"
            raise ConfigError(f"{self.record} = {raw!r}", where=where or self.record, remedy=remedy) from None
        return str(raw).strip() or (None if kind is Path else "")


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


def begin(
    settings: IocSettings, saved: Mapping[str, str], given: Collection[str]
) -> tuple[IocSettings, dict[str, str]]:
    """What an IOC starts with: the configuration, then what autosave kept, then what the command line said.

    Parameters
    ----------
    settings
        The configuration, command line included.
    saved
        Texts that autosave kept, by record name without prefix.
    given
        Dotted keys that the command line gave: they win over what was kept.

    Returns
    -------
    IocSettings
        The settings in force.
    dict
        Starting texts of records by name: of every setpoint, and of the other records that autosave kept.

    Raises
    ------
    ConfigError
        What was kept does not fit its setting.
    """
    known = {name: one for name, one in setpoints(type(settings)).items() if one.setting.live}
    kept = {one.key: saved[name] for name, one in known.items() if name in saved and one.key not in given}
    values = {one.key: one.value(kept[one.key], AUTOSAVE) for one in known.values() if one.key in kept}
    in_force = changed(settings, values, AUTOSAVE, "correct or remove that setpoint")
    texts = {name: kept.get(one.key, str(one.shown(one.declared.value(settings)))) for name, one in known.items()}
    return in_force, {**saved, **texts}
