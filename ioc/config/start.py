"""What an IOC starts with: its configuration, the setpoints that autosave kept, and the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ptychostream.config import changed
from ptychostream.errors import ConfigError
from ptychostream.ioc.config.setpoints import Setpoint, setpoints
from ptychostream.ioc.config.settings import IocSettings

AUTOSAVE = "autosave file"
_REMEDY = "correct or remove that line"


class Begun(NamedTuple):
    """What an IOC starts with.

    Attributes
    ----------
    settings
        The settings in force.
    texts
        Starting texts of records by name: of every setpoint, and of the other records that autosave kept.
    passed_over
        Why values that autosave kept are not used, one sentence each.
    """

    settings: IocSettings
    texts: dict[str, str]
    passed_over: tuple[str, ...]


def begin(settings: IocSettings, saved: Mapping[str, str], given: Collection[str]) -> Begun:
    """What an IOC starts with: the configuration, then what autosave kept, then what the command line said.

    A value that autosave kept and that does not fit is passed over: the configuration's stays in force.

    Parameters
    ----------
    settings
        The configuration, command line included.
    saved
        Texts that autosave kept, by record name without prefix.
    given
        Dotted keys that the command line gave: they win over what was kept.
    """
    known = {name: one for name, one in setpoints(type(settings)).items() if one.setting.live}
    kept = {name: saved[name] for name, one in known.items() if name in saved and one.key not in given}
    in_force, refused = _restored(settings, {known[name]: text for name, text in kept.items()})
    texts = {
        name: kept[name] if name in kept and name not in refused else str(one.shown(one.declared.value(in_force)))
        for name, one in known.items()
    }
    return Begun(in_force, {**saved, **texts}, tuple(refused.values()))


def _restored(settings: IocSettings, kept: Mapping[Setpoint, str]) -> tuple[IocSettings, dict[str, str]]:
    """The settings with what was kept, and why values are left out, by record name.

    One setting may allow another, so that those which do not fit are tried again after the others.
    """
    values, refused = {}, {}
    for one, text in kept.items():
        try:
            values[one] = one.value(text, AUTOSAVE)
        except ConfigError as error:
            refused[one.record] = str(error)
    try:
        return changed(settings, {one.key: value for one, value in values.items()}, AUTOSAVE, _REMEDY), refused
    except ConfigError:
        pass
    while values:
        failed = {}
        for one, value in values.items():
            try:
                settings = changed(settings, {one.key: value}, f"{AUTOSAVE}, {one.record}", _REMEDY)
            except ConfigError as error:
                failed[one] = str(error)
        if len(failed) == len(values):
            return settings, {**refused, **{one.record: why for one, why in failed.items()}}
        values = {one: values[one] for one in failed}
    return settings, refused
