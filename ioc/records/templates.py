"""What is declared in Python, as EPICS templates say it."""

from __future__ import annotations

import re
from dataclasses import replace
from collections.abc import Mapping
from typing import Any

from ptychostream.config import Shown
from ptychostream.db.templates import STATES
from ptychostream.ioc.config.setpoints import Setpoint
from ptychostream.statements.record_text import STRING_BYTES

_TYPES = {bool: ("bi", "bo"), int: ("longin", "longout"), float: ("ai", "ao")}
_WIDE = ("int64in", "int64out")
"""Types of whole numbers that 32 bits do not hold. Clients of Channel Access, which has none, see doubles."""


def setting_text(one: Setpoint) -> str:
    """The records of a setting: the setpoint, and the readback where it shows the setting in force."""
    readback = ""
    if one.setting.readback:
        about = one.setting.readback_about or one.setting.about
        readback = shown_text(replace(one.setting, record=f"{one.record}_RBV", about=about), one.type, one.choices)
    return "\n".join(text for text in (_setpoint_text(one), readback) if text)


def shown_text(shown: Shown, kind: type, choices: tuple[Any, ...] = (), saved: bool = False) -> str:
    """The record that shows a value of type `kind`."""
    made, fields = _face(shown, kind, choices, out=False)
    if made == "waveform":
        fields |= {"MPST": "On Change", "APST": "On Change"}
    info = {"autosaveFields": "VAL"} if saved else {}
    return record_text(made, shown.record, {**fields, **shown.fields, "ASG": "READONLY"}, info)


def _setpoint_text(one: Setpoint) -> str:
    if not one.setting.live:
        return ""
    kind, fields = _face(one.setting, one.type, one.choices, out=True)
    if not isinstance(default := one.shown(one.declared.field.default), str):
        fields["VAL"] = default
    if "HOPR" in fields:
        fields["DRVL"], fields["DRVH"] = fields["LOPR"], fields["HOPR"]
    info = {"autosaveFields": "VAL", "python:put": snake(one.record)}
    if one.setting.slow:
        info["python:lane"] = "slow"
    return record_text(kind, one.record, {**fields, "PINI": "YES", "ASG": one.setting.access}, info)


def record_text(kind: str, name: str, fields: Mapping[str, object], info: Mapping[str, str] | None = None) -> str:
    """A record in a template's words."""
    info = dict(info or {})
    if fields.get("FTVL") == "CHAR":
        info["Q:form"] = "String"
    lines = [f'    field({key + ",":<5} "{_plain(value)}")' for key, value in fields.items()]
    lines += [f'    info({key}, "{text}")' for key, text in info.items()]
    return "\n".join([f'record({kind}, "$(P)$(R){name}") {{', *lines, "}", ""])


def snake(name: str) -> str:
    """`BatchSize` as `batch_size`, `Agent:Scans` as `agent_scans`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().replace(":", "_")


def _face(shown: Shown, kind: type, choices: tuple[Any, ...], out: bool) -> tuple[str, dict[str, object]]:
    """Record type, and the fields that setpoint and readback have alike."""
    fields: dict[str, object] = {"DESC": shown.about}
    states = shown.states or choices
    if kind is bool:
        fields["ZNAM"], fields["ONAM"] = states or ("No", "Yes")
    elif states:
        for number, (short, state) in enumerate(zip(STATES, states, strict=False)):
            fields |= {f"{short}VL": number, f"{short}ST": state}
        return "mbbo" if out else "mbbi", fields
    elif kind in _TYPES:
        if shown.egu:
            fields["EGU"] = shown.egu
        if kind is float:
            fields["PREC"] = shown.prec
        if shown.high is not None:
            fields["LOPR"], fields["HOPR"] = shown.low or 0, shown.high
    elif shown.length <= STRING_BYTES:
        return "stringout" if out else "stringin", fields
    else:
        return "waveform", {**fields, "FTVL": "CHAR", "NELM": shown.length}
    if kind is int and (shown.high or 0) >= 2**31:
        return _WIDE[out], fields
    return shown.kind or _TYPES[kind][out], fields


def _plain(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
